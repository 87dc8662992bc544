"""One multiplexed connection to Redis: many commands under way at once, answered in their order.

For the hot path, where a pooled client costs more than the command itself. It packs and parses with hiredis. Every
new connection is checked (`must_keep`) before anything is sent over it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import hiredis
from redis import exceptions
from redis.asyncio.connection import SSLConnection, parse_url

from commerce.kernel.errors import NotReady
from commerce.kernel.redis_client import verify_redis_durability

Argument = bytes | str | int
_TRY_LATER = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")


class RedisConnectionLost(exceptions.ConnectionError):
    """There is no connection, or it broke. `sent` says whether a command may have reached Redis."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class RedisMultiplexer:
    """Connects when it is first needed and again after a failure; `timeout_s` bounds connecting and each answer."""

    def __init__(self, url: str, *, timeout_s: float, name: str, must_keep: tuple[str, int] | None = None) -> None:
        self._options = parse_url(url)
        self._timeout_s = timeout_s
        self._name = name
        self._must_keep = must_keep
        self._wire: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def execute_command(self, *command: Argument) -> Any:
        """Send a command and wait for its answer.

        Raises `LinkDown`; `redis.exceptions.TimeoutError` if no answer came in time, upon which the connection is
        dropped; `NotReady` if the server does not keep what it must; redis's errors for what the server refuses.
        """
        wire = self._wire
        if wire is None or wire.closed:
            wire = await self._connect()
        return await wire.execute(_packed(command), self._timeout_s)

    async def close(self) -> None:
        """Drop the connection; whoever waits for an answer gets `LinkDown`."""
        if self._wire is not None:
            self._wire.drop("the link was closed")

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._wire is not None and not self._wire.closed:
                return self._wire
            try:
                async with asyncio.timeout(self._timeout_s):
                    wire = await self._open()
                    await self._greet(wire)
            except (OSError, TimeoutError, exceptions.TimeoutError) as error:
                raise RedisConnectionLost(f"cannot connect: {error or 'no answer'}", sent=False) from None
            except RedisConnectionLost as error:
                raise RedisConnectionLost(f"cannot connect: {error}", sent=False) from None
            self._wire = wire
            return wire

    async def _open(self) -> _Connection:
        loop, options = asyncio.get_running_loop(), self._options
        if path := options.get("path"):
            _, wire = await loop.create_unix_connection(_Connection, path)
            return wire
        tls = _tls(options)
        host, port = options.get("host", "localhost"), int(options.get("port", 6379))
        _, wire = await loop.create_connection(_Connection, host, port, ssl=tls)
        return wire

    async def _greet(self, wire: _Connection) -> None:
        """Say who we are, and look whether the server is what it should be."""

        async def ask(*command: Argument) -> Any:
            return await wire.execute(_packed(command), self._timeout_s)

        try:
            if password := self._options.get("password"):
                user = self._options.get("username")
                await ask("AUTH", *([user] if user else []), password)
            if database := self._options.get("db"):
                await ask("SELECT", database)
            await ask("CLIENT", "SETNAME", f"floodgate-{self._name}")
            if self._must_keep is not None:
                await verify_redis_durability(ask, *self._must_keep)
        except exceptions.ResponseError as error:
            wire.drop(str(error))
            raise NotReady(f"Redis does not let us in: {error}") from None
        except BaseException:
            wire.drop("it was not what it should be")
            raise


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext | None:
    """For `rediss://` what redis-py makes of the same URL; read anew each time, so that renewed files count."""
    if options.get("connection_class") is not SSLConnection:
        return None
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    context: ssl.SSLContext = SSLConnection(**given).ssl_context.get()
    return context


def _packed(command: tuple[Argument, ...]) -> bytes:
    pack: Any = hiredis.pack_command  # its stub knows commands of one word only
    return cast(bytes, pack(command))


class _Connection(asyncio.Protocol):
    """The connection itself."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def execute(self, command: bytes, timeout_s: float) -> Any:
        if self.closed:
            raise RedisConnectionLost("the connection is closed", sent=False)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(command)
        timer = self._loop.call_later(timeout_s, self._too_late, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    def _too_late(self, answer: asyncio.Future[Any]) -> None:
        """Answers come in order, so without this one there is no telling what the next belongs to."""
        if not answer.done():
            answer.set_exception(exceptions.TimeoutError("no answer from Redis in time"))
            self.drop("an answer did not come in time")

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        while (reply := reader.gets()) is not _NOTHING:
            answer = self._waiting.popleft()
            if answer.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                answer.set_exception(_error(str(reply)))
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection broke: {exc or 'closed by Redis'}")

    def drop(self, why: str) -> None:
        self._transport.abort()
        self._fail(why)

    def _fail(self, why: str) -> None:
        self.closed = True
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(RedisConnectionLost(why, sent=True))


_NOTHING = object()


def _error(message: str) -> Exception:
    """A reply that is an error, as redis-py would raise it."""
    kind = message.split(" ", 1)[0]
    if kind in _TRY_LATER:
        return exceptions.BusyLoadingError(message)
    if kind == "NOSCRIPT":
        return exceptions.NoScriptError(message)
    if kind == "OOM":
        return exceptions.OutOfMemoryError(message)
    return exceptions.ResponseError(message)
