"""Clients that send bytes over their own connections and repeat requests as the API demands.

They cost little CPU, so that the shop is the bottleneck: a full HTTP client would keep half of the machine busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol, cast

_REPLY_TIMEOUT_S = 20.0
_RETRY_INTERVAL_S = 0.05
_MAX_DURATION_S = 90.0
_MIN_REQUESTS, _MAX_REQUESTS = 50, 400


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response; `head` is in lower case."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> str | None:
        """Return the value of a header. Its name is in lower case."""
        _, separator, remainder = self.head.partition(b"\r\n" + name + b":")
        return remainder.partition(b"\r\n")[0].strip().decode() if separator else None


class RetriedRequest(Protocol):
    """A request that a client repeats unchanged until its outcome is known."""

    def encode(self) -> bytes:
        """Return the bytes to send. Called before each attempt."""

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        """Handle a reply that took so many seconds.

        Returns the seconds to wait before the request is repeated, or None if the outcome is known."""

    def on_connection_lost(self) -> None:
        """Handle an attempt that was sent and got no reply, so that its outcome is unknown."""

    def on_connection_refused(self) -> None:
        """Handle an attempt that was not sent."""

    def on_end(self, is_outcome_known: bool) -> None:
        """Handle the end of all attempts; without a known outcome the client gave up."""


class _Connection(asyncio.Protocol):
    """A connection for one request at a time, whose replies must have a Content-Length."""

    def __init__(self, requests_left: int) -> None:
        self.requests_left = requests_left
        self._buffer = b""
        self._reply: asyncio.Future[Reply] | None = None
        self._loop = asyncio.get_running_loop()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def send_request(self, request: bytes) -> Reply:
        """Send a request and return the reply.

        Raises `OSError` or `TimeoutError` if no reply comes; the connection cannot be used afterwards."""
        if self.closed:
            raise ConnectionResetError
        self.requests_left -= 1
        self._reply = self._loop.create_future()
        self._transport.write(request)
        async with asyncio.timeout(_REPLY_TIMEOUT_S):
            return await self._reply

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._reply is None or self._reply.done():
            return
        head = self._buffer[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        length = end + 4 + (int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
        if len(self._buffer) < length:
            return
        body, self._buffer = self._buffer[end + 4 : length], self._buffer[length:]
        if b"\r\nconnection: close\r\n" in head:
            self.requests_left = 0
        self._reply.set_result(Reply(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionResetError())

    def close(self) -> None:
        self.closed = True
        self._transport.abort()


class RetryingClient:
    """Sends requests over one connection, and replaces it from time to time.

    So gateways that were restarted get requests again."""

    def __init__(self, port: int, rng: Random) -> None:
        self._port = port
        self._rng = rng
        self._connection: _Connection | None = None

    async def run(self, request: RetriedRequest) -> None:
        """Repeat a request until its outcome is known, or give up after much longer than a restart takes."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MAX_DURATION_S
        while loop.time() < deadline:
            wait_s = await self._attempt(request)
            if wait_s is None:
                return request.on_end(True)
            await asyncio.sleep(wait_s)
        return request.on_end(False)

    async def _attempt(self, request: RetriedRequest) -> float | None:
        loop = asyncio.get_running_loop()
        try:
            connection = await self._connect()
        except OSError:
            request.on_connection_refused()
            return _RETRY_INTERVAL_S * self._rng.uniform(1, 2)
        data = request.encode()
        sent_at = loop.time()
        try:
            reply = await connection.send_request(data)
        except (OSError, TimeoutError):
            self.close()
            request.on_connection_lost()
            return _RETRY_INTERVAL_S * self._rng.uniform(1, 2)
        return request.on_reply(reply, loop.time() - sent_at)

    async def _connect(self) -> _Connection:
        connection = self._connection
        if connection is not None and connection.requests_left > 0 and not connection.closed:
            return connection
        self.close()
        loop, requests = asyncio.get_running_loop(), self._rng.randint(_MIN_REQUESTS, _MAX_REQUESTS)
        _, self._connection = await loop.create_connection(lambda: _Connection(requests), "127.0.0.1", self._port)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def run_requests(
    port: int,
    rng: Random,
    connections: int,
    requests: Iterator[RetriedRequest],
    follow_up: Callable[[RetriedRequest], RetriedRequest | None] = lambda request: None,
) -> None:
    """Run all requests over so many connections without a pause.

    After each request its client runs the one that `follow_up` returns, if any.
    """

    async def run_client() -> None:
        client = RetryingClient(port, rng)
        try:
            for first in requests:
                request: RetriedRequest | None = first
                while request is not None:
                    await client.run(request)
                    request = follow_up(request)
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(run_client())
