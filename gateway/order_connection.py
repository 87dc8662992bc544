"""The part of a connection that answers orders: from a head's values and a body to the response.

It places at most one order at a time, so responses keep the sequence of requests.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from time import perf_counter
from typing import Final

from commerce.kernel.errors import ProblemError
from commerce.orders.model import PlacedOrder, PlaceOrder
from gateway import problems
from gateway.connections import ConnectionRegistry, ConnectionState, TrackedConnection
from gateway.decoding import check_idempotency_key, decode_order_body
from gateway.fast_path_responses import encode
from gateway.load_shedding import PrebuiltRefusals
from gateway.order_placement import MAX_TRACEPARENT_CHARS, ORDERS_PATH, NeedsSlowPath, find_only_sku
from gateway.pending_order import Outcome, PendingOrder
from gateway.problems import RateLimited, RawResponse
from gateway.request_head import HeaderLayout, Match, Values
from gateway.request_origin import origin_of_head
from gateway.services import REQUEST_ID_PATTERN, GatewayServices
from lua import ReserveOutcome

_logger = logging.getLogger(__name__)
ORDER_LINE = f"POST {ORDERS_PATH} HTTP/1.1\r\n".encode()
_STALE = ReserveOutcome.STALE
_CLOSE = "Connection: close\r\n"
_MAX_REST_S = 1.0
_PRESSED_AGAIN_S = 3.0
"""within this time after a refusal the next one is of a client who presses again"""
_RESUME_DELAY_S = 0.15
"""longest time until a connection is resumed when its rest is over"""
_MAX_RATE_LIMITED_REST_S = 30.0
_IDLE: Final = ConnectionState.IDLE
_ANSWERING: Final = ConnectionState.ANSWERING


class OrderConnection(TrackedConnection):
    """A connection that answers orders; `FastPathConnection` finds them in what arrives."""

    __slots__ = (
        "_key_headers", "_match_previous_head", "_order_arguments", "_origin", "_refused_at", "_request_id",
        "_reservation", "_room_ticket", "_sale_id", "_services", "_started", "_state", "_task", "_template",
        "_unlearned_names",
    )  # fmt: skip

    def __init__(self, connections: ConnectionRegistry, services: GatewayServices) -> None:
        super().__init__(connections)
        self._services = services
        self._template = services.batch_template
        self._state = _IDLE
        self._match_previous_head: Match | None = None  # a client's next order usually has a similar head
        self._unlearned_names: tuple[bytes, ...] | None = None  # header names of the pending order, if new
        self._refused_at = float("-inf")  # for what nobody can change at once, as sold out

    def _take_order(self, layout: HeaderLayout, values: Values, body: bytes) -> None:
        self._state = _ANSWERING
        self._started = now = perf_counter()
        services = self._services
        pressure = services.admission.pressure(now)
        if pressure > 0 and services.shedder.refuses(
            pressure, values[layout.authorization], values[layout.key], values[layout.room_ticket]
        ):
            if services.refused_orders.sales:
                services.refused_orders.count_body(body)
            self._shed(values[layout.request_id], now)
            return
        self._request_id = self._choose_request_id(values[layout.request_id])
        try:
            user_id = services.auth.identify_customer(values[layout.authorization]).subject
            address = self.client.bucket or services.client_addresses.find_bucket(self.client, layout, values)
            services.admission.rate_limits.check(user_id, address, values[layout.device_id])
            key_bytes = values[layout.key]
            key = check_idempotency_key(None if key_bytes is None else key_bytes.decode("latin-1"))
            trace_bytes = values[layout.traceparent]
            trace = "" if trace_bytes is None else trace_bytes.decode("latin-1")[:MAX_TRACEPARENT_CHARS]
            # Not the decoded order: a hundred others are decoded before this one is answered, and its many parts would
            # be expensive to free by then. In the rare case that the order is needed, it is decoded again.
            self._order_arguments = body, user_id, key, trace
            self._key_headers = values[layout.authorization], key_bytes
            self._room_ticket = values[layout.room_ticket]
            if services.screening_signals.is_on:
                self._origin = origin_of_head(address, layout, values)
            expected = services.expected_refusals
            sale = expected.find_sale(body) if expected.is_active else None
            if sale is not None:
                expected.submit(sale, user_id, key, self._on_rechecked)
                return
            order = decode_order_body(body)
            if expected.is_active and (sold_out := expected.find_sku(order)):
                sale, sku, units = sold_out
                expected.submit(sale, user_id, key, self._on_rechecked, sku, units)
                return
            self._check_turn(order)
        except ProblemError as refusal:
            self._refuse(refusal)

    def _on_rechecked(self, refusal: PrebuiltRefusals | ProblemError | None) -> None:
        """Refuse the pending order, or place it if its refusal was not confirmed."""
        if refusal is None:
            self._place_decoded(self._check_turn)
            return
        now = perf_counter()
        is_again, self._refused_at = now - self._refused_at < _PRESSED_AGAIN_S, now
        # Not after the first refusal: a customer who has learned of it looks at something else.
        if isinstance(refusal, ProblemError):
            self._refuse(refusal, _MAX_REST_S if is_again else 0)
            return
        self._services.metrics_buffer.count_refusal(refusal.code, ORDERS_PATH, refusal.status)
        if not self._transport.is_closing():
            self._transport.write(refusal.render(self._request_id, refusal.retry_after_s, now))
        self._rest(self._choose_rest_s(refusal) if is_again else 0)

    def _choose_rest_s(self, refusal: PrebuiltRefusals) -> float:
        """Return how long a client who presses again rests; never beyond the end of what it was refused for."""
        if refusal.ends_ms:
            return min(_MAX_REST_S, (refusal.ends_ms - self._services.clock.now_ms()) / 1000 - _RESUME_DELAY_S)
        return _MAX_REST_S

    def _on_turn_rechecked(self, refusal: PrebuiltRefusals | ProblemError | None) -> None:
        """Refuse an order whose turn it is not, or place it: it is a repeat, or offered by the wait-list."""
        if refusal is None:
            self._place_decoded(self._submit)
        else:
            self._on_rechecked(refusal)

    def _place_decoded(self, place: Callable[[PlaceOrder], None]) -> None:
        try:
            place(decode_order_body(self._order_arguments[0]))
        except ProblemError as refusal:
            self._refuse(refusal)
        except Exception:
            _logger.exception("an order failed", extra={"request_id": self._request_id})
            self._answer(problems.raw_internal_error(self._request_id))

    def _check_turn(self, order: PlaceOrder) -> None:
        """Place an order, unless screening or the sale's waiting room refuses it.

        A repeat is always placed, and what the wait-list offers needs no turn in the room.
        """
        services, (_, user_id, key, _) = self._services, self._order_arguments
        if services.screening_signals.is_on:
            services.screening_signals.note_order(order.sale_id, user_id, self._origin)
            if services.screening_actions.is_refusing and (
                refusal := services.screening_actions.check_order(order.sale_id, user_id)
            ):
                services.expected_refusals.refuse_unless_repeat(
                    order.sale_id, user_id, key, self._on_turn_rechecked, refusal
                )
                return
        if services.room_status.guarded:
            try:
                services.room_status.check_turn(order.sale_id, user_id, self._room_ticket)
            except ProblemError as refusal:
                services.expected_refusals.refuse_unless_repeat(
                    order.sale_id, user_id, key, self._on_turn_rechecked, refusal, find_only_sku(order)
                )
                return
        self._submit(order)

    def _submit(self, order: PlaceOrder) -> None:
        """Price an order and hand it to the intake."""
        services, (_, user_id, key, trace) = self._services, self._order_arguments
        self._sale_id = order.sale_id
        try:
            self._reservation = services.placement.price_from_memory(order, user_id, key, trace)
        except NeedsSlowPath:
            self._place_in_task()
            return
        services.intake.submit(order.sale_id, PendingOrder(self._reservation, self._on_outcome))

    def _shed(self, request_id: bytes | None, now: float) -> None:
        """Refuse an order because of overload."""
        services = self._services
        prebuilt, rest_s = services.shedder.prebuilt(), services.resting.choose_rest_s()
        services.metrics_buffer.shed_orders += 1
        services.metrics_buffer.count_refusal(prebuilt.code, ORDERS_PATH, prebuilt.status)
        if not self._transport.is_closing():
            self._transport.write(prebuilt.render(self._choose_request_id(request_id), rest_s, now))
        self._rest(rest_s)

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
                placed, status = self._services.placement.result_of(self._sale_id, self._reservation, result)
            except ProblemError as refusal:
                self._services.expected_refusals.learn(self._sale_id, result)
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
            body, user_id, key, trace = self._order_arguments
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
        self._services.known_keys.add(*self._key_headers)
        self._write(status, "application/json", encode(placed), f"Location: {ORDERS_PATH}/{placed.order_id}\r\n")

    def _accept_from_template(self) -> None:
        """Answer as `_accept`, from the template of the batch."""
        if self._unlearned_names is not None:
            self._learn_head(self._unlearned_names)
        self._services.metrics_buffer.count_order("accepted")
        self._services.metrics_buffer.count_request(ORDERS_PATH, "POST", 202, perf_counter() - self._started)
        order = self._reservation
        self._services.known_keys.add(*self._key_headers)
        if not self._transport.is_closing():
            self._transport.write(self._template.render(self._request_id, str(order.order_id), order.total_minor))
        self._become_idle()

    def _learn_head(self, names: tuple[bytes, ...]) -> None:
        """Recognise similar heads from now on. Only accepted orders teach: strangers could fill the memory."""
        self._match_previous_head = self._services.head_parser.learn_pattern(ORDER_LINE, names)
        self._unlearned_names = None

    def _refuse(self, refusal: ProblemError, rest_s: float = 0) -> None:
        self._services.metrics_buffer.count_order(refusal.code)
        if isinstance(refusal, RateLimited):
            rest_s = min(float(refusal.rest_s), _MAX_RATE_LIMITED_REST_S)
        self._answer(problems.raw_problem(refusal, self._request_id), rest_s)

    def _answer(self, response: RawResponse, rest_s: float = 0) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        self._write(response.status, response.content_type, response.body, headers, rest_s)

    def _write(self, status: int, content_type: str, body: bytes, more_headers: str, rest_s: float = 0) -> None:
        """Write the response, then process the buffer after a rest."""
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
        if is_ending:
            self._become_idle()
            self._transport.close()
        else:
            self._rest(rest_s)

    @abstractmethod
    def _become_idle(self) -> None:
        """Take the next request."""

    @abstractmethod
    def _rest(self, rest_s: float) -> None:
        """Take the next request after a rest."""
