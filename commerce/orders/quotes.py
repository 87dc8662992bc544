"""Quotes: an order as it would be placed now, priced. A quote reserves nothing."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Minor, Money
from commerce.orders.model import (
    CouponCode,
    Method,
    OpenSaleId,
    OrderDiscount,
    OrderFreight,
    OrderLineInput,
    OrderPrice,
    Tender,
)
from commerce.orders.pricing import PricedOrder
from commerce.promotions.model import Explanation
from commerce.sales.model import SaleId


class QuoteInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order to be quoted. Without addresses the freight is not known; `payments` may be left out."""

    sale_id: OpenSaleId
    lines: Annotated[list[OrderLineInput], msgspec.Meta(min_length=1)]
    ship_to: list[Address] = []
    payments: list[Tender] = []
    coupons: list[CouponCode] = []


class QuotedLine(msgspec.Struct, frozen=True):
    """A line of a quote with prices in minor units, as that of an order.

    `available` are the free units of the SKU, null if they cannot be read; `allowed` are those that the customer may
    still buy, null if there is no limit or it cannot be read.
    """

    line_no: int
    sku: str
    quantity: int
    ship_to: int
    unit_price: Minor
    list_price: Minor
    discount: Minor
    paid: Minor
    available: int | None
    allowed: int | None


class Quote(msgspec.Struct, frozen=True):
    """An order as it would be placed at `as_of`. Nothing is reserved: `is_reserved` is always false.

    `price.freight` is 0 and `is_freight_known` false if the quote has no address. `obstacles` are why the order would
    be refused now: sold_out, over_limit, coupon_used_up, coupon_limit, sale_not_open, sale_paused, sale_closed.
    """

    sale_id: SaleId
    as_of: datetime
    lines: list[QuotedLine]
    price: OrderPrice
    total: Money
    is_freight_known: bool
    promotions: list[Explanation]
    obstacles: list[str]
    payment_methods: list[Method]
    promised_on: date
    is_reserved: bool = False


def quoted_price(priced: PricedOrder) -> OrderPrice:
    """Return the price of an order with its parts, as a stored order shows it."""
    subtotal = sum(line.quantity * line.unit_price for line in priced.lines)
    parts = priced.parts
    if parts is None:
        return OrderPrice(subtotal, 0, 0, 0)
    discounts = [OrderDiscount(part.promotion_id, part.label, part.amount) for part in parts.discounts]
    freight = [OrderFreight(number, amount) for number, amount in enumerate(parts.freight) if amount]
    discount = sum(part.amount for part in discounts)
    return OrderPrice(subtotal, discount, sum(parts.freight), parts.cod_fee, discounts, freight, list(priced.coupons))
