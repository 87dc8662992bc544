"""A report on sales, and the figures in it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec

MAX_DAYS, MAX_MINUTES = 366, 2_880
MAX_ROWS = 5_000
SalesGroup = Literal["total", "sku", "day", "minute", "reason"]
EventKind = Literal["order", "status", "cancellation", "delivery", "case", "receipt", "grant"]
Visit = Literal["viewed", "carted", "sold_out"]
"""`sold_out`: orders that were refused because too few units were left"""
Figure = (
    Visit
    | Literal["accepted", "lapsed", "recovered", "paid", "cancelled"]
    | Literal["delivered", "requested", "withdrawn", "received", "refunded"]
)
WHOLE_SALE = ""
"""instead of a SKU: whole orders, with freight and fees"""
NO_SALE = ""
"""instead of a sale: views of a product's own page"""


class CountedEvent(NamedTuple):
    """An event with what it adds for a SKU, or for the whole sale. The amount is in minor units."""

    id: UUID
    sale_id: str
    sku: str
    at: datetime
    figure: Figure
    reason: str
    units: int
    amount: int


class FigureSum(NamedTuple):
    """The sum of a figure over a period, in a currency; views of products have none."""

    group: str | date | datetime
    currency: str
    figure: Figure
    events: int
    units: int
    amount: int


class SalesFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a group in one currency. Amounts are in minor units.

    Those of a SKU are prices of its units after discounts; those of whole sales are totals of orders, with freight and
    fees. `group` is a SKU, a day, or a minute; empty for all. Views of a product's page belong to no sale, and have no
    currency unless the group has other figures in one.
    """

    group: str
    currency: str
    views: int = 0
    carted: int = 0
    sold_out: int = 0
    orders: int = 0
    units: int = 0
    amount: int = 0
    lapsed_orders: int = 0
    lapsed_units: int = 0
    lapsed_amount: int = 0
    recovered_orders: int = 0
    recovered_units: int = 0
    recovered_amount: int = 0
    paid_orders: int = 0
    paid_units: int = 0
    paid_amount: int = 0
    cancelled_units: int = 0
    delivered_units: int = 0
    requested_units: int = 0
    withdrawn_units: int = 0
    received_units: int = 0
    refunded_units: int = 0
    refunded_amount: int = 0

    @property
    def sold_units(self) -> int:
        """Units of paid orders that were not cancelled since."""
        return self.paid_units - self.cancelled_units


class StockFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Stock of a SKU in a sale against what was sold of it in the period.

    `supplied` are the units at the start and those added since, `free` those that can be ordered now; null if that
    cannot be read. `sell_through` is `sold / supplied`. `days_left` is how long the free units last at the pace of the
    period; null if nothing was sold.
    """

    sku: str
    supplied: int
    sold: int
    free: int | None
    sell_through: float | None
    days_left: float | None


class ReasonFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Cancelled, returned and refunded units by reason, of a SKU, or of all when `sku` is empty."""

    figure: Figure
    reason: str
    sku: str
    currency: str
    events: int
    units: int
    amount: int


class SalesReport(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a period of whole days in `zone`, or of whole minutes.

    `totals` has a row for each currency, and one without a currency if there are only views. What happened after
    `counted_until` may be missing; null: nothing is.
    """

    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    by: SalesGroup
    zone: str
    sale_id: str | None
    sku: str | None
    created_at: datetime
    counted_until: datetime | None
    totals: list[SalesFigures]
    rows: list[SalesFigures]
    stock: list[StockFigures]
    reasons: list[ReasonFigures]
