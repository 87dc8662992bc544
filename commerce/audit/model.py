"""Results of an audit, and the sums that it seals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from commerce.kernel.coupon_skus import is_first_order_sku

PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")
MAX_EXAMPLES = 5


class UnitSums(msgspec.Struct, frozen=True):
    """Units of one SKU in Postgres.

    Of all stored orders, of those that are sold, without what partial releases have taken from them, of dead letters
    that were not retried, and of applied releases: those that are in stock again, and those that are written off.
    """

    reserved: int = 0
    sold: int = 0
    dead: int = 0
    released: int = 0
    written_off: int = 0

    @property
    def held(self) -> int:
        return self.reserved + self.dead - self.sold - self.released - self.written_off

    def plus(self, other: UnitSums, sign: int = 1) -> UnitSums:
        return UnitSums(*(getattr(self, name) + sign * getattr(other, name) for name in self.__struct_fields__))

    def format(self) -> str:
        """Return those that are not 0, with their signs."""
        units = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return ", ".join(f"{name} {number:+d}" for name, number in units if number)


Sums = dict[str, UnitSums]
"""sums by SKU; those that are all 0 may be missing"""


def add_sums(sums: Sums, others: Sums, sign: int = 1) -> Sums:
    """Add or subtract sums by SKU."""
    zero = UnitSums()
    return {sku: sums.get(sku, zero).plus(others.get(sku, zero), sign) for sku in sums.keys() | others.keys()}


class Seal(msgspec.Struct, frozen=True):
    """Sums that a clean audit of a sale has found, and when all its history was last audited.

    Read from the database, it has the orders that were stored since, and knows whether history was changed since.
    """

    epoch: int
    orders: int
    sums: Sums
    whole_at: datetime
    is_rewritten: bool = False


class SealedSale(msgspec.Struct, frozen=True):
    """A sale with a seal.

    It is at rest if it was closed, nothing was under way, and nothing has changed since.
    """

    sale_id: str
    whole_at: datetime
    is_at_rest: bool


class StockRow(msgspec.Struct, frozen=True):
    """The units of one SKU at the cut.

    Without a `difference`, initial = available + held + sold + written_off + in_stream.

    `initial` includes applied stock changes, `available` the units that the wait-list holds back or offers. `held`
    units are reserved by orders that are neither paid nor released, or wait for their release to be applied.
    `written_off` units left sold orders and did not return to stock.
    """

    sku: str
    initial: int
    available: int
    held: int
    sold: int
    written_off: int
    in_stream: int

    @property
    def difference(self) -> int:
        return self.initial - self.available - self.held - self.sold - self.written_off - self.in_stream


class Finding(msgspec.Struct, frozen=True):
    """A broken promise with the number of violations and some examples."""

    promise: str
    detail: str
    count: int
    examples: list[str]


def make_finding(promise: str, detail: str, violations: Iterable[str]) -> list[Finding]:
    """Return a finding, or none if there are no violations."""
    listed = list(violations)
    return [Finding(promise, detail, len(listed), listed[:MAX_EXAMPLES])] if listed else []


class SaleAudit(msgspec.Struct, frozen=True):
    """The audit of one sale at its cut. `clean` if there are no findings."""

    sale_id: str
    rows: list[StockRow]
    orders: int
    findings: list[Finding]
    notes: list[str]

    @property
    def total(self) -> StockRow:
        """Return the sums of all SKUs but those that only count first orders."""
        rows = [row for row in self.rows if not is_first_order_sku(row.sku)]
        return StockRow("all", *(sum(getattr(row, name) for row in rows) for name in StockRow.__struct_fields__[1:]))

    @property
    def differences(self) -> int:
        """Sum of the absolute differences of all SKUs."""
        return sum(abs(row.difference) for row in self.rows)

    @property
    def clean(self) -> bool:
        return not self.findings
