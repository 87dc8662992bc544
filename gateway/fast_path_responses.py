"""What the express lane's answers look like on the wire."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

import msgspec

from commerce.orders.model import PlacedOrder
from gateway.connections import SERVER
from gateway.endpoints.orders import ORDERS_PATH
from lua import ReserveResult

_PHRASES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
encode = msgspec.json.Encoder().encode


class _Dates:
    """The headers Date and Server, made once a second."""

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def at(self, now: float) -> str:
        """`now` is perf_counter's."""
        second = int(now)
        if second != self._second:
            self._second, self._text = second, f"Date: {formatdate(usegmt=True)}\r\nServer: {SERVER}\r\n"
        return self._text


_dates = _Dates()


def response_head(status: int, now: float, content_type: str) -> str:
    """An answer's head up to the body's length, which comes next; `now` is perf_counter's."""
    return f"{_PHRASES[status]}{_dates.at(now)}Content-Type: {content_type}\r\nContent-Length: "


class BatchResponseTemplate:
    """Answers to accepted orders. Those of one batch differ in their ids and totals only, so what they share is put
    together for the first of them."""

    __slots__ = ("_before", "_between", "_length", "_rest", "_start", "of")

    def __init__(self) -> None:
        self.of: ReserveResult | None = None
        """what Redis said; one object for all orders of a batch that it accepted, kept so that no other can be it"""
        self._start = self._before = self._between = self._rest = ""
        self._length = 0

    def begin(self, of: ReserveResult, placed: PlacedOrder, now: float) -> None:
        """Answers to the same batch are like this one."""
        text = encode(placed).decode("latin-1")
        order_id, amount = str(placed.order_id), f'"amount":{placed.total.amount},'
        before, _, rest = text.partition(order_id)
        between, found, self._rest = rest.partition(amount)
        self.of = of if found else None
        self._start = response_head(202, now, "application/json")
        self._before, self._between, self._rest = before, f'{between}"amount":', f",{self._rest}"
        self._length = len(text) - len(str(placed.total.amount))

    def to(self, request_id: str, order_id: str, total: int) -> bytes:
        """The whole answer."""
        amount = str(total)
        text = (
            f"{self._start}{self._length + len(amount)}\r\nX-Request-Id: {request_id}\r\nLocation: {ORDERS_PATH}/{order_id}"
            f"\r\n\r\n{self._before}{order_id}{self._between}{amount}{self._rest}"
        )
        return text.encode("latin-1")
