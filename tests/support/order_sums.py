"""Money of orders: what each keeps must be its price less what was granted back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

SUMS_OF_ORDERS = """
SELECT order_id, orders.status, total_minor,
       (SELECT min(exchanges.order_id::text) FROM exchanges WHERE replacement_id = orders.order_id) AS replaces,
       (SELECT coalesce(sum(payments.captured_minor), 0) FROM payments
        WHERE payments.order_id = orders.order_id AND status = 'captured')::bigint AS captured,
       (SELECT coalesce(sum(refunds.amount_minor), 0) FROM refunds
        WHERE refunds.order_id = orders.order_id AND status = 'done')::bigint AS refunded,
       (SELECT sum(amount_minor) FROM refund_grants WHERE refund_grants.order_id = orders.order_id)::bigint AS granted
FROM orders
"""
"""Add a condition, and the order by `order_id`: a replacement comes after the order that it replaces."""


def find_wrong_sums(rows: Sequence[Any], final: Sequence[str] = ("completed", "cancelled")) -> list[str]:
    """List orders that keep other money than their price less what was granted back.

    `rows` are `SUMS_OF_ORDERS`. An order and the one that replaces a part of it keep their money together. Both are
    left out while one has no final status: it waits for staff, and its cash is not collected yet.
    """
    roots: dict[UUID, UUID] = {}
    differences = Counter[UUID]()
    open_roots: set[UUID] = set()
    for row in rows:
        root = roots[row["order_id"]] = roots[UUID(row["replaces"])] if row["replaces"] else row["order_id"]
        if row["status"] not in final:
            open_roots.add(root)
        was_never_sold = row["status"] == "cancelled" and row["granted"] is None
        worth = 0 if was_never_sold else row["total_minor"] - (row["granted"] or 0)
        differences[root] += row["captured"] - row["refunded"] - worth
    wrong = {root for root, difference in differences.items() if difference} - open_roots
    return [str(dict(row)) for row in rows if roots[row["order_id"]] in wrong]
