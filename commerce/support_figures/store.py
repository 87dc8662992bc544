"""Sums and percentiles of support, counted by Postgres."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.support_figures.model import (
    BacklogFigures,
    ClockFigures,
    DecisionFigures,
    GroupedBy,
    ReturnFigures,
    ReturnKey,
    SatisfactionFigures,
)

queries = load_queries(__package__)


async def measure_clocks(
    connection: Connection, start: datetime, end: datetime, by: GroupedBy, count: int
) -> list[ClockFigures]:
    """Measure the clocks that stopped in a period."""
    figures = []
    for row in await connection.fetch(queries.measure_clocks, start, end, by, count):
        worked, passed = map(float, row["worked"]), map(float, row["passed"])
        values: dict[str, Any] = {name: row[name] for name in ("clock", "count", "after_reopen", "late")}
        values |= zip(("worked_p50_s", "worked_p90_s"), worked, strict=True)
        values |= zip(("passed_p50_s", "passed_p90_s"), passed, strict=True)
        within = 1 - row["late"] / row["with_deadline"] if row["with_deadline"] else None
        figures.append(ClockFigures(group=row["grouped"], within_deadline=within, **values))
    return figures


async def measure_backlog(connection: Connection, by: GroupedBy, now: datetime, count: int) -> list[BacklogFigures]:
    """Measure the conversations that are open now."""
    figures = []
    for row in await connection.fetch(queries.measure_backlog, by, now, count):
        values: dict[str, Any] = {name: row[name] for name in ("open", "unanswered", "overdue")}
        values |= zip(("age_p50_s", "age_p90_s", "oldest_s"), map(float, row["age"]), strict=True)
        figures.append(BacklogFigures(group=row["grouped"], **values))
    return figures


async def measure_satisfaction(
    connection: Connection, start: datetime, end: datetime, by: GroupedBy, count: int
) -> list[SatisfactionFigures]:
    """Count the answers of a period."""
    return [
        SatisfactionFigures(
            group=row["grouped"], answers=row["answers"], average=row["average"], by_score=list(row["by_score"])
        )
        for row in await connection.fetch(queries.measure_satisfaction, start, end, by, count)
    ]


async def count_decisions(connection: Connection, start: datetime, end: datetime, count: int) -> list[DecisionFigures]:
    """Count the decisions of rules in a period, the latest rules first."""
    return [DecisionFigures(**row) for row in await connection.fetch(queries.count_decisions, start, end, count)]


async def count_returns(
    connection: Connection, first: UUID, last: UUID, start: datetime, end: datetime, count: int
) -> list[ReturnFigures]:
    """Count the units of cases between two ids by SKU, reason and carrier, most units first."""
    skus = await connection.fetch(queries.count_returned_skus, first, last, start, end, count)
    reasons = await connection.fetch(queries.count_returned_reasons, first, last, count)
    carriers = await connection.fetch(queries.count_returned_carriers, first, last, start, end, count)
    total = sum(int(row["units"]) for row in reasons)
    return [
        *(_returns("sku", row, row["delivered"]) for row in skus),
        *(_returns("reason", row, total) for row in reasons),
        *(_returns("carrier", row, row["delivered"]) for row in carriers),
    ]


def _returns(key: ReturnKey, row: Any, base: int | None) -> ReturnFigures:
    units, delivered = int(row["units"]), row["delivered"]
    return ReturnFigures(
        key=key,
        value=row["value"],
        cases=row["cases"],
        units=units,
        delivered=None if delivered is None else int(delivered),
        rate=units / int(base) if base else None,
    )
