"""The edge: aiohttp's connection with our limits and our form of errors, and the books on all connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from commerce.kernel.clock import Clock
from config.settings import LimitSettings
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
_AT_ONCE = 100
"""connections looked after before orders have their turn: ten thousand at once would hold everybody up"""


class ManagedConnection(Protocol):
    """A connection that is in the books."""

    def enforce_timeouts(self, now: float) -> None:
        """Called several times a second: cut off who is too slow. `now` is the event loop's time."""

    def close_gracefully(self) -> None:
        """The process is to end: close when idle, else after the answer in hand."""

    def abort(self) -> None:
        """Close at once."""


class ConnectionRegistry:
    """The connections of one port of the process, `limits.connections` at most unless `most` says otherwise.

    Each port has a book of its own, so that no crowd at one keeps anybody from another.
    """

    def __init__(self, limits: LimitSettings, clock: Clock, *, port: str = "public", most: int | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._most = limits.connections if most is None else most
        self._gauge = metrics.CONNECTIONS.labels(port)
        self._clients: set[ManagedConnection] = set()
        self.ending = False

    @property
    def open(self) -> int:
        return len(self._clients)

    def register(self, client: ManagedConnection, transport: asyncio.BaseTransport) -> bool:
        """Enter a new connection into the books, or turn it away if there are too many."""
        if len(self._clients) >= self._most or self.ending:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one, though not by inheritance
            stream.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
            stream.close()
            return False
        self._clients.add(client)
        return True

    def remove(self, client: ManagedConnection) -> None:
        """It is closed."""
        self._clients.discard(client)

    async def enforce_timeouts_forever(self) -> None:
        """Look after everybody's time until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for number, client in enumerate(list(self._clients), 1):
                if client in self._clients:  # it may have left while others had their turn
                    client.enforce_timeouts(now)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._gauge.set(len(self._clients))
            await self._clock.sleep(_SWEEP_S)

    async def close_all(self, timeout_s: float) -> None:
        """Let answers in hand be given, then close; after the time all that are left are cut."""
        self.ending = True
        for client in list(self._clients):
            client.close_gracefully()
        deadline = self._clock.monotonic() + timeout_s
        while self._clients and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.02)
        for client in list(self._clients):
            client.abort()

    def aiohttp_factory(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """What `create_server` makes connections with where aiohttp answers everything."""
        server = runner.server
        assert server is not None
        return lambda: AiohttpConnection(self, server)


def handler_options(limits: LimitSettings) -> dict[str, Any]:
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


class AiohttpHandler(RequestHandler):
    """aiohttp's own connection handler, which tells when it has answered, and answers in our form."""

    __slots__ = ("_answered",)

    def __init__(self, server: web.Server, limits: LimitSettings, answered: Callable[[bool], None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **handler_options(limits))
        self._answered = answered

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, of which it may have a part."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def has_queued_request(self) -> bool:
        """Whether another request has arrived in full and waits for its turn."""
        return bool(self._messages) and self._messages[0][1].is_eof()

    @property
    def has_pending_response(self) -> bool:
        """Whether a request has arrived in full and its answer has not begun."""
        request = self._current_request
        if request is None:
            return not self.is_idle
        return request.content.is_eof() and request.writer.output_size == 0

    def feed_single_request(self, data: bytes) -> bool:
        """Feed what should be one request; whether aiohttp sees it so."""
        self.data_received(data)
        return len(self._messages) == 1

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send it, and tell once this request is behind us whether the connection stays open."""
        done = await super().finish_response(request, resp, start_time)
        self._loop.call_soon(self._answered, bool(done[0].keep_alive) and not done[1])
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


class TrackedConnection(asyncio.Protocol):
    """What every connection has, whoever answers on it: its place in the books, and an end.

    A client may close its direction and still read: what it has asked in full is answered. One that does not read what
    it asked for is cut off.
    """

    __slots__ = (
        "_admitted",
        "_connections",
        "_eof",
        "_limits",
        "_loop",
        "_since",
        "_stuck_since",
        "_transport",
        "_writable",
    )

    def __init__(self, connections: ConnectionRegistry) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._stuck_since = 0.0
        self._writable = True
        self._admitted = self._eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._admitted = self._connections.register(self, transport)

    def abort(self) -> None:
        self._transport.abort()

    def close_gracefully(self) -> None:
        """Each kind of connection ends in its own way."""

    def enforce_timeouts(self, now: float) -> None:
        """Cut off who does not take what it asked for, and who was not yet idle when the process was to end."""
        if self._connections.ending:
            self.close_gracefully()
        if self._writable and not self._transport.is_closing():
            self._stuck_since = 0.0
        elif not self._stuck_since:
            self._stuck_since = now
        elif now - self._stuck_since > self._limits.request_head_timeout_s:
            self._transport.abort()


class AiohttpConnection(TrackedConnection):
    """A connection on which aiohttp answers everything; the time and the books are kept here."""

    __slots__ = ("_handler",)

    def __init__(self, connections: ConnectionRegistry, server: web.Server) -> None:
        super().__init__(connections)
        self._handler = AiohttpHandler(server, connections.limits, self._answered)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._admitted:
            self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self._handler.data_received(data)

    def eof_received(self) -> bool:
        self._eof = True
        return self._admitted and self._handler.has_pending_response

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._admitted:
            self._connections.remove(self)
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable = False
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        self._handler.resume_writing()

    def _answered(self, stays: bool) -> None:
        self._since = self._loop.time()
        if self._connections.ending or (self._eof and not self._handler.has_queued_request):
            self._transport.close()

    def enforce_timeouts(self, now: float) -> None:
        super().enforce_timeouts(now)
        if (self._handler.is_idle and now - self._since > self._limits.request_head_timeout_s) or (
            self._eof and not self._handler.has_pending_response
        ):
            self._transport.close()

    def close_gracefully(self) -> None:
        if self._handler.is_idle:
            self._transport.close()
