"""Checks that a promotion makes sense, alone and for the items of its sale. Errors name their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.promotions.model import (
    ALLOWED_RULES,
    MAX_BUNDLE_SKUS,
    AmountOff,
    Bundle,
    MultiBuy,
    Promotion,
    ReductionStep,
    RepeatedReduction,
    Rule,
    SteppedReduction,
)

_MAX_REPORTED_ERRORS = 20
_Error = tuple[str, str]
"""JSON pointer and text."""


def check_promotion(promotion: Promotion, prices: Mapping[str, int], currency: str) -> None:
    """Check a promotion.

    `prices` are those of its SKUs that are in the sale, in minor units; if it is for all of the sale, that of the
    cheapest item is enough. Raises `Invalid` with up to twenty errors by JSON pointer.
    """
    errors = [
        {"pointer": pointer, "detail": detail}
        for pointer, detail in (*_window_errors(promotion), *_rule_errors(promotion), *_sku_errors(promotion, prices))
    ]
    if not errors:  # prices say something about a sound rule only
        errors = [{"pointer": place, "detail": detail} for place, detail in _price_errors(promotion, prices, currency)]
    if errors:
        detail = "; ".join(f"{error['pointer']}: {error['detail']}" for error in errors[:3])
        raise Invalid(detail, errors=errors[:_MAX_REPORTED_ERRORS])


def _window_errors(promotion: Promotion) -> Iterator[_Error]:
    if promotion.starts_at and promotion.ends_at and promotion.ends_at <= promotion.starts_at:
        yield "/ends_at", "is not after starts_at"


def _rule_errors(promotion: Promotion) -> Iterator[_Error]:
    kind, rule = promotion.promotion_class, promotion.rule
    allowed = ALLOWED_RULES[kind]
    if not isinstance(rule, allowed):
        names = ", ".join(_name(rule_type) for rule_type in allowed)
        yield "/rule/kind", f"{_name(type(rule))} cannot be of class {kind}, which may have {names}"
    match rule:
        case MultiBuy():
            if rule.paid_units >= rule.units:
                yield "/rule/paid_units", f"must be less than units, which are {rule.units}"
        case SteppedReduction():
            yield from _step_errors(rule.steps)
        case RepeatedReduction():
            if rule.amount > rule.threshold:
                yield "/rule/amount", f"is more than its threshold, which is {rule.threshold}"


def _name(rule_type: type[Rule]) -> str:
    return str(rule_type.__struct_config__.tag)


def _step_errors(steps: Sequence[ReductionStep]) -> Iterator[_Error]:
    previous: ReductionStep | None = None
    for number, step in enumerate(steps):
        if step.amount > step.threshold:
            yield f"/rule/steps/{number}/amount", f"is more than its threshold, which is {step.threshold}"
        if previous is not None:
            if step.threshold == previous.threshold:
                yield f"/rule/steps/{number}/threshold", "is that of the step before, so the two overlap"
            elif step.threshold < previous.threshold:
                yield f"/rule/steps/{number}/threshold", f"is not above {previous.threshold}: steps ascend"
            if step.amount <= previous.amount:
                yield f"/rule/steps/{number}/amount", f"is not above {previous.amount}: steps ascend"
        previous = step


def _sku_errors(promotion: Promotion, prices: Mapping[str, int]) -> Iterator[_Error]:
    skus = promotion.skus
    if isinstance(promotion.rule, Bundle) and not 2 <= len(skus or ()) <= MAX_BUNDLE_SKUS:
        yield "/skus", f"a bundle has 2 to {MAX_BUNDLE_SKUS} SKUs"
    for number, sku in enumerate(skus or ()):
        if number and skus and sku == skus[number - 1]:
            yield "/skus", f"{sku} occurs twice"
        elif sku not in prices:
            yield "/skus", f"{sku} is not in this sale"


def _price_errors(promotion: Promotion, prices: Mapping[str, int], currency: str) -> Iterator[_Error]:
    rule = promotion.rule
    match rule:
        case AmountOff():
            for sku, price in sorted(prices.items()):
                if rule.amount > price:
                    shown = format_money(price, currency)
                    yield "/rule/amount", f"is more than the price of {sku}, {shown}; name the SKUs that it is for"
        case Bundle():
            whole = sum(prices.values())
            if rule.price >= whole:
                yield "/rule/price", f"is not below what its SKUs cost without it, {format_money(whole, currency)}"
