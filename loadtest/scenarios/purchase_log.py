"""What one shopper was promised, and what every later answer must be because of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from commerce.kernel.money import Money
from commerce.kernel.paging import Page
from commerce.orders.model import Order, OrderStatus, PlacedOrder, PlaceOrder
from commerce.sales.model import Offer
from loadtest.scenarios.checks import (
    CANCELLING,
    ORDERING,
    READING,
    CheckedResponse,
    Refused,
    content,
    decode,
    expect,
    refusal,
)

Part = tuple[int, str, int, int, int]
"""line, SKU, quantity, address, unit price"""

_BUSY = frozenset({"too_many_requests", "overloaded", "not_ready", "outcome_unknown"})
_SKEW = timedelta(seconds=2)
_placed = msgspec.json.Decoder(PlacedOrder)
_order = msgspec.json.Decoder(Order)
_orders = msgspec.json.Decoder(Page[Order])


@dataclass(slots=True)
class Purchase:
    """An order as it is sent, and what became of it. `answer` is the body of the first 202 or 200."""

    order: PlaceOrder
    key: str
    currency: str
    limits: Mapping[str, int]
    parts: frozenset[Part]
    body: str = field(repr=False)
    answer: bytes | None = field(default=None, repr=False)
    placed: PlacedOrder | None = None
    unclear: bool = False
    """an earlier attempt may have been carried out"""
    stored: bool = False
    given_up: bool = False
    """the shopper has asked for its cancellation"""

    @property
    def total(self) -> Money:
        return Money(sum(part[2] * part[4] for part in self.parts), self.currency)

    @property
    def order_id(self) -> UUID:
        assert self.placed is not None
        return self.placed.order_id

    def units(self) -> Counter[str]:
        """Units by SKU."""
        units: Counter[str] = Counter()
        for line in self.order.lines:
            units[line.sku] += line.quantity
        return units

    def lost_sight(self) -> None:
        """An attempt went out and nobody said what became of it."""
        self.unclear = self.placed is None

    def live(self) -> bool:
        """Whether its units count towards the limit for certain: it is kept, and the time to pay is not over."""
        if self.placed is None or self.given_up:
            return False
        return self.placed.pay_by > datetime.now(UTC) + _SKEW


def purchase(order: PlaceOrder, offers: Mapping[str, Offer], key: str) -> Purchase:
    """An order under a key, priced by the offers as the shopper sees them."""
    wanted = {line.sku: offers[line.sku] for line in order.lines}
    limits = {sku: offer.limit_per_user for sku, offer in wanted.items() if offer.limit_per_user is not None}
    currency = next(iter(wanted.values())).currency
    return Purchase(order, key, currency, limits, frozenset(_parts(order, wanted)), msgspec.json.encode(order).decode())


def _parts(order: PlaceOrder, offers: Mapping[str, Offer]) -> Iterable[Part]:
    for number, line in enumerate(order.lines):
        price = offers[line.sku].price
        if isinstance(line.ship_to, int):
            yield number, line.sku, line.quantity, line.ship_to, price
        else:
            for share in line.ship_to:
                yield number, line.sku, share.quantity, share.address, price


class PurchaseLog:
    """All purchases of one shopper, by order id; `promised` counts units by SKU, over all shoppers.

    `certain`: whether the shopper knows of every order that stands under its name.
    """

    def __init__(self, promised: Counter[str]) -> None:
        self.purchases: dict[UUID, Purchase] = {}
        self.certain = True
        self._promised = promised
        self._gone: set[str] = set()

    def ordered(self, bought: Purchase, answer: CheckedResponse) -> PlacedOrder | Refused:
        """Check the answer to an order, or to a repeat of one, and remember what it promises."""
        if refused := refusal(answer, ORDERING):
            return self._refused(bought, refused)
        if bought.answer is not None:
            expect(answer.status == 200, f"{answer.status} for a repeat of an accepted order")
            expect(answer.body == bought.answer, "a repeat has another body", f"{answer.body!r} for {bought.answer!r}")
        else:
            right = (200, 202) if bought.unclear else (202,)
            expect(answer.status in right, f"{answer.status} for an order that was not accepted before")
        placed = decode(_placed, answer)
        location = answer.headers.get("location")
        expect(location == f"/v1/orders/{placed.order_id}", "the Location is not that of the order", location)
        expect(placed.sale_id == bought.order.sale_id, "the order is in another sale", placed.sale_id)
        if bought.placed is None:
            self._enter(bought, placed, answer.body)
        expect(placed.total == bought.total, "the total is not what the offers say", f"{placed.total}, {bought.total}")
        return placed

    def _refused(self, bought: Purchase, refused: Refused) -> Refused:
        if refused.code in _BUSY:
            return refused
        expect(bought.answer is None, f"an accepted order is refused when it is repeated: {refused.code}")
        bought.unclear = False  # a key that stands for an order is found before anything can be refused
        if refused.code in ("sold_out", "over_limit"):
            units = bought.units()
            expect(refused.sku in units, f"{refused.code} does not say which SKU of the order", refused.sku)
            sku = str(refused.sku)
            if refused.code == "sold_out":
                self._gone.add(sku)
            if refused.code == "over_limit" and self._knows_all():
                room = bought.limits.get(sku, 10**9) - self.held(sku)
                expect(units[sku] > room, "over_limit, though the limit leaves room", f"{units[sku]} of {room} {sku}")
        return refused

    def _enter(self, bought: Purchase, placed: PlacedOrder, body: bytes) -> None:
        expect(placed.pay_by.tzinfo is not None, "pay_by has no time zone")
        expect(placed.order_id not in self.purchases, "two keys stand for one order", placed.order_id)
        units = bought.units()
        self._promised.update(units)
        for sku, limit in bought.limits.items():
            held = self.held(sku) + units[sku]
            expect(held <= limit, "more than the limit was promised to one shopper", f"{held} of {limit} {sku}")
        bought.placed, bought.answer, bought.unclear = placed, body, False
        self.purchases[placed.order_id] = bought

    def held(self, sku: str) -> int:
        """Units of a SKU that count towards its limit."""
        return sum(bought.units()[sku] for bought in self.purchases.values() if bought.live())

    def in_reach(self, offers: Mapping[str, Offer]) -> dict[str, Offer]:
        """Those of which the shopper may buy one more and does not know that none is left."""
        return {
            sku: offer
            for sku, offer in offers.items()
            if sku not in self._gone and (offer.limit_per_user is None or self.held(sku) < offer.limit_per_user)
        }

    def _knows_all(self) -> bool:
        return self.certain and all(bought.live() for bought in self.purchases.values())

    def listed(self, bought: Purchase, answer: CheckedResponse) -> Page[Order] | Refused:
        """Check the first page of the own list, which must have this stored order."""
        if refused := refusal(answer, READING):
            return refused
        page = content(_orders, answer)
        ids = [order.order_id for order in page.items]
        expect(bought.order_id in ids, "a stored order is not in the list", bought.order_id)
        expect(ids == sorted(set(ids), reverse=True), "the list is not newest first", ids)
        for order in page.items:
            known = self.purchases.get(order.order_id)
            expect(known is not None or not self.certain, "the list has an order that was never placed", order.order_id)
            if known is not None:
                same = (order.sale_id, order.total) == (known.order.sale_id, known.total)
                expect(same, "the list shows another order than was placed", order)
        return page


def read(bought: Purchase, answer: CheckedResponse) -> Order | Refused:
    """Check an order that was read by its id: from its 202 on it is found, and once stored it is as it was sent."""
    expect(answer.status != 404, "404 for an order that was promised", bought.order_id)
    return refusal(answer, READING) or _same(bought, content(_order, answer))


def found(bought: Purchase, answer: CheckedResponse) -> Order | Refused:
    """Check what was found under an order's idempotency key: that order alone."""
    if refused := refusal(answer, READING):
        return refused
    page = content(_orders, answer)
    expect(len(page.items) == 1, "not one order under an idempotency key", len(page.items))
    return _same(bought, page.items[0])


