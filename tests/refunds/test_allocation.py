"""Allocation over payments: exact, and never more than a payment holds."""

from __future__ import annotations

from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.orders.model import Method
from commerce.refunds.allocation import OpenPayment, allocate
from commerce.refunds.model import Strategy

METHODS: tuple[Method, ...] = get_args(Method)


def payments(*held: tuple[Method, int]) -> list[OpenPayment]:
    return [OpenPayment(UUID(int=number), method, minor) for number, (method, minor) in enumerate(held)]


def amounts(amount: int, strategy: Strategy, *held: tuple[Method, int]) -> list[int]:
    """Return the part of each payment, in the order of the tenders."""
    parts = {part.payment_id: part.amount for part in allocate(amount, payments(*held), strategy)}
    return [parts.get(UUID(int=number), 0) for number in range(len(held))]


def test_strategies_divide_as_they_say() -> None:
    held: tuple[tuple[Method, int], ...] = (("balance", 30), ("alipay", 50), ("wechatpay", 20))
    assert amounts(45, "first", *held) == [30, 15, 0]
    assert amounts(45, "last", *held) == [0, 25, 20]
    assert amounts(50, "ratio", *held) == [15, 25, 10]
    for strategy in get_args(Strategy):
        assert amounts(100, strategy, *held) == [30, 50, 20]
        assert amounts(0, strategy, *held) == [0, 0, 0]


def test_remainder_goes_to_providers_before_store_credit() -> None:
    assert amounts(1, "ratio", ("balance", 99), ("alipay", 1)) == [0, 1]
    assert amounts(50, "ratio", ("balance", 33), ("cod", 33), ("alipay", 33)) == [17, 16, 17]
    assert amounts(10, "ratio", ("alipay", 10), ("wechatpay", 20)) == [3, 7]


def test_parts_say_where_the_money_goes() -> None:
    held = payments(("alipay", 10), ("balance", 10), ("cod", 10))
    due = OpenPayment(UUID(int=9), "cod", 5, is_collected=False)
    parts = allocate(35, [*held, due], "ratio")
    assert [(part.method, part.amount, part.goes_to) for part in parts] == [
        ("cod", 5, "not_collected"),
        ("alipay", 10, "provider"),
        ("balance", 10, "store_credit"),
        ("cod", 10, "store_credit"),
    ]
    [part] = allocate(4, [*held, due], "last")
    assert part.goes_to == "not_collected", "nobody pays on delivery and is paid back"


def test_more_than_the_payments_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="hold less than 11"):
        allocate(11, payments(("alipay", 10)), "ratio")


@given(
    st.lists(st.tuples(st.sampled_from(METHODS), st.integers(0, 10**15), st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 10**16), st.sampled_from(get_args(Strategy))), max_size=6),
)
def test_any_sequence_of_refunds_ends_where_one_full_refund_does(
    held: list[tuple[Method, int, bool]], steps: list[tuple[int, Strategy]]
) -> None:
    """No part exceeds its payment, each step adds up, and after the last one every payment is empty."""
    left = [
        OpenPayment(UUID(int=number), method, minor, is_collected)
        for number, (method, minor, is_collected) in enumerate(held)
    ]
    for wanted, strategy in [*steps, (10**17, "ratio")]:
        amount = min(wanted, sum(payment.remaining_minor for payment in left))
        parts = {part.payment_id: part.amount for part in allocate(amount, left, strategy)}
        assert sum(parts.values()) == amount
        left = [
            payment._replace(remaining_minor=payment.remaining_minor - parts.get(payment.payment_id, 0))
            for payment in left
        ]
        assert min([0, *(payment.remaining_minor for payment in left)]) == 0
    assert sum(payment.remaining_minor for payment in left) == 0
