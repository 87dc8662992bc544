"""Quality of products over time: counted some times a day, reported for any span."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.postgres import Database
from commerce.product_quality import store
from commerce.product_quality.errors import QualityReportTooLarge
from commerce.product_quality.model import (
    LOWEST_POINTS,
    MAX_HISTORY_DAYS,
    MAX_HISTORY_ROWS,
    NO_CATEGORY,
    Grade,
    HistoryGroup,
    HistoryStep,
    QualityHistory,
    QualityOfDay,
    to_grade,
)
from commerce.product_quality.store import DayRow

_DEFAULT_DAYS = 30
_MAX_STORED_ROWS = 500_000
_DAYS_BY_DAY, _DAYS_BY_WEEK = 93, 731


class HistoryQuery(NamedTuple):
    """Span and groups of a report, the last day with it.

    Without `step` rows are days, or of a long span weeks or months. `category_id` is a topmost category."""

    start: date | None = None
    end: date | None = None
    by: HistoryGroup = "total"
    step: HistoryStep | None = None
    category_id: str | None = None
    is_on_sale: bool = True


class QualityRecords:
    """Numbers of products by grade and day, over Postgres. `zone` is that of days."""

    def __init__(self, db: Database, clock: Clock, zone: ZoneInfo) -> None:
        self._db = db
        self._clock = clock
        self._zone = zone

    async def count(self) -> int:
        """Count the products of today by grade. Of a day the last count stays. Returns the number of products."""
        async with self._db.transaction() as connection:
            await store.lock(connection, wait=True)
            sums: defaultdict[tuple[str, bool, Grade], tuple[int, int]] = defaultdict(lambda: (0, 0))
            for count in await store.count_grades(connection):
                key = count.root, count.is_on_sale, to_grade(count.points)
                products, points = sums[key]
                sums[key] = products + count.products, points + count.products * count.points
            await store.put_day(connection, self._today(), sums)
        return sum(products for products, _ in sums.values())

    async def count_on_sale(self) -> dict[Grade, int]:
        """Return the products on sale by grade, as they were counted last."""
        async with self._db.connection() as connection:
            return await store.count_on_sale(connection)

    async def report(self, query: HistoryQuery) -> QualityHistory:
        """Report on a span of days: by default the last 30.

        Raises `Invalid` unless the span is in order and at most ten years, and `QualityReportTooLarge`."""
        end = query.end or self._today()
        start = query.start or end - timedelta(days=_DEFAULT_DAYS - 1)
        days = (end - start).days + 1
        if not 1 <= days <= MAX_HISTORY_DAYS:
            raise Invalid(f"cannot report: `to` must not be before `from`, and at most {MAX_HISTORY_DAYS} days later")
        step: HistoryStep = "day" if days <= _DAYS_BY_DAY else "week" if days <= _DAYS_BY_WEEK else "month"
        step = query.step or step
        async with self._db.snapshot() as connection:
            stored = await store.list_days(
                connection,
                (start, end + timedelta(days=1)),
                is_on_sale=query.is_on_sale,
                root=query.category_id,
                count=_MAX_STORED_ROWS + 1,
            )
        rows = make_days(stored, query, step)
        if len(stored) > _MAX_STORED_ROWS or len(rows) > MAX_HISTORY_ROWS:
            raise QualityReportTooLarge(
                f"cannot report: it would have more than {MAX_HISTORY_ROWS} rows; choose a shorter span, a longer step "
                "or one category"
            )
        return QualityHistory(
            start=start,
            end=end,
            by=query.by,
            step=step,
            zone=self._zone.key,
            is_on_sale=query.is_on_sale,
            rows=rows,
        )

    def _today(self) -> date:
        now: datetime = from_ms(self._clock.now_ms())
        return now.astimezone(self._zone).date()


def make_days(stored: Iterable[DayRow], query: HistoryQuery, step: HistoryStep) -> list[QualityOfDay]:
    """Add up the rows of each day, and keep of each week or month its last day that was counted."""
    by_day: defaultdict[date, defaultdict[str | None, list[DayRow]]] = defaultdict(lambda: defaultdict(list))
    for row in stored:
        root = None if row.root == NO_CATEGORY or query.by == "total" else row.root
        by_day[row.day][query.category_id or root].append(row)
    last_days = {_start_of(day, step): day for day in sorted(by_day)}
    return [
        _add_up(day, category_id, rows)
        for day in last_days.values()
        for category_id, rows in sorted(by_day[day].items(), key=lambda item: item[0] or "")
    ]


def _start_of(day: date, step: HistoryStep) -> date:
    if step == "day":
        return day
    return day.replace(day=1) if step == "month" else day - timedelta(days=day.weekday())


def _add_up(day: date, category_id: str | None, rows: Iterable[DayRow]) -> QualityOfDay:
    grades: dict[Grade, int] = dict.fromkeys(LOWEST_POINTS, 0)
    points = 0
    for row in rows:
        grades[row.grade] += row.products
        points += row.points
    products = sum(grades.values())
    return QualityOfDay(
        day=day, category_id=category_id, products=products, average_points=round(points / products, 2), grades=grades
    )
