"""The fast path: answers orders in the common form itself and everything else through aiohttp.

The common form of `POST /v1/orders` is HTTP/1.1 with one Content-Length, a small body, no Expect, no Upgrade, no
chunks and no header twice. The fast path parses the head with httptools (llhttp, as aiohttp does), uses the same
`OrderPlacement` as the ordinary endpoint, and writes the response. It delegates any other request to aiohttp, bytes
unchanged, and takes the connection back once that is answered: customers mix reads and orders on one connection. A
connection whose requests it cannot frame with certainty is handed over to aiohttp permanently.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from time import perf_counter
from typing import Final, cast

from aiohttp import web

from commerce.kernel.errors import ProblemError
from gateway import problems
from gateway.aiohttp_handler import AiohttpHandler
from gateway.connections import ConnectionRegistry, ConnectionState
from gateway.decoding import check_idempotency_key
from gateway.fast_joins import take_join
from gateway.lingering import close_after_client
from gateway.order_connection import ORDER_LINE, OrderConnection
from gateway.problems import RequestTimeout
from gateway.request_head import RequestHead
from gateway.services import GatewayServices

_REQUEST_START = re.compile(rb"[A-Z]{3,10} /")
_PARTIAL_METHOD = re.compile(rb"[A-Z]{0,10}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_BODILESS_LINE = re.compile(rb"(GET|POST) (/[!-~]*) HTTP/1\.1\r\n")
_IDLE: Final = ConnectionState.IDLE


class FastPathConnection(OrderConnection):
    """One client's connection."""

    __slots__ = (
        "_body_start", "_buffer", "_deferred_at", "_handler", "_head", "_layout", "_request_end", "_server",
    )  # fmt: skip

    def __init__(self, connections: ConnectionRegistry, services: GatewayServices, server: web.Server) -> None:
        super().__init__(connections, services)
        self._server = server
        self._handler: AiohttpHandler | None = None
        self._buffer = b""
        self._head: RequestHead | None = None  # of an order whose body has not arrived in full
        self._body_start = self._request_end = 0
        self._deferred_at: float | None = None  # since when an order in the buffer waits for a turn

    # Calls of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        latest = self._services.head_parser.latest
        if latest is not None and self._admitted:
            self._match_previous_head, self._layout = latest

    def data_received(self, data: bytes) -> None:
        if self._state == _IDLE and not self._buffer and self._writable and self._take_similar_order(data):
            return
        if self._state == ConnectionState.HANDED_OVER:
            cast(AiohttpHandler, self._handler).data_received(data)
            return
        if not self._admitted:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._state == ConnectionState.IDLE and self._writable:
            self._process_buffer()
        elif self._state == ConnectionState.RESTING or len(self._buffer) > self._limits.body_bytes:
            self._transport.pause_reading()  # until the buffer is processed

    def _take_similar_order(self, data: bytes) -> bool:
        """Take an order whose head is similar to the previous one, if `data` is one and no more."""
        if self._match_previous_head is None:
            return False
        turns = self._services.order_turns
        if turns.left <= 0 and data.startswith(ORDER_LINE):
            self._buffer = data
            self._defer()
            return True
        match = self._match_previous_head(data)
        if match is None:
            return False
        values, end, limits = match.groups(), match.end(), self._limits
        length = int(values[self._layout.length])
        if len(data) != end + length or end > limits.header_line_bytes or length > limits.body_bytes:
            return False
        turns.count()
        self._take_order(self._layout, values, data[end:])
        return True

    def _defer(self) -> None:
        """Take the order in the buffer in a later iteration; until then the client is not slow."""
        self._since = self._loop.time()
        if self._deferred_at is None:
            self._deferred_at = perf_counter()
            self._services.order_turns.defer(self, self._deferred_at)

    def eof_received(self) -> bool:
        self._eof = True
        if self._state == ConnectionState.IDLE:
            self._process_buffer()
        if self._state == ConnectionState.IDLE:
            return bool(self._buffer) and not self._writable
        if self._state == ConnectionState.RESTING:
            return bool(self._buffer)
        return self._state == ConnectionState.ANSWERING or cast(AiohttpHandler, self._handler).has_pending_response

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        if self._state == ConnectionState.RESTING:
            self._state = ConnectionState.IDLE
            self._services.resting.remove()
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._writable = False
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self._handler is not None:
            self._handler.resume_writing()
        if self._state == ConnectionState.IDLE:
            self._process_buffer()

    # Calls of the registry.

    def enforce_timeouts(self, now: float) -> None:
        """Close the connection of a silent or slow client; answer one whose body does not arrive."""
        super().enforce_timeouts(now)
        if self._state == ConnectionState.IDLE:
            if self._head is not None:
                if now - self._since > self._limits.request_body_timeout_s:
                    self._refuse_body()
            elif now - self._since > self._limits.request_head_timeout_s:
                self._transport.close()
        elif self._handler is not None and self._state not in (ConnectionState.ANSWERING, ConnectionState.RESTING):
            is_late = self._handler.is_idle and now - self._since > self._limits.request_head_timeout_s
            if is_late or (self._eof and not self._handler.has_pending_response):
                self._transport.close()

    def close_gracefully(self) -> None:
        if self._state == ConnectionState.IDLE:
            self._process_buffer()  # an order that waits for a turn is answered
        if self._state in (ConnectionState.IDLE, ConnectionState.RESTING) or (
            self._state == ConnectionState.HANDED_OVER and cast(AiohttpHandler, self._handler).is_idle
        ):
            self._transport.close()

    # Requests.

    def _process_buffer(self) -> None:
        """Process the requests in the buffer until one needs more bytes or is pending."""
        while (
            self._state == ConnectionState.IDLE and self._buffer and self._writable and not self._transport.is_closing()
        ):
            if self._head is None:
                if not self._read_head():
                    break
            elif len(self._buffer) >= self._request_end:
                if self._services.order_turns.left <= 0 and not self._eof and not self._connections.is_ending:
                    self._defer()
                    return
                self._services.order_turns.count()
                body, head = self._buffer[self._body_start : self._request_end], self._head
                self._head, self._buffer = None, self._buffer[self._request_end :]
                self._take_order(head.layout, head.values, body)
            else:
                break
        if self._state == ConnectionState.IDLE and self._writable and not self._transport.is_closing():
            if self._eof:
                self._transport.close()
            elif not self._transport.is_reading():
                self._transport.resume_reading()

    def _read_head(self) -> bool:
        """Read the head at the start of the buffer and decide who answers.

        Returns False if more bytes are needed.
        """
        if self._buffer.startswith(b"\r\n"):
            self._buffer = _EMPTY_LINES.sub(b"", self._buffer)  # RFC 9112, 2.2: ignore them before a request
            return bool(self._buffer)
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            # Wait for the rest of the head, unless it is no head or aiohttp would refuse it already.
            if self._may_become_head(buffer):
                return False
            self._hand_over_connection()
            return True
        head = self._services.head_parser.parse_head(buffer[:end], self._limits.headers_per_request)
        length = -1 if head is None or end > self._limits.header_line_bytes else head.body_length()
        if head is None or not 0 <= length <= self._limits.body_bytes:
            self._hand_over_connection()
            return True
        is_whole = len(buffer) >= end + length
        if buffer.startswith(ORDER_LINE) and head.fits_fast_path() and (is_whole or not self._is_refused(head)):
            self._body_start, self._request_end = end, end + length
            self._head = head
            self._layout = head.layout
            self._match_previous_head = self._services.head_parser.find_pattern(ORDER_LINE, head.names)
            self._unlearned_names = None if self._match_previous_head else head.names
            if not is_whole:
                self._since = self._loop.time()
            return True
        if length == 0 and self._take_read(head, end):
            return True
        if is_whole:
            self._delegate_request(end + length)
        else:
            self._hand_over_connection()  # aiohttp enforces the timeout of the body
        return True

    def _may_become_head(self, buffer: bytes) -> bool:
        if len(buffer) > self._limits.header_line_bytes or _BARE_LF.search(buffer):
            return False
        return bool(_REQUEST_START.match(buffer) or _PARTIAL_METHOD.fullmatch(buffer))

    def _is_refused(self, head: RequestHead) -> bool:
        """Tell whether the head alone is refused: aiohttp then answers at once and discards the body."""
        key = head.values[head.layout.key]
        try:
            text = None if key is None else key.decode("latin-1")
            authorization, room_ticket = head.values[head.layout.authorization], head.values[head.layout.room_ticket]
            self._services.shedder.check(perf_counter(), authorization, text, room_ticket)
            self._services.auth.identify_customer(authorization)
            check_idempotency_key(text)
        except ProblemError:
            return True
        return False

    # Reads.

    def _take_read(self, head: RequestHead, end: int) -> bool:
        """Answer a GET or a join in the common form. Returns False if aiohttp is to answer it."""
        line = _BODILESS_LINE.match(self._buffer)
        connection = head.values[head.layout.connection]
        if (
            line is None
            or not head.is_unambiguous
            or head.layout.host < 0
            or (connection is not None and connection.lower() != b"keep-alive")
            or self._connections.is_ending
        ):
            return False
        request, self._buffer = self._buffer, self._buffer[end:]
        self._state = ConnectionState.ANSWERING
        request_id = self._choose_request_id(head.values[head.layout.request_id])
        if line[1] == b"GET":
            is_taken = self._services.fast_reads.take(line[2], head, request_id, self._send_read)
        else:
            is_taken = take_join(self._services, line[2], head, self.client, request_id, self._send_read)
        if is_taken:
            return True
        self._state, self._buffer = ConnectionState.IDLE, request
        return False

    def _send_read(self, response: bytes) -> None:
        """Write a response from memory, then take the next request."""
        if not self._transport.is_closing():
            self._transport.write(response)
        if self._buffer:
            self._loop.call_soon(self._become_idle)  # not at once: a client may send a thousand reads in one packet
        else:
            self._become_idle()

    # Bodies that do not arrive.

    def _refuse_body(self) -> None:
        """Answer an order whose body did not arrive in time, and close the connection."""
        head = cast(RequestHead, self._head)
        self._request_id = self._choose_request_id(head.values[head.layout.request_id])
        self._head, self._buffer = None, b""
        self._started = perf_counter()
        self._state = ConnectionState.ANSWERING
        seconds = self._limits.request_body_timeout_s
        refusal = RequestTimeout(f"the body did not arrive within {seconds:g} s")
        self._services.metrics_buffer.count_order(refusal.code)
        response = problems.raw_problem(refusal, self._request_id)
        self._answer(replace(response, headers=(*response.headers, ("Connection", "close"))))
        close_after_client(self._transport, self._limits)

    def _become_idle(self) -> None:
        self._state = ConnectionState.IDLE
        self._since = self._loop.time()
        if self._buffer or self._eof or not self._transport.is_reading():
            # Not at once: a client that sends a thousand orders in one packet must not occupy the loop.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._state == ConnectionState.IDLE:
            self._process_buffer()

    def _rest(self, rest_s: float) -> None:
        """Take requests again after a rest. Proxies do not rest: they bring the requests of others too.

        The connection is read until the client sends something, so that the end of a client is noticed.
        """
        if self.client.address is None or rest_s <= 0 or self._eof or self._transport.is_closing():
            self._become_idle()
            return
        self._state = ConnectionState.RESTING
        if self._buffer:
            self._transport.pause_reading()
        self._services.resting.add(self, rest_s)

    @property
    def is_resting(self) -> bool:
        return self._state == ConnectionState.RESTING

    @property
    def is_impatient(self) -> bool:
        """True if the client has sent another order since it was refused."""
        return self._buffer.startswith(ORDER_LINE)

    def resume(self) -> None:
        """Take requests again after a rest."""
        self._state = _IDLE
        self._since = self._loop.time()
        self.take_deferred()

    def take_deferred(self) -> None:
        """Take the request that was left in the buffer."""
        arrived, self._deferred_at = self._deferred_at, None
        if self._state != _IDLE or self._transport.is_closing():
            return
        data, is_taken = self._buffer, False
        if data and self._head is None and self._writable and not self._eof:
            self._buffer = b""
            is_taken = self._take_similar_order(data)
            if not is_taken:
                self._buffer = data
        if not is_taken:
            self._process_buffer()
        if arrived is not None and self._state == ConnectionState.ANSWERING:
            self._started = arrived  # the wait for a turn is a part of the order's duration

    # Calls of and to aiohttp.

    def _delegate_request(self, length: int) -> None:
        """Let aiohttp answer the request that fills the first `length` bytes of the buffer."""
        request, self._buffer = self._buffer[:length], self._buffer[length:]
        self._state = ConnectionState.DELEGATED
        if not self._open_handler().feed_single_request(request):
            self._hand_over_connection()

    def _hand_over_connection(self) -> None:
        """Leave the connection to aiohttp permanently."""
        self._state = ConnectionState.HANDED_OVER
        data, self._buffer = self._buffer, b""
        handler = self._open_handler()
        if not self._transport.is_reading():
            self._transport.resume_reading()
        handler.data_received(data)

    def _open_handler(self) -> AiohttpHandler:
        if self._handler is None:
            self._handler = AiohttpHandler(self._server, self._limits, self._on_answered)
            self._handler.connection_made(self._transport)
            if not self._writable:
                self._handler.pause_writing()
        return self._handler

    def _on_answered(self, stays_open: bool) -> None:
        """Take the connection back after aiohttp has answered, if it stays open."""
        self._since = self._loop.time()
        if self._connections.is_ending:
            self._transport.close()
        elif self._state == ConnectionState.DELEGATED and stays_open:
            self._become_idle()
        elif self._eof and not cast(AiohttpHandler, self._handler).has_queued_request:
            self._transport.close()
