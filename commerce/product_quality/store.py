"""Rows of notes, of facts, of grades and of quality by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

import asyncpg
import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.product_quality.model import (
    Grade,
    GradeCount,
    GradedProduct,
    PriceLevel,
    QualityFilter,
    QualityResult,
    decode_findings,
    encode_findings,
    points_of_grade,
    to_grade,
)
from commerce.product_quality.quality_rules import build_finding

queries = load_queries(
    __package__, product_quality=("product_id", "is_on_sale", "category_id", "points", "findings", "graded_at")
)
_MAX_CANDIDATES = 50


class CategoryNote(NamedTuple):
    """A category whose products are to be graded, those after `after_product`."""

    note_no: int
    category_id: str
    with_descendants: bool
    after_product: str


class NewGrade(NamedTuple):
    """The grade of a product to store."""

    product_id: str
    is_on_sale: bool
    category_id: str | None
    result: QualityResult
    duplicates: list[str]
    bands: list[int]


class DayRow(NamedTuple):
    """Products of a grade at the end of a day."""

    day: date
    root: str
    grade: Grade
    products: int
    points: int


async def lock(connection: Connection, *, wait: bool) -> bool:
    """Take the right to grade until the transaction ends.

    Without `wait` returns False if another one has it."""
    if wait:
        await connection.execute(queries.lock)
        return True
    return bool(await connection.fetchval(queries.try_lock))


# Notes.


async def take_products(connection: Connection, debounce_s: float, count: int) -> list[str]:
    """Delete all notes of the products that have the oldest ones, and return these by id."""
    rows = await connection.fetch(queries.take_products, debounce_s, count)
    return sorted({row["product_id"] for row in rows})


async def find_category(connection: Connection, debounce_s: float) -> CategoryNote | None:
    """Find the oldest note of a category."""
    row = await connection.fetchrow(queries.find_category, debounce_s)
    return CategoryNote(*row) if row else None


async def replace_by_descendants(connection: Connection, category_id: str) -> None:
    """Replace the note of a subtree by notes of its categories that have products."""
    await connection.execute(queries.replace_by_descendants, category_id)


async def list_of_category(connection: Connection, category_id: str, after: str, count: int) -> list[str]:
    """List the products of a category alone, by id."""
    rows = await connection.fetch(queries.list_of_category, category_id, after, count)
    return [row["product_id"] for row in rows]


async def go_on_after(connection: Connection, note_no: int, product_id: str | None) -> None:
    """Note how far a category is graded; None: it is done."""
    if product_id is None:
        await connection.execute(queries.delete_note, note_no)
    else:
        await connection.execute(queries.go_on_after, note_no, product_id)


async def note_products(connection: Connection, product_ids: Collection[str]) -> None:
    """Note products that are to be graded once more."""
    if product_ids:
        await connection.execute(queries.note_products, sorted(product_ids))


async def list_outdated(connection: Connection, before: datetime, count: int) -> list[str]:
    """List products that were graded before a moment, the oldest first."""
    return [row["product_id"] for row in await connection.fetch(queries.list_outdated, before, count)]


async def list_after(connection: Connection, product_id: str, count: int) -> list[str]:
    """List products of any status by id."""
    return [row["product_id"] for row in await connection.fetch(queries.list_after, product_id, count)]


async def measure_lag(connection: Connection) -> float:
    """Return the seconds since the oldest change that no grade knows."""
    return float(await connection.fetchval(queries.measure_lag) or 0)


# Facts.


async def list_picture_px(connection: Connection, product_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the larger side of each picture, by product."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for row in await connection.fetch(queries.list_pictures, product_ids):
        sizes[row["product_id"]].append(row["px"])
    return sizes


async def list_unmeasured(connection: Connection, product_ids: Sequence[str]) -> set[str]:
    """Return the SKUs without weight and size."""
    return {row["sku"] for row in await connection.fetch(queries.list_unmeasured, product_ids)}


async def list_candidates(connection: Connection, bands: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Return for products by id others that share a band, at most 50 of each."""
    candidates: dict[str, list[str]] = defaultdict(list)
    texts = [_join(numbers) for numbers in bands.values()]
    for row in await connection.fetch(queries.list_candidates, list(bands), texts, _MAX_CANDIDATES):
        candidates[row["product_id"]].append(row["other_id"])
    return candidates


async def list_price_levels(
    connection: Connection, category_ids: Collection[str]
) -> dict[tuple[str, str], tuple[PriceLevel, datetime]]:
    """Return the levels of prices by category and currency, each with when it was measured."""
    rows = await connection.fetch(queries.list_price_levels, list(category_ids))
    return {
        (row["category_id"], row["currency"]): (
            PriceLevel(row["products"], row["median"], row["deviation"]),
            row["measured_at"],
        )
        for row in rows
    }


