"""What an audit finds."""

from __future__ import annotations

import msgspec


class StockRow(msgspec.Struct, frozen=True):
    """The units of one SKU at one moment: initial = available + held + sold + in_stream, or there is a difference.

    `initial` includes what was restocked. `held` is accepted and neither paid nor given back yet.
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
    """A broken promise: how often, and some of the things it concerns."""

    promise: str
    detail: str
    count: int
    examples: list[str]


class SaleAudit(msgspec.Struct, frozen=True):
    """One sale's books at the moment of its cut. Clean if there are no findings."""

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
        """Units that are too many or too few, summed over the SKUs without setting one against another."""
        return sum(abs(row.difference) for row in self.rows)

    @property
    def clean(self) -> bool:
        return not self.findings
