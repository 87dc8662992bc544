"""A report on support, and the figures in it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

MAX_DAYS = 92
GroupedBy = Literal["total", "team", "agent", "reason", "kind"]
ClockName = Literal["first_response", "decision", "money"]
ReturnKey = Literal["sku", "reason", "carrier"]


class ClockFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Clocks that stopped in the period. Seconds of working time (`worked`), and of all time that passed.

    `within_deadline` is the share of those with a deadline that met it; `after_reopen` counts second and later runs."""

    group: str
    clock: ClockName
    count: int
    after_reopen: int
    late: int
    within_deadline: float | None
    worked_p50_s: float
    worked_p90_s: float
    passed_p50_s: float
    passed_p90_s: float


class BacklogFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations that are open now, with their age in seconds of all time."""

    group: str
    open: int
    unanswered: int
    overdue: int
    age_p50_s: float
    age_p90_s: float
    oldest_s: float


class SatisfactionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Answers in the period: the average of 1 to 5, and how often each was chosen."""

    group: str
    answers: int
    average: float
    by_score: list[int]


class DecisionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions of rules in the period, by rule and outcome. People have overturned some since.

    Without `rule_no` no rule fitted, or the rules were switched off."""

    rule_set_version: int
    rule_no: int | None
    outcome: str
    decisions: int
    overturned: int


class ReturnFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Units of cases that were requested in the period.

    Cancelled and declined cases do not count. `delivered` are units of orders that were delivered in the period, and
    `rate` is the quotient; of a reason `rate` is its share of all these units."""

    key: ReturnKey
    value: str
    cases: int
    units: int
    delivered: int | None
    rate: float | None


class AftersalesReport(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a period. The backlog is that of `created_at`, whatever the period."""

    start: datetime = msgspec.field(name="from")
    end: datetime = msgspec.field(name="to")
    by: GroupedBy
    created_at: datetime
    clocks: list[ClockFigures]
    backlog: list[BacklogFigures]
    satisfaction: list[SatisfactionFigures]
    decisions: list[DecisionFigures]
    returns: list[ReturnFigures]
