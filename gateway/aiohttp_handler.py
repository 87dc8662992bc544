"""aiohttp's connection with our limits and our form of errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from config.settings import LimitSettings
from gateway import problems
from gateway.lingering import LingeringTransport

SERVER = "floodgate"


def handler_options(limits: LimitSettings) -> dict[str, Any]:
    """Return the options of aiohttp's connection. We close idle and slow connections, not aiohttp."""
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
    """aiohttp's connection handler with our form of errors; calls `on_answered` after each response."""

    __slots__ = ("_limits", "_on_answered")

    def __init__(self, server: web.Server, limits: LimitSettings, on_answered: Callable[[bool], None]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **handler_options(limits))
        self._limits = limits
        self._on_answered = on_answered

    @property
    def is_idle(self) -> bool:
        """Tell whether it waits for a request, of which a part may have arrived."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def has_queued_request(self) -> bool:
        """Tell whether another request has arrived in full and waits."""
        return bool(self._messages) and self._messages[0][1].is_eof()

    @property
    def has_pending_response(self) -> bool:
        """Tell whether a request has arrived in full and its response has not begun."""
        request = self._current_request
        if request is None:
            return not self.is_idle
        return request.content.is_eof() and request.writer.output_size == 0

    def feed_single_request(self, data: bytes) -> bool:
        """Feed one complete request. Returns False if aiohttp does not read it as exactly one."""
        self.data_received(data)
        return len(self._messages) == 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin on a transport, which lets the client finish before it closes."""
        lingering: Any = LingeringTransport(cast(asyncio.Transport, transport), self._limits)
        super().connection_made(lingering)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response, then call `on_answered` with True if the connection stays open."""
        response, is_reset = await super().finish_response(request, resp, start_time)
        self._loop.call_soon(self._on_answered, bool(response.keep_alive) and not is_reset)
        return response, is_reset

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer an unparsable request or a bug outside any handler with a problem, then close."""
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
        if isinstance(exc, LineTooLong):
            status, message = 431, "a line of the request's head is too long"
        first_line = (message or "the request is not valid HTTP").strip().splitlines()[0]
        response = problems.internal_error(None) if status >= 500 else problems.from_status(status, first_line)
        response.headers["Server"] = SERVER
        response.force_close()
        return response
