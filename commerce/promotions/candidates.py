"""Candidates of a class: the amounts that each promotion alone would take off an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from commerce.promotions.model import (
    WHOLE,
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
from commerce.promotions.sharing import share


class PricedUnits:
    """The units of an order by SKU, and what is left of their price. `skus` are sorted."""

    def __init__(self, units: dict[str, int], amounts: dict[str, int]) -> None:
        self.units = units
        self.amounts = amounts
        self.skus = sorted(units)

    @cached_property
    def unit_prices(self) -> dict[str, int]:
        """The rest of the price of a unit; on average and rounded down where units differ."""
        return {sku: self.amounts[sku] // count for sku, count in self.units.items()}

    @cached_property
    def dearest_first(self) -> list[str]:
        """The SKUs by unit price."""
        prices = self.unit_prices
        return sorted(self.units, key=lambda sku: (-prices[sku], sku))


class Candidate(NamedTuple):
    """A discount above 0 by a promotion, and the SKUs that it touches, sorted.

    `promotion_no` is the promotion's place among those of the sale, by class and id, counted from 0.
    """

    promotion_no: int
    skus: tuple[str, ...]
    amount: int


def percent_of(amount: int, basis_points: int) -> int:
    """Return a percentage of an amount, rounded half up."""
    return (amount * basis_points + WHOLE // 2) // WHOLE


def list_candidates(promotions: Iterable[tuple[int, Promotion, Sequence[str]]], priced: PricedUnits) -> list[Candidate]:
    """List what each promotion of a class would take off an order alone, by promotion, then by SKU.

    `promotions` have their number, and those SKUs of the order that they are for, sorted. A rule for single units is a
    candidate for each SKU, any other one for all of its SKUs together. Of the candidates of one SKU alone only the best
    is listed, of equal ones the first: it excludes the same ones as the others do.
    """
    candidates: list[Candidate] = []
    best: dict[str, Candidate] = {}
    for number, promotion, skus in promotions:
        amounts: Iterable[int]
        if isinstance(promotion.rule, PercentOff | AmountOff):
            amounts = _item_amounts(promotion.rule, promotion.promotion_class, skus, priced)
        else:
            amount = _amount_together(promotion, skus, priced)
            if len(skus) > 1 and amount:
                candidates.append(Candidate(number, tuple(skus), amount))
            amounts = (amount,) if len(skus) == 1 else ()
        for sku, amount in zip(skus, amounts, strict=False):
            if amount and (sku not in best or amount > best[sku].amount):
                best[sku] = Candidate(number, (sku,), amount)
    return sorted([*candidates, *best.values()])


def share_candidate(promotion: Promotion, candidate: Candidate, priced: PricedUnits) -> dict[str, int]:
    """Share a candidate out to its SKUs. Returns the amounts that are not 0."""
    skus, rule = candidate.skus, promotion.rule
    if len(skus) == 1:
        return {skus[0]: candidate.amount}
    match rule:
        case MultiBuy():
            amounts = _multi_buy_amounts(rule, skus, priced)
            return {sku: amounts[sku] for sku in skus if amounts[sku]}
        case Bundle():
            weights = [priced.unit_prices[sku] for sku in skus]
        case _:
            weights = [priced.amounts[sku] for sku in skus]
    return {sku: amount for sku, amount in zip(skus, share(candidate.amount, weights), strict=True) if amount}


def reduction(rule: SteppedReduction | RepeatedReduction | PercentReduction, total: int) -> int:
    """Return what a rule for the whole takes off a total, at most the total."""
    match rule:
        case SteppedReduction():
            amount = max((step.amount for step in rule.steps if total >= step.threshold), default=0)
        case RepeatedReduction():
            times = total // rule.threshold
            amount = rule.amount * (times if rule.max_times is None else min(times, rule.max_times))
        case PercentReduction():
            amount = percent_of(total, rule.basis_points) if total >= rule.threshold else 0
    return min(amount, total)


def bundle_count(promotion: Promotion, priced: PricedUnits) -> int:
    """Return how many bundles the units of an order make up."""
    return min((priced.units.get(sku, 0) for sku in promotion.skus or ()), default=0)


def _item_amounts(
    rule: PercentOff | AmountOff, promotion_class: PromotionClass, skus: Sequence[str], priced: PricedUnits
) -> list[int]:
    units, left = priced.units, priced.amounts
    if isinstance(rule, AmountOff):
        return [min(rule.amount * units[sku], left[sku]) for sku in skus]
    if promotion_class is PromotionClass.ITEM:  # a price that customers see, times the units
        return [percent_of(priced.unit_prices[sku], rule.basis_points) * units[sku] for sku in skus]
    return [percent_of(left[sku], rule.basis_points) for sku in skus]


def _amount_together(promotion: Promotion, skus: Sequence[str], priced: PricedUnits) -> int:
    rule = promotion.rule
    match rule:
        case MultiBuy():
            return sum(_multi_buy_amounts(rule, skus, priced).values())
        case Bundle():
            price = sum(priced.unit_prices[sku] for sku in skus)
            return max(0, price - rule.price) * bundle_count(promotion, priced)
        case SteppedReduction() | RepeatedReduction() | PercentReduction():
            return reduction(rule, sum(priced.amounts[sku] for sku in skus))
    raise AssertionError(f"{rule} is for single units")


def _multi_buy_amounts(rule: MultiBuy, skus: Sequence[str], priced: PricedUnits) -> dict[str, int]:
    members = set(skus)
    grouped = sum(priced.units[sku] for sku in skus) // rule.units * rule.units
    amounts: dict[str, int] = {}
    position = free_before = 0
    for sku in priced.dearest_first:
        if sku in members:
            position += priced.units[sku]
            free = _free_units(rule, min(position, grouped))
            amounts[sku] = (free - free_before) * priced.unit_prices[sku]
            free_before = free
    return amounts


def _free_units(rule: MultiBuy, position: int) -> int:
    """Return how many of the units before a position are free; the last ones of each group are."""
    groups, rest = divmod(position, rule.units)
    return groups * (rule.units - rule.paid_units) + max(0, rest - rule.paid_units)
