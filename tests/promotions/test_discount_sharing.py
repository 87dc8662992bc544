"""Shares of discounts: every way of taking an order apart adds up to the whole, to the minor unit."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.stream_payload import AcceptedLine
from commerce.promotions.sharing import share, share_to_lines
from commerce.refunds.shares import unit_share
from tests.support.promotions import NOW_MS, Case, cases, compiled


class LinePart(NamedTuple):
    """Units of a line: its number, the first unit and how many."""

    line_no: int
    first: int
    count: int


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=8), st.data())
def test_shares_add_up_and_none_is_more_than_its_weight(weights: list[int], data: st.DataObject) -> None:
    amount = data.draw(st.integers(0, sum(weights)))
    shares = share(amount, weights)
    assert sum(shares) == amount
    assert all(0 <= part <= weight for part, weight in zip(shares, weights, strict=True))


def test_largest_remainder_gets_the_rest() -> None:
    assert share(100, [1, 1, 1]) == [34, 33, 33]
    assert share(10, [2, 5, 1]) == [3, 6, 1]  # 2.5, 6.25 and 1.25
    assert share(0, [0, 0]) == [0, 0]
    with pytest.raises(ValueError, match="all weights are 0"):
        share(1, [0, 0])


def split_lines(data: st.DataObject, case: Case) -> list[AcceptedLine]:
    """Spread the units of an order over lines and addresses, in any sequence."""
    parts = []
    for sku, count in case.units.items():
        cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=3))) if count > 1 else []
        bounds = [0, *cuts, count]
        parts += [(sku, last - first) for first, last in pairwise(bounds)]
    parts = data.draw(st.permutations(parts))
    addresses = data.draw(st.lists(st.integers(0, 2), min_size=len(parts), max_size=len(parts)))
    return [
        AcceptedLine(number, address, sku, quantity, case.prices[sku])
        for number, ((sku, quantity), address) in enumerate(zip(parts, addresses, strict=True))
    ]


@given(cases(), st.data())
def test_discounts_of_lines_and_units_add_up_to_the_discount_of_the_order(case: Case, data: st.DataObject) -> None:
    evaluation = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    lines = split_lines(data, case)
    discounts = share_to_lines(lines, evaluation.by_sku)
    assert sum(discounts) == evaluation.amount
    taken_apart = 0
    for line, discount in zip(lines, discounts, strict=True):
        assert 0 <= discount <= line.quantity * line.unit_price
        units = [unit_share(discount, line.quantity, unit, 1) for unit in range(line.quantity)]
        assert all(0 <= amount <= line.unit_price for amount in units)
        cut = data.draw(st.integers(0, line.quantity))
        taken_apart += unit_share(discount, line.quantity, 0, cut) + sum(units[cut:])
    assert taken_apart == evaluation.amount


@given(cases(), st.data())
def test_sequence_of_lines_changes_no_discount(case: Case, data: st.DataObject) -> None:
    evaluation = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    lines = split_lines(data, case)
    other_lines = data.draw(st.permutations(lines))
    renumbered = [
        AcceptedLine(number, line.address_no, line.sku, line.quantity, line.unit_price)
        for number, line in enumerate(other_lines)
    ]

    def discounted(sequence: list[AcceptedLine]) -> list[tuple[str, int, int, int]]:
        shares = share_to_lines(sequence, evaluation.by_sku)
        return sorted(
            (line.sku, line.address_no, line.quantity, discount)
            for line, discount in zip(sequence, shares, strict=True)
        )

    assert discounted(lines) == discounted(renumbered)


@given(cases(), st.data())
def test_units_returned_in_parts_are_refunded_as_all_at_once(case: Case, data: st.DataObject) -> None:
    """No return refunds the list price, and several of them count no discount twice."""
    evaluation = compiled(case.promotions, case.prices).evaluate(case.units, case.coupons, case.is_new, NOW_MS)
    lines = split_lines(data, case)
    paid = {
        line.line_no: line.quantity * line.unit_price - discount
        for line, discount in zip(lines, share_to_lines(lines, evaluation.by_sku), strict=True)
    }
    returns = [
        LinePart(line.line_no, first, count)
        for line in lines
        for first, count in [(0, line.quantity // 2), (line.quantity // 2, line.quantity - line.quantity // 2)]
    ]
    quantities = {line.line_no: line.quantity for line in lines}
    refunded = sum(
        unit_share(paid[part.line_no], quantities[part.line_no], part.first, part.count)
        for part in data.draw(st.permutations(returns))
    )
    assert refunded == sum(case.prices[sku] * count for sku, count in case.units.items()) - evaluation.amount
