"""Reads the states of orders beside their status, and their refunds, from rows of other packages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import OrderRefunds, OrderStates, OrderStatus, RefundSum
from commerce.orders.order_states import (
    OrderMoney,
    OrderQuantities,
    find_delivery_state,
    find_payment_state,
    find_return_state,
)

queries = load_queries(__package__)


async def read_states(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, OrderStates]:
    """Read the states and refunds of stored orders."""
    if not order_ids:
        return {}
    rows = await connection.fetch(queries.list_state_facts, order_ids)
    refunds: dict[UUID, list[RefundSum]] = defaultdict(list)
    if any(row["has_captures"] for row in rows):  # without a capture there are no refunds
        for order_id, *values in await connection.fetch(queries.list_refund_sums, order_ids):
            refunds[order_id].append(RefundSum(*values))
    return {row["order_id"]: _build_states(row, refunds[row["order_id"]]) for row in rows}


async def has_open_matters(connection: Connection, order_id: UUID) -> bool:
    """Tell whether a refund, a cancellation or a case of the order is still open."""
    return bool(await connection.fetchval(queries.has_open_matters, order_id))


def _build_states(row: Any, refunds: list[RefundSum]) -> OrderStates:
    status = OrderStatus(row["status"])
    is_cancelled = status is OrderStatus.CANCELLED
    never_collected = 0 if status is OrderStatus.AWAITING_PAYMENT else row["never_collected"]
    money = OrderMoney(
        payable=row["total_minor"] - never_collected,
        authorised=row["authorised"],
        captured=row["captured"],
        refunded=row["refunded"],
        is_closed=is_cancelled,
    )
    units = OrderQuantities(row["ordered"], row["cancelled"], row["shipped"], row["delivered"], row["returned"])
    return OrderStates(
        payment_state=find_payment_state(money),
        delivery_state=find_delivery_state(units, is_cancelled=is_cancelled),
        return_state=find_return_state(units, requested=row["requested"], in_progress=row["in_progress"]),
        refunds=OrderRefunds(sum(part.requested for part in refunds), sum(part.done for part in refunds), refunds)
        if refunds
        else None,
        replacements=row["replacements"],
        replaces=row["replaces"],
    )
