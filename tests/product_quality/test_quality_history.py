"""Quality over time: one count of each day stays, and reports show any span."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import Invalid
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.quality_files import draw_quality, write_quality_csv
from commerce.product_quality.quality_history import HistoryQuery, QualityRecords, make_days
from commerce.product_quality.store import DayRow
from config.quality import QualitySettings
from ops.services import CliServices
from tests.support.product_shop import add_categories, make_product

DAY = date(2026, 11, 11)


class EveningClock(SystemClock):
    """22:00 UTC on the day, which is the next day in Shanghai."""

    def now_ms(self) -> int:
        return 1_794_434_400_000


@pytest.fixture
async def graded(shop: CliServices) -> CliServices:
    """A shirt on sale in a category, and three socks without one."""
    await add_categories(shop)
    await make_product(shop, published=True)
    await shop.catalog.put_many([(f"sock-{n}", VariantInput(f"Sock {n}", 9, "CNY")) for n in range(3)])
    grading = ProductGrading(shop.db, shop.clock, QualitySettings(debounce_s=0))
    while await grading.step():
        pass
    return shop


async def test_last_count_of_a_day_stays_and_the_next_day_begins_by_the_zone(graded: CliServices) -> None:
    clock = EveningClock()
    records = QualityRecords(graded.db, clock, ZoneInfo("UTC"))
    assert await records.count() == 4
    assert await records.count_on_sale() == {"E": 4}
    async with graded.db.connection() as connection:
        await connection.execute("UPDATE product_quality SET points = 92 WHERE product_id = 'sock-1'")
    assert await records.count() == 4
    report = await records.report(HistoryQuery(by="category"))
    [none, shirts] = report.rows
    assert (none.day, none.category_id, none.products, none.grades["A"], none.grades["E"]) == (DAY, None, 3, 1, 2)
    assert (shirts.category_id, shirts.products, shirts.average_points) == ("shirts", 1, 47.0)
    later = QualityRecords(graded.db, clock, ZoneInfo("Asia/Shanghai"))
    assert await later.count() == 4
    assert [row.day for row in (await later.report(HistoryQuery())).rows] == [DAY, DAY + timedelta(days=1)]
    assert (await later.report(HistoryQuery(is_on_sale=False))).rows == []
    only = await later.report(HistoryQuery(category_id="shirts"))
    assert [(row.category_id, row.products) for row in only.rows] == [("shirts", 1), ("shirts", 1)]


def test_weeks_and_months_are_their_last_counted_days() -> None:
    stored = [DayRow(DAY + timedelta(days=n), root, "B", 2, 170) for n in (-20, -2, 0, 1, 30) for root in ("", "a")]
    weeks = make_days(stored, HistoryQuery(), "week")
    assert [(row.day.isoformat(), row.products) for row in weeks] == [
        ("2026-10-22", 4),
        ("2026-11-12", 4),
        ("2026-12-11", 4),
    ]
    months = make_days(stored, HistoryQuery(by="category"), "month")
    assert [(row.day.month, row.category_id, row.average_points) for row in months] == [
        (month, category, 85.0) for month in (10, 11, 12) for category in (None, "a")
    ]


@pytest.mark.parametrize(
    ("query", "step"),
    [
        (HistoryQuery(start=DAY, end=DAY), "day"),
        (HistoryQuery(start=DAY - timedelta(days=92), end=DAY), "day"),
        (HistoryQuery(start=DAY - timedelta(days=93), end=DAY), "week"),
        (HistoryQuery(start=DAY - timedelta(days=3_000), end=DAY), "month"),
        (HistoryQuery(start=DAY - timedelta(days=300), end=DAY, step="day"), "day"),
    ],
)
async def test_step_follows_the_span(shop: CliServices, query: HistoryQuery, step: str) -> None:
    report = await QualityRecords(shop.db, shop.clock, ZoneInfo("UTC")).report(query)
    assert (report.step, report.rows) == (step, [])


@pytest.mark.parametrize("query", [HistoryQuery(start=DAY, end=DAY - timedelta(days=1)), HistoryQuery(date.min, DAY)])
async def test_span_out_of_order_or_too_long_is_refused(shop: CliServices, query: HistoryQuery) -> None:
    with pytest.raises(Invalid, match="cannot report"):
        await QualityRecords(shop.db, shop.clock, ZoneInfo("UTC")).report(query)


@pytest.mark.parametrize("by", ["total", "category"])
@pytest.mark.parametrize("suffix", [".svg", ".png"])
async def test_report_is_written_and_drawn(graded: CliServices, tmp_path: Path, by: Any, suffix: str) -> None:
    records = QualityRecords(graded.db, graded.clock, ZoneInfo("UTC"))
    empty = await records.report(HistoryQuery(by=by))
    draw_quality(empty, tmp_path / f"empty{suffix}")
    await records.count()
    report = await records.report(HistoryQuery(by=by))
    text = io.StringIO()
    write_quality_csv(report, text)
    rows = list(csv.DictReader(text.getvalue().splitlines()))
    assert sum(int(row["products"]) for row in rows) == 4
    assert {row["category"] for row in rows} == ({""} if by == "total" else {"", "shirts"})
    draw_quality(report, tmp_path / f"quality{suffix}")
    assert (tmp_path / f"quality{suffix}").stat().st_size > 5_000
