"""Quotes of carts: the orders that a checkout would place, priced. A quote reserves nothing."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from commerce.cart.model import CartVersion
from commerce.kernel.money import Money
from commerce.orders.quotes import Quote


class CartQuote(msgspec.Struct, frozen=True):
    """The quotes of a cart's orders, one per sale; `totals` are their sums by currency."""

    version: CartVersion
    quotes: list[Quote]
    totals: list[Money]


def add_up(totals: Iterable[Money]) -> list[Money]:
    """Return the sums of amounts by currency."""
    sums: dict[str, int] = {}
    for total in totals:
        sums[total.currency] = sums.get(total.currency, 0) + total.amount
    return [Money(amount, currency) for currency, amount in sorted(sums.items())]
