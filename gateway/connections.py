"""The edge: aiohttp's connection with our limits, and our form for the errors that come before any handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

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


class Connections:
    """Counts connections over all ports of the process and turns away those above the limit."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0

    def factory(self, runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
        """What `create_server` makes connections with."""
        limits, server = self.limits, runner.server
        assert server is not None
        loop = asyncio.get_running_loop()

        def make() -> asyncio.Protocol:
            return ShopConnection(
                self,
                server,
                loop=loop,
                # From the connection, or the last answer, to a whole request head: idle and dribbling clients alike.
                keepalive_timeout=limits.request_head_timeout_s,
                max_line_size=limits.header_line_bytes,
                max_field_size=limits.header_line_bytes,
                max_headers=limits.headers_per_request,
                lingering_time=1.0,
                auto_decompress=False,
                access_log=None,
            )

        return make


class ShopConnection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_connections", "_counted")

    def __init__(self, connections: Connections, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._connections = connections
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.open >= self._connections.limits.connections:
            stream = cast(asyncio.Transport, transport)  # uvloop's is one, though not by inheritance
            stream.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
            stream.close()
            return
        self._counted = True
        self._connections.open += 1
        metrics.CONNECTIONS.set(self._connections.open)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._counted:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._counted:
            self._connections.open -= 1
            metrics.CONNECTIONS.set(self._connections.open)
            super().connection_lost(exc)

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
        response.force_close()
        return response
