"""Evaluations against a second implementation.

It takes single units and tries every set of promotions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, combinations

from hypothesis import given

from commerce.promotions.candidates import Candidate
from commerce.promotions.evaluation import compile_promotions
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    MultiBuy,
    PercentOff,
    PercentReduction,
    Promotion,
    PromotionClass,
    RepeatedReduction,
    SteppedReduction,
)
from commerce.promotions.selection import choose
from tests.support.promotions import NOW_MS, Case, cases, compiled, promotion, stepped

Reduction = tuple[Promotion, frozenset[str], dict[str, int]]
"""A promotion, the SKUs that it touches, and what it takes off by SKU."""


def half_up(amount: Fraction) -> int:
    return int(amount + Fraction(1, 2))


def by_largest_remainder(amount: int, left: dict[str, int]) -> dict[str, int]:
    whole = sum(left.values())
    exact = {sku: Fraction(amount * part, whole) if whole else Fraction(0) for sku, part in left.items()}
    shares = {sku: int(part) for sku, part in exact.items()}
    by_remainder = sorted(shares, key=lambda sku: (shares[sku] - exact[sku], sku))
    for sku in by_remainder[: amount - sum(shares.values())]:
        shares[sku] += 1
    return shares


def free_units(rule: MultiBuy, prices: dict[str, int], units: dict[str, int], skus: list[str]) -> dict[str, int]:
    every_unit = sorted((-prices[sku], sku) for sku in skus for _ in range(units[sku]))
    reductions = dict.fromkeys(skus, 0)
    for start in range(0, len(every_unit) - rule.units + 1, rule.units):
        for negative_price, sku in every_unit[start + rule.paid_units : start + rule.units]:
            reductions[sku] -= negative_price
    return reductions


def whole_reduction(promotion: Promotion, total: int) -> int:
    match promotion.rule:
        case SteppedReduction(steps):
            return max([0, *(step.amount for step in steps if step.threshold <= total)])
        case RepeatedReduction(threshold, amount, maximum):
            return sum(amount for times in range(1, (maximum or 10_000) + 1) if times * threshold <= total)
        case PercentReduction(basis_points, threshold):
            return half_up(Fraction(total * basis_points, 10_000)) if total >= threshold else 0
    raise AssertionError(promotion)


def list_reductions(promotion: Promotion, units: dict[str, int], left: dict[str, int]) -> Iterator[Reduction]:
    skus = sorted(sku for sku in units if promotion.skus is None or sku in promotion.skus)
    prices = {sku: left[sku] // units[sku] for sku in skus}
    match promotion.rule:
        case PercentOff(basis_points):
            for sku in skus:
                count = units[sku] if promotion.promotion_class is PromotionClass.ITEM else 1
                amount = half_up(Fraction(left[sku] * basis_points, 10_000 * count)) * count
                yield promotion, frozenset([sku]), {sku: amount}
        case AmountOff(amount):
            yield from ((promotion, frozenset([sku]), {sku: min(amount * units[sku], left[sku])}) for sku in skus)
        case MultiBuy() as rule:
            yield promotion, frozenset(skus), free_units(rule, prices, units, skus)
        case Bundle(price):
            assert promotion.skus
            count = min(units.get(sku, 0) for sku in promotion.skus)
            amount = max(0, sum(prices.values()) - price) * count
            yield promotion, frozenset(skus), by_largest_remainder(amount, prices) if count else {}
        case _:
            amount = whole_reduction(promotion, sum(left[sku] for sku in skus))
            yield promotion, frozenset(skus), by_largest_remainder(amount, {sku: left[sku] for sku in skus})


def best_set(reductions: list[Reduction]) -> tuple[Reduction, ...]:
    """Try every set of reductions that touch no SKU twice."""
    sets = chain.from_iterable(combinations(reductions, count) for count in range(len(reductions) + 1))
    allowed = (chosen for chosen in sets if sum(len(r[1]) for r in chosen) == len({s for r in chosen for s in r[1]}))
    return min(
        allowed,
        key=lambda chosen: (
            -sum(sum(reduction[2].values()) for reduction in chosen),
            sorted((reduction[0].promotion_id, min(reduction[1])) for reduction in chosen),
        ),
    )


def evaluate_by_trying(case: Case) -> dict[str, dict[str, int]]:
    """Return what each promotion takes off by SKU."""
    left = {sku: case.prices[sku] * count for sku, count in case.units.items()}
    discounts: dict[str, dict[str, int]] = {}
    for promotion_class in ("item", "multi", "order", "coupon"):
        reductions = [
            reduction
            for choice in case.promotions
            if choice.promotion_class == promotion_class
            and choice.enabled
            and (case.is_new or not choice.new_customers_only)
            and (promotion_class != "coupon" or choice.promotion_id in case.coupons)
            for reduction in list_reductions(choice, case.units, left)
            if any(reduction[2].values())
        ]
        if len(reductions) > 12:  # of a single SKU only the best counts, which keeps the sets few
            reductions = [r for r in reductions if not any(is_inferior(r, other) for other in reductions)]
        for choice, _, amounts in best_set(reductions):
            for sku, amount in amounts.items():
                left[sku] -= amount
                if amount:
                    discounts.setdefault(choice.promotion_id, {})[sku] = amount
    return discounts


def is_inferior(reduction: Reduction, other: Reduction) -> bool:
    if reduction[1] != other[1] or len(reduction[1]) > 1:
        return False
    [amount], [better] = reduction[2].values(), other[2].values()
    return (-better, other[0].promotion_id) < (-amount, reduction[0].promotion_id)


@given(cases())
def test_evaluation_equals_the_best_of_all_sets(case: Case) -> None:
    evaluation = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    assert {discount.promotion_id: discount.by_sku for discount in evaluation.discounts} == evaluate_by_trying(case)
    for discount in evaluation.discounts:
        assert discount.amount == sum(discount.by_sku.values()) > 0


@given(cases())
def test_discount_is_never_more_than_the_price(case: Case) -> None:
    evaluation = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    for sku, count in case.units.items():
        assert 0 <= evaluation.by_sku.get(sku, 0) <= count * case.prices[sku]
    assert evaluation.amount == sum(evaluation.by_sku.values())
    assert evaluation.amount == sum(discount.amount for discount in evaluation.discounts)
    order = [list(PromotionClass).index(discount.promotion_class) for discount in evaluation.discounts]
    assert order == sorted(order)


@given(cases())
def test_sequence_of_promotions_and_units_changes_nothing(case: Case) -> None:
    forwards = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    backwards = compiled(case.promotions[::-1], case.prices).evaluate(
        dict(reversed(case.units.items())), case.coupons[::-1], case.is_new, NOW_MS
    )
    assert forwards == backwards


def test_hundred_promotions_that_exclude_each_other_are_chosen_in_bounded_time() -> None:
    """The worst that staff can set up must not stop a gateway."""
    chance = random.Random(11)
    skus = [f"s{number:03}" for number in range(200)]
    bundles = [
        promotion(f"b{number:02}", stepped((1, chance.randint(50, 90))), chance.sample(skus, 4))
        for number in range(100)
    ]
    offered = compile_promotions(bundles, dict.fromkeys(skus, (100, 0)))
    start = time.perf_counter()
    results = offered.run(dict.fromkeys(skus, 1), (), False, NOW_MS)
    assert time.perf_counter() - start < 1  # some 20 ms
    chosen = results[PromotionClass.ORDER].chosen
    touched = [sku for candidate in chosen for sku in candidate.skus]
    assert len(touched) == len(set(touched))
    greedy = sum(sorted((candidate.amount for candidate in chosen), reverse=True)[:1])
    assert sum(candidate.amount for candidate in chosen) > greedy


def test_chain_of_many_bundles_is_chosen_exactly() -> None:
    """Each excludes its neighbours; the best set follows from the best sets of the shorter chains."""
    chance = random.Random(5)
    amounts = chance.choices(range(1, 50), k=60)
    links = [((f"{number:02}", f"{number + 1:02}"), amount) for number, amount in enumerate(amounts)]
    best, before = 0, 0
    for amount in amounts:
        best, before = max(best, before + amount), best
    for _ in range(3):
        candidates = [Candidate(index, skus, amount) for index, (skus, amount) in enumerate(links)]
        assert sum(candidate.amount for candidate in choose(candidates)) == best
        chance.shuffle(links)
