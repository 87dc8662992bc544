"""Explains for each promotion of a sale what it does for an order, or the reason why it does nothing.

It reads the same run that the discounts come from, so what it calls applied adds up to the discount of the order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from commerce.kernel.clock import to_ms
from commerce.kernel.money import format_money
from commerce.promotions.candidates import Candidate, PricedUnits, bundle_count, list_candidates, reduction
from commerce.promotions.evaluation import ClassResult, CompiledPromotions
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    Explanation,
    ExplanationCode,
    MultiBuy,
    PercentOff,
    PercentReduction,
    Promotion,
    RepeatedReduction,
    SteppedReduction,
)


class _Verdict(NamedTuple):
    code: ExplanationCode
    message: str
    numbers: Mapping[str, Any] = MappingProxyType({})


def explain(
    compiled: CompiledPromotions,
    units: Mapping[str, int],
    coupons: Collection[str],
    is_new_customer: bool,
    now_ms: int,
    currency: str,
) -> list[Explanation]:
    """Explain all promotions of a sale for an order, by class and id.

    The arguments are those of `evaluate`. Disabled promotions and those that need a coupon are among them: decide by
    `code` what customers may read.
    """
    results = compiled.run(units, coupons, is_new_customer, now_ms)
    priced = compiled.price_units(units)
    explanations = []
    for index, promotion in enumerate(compiled.promotions):
        skus = compiled.touched_skus(index, priced)
        verdict = _condition(promotion, coupons, is_new_customer, now_ms, skus) or _choice(
            compiled, index, skus, results[promotion.promotion_class], currency
        )
        explanations.append(
            Explanation(
                promotion.promotion_id,
                promotion.label,
                promotion.promotion_class,
                verdict.code,
                verdict.message,
                **verdict.numbers,
            )
        )
    return explanations


def _condition(
    promotion: Promotion, coupons: Collection[str], is_new_customer: bool, now_ms: int, skus: Sequence[str]
) -> _Verdict | None:
    """Return the condition that an order does not meet, None if it meets all."""
    if not promotion.enabled:
        return _Verdict("disabled", "disabled by staff")
    if promotion.starts_at and now_ms < to_ms(promotion.starts_at):
        return _Verdict("not_started", f"begins at {_moment(promotion.starts_at)}", {"moment": promotion.starts_at})
    if promotion.ends_at and now_ms >= to_ms(promotion.ends_at):
        return _Verdict("ended", f"ended at {_moment(promotion.ends_at)}", {"moment": promotion.ends_at})
    if not skus:
        return _Verdict("not_in_order", "none of its items are in the order")
    if promotion.new_customers_only and not is_new_customer:
        return _Verdict("new_customers_only", "for new customers only")
    if promotion.needs_coupon and promotion.promotion_id not in coupons:
        return _Verdict("needs_coupon", "needs a coupon")
    return None


def _choice(
    compiled: CompiledPromotions, index: int, skus: Sequence[str], result: ClassResult, currency: str
) -> _Verdict:
    """Return the verdict on a promotion that meets all conditions."""
    applied = [candidate for candidate in result.chosen if candidate.promotion_no == index]
    amount = sum(candidate.amount for candidate in applied)
    if not applied:
        own = list_candidates([(index, compiled.promotions[index], skus)], result.priced)
        if own:
            return _excluded(compiled, own, result.chosen, currency)
    shortfall = _shortfall(compiled.promotions[index], skus, result.priced, amount, currency)
    if applied:
        message = f"{format_money(amount, currency)} off"
        if shortfall:
            return _Verdict("applied", f"{message}; {shortfall.message}", {"amount": amount, **shortfall.numbers})
        return _Verdict("applied", message, {"amount": amount})
    return shortfall or _Verdict("no_effect", "its items already cost as little or less")


def _excluded(compiled: CompiledPromotions, own: list[Candidate], chosen: list[Candidate], currency: str) -> _Verdict:
    skus = {sku for candidate in own for sku in candidate.skus}
    indexes = sorted({candidate.promotion_no for candidate in chosen if not skus.isdisjoint(candidate.skus)})
    instead = [compiled.promotions[index].promotion_id for index in indexes]
    amount = sum(candidate.amount for candidate in own)
    message = f"another promotion of its class is better than {format_money(amount, currency)} off"
    return _Verdict("excluded", message, {"amount": amount, "instead": instead})


def _shortfall(
    promotion: Promotion, skus: Sequence[str], priced: PricedUnits, amount: int, currency: str
) -> _Verdict | None:
    """Return what an order lacks for the next reduction, None if there is none."""
    rule = promotion.rule
    match rule:
        case PercentOff() | AmountOff():
            return None
        case MultiBuy():
            missing = rule.units - sum(priced.units[sku] for sku in skus) % rule.units
            free = rule.units - rule.paid_units
            verb = "is" if free == 1 else "are"
            return _Verdict(
                "too_few_units", f"{missing} more of its items and {free} {verb} free", {"missing_units": missing}
            )
        case Bundle():
            return None if amount else _bundle_shortfall(promotion, priced)
        case _:
            return _threshold_shortfall(rule, sum(priced.amounts[sku] for sku in skus), amount, currency)


def _bundle_shortfall(promotion: Promotion, priced: PricedUnits) -> _Verdict | None:
    if bundle_count(promotion, priced):
        return None
    missing = sorted(sku for sku in promotion.skus or () if sku not in priced.units)
    numbers = {"missing_units": len(missing), "missing_skus": missing}
    return _Verdict("too_few_units", f"{', '.join(missing)} belong to it too", numbers)


def _threshold_shortfall(
    rule: SteppedReduction | RepeatedReduction | PercentReduction, total: int, amount: int, currency: str
) -> _Verdict | None:
    match rule:
        case SteppedReduction():
            threshold = min((step.threshold for step in rule.steps if step.threshold > total), default=None)
        case RepeatedReduction():
            times = total // rule.threshold + 1
            is_over = rule.max_times is not None and times > rule.max_times
            threshold = None if is_over else times * rule.threshold
        case PercentReduction():
            threshold = rule.threshold if total < rule.threshold else None
    if threshold is None:
        return None
    missing, reached = threshold - total, reduction(rule, threshold)
    if reached <= amount:
        return None
    message = f"{format_money(missing, currency)} more and {format_money(reached, currency)} come off"
    return _Verdict("below_threshold", message, {"missing_amount": missing, "next_amount": reached})


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
