"""Builds promotions and orders of any kind, for examples and for properties that hypothesis checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from hypothesis import strategies as st

from commerce.promotions.evaluation import CompiledPromotions, compile_promotions
from commerce.promotions.model import (
    ALLOWED_RULES,
    AmountOff,
    Bundle,
    Evaluation,
    MultiBuy,
    PercentOff,
    PercentReduction,
    Promotion,
    PromotionClass,
    ReductionStep,
    RepeatedReduction,
    Rule,
    SteppedReduction,
)

SALE = "double-11"
NOW_MS = 1_800_000_000_000
SKUS = ("A", "B", "C", "D", "E")


def promotion(
    promotion_id: str, rule: Rule, skus: Iterable[str] | None = None, kind: PromotionClass | None = None, **more: Any
) -> Promotion:
    """Build a promotion in the first class that may have its rule, unless another one is wanted."""
    kind = kind or next(kind for kind in PromotionClass if isinstance(rule, ALLOWED_RULES[kind]))
    chosen = None if skus is None else tuple(sorted(skus))
    return Promotion(promotion_id, SALE, f"label of {promotion_id}", kind, rule, chosen, **more)


def stepped(*steps: tuple[int, int]) -> SteppedReduction:
    return SteppedReduction([ReductionStep(*step) for step in steps])


def compiled(promotions: Iterable[Promotion], prices: Mapping[str, int]) -> CompiledPromotions:
    return compile_promotions(promotions, {sku: (price, 0) for sku, price in prices.items()})


def evaluate(
    promotions: Iterable[Promotion],
    prices: Mapping[str, int],
    units: Mapping[str, int],
    coupons: Collection[str] = (),
    is_new: bool = False,
) -> Evaluation:
    return compiled(promotions, prices).evaluate(units, coupons, is_new, NOW_MS)


class Case(NamedTuple):
    """An order in a sale with promotions, and the coupons that are presented."""

    promotions: list[Promotion]
    prices: dict[str, int]
    units: dict[str, int]
    coupons: list[str]
    is_new: bool


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule that staff may set; `Bundle` needs SKUs."""
    amounts = st.integers(1, 300)
    match draw(st.integers(0, 6)):
        case 0:
            return PercentOff(draw(st.integers(1, 10_000)))
        case 1:
            return AmountOff(draw(amounts))
        case 2:
            units = draw(st.integers(2, 4))
            return MultiBuy(units, draw(st.integers(1, units - 1)))
        case 3:
            return Bundle(draw(amounts))
        case 4:
            thresholds = sorted(draw(st.sets(st.integers(1, 3_000), min_size=1, max_size=3)))
            reductions = sorted(draw(st.sets(amounts, min_size=len(thresholds), max_size=len(thresholds))))
            pairs = zip(thresholds, reductions, strict=True)
            return stepped(*((threshold, min(threshold, amount)) for threshold, amount in pairs))
        case 5:
            threshold = draw(st.integers(1, 800))
            maximum = draw(st.none() | st.integers(1, 3))
            return RepeatedReduction(threshold, draw(st.integers(1, threshold)), maximum)
        case _:
            return PercentReduction(draw(st.integers(1, 10_000)), draw(st.integers(0, 2_000)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Orders of one to five SKUs and up to seven promotions, of which most touch each other."""
    prices = {sku: draw(st.integers(1, 700)) for sku in SKUS}
    units = draw(st.dictionaries(st.sampled_from(SKUS), st.integers(1, 7), min_size=1))
    promotions = []
    for number in range(draw(st.integers(0, 7))):
        rule = draw(rules())
        skus = draw(st.none() | st.sets(st.sampled_from(SKUS), min_size=1, max_size=3))
        if isinstance(rule, Bundle) and (skus is None or len(skus) < 2):
            skus = {"A", "B"}
        kinds = [kind for kind in PromotionClass if isinstance(rule, ALLOWED_RULES[kind])]
        promotions.append(
            promotion(
                f"p{number}",
                rule,
                skus,
                draw(st.sampled_from(kinds)),
                new_customers_only=draw(st.booleans()),
                enabled=draw(st.integers(0, 5)) > 0,
            )
        )
    coupons = [choice.promotion_id for choice in promotions if draw(st.booleans())]
    return Case(draw(st.permutations(promotions)), prices, units, coupons, draw(st.booleans()))
