"""Response bytes of the fast path."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

import msgspec

from commerce.orders.model import PlacedOrder
from gateway.aiohttp_handler import SERVER
from lua import ReserveResult

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
encode = msgspec.json.Encoder().encode


class ResponseHeads:
    """Builds response heads; the headers Date and Server are rendered once a second."""

    __slots__ = ("_common_headers", "_second")

    def __init__(self) -> None:
        self._second, self._common_headers = -1, ""

    def response_start(self, status: int, now: float) -> str:
        """Build the status line and the headers that every response has; `now` is perf_counter's."""
        second = int(now)
        if second != self._second:
            self._second, self._common_headers = second, f"Date: {formatdate(usegmt=True)}\r\nServer: {SERVER}\r\n"
        return f"{_STATUS_LINES[status]}{self._common_headers}"

    def response_head(self, status: int, now: float, content_type: str) -> str:
        """Build a head up to the body's length, which the caller appends; `now` is perf_counter's."""
        return f"{self.response_start(status, now)}Content-Type: {content_type}\r\nContent-Length: "


class BatchResponseTemplate:
    """Builds the 202 responses of one Redis batch from a shared template.

    They differ only in request id, order id and total. The first response is encoded in full, the others reuse its
    bytes: measured in docs/performance.md.
    """

    __slots__ = (
        "_after_amount",
        "_before_amount",
        "_before_id",
        "_fixed_length",
        "_head",
        "_heads",
        "_location",
        "batch",
    )

    def __init__(self, heads: ResponseHeads, orders_path: str) -> None:
        self._heads = heads
        self._location = f"Location: {orders_path}/"
        self.batch: ReserveResult | None = None
        """the decision shared by all accepted orders of a batch; held, so no other object has its identity"""
        self._head = self._before_id = self._before_amount = self._after_amount = ""
        self._fixed_length = 0

    def begin(self, batch: ReserveResult, placed: PlacedOrder, now: float) -> None:
        """Take this answer as the template for its batch; `now` is perf_counter's."""
        text = encode(placed).decode("latin-1")
        order_id, amount = str(placed.order_id), f'"amount":{placed.total.amount},'
        before_id, _, after_id = text.partition(order_id)
        before_amount, separator, after_amount = after_id.partition(amount)
        self.batch = batch if separator else None
        self._head = self._heads.response_head(202, now, "application/json")
        self._before_id, self._before_amount, self._after_amount = (
            before_id,
            f'{before_amount}"amount":',
            f",{after_amount}",
        )
        self._fixed_length = len(text) - len(str(placed.total.amount))

    def render(self, request_id: str, order_id: str, total_minor: int) -> bytes:
        """Build the whole response to another order of the batch."""
        amount = str(total_minor)
        text = (
            f"{self._head}{self._fixed_length + len(amount)}\r\nX-Request-Id: {request_id}\r\n"
            f"{self._location}{order_id}\r\n\r\n{self._before_id}{order_id}{self._before_amount}{amount}{self._after_amount}"
        )
        return text.encode("latin-1")
