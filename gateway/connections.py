"""The edge: aiohttp's connection with our limits and our form of errors, and the books on all connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from commerce.kernel.clock import Clock
from config.settings import Limits
from gateway import metrics, problems

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 2\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
)
_FULL_BODY = (
    b'{"type":"/docs#problem-overloaded","title":"Too much to do right now, nothing was done","status":503,'
    b'"code":"overloaded","detail":"this gateway has all the connections it takes; try again in a moment"}'
)
SERVER = "floodgate"
_SWEEP_S = 0.25


class Client(Protocol):
    """A connection that is in the books."""

    def check_time(self, now: float) -> None:
        """Called several times a second: cut off who is too slow. `now` is the event loop's time."""

    def end(self) -> None:
        """The process is to end: close when idle, else after the answer in hand."""

    def cut(self) -> None:
        """Close at once."""


class Connections:
    """The connections of one port of the process, `limits.connections` at most unless `most` says otherwise.

    Each port has a book of its own, so that no crowd at one keeps anybody from another.
    """

    def __init__(self, limits: Limits, clock: Clock, *, port: str = "public", most: int | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._most = limits.connections if most is None else most
        self._gauge = metrics.CONNECTIONS.labels(port)
        self._clients: set[Client] = set()
        self.ending = False

    @property
    def open(self) -> int:
        return len(self._clients)

    def admit(self, client: Client, transport: asyncio.BaseTransport) -> bool:
        """Enter a new connection into the books, or turn it away if there are too many."""
        if len(self._clients) >= self._most or self.ending:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one, though not by inheritance
            stream.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
            stream.close()
            return False
        self._clients.add(client)
        return True

    def leave(self, client: Client) -> None:
        """It is closed."""
        self._clients.discard(client)

    async def watch(self) -> None:
        """Look after everybody's time until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for client in list(self._clients):
                client.check_time(now)
            self._gauge.set(len(self._clients))
            await self._clock.sleep(_SWEEP_S)

    async def end(self, timeout_s: float) -> None:
        """Let answers in hand be given, then close; after the time all that are left are cut."""
        self.ending = True
        for client in list(self._clients):
            client.end()
        deadline = self._clock.monotonic() + timeout_s
        while self._clients and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.02)
        for client in list(self._clients):
            client.cut()

    def ordinary(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """What `create_server` makes connections with where aiohttp answers everything."""
        server = runner.server
        assert server is not None
        return lambda: OrdinaryClient(self, server)


def handler_options(limits: Limits) -> dict[str, Any]:
    """How aiohttp's connection is set up. Idle and slow clients are ours to cut off, not its."""
    return {
        "keepalive_timeout": 86_400.0,
        "max_line_size": limits.header_line_bytes,
        "max_field_size": limits.header_line_bytes,
        "max_headers": limits.headers_per_request,
        "lingering_time": 1.0,
        "auto_decompress": False,
        "access_log": None,
    }


class Handler(RequestHandler):
    """aiohttp's own connection handler, which tells when it has answered, and answers in our form."""

    __slots__ = ("_answered",)

    def __init__(self, server: web.Server, limits: Limits, answered: Callable[[], None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **handler_options(limits))
        self._answered = answered

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, of which it may have a part."""
        return self._waiter is not None and not self._request_in_progress

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send it, and tell so once this request is behind us."""
        done = await super().finish_response(request, resp, start_time)
        self._loop.call_soon(self._answered)
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or a bug outside any handler, as a problem. Closes the connection."""
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
        if isinstance(exc, LineTooLong):
            status, message = 431, "a line of the request's head is too long"
        first_line = (message or "the request is not valid HTTP").strip().splitlines()[0]
        response = problems.internal_error(None) if status >= 500 else problems.from_status(status, first_line)
        response.headers["Server"] = SERVER
        response.force_close()
        return response


class OrdinaryClient(asyncio.Protocol):
    """A connection on which aiohttp answers everything; the time and the books are kept here."""

    def __init__(self, connections: Connections, server: web.Server) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._handler = Handler(server, connections.limits, self._answered)
        self._since = self._loop.time()
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._admitted = self._connections.admit(self, transport)
        if self._admitted:
            self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self._handler.data_received(data)

    def eof_received(self) -> None:
        if self._admitted:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._admitted:
            self._connections.leave(self)
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def _answered(self) -> None:
        self._since = self._loop.time()
        if self._connections.ending:
            self._transport.close()

    def check_time(self, now: float) -> None:
        if self._handler.idle and now - self._since > self._connections.limits.request_head_timeout_s:
            self._transport.close()

    def end(self) -> None:
        if self._handler.idle:
            self._transport.close()

    def cut(self) -> None:
        self._transport.abort()
