"""Refusals of promotions that make no sense, each with its place."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    MultiBuy,
    PercentOff,
    PercentReduction,
    Promotion,
    PromotionClass,
    PromotionInput,
    RepeatedReduction,
)
from commerce.promotions.promotion_checks import check_promotion
from gateway.decoding import decode_json
from tests.support.promotions import NOW_MS, promotion, stepped

NOW = from_ms(NOW_MS)
PRICES = {"cup": 999, "pot": 5_000, "tea": 300}


def pointers_of(choice: Promotion) -> dict[str, str]:
    try:
        check_promotion(choice, {sku: PRICES[sku] for sku in choice.skus or PRICES if sku in PRICES}, "CNY")
    except Invalid as refusal:
        return {error["pointer"]: error["detail"] for error in refusal.extra["errors"]}
    return {}


@pytest.mark.parametrize(
    ("choice", "pointer", "reason"),
    [
        (promotion("p", stepped((300, 40), (300, 90))), "/rule/steps/1/threshold", "the two overlap"),
        (promotion("p", stepped((500, 40), (300, 90))), "/rule/steps/1/threshold", "is not above 500: steps ascend"),
        (promotion("p", stepped((300, 40), (500, 40))), "/rule/steps/1/amount", "is not above 40: steps ascend"),
        (promotion("p", stepped((300, 301))), "/rule/steps/0/amount", "is more than its threshold, which is 300"),
        (promotion("p", RepeatedReduction(100, 101)), "/rule/amount", "is more than its threshold"),
        (promotion("p", MultiBuy(2, 2)), "/rule/paid_units", "must be less than units, which are 2"),
        (promotion("p", MultiBuy(2, 3)), "/rule/paid_units", "must be less than units"),
        (promotion("p", AmountOff(5), kind=PromotionClass.ORDER), "/rule/kind", "which may have stepped, repeated"),
        (promotion("p", stepped((9, 1)), kind=PromotionClass.ITEM), "/rule/kind", "stepped cannot be of class item"),
        (promotion("p", Bundle(9)), "/skus", "a bundle has 2 to 20 SKUs"),
        (promotion("p", Bundle(9), ["cup"]), "/skus", "a bundle has 2 to 20 SKUs"),
        (promotion("p", AmountOff(5), ["cup", "jar"]), "/skus", "jar is not in this sale"),
        (promotion("p", AmountOff(5), ["cup", "cup"]), "/skus", "cup occurs twice"),
        (promotion("p", AmountOff(5), starts_at=NOW, ends_at=NOW), "/ends_at", "is not after starts_at"),
        (promotion("p", AmountOff(301)), "/rule/amount", "is more than the price of tea, 3.00 CNY"),
        (promotion("p", AmountOff(1_000), ["cup"]), "/rule/amount", "is more than the price of cup, 9.99 CNY"),
        (promotion("p", Bundle(1_299), ["cup", "tea"]), "/rule/price", "without it, 12.99 CNY"),
    ],
)
def test_promotion_without_sense_is_refused_at_its_place(choice: Promotion, pointer: str, reason: str) -> None:
    errors = pointers_of(choice)
    assert list(errors) == [pointer]
    assert reason in errors[pointer]


@pytest.mark.parametrize(
    "choice",
    [
        promotion("p", stepped((300, 40), (500, 90))),
        promotion("p", stepped((300, 300))),
        promotion("p", RepeatedReduction(100, 100)),
        promotion("p", MultiBuy(2, 1)),
        promotion("p", AmountOff(300), starts_at=NOW, ends_at=NOW + timedelta(seconds=1)),
        promotion("p", AmountOff(999), ["cup", "pot"], kind=PromotionClass.COUPON),
        promotion("p", Bundle(1_298), ["cup", "tea"]),
        promotion("p", PercentOff(10_000)),
        promotion("p", PercentReduction(10_000), kind=PromotionClass.COUPON),
    ],
)
def test_promotion_at_the_limits_is_allowed(choice: Promotion) -> None:
    assert pointers_of(choice) == {}


@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [
        ("rule", {"kind": "percent_off", "basis_points": 0}, "/rule/basis_points"),
        ("rule", {"kind": "percent_off", "basis_points": 10_001}, "/rule/basis_points"),
        ("rule", {"kind": "percent_off", "basis_points": 12.5}, "/rule/basis_points"),
        ("rule", {"kind": "amount_off", "amount": 0}, "/rule/amount"),
        ("rule", {"kind": "amount_off", "amount": 5, "percent": 5}, "/rule"),
        ("rule", {"kind": "stepped", "steps": []}, "/rule/steps"),
        ("rule", {"kind": "half_price"}, "/rule/kind"),
        ("promotion_class", "voucher", "/promotion_class"),
        ("promotion_id", "Big Sale", "/promotion_id"),
        ("label", " ", "/label"),
        ("skus", [], "/skus"),
        ("starts_at", "2026-11-11T00:00:00", "/starts_at"),
        ("colour", "red", ""),
    ],
)
def test_body_of_another_shape_is_refused_at_its_place(member: str, value: Any, pointer: str) -> None:
    body = {
        "promotion_id": "p",
        "label": "a promotion",
        "promotion_class": "item",
        "rule": {"kind": "amount_off", "amount": 5},
        member: value,
    }
    with pytest.raises(Invalid) as refusal:
        decode_json(msgspec.json.Decoder(PromotionInput), msgspec.json.encode(body))
    assert [error["pointer"] for error in refusal.value.extra["errors"]] == [pointer], refusal.value.detail
