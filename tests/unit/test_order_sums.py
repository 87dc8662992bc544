"""Orders whose money does not fit their price, as the drills list them."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.order_sums import find_wrong_sums

REPLACED, REPLACEMENT = uuid4(), uuid4()


def row(order_id: UUID, status: str, total: int, captured: int, refunded: int, granted: int | None) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "status": status,
        "total_minor": total,
        "replaces": str(REPLACED) if order_id == REPLACEMENT else None,
        "captured": captured,
        "refunded": refunded,
        "granted": granted,
    }


@pytest.mark.parametrize(
    ("status", "refunded", "wrong"), [("completed", 2_400, 0), ("completed", 2_399, 2), ("fulfilling", 2_400, 0)]
)
def test_order_and_its_replacement_keep_their_money_together(status: str, refunded: int, wrong: int) -> None:
    rows = [
        row(REPLACED, status, 11_940, 11_940, refunded, 0),
        row(REPLACEMENT, "cancelled", 0, 0, 0, 2_400),
    ]
    assert len(find_wrong_sums(rows)) == wrong


def test_order_that_was_never_sold_keeps_no_money() -> None:
    order = uuid4()
    assert not find_wrong_sums([row(order, "cancelled", 500, 0, 0, None)])
    assert find_wrong_sums([row(order, "cancelled", 500, 500, 0, None)])
