"""Figures of the part `pricing`, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

import msgspec

from loadtest.bench.comparison import Measurement
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

GATEWAY = "server"
"""kind of process of the gateway in measurements"""


class PricingTimes(msgspec.Struct, frozen=True):
    """Processor time of `price_order` in microseconds, in one process.

    `plain` without promotions; with them `hit` for orders whose result is remembered, `miss` for those that are all
    different.
    """

    plain: float
    hit: float
    miss: float


class PricingFigures(msgspec.Struct):
    """All measurements of the part, and when and where they were made.

    Those of `plain` and `promotions` took turns: the first of the one is the neighbour of the first of the other.
    """

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    plain: list[Measurement] = []
    promotions: list[Measurement] = []
    in_process: list[PricingTimes] = []
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return the figures that have thresholds: medians of microseconds of the gateway's processor time."""
        ratios: dict[str, float] = {}
        if self.plain and self.promotions:
            plain, promotions = _list_costs(self.plain), _list_costs(self.promotions)
            pairs = zip(plain, promotions, strict=True)
            ratios = {
                "repeats": len(plain),
                "plain_us": median(plain),
                "promotions_us": median(promotions),
                "extra_us": median(with_promotions - without for without, with_promotions in pairs),
            }
        if self.in_process:
            for name in PricingTimes.__struct_fields__:
                ratios[f"price_order_{name}_us"] = median(getattr(times, name) for times in self.in_process)
        return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _list_costs(measurements: Sequence[Measurement]) -> list[float]:
    return [measurement.cpu_us[GATEWAY] for measurement in measurements]


def show_pricing(pricing: PricingFigures) -> None:
    """Print the measurements."""
    table = Table("orders", "gateway CPU µs per order", "orders/s", title="Promotions and freight")
    for name, measurements in (("without", pricing.plain), ("with", pricing.promotions)):
        if measurements:
            costs = _list_costs(measurements)
            rate = median(measurement.per_s for measurement in measurements)
            table.add_row(name, f"{median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f})", f"{rate:.0f}")
    print_table(table)
    print_line(f"pricing: {pricing.ratios}")
