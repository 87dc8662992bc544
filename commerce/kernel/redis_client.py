"""Connections to Redis, and the check that the server really is as safe as the settings claim."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from commerce.kernel.errors import NotDurable, NotReady

MIN_VERSION = (6, 2)
_REPLICA = re.compile(r"slave\d+")

REDIS_UNAVAILABLE = (exceptions.ConnectionError, exceptions.TimeoutError, BusyLoadingError, ReadOnlyError, OSError)
"""What it looks like when Redis is away, loading or no longer the master: try again later."""


def open_redis(
    url: str, *, timeout_ms: int, connections: int, name: str, must_keep: tuple[str, int] | None = None
) -> Redis:
    """A client with its own pool. It never retries by itself: whoever calls knows what a repeat means.

    A command waits for a free connection as long as for an answer: more commands at once than there are connections
    is no failure of Redis.

    With `must_keep` (durability, replicas) every new connection looks at the server before anything is sent over it:
    the server that comes back after a failure need not be the one that went away.
    """

    async def verified(connection: Connection) -> None:
        await connection.on_connect()
        if must_keep is not None:
            try:
                await verify_redis_durability(_asker(connection), *must_keep)
            except NotReady:
                await connection.disconnect()
                raise

    pool = BlockingConnectionPool.from_url(
        url,
        timeout=timeout_ms / 1000,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
        max_connections=connections,
        client_name=f"floodgate-{name}",
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        redis_connect_func=verified,
    )
    return Redis.from_pool(pool)


async def check_redis(client: Redis, durability: str, replicas: int) -> None:
    """Raise `NotReady` for a server that is too old or evicts, `NotDurable` for one that keeps less than promised."""
    try:
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        try:
            await verify_redis_durability(_asker(connection), durability, replicas)
        finally:
            await pool.release(connection)
    except (RedisError, OSError) as error:
        raise NotReady(f"Redis does not answer: {error}") from error


Ask = Callable[..., Awaitable[Any]]


async def verify_redis_durability(ask: Ask, durability: str, replicas: int) -> None:
    """Look at a server through `ask(*command)`. Raises `NotReady` or `NotDurable` with all that is wrong."""
    try:
        info = _lines(await ask("INFO"))
        version = info["redis_version"]
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
            raise NotReady(f"Redis {version} is too old: Floodgate needs {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer")
        config = _pairs(await ask("CONFIG", "GET", "*append*")) | _pairs(await ask("CONFIG", "GET", "maxmemory*"))
    except ResponseError as error:
        raise NotDurable(
            f"Redis does not let us look at its settings ({error}), so durability {durability!r} cannot be checked: "
            "allow this user INFO and CONFIG GET"
        ) from None
    if faults := _faults(config, info, durability, replicas):
        raise NotDurable(f"Redis does not keep what durability {durability!r} promises: {'; '.join(faults)}")


def _asker(connection: Connection) -> Ask:
    async def ask(*command: str) -> Any:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()

    return ask


def _lines(reply: bytes) -> dict[str, str]:
    """INFO's text."""
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)


def _pairs(reply: list[bytes]) -> dict[str, str]:
    """CONFIG GET's list."""
    texts = [part.decode() for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _faults(config: dict[str, str], info: dict[str, str], durability: str, replicas: int) -> list[str]:
    faults = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        faults.append("it may evict stock and orders (set maxmemory-policy to noeviction)")
    if info.get("role") != "master":
        faults.append("it is a replica (give the master's address)")
    online = sum("state=online" in value for name, value in info.items() if _REPLICA.fullmatch(name))
    if durability == "replicated" and online < replicas:
        faults.append(f"it has {online} of {replicas} replicas")
    if durability == "fsync":
        if config.get("appendonly") != "yes":
            faults.append("it writes no append-only file (set appendonly to yes)")
        if config.get("appendfsync") != "always":
            faults.append("it answers before the disk has it (set appendfsync to always)")
        if config.get("no-appendfsync-on-rewrite") == "yes":
            faults.append("it stops syncing during a rewrite (set no-appendfsync-on-rewrite to no)")
        if info.get("aof_last_write_status", "ok") != "ok":
            faults.append("its last write to the append-only file failed (is the disk full?)")
    return faults
