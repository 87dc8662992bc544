"""Quality of a product: its facts, its grade with reasons, and figures of all products by day."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal, NamedTuple

import msgspec

Grade = Literal["A", "B", "C", "D", "E"]
LOWEST_POINTS: dict[Grade, int] = {"A": 90, "B": 80, "C": 70, "D": 60, "E": 0}
"""of a grade, the best one first; source: `Rank::fromRate` of akeneo/pim-community-dev"""
QualityReason = Literal[
    "no_category",
    "missing_attributes",
    "no_pictures",
    "few_pictures",
    "small_pictures",
    "no_description",
    "short_description",
    "repeated_name",
    "missing_translations",
    "no_variants",
    "price_out_of_line",
    "likely_duplicate",
    "missing_barcodes",
    "missing_measures",
    "shouting_name",
]
HistoryGroup = Literal["total", "category"]
HistoryStep = Literal["day", "week", "month"]
MAX_HISTORY_DAYS, MAX_HISTORY_ROWS = 3_700, 5_000
CURSOR_PATTERN = r"^(100|[0-9]{1,2})-[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
"""of the list of products: points and product"""
NO_CATEGORY = ""
"""instead of a topmost category: products without one"""


class NamedText(NamedTuple):
    """Name and description of a product in one language."""

    name: str
    description: str


class PriceLevel(NamedTuple):
    """Lowest prices of the products in a category: how many, and median and deviation of their logarithms."""

    products: int
    median: float
    deviation: float


class ProductFacts(NamedTuple):
    """All facts on which the grade of a product depends.

    `picture_px` has the larger side of each picture, `price` the lowest of its variants in minor units, and
    `duplicates` the ids of products that may be the same one."""

    texts: dict[str, NamedText]
    brand: str
    has_category: bool
    missing_attributes: list[str]
    picture_px: list[int]
    variants: int
    without_barcode: list[str]
    without_measures: list[str]
    price: int | None
    price_level: PriceLevel | None
    duplicates: list[str]


class QualityFinding(msgspec.Struct, frozen=True):
    """A fault of a product: the points that it costs, what it is about, and what to do.

    `values` are attributes, languages, SKUs or products, some of them."""

    reason: QualityReason
    points: int
    values: list[str]
    detail: str


class QualityResult(NamedTuple):
    """The points of a product, and its faults, the dearest first."""

    points: int
    findings: list[QualityFinding]

    @property
    def grade(self) -> Grade:
        return to_grade(self.points)


class GradedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of a draft or a product on sale, as it was at `graded_at`."""

    product_id: str
    names: dict[str, str]
    is_on_sale: bool
    category_id: str | None
    grade: Grade
    points: int
    findings: list[QualityFinding]
    graded_at: datetime


class QualityFilter(NamedTuple):
    """The products that staff want to see: of a grade, with a fault, of a category and those below it."""

    grade: Grade | None = None
    reason: QualityReason | None = None
    category_id: str | None = None
    is_on_sale: bool | None = None


class GradeCount(NamedTuple):
    """Number of products of a topmost category that have some points."""

    root: str
    is_on_sale: bool
    points: int
    products: int


class QualityOfDay(msgspec.Struct, frozen=True, kw_only=True):
    """Products by grade at the end of a day, of all categories or of a topmost one; today, so far.

    Without `category_id` they are those of all categories, unless the report is by category: then they are those
    without one."""

    day: date
    category_id: str | None
    products: int
    average_points: float
    grades: dict[Grade, int]


class QualityHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Quality over time. Of a week or month each row is its last day that was counted."""

    start: date = msgspec.field(name="from")
    end: date = msgspec.field(name="to")
    by: HistoryGroup
    step: HistoryStep
    zone: str
    is_on_sale: bool
    rows: list[QualityOfDay]


def to_grade(points: int) -> Grade:
    """Return the grade of points."""
    return next(grade for grade, lowest in LOWEST_POINTS.items() if points >= lowest)


def points_of_grade(grade: Grade) -> tuple[int, int]:
    """Return the lowest and the highest points of a grade."""
    above = [lowest for lowest in LOWEST_POINTS.values() if lowest > LOWEST_POINTS[grade]]
    return LOWEST_POINTS[grade], min(above, default=101) - 1


def encode_findings(findings: list[QualityFinding]) -> str:
    """Return findings as they are stored: without what to do, which follows from the rest."""
    return msgspec.json.encode([(finding.reason, finding.points, finding.values) for finding in findings]).decode()


def decode_findings(text: str) -> list[tuple[QualityReason, int, list[str]]]:
    """Return reason, points and values of stored findings."""
    rows: list[Any] = msgspec.json.decode(text)
    return [(reason, points, values) for reason, points, values in rows]
