"""Figures of the part `crowd`, and their table: what strangers cost, and what each circumstance adds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median

import msgspec

from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

CIRCUMSTANCES = {
    "known": "known users, kept connections",
    "strangers": "strangers",
    "new_connections": "and some over new connections",
    "two_sales": "and at two sales",
    "stored": "and a writer stores their orders",
}


class StrangerTurn(msgspec.Struct, frozen=True):
    """One turn in one circumstance.

    `cpu_us` is processor time in microseconds by kind of process: of `gateway` and `redis` per accepted order, of
    `writer` and `postgres` per stored order. Of Redis, per accepted order: `storing_redis_us` is its time for reads and
    acknowledgements of the writer, `aof_bytes` what it adds to its append-only file. `calls_per_batch` are those of the
    writer, and the reservation, by the batches of orders.
    """

    accepted: int
    stored: int
    per_s: float
    cpu_us: dict[str, float]
    storing_redis_us: float
    calls_per_batch: float
    aof_bytes: float

    @property
    def cpu(self) -> float:
        return sum(self.cpu_us.values())


class StrangerFigures(msgspec.Struct):
    """All turns of the part by circumstance, and when and where they were made.

    Each circumstance adds one thing to that before it, and its first turn is the neighbour of the other's first.
    """

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    turns: dict[str, list[StrangerTurn]] = {}
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return the figures that have thresholds: medians over turns, or over pairs of neighbouring ones."""
        plain, new, two, stored = (self.turns[name] for name in ("known", "new_connections", "two_sales", "stored"))
        ratios = {
            "repeats": len(stored),
            "crowd_cpu_vs_known": _compare(new, plain),
            "second_sale_cpu": _compare(two, new),
            "persisted_cpu_us": median(turn.cpu for turn in stored),
            "storing_redis_us": median(turn.storing_redis_us for turn in stored),
        }
        for before, name in pairwise(CIRCUMSTANCES):
            pairs = zip(self.turns[name], self.turns[before], strict=True)
            ratios[f"{name}_extra_us"] = median(turn.cpu - earlier.cpu for turn, earlier in pairs)
        return {name: round(ratio, 3) for name, ratio in ratios.items()}


def _compare(turns: Sequence[StrangerTurn], others: Sequence[StrangerTurn]) -> float:
    return median(turn.cpu / other.cpu for turn, other in zip(turns, others, strict=True))


def show_strangers(strangers: StrangerFigures) -> None:
    """Print the medians of each circumstance and the ratios."""
    table = Table("orders of", "CPU µs per order", "of which", "orders/s", title="Strangers")
    for name, turns in strangers.turns.items():
        kinds = ", ".join(f"{kind} {median(turn.cpu_us[kind] for turn in turns):.1f}" for kind in turns[0].cpu_us)
        costs = [turn.cpu for turn in turns]
        table.add_row(
            CIRCUMSTANCES[name],
            f"{median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f})",
            kinds,
            f"{median(turn.per_s for turn in turns):.0f}",
        )
    print_table(table)
    print_line(f"crowd: {strangers.ratios}")
