"""Figures of the part `pipeline`: what an order costs after it was accepted."""

from __future__ import annotations

from datetime import datetime

import msgspec

_OUTSIDE = ("sandbox", "client")
"""kinds of processes that are no part of the shop"""


class StageFigures(msgspec.Struct, frozen=True):
    """One stage of so many orders.

    `cpu_ms` is the processor time of each kind of process, in milliseconds per order.
    """

    orders: int
    seconds: float
    cpu_ms: dict[str, float]

    @property
    def per_s(self) -> float:
        return self.orders / self.seconds

    @property
    def shop_cpu_ms(self) -> float:
        """processor time of gateways, workers, Redis and Postgres for an order, in milliseconds"""
        return sum(used_ms for kind, used_ms in self.cpu_ms.items() if kind not in _OUTSIDE)


class AnswerTimes(msgspec.Struct, frozen=True):
    """Answers of one kind and how long they took."""

    answers: int
    p50_ms: float
    p99_ms: float


class PipelineFigures(msgspec.Struct):
    """All measurements of the part, and when and where they were made.

    The stages follow each other: `paid` from the first `POST …/payments` to the last captured payment, `shipped` from
    there until all shipments are booked and followed, `polled` until each was polled once and had no new event,
    `delivered` until the carrier's webhooks have brought all to the door.

    `captured` is the time from a payment's beginning to its capture. New orders are placed at the same pace while
    nothing else happens (`accepted_alone`) and while others are paid, shipped and delivered (`accepted_beside`).
    """

    at: datetime | None = None
    machine: dict[str, str | int] = {}
    options: dict[str, float] = {}
    paid: StageFigures | None = None
    shipped: StageFigures | None = None
    polled: StageFigures | None = None
    delivered: StageFigures | None = None
    begun: AnswerTimes | None = None
    captured: AnswerTimes | None = None
    accepted_alone: AnswerTimes | None = None
    accepted_beside: AnswerTimes | None = None
    ratios: dict[str, float] = {}

    def compute_ratios(self) -> dict[str, float]:
        """Return the figures that have thresholds."""
        ratios: dict[str, float] = {}
        for name in ("paid", "shipped", "polled", "delivered"):
            stage: StageFigures | None = getattr(self, name)
            if stage:
                ratios[f"{name}_cpu_ms"] = stage.shop_cpu_ms
                ratios[f"{name}_orders_per_s"] = stage.per_s
        for name, times in (("begin", self.begun), ("captured", self.captured)):
            if times:
                ratios |= {f"{name}_p50_ms": times.p50_ms, f"{name}_p99_ms": times.p99_ms}
        if self.accepted_alone and self.accepted_beside:
            ratios["accepted_p99_ms_alone"] = self.accepted_alone.p99_ms
            ratios["accepted_p99_ms_beside"] = self.accepted_beside.p99_ms
            ratios["accepted_p99_vs_alone"] = self.accepted_beside.p99_ms / self.accepted_alone.p99_ms
        return {name: round(ratio, 4) for name, ratio in ratios.items()}
