"""P6: grants of refunds by unit, freight, fee and amount: never more than was paid."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.errors import Invalid
from commerce.orders.store import list_events
from commerce.payments.errors import RefundExceedsCaptured
from commerce.refunds.allocation import OpenPayment
from commerce.refunds.errors import FreightRefunded, UnitsRefunded
from commerce.refunds.model import Grant, GrantLine, GrantRequest
from commerce.refunds.valuation import RefundableLine, RefundableOrder, value_grant
from ops.services import CliServices
from tests.support.refund_orders import LineOfOrder, RefundOrders


@pytest.fixture
def refunds(shop: CliServices) -> RefundOrders:
    return RefundOrders(shop)


def units(quantity: int, line_no: int = 0, address_no: int = 0) -> list[GrantLine]:
    return [GrantLine(line_no, address_no, quantity)]


# Complaints about other shops, each as a test.


async def test_discounted_units_come_back_at_the_price_paid(refunds: RefundOrders) -> None:
    """Not at the list price, and the discount of the line is neither left out nor counted twice."""
    order_id = await refunds.add([LineOfOrder(3, 1_000, discount=500)], [("alipay", 2_500)])
    amounts = [(await refunds.grant(order_id, lines=units(1))).amount for _ in range(3)]
    assert (amounts, sum(amounts)) == ([833, 833, 834], 2_500)
    assert await refunds.refunded(order_id) == {"alipay": 2_500}


async def test_units_are_refunded_once_over_all_kinds(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(3, 100), LineOfOrder(2, 50, line_no=1)], [("alipay", 400)])
    await refunds.grant(order_id, lines=units(2))
    await refunds.grant(order_id, kind="cancellation", lines=units(1))
    for kind in ("case", "cancellation", "staff"):
        with pytest.raises(UnitsRefunded, match="3 of 3 are refunded, so 0 are left"):
            await refunds.grant(order_id, kind=kind, lines=units(1))
    with pytest.raises(UnitsRefunded):
        await refunds.grant(order_id, lines=units(3, line_no=1))
    assert await refunds.refunded(order_id) == {"alipay": 300}


async def test_same_line_for_two_addresses_is_refunded_apart(refunds: RefundOrders) -> None:
    lines = [LineOfOrder(2, 100, discount=1), LineOfOrder(3, 100, discount=2, address_no=1)]
    order_id = await refunds.add(lines, [("alipay", 497)])
    granted = await refunds.grant(order_id, lines=[*units(1), *units(2, address_no=1)])
    assert [(line.ship_to, line.first_unit, line.quantity, line.amount) for line in granted.lines] == [
        (0, 0, 1, 99),
        (1, 0, 2, 198),
    ]
    granted = await refunds.grant(order_id, lines=[*units(1), *units(1, address_no=1)])
    assert [(line.first_unit, line.amount) for line in granted.lines] == [(1, 100), (2, 100)]


async def test_freight_comes_back_once(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 215)], freight=12, cod_fee=3)
    assert (await refunds.grant(order_id, lines=units(1), freight="rest")).amount == 115
    assert (await refunds.grant(order_id, lines=units(1), freight="rest")).freight == 0
    with pytest.raises(FreightRefunded, match="0 are left"):
        await refunds.grant(order_id, freight=1)
    assert await refunds.refunded(order_id) == {"alipay": 215}


async def test_freight_of_order_that_was_not_shipped_comes_with_its_last_units(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 212)], freight=12)
    first, last = [await refunds.grant(order_id, lines=units(1), freight="unshipped") for _ in range(2)]
    assert (first.amount, first.freight, last.amount, last.freight) == (100, 0, 112, 12)


async def test_fee_is_withheld_and_never_exceeds_the_refund(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 210)], freight=10)
    granted = await refunds.grant(order_id, lines=units(1), fee_minor=15)
    assert (granted.amount, granted.fee) == (85, 15)
    with pytest.raises(Invalid, match=r"withhold 1\.10 CNY or less"):
        await refunds.grant(order_id, lines=units(1), freight="rest", fee_minor=111)
    granted = await refunds.grant(order_id, lines=units(1), freight="rest", fee_minor=110)
    assert (granted.amount, granted.allocations) == (0, [])
    assert await refunds.refunded(order_id) == {"alipay": 85}


async def test_money_without_units_leaves_the_units(refunds: RefundOrders) -> None:
    """An amount for a late delivery is booked on no line, and a later return gets the rest."""
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 200)])
    assert (await refunds.grant(order_id, amount_override=30)).lines == []
    granted = await refunds.grant(order_id, lines=units(2))
    assert (granted.amount, granted.fee, granted.lines[0].amount) == (170, 30, 200)
    for amount in (1, 500):
        with pytest.raises(RefundExceedsCaptured, match="0 minor units are captured"):
            await refunds.grant(order_id, amount_override=amount)


async def test_agreed_amount_of_units_is_less_than_their_value(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 200)])
    with pytest.raises(Invalid, match=r"1\.00 CNY was paid for these units"):
        await refunds.grant(order_id, lines=units(1), amount_override=101)
    granted = await refunds.grant(order_id, lines=units(1), amount_override=40)
    assert (granted.amount, granted.fee) == (40, 60)
    assert (await refunds.grant(order_id, lines=units(1), amount_override=0)).amount == 0
    assert await refunds.refunded(order_id) == {"alipay": 40}


async def test_money_returns_by_the_ways_it_came(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(4, 100)], [("balance", 100), ("alipay", 200), ("wechatpay", 100)])
    granted = await refunds.grant(order_id, lines=units(2))
    assert [(part.method, part.amount, part.goes_to) for part in granted.allocations] == [
        ("balance", 50, "store_credit"),
        ("alipay", 100, "provider"),
        ("wechatpay", 50, "provider"),
    ]
    assert (await refunds.shop.payments.get_store_credit("user")).balances[0].amount == 50
    await refunds.grant(order_id, lines=units(1), strategy="last")
    await refunds.grant(order_id, lines=units(1), strategy="first")
    assert await refunds.refunded(order_id) == {"balance": 100, "alipay": 200, "wechatpay": 100}


# Cash on delivery.


async def test_cash_not_collected_is_not_paid_back(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(4, 100)], [("alipay", 250), ("cod", 150)])
    with pytest.raises(RefundExceedsCaptured, match="150 are to be paid on delivery"):
        await refunds.grant(order_id, kind="staff", lines=units(3))
    granted = await refunds.grant(order_id, kind="cancellation", lines=units(1))
    assert [(part.method, part.amount, part.goes_to) for part in granted.allocations] == [("cod", 100, "not_collected")]
    granted = await refunds.grant(order_id, kind="cancellation", lines=units(1))
    assert [(part.method, part.amount, part.goes_to) for part in granted.allocations] == [
        ("cod", 50, "not_collected"),
        ("alipay", 50, "provider"),
    ]
    assert await refunds.refunded(order_id) == {"alipay": 50}
    granted = await refunds.grant(order_id, kind="cancellation", lines=units(2))
    assert await refunds.refunded(order_id) == {"alipay": 250}


async def test_cash_that_was_collected_is_store_credit(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("cod", 200)])
    await refunds.collect_cash(order_id)
    granted = await refunds.grant(order_id, lines=units(1))
    assert [(part.method, part.amount, part.goes_to) for part in granted.allocations] == [("cod", 100, "store_credit")]
    assert (await refunds.shop.payments.get_store_credit("user")).balances[0].amount == 100


# Repeats, previews, bad input.


async def test_grant_of_a_source_is_stored_once(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 150), ("balance", 50)])
    source = uuid4()
    wish: dict[str, Any] = {"source_id": source, "lines": units(1)}
    first = await refunds.grant(order_id, **wish)
    assert await refunds.grant(order_id, **wish) == first
    assert await refunds.grant(order_id, **{**wish, "lines": units(2)}) == first, "the source has its grant"
    assert (await refunds.grant(order_id, **wish, kind="cancellation")).grant_id != first.grant_id
    assert await refunds.refunded(order_id) == {"alipay": 150, "balance": 50}


async def test_racing_grants_refund_each_unit_once(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(5, 99)], [("alipay", 495)])
    results = await asyncio.gather(
        *(refunds.grant(order_id, lines=units(2), source_id=uuid4()) for _ in range(8)), return_exceptions=True
    )
    assert Counter(type(result) for result in results) == {Grant: 2, UnitsRefunded: 6}
    assert await refunds.refunded(order_id) == {"alipay": 396}


async def test_preview_equals_the_grant_and_stores_nothing(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(3, 100, discount=1)], [("alipay", 200), ("balance", 104)], freight=5)
    wish: dict[str, Any] = {"lines": units(2), "freight": "rest", "fee_minor": 7, "strategy": "last"}
    shown = await refunds.preview(order_id, **wish)
    assert await refunds.fetch("SELECT 1 FROM refund_grants UNION ALL SELECT 1 FROM refunds") == []
    granted = await refunds.grant(order_id, **wish)
    assert (shown.grant_id, granted.grant_id is None) == (None, False)
    assert (shown.amount, shown.lines, shown.allocations) == (granted.amount, granted.lines, granted.allocations)
    [stored] = await refunds.fetch("SELECT amount_minor, freight_minor, fee_minor, strategy FROM refund_grants")
    assert stored == (granted.amount, 5, 7, "last")


async def test_order_of_zero_makes_a_grant_without_refunds(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100, discount=200)], [])
    assert (await refunds.grant(order_id, kind="cancellation", lines=units(2), freight="unshipped")).amount == 0
    assert await refunds.refunded(order_id) == {}
    assert await refunds.fetch("SELECT quantity, amount_minor FROM refund_grant_lines") == [(2, 0)]
    assert await refunds.fetch("SELECT 1 FROM order_events WHERE kind = 'refund'") == []


async def test_grant_is_in_the_story_of_the_order(refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 150), ("cod", 50)])
    granted = await refunds.grant(order_id, kind="cancellation", lines=units(1), reason="it was lost")
    async with refunds.shop.db.connection() as connection:
        event = (await list_events(connection, order_id))[-1]
    assert (event.kind, event.status) == ("refund", "confirmed")
    assert event.reason == "0.50 CNY is being refunded, 0.50 CNY less is due on delivery: it was lost"
    assert event.details == {"grant_id": str(granted.grant_id), "amount": 100, "currency": "CNY"}


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (units(1, line_no=7), "no line 7 for address 0"),
        (units(1, address_no=1), "no line 0 for address 1"),
        ([*units(1), *units(1)], "named twice"),
    ],
)
async def test_unknown_lines_are_refused(refunds: RefundOrders, lines: list[GrantLine], match: str) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 200)])
    with pytest.raises(Invalid, match=match):
        await refunds.grant(order_id, lines=lines)
    with pytest.raises(UnitsRefunded):
        await refunds.grant(order_id, lines=units(0))


# Parts and the whole.

_LINES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3_000), st.integers(0, 100)), min_size=1, max_size=5)


@given(_LINES, st.integers(0, 2_000), st.lists(st.integers(0, 100), max_size=3), st.data())
def test_refunds_of_parts_are_one_refund_of_the_whole(
    shape: list[tuple[int, int, int]], freight: int, weights: list[int], data: st.DataObject
) -> None:
    """Over lines, discounts, addresses, payments and strategies, whatever the sequence of the units."""
    lines = [
        RefundableLine(number // 2, number % 2, quantity, quantity * price * percent // 100, 0)
        for number, (quantity, price, percent) in enumerate(shape)
    ]
    total = sum(line.paid_minor for line in lines) + freight
    cuts = sorted(weight * total // 100 for weight in weights)
    amounts = [high - low for low, high in zip([0, *cuts], [*cuts, total], strict=True)]
    methods = data.draw(st.lists(st.sampled_from(["alipay", "wechatpay", "balance", "cod"]), min_size=4, max_size=4))
    collected = data.draw(st.lists(st.booleans(), min_size=4, max_size=4))
    payments = [
        OpenPayment(UUID(int=number), method, amount, is_collected or method != "cod")
        for number, (method, amount, is_collected) in enumerate(zip(methods, amounts, collected, strict=False))
    ]
    order = RefundableOrder(UUID(int=0), "CNY", lines, freight, False, payments)
    request = GrantRequest("case", None, "r", "test", freight="unshipped")
    whole = value_grant(order, request._replace(lines="rest"))
    assert whole.amount == total
    sequence = data.draw(st.permutations([line[:2] for line in lines for _ in range(line.quantity)]))
    refunded = Counter[UUID]()
    while sequence:
        count = data.draw(st.integers(1, len(sequence)))
        part, sequence = Counter(sequence[:count]), sequence[count:]
        wanted = [GrantLine(*place, quantity) for place, quantity in part.items()]
        strategy = data.draw(st.sampled_from(["ratio", "first", "last"]))
        granted = value_grant(order, request._replace(lines=wanted, strategy=strategy))
        assert granted.fee == 0
        refunded.update({item.payment_id: item.amount for item in granted.allocations})
        order = order._replace(
            lines=[line._replace(refunded_units=line.refunded_units + part[line[:2]]) for line in order.lines],
            freight_minor=order.freight_minor - granted.freight,
            payments=[
                payment._replace(
                    remaining_minor=payment.remaining_minor
                    - sum(item.amount for item in granted.allocations if item.payment_id == payment.payment_id)
                )
                for payment in order.payments
            ],
        )
    assert refunded == Counter({part.payment_id: part.amount for part in whole.allocations})
    assert order.freight_minor == 0
