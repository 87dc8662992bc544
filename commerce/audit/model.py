"""Results of an audit."""

from __future__ import annotations

import msgspec

PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")


class StockRow(msgspec.Struct, frozen=True):
    """The units of one SKU at the cut.

    Without a `difference`, initial = available + held + sold + in_stream.

    `initial` includes applied stock changes, `available` the units that the wait-list holds back or offers. `held`
    units are reserved by orders that are neither paid nor released.
    """

    sku: str
    initial: int
    available: int
    held: int
    sold: int
    in_stream: int

    @property
    def difference(self) -> int:
        return self.initial - self.available - self.held - self.sold - self.in_stream


class Finding(msgspec.Struct, frozen=True):
    """A broken promise with the number of violations and some examples."""

    promise: str
    detail: str
    count: int
    examples: list[str]


class SaleAudit(msgspec.Struct, frozen=True):
    """The audit of one sale at its cut. `clean` if there are no findings."""

    sale_id: str
    rows: list[StockRow]
    orders: int
    findings: list[Finding]
    notes: list[str]

    @property
    def total(self) -> StockRow:
        return StockRow(
            "all",
            *(sum(getattr(row, name) for row in self.rows) for name in StockRow.__struct_fields__[1:]),
        )

    @property
    def differences(self) -> int:
        """Sum of the absolute differences of all SKUs."""
        return sum(abs(row.difference) for row in self.rows)

    @property
    def clean(self) -> bool:
        return not self.findings
