"""Prices of orders with promotions and freight: every part adds up, to the line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.coupons.errors import CouponKeyMissing
from commerce.coupons.issued_codes import IssuedCodes
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.stream_payload import AcceptedOrder, PriceParts, decode_accepted
from commerce.orders.model import LineSplit, OrderLineInput, PlaceOrder, Tender
from commerce.orders.pricing import OrderLimits, price_order
from commerce.promotions.evaluation import compile_promotions
from commerce.promotions.model import PercentOff, Promotion, PromotionClass, RepeatedReduction
from commerce.sales.model import CouponTerms, ItemTerms, Sale, SaleSnapshot, SaleState
from lua import Reservation
from tests.support.freight import template
from tests.support.promotions import NOW_MS, promotion
from tests.support.sales import ADDRESS

LIMITS = OrderLimits(lines=50, addresses=5, payments=3, coupons=2, quantity=1_000)
ITEMS = {"A": ItemTerms(9_900, 3, 12_000, 500), "B": ItemTerms(3_333, 0, 3_333, 120), "C": ItemTerms(1, 0, 2, 0)}
EVERY_300 = promotion("every-300", RepeatedReduction(30_000, 5_000, 3))
FREE = Promotion("all-free", "s", "All free", PromotionClass.COUPON, PercentOff(10_000))
ENDED = Promotion(
    *("ended", "s", "Ended", PromotionClass.COUPON, PercentOff(10_000)), ends_at=datetime(2026, 1, 1, tzinfo=UTC)
)
CODES = IssuedCodes("a key of the tests, which is long enough")
ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def snapshot(*promotions: Promotion, **more: Any) -> SaleSnapshot:
    sale = Sale("s", "A sale", "CNY", SaleState.OPEN, from_ms(0), None, None, 900, 7, 7, 1, 1)
    compiled = compile_promotions(promotions, ITEMS) if promotions else None
    return SaleSnapshot(sale, ITEMS, promotions=compiled, **more)


def order(*lines: tuple[str, int, Any], **more: Any) -> PlaceOrder:
    return PlaceOrder("s", [OrderLineInput(*line) for line in lines], [msgspec.convert(ADDRESS, Address)] * 3, **more)


def price(placed: PlaceOrder, terms: SaleSnapshot) -> tuple[Reservation, AcceptedOrder]:
    reservation = price_order(placed, terms, LIMITS, "user", "key", ID, now_ms=NOW_MS, codes=CODES)
    return reservation, decode_accepted(reservation.payload)


def errors_of(placed: PlaceOrder, terms: SaleSnapshot) -> dict[str, str]:
    with pytest.raises(Invalid) as refusal:
        price(placed, terms)
    return {error["pointer"]: error["detail"] for error in refusal.value.extra["errors"]}


def test_order_without_promotions_and_freight_has_no_parts() -> None:
    reservation, accepted = price(order(("A", 2, 0)), snapshot())
    assert accepted.parts is None
    assert reservation.total_minor == accepted.total_minor == 19_800
    assert [(line.list_price, line.discount) for line in accepted.lines] == [(12_000, 0)]


def test_threshold_reduction_is_shared_to_the_line() -> None:
    split = [LineSplit(0, 1), LineSplit(2, 2)]
    reservation, accepted = price(order(("A", 3, split), ("B", 1, 1)), snapshot(EVERY_300))
    assert reservation.total_minor == 3 * 9_900 + 3_333 - 5_000
    assert accepted.parts is not None
    [discount] = accepted.parts.discounts
    assert (discount.promotion_id, discount.label, discount.amount) == ("every-300", "label of every-300", 5_000)
    assert sum(line.discount for line in accepted.lines) == 5_000
    assert [line.discount for line in accepted.lines] == [1_499, 2_997, 504]


def test_freight_is_charged_by_address_after_discounts() -> None:
    """Each 500 g cost 6.00; delivery is free from 270.00 of products for an address."""
    freight = template(step_g=500, fee_minor=600, free_from_minor=27_000, cod_fee_minor=500)
    terms = snapshot(EVERY_300, freight=freight)
    _, accepted = price(order(("A", 3, 0), ("B", 3, 1)), terms)
    assert accepted.parts is not None
    assert accepted.parts.freight == [3 * 600, 600, 0], "29,700 less its share of 5,000 is below 27,000"
    assert accepted.parts.cod_fee == 0
    total = accepted.total_minor
    _, accepted = price(order(("A", 3, 0), ("B", 3, 1), payments=[Tender("cod", total + 500)]), terms)
    assert accepted.parts is not None
    assert (accepted.parts.cod_fee, accepted.total_minor) == (500, total + 500)
    _, accepted = price(order(("A", 3, 0)), snapshot(freight=freight))
    assert accepted.parts is None, "29,700 is delivered free"


def test_freight_beyond_the_limit_of_amounts_is_refused() -> None:
    """Else an order would be accepted that nobody can pay: no payment may be that large."""
    freight = template(step_g=1, fee_minor=10**10)
    addresses = [msgspec.convert(ADDRESS, Address)] * 3
    lines = [OrderLineInput("A", 800, number) for number in range(3)]
    errors = errors_of(PlaceOrder("s", lines, addresses), snapshot(freight=freight))
    assert errors == {"/lines": f"the total with freight is more than {10**15} minor units: send several orders"}


def test_payments_must_add_up_to_the_total_with_its_parts() -> None:
    errors = errors_of(order(("A", 4, 0), payments=[Tender("alipay", 39_600)]), snapshot(EVERY_300))
    assert errors == {"/payments": "they add up to 39600 and the total is 34600 minor units of CNY"}


def test_coupon_is_a_unit_and_its_promotion_applies() -> None:
    terms = snapshot(FREE, coupons={"GIFT": CouponTerms("all-free", 1, False)})
    reservation, accepted = price(order(("A", 2, 0), coupons=["GIFT"]), terms)
    assert reservation.total_minor == 0
    assert list(reservation.units) == [("A", 2, 3), ("coupon:GIFT", 1, 1)]
    assert accepted.units() == {"A": 2, "coupon:GIFT": 1}
    assert accepted.parts is not None
    assert accepted.parts.coupons == ["GIFT"]
    assert price(order(("A", 2, 0)), terms)[0].total_minor == 19_800, "without the coupon nothing comes off"


@pytest.mark.parametrize(
    ("coupons", "pointer", "detail"),
    [
        (["OTHER"], "/coupons/0", "'OTHER' is no coupon of this sale"),
        (["GIFT", "GIFT"], "/coupons/1", "it occurs twice"),
        (["GIFT", "GIFT", "GIFT"], "/coupons", "more than 2 coupons"),
        (["USELESS"], "/coupons/0", "it takes nothing off this order, so leave it out: its promotion is not in force"),
        (["ENDED"], "/coupons/0", "it takes nothing off this order, so leave it out: ended at 2026-01-01 00:00:00 UTC"),
        (["GIFT", "SAME"], "/coupons/1", "another coupon of the order is for the same promotion"),
        (["ISSUED"], "/coupons/0", "it was issued to another customer, or is not complete"),
        ([CODES.issue("s", "ISSUED", "other")], "/coupons/0", "it was issued to another customer, or is not complete"),
        (["GIFT.ABCDEFGHIJKLMNOPQRST"], "/coupons/0", "'GIFT.ABCDEFGHIJKLMNOPQRST' is no coupon of this sale"),
    ],
)
def test_coupon_that_cannot_be_used_is_refused(coupons: list[str], pointer: str, detail: str) -> None:
    coupons_of_sale = {
        "GIFT": CouponTerms("all-free", 1, False),
        "SAME": CouponTerms("all-free", 1, False),
        "USELESS": CouponTerms("unknown", 1, False),
        "ENDED": CouponTerms("ended", 1, False),
        "ISSUED": CouponTerms("all-free", 1, True),
    }
    terms = snapshot(FREE, ENDED, coupons=coupons_of_sale)
    assert errors_of(order(("A", 1, 0), coupons=coupons), terms) == {pointer: detail}


def test_issued_coupon_is_used_under_its_code_by_its_customer() -> None:
    terms = snapshot(FREE, coupons={"GIFT": CouponTerms("all-free", 2, True)})
    reservation, accepted = price(order(("A", 2, 0), coupons=[CODES.issue("s", "GIFT", "user")]), terms)
    assert list(reservation.units) == [("A", 2, 3), ("coupon:GIFT", 1, 2)]
    assert accepted.parts is not None
    assert accepted.parts.coupons == ["GIFT"]


def test_issued_coupon_without_key_is_not_ready() -> None:
    terms = snapshot(FREE, coupons={"GIFT": CouponTerms("all-free", 2, True)})
    with pytest.raises(CouponKeyMissing):
        price_order(order(("A", 2, 0), coupons=["GIFT.X"]), terms, LIMITS, "user", "key", ID, now_ms=NOW_MS)


def test_address_out_of_reach_is_refused() -> None:
    freight = template(step_g=500, fee_minor=600, country="GB")
    errors = errors_of(order(("A", 1, 1)), snapshot(freight=freight))
    assert list(errors) == ["/ship_to/1"]


def test_body_digest_counts_coupons_and_is_the_old_one_without() -> None:
    terms = snapshot(FREE, coupons={"GIFT": CouponTerms("all-free", 1, False)})
    without, with_coupon = (price(order(("A", 2, 0), coupons=codes), terms)[0] for codes in ([], ["GIFT"]))
    assert without.body_digest != with_coupon.body_digest


lines = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=8)


@given(lines, st.integers(1, 9_999), st.integers(0, 40_000))
def test_parts_of_any_order_add_up(chosen: list[tuple[str, int, int]], percent: int, free_from: int) -> None:
    halves = Promotion("percent", "s", "Percent", PromotionClass.ITEM, PercentOff(percent), ("A", "C"))
    freight = template(step_g=300, fee_minor=350, free_from_minor=free_from or None)
    _, accepted = price(order(*chosen), snapshot(EVERY_300, halves, freight=freight))
    parts = accepted.parts or PriceParts()
    assert all(0 <= line.discount <= line.quantity * line.unit_price for line in accepted.lines)
    assert sum(line.discount for line in accepted.lines) == sum(discount.amount for discount in parts.discounts)
    paid = sum(line.quantity * line.unit_price - line.discount for line in accepted.lines)
    assert accepted.total_minor == paid + sum(parts.freight)
    _, reversed_order = price(order(*reversed(chosen)), snapshot(EVERY_300, halves, freight=freight))
    assert reversed_order.total_minor == accepted.total_minor