async def measure_prices(connection: Connection, category_id: str, currency: str, max_products: int) -> PriceLevel:
    """Measure the level of prices of a category."""
    row = await connection.fetchrow(queries.measure_prices, category_id, currency, max_products)
    assert row is not None
    return PriceLevel(row["products"], float(row["median"]), float(row["deviation"]))


async def put_price_level(
    connection: Connection, category_id: str, currency: str, level: PriceLevel, now: datetime
) -> None:
    await connection.execute(queries.put_price_level, category_id, currency, *level, now)


# Grades.


async def list_duplicates(connection: Connection, product_ids: Sequence[str]) -> dict[str, set[str]]:
    """Return the stored duplicates of products that have a grade."""
    rows = await connection.fetch(queries.list_duplicates, product_ids)
    return {row["product_id"]: set(row["duplicates"]) for row in rows}


async def put_grades(connection: Connection, grades: Sequence[NewGrade], now: datetime) -> None:
    """Store grades in the place of earlier ones."""
    if not grades:
        return
    ordered = sorted(grades, key=lambda grade: grade.product_id)
    await connection.execute(
        queries.put_grades,
        [grade.product_id for grade in ordered],
        [grade.is_on_sale for grade in ordered],
        [grade.category_id for grade in ordered],
        [grade.result.points for grade in ordered],
        [_join(finding.reason for finding in grade.result.findings) for grade in ordered],
        [encode_findings(grade.result.findings) for grade in ordered],
        [_join(grade.duplicates) for grade in ordered],
        [_join(grade.bands) for grade in ordered],
        now,
    )


async def delete_grades(connection: Connection, product_ids: Sequence[str]) -> None:
    """Delete the grades of products that were retired."""
    if product_ids:
        await connection.execute(queries.delete_grades, product_ids)


async def find_grade(connection: Connection, product_id: str) -> GradedProduct | None:
    row = await connection.fetchrow(queries.find_grade, product_id)
    return (await _complete(connection, [row]))[0] if row else None


async def list_grades(
    connection: Connection, wanted: QualityFilter, after: tuple[int, str], count: int
) -> list[GradedProduct]:
    """List grades after some points and a product, the worst first. Call in a transaction of its own."""
    lowest, highest = (0, 100) if wanted.grade is None else points_of_grade(wanted.grade)
    category_ids: list[str] | None = None
    if wanted.category_id is not None:
        rows = await connection.fetch(queries.list_subtree, wanted.category_id)
        category_ids = [row["category_id"] for row in rows]
    await connection.execute(queries.choose_plan_by_values)
    values = (*after, lowest, highest, wanted.reason, category_ids, wanted.is_on_sale, count)
    return await _complete(connection, await connection.fetch(queries.list_grades, *values))


async def _complete(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[GradedProduct]:
    ids = [row["product_id"] for row in rows]
    names = {
        row["product_id"]: msgspec.json.decode(row["names"]) for row in await connection.fetch(queries.list_names, ids)
    }
    return [
        GradedProduct(
            product_id=row["product_id"],
            names=names.get(row["product_id"], {}),
            is_on_sale=row["is_on_sale"],
            category_id=row["category_id"],
            grade=to_grade(row["points"]),
            points=row["points"],
            findings=[build_finding(*finding) for finding in decode_findings(row["findings"])],
            graded_at=row["graded_at"],
        )
        for row in rows
    ]


# Quality by day.


async def count_grades(connection: Connection) -> list[GradeCount]:
    """Count all products by topmost category and points."""
    return [GradeCount(*row) for row in await connection.fetch(queries.count_grades)]


async def put_day(connection: Connection, day: date, counts: Mapping[tuple[str, bool, Grade], tuple[int, int]]) -> None:
    """Replace the counts of a day: products and points by topmost category, status and grade."""
    await connection.execute(queries.delete_day, day)
    rows = [(*key, *value) for key, value in sorted(counts.items())]
    if rows:
        await connection.execute(queries.put_day, day, *map(list, zip(*rows, strict=True)))


async def list_days(
    connection: Connection, days: tuple[date, date], *, is_on_sale: bool, root: str | None, count: int
) -> list[DayRow]:
    """List the counts of days, of all topmost categories or of one."""
    rows = await connection.fetch(queries.list_days, *days, is_on_sale, root, count)
    return [DayRow(*row) for row in rows]


async def count_on_sale(connection: Connection) -> dict[Grade, int]:
    """Return the products on sale by grade, of the last day that was counted."""
    return {row["grade"]: row["products"] for row in await connection.fetch(queries.count_on_sale)}


def _join(values: Iterable[object]) -> str:
    return ",".join(map(str, values))
