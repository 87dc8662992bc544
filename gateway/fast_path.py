"""The fast path: answers orders in the common form itself and everything else through aiohttp.

The common form of `POST /v1/orders` is HTTP/1.1 with one Content-Length, a small body, no Expect, no Upgrade, no
chunks and no header twice. The fast path parses the head with httptools (llhttp, as aiohttp does), uses the same
`OrderPlacement` as the ordinary endpoint, and writes the response. It delegates any other request to aiohttp, bytes
unchanged, and takes the connection back once that is answered: customers mix reads and orders on one connection. A
connection whose requests it cannot frame with certainty is handed over to aiohttp permanently.
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
from gateway import problems
from gateway.connections import AiohttpHandler, ConnectionRegistry, ConnectionState, TrackedConnection
from gateway.decoding import check_idempotency_key, decode_order_body
from gateway.fast_path_responses import encode
from gateway.lingering import close_after_client
from gateway.order_placement import MAX_TRACEPARENT_CHARS, ORDERS_PATH, NeedsSlowPath
from gateway.pending_order import Outcome, PendingOrder
from gateway.problems import RawResponse, RequestTimeout
from gateway.request_head import HeaderLayout, Match, RequestHead, Values
from gateway.services import REQUEST_ID_PATTERN, GatewayServices
from lua import ReserveOutcome

_logger = logging.getLogger(__name__)
_ORDER_LINE = f"POST {ORDERS_PATH} HTTP/1.1\r\n".encode()
_REQUEST_START = re.compile(rb"[A-Z]{3,10} /")
_PARTIAL_METHOD = re.compile(rb"[A-Z]{0,10}")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_EMPTY_LINES = re.compile(rb"\A(?:\r\n)+")
_STALE = ReserveOutcome.STALE
_CLOSE = "Connection: close\r\n"


_IDLE, _PLACING_ORDER = ConnectionState.IDLE, ConnectionState.PLACING_ORDER


class FastPathConnection(TrackedConnection):
    """One client's connection.

    It places at most one order at a time, so responses keep the sequence of requests.
    """

    __slots__ = (
        "_body_start", "_buffer", "_handler", "_head", "_layout", "_match_previous_head", "_order_arguments",
        "_request_end", "_request_id", "_reservation", "_server", "_services", "_started", "_state", "_task",
        "_template", "_unlearned_names",
    )  # fmt: skip

    def __init__(self, connections: ConnectionRegistry, services: GatewayServices, server: web.Server) -> None:
        super().__init__(connections)
        self._services = services
        self._template = services.batch_template
        self._server = server
        self._handler: AiohttpHandler | None = None
        self._state = ConnectionState.IDLE
        self._buffer = b""
        self._head: RequestHead | None = None  # of an order whose body has not arrived in full
        self._body_start = self._request_end = 0
        self._match_previous_head: Match | None = None  # a client's next order usually has a similar head
        self._unlearned_names: tuple[bytes, ...] | None = None  # header names of the pending order, if new

    # Calls of the transport.

    def data_received(self, data: bytes) -> None:
        if self._match_previous_head is not None and self._state == _IDLE and not self._buffer and self._writable:
            match = self._match_previous_head(data)
            if match is not None:
                values, end, limits = match.groups(), match.end(), self._limits
                length = int(values[self._layout.length])
                if len(data) == end + length and end <= limits.header_line_bytes and length <= limits.body_bytes:
                    self._take_order(self._layout, values, data[end:])
                    return
        if self._state == ConnectionState.HANDED_OVER:
            cast(AiohttpHandler, self._handler).data_received(data)
            return
        if not self._admitted:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._state == ConnectionState.IDLE and self._writable:
            self._process_buffer()
        elif len(self._buffer) > self._limits.body_bytes:
            self._transport.pause_reading()  # until the buffer is processed

    def eof_received(self) -> bool:
        self._eof = True
        if self._state == ConnectionState.IDLE:
            self._process_buffer()
        if self._state == ConnectionState.IDLE:
            return bool(self._buffer) and not self._writable
        return self._state == ConnectionState.PLACING_ORDER or cast(AiohttpHandler, self._handler).has_pending_response

    def connection_lost(self, exc: BaseException | None) -> None:
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
        elif self._handler is not None and self._state != ConnectionState.PLACING_ORDER:
            is_late = self._handler.is_idle and now - self._since > self._limits.request_head_timeout_s
            if is_late or (self._eof and not self._handler.has_pending_response):
                self._transport.close()

    def close_gracefully(self) -> None:
        if self._state == ConnectionState.IDLE or (
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
        if buffer.startswith(_ORDER_LINE) and head.fits_fast_path() and (is_whole or not self._is_refused(head)):
            self._body_start, self._request_end = end, end + length
            self._head = head
            self._layout = head.layout
            self._match_previous_head = self._services.head_parser.find_pattern(_ORDER_LINE, head.names)
            self._unlearned_names = None if self._match_previous_head else head.names
            if not is_whole:
                self._since = self._loop.time()
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
            self._services.admission.check_load()
            self._services.auth.identify_customer(head.values[head.layout.authorization])
            check_idempotency_key(None if key is None else key.decode("latin-1"))
        except ProblemError:
            return True
        return False

    # Orders.

    def _take_order(self, layout: HeaderLayout, values: Values, body: bytes) -> None:
        self._state = _PLACING_ORDER
        self._started = perf_counter()
        services = self._services
        self._request_id = self._choose_request_id(values[layout.request_id])
        try:
            services.admission.check_load()
            user_id = services.auth.identify_customer(values[layout.authorization]).subject
            services.admission.check_user(user_id)
            key_bytes = values[layout.key]
            key = check_idempotency_key(None if key_bytes is None else key_bytes.decode("latin-1"))
            order = decode_order_body(body)
        except ProblemError as refusal:
            self._refuse(refusal)
            return
        trace_bytes = values[layout.traceparent]
        trace = "" if trace_bytes is None else trace_bytes.decode("latin-1")[:MAX_TRACEPARENT_CHARS]
        # Not the decoded order: a hundred others are decoded before this one is answered, and its many parts would be
        # expensive to free by then. In the rare case that the order is needed, it is decoded again.
        self._order_arguments = order.sale_id, body, user_id, key, trace
        try:
            self._reservation = services.placement.price_from_memory(order, user_id, key, trace)
        except NeedsSlowPath:
            self._place_in_task()
            return
        services.intake.submit(order.sale_id, PendingOrder(self._reservation, self._on_outcome))

    def _choose_request_id(self, header: bytes | None) -> str:
        if header is not None and REQUEST_ID_PATTERN.fullmatch(text := header.decode("latin-1")):
            return text
        return self._services.request_ids.new()

    def _on_outcome(self, result: Outcome) -> None:
        """Answer the pending order with Redis's decision or a problem."""
        if isinstance(result, ProblemError):
            self._refuse(result)
        elif result.outcome is _STALE:
            self._place_in_task()
        elif result is self._template.batch and not self._connections.is_ending:
            self._accept_from_template()
        else:
            try:
                placed, status = self._services.placement.result_of(self._order_arguments[0], self._reservation, result)
            except ProblemError as refusal:
                self._refuse(refusal)
            else:
                if status == 202:
                    self._template.begin(result, placed, perf_counter())
                self._accept(placed, status)

    def _place_in_task(self) -> None:
        """Place an order that memory does not decide in a task, as the ordinary endpoint does."""
        self._task = self._loop.create_task(self._place())  # the loop itself keeps only a weak reference

    async def _place(self) -> None:
        try:
            _, body, user_id, key, trace = self._order_arguments
            placed, status = await self._services.placement.place(decode_order_body(body), user_id, key, trace)
        except ProblemError as refusal:
            self._refuse(refusal)
        except Exception:
            _logger.exception("an order failed", extra={"request_id": self._request_id})
            self._answer(problems.raw_internal_error(self._request_id))
        else:
            self._accept(placed, status)

    def _accept(self, placed: PlacedOrder, status: int) -> None:
        if self._unlearned_names is not None:
            self._learn_head(self._unlearned_names)
        self._services.metrics_buffer.count_order("accepted" if status == 202 else "replayed")
        self._write(status, "application/json", encode(placed), f"Location: {ORDERS_PATH}/{placed.order_id}\r\n")

    def _accept_from_template(self) -> None:
        """Answer as `_accept`, from the template of the batch."""
        if self._unlearned_names is not None:
            self._learn_head(self._unlearned_names)
        self._services.metrics_buffer.count_order("accepted")
        self._services.metrics_buffer.count_request(ORDERS_PATH, "POST", 202, perf_counter() - self._started)
        if not self._transport.is_closing():
            order = self._reservation
            self._transport.write(self._template.render(self._request_id, str(order.order_id), order.total_minor))
        self._become_idle()

    def _learn_head(self, names: tuple[bytes, ...]) -> None:
        """Recognise similar heads from now on. Only accepted orders teach: strangers could fill the memory."""
        self._match_previous_head = self._services.head_parser.learn_pattern(_ORDER_LINE, names)
        self._unlearned_names = None

    def _refuse(self, refusal: ProblemError) -> None:
        self._services.metrics_buffer.count_order(refusal.code)
        self._answer(problems.raw_problem(refusal, self._request_id))

    def _refuse_body(self) -> None:
        """Answer an order whose body did not arrive in time, and close the connection."""
        head = cast(RequestHead, self._head)
        self._request_id = self._choose_request_id(head.values[head.layout.request_id])
        self._head, self._buffer = None, b""
        self._started = perf_counter()
        self._state = ConnectionState.PLACING_ORDER
        seconds = self._limits.request_body_timeout_s
        refusal = RequestTimeout(f"the body did not arrive within {seconds:g} s")
        self._services.metrics_buffer.count_order(refusal.code)
        response = problems.raw_problem(refusal, self._request_id)
        self._answer(replace(response, headers=(*response.headers, ("Connection", "close"))))
        close_after_client(self._transport, self._limits)

    def _answer(self, response: RawResponse) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        self._write(response.status, response.content_type, response.body, headers)

    def _write(self, status: int, content_type: str, body: bytes, more_headers: str) -> None:
        """Write the response, then process the buffer."""
        now = perf_counter()
        if status >= 500:
            context = {"request_id": self._request_id, "path": ORDERS_PATH, "status": status}
            _logger.warning("answered with a server error", extra=context)
        self._services.metrics_buffer.count_request(ORDERS_PATH, "POST", status, now - self._started)
        is_ending = self._connections.is_ending
        if not self._transport.is_closing():
            head = (
                f"{self._services.response_heads.response_head(status, now, content_type)}{len(body)}\r\n"
                f"X-Request-Id: {self._request_id}\r\n{more_headers}{_CLOSE if is_ending else ''}\r\n"
            )
            self._transport.write(head.encode("latin-1") + body)
        self._become_idle()
        if is_ending:
            self._transport.close()

    def _become_idle(self) -> None:
        self._state = ConnectionState.IDLE
        self._since = self._loop.time()
        if self._buffer or self._eof or not self._transport.is_reading():
            # Not at once: a client that sends a thousand orders in one packet must not occupy the loop.
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._state == ConnectionState.IDLE:
            self._process_buffer()

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
