"""Evaluates the promotions of a sale for an order, in memory: pure arithmetic without any I/O.

The classes are applied in their order, and within a class the best set of promotions is chosen that do not touch the
same SKU. The result depends on the units by SKU only, so neither on the sequence of lines nor on their addresses.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from itertools import groupby
from typing import NamedTuple

from commerce.kernel.clock import to_ms
from commerce.promotions.candidates import Candidate, PricedUnits, list_candidates, share_candidate
from commerce.promotions.model import (
    ALLOWED_RULES,
    NO_DISCOUNTS,
    Discount,
    Evaluation,
    Promotion,
    PromotionClass,
)
from commerce.promotions.selection import choose

_CLASSES = list(PromotionClass)
_MAX_REMEMBERED = 2_048
_MAX_REMEMBERED_SKUS = 8
_FOREVER_MS = 1 << 62


class ClassResult(NamedTuple):
    """The choice of a class: the units that it saw, the chosen candidates, and what each takes off by SKU."""

    priced: PricedUnits
    chosen: list[Candidate]
    amounts: list[dict[str, int]]


class CompiledPromotions:
    """The promotions of a sale, indexed by SKU, with the prices that they are for.

    Immutable but for its memory: most orders of a flash sale are alike, so results are remembered by units, coupons,
    kind of customer and time.
    """

    def __init__(self, promotions: Sequence[Promotion], items: Mapping[str, tuple[int, ...]]) -> None:
        """Index promotions that are sorted by class and id. Use `compile_promotions`."""
        self.promotions = promotions
        self._items = items
        self._starts = [to_ms(promotion.starts_at) if promotion.starts_at else 0 for promotion in promotions]
        self._ends = [to_ms(promotion.ends_at) if promotion.ends_at else _FOREVER_MS for promotion in promotions]
        self._boundaries = sorted({*self._starts, *self._ends})
        enabled = [(index, promotion) for index, promotion in enumerate(promotions) if promotion.enabled]
        self._members = [None if promotion.skus is None else frozenset(promotion.skus) for promotion in promotions]
        self._everywhere = [index for index, promotion in enabled if promotion.skus is None]
        self._by_sku: dict[str, list[int]] = {}
        for index, promotion in enabled:
            for sku in promotion.skus or ():
                self._by_sku.setdefault(sku, []).append(index)
        self._coupons = {promotion.promotion_id for _, promotion in enabled if promotion.needs_coupon}
        self.new_customer_ids = {promotion.promotion_id for _, promotion in enabled if promotion.new_customers_only}
        self._remembered: dict[tuple[object, ...], Evaluation] = {}

    def with_items(self, items: Mapping[str, tuple[int, ...]]) -> CompiledPromotions:
        """Return the same promotions for other prices, with an empty memory. The index is shared."""
        other = copy(self)
        other._items, other._remembered = items, {}
        return other

    def evaluate(
        self, units: Mapping[str, int], coupons: Collection[str], is_new_customer: bool, now_ms: int
    ) -> Evaluation:
        """Return the discounts of an order, never more than its price, by SKU neither.

        `units` maps SKUs to units above 0; all of them are in the sale, else `KeyError` is raised. `coupons` are ids
        of promotions whose coupons are presented, unknown ones have no effect.
        """
        presented: tuple[str, ...] = ()
        if coupons:
            presented = tuple(sorted(self._coupons.intersection(coupons)))
        key = (
            tuple(sorted(units.items())),
            presented,
            is_new_customer and bool(self.new_customer_ids),
            bisect_right(self._boundaries, now_ms),
        )
        evaluation = self._remembered.get(key)
        if evaluation is None:
            results = self.run(units, presented, is_new_customer, now_ms)
            evaluation = _to_evaluation(self.promotions, results)
            if len(units) <= _MAX_REMEMBERED_SKUS:
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[key] = evaluation
        return evaluation

    def run(
        self, units: Mapping[str, int], coupons: Collection[str], is_new_customer: bool, now_ms: int
    ) -> dict[PromotionClass, ClassResult]:
        """Apply the classes one after another, without memory. Returns the choice of each one.

        The sum of the chosen candidates is the discount of the order.
        """
        priced = self.price_units(units)
        indexes = set(self._everywhere).union(*(self._by_sku.get(sku, ()) for sku in priced.skus))
        applicable = [index for index in sorted(indexes) if self._is_in_force(index, coupons, is_new_customer, now_ms)]
        by_class = {
            promotion_class: list(group)
            for promotion_class, group in groupby(applicable, lambda index: self.promotions[index].promotion_class)
        }
        results = {}
        for promotion_class in _CLASSES:
            chosen: list[Candidate] = []
            amounts: list[dict[str, int]] = []
            if numbers := by_class.get(promotion_class):
                promotions = (
                    (number, self.promotions[number], self.touched_skus(number, priced)) for number in numbers
                )
                chosen = choose(list_candidates(promotions, priced))
                amounts = [
                    share_candidate(self.promotions[candidate.promotion_no], candidate, priced) for candidate in chosen
                ]
            results[promotion_class] = ClassResult(priced, chosen, amounts)
            priced = _after(priced, amounts)
        return results

    def price_units(self, units: Mapping[str, int]) -> PricedUnits:
        """Return the units of an order with their prices before any promotion."""
        items = self._items
        return PricedUnits(dict(units), {sku: count * items[sku][0] for sku, count in units.items()})

    def touched_skus(self, promotion_no: int, priced: PricedUnits) -> list[str]:
        """Return the SKUs of an order that a promotion is for, sorted."""
        members = self._members[promotion_no]
        return priced.skus if members is None else [sku for sku in priced.skus if sku in members]

    def _is_in_force(self, index: int, coupons: Collection[str], is_new_customer: bool, now_ms: int) -> bool:
        promotion = self.promotions[index]
        return (
            self._starts[index] <= now_ms < self._ends[index]
            and (is_new_customer or not promotion.new_customers_only)
            and (not promotion.needs_coupon or promotion.promotion_id in coupons)
        )


def compile_promotions(promotions: Iterable[Promotion], items: Mapping[str, tuple[int, ...]]) -> CompiledPromotions:
    """Index the promotions of one sale for evaluation, once per snapshot.

    `items` maps SKUs to tuples that begin with the unit price, as those of `SaleSnapshot` do; it is kept and must not
    change. Raises `ValueError` if a class has a rule that it may not have, or an id occurs twice.
    """
    in_order = sorted(
        promotions, key=lambda promotion: (_CLASSES.index(promotion.promotion_class), promotion.promotion_id)
    )
    for promotion in in_order:
        kind = promotion.promotion_class
        if not isinstance(promotion.rule, ALLOWED_RULES[kind]):
            raise ValueError(f"cannot use promotion {promotion.promotion_id}: class {kind} may not have its rule")
    if len({promotion.promotion_id for promotion in in_order}) != len(in_order):
        raise ValueError("cannot use promotions: an id occurs twice")
    return CompiledPromotions(in_order, items)


def _after(priced: PricedUnits, discounts: Sequence[Mapping[str, int]]) -> PricedUnits:
    """Return the units as the next class sees them."""
    if not discounts:
        return priced
    left = dict(priced.amounts)
    for amounts in discounts:
        for sku, amount in amounts.items():
            left[sku] -= amount
    return PricedUnits(priced.units, left)


def _to_evaluation(promotions: Sequence[Promotion], results: Mapping[PromotionClass, ClassResult]) -> Evaluation:
    by_index: dict[int, dict[str, int]] = {}
    by_sku: dict[str, int] = {}
    for result in results.values():
        for candidate, amounts in zip(result.chosen, result.amounts, strict=True):
            # Candidates of one promotion touch different SKUs.
            by_index.setdefault(candidate.promotion_no, {}).update(amounts)
            for sku, amount in amounts.items():
                by_sku[sku] = by_sku.get(sku, 0) + amount
    if not by_sku:
        return NO_DISCOUNTS
    discounts = tuple(
        Discount(
            promotions[index].promotion_id,
            promotions[index].label,
            promotions[index].promotion_class,
            sum(amounts.values()),
            amounts,
        )
        for index, amounts in by_index.items()
    )
    return Evaluation(discounts, by_sku, sum(by_sku.values()))
