"""Clients that send bytes over connections of their own and repeat what is unclear, as the API tells them to.

Fast enough that the shop is what is slow: with a full HTTP client half of the machine would be busy with the crowd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast

_ANSWER_S = 20.0
_AGAIN_S = 0.05
_GIVE_UP_S = 90.0
_FEWEST, _MOST = 50, 400


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that was read to its end; `head` is in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> str | None:
        """The value of a header, whose name is given in lower case."""
        _, found, rest = self.head.partition(b"\r\n" + name + b":")
        return rest.partition(b"\r\n")[0].strip().decode() if found else None


class RetriedRequest(Protocol):
    """Something a client does until its outcome is clear: always the same request."""

    def request(self) -> bytes:
        """What to send; called before each attempt."""

    def answered(self, reply: Reply, seconds: float) -> float | None:
        """An answer was read after so many seconds: how long to wait before the request is repeated; None: done."""

    def broke(self) -> None:
        """No answer came to what was sent, so nobody knows what became of it."""

    def unheard(self) -> None:
        """Nobody listens; nothing was sent."""

    def ended(self, clear: bool) -> None:
        """No further attempt will be made; `clear` is false if the client gave up."""


class _Connection(asyncio.Protocol):
    """One request at a time. Answers have a Content-Length; that is all of HTTP it knows."""

    def __init__(self, uses: int) -> None:
        self.uses = uses
        self._buffer = b""
        self._answer: asyncio.Future[Reply] | None = None
        self._loop = asyncio.get_running_loop()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> Reply:
        """Raises `OSError` or `TimeoutError` when no answer comes; the connection is of no use then."""
        if self.closed:
            raise ConnectionResetError
        self.uses -= 1
        self._answer = self._loop.create_future()
        self._transport.write(request)
        async with asyncio.timeout(_ANSWER_S):
            return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = self._buffer[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        need = end + 4 + (int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
        if len(self._buffer) < need:
            return
        body, self._buffer = self._buffer[end + 4 : need], self._buffer[need:]
        if b"\r\nconnection: close\r\n" in head:
            self.uses = 0
        self._answer.set_result(Reply(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    def close(self) -> None:
        self.closed = True
        self._transport.abort()


class RetryingClient:
    """Keeps one connection, and takes a new one now and then, so that a gateway that came back gets work again."""

    def __init__(self, port: int, rng: Random) -> None:
        self._port = port
        self._rng = rng
        self._connection: _Connection | None = None

    async def insist(self, errand: RetriedRequest) -> None:
        """Try until the outcome is clear, or give up after much longer than any restart takes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _GIVE_UP_S
        while loop.time() < deadline:
            wait_s = await self._attempt(errand)
            if wait_s is None:
                return errand.ended(True)
            await asyncio.sleep(wait_s)
        return errand.ended(False)

    async def _attempt(self, errand: RetriedRequest) -> float | None:
        loop = asyncio.get_running_loop()
        try:
            connection = await self._connect()
        except OSError:
            errand.unheard()
            return _AGAIN_S * self._rng.uniform(1, 2)
        request = errand.request()
        sent = loop.time()
        try:
            reply = await connection.ask(request)
        except (OSError, TimeoutError):
            self.close()
            errand.broke()
            return _AGAIN_S * self._rng.uniform(1, 2)
        return errand.answered(reply, loop.time() - sent)

    async def _connect(self) -> _Connection:
        if self._connection is not None and self._connection.uses > 0 and not self._connection.closed:
            return self._connection
        self.close()
        loop, uses = asyncio.get_running_loop(), self._rng.randint(_FEWEST, _MOST)
        _, self._connection = await loop.create_connection(lambda: _Connection(uses), "127.0.0.1", self._port)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def run_requests(
    port: int,
    rng: Random,
    connections: int,
    errands: Iterator[RetriedRequest],
    after: Callable[[RetriedRequest], RetriedRequest | None] = lambda errand: None,
) -> None:
    """Run errands over so many connections without a pause until there are no more.

    `after` may send a client on another errand at once.
    """

    async def run() -> None:
        client = RetryingClient(port, rng)
        try:
            for errand in errands:
                next_: RetriedRequest | None = errand
                while next_ is not None:
                    await client.insist(next_)
                    next_ = after(next_)
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(run())
