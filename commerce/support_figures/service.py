"""The report on support: read in one snapshot, bounded in time and in rows."""

from __future__ import annotations

from datetime import datetime, timedelta

from asyncpg import QueryCanceledError

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import first_id
from commerce.kernel.postgres import Database
from commerce.support_figures import store
from commerce.support_figures.errors import ReportTooLarge
from commerce.support_figures.model import MAX_DAYS, AftersalesReport, GroupedBy

_MAX_GROUPS = 1_000
_MAX_RETURNED = 100
"""SKUs, reasons and carriers with the most units"""


class SupportFigures:
    """Figures over Postgres. Each statement has the timeout of its connection."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def report(self, start: datetime, end: datetime, by: GroupedBy) -> AftersalesReport:
        """Measure support in a period, which ends before `end`.

        Raises `Invalid` unless the period is in order and at most 92 days, `ReportTooLarge` if a statement takes too
        long."""
        if not timedelta() < end - start <= timedelta(days=MAX_DAYS):
            raise Invalid(f"cannot report: `to` must be after `from`, and at most {MAX_DAYS} days later")
        now = from_ms(self._clock.now_ms())
        ids = first_id(to_ms(start)), first_id(to_ms(end))
        try:
            async with self._db.snapshot() as connection:
                return AftersalesReport(
                    start=start,
                    end=end,
                    by=by,
                    created_at=now,
                    clocks=await store.measure_clocks(connection, start, end, by, 3 * _MAX_GROUPS),
                    backlog=await store.measure_backlog(connection, by, now, _MAX_GROUPS),
                    satisfaction=await store.measure_satisfaction(connection, start, end, by, _MAX_GROUPS),
                    decisions=await store.count_decisions(connection, start, end, _MAX_GROUPS),
                    returns=await store.count_returns(connection, *ids, start, end, _MAX_RETURNED),
                )
        except QueryCanceledError:
            raise ReportTooLarge("cannot report: the period has too much to count; choose a shorter one") from None
