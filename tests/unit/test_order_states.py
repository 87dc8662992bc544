"""States of an order: they follow from quantities and amounts, and the documentation has all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple, get_args

import pytest

from commerce.orders.model import OrderStatus
from commerce.orders.order_states import (
    DeliveryState,
    OrderMoney,
    OrderQuantities,
    PaymentState,
    ReturnState,
    find_delivery_state,
    find_payment_state,
    find_return_state,
)
from tests.style.repository import ROOT

UNITS, TOTAL = 2, 2
STATUSES = [status for status in OrderStatus if status is not OrderStatus.ACCEPTED]
STATES = (STATUSES, get_args(PaymentState), get_args(DeliveryState), get_args(ReturnState))


class Combination(NamedTuple):
    """A status with the states beside it."""

    status: str
    payment: str
    delivery: str
    returns: str


def possible_units(status: OrderStatus) -> Iterator[OrderQuantities]:
    """Yield the quantities that an order of two units can have with a status."""
    steps = range(UNITS + 1)
    for cancelled, shipped, delivered, returned in product(steps, steps, steps, steps):
        expected = UNITS - cancelled
        if not returned <= delivered <= shipped <= expected:
            continue
        is_possible = {
            OrderStatus.AWAITING_PAYMENT: not cancelled and not shipped,
            OrderStatus.CONFIRMED: expected and not shipped,
            OrderStatus.PAID: expected and not shipped,
            OrderStatus.FULFILLING: shipped < expected,
            OrderStatus.SHIPPED: shipped == expected and delivered < expected,
            OrderStatus.DELIVERED: expected and delivered == expected,
            OrderStatus.COMPLETED: expected and delivered == expected,
            OrderStatus.CANCELLED: not delivered,
        }
        if is_possible[status]:
            yield OrderQuantities(UNITS, cancelled, shipped, delivered, returned)


def possible_money(status: OrderStatus) -> Iterator[OrderMoney]:
    """Yield the amounts that an order of two minor units, or of none, can have with a status."""
    steps = range(TOTAL + 1)
    is_closed = status is OrderStatus.CANCELLED
    for total, never_collected, captured, authorised, refunded in product((0, TOTAL), steps, steps, steps, steps):
        if refunded > captured or never_collected + captured + authorised > total:
            continue
        if status is OrderStatus.AWAITING_PAYMENT and never_collected:
            continue
        if status is OrderStatus.CANCELLED and authorised:
            continue  # its payment is closed in the transaction of the cancellation, or right after it
        yield OrderMoney(total - never_collected, authorised, captured, refunded, is_closed)


def combinations() -> set[Combination]:
    result = set()
    for status in STATUSES:
        for units, money in product(possible_units(status), possible_money(status)):
            # A case is about delivered units.
            cases = [(False, False), (True, False), (False, True)] if units.delivered else [(False, False)]
            for requested, in_progress in cases:
                result.add(
                    Combination(
                        status,
                        find_payment_state(money),
                        find_delivery_state(units, is_cancelled=status is OrderStatus.CANCELLED),
                        find_return_state(units, requested=requested, in_progress=in_progress),
                    )
                )
    return result


def read_table() -> list[tuple[list[set[str]], list[str]]]:
    """Return the rows of the documentation: the values of each state, and the other columns."""
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## States of an order")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.count("|") == 8]
    header, _, *rows = rows
    assert header[:4] == ["status", "payment", "delivery", "returns"]
    return [
        (
            [
                set(values) if cell == "any" else set(cell.split(", "))
                for cell, values in zip(row, STATES, strict=False)
            ],
            row[4:],
        )
        for row in rows
    ]


def test_table_has_one_row_for_each_combination() -> None:
    table = read_table()
    for values, others in table:
        for state_values, named in zip(STATES, values, strict=True):
            assert named <= {str(value) for value in state_values}, others
        assert all(others), others
    used = defaultdict(list)
    for combination in combinations():
        rows = [
            number
            for number, (values, _) in enumerate(table)
            if all(value in named for value, named in zip(combination, values, strict=True))
        ]
        assert len(rows) == 1, f"{combination} is in {len(rows)} rows"
        used[rows[0]].append(combination)
    assert [others[0] for number, (_, others) in enumerate(table) if number not in used] == []


def test_each_state_occurs() -> None:
    for index, values in enumerate(STATES):
        assert {combination[index] for combination in combinations()} == {str(value) for value in values}


@pytest.mark.parametrize(
    ("money", "state"),
    [
        (OrderMoney(100), "unpaid"),
        (OrderMoney(100, authorised=40), "unpaid"),
        (OrderMoney(100, authorised=100), "authorised"),
        (OrderMoney(100, authorised=40, captured=60), "partly_paid"),
        (OrderMoney(60, captured=60), "paid"),
        (OrderMoney(100, captured=100, refunded=1), "partly_refunded"),
        (OrderMoney(100, captured=100, refunded=100), "refunded"),
        (OrderMoney(0), "nothing_due"),
        (OrderMoney(100, is_closed=True), "nothing_due"),
        (OrderMoney(100, captured=60, is_closed=True), "paid"),
    ],
)
def test_payment_state_follows_from_amounts(money: OrderMoney, state: PaymentState) -> None:
    assert find_payment_state(money) == state
