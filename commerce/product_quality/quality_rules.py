"""Points of a product: a pure function of its facts. All weights and bounds of the grades are here.

docs/product-quality.md has the same table for staff, and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from math import ceil, exp, log
from typing import Protocol

from commerce.product_quality.like_titles import fold_title
from commerce.product_quality.model import (
    ProductFacts,
    QualityFinding,
    QualityReason,
    QualityResult,
)

WEIGHTS: Mapping[QualityReason, int] = {
    "no_category": 15,
    "missing_attributes": 25,
    "no_pictures": 25,
    "few_pictures": 8,
    "small_pictures": 6,
    "no_description": 15,
    "short_description": 7,
    "repeated_name": 12,
    "missing_translations": 15,
    "no_variants": 40,
    "price_out_of_line": 12,
    "likely_duplicate": 15,
    "missing_barcodes": 5,
    "missing_measures": 8,
    "shouting_name": 6,
}
"""points that a fault costs; of some only the share of what is affected, rounded up"""
MAX_VALUES = 20
"""of a finding that are stored"""
_MIN_PRICES, _MIN_PRICE_FACTOR, _MAX_SCORE = 8, 3.0, 3.5
_TO_DEVIATION = 1.4826
"""median absolute deviation to standard deviation of a normal distribution"""
_IDEOGRAPH = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]")
_SHOUTED_WORD = re.compile(r"[^\W\d_]{4,}")
_CRIES = re.compile(r"[!！]{2,}")
_MIN_SHOUTED = 8
_ADVICE: Mapping[QualityReason, str] = {
    "no_category": "put it into a category, so that customers find it there and its attributes are known",
    "missing_attributes": "set the attributes that its category requires: {values}",
    "no_pictures": "upload a picture: a product without one is hardly bought",
    "few_pictures": "upload more pictures, from other sides",
    "small_pictures": "upload larger pictures: {values}",
    "no_description": "describe it, in {values}",
    "short_description": "say in the description what it is made of, for whom it is, what comes with it; in {values}",
    "repeated_name": "the description repeats the name; describe the product, in {values}",
    "missing_translations": "add name and description in {values}",
    "no_variants": "add a variant with a SKU and a price: floodgate catalog variant put",
    "price_out_of_line": "check the price: it is {values}, compared with other products of its category",
    "likely_duplicate": "it may be the same as {values}: merge them by moving the variants, or tell them apart by name",
    "missing_barcodes": "enter the barcodes below the bars of {values}",
    "missing_measures": "weigh and measure {values}: floodgate warehouse import",
    "shouting_name": "write the name without capitals and exclamation marks that shout, in {values}",
}


class QualityPolicy(Protocol):
    """The section `quality` of the settings."""

    @property
    def languages(self) -> Sequence[str]: ...
    @property
    def min_pictures(self) -> int: ...
    @property
    def min_picture_px(self) -> int: ...
    @property
    def min_description_chars(self) -> int: ...


def assess(facts: ProductFacts, policy: QualityPolicy) -> QualityResult:
    """Return the points of a product, from 100 down to 0, and its faults, the dearest first."""
    findings = list[QualityFinding]()

    def find(reason: QualityReason, share: float = 1.0, values: Sequence[str] = ()) -> None:
        if share > 0:
            findings.append(build_finding(reason, ceil(WEIGHTS[reason] * share), list(values)[:MAX_VALUES]))

    if not facts.has_category:
        find("no_category")
    find("missing_attributes", 1.0 if facts.missing_attributes else 0, facts.missing_attributes)
    _assess_pictures(facts, policy, find)
    _assess_texts(facts, policy, find)
    if facts.variants == 0:
        find("no_variants")
    else:
        find("missing_barcodes", len(facts.without_barcode) / facts.variants, facts.without_barcode)
        find("missing_measures", len(facts.without_measures) / facts.variants, facts.without_measures)
    if comparison := compare_price(facts):
        find("price_out_of_line", values=[comparison])
    find("likely_duplicate", 1.0 if facts.duplicates else 0, facts.duplicates)
    findings.sort(key=lambda finding: -finding.points)
    return QualityResult(max(0, 100 - sum(finding.points for finding in findings)), findings)


def build_finding(reason: QualityReason, points: int, values: list[str]) -> QualityFinding:
    """Build a finding with what to do about it."""
    named = ", ".join(values) + (" …" if len(values) == MAX_VALUES else "")
    return QualityFinding(reason, points, values, _ADVICE[reason].format(values=named))


_Find = Callable[..., None]


def _assess_pictures(facts: ProductFacts, policy: QualityPolicy, find: _Find) -> None:
    count = len(facts.picture_px)
    if count == 0:
        find("no_pictures")
        return
    if count < policy.min_pictures:
        find("few_pictures", (policy.min_pictures - count) / policy.min_pictures)
    small = [px for px in facts.picture_px if px < policy.min_picture_px]
    note = f"{len(small)} of {count} have fewer than {policy.min_picture_px} pixels at the larger side"
    find("small_pictures", len(small) / count, [note])


def _assess_texts(facts: ProductFacts, policy: QualityPolicy, find: _Find) -> None:
    """Assess names and descriptions. Of several languages each counts for its share."""
    present = {language.split("-")[0] for language in facts.texts}
    wanted = list(policy.languages)
    missing = [language for language in wanted if language.split("-")[0] not in present]
    find("missing_translations", len(missing) / max(1, len(wanted)), missing)
    count = max(1, len(facts.texts))
    by_reason: dict[QualityReason, list[str]] = {}
    for language, text in sorted(facts.texts.items()):
        reason: QualityReason | None = None
        if not fold_title(text.description):
            reason = "no_description"
        elif fold_title(text.description) in fold_title(text.name):
            reason = "repeated_name"
        elif count_chars(text.description) < policy.min_description_chars:
            reason = "short_description"
        if reason is not None:
            by_reason.setdefault(reason, []).append(language)
        if is_shouting(text.name, facts.brand):
            by_reason.setdefault("shouting_name", []).append(language)
    for reason, languages in by_reason.items():
        find(reason, len(languages) / count, languages)


def count_chars(text: str) -> int:
    """Count the letters and digits of a text. An ideograph says as much as two letters."""
    return sum(2 if _IDEOGRAPH.match(letter) else 1 for letter in text if letter.isalnum())


def is_shouting(name: str, brand: str) -> bool:
    """Tell if a name shouts: by words in capitals, beside the brand, or several exclamation marks.

    Most of its letters must be in such words. Words of three letters, as USB, and single ones, as HDMI, shout not."""
    if _CRIES.search(name):
        return True
    own = {word.casefold() for word in _SHOUTED_WORD.findall(brand)}
    words = [word for word in re.findall(r"[^\W\d_]+", name) if word.casefold() not in own]
    cased = sum(len(word) for word in words if word.lower() != word.upper())
    shouted = sum(len(word) for word in words if len(word) >= 4 and word.isupper())
    return shouted >= _MIN_SHOUTED and 2 * shouted > cased


def compare_price(facts: ProductFacts) -> str | None:
    """Return how far a price is out of line in its category; None if it is not, or if that cannot be said.

    The modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993), with its bound of 3.5, of
    logarithms: prices differ by factors. A factor below 3 is never out of line, however alike the others are."""
    level = facts.price_level
    if level is None or level.products < _MIN_PRICES or not facts.price:
        return None
    distance = log(facts.price) - level.median
    if abs(distance) < log(_MIN_PRICE_FACTOR):
        return None
    if abs(distance) <= _MAX_SCORE * _TO_DEVIATION * level.deviation:
        return None
    factor = exp(abs(distance))
    return f"{factor:.0f} times {'the median' if distance > 0 else 'less than the median'}"
