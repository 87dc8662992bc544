"""Connections to Redis, and the check that the server is as durable as the settings require."""

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
"""Errors while Redis is unreachable, loading or no longer the master: retry later."""


def open_redis(
    url: str, *, timeout_ms: int, connections: int, name: str, required_durability: tuple[str, int] | None = None
) -> Redis:
    """Open a client with its own pool.

    The client does not retry, because only the caller knows if a repeat is safe.

    A command waits for a free connection as long as for an answer, so more concurrent commands than connections are
    not an error.

    With `required_durability` (durability, replicas) every new connection checks the server before it sends a command,
    because the server after a failover may have other settings.
    """

    async def connect_and_verify(connection: Connection) -> None:
        await connection.on_connect()
        if required_durability is not None:
            try:
                await verify_redis_durability(_send_over(connection), *required_durability)
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
        redis_connect_func=connect_and_verify,
    )
    return Redis.from_pool(pool)


async def check_redis(client: Redis, durability: str, replicas: int) -> None:
    """Check a server over a connection of the pool.

    Raises `NotReady` if it does not answer or is too old, `NotDurable` if it is less durable than required.
    """
    try:
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        try:
            await verify_redis_durability(_send_over(connection), durability, replicas)
        finally:
            await pool.release(connection)
    except (RedisError, OSError) as error:
        raise NotReady(f"cannot reach Redis: {error}") from error


SendCommand = Callable[..., Awaitable[Any]]


async def verify_redis_durability(send: SendCommand, durability: str, replicas: int) -> None:
    """Check a server through `send(*command)`.

    Raises `NotReady` if the server is too old, `NotDurable` with every setting that is less durable than required.
    """
    try:
        info = _parse_info(await send("INFO"))
        version = info["redis_version"]
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
            raise NotReady(
                f"cannot use Redis {version}: it is too old; install {'.'.join(map(str, MIN_VERSION))} or newer"
            )
        config = _parse_config(await send("CONFIG", "GET", "*append*")) | _parse_config(
            await send("CONFIG", "GET", "maxmemory*")
        )
    except ResponseError as error:
        raise NotDurable(
            f"cannot check durability {durability!r}: Redis refuses to show its settings ({error}); "
            "allow this user INFO and CONFIG GET"
        ) from None
    if problems := _durability_problems(config, info, durability, replicas):
        raise NotDurable(f"cannot use Redis with durability {durability!r}: {'; '.join(problems)}")


def _send_over(connection: Connection) -> SendCommand:
    async def send(*command: str) -> Any:
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()

    return send


def _parse_info(reply: bytes) -> dict[str, str]:
    """Parse the answer to INFO."""
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)


def _parse_config(reply: list[bytes]) -> dict[str, str]:
    """Parse the answer to CONFIG GET."""
    texts = [part.decode() for part in reply]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _durability_problems(config: dict[str, str], info: dict[str, str], durability: str, replicas: int) -> list[str]:
    problems = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        problems.append("it may evict stock and orders (set maxmemory-policy to noeviction)")
    if info.get("role") != "master":
        problems.append("it is a replica (give the master's address)")
    online = sum("state=online" in value for name, value in info.items() if _REPLICA.fullmatch(name))
    if durability == "replicated" and online < replicas:
        problems.append(f"it has {online} of {replicas} replicas")
    if durability == "fsync":
        if config.get("appendonly") != "yes":
            problems.append("it writes no append-only file (set appendonly to yes)")
        if config.get("appendfsync") != "always":
            problems.append("it answers before the command is on the disk (set appendfsync to always)")
        if config.get("no-appendfsync-on-rewrite") == "yes":
            problems.append("it stops syncing during a rewrite (set no-appendfsync-on-rewrite to no)")
        if info.get("aof_last_write_status", "ok") != "ok":
            problems.append("its last write to the append-only file failed (is the disk full?)")
    return problems
