"""Connects and checks the two servers that every process needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from redis.asyncio import Redis

from commerce.kernel.connection_shares import ConnectionShares, undivided
from commerce.kernel.migrations import check_migrated
from commerce.kernel.postgres import Database, open_database
from commerce.kernel.redis_client import check_redis, open_redis


class _Limits(Protocol):
    @property
    def redis_call_timeout_ms(self) -> int: ...
    @property
    def redis_connections(self) -> int: ...
    @property
    def database_connections(self) -> int: ...
    @property
    def database_timeout_s(self) -> float: ...


class ConnectionSettings(Protocol):
    """Addresses of the servers, their required durability, and limits of the connections."""

    @property
    def limits(self) -> _Limits: ...
    @property
    def durability(self) -> str: ...
    @property
    def replicas(self) -> int: ...
    def redis(self) -> str: ...
    def database(self) -> str: ...


@asynccontextmanager
async def connect_databases(
    settings: ConnectionSettings,
    name: str,
    *,
    verify_durability: bool = True,
    extra_connections: int = 0,
    extra_timeout_ms: int = 0,
    shares: ConnectionShares | None = None,
) -> AsyncIterator[tuple[Redis, Database]]:
    """Open Redis and Postgres as client `name` and check that the database is migrated. Raises `NotReady`.

    With `verify_durability` every new connection is checked against the setting `durability`. A process with blocking
    reads of Redis needs `extra_connections`, each with `extra_timeout_ms` more time. `shares` divide the connections of
    Postgres between uses; without them `limits.database_connections` serve all alike.
    """
    limits = settings.limits
    required_durability = (settings.durability, settings.replicas) if verify_durability else None
    async with AsyncExitStack() as stack:
        redis = open_redis(
            settings.redis(),
            timeout_ms=limits.redis_call_timeout_ms + extra_timeout_ms,
            connections=limits.redis_connections + extra_connections,
            name=name,
            required_durability=required_durability,
        )
        stack.push_async_callback(redis.aclose)
        if required_durability is not None:
            await check_redis(redis, *required_durability)
        db = await open_database(
            settings.database(),
            name=name,
            shares=shares or undivided(limits.database_connections),
            timeout_s=limits.database_timeout_s,
            required_durability=settings.durability if verify_durability else None,
        )
        stack.push_async_callback(db.close)
        async with db.connection() as connection:
            await check_migrated(connection)
        yield redis, db
