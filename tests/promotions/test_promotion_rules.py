"""Each rule by examples in plain words, the order of the classes, and the conditions of a promotion."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from commerce.kernel.clock import from_ms
from commerce.promotions.evaluation import compile_promotions
from commerce.promotions.model import (
    NO_DISCOUNTS,
    AmountOff,
    Bundle,
    MultiBuy,
    PercentOff,
    PercentReduction,
    PromotionClass,
    RepeatedReduction,
    Rule,
)
from tests.support.promotions import NOW_MS, compiled, evaluate, promotion, stepped

COUPON, ORDER = PromotionClass.COUPON, PromotionClass.ORDER
PRICES = {"cup": 999, "tea": 300, "pot": 5_000}


@pytest.mark.parametrize(
    ("rule", "units", "by_sku"),
    [
        # A fifth off 9.99 is 1.998, so a cup costs 7.99, and three cost three times that.
        pytest.param(PercentOff(2_000), {"cup": 3}, {"cup": 600}, id="percentage per unit"),
        pytest.param(PercentOff(1), {"tea": 1}, {}, id="percentage that rounds to nothing"),
        pytest.param(PercentOff(50), {"tea": 1}, {"tea": 2}, id="half a penny rounded in favour of the customer"),
        pytest.param(AmountOff(50), {"cup": 2, "tea": 1}, {"cup": 100, "tea": 50}, id="amount per unit"),
        pytest.param(AmountOff(400), {"tea": 2}, {"tea": 600}, id="amount larger than the price"),
        pytest.param(MultiBuy(3, 2), {"tea": 3}, {"tea": 300}, id="three for two"),
        pytest.param(MultiBuy(3, 2), {"tea": 2, "cup": 1}, {"tea": 300}, id="three for two over two SKUs"),
        # The first three are cups, so one of them is free; of the others tea is the cheapest.
        pytest.param(MultiBuy(3, 2), {"tea": 2, "cup": 4}, {"tea": 300, "cup": 999}, id="dearest units first"),
        pytest.param(MultiBuy(3, 2), {"tea": 2}, {}, id="three for two with too few"),
        pytest.param(MultiBuy(5, 2), {"tea": 13}, {"tea": 1_800}, id="five for two, two groups and three units"),
        pytest.param(stepped((1_000, 100), (2_000, 300)), {"tea": 3}, {}, id="step not reached"),
        pytest.param(stepped((900, 100), (2_000, 300)), {"tea": 3}, {"tea": 100}, id="step exactly reached"),
        pytest.param(stepped((1_000, 100), (2_000, 300)), {"tea": 9}, {"tea": 300}, id="highest step"),
        pytest.param(RepeatedReduction(700, 100, 2), {"tea": 5}, {"tea": 200}, id="every 7.00 less 1.00"),
        pytest.param(RepeatedReduction(700, 100, 2), {"tea": 50}, {"tea": 200}, id="at most twice"),
        pytest.param(RepeatedReduction(700, 100), {"tea": 50}, {"tea": 2_100}, id="without maximum"),
        pytest.param(PercentReduction(1_000, 900), {"tea": 3}, {"tea": 90}, id="percentage from a threshold"),
        pytest.param(PercentReduction(1_000, 901), {"tea": 3}, {}, id="percentage below the threshold"),
        # 20 % of 12.99 is 2.598, so 2.60: 1.9995 for the cup and 0.6005 for the tea.
        pytest.param(PercentReduction(2_000), {"tea": 1, "cup": 1}, {"cup": 200, "tea": 60}, id="percentage of all"),
    ],
)
def test_rule_alone_takes_off_the_stated_amounts(rule: Rule, units: dict[str, int], by_sku: dict[str, int]) -> None:
    evaluation = evaluate([promotion("p", rule)], PRICES, units)
    assert evaluation.by_sku == by_sku
    assert evaluation.amount == sum(by_sku.values())


def test_bundle_is_applied_as_often_as_all_of_its_skus_are_there() -> None:
    bundle = promotion("tea-set", Bundle(1_000), ["cup", "tea"])
    assert evaluate([bundle], PRICES, {"cup": 2, "pot": 1}) == NO_DISCOUNTS
    # A cup and a tea cost 12.99, in the bundle 10.00; twice that is 5.98, shared by price.
    evaluation = evaluate([bundle], PRICES, {"cup": 2, "tea": 3, "pot": 1})
    assert evaluation.by_sku == {"cup": 460, "tea": 138}
    assert evaluate([promotion("dear", Bundle(1_300), ["cup", "tea"])], PRICES, {"cup": 1, "tea": 1}).amount == 0


def test_later_class_sees_prices_after_earlier_ones() -> None:
    promotions = [
        promotion("coupon-20", stepped((1_000, 20)), kind=COUPON),
        promotion("1000-less-100", stepped((1_000, 100))),
        promotion("three-for-two", MultiBuy(3, 2), ["tea"]),
        promotion("tea-half", PercentOff(5_000), ["tea"]),
    ]
    # Three teas at 3.00 cost 1.50 each, of which one is free, so 3.00; with a cup 12.99; with the step 11.99.
    evaluation = evaluate(promotions, PRICES, {"tea": 3, "cup": 1}, ["coupon-20"])
    assert [(discount.promotion_id, discount.amount) for discount in evaluation.discounts] == [
        ("tea-half", 450),
        ("three-for-two", 150),
        ("1000-less-100", 100),
        ("coupon-20", 20),
    ]
    # Without the cup 3.00 are left: no threshold is reached, though the list price is 9.00.
    assert evaluate(promotions, PRICES, {"tea": 3}, ["coupon-20"]).amount == 600


def test_item_promotions_are_chosen_for_each_sku() -> None:
    promotions = [promotion("all-10", PercentOff(1_000)), promotion("cup-20", PercentOff(2_000), ["cup"])]
    evaluation = evaluate(promotions, PRICES, {"cup": 1, "tea": 1})
    assert {discount.promotion_id: discount.by_sku for discount in evaluation.discounts} == {
        "all-10": {"tea": 30},
        "cup-20": {"cup": 200},
    }


def test_order_promotions_of_common_skus_exclude_each_other() -> None:
    promotions = [
        promotion("all", stepped((1_000, 150))),
        promotion("cups", stepped((900, 90)), ["cup"]),
        promotion("teas", stepped((300, 70)), ["tea"]),
    ]
    both = evaluate(promotions, PRICES, {"cup": 1, "tea": 1})
    assert [discount.promotion_id for discount in both.discounts] == ["cups", "teas"]
    assert [d.promotion_id for d in evaluate(promotions, PRICES, {"cup": 1, "pot": 1}).discounts] == ["all"]


def test_equal_promotions_are_chosen_by_id() -> None:
    promotions = [promotion(name, stepped((100, 10))) for name in ("b", "a", "c")]
    assert [discount.promotion_id for discount in evaluate(promotions, PRICES, {"cup": 1}).discounts] == ["a"]


def test_coupon_promotion_needs_its_coupon_and_unknown_coupons_do_nothing() -> None:
    promotions = [promotion("ten", stepped((100, 10)), kind=COUPON), promotion("five", stepped((100, 5)), kind=COUPON)]
    offered = compiled(promotions, PRICES)
    assert offered.evaluate({"cup": 1}, (), False, NOW_MS) is NO_DISCOUNTS
    assert offered.evaluate({"cup": 1}, ["other"], False, NOW_MS) is NO_DISCOUNTS
    assert offered.evaluate({"cup": 1}, ["five", "other"], False, NOW_MS).amount == 5
    assert offered.evaluate({"cup": 1}, {"five", "ten"}, False, NOW_MS).amount == 10  # coupons do not stack


def test_promotion_for_new_customers_is_theirs_alone() -> None:
    offered = compiled([promotion("welcome", AmountOff(100), new_customers_only=True)], PRICES)
    assert offered.evaluate({"cup": 1}, (), True, NOW_MS).amount == 100
    assert offered.evaluate({"cup": 1}, (), False, NOW_MS).amount == 0


def test_promotion_is_in_force_from_its_start_until_before_its_end() -> None:
    start = from_ms(NOW_MS)
    offered = compiled([promotion("hour", AmountOff(9), starts_at=start, ends_at=start + timedelta(hours=1))], PRICES)
    amounts = {
        offset_ms: offered.evaluate({"cup": 1}, (), False, NOW_MS + offset_ms).amount
        for offset_ms in (-1, 0, 3_599_999, 3_600_000)
    }
    assert amounts == {-1: 0, 0: 9, 3_599_999: 9, 3_600_000: 0}


def test_disabled_promotion_does_nothing() -> None:
    assert evaluate([promotion("off", AmountOff(9), enabled=False)], PRICES, {"cup": 1}) is NO_DISCOUNTS


def test_equal_orders_share_one_evaluation_and_new_prices_have_their_own() -> None:
    offered = compiled([promotion("half", PercentOff(5_000))], PRICES)
    first = offered.evaluate({"cup": 1, "tea": 2}, (), False, NOW_MS)
    assert offered.evaluate({"tea": 2, "cup": 1}, ["nothing"], True, NOW_MS + 5) is first
    assert offered.with_items({"cup": (10,), "tea": (20,)}).evaluate({"cup": 1}, (), False, NOW_MS).amount == 5


def test_memory_of_evaluations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commerce.promotions.evaluation._MAX_REMEMBERED", 3)
    offered = compiled([promotion("half", AmountOff(1))], PRICES)
    assert [offered.evaluate({"cup": count}, (), False, NOW_MS).amount for count in range(1, 9)] == [*range(1, 9)]
    assert len(offered._remembered) <= 3


@pytest.mark.parametrize(
    ("rule", "kind"),
    [(stepped((100, 10)), PromotionClass.ITEM), (AmountOff(1), ORDER), (MultiBuy(3, 2), ORDER)],
)
def test_rule_in_a_class_that_may_not_have_it_is_refused(rule: Rule, kind: PromotionClass) -> None:
    with pytest.raises(ValueError, match=f"cannot use promotion p: class {kind} may not have its rule"):
        compile_promotions([promotion("p", rule, kind=kind)], {})


def test_id_that_occurs_twice_is_refused() -> None:
    twice = [promotion("p", AmountOff(1)), promotion("p", AmountOff(2))]
    with pytest.raises(ValueError, match="an id occurs twice"):
        compile_promotions(twice, {})


def test_window_of_a_zone_is_compared_as_a_moment() -> None:
    end = datetime(2026, 11, 12, tzinfo=UTC)
    offered = compiled([promotion("day", AmountOff(9), ends_at=end)], PRICES)
    before, at = (offered.evaluate({"cup": 1}, (), False, int(end.timestamp() * 1000) - ms).amount for ms in (1, 0))
    assert (before, at) == (9, 0)
