"""Record of what one customer was promised, and checks of every later answer against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from commerce.kernel.money import Money
from commerce.kernel.paging import Page
from commerce.orders.model import Order, OrderPrice, OrderStatus, PlacedOrder, PlaceOrder
from commerce.sales.model import Offer
from loadtest.scenarios.checks import (
    CANCEL_REFUSALS,
    ORDER_REFUSALS,
    READ_REFUSALS,
    CheckedResponse,
    ExpectedRefusal,
    check_refusal,
    decode,
    decode_success,
    expect,
)

Part = tuple[int, str, int, int, int]
"""line number, SKU, quantity, address, unit price"""

_TEMPORARY_REFUSALS = frozenset({"too_many_requests", "overloaded", "not_ready", "outcome_unknown"})
_MAX_CLOCK_SKEW = timedelta(seconds=2)
_placed = msgspec.json.Decoder(PlacedOrder)
_order = msgspec.json.Decoder(Order)
_orders = msgspec.json.Decoder(Page[Order])


@dataclass(slots=True)
class Purchase:
    """An order as it is sent, and its state. `first_body` is the body of the first 202 or 200.

    `quoted_total` is the one that its customer was shown; None: it is that of the offers.
    """

    order: PlaceOrder
    key: str
    currency: str
    limits: Mapping[str, int]
    parts: frozenset[Part]
    body: str = field(repr=False)
    quoted_total: Money | None = None
    first_body: bytes | None = field(default=None, repr=False)
    placed: PlacedOrder | None = None
    is_outcome_unknown: bool = False
    """an earlier attempt may have been carried out"""
    is_stored: bool = False
    is_cancel_requested: bool = False
    is_payment_begun: bool = False
    """money may have been sent"""

    @property
    def total(self) -> Money:
        return self.quoted_total or Money(self.subtotal, self.currency)

    @property
    def subtotal(self) -> int:
        """price by the offers, in minor units"""
        return sum(part[2] * part[4] for part in self.parts)

    @property
    def order_id(self) -> UUID:
        assert self.placed is not None
        return self.placed.order_id

    def count_units(self) -> Counter[str]:
        """Return the units by SKU."""
        units: Counter[str] = Counter()
        for line in self.order.lines:
            units[line.sku] += line.quantity
        return units

    def mark_outcome_unknown(self) -> None:
        """Note that an attempt was sent and not answered."""
        self.is_outcome_unknown = self.placed is None

    def is_surely_live(self) -> bool:
        """Tell whether its units certainly count towards the limit: accepted, and not expired yet."""
        if self.placed is None or self.is_cancel_requested:
            return False
        return self.placed.pay_by > datetime.now(UTC) + _MAX_CLOCK_SKEW


def create_purchase(order: PlaceOrder, offers: Mapping[str, Offer], key: str) -> Purchase:
    """Return an order under an idempotency key, priced by the offers that the customer was shown."""
    ordered_offers = {line.sku: offers[line.sku] for line in order.lines}
    limits = {sku: offer.limit_per_user for sku, offer in ordered_offers.items() if offer.limit_per_user is not None}
    return Purchase(
        order=order,
        key=key,
        currency=next(iter(ordered_offers.values())).currency,
        limits=limits,
        parts=frozenset(_list_parts(order, ordered_offers)),
        body=msgspec.json.encode(order).decode(),
    )


def _list_parts(order: PlaceOrder, offers: Mapping[str, Offer]) -> Iterable[Part]:
    for line_no, line in enumerate(order.lines):
        price = offers[line.sku].price
        if isinstance(line.ship_to, int):
            yield line_no, line.sku, line.quantity, line.ship_to, price
        else:
            for split in line.ship_to:
                yield line_no, line.sku, split.quantity, split.address, price


class PurchaseLog:
    """All purchases of one customer, by order id.

    `promised` counts units by SKU over all customers. `is_certain` is False once an order may exist that the log does
    not know.
    """

    def __init__(self, promised: Counter[str]) -> None:
        self.purchases: dict[UUID, Purchase] = {}
        self.is_certain = True
        self._promised = promised
        self._sold_out: set[str] = set()

    def check_placed(self, purchase: Purchase, response: CheckedResponse) -> PlacedOrder | ExpectedRefusal:
        """Check the answer to an order or to its repeat, and record what it promises."""
        if refusal := check_refusal(response, ORDER_REFUSALS):
            return self.check_refused(purchase, refusal)
        status, body = response.status, response.body
        if purchase.first_body is not None:
            expect(status == 200, f"{status} for a repeat of an accepted order")
            expect(body == purchase.first_body, "a repeat has another body", f"{body!r} for {purchase.first_body!r}")
        else:
            allowed = (200, 202) if purchase.is_outcome_unknown else (202,)
            expect(status in allowed, f"{status} for an order that was not accepted before")
        placed = decode(_placed, response)
        location = response.headers.get("location")
        expect(location == f"/v1/orders/{placed.order_id}", "the Location is not that of the order", location)
        expect(placed.sale_id == purchase.order.sale_id, "the order is in another sale", placed.sale_id)
        if purchase.placed is None:
            self.record(purchase, placed, body)
        totals = f"{placed.total}, {purchase.total}"
        expect(placed.total == purchase.total, "the total is not what the offers say", totals)
        return placed

    def check_refused(self, purchase: Purchase, refusal: ExpectedRefusal) -> ExpectedRefusal:
        """Check that an order may be refused so, and note which SKU is sold out."""
        if refusal.code in _TEMPORARY_REFUSALS:
            return refusal
        expect(purchase.first_body is None, f"an accepted order is refused when it is repeated: {refusal.code}")
        purchase.is_outcome_unknown = False  # the order of a key is looked up before anything can be refused
        if refusal.code in ("sold_out", "over_limit"):
            units = purchase.count_units()
            expect(refusal.sku in units, f"{refusal.code} does not say which SKU of the order", refusal.sku)
            sku = str(refusal.sku)
            if refusal.code == "sold_out":
                self._sold_out.add(sku)
            if refusal.code == "over_limit" and self._knows_all_units():
                free = purchase.limits.get(sku, 10**9) - self.count_live_units(sku)
                expect(units[sku] > free, "over_limit, though the limit leaves room", f"{units[sku]} of {free} {sku}")
        return refusal

    def record(self, purchase: Purchase, placed: PlacedOrder, body: bytes) -> None:
        """Record what the first answer to an order promises."""
        expect(placed.pay_by.tzinfo is not None, "pay_by has no time zone")
        expect(placed.order_id not in self.purchases, "two keys have one order", placed.order_id)
        units = purchase.count_units()
        self._promised.update(units)
        for sku, limit in purchase.limits.items():
            total = self.count_live_units(sku) + units[sku]
            expect(total <= limit, "more than the limit was promised to one customer", f"{total} of {limit} {sku}")
        purchase.placed, purchase.first_body, purchase.is_outcome_unknown = placed, body, False
        self.purchases[placed.order_id] = purchase

    def count_live_units(self, sku: str) -> int:
        """Return the units of a SKU that count towards its limit."""
        live = (purchase for purchase in self.purchases.values() if purchase.is_surely_live())
        return sum(purchase.count_units()[sku] for purchase in live)

    def filter_available(self, offers: Mapping[str, Offer]) -> dict[str, Offer]:
        """Return the offers that are not known as sold out and of which the limit leaves a unit."""
        return {
            sku: offer
            for sku, offer in offers.items()
            if sku not in self._sold_out
            and (offer.limit_per_user is None or self.count_live_units(sku) < offer.limit_per_user)
        }

    def _knows_all_units(self) -> bool:
        return self.is_certain and all(purchase.is_surely_live() for purchase in self.purchases.values())

    def check_own_list(self, purchase: Purchase, response: CheckedResponse) -> Page[Order] | ExpectedRefusal:
        """Check the first page of the customer's orders, which must contain this stored order."""
        if refusal := check_refusal(response, READ_REFUSALS):
            return refusal
        page = decode_success(_orders, response)
        ids = [order.order_id for order in page.items]
        expect(purchase.order_id in ids, "a stored order is not in the list", purchase.order_id)
        expect(ids == sorted(set(ids), reverse=True), "the list is not newest first", ids)
        for order in page.items:
            recorded = self.purchases.get(order.order_id)
            is_known = recorded is not None or not self.is_certain
            expect(is_known, "the list has an order that was never placed", order.order_id)
            if recorded is not None:
                is_same = (order.sale_id, order.total) == (recorded.order.sale_id, recorded.total)
                expect(is_same, "the list shows another order than was placed", order)
        return page


