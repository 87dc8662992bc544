"""Shares of units: every way of taking a line apart adds up to what was paid for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.refunds.shares import unit_share


@given(st.integers(0, 10**15), st.integers(1, 1_000_000), st.data())
def test_shares_of_any_division_of_a_line_add_up(paid: int, quantity: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, quantity), max_size=6)))
    shares = [unit_share(paid, quantity, first, last - first) for first, last in pairwise([0, *cuts, quantity])]
    assert sum(shares) == paid == unit_share(paid, quantity, 0, quantity)
    assert all(share >= 0 for share in shares)


@given(st.integers(0, 10**15), st.integers(1, 40))
def test_units_of_a_line_differ_by_one_minor_unit_at_most(paid: int, quantity: int) -> None:
    units = [unit_share(paid, quantity, unit, 1) for unit in range(quantity)]
    assert (sum(units), max(units) - min(units) <= 1) == (paid, True)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 4), (3, 1), (0, -1)])
def test_units_outside_of_the_line_are_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="are not in a line of 3"):
        unit_share(100, 3, first, count)