def cancelled(bought: Purchase, answer: CheckedResponse) -> Order | Refused:
    """Check the answer to a cancellation."""
    expect(answer.status != 404, "404 for an order that was promised", bought.order_id)
    if refused := refusal(answer, CANCELLING):
        return refused
    order = _same(bought, content(_order, answer))
    expect(order.status is OrderStatus.CANCELLED, f"{order.status} after a cancellation")
    expect(order.cancel_reason in ("by_customer", "expired"), "it is not said why it is cancelled", order.cancel_reason)
    return order


def _same(bought: Purchase, order: Order) -> Order:
    expect(order.order_id == bought.order_id, "another order than was asked for", order.order_id)
    expect(order.sale_id == bought.order.sale_id, "the order is in another sale", order.sale_id)
    if order.status is OrderStatus.ACCEPTED:
        expect(not bought.stored, "an order that was stored is so no longer")
        return order
    bought.stored = True
    if bought.live():
        expect(order.status is OrderStatus.AWAITING_PAYMENT, f"{order.status} for an order that nobody paid")
    expect(order.total == bought.total, "another total was stored", f"{order.total} for {bought.total}")
    parts = {(line.line_no, line.sku, line.quantity, line.ship_to, line.unit_price) for line in order.lines or ()}
    expect(parts == bought.parts, "other lines were stored", parts)
    expect(order.ship_to == bought.order.ship_to, "other addresses were stored", order.ship_to)
    expect(order.payments == bought.order.payments, "other payments were stored", order.payments)
    return order