def check_read(purchase: Purchase, response: CheckedResponse) -> Order | ExpectedRefusal:
    """Check an order that was read by its id: it exists, and once stored it is as it was sent."""
    expect(response.status != 404, "404 for an order that was promised", purchase.order_id)
    return check_refusal(response, READ_REFUSALS) or _check_order(purchase, decode_success(_order, response))


def check_found_by_key(purchase: Purchase, response: CheckedResponse) -> Order | ExpectedRefusal:
    """Check the result of a search by idempotency key: this order alone."""
    if refusal := check_refusal(response, READ_REFUSALS):
        return refusal
    page = decode_success(_orders, response)
    expect(len(page.items) == 1, "not one order under an idempotency key", len(page.items))
    return _check_order(purchase, page.items[0])


def check_cancelled(purchase: Purchase, response: CheckedResponse) -> Order | ExpectedRefusal:
    """Check the answer to a cancellation."""
    expect(response.status != 404, "404 for an order that was promised", purchase.order_id)
    if refusal := check_refusal(response, CANCEL_REFUSALS):
        return refusal
    order = _check_order(purchase, decode_success(_order, response))
    expect(order.status is OrderStatus.CANCELLED, f"{order.status} after a cancellation")
    has_reason = order.cancel_reason in ("by_customer", "expired")
    expect(has_reason, "a cancelled order has no reason", order.cancel_reason)
    return order


