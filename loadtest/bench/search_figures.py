"""Figures of the part `search`, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from loadtest.bench.comparison import Measurement
from loadtest.bench.support_figures import CallTimes
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

Times = TypeVar("Times", bound=CallTimes)


class SearchLoad(CallTimes, frozen=True, kw_only=True):
    """Times of searches that arrive at a fixed pace, from the moment at which each was due.

    `failed` were refused because they took too long; `late` is the share that was answered after 50 ms. `mean_hits` is
    the mean total of what was found."""

    per_s: float
    failed: int
    late: float
    mean_hits: float


class IndexFigures(msgspec.Struct):
    """Measurements of one index.

    `words` searches for a word, with counts; `filters` for a word with eight filters, with counts; `category` lists a
    top category with counts. `orders` are accepted while `filters` runs."""

    words: SearchLoad | None = None
    filters: SearchLoad | None = None
    category: SearchLoad | None = None
    orders: Measurement | None = None


class ProductSearchFigures(msgspec.Struct):
    """All measurements of the part, and when and where they were made.

    `by_key` reads a product by its primary key; `orders` are accepted without any search beside them."""

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    by_key: CallTimes | None = None
    orders: Measurement | None = None
    indexes: dict[str, IndexFigures] = {}
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return p99 of searches by that of a read by key, and of orders by that without searches, of one run."""
        ratios: dict[str, float] = {}
        for name, index in self.indexes.items():
            for kind in ("words", "filters", "category"):
                load: SearchLoad | None = getattr(index, kind)
                if load is not None and self.by_key is not None:
                    ratios[f"{name}_{kind}_p99_vs_key"] = round(load.p99_ms / self.by_key.p99_ms, 2)
            if index.orders is not None and self.orders is not None:
                ratios[f"{name}_orders_p99_vs_alone"] = round(index.orders.p99_ms / self.orders.p99_ms, 2)
        return ratios


def choose_median(measured: Sequence[Times]) -> Times:
    """Return the measurement with the median of p99, the larger of two in the middle."""
    return sorted(measured, key=lambda times: times.p99_ms)[len(measured) // 2]


def show_search(search: ProductSearchFigures) -> None:
    """Print the measurements."""
    table = Table(
        "search", "number", "per s", "p50 ms", "p99 ms", "late", "refused", "mean hits", title="Search of products"
    )
    for name, index in search.indexes.items():
        for kind in ("words", "filters", "category"):
            load: SearchLoad | None = getattr(index, kind)
            if load is not None:
                table.add_row(
                    *(f"{name}, {kind}", f"{load.count}", f"{load.per_s:.0f}", f"{load.p50_ms:.2f}"),
                    *(f"{load.p99_ms:.2f}", f"{load.late:.1%}", f"{load.failed}", f"{load.mean_hits:.0f}"),
                )
    print_table(table)
    if search.by_key is not None:
        print_line(f"product by key: p50 {search.by_key.p50_ms:.2f} ms, p99 {search.by_key.p99_ms:.2f} ms")
    for title, orders in (
        ("alone", search.orders),
        *((f"beside searches in {name}", index.orders) for name, index in search.indexes.items()),
    ):
        if orders is not None:
            print_line(f"orders {title}: {orders.per_s:.0f}/s, p50 {orders.p50_ms:.1f} ms, p99 {orders.p99_ms:.1f} ms")
    print_line(f"search: {search.ratios}")
