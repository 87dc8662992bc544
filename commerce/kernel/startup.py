"""Both servers that every process needs, connected and checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from redis.asyncio import Redis

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
    """The settings that name the servers and bound what is asked of them."""

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
    settings: ConnectionSettings, name: str, *, keep: bool = True, more_connections: int = 0, wait_ms: int = 0
) -> AsyncIterator[tuple[Redis, Database]]:
    """Redis and Postgres as `name`, migrated. Raises `NotReady`.

    `keep`: they must keep what the setting `durability` promises, now and whenever they are connected to again. Who
    reads and waits at Redis needs `more_connections`, each for `wait_ms` longer.
    """
    limits, must_keep = settings.limits, (settings.durability, settings.replicas) if keep else None
    async with AsyncExitStack() as stack:
        redis = open_redis(
            settings.redis(),
            timeout_ms=limits.redis_call_timeout_ms + wait_ms,
            connections=limits.redis_connections + more_connections,
            name=name,
            must_keep=must_keep,
        )
        stack.push_async_callback(redis.aclose)
        if must_keep is not None:
            await check_redis(redis, *must_keep)
        db = await open_database(
            settings.database(),
            name=name,
            connections=limits.database_connections,
            timeout_s=limits.database_timeout_s,
            must_keep=settings.durability if keep else None,
        )
        stack.push_async_callback(db.close)
        async with db.connection() as connection:
            await check_migrated(connection)
        yield redis, db