def _check_order(purchase: Purchase, order: Order) -> Order:
    expect(order.order_id == purchase.order_id, "another order than was requested", order.order_id)
    expect(order.sale_id == purchase.order.sale_id, "the order is in another sale", order.sale_id)
    if order.status is OrderStatus.ACCEPTED:
        expect(not purchase.is_stored, "a stored order is no longer stored")
        return order
    purchase.is_stored = True
    if purchase.is_surely_live():
        if purchase.is_payment_begun:
            is_live = order.status is not OrderStatus.CANCELLED
            expect(is_live, f"{order.status} for an order that can still be paid", order.cancel_reason)
        else:
            is_unpaid = order.status is OrderStatus.AWAITING_PAYMENT
            expect(is_unpaid, f"{order.status} for an order that nobody paid")
    expect(order.total == purchase.total, "another total was stored", f"{order.total} for {purchase.total}")
    if order.price is not None:
        check_price(order.price, order.total, purchase.subtotal)
    parts = {(line.line_no, line.sku, line.quantity, line.ship_to, line.unit_price) for line in order.lines or ()}
    expect(parts == purchase.parts, "other lines were stored", parts)
    expect(order.ship_to == purchase.order.ship_to, "other addresses were stored", order.ship_to)
    expect(order.payments == purchase.order.payments, "other payments were stored", order.payments)
    return order


def check_price(price: OrderPrice, total: Money | None, subtotal: int) -> None:
    """Check the parts of a price against the offers and the total."""
    expect(price.subtotal == subtotal, "a subtotal is not what the offers say", f"{price.subtotal} for {subtotal}")
    amount = price.subtotal - price.discount + price.freight + price.cod_fee
    expect(total is not None and amount == total.amount, "a price does not add up to its total", f"{price}, {total}")
