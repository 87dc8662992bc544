"""Explanations: what is applied adds up to the discount, and what is not has its reason with numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from commerce.kernel.clock import from_ms
from commerce.promotions.explanation import explain
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    Explanation,
    MultiBuy,
    PercentOff,
    PercentReduction,
    Promotion,
    PromotionClass,
    RepeatedReduction,
)
from tests.support.promotions import NOW_MS, Case, cases, compiled, promotion, stepped

PRICES = {"cup": 999, "tea": 300, "pot": 5_000}
NOW = from_ms(NOW_MS)
COUPON = PromotionClass.COUPON


def explain_all(promotions: list[Promotion], units: dict[str, int], *coupons: str) -> dict[str, Explanation]:
    explanations = explain(compiled(promotions, PRICES), units, coupons, False, NOW_MS, "CNY")
    return {explanation.promotion_id: explanation for explanation in explanations}


@given(cases())
def test_applied_promotions_add_up_to_the_discount(case: Case) -> None:
    offered = compiled(case.promotions, case.prices)
    explanations = explain(offered, case.units, case.coupons, case.is_new, NOW_MS, "CNY")
    evaluation = offered.evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    assert {e.promotion_id: e.amount for e in explanations if e.code == "applied"} == {
        discount.promotion_id: discount.amount for discount in evaluation.discounts
    }
    assert len(explanations) == len(case.promotions)
    for explanation in explanations:
        assert explanation.message
        if explanation.code == "excluded":
            assert explanation.amount
            assert explanation.instead
            assert explanation.promotion_id not in explanation.instead


@pytest.mark.parametrize(
    ("choice", "units", "code", "message", "numbers"),
    [
        (promotion("p", AmountOff(9)), {"cup": 2}, "applied", "0.18 CNY off", {"amount": 18}),
        (
            promotion("p", stepped((1_000, 100), (2_000, 300))),
            {"tea": 3},
            "below_threshold",
            "1.00 CNY more and 1.00 CNY come off",
            {"missing_amount": 100, "next_amount": 100},
        ),
        (
            promotion("p", stepped((1_000, 100), (2_000, 300))),
            {"tea": 4},
            "applied",
            "1.00 CNY off; 8.00 CNY more and 3.00 CNY come off",
            {"amount": 100, "missing_amount": 800, "next_amount": 300},
        ),
        (
            promotion("p", RepeatedReduction(1_000, 100, 2)),
            {"tea": 4},
            "applied",
            "1.00 CNY off; 8.00 CNY more and 2.00 CNY come off",
            {"amount": 100, "missing_amount": 800, "next_amount": 200},
        ),
        (promotion("p", RepeatedReduction(1_000, 100, 2)), {"tea": 7}, "applied", "2.00 CNY off", {"amount": 200}),
        (
            promotion("p", PercentReduction(1_000, 1_000)),
            {"tea": 3},
            "below_threshold",
            "1.00 CNY more and 1.00 CNY come off",
            {"missing_amount": 100, "next_amount": 100},
        ),
        (
            promotion("p", MultiBuy(3, 2)),
            {"tea": 1},
            "too_few_units",
            "2 more of its items and 1 is free",
            {"missing_units": 2},
        ),
        (
            promotion("p", Bundle(1_000), ["cup", "pot", "tea"]),
            {"tea": 1},
            "too_few_units",
            "cup, pot belong to it too",
            {"missing_units": 2, "missing_skus": ["cup", "pot"]},
        ),
        (promotion("p", Bundle(9_000), ["cup", "tea"]), {"tea": 1, "cup": 1}, "no_effect", "its items already", {}),
        (promotion("p", PercentOff(1)), {"tea": 1}, "no_effect", "its items already", {}),
        (promotion("p", AmountOff(9), ["pot"]), {"cup": 1}, "not_in_order", "none of its items are in the order", {}),
        (promotion("p", AmountOff(9), new_customers_only=True), {"cup": 1}, "new_customers_only", "for new", {}),
        (promotion("p", AmountOff(9), kind=COUPON), {"cup": 1}, "needs_coupon", "needs a coupon", {}),
        (promotion("p", AmountOff(9), enabled=False), {"cup": 1}, "disabled", "disabled by staff", {}),
        (
            promotion("p", AmountOff(9), starts_at=NOW + timedelta(hours=1)),
            {"cup": 1},
            "not_started",
            "begins at 2027-01-15 09:00:00 UTC",
            {"moment": NOW + timedelta(hours=1)},
        ),
        (promotion("p", AmountOff(9), ends_at=NOW), {"cup": 1}, "ended", "ended at 2027-01-15 08", {"moment": NOW}),
    ],
)
def test_each_reason_has_its_code_words_and_numbers(
    choice: Promotion, units: dict[str, int], code: str, message: str, numbers: dict[str, Any]
) -> None:
    explanation = explain_all([choice], units)["p"]
    assert (explanation.code, explanation.message.startswith(message)) == (code, True), explanation
    defaults = Explanation("", "", PromotionClass.ITEM, "applied", "")
    assert {
        name: value
        for name in Explanation.__struct_fields__[5:]
        if (value := getattr(explanation, name)) != getattr(defaults, name)
    } == numbers


def test_promotion_that_another_one_excludes_names_it() -> None:
    promotions = [
        promotion("cups", stepped((900, 90)), ["cup"]),
        promotion("teas", stepped((300, 70)), ["tea"]),
        promotion("all", stepped((1_000, 150))),
    ]
    explanation = explain_all(promotions, {"cup": 1, "tea": 1})["all"]
    assert (explanation.code, explanation.amount, explanation.instead) == ("excluded", 150, ["cups", "teas"])
    assert explanation.message == "another promotion of its class is better than 1.50 CNY off"


def test_threshold_is_measured_after_earlier_classes() -> None:
    promotions = [promotion("half", PercentOff(5_000)), promotion("step", stepped((1_000, 100)))]
    explanation = explain_all(promotions, {"cup": 1, "tea": 2})["step"]
    assert (explanation.code, explanation.missing_amount) == ("below_threshold", 1_000 - 500 + 1 - 300)
