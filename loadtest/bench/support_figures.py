"""Figures of the part `support`, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

import msgspec

from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table


class CallTimes(msgspec.Struct, frozen=True):
    """Times of one kind of call in milliseconds, and how many were measured."""

    count: int
    p50_ms: float
    p99_ms: float

    @classmethod
    def of_seconds(cls, seconds: Sequence[float]) -> Self:
        ranked = sorted(seconds)
        p50, p99 = (ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1e3 for share in (0.5, 0.99))
        return cls(len(ranked), round(p50, 3), round(p99, 3))


class SearchTimes(CallTimes, frozen=True, kw_only=True):
    """Times of searches, the searches per second of one process, and its processor time for each."""

    per_s: float
    cpu_us: float


class SupportLoadFigures(msgspec.Struct):
    """All measurements of the part, and when and where they were made.

    `by_key` reads a conversation by its primary key, `queue` a page of 50, `take` the next one with 20 takers at once.
    `order_view` is the first view of an order by support."""

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, int] = {}
    by_key: CallTimes | None = None
    queue: CallTimes | None = None
    queue_of_team: CallTimes | None = None
    take: CallTimes | None = None
    search: SearchTimes | None = None
    order_view: CallTimes | None = None
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return p50 and p99 of each kind of call by those of the read by primary key of the same run."""
        if self.by_key is None:
            return {}
        ratios: dict[str, float] = {}
        for name in ("queue", "queue_of_team", "take", "order_view"):
            times: CallTimes | None = getattr(self, name)
            if times is not None:
                ratios[f"{name}_p50_vs_key"] = round(times.p50_ms / self.by_key.p50_ms, 2)
                ratios[f"{name}_p99_vs_key"] = round(times.p99_ms / self.by_key.p99_ms, 2)
        return ratios


def show_support(support: SupportLoadFigures) -> None:
    """Print the measurements."""
    table = Table("call", "number", "p50 ms", "p99 ms", title="Support")
    for title, name in (
        ("conversation by key", "by_key"),
        ("page of the queue", "queue"),
        ("page of a team's queue", "queue_of_team"),
        ("take the next", "take"),
        ("search of articles", "search"),
        ("first view of an order", "order_view"),
    ):
        times: CallTimes | None = getattr(support, name)
        if times is not None:
            table.add_row(title, f"{times.count}", f"{times.p50_ms:.2f}", f"{times.p99_ms:.2f}")
    print_table(table)
    if support.search is not None:
        print_line(f"searches: {support.search.per_s:.0f}/s in one process, {support.search.cpu_us:.0f} µs CPU each")
    print_line(f"support: {support.ratios}")
