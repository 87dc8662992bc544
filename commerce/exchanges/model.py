"""Exchanges, and the orders that replace returned units.

A replacement is an ordinary order at the prices of the day. What was paid for the returned units, its credit, is taken
off as a discount, up to its whole price; the rest is to be paid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

EXCHANGE = "@exchange"
"""id of the discount of a replacement, in place of a promotion's, which never begins so"""
ExchangeStatus = Literal["open", "done", "returned"]
"""`done`: the replacement is paid; `returned`: there was none, so the units are refunded as returned"""


class Exchange(NamedTuple):
    """A row of `exchanges`: units of `order_id` that `replacement_id` replaces once it is placed."""

    case_id: UUID
    order_id: UUID
    replacement_id: UUID
    credit_minor: int
    status: ExchangeStatus


class WantedLine(NamedTuple):
    """Units of a SKU of the same sale, for an address of the order whose units are returned."""

    sku: str
    quantity: int
    address_no: int


class WantedItem(NamedTuple):
    """Terms of a SKU in its sale; the limit is 0 if there is none."""

    sku: str
    price_minor: int
    list_price_minor: int
    user_limit: int


class Replacement(NamedTuple):
    """A replacement to place: for one case, so its ids never change."""

    exchange: Exchange
    lines: Sequence[WantedLine]
    pay_within_s: int


class ReplacementPrice(NamedTuple):
    """The price of a replacement and the credit, in minor units, and what follows."""

    price_minor: int
    credit_minor: int

    @property
    def discount_minor(self) -> int:
        return min(self.price_minor, self.credit_minor)

    @property
    def to_pay_minor(self) -> int:
        return self.price_minor - self.discount_minor

    @property
    def to_refund_minor(self) -> int:
        return self.credit_minor - self.discount_minor
