"""The express lane: orders in their common form are answered here, everything else by aiohttp behind it.

The common form of `POST /v1/orders` is HTTP/1.1 with one Content-Length, a small body, no Expect, no Upgrade, no
chunks and no header twice. The lane parses the head with httptools (llhttp, as aiohttp does), asks the same order desk
as the ordinary route, and writes the reply. Of any other request it lends the connection to aiohttp for one request,
bytes unchanged, and takes it back once that is answered, since shoppers mix reads and orders on one connection. What it
cannot frame beyond doubt it gives to aiohttp for good.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from time import perf_counter
from typing import cast

from aiohttp import web

from commerce.kernel.errors import ProblemError
from commerce.orders.model import PlacedOrder
from gateway import problems, request_head
from gateway.connections import AiohttpHandler, ConnectionRegistry, TrackedConnection
from gateway.endpoints.orders import MAX_TRACEPARENT_CHARS, ORDERS_PATH
from gateway.fast_path_responses import BatchResponseTemplate, encode, response_head
from gateway.order_placement import NeedsSlowPath, check_idempotency_key, decode_order_body
from gateway.problems import RawResponse, RequestTimeout
from gateway.request_head import HeaderLayout, RequestHead, Values
from gateway.services import REQUEST_ID_PATTERN, GatewayServices
from lua import ReserveOutcome, ReserveResult

_logger = logging.getLogger(__name__)
_ORDER = f"POST {ORDERS_PATH} HTTP/1.1\r\n".encode()
_START = re.compile(rb"[A-Z]{3,10} /")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_START_OF_START = re.compile(rb"[A-Z]{0,10}")
_STALE = ReserveOutcome.STALE
_CLOSE = "Connection: close\r\n"
_alike = BatchResponseTemplate()


class ConnectionState:
    """Who has the connection. No Enum: in Python 3.11 looking one of its members up costs as much as ten of these."""

    IDLE = 0
    """nobody: a request may begin, or has begun to arrive"""
    ORDER = 1
    """the lane, with an order in hand"""
    LENT = 2
    """aiohttp, for one request"""
    GIVEN = 3
    """aiohttp, for good"""


_IDLE, _ORDER_IN_HAND = ConnectionState.IDLE, ConnectionState.ORDER


class FastPathConnection(TrackedConnection):
    """One client's connection."""

    __slots__ = (
        "_body_from", "_buffer", "_handler", "_head", "_like", "_need", "_order", "_pending", "_request_id",
        "_reservation", "_server", "_services", "_shape", "_started", "_state",
    )  # fmt: skip

    def __init__(self, connections: ConnectionRegistry, services: GatewayServices, server: web.Server) -> None:
        super().__init__(connections)
        self._services = services
        self._server = server
        self._handler: AiohttpHandler | None = None
        self._state = ConnectionState.IDLE
        self._buffer = b""
        self._head: RequestHead | None = None  # of an order whose body has not arrived in full
        self._body_from = self._need = 0
        self._like: request_head.Match | None = None  # whose next order will have a head like the last one's

    # What the transport tells.

    def data_received(self, data: bytes) -> None:
        if self._like is not None and self._state == _IDLE and not self._buffer and self._writable:
            like = self._like(data)
            if like is not None:
                values, end, limits = like.groups(), like.end(), self._limits
                length = int(values[self._shape.length])
                if len(data) == end + length and end <= limits.header_line_bytes and length <= limits.body_bytes:
                    self._take_order(self._shape, values, data[end:])
                    return
        if self._state == ConnectionState.GIVEN:
            cast(AiohttpHandler, self._handler).data_received(data)
            return
        if not self._admitted:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._state == ConnectionState.IDLE and self._writable:
            self._process_buffer()
        elif len(self._buffer) > self._limits.body_bytes:
            self._transport.pause_reading()  # until what is here is dealt with

    def eof_received(self) -> bool:
        self._eof = True
        if self._state == ConnectionState.IDLE:
            self._process_buffer()
        if self._state == ConnectionState.IDLE:
            return bool(self._buffer) and not self._writable
        return self._state == ConnectionState.ORDER or cast(AiohttpHandler, self._handler).has_pending_response

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._admitted:
            self._connections.remove(self)
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

    # What the books tell.

    def enforce_timeouts(self, now: float) -> None:
        """Cut off who is silent or slow; a body that does not arrive is answered."""
        super().enforce_timeouts(now)
        if self._state == ConnectionState.IDLE:
            if self._head is not None:
                if now - self._since > self._limits.request_body_timeout_s:
                    self._refuse_body()
            elif now - self._since > self._limits.request_head_timeout_s:
                self._transport.close()
        elif self._handler is not None and self._state != ConnectionState.ORDER:
            late = self._handler.is_idle and now - self._since > self._limits.request_head_timeout_s
            if late or (self._eof and not self._handler.has_pending_response):
                self._transport.close()

    def close_gracefully(self) -> None:
        if self._state == ConnectionState.IDLE or (
            self._state == ConnectionState.GIVEN and cast(AiohttpHandler, self._handler).is_idle
        ):
            self._transport.close()

    # Requests.

    def _process_buffer(self) -> None:
        """Deal with what has arrived, as far as it goes."""
        while (
            self._state == ConnectionState.IDLE and self._buffer and self._writable and not self._transport.is_closing()
        ):
            if self._head is None:
                if not self._read_head():
                    break
            elif len(self._buffer) >= self._need:
                body, head = self._buffer[self._body_from : self._need], self._head
                self._head, self._buffer = None, self._buffer[self._need :]
                self._take_order(head.layout, head.values, body)
            else:
                break
        if self._state == ConnectionState.IDLE and self._writable and not self._transport.is_closing():
            # More is needed to go on.
            if self._eof:
                self._transport.close()
            elif not self._transport.is_reading():
                self._transport.resume_reading()

    def _read_head(self) -> bool:
        """Look at the beginning of a request; False to wait for more of it."""
        if self._buffer.startswith(b"\r\n"):
            self._buffer = _EMPTY_LINES.sub(b"", self._buffer)  # RFC 9112, 2.2: ignore them before a request
            return bool(self._buffer)
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            # Wait for the rest of the head, unless it is none or aiohttp would say so already.
            if self._may_become_a_head(buffer):
                return False
            self._hand_over_connection()
            return True
        head = request_head.parse_head(buffer[:end], self._limits.headers_per_request)
        length = -1 if head is None or end > self._limits.header_line_bytes else head.body_length()
        if head is None or not 0 <= length <= self._limits.body_bytes:
            self._hand_over_connection()
            return True
        whole = len(buffer) >= end + length
        if buffer.startswith(_ORDER) and head.fits_fast_path() and (whole or not self._is_refused(head)):
            self._body_from, self._need = end, end + length
            self._head = head
            self._like, self._shape = request_head.head_pattern(_ORDER, head), head.layout
            if not whole:
                self._since = self._loop.time()
            return True
        if whole:
            self._delegate_request(end + length)
        else:
            self._hand_over_connection()  # aiohttp keeps the time of a body that is still to come
        return True

    def _may_become_a_head(self, buffer: bytes) -> bool:
        if len(buffer) > self._limits.header_line_bytes or _BARE_LF.search(buffer):
            return False
        return bool(_START.match(buffer) or _START_OF_START.fullmatch(buffer))

    def _is_refused(self, head: RequestHead) -> bool:
        """Whether there is no need to wait for the body: aiohttp says so at once, and deals with what is to come."""
        key = head.values[head.layout.key]
        try:
            self._services.admission.check_load()
            self._services.auth.identify_customer(head.values[head.layout.authorization])
            check_idempotency_key(None if key is None else key.decode("latin-1"))
        except ProblemError:
            return True
        return False

    # Orders.

    def _take_order(self, shape: HeaderLayout, values: Values, body: bytes) -> None:
        self._state = _ORDER_IN_HAND
        self._started = perf_counter()
        services = self._services
        self._request_id = self._id_of(values[shape.request_id])
        try:
            services.admission.check_load()
            user_id = services.auth.identify_customer(values[shape.authorization]).subject
            services.admission.check_user(user_id)
            key_bytes = values[shape.key]
            key = check_idempotency_key(None if key_bytes is None else key_bytes.decode("latin-1"))
            order = decode_order_body(body)
        except ProblemError as refusal:
            self._refuse(refusal)
            return
        trace_bytes = values[shape.traceparent]
        trace = "" if trace_bytes is None else trace_bytes.decode("latin-1")[:MAX_TRACEPARENT_CHARS]
        # Not the decoded order: a hundred others are decoded before it is answered, and its many parts would be dear to
        # drop by then. It is decoded again in the rare case that it is needed.
        self._order = order.sale_id, body, user_id, key, trace
        try:
            self._reservation = services.placement.price_from_memory(order, user_id, key, trace)
        except NeedsSlowPath:
            self._place_in_task()
            return
        services.intake.submit(order.sale_id, self._reservation, self._on_outcome)

    def _id_of(self, given: bytes | None) -> str:
        if given is not None and REQUEST_ID_PATTERN.fullmatch(text := given.decode("latin-1")):
            return text
        return self._services.request_ids.new()

    def _on_outcome(self, outcome: ReserveResult | ProblemError) -> None:
        """Redis has decided, or cannot."""
        if isinstance(outcome, ProblemError):
            self._refuse(outcome)
        elif outcome.outcome is _STALE:
            self._place_in_task()
        elif outcome is _alike.of and not self._connections.ending:
            self._accept_from_template()
        else:
            try:
                placed, status = self._services.placement.result_of(self._order[0], self._reservation, outcome)
            except ProblemError as refusal:
                self._refuse(refusal)
            else:
                if status == 202:
                    _alike.begin(outcome, placed, perf_counter())
                self._accept(placed, status)

    def _place_in_task(self) -> None:
        """What memory cannot answer is found out by a task, exactly as on the ordinary route."""
        self._pending = self._loop.create_task(self._place())  # the loop itself keeps only a weak reference

    async def _place(self) -> None:
        try:
            _, body, user_id, key, trace = self._order
            placed, status = await self._services.placement.place(decode_order_body(body), user_id, key, trace)
        except ProblemError as refusal:
            self._refuse(refusal)
        except Exception:
            _logger.exception("an order failed", extra={"request_id": self._request_id})
            self._answer(problems.raw_internal_error(self._request_id))
        else:
            self._accept(placed, status)

    def _accept(self, placed: PlacedOrder, status: int) -> None:
        self._services.metrics_buffer.order("accepted" if status == 202 else "replayed")
        self._write(status, "application/json", encode(placed), f"Location: {ORDERS_PATH}/{placed.order_id}\r\n")

    def _accept_from_template(self) -> None:
        """As `_accept`, where another order of the batch has shown what the answer looks like."""
        self._services.metrics_buffer.order("accepted")
        self._services.metrics_buffer.request(ORDERS_PATH, "POST", 202, perf_counter() - self._started)
        if not self._transport.is_closing():
            order = self._reservation
            self._transport.write(_alike.to(self._request_id, str(order.order_id), order.total_minor))
        self._idle()

    def _refuse(self, refusal: ProblemError) -> None:
        self._services.metrics_buffer.order(refusal.code)
        self._answer(problems.raw_problem(refusal, self._request_id))

    def _refuse_body(self) -> None:
        """The body of an order did not arrive in time."""
        head = cast(RequestHead, self._head)
        self._request_id = self._id_of(head.values[head.layout.request_id])
        self._head, self._buffer = None, b""
        self._started = perf_counter()
        self._state = ConnectionState.ORDER
        seconds = self._limits.request_body_timeout_s
        refusal = RequestTimeout(f"the body did not arrive within {seconds:g} s")
        self._services.metrics_buffer.order(refusal.code)
        plain = problems.raw_problem(refusal, self._request_id)
        self._answer(replace(plain, headers=(*plain.headers, ("Connection", "close"))))
        self._transport.close()

    def _answer(self, plain: RawResponse) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in plain.headers)
        self._write(plain.status, plain.content_type, plain.body, more)

    def _write(self, status: int, content_type: str, body: bytes, more_headers: str) -> None:
        """Write the answer, and go on with what has arrived meanwhile."""
        now = perf_counter()
        if status >= 500:
            _logger.warning("answered %s", status, extra={"request_id": self._request_id, "path": ORDERS_PATH})
        self._services.metrics_buffer.request(ORDERS_PATH, "POST", status, now - self._started)
        ending = self._connections.ending
        if not self._transport.is_closing():
            head = (
                f"{response_head(status, now, content_type)}{len(body)}\r\nX-Request-Id: {self._request_id}\r\n"
                f"{more_headers}{_CLOSE if ending else ''}\r\n"
            )
            self._transport.write(head.encode("latin-1") + body)
        self._idle()
        if ending:
            self._transport.close()

    def _idle(self) -> None:
        self._state = ConnectionState.IDLE
        self._since = self._loop.time()
        if self._buffer or self._eof or not self._transport.is_reading():
            # Not at once: whoever sends a thousand orders in one packet must not have the loop for itself.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._state == ConnectionState.IDLE:
            self._process_buffer()

    # aiohttp.

    def _delegate_request(self, length: int) -> None:
        """Let aiohttp answer the request that ends here."""
        request, self._buffer = self._buffer[:length], self._buffer[length:]
        self._state = ConnectionState.LENT
        if not self._handling().feed_single_request(request):
            self._hand_over_connection()

    def _hand_over_connection(self) -> None:
        """Leave the connection to aiohttp for good."""
        self._state = ConnectionState.GIVEN
        data, self._buffer = self._buffer, b""
        handler = self._handling()
        if not self._transport.is_reading():
            self._transport.resume_reading()
        handler.data_received(data)

    def _handling(self) -> AiohttpHandler:
        if self._handler is None:
            self._handler = AiohttpHandler(self._server, self._limits, self._answered)
            self._handler.connection_made(self._transport)
            if not self._writable:
                self._handler.pause_writing()
        return self._handler

    def _answered(self, stays: bool) -> None:
        """aiohttp has answered a request, and says whether the connection stays open."""
        self._since = self._loop.time()
        if self._connections.ending:
            self._transport.close()
        elif self._state == ConnectionState.LENT and stays:
            self._idle()
        elif self._eof and not cast(AiohttpHandler, self._handler).has_queued_request:
            self._transport.close()
