"""One connection to Redis that many concurrent commands share; Redis answers them in their order.

For the hot path, where a pooled client costs more than the command itself. Commands are packed and replies are parsed
by hiredis. Every new connection is checked against `required_durability` before the first command.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import SSLConnection, parse_url

from commerce.kernel.errors import NotReady
from commerce.kernel.redis_client import ROLE_CHECK_INTERVAL_S, is_master, parse_error, verify_redis_durability

Argument = bytes | str | int


class RedisConnectionLost(exceptions.ConnectionError):
    """The connection is missing or broke. `sent` is true if a command may have reached Redis."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class RedisMultiplexer:
    """A shared connection to the master that is opened on first use and reopened after a failure.

    `timeout_s` limits connecting and each answer. Once a second the server is asked whether it still is the master; the
    connection to a replica is dropped.
    """

    def __init__(
        self, url: str, *, timeout_s: float, name: str, required_durability: tuple[str, int] | None = None
    ) -> None:
        self._options = parse_url(url)
        self._timeout_s = timeout_s
        self._name = name
        self._required_durability = required_durability
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._role_check: asyncio.Task[None] | None = None

    async def execute_command(self, *command: Argument) -> Any:
        """Send a command and return its answer.

        Raises `RedisConnectionLost`; `redis.exceptions.TimeoutError` if no answer comes in time, which also drops the
        connection; `NotReady` if the server is less durable than required; redis's errors if the server refuses the
        command.
        """
        connection = await self._open_connection()
        return await connection.execute(_pack(command), self._timeout_s)

    async def pin(self) -> PinnedConnection:
        """Return the present connection, for commands that must reach one server or none.

        Raises as `execute_command` does.
        """
        return PinnedConnection(await self._open_connection(), self._timeout_s)

    async def close(self) -> None:
        """Drop the connection. Pending commands raise `RedisConnectionLost`."""
        if self._connection is not None:
            self._connection.drop("the client was closed")

    async def _open_connection(self) -> _Connection:
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._connect()
        now = monotonic()
        if now - connection.role_checked_at >= ROLE_CHECK_INTERVAL_S:
            connection.role_checked_at = now
            self._role_check = asyncio.create_task(connection.check_role(self._timeout_s))
        return connection

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.closed:
                return self._connection
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._open()
                    await self._authenticate(connection)
            except (OSError, TimeoutError, exceptions.TimeoutError) as error:
                raise RedisConnectionLost(f"cannot connect: {error or 'no answer'}", sent=False) from None
            except RedisConnectionLost as error:
                raise RedisConnectionLost(f"cannot connect: {error}", sent=False) from None
            self._connection = connection
            return connection

    async def _open(self) -> _Connection:
        loop, options = asyncio.get_running_loop(), self._options
        factory = cast(Callable[[], asyncio.Protocol], _Connection)
        protocol: object
        if path := options.get("path"):
            _, protocol = await loop.create_unix_connection(factory, path)
        else:
            tls = _tls(options)
            host, port = options.get("host", "localhost"), int(options.get("port", 6379))
            _, protocol = await loop.create_connection(factory, host, port, ssl=tls)
        return cast(_Connection, protocol)

    async def _authenticate(self, connection: _Connection) -> None:
        """Authenticate, select the database, set the client name and verify the durability."""

        async def send(*command: Argument) -> Any:
            return await connection.execute(_pack(command), self._timeout_s)

        try:
            if password := self._options.get("password"):
                user = self._options.get("username")
                await send("AUTH", *([user] if user else []), password)
            if database := self._options.get("db"):
                await send("SELECT", database)
            await send("CLIENT", "SETNAME", f"floodgate-{self._name}")
            if self._required_durability is not None:
                await verify_redis_durability(send, *self._required_durability)
        except exceptions.ResponseError as error:
            connection.drop(str(error))
            raise NotReady(f"cannot log in to Redis: {error}") from None
        except BaseException:
            connection.drop("the check of the server failed")
            raise


class PinnedConnection:
    """One connection of a multiplexer. Once it is lost, every command raises `RedisConnectionLost`."""

    def __init__(self, connection: _Connection, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    async def execute_command(self, *command: Argument) -> Any:
        """Send a command and return its answer, or raise as `RedisMultiplexer.execute_command`."""
        return await self._connection.execute(_pack(command), self._timeout_s)


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """Build the TLS context of a `rediss://` URL as redis-py does.

    The files are read again for each connection, so that renewed certificates are used.
    """
    if options.get("connection_class") is not SSLConnection:
        return None
    ssl_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    context: ssl.SSLContext = SSLConnection(**ssl_options).ssl_context.get()
    return context


def _pack(command: tuple[Argument, ...]) -> bytes:
    pack_command: Any = hiredis.pack_command  # its stub has commands of one word only
    return cast(bytes, pack_command(command))


class _Connection:
    """One connection with its pending commands in the order of sending.

    A protocol of asyncio, though not by inheritance: that makes a compiled class slow.
    """

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self.role_checked_at = monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def execute(self, command: bytes, timeout_s: float) -> Any:
        if self.closed:
            raise RedisConnectionLost("the connection is closed", sent=False)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append(answer)
        self._transport.write(command)
        timer = self._loop.call_later(timeout_s, self._time_out, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    async def check_role(self, timeout_s: float) -> None:
        """Drop the connection if it leads to a replica, as that of a demoted master does."""
        with suppress(exceptions.RedisError):
            if not is_master(await self.execute(_pack(("INFO", "replication")), timeout_s)):
                self.drop("the server became a replica")

    def _time_out(self, answer: asyncio.Future[Any]) -> None:
        """Fail a command and drop the connection.

        Answers come in order, so without this one the following answers could not be assigned.
        """
        if not answer.done():
            answer.set_exception(exceptions.TimeoutError("no answer from Redis in time"))
            self.drop("an answer did not come in time")

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        while (reply := reader.gets()) is not _INCOMPLETE:
            answer = self._pending.popleft()
            if answer.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                error = parse_error(str(reply))
                answer.set_exception(error)
                if isinstance(error, exceptions.ReadOnlyError):
                    self.drop("the server became a replica")
                    return
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection broke: {exc or 'closed by Redis'}")

    def drop(self, reason: str) -> None:
        self._transport.abort()
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        self.closed = True
        while self._pending:
            answer = self._pending.popleft()
            if not answer.done():
                answer.set_exception(RedisConnectionLost(reason, sent=True))


_INCOMPLETE = object()
