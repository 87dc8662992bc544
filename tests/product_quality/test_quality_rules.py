"""Points of a product by its facts: each fault alone, and shares of faults."""

from __future__ import annotations

import re
from math import log
from typing import Any, get_args

import pytest

from commerce.product_quality.model import (
    LOWEST_POINTS,
    Grade,
    NamedText,
    PriceLevel,
    ProductFacts,
    QualityReason,
    points_of_grade,
    to_grade,
)
from commerce.product_quality.quality_rules import WEIGHTS, assess, compare_price, count_chars, is_shouting
from config.quality import QualitySettings
from tests.style.repository import ROOT

POLICY = QualitySettings(languages=("zh", "en"))
ENGLISH = (
    "A mug of stoneware that keeps tea warm, glazed by hand in Jingdezhen; it holds 300 ml and may go into dishwashers."
)
CHINESE = "景德镇手工施釉的炻器马克杯，容量三百毫升，保温性能好，可用洗碗机清洗，每只釉色略有不同，适合每天喝茶。"
GOOD = ProductFacts(
    texts={"en": NamedText("Stoneware mug", ENGLISH), "zh-CN": NamedText("炻器马克杯", CHINESE)},
    brand="Acme",
    has_category=True,
    missing_attributes=[],
    picture_px=[1200, 1600, 2048],
    variants=2,
    without_barcode=[],
    without_measures=[],
    price=2_000,
    price_level=PriceLevel(40, log(2_000), 0.3),
    duplicates=[],
)
TEXT = GOOD.texts["zh-CN"]


def english(name: str, description: str = ENGLISH) -> dict[str, Any]:
    return {"texts": {"en": NamedText(name, description), "zh-CN": TEXT}}


@pytest.mark.parametrize(
    ("changed", "reason", "points", "advice"),
    [
        ({"has_category": False}, "no_category", 15, "put it into a category"),
        ({"missing_attributes": ["color", "size"]}, "missing_attributes", 25, "requires: color, size"),
        ({"picture_px": []}, "no_pictures", 25, "upload a picture"),
        ({"picture_px": [2048]}, "few_pictures", 6, "more pictures"),
        ({"picture_px": [2048, 900]}, "few_pictures", 3, "more pictures"),
        ({"picture_px": [2048, 799, 800]}, "small_pictures", 2, "1 of 3 have fewer than 800 pixels"),
        (english("Mug", ""), "no_description", 8, "describe it, in en"),
        (english("Mug", "A mug."), "short_description", 4, "in en"),
        (english("Stoneware mug, blue", "stoneware MUG"), "repeated_name", 6, "repeats the name"),
        (english("MUG OF STONEWARE"), "shouting_name", 3, "without capitals"),
        (english("Mug!!"), "shouting_name", 3, "without capitals"),
        ({"texts": {"zh-CN": TEXT}}, "missing_translations", 8, "description in en"),
        ({"variants": 0, "price": None}, "no_variants", 40, "add a variant"),
        ({"without_barcode": ["mug-1"]}, "missing_barcodes", 3, "bars of mug-1"),
        ({"without_measures": ["mug-1", "mug-2"]}, "missing_measures", 8, "weigh and measure mug-1, mug-2"),
        ({"price": 20_000}, "price_out_of_line", 12, "10 times the median"),
        ({"price": 200}, "price_out_of_line", 12, "10 times less than the median"),
        ({"duplicates": ["cup"]}, "likely_duplicate", 15, "same as cup"),
    ],
)
def test_fault_costs_its_points_and_has_advice(
    changed: dict[str, Any], reason: QualityReason, points: int, advice: str
) -> None:
    result = assess(GOOD._replace(**changed), POLICY)
    [finding] = result.findings
    assert (finding.reason, finding.points, result.points) == (reason, points, 100 - points)
    assert advice in finding.detail


def test_product_without_faults_has_all_points() -> None:
    assert assess(GOOD, POLICY) == (100, [])
    assert assess(GOOD, POLICY).grade == "A"


def test_product_with_all_faults_has_no_points_and_the_dearest_fault_first() -> None:
    worst = ProductFacts({"de": NamedText("TASSE TASSE TASSE", "")}, "", False, [], [], 0, [], [], None, None, ["x"])
    result = assess(worst, POLICY)
    assert (result.points, result.grade) == (0, "E")
    costs = [finding.points for finding in result.findings]
    assert costs == sorted(costs, reverse=True)
    assert {finding.reason for finding in result.findings} >= {"no_variants", "missing_translations", "no_description"}


def test_texts_of_a_language_serve_its_regions_and_no_language_is_needed_by_default() -> None:
    only_chinese = GOOD._replace(texts={"zh-TW": TEXT})
    assert assess(only_chinese, QualitySettings(languages=("zh",))).points == 100
    assert assess(only_chinese, QualitySettings()).points == 100


@pytest.mark.parametrize(
    ("price", "level", "expected"),
    [
        (None, PriceLevel(40, log(2_000), 0.3), None),
        (0, PriceLevel(40, log(2_000), 0.3), None),
        (20_000, PriceLevel(7, log(2_000), 0.3), None),  # too few to say
        (20_000, None, None),
        (5_900, PriceLevel(40, log(2_000), 0.0), None),  # all others cost the same, yet it is not even three times that
        (6_100, PriceLevel(40, log(2_000), 0.0), "3 times the median"),
        (20_000, PriceLevel(40, log(2_000), 0.5), None),  # prices differ much here
        (1_000_000, PriceLevel(40, log(2_000), 0.5), "500 times the median"),
    ],
)
def test_price_is_out_of_line_by_the_spread_of_its_category(
    price: int | None, level: PriceLevel | None, expected: str | None
) -> None:
    assert compare_price(GOOD._replace(price=price, price_level=level)) == expected


@pytest.mark.parametrize(
    ("name", "brand", "shouts"),
    [
        ("BRAND NEW SUPER DEAL", "", True),
        ("USB HDMI VGA HUB", "", False),
        ("PANASONIC fan", "Panasonic", False),
        ("PANASONIC fan", "", True),
        ("NIKON D850 camera", "", False),
        ("Mug for tea!", "", False),
        ("限时特价！！", "", True),
        ("炻器马克杯", "", False),
        ("ΜΕΓΑΛΗ ΠΡΟΣΦΟΡΑ", "", True),
        ("", "", False),
    ],
)
def test_name_shouts(name: str, brand: str, shouts: bool) -> None:
    assert is_shouting(name, brand) is shouts


def test_ideographs_count_for_two_letters() -> None:
    assert count_chars("Tea 茶, 3") == 6


def test_grades_are_ranges_without_gaps() -> None:
    assert [to_grade(points) for points in (100, 90, 89, 80, 79, 70, 69, 60, 59, 0)] == list("AABBCCDDEE")
    ranges = [points_of_grade(grade) for grade in get_args(Grade)]
    assert sorted(points for low, high in ranges for points in range(low, high + 1)) == list(range(101))
    assert list(LOWEST_POINTS) == list(get_args(Grade))


def test_every_fault_has_a_weight_and_a_row_in_the_documentation() -> None:
    assert set(WEIGHTS) == set(get_args(QualityReason))
    page = (ROOT / "docs/product-quality.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)` \| ([0-9]+) \|", page, re.MULTILINE)
    assert {reason: int(points) for reason, points in rows} == WEIGHTS
