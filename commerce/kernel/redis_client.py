"""Connections to Redis, and the check that the server is as durable as the settings require."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis import exceptions
from redis._parsers.base import BaseParser
from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from commerce.kernel.errors import NotDurable, NotReady

MIN_VERSION = (6, 2)
ROLE_CHECK_INTERVAL_S = 1.0
"""Age in seconds after which a connection is checked before its next use: does it lead to the master?"""
_REPLICA = re.compile(r"slave\d+")
_ERROR_IN_SCRIPT = re.compile(r"Error running script .*: -([A-Z]+ .*)", re.DOTALL)
"""Redis 6.2 hides the code of a command's error in a script behind ERR; later versions do not."""

REDIS_NOT_NOW = (
    BusyLoadingError,
    ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)
"""Answers of a server that did nothing, because it is loading or no longer the master: retry later."""
REDIS_UNAVAILABLE = (exceptions.ConnectionError, exceptions.TimeoutError, *REDIS_NOT_NOW, OSError)
"""Errors while Redis is unreachable, loading or no longer the master: retry later."""


def open_redis(
    url: str, *, timeout_ms: int, connections: int, name: str, required_durability: tuple[str, int] | None = None
) -> Redis:
    """Open a client with its own pool.

    The client does not retry, because only the caller knows if a repeat is safe.

    A command waits for a free connection as long as for an answer, so more concurrent commands than connections are
    not an error.

    With `required_durability` (durability, replicas) every new connection checks the server before it sends a command,
    because the server after a failover may have other settings. A connection to a server that has become a replica is
    closed, and the next one goes to the new master.
    """

    async def connect_and_verify(connection: Connection) -> None:
        await connection.on_connect()
        if required_durability is not None:
            try:
                await verify_redis_durability(_send_over(connection), *required_durability)
            except NotReady:
                await connection.disconnect()
                raise

    options: dict[str, Any] = dict(parse_url(url))
    connection_class = options.pop("connection_class", Connection)
    pool = _MasterPool(
        **options,
        connection_class=type(f"Master{connection_class.__name__}", (_MasterConnection, connection_class), {}),
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


if TYPE_CHECKING:
    _AnyConnection = Connection
else:
    _AnyConnection = object


class _MasterConnection(_AnyConnection):
    """Mixed into a connection of any kind: it closes itself when the server says that it is a replica."""

    role_checked_at = 0.0

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            code_error = parse_error(str(error)) if type(error) is ResponseError else error
            if isinstance(code_error, ReadOnlyError):
                await self.disconnect(nowait=True)
            raise code_error from None


class _MasterPool(BlockingConnectionPool):
    """Hands out connections to a master only."""

    async def ensure_connection(self, connection: Any) -> None:
        was_open = connection.is_connected
        await super().ensure_connection(connection)
        now = monotonic()
        if was_open and now - connection.role_checked_at < ROLE_CHECK_INTERVAL_S:
            return
        connection.role_checked_at = now
        if was_open:
            await connection.send_command("INFO", "replication", check_health=False)
            if not is_master(await connection.read_response()):
                await connection.disconnect()
                await connection.connect()


def is_master(info: bytes) -> bool:
    """Tell from the answer to INFO whether the server is a master."""
    return _parse_info(info).get("role") == "master"


def parse_error(text: str) -> ResponseError:
    """Build the exception of an error reply, by the code that the command gave, also from within a script."""
    in_script = _ERROR_IN_SCRIPT.search(text)
    parser: Any = BaseParser  # its method has no types
    error: ResponseError = parser.parse_error(in_script[1] if in_script else text)
    return error


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
