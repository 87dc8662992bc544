"""Candidates of a class: the amounts that each promotion alone would take off an order."""

from __future__ import annotations

from collections.abc import Sequence
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

    __slots__ = ("amounts", "skus", "units")

    def __init__(self, units: dict[str, int], amounts: dict[str, int]) -> None:
        self.units = units
        self.amounts = amounts
        self.skus = sorted(units)

    def unit_price(self, sku: str) -> int:
        """Return what is left of the price of a unit; on average and rounded down where units differ."""
        return self.amounts[sku] // self.units[sku]


class Candidate(NamedTuple):
    """A discount above 0 by a promotion, the SKUs that it touches, and its amounts by SKU, none of them 0.

    `promotion_no` is the promotion's place among those of the sale, by class and id, counted from 0.
    """

    promotion_no: int
    skus: tuple[str, ...]
    amount: int
    by_sku: dict[str, int]


def percent_of(amount: int, basis_points: int) -> int:
    """Return a percentage of an amount, rounded half up."""
    return (amount * basis_points + WHOLE // 2) // WHOLE


def list_candidates(index: int, promotion: Promotion, skus: Sequence[str], priced: PricedUnits) -> list[Candidate]:
    """List the candidates of a promotion.

    `skus` are those of the order that it is for, sorted. A rule that looks at single units is chosen SKU by SKU, any
    other one for all of its SKUs together.
    """
    rule = promotion.rule
    match rule:
        case PercentOff() | AmountOff():
            amounts = [_item_amount(rule, promotion.promotion_class, sku, priced) for sku in skus]
            return [
                Candidate(index, (sku,), amount, {sku: amount})
                for sku, amount in zip(skus, amounts, strict=True)
                if amount
            ]
        case MultiBuy():
            amounts = _multi_buy_amounts(rule, skus, priced)
        case Bundle():
            amounts = _bundle_amounts(promotion, rule, skus, priced)
        case _:
            left = [priced.amounts[sku] for sku in skus]
            amounts = share(reduction(rule, sum(left)), left)
    amount = sum(amounts)
    if not amount:
        return []
    by_sku = {sku: amount for sku, amount in zip(skus, amounts, strict=True) if amount}
    return [Candidate(index, tuple(skus), amount, by_sku)]


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


def _item_amount(rule: PercentOff | AmountOff, promotion_class: PromotionClass, sku: str, priced: PricedUnits) -> int:
    units, left = priced.units[sku], priced.amounts[sku]
    if isinstance(rule, AmountOff):
        return min(rule.amount * units, left)
    if promotion_class is PromotionClass.ITEM:
        return percent_of(left // units, rule.basis_points) * units  # a price that customers see, times the units
    return percent_of(left, rule.basis_points)


def _multi_buy_amounts(rule: MultiBuy, skus: Sequence[str], priced: PricedUnits) -> list[int]:
    prices = {sku: priced.unit_price(sku) for sku in skus}
    grouped = sum(priced.units[sku] for sku in skus) // rule.units * rule.units
    amounts: dict[str, int] = {}
    position = 0
    for sku in sorted(skus, key=lambda sku: (-prices[sku], sku)):
        free = -_free_units(rule, min(position, grouped))
        position += priced.units[sku]
        free += _free_units(rule, min(position, grouped))
        amounts[sku] = free * prices[sku]
    return [amounts[sku] for sku in skus]


def _free_units(rule: MultiBuy, position: int) -> int:
    """Return how many of the units before a position are free; the last ones of each group are."""
    groups, rest = divmod(position, rule.units)
    return groups * (rule.units - rule.paid_units) + max(0, rest - rule.paid_units)


def _bundle_amounts(promotion: Promotion, rule: Bundle, skus: Sequence[str], priced: PricedUnits) -> list[int]:
    count = bundle_count(promotion, priced)
    prices = [priced.unit_price(sku) * count for sku in skus]
    return share(max(0, sum(prices) - rule.price * count), prices)
