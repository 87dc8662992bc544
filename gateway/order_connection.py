"""The part of a connection that answers orders: from a head's values and a body to the response.

It places at most one order at a time, so responses keep the sequence of requests.
"""

from __future__ import annotations

import logging
from time import perf_counter

from commerce.kernel.errors import ProblemError
from commerce.orders.model import PlacedOrder
from gateway import problems
from gateway.connections import ConnectionRegistry, ConnectionState, TrackedConnection
from gateway.decoding import check_idempotency_key, decode_order_body
from gateway.fast_path_responses import encode
from gateway.order_placement import MAX_TRACEPARENT_CHARS, ORDERS_PATH, NeedsSlowPath
from gateway.pending_order import Outcome, PendingOrder
from gateway.problems import RawResponse
from gateway.request_head import HeaderLayout, Match, Values
from gateway.services import REQUEST_ID_PATTERN, GatewayServices
from lua import ReserveOutcome

_logger = logging.getLogger(__name__)
ORDER_LINE = f"POST {ORDERS_PATH} HTTP/1.1\r\n".encode()
_STALE = ReserveOutcome.STALE
_CLOSE = "Connection: close\r\n"
_IDLE, _ANSWERING = ConnectionState.IDLE, ConnectionState.ANSWERING


class OrderConnection(TrackedConnection):
    """A connection that answers orders; `FastPathConnection` finds them in what arrives."""

    __slots__ = (
        "_match_previous_head", "_order_arguments", "_request_id", "_reservation", "_services", "_started", "_state",
        "_task", "_template", "_unlearned_names",
    )  # fmt: skip

    def __init__(self, connections: ConnectionRegistry, services: GatewayServices) -> None:
        super().__init__(connections)
        self._services = services
        self._template = services.batch_template
        self._state = _IDLE
        self._match_previous_head: Match | None = None  # a client's next order usually has a similar head
        self._unlearned_names: tuple[bytes, ...] | None = None  # header names of the pending order, if new

    def _take_order(self, layout: HeaderLayout, values: Values, body: bytes) -> None:
        self._state = _ANSWERING
        self._started = perf_counter()
        services = self._services
        self._request_id = self._choose_request_id(values[layout.request_id])
        try:
            services.admission.check_load()
            user_id = services.auth.identify_customer(values[layout.authorization]).subject
            address = self.client.bucket or services.client_addresses.find_bucket(self.client, layout, values)
            services.admission.rate_limits.check(user_id, address, values[layout.device_id])
            key_bytes = values[layout.key]
            key = check_idempotency_key(None if key_bytes is None else key_bytes.decode("latin-1"))
            order = decode_order_body(body)
            if services.room_status.guarded:
                services.room_status.check_turn(order.sale_id, user_id, values[layout.room_ticket])
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
        self._match_previous_head = self._services.head_parser.learn_pattern(ORDER_LINE, names)
        self._unlearned_names = None

    def _refuse(self, refusal: ProblemError) -> None:
        self._services.metrics_buffer.count_order(refusal.code)
        self._answer(problems.raw_problem(refusal, self._request_id))

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
        """Take the next request; `FastPathConnection` does it."""
        raise NotImplementedError
