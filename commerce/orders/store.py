"""The rows of orders, their lines and events, and the releases that cancelling makes due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.kernel.stream_payload import StreamedOrder
from commerce.orders.copy_format import LINE_COLUMNS, ORDER_COLUMNS, encode_copy
from commerce.orders.model import Order, OrderEvent, OrderLine, OrderStatus, OrderSummary, Tender

queries = load_queries(__package__)


class OrderHeader(NamedTuple):
    """An order whose row is locked: whoever changes its payments holds this first, so all of that goes in turn."""

    order_id: UUID
    user_id: str
    sale_id: str
    status: OrderStatus
    total: Money
    plan: list[Tender]
    pay_by: datetime
    accepted_at: datetime
    cancel_reason: str | None


async def copy_orders(
    connection: Connection, arrived: Sequence[StreamedOrder], now: datetime, *, with_keys: bool = True
) -> None:
    """Write orders and lines with two COPYs. Call inside a transaction; raises if any is there already.

    Without keys the idempotency keys are left out: for orders that are refused because of them.
    """
    orders, lines = encode_copy([(item.order, item.entry) for item in arrived], now, with_keys=with_keys)
    for table, columns, rows in (("orders", ORDER_COLUMNS, orders), ("order_lines", LINE_COLUMNS, lines)):
        await connection.copy_to_table(table, source=BytesIO(rows), columns=columns, format="binary")


async def existing(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    return {row["order_id"] for row in await connection.fetch(queries.existing_orders, order_ids)}


async def by_keys(connection: Connection, arrived: Sequence[StreamedOrder]) -> dict[tuple[str, str], UUID]:
    """(user, key) → order for those of these pairs that are taken."""
    rows = await connection.fetch(
        queries.orders_by_keys,
        [item.order.user_id for item in arrived],
        [item.order.idempotency_key for item in arrived],
    )
    return {(row["user_id"], row["idempotency_key"]): row["order_id"] for row in rows}


async def cancel(
    connection: Connection, order_ids: Sequence[UUID], now: datetime, cause: str, actor: str, reason: str
) -> list[UUID]:
    """Cancel those that still await payment and make their releases due; gives the ids of those."""
    rows = await connection.fetch(queries.cancel, list(order_ids), now, cause, actor, reason)
    gone = [row["release_id"] for row in rows]
    await connection.execute(queries.payments_of_cancelled, gone, now)
    return gone


async def lock_expired(connection: Connection, now: datetime, count: int) -> list[UUID]:
    return [row["order_id"] for row in await connection.fetch(queries.lock_expired, now, count)]


async def get(connection: Connection, order_id: UUID) -> tuple[str, Order] | None:
    """(owner, order with its lines)"""
    row = await connection.fetchrow(queries.get_order, order_id)
    if row is None:
        return None
    lines = await connection.fetch(queries.get_lines, order_id)
    return row["user_id"], Order(
        order_id=row["order_id"],
        status=OrderStatus(row["status"]),
        sale_id=row["sale_id"],
        total=Money(row["total_minor"], row["currency"]),
        accepted_at=row["accepted_at"],
        pay_by=row["pay_by"],
        cancel_reason=row["cancel_reason"],
        lines=[OrderLine(**line) for line in lines],
        ship_to=msgspec.json.decode(row["ship_to"], type=list[Address]),
        payments=msgspec.json.decode(row["payment_plan"], type=list[Tender]),
    )


async def lock_order(connection: Connection, order_id: UUID) -> OrderHeader | None:
    row = await connection.fetchrow(queries.lock_order, order_id)
    return _header(row) if row else None


async def read_order_header(connection: Connection, order_id: UUID) -> OrderHeader | None:
    """To be shown only: its row is not locked."""
    row = await connection.fetchrow(queries.read_order_header, order_id)
    return _header(row) if row else None


def _header(row: Any) -> OrderHeader:
    return OrderHeader(
        row["order_id"],
        row["user_id"],
        row["sale_id"],
        OrderStatus(row["status"]),
        Money(row["total_minor"], row["currency"]),
        msgspec.json.decode(row["payment_plan"], type=list[Tender]),
        row["pay_by"],
        row["accepted_at"],
        row["cancel_reason"],
    )


async def id_by_key(connection: Connection, user_id: str, idempotency_key: str) -> UUID | None:
    found: UUID | None = await connection.fetchval(queries.get_order_by_key, user_id, idempotency_key)
    return found


async def list_before(connection: Connection, user_id: str, before: UUID, count: int) -> list[OrderSummary]:
    """A user's orders, newest first, from before an id."""
    return [
        OrderSummary(
            order_id=row["order_id"],
            status=OrderStatus(row["status"]),
            sale_id=row["sale_id"],
            total=Money(row["total_minor"], row["currency"]),
            accepted_at=row["accepted_at"],
            pay_by=row["pay_by"],
        )
        for row in await connection.fetch(queries.list_orders, user_id, before, count)
    ]


async def events(connection: Connection, order_id: UUID) -> list[OrderEvent]:
    """All events of a stored order; the first two are those the order row itself records."""
    row = await connection.fetchrow(queries.get_order, order_id)
    if row is None:
        return []
    return [
        OrderEvent(0, row["accepted_at"], OrderStatus.ACCEPTED, "customer", "the stock was taken"),
        OrderEvent(1, row["persisted_at"], OrderStatus.AWAITING_PAYMENT, "order_writer", "the order was stored"),
        *(
            OrderEvent(1 + step["seq"], step["at"], OrderStatus(step["to_status"]), step["actor"], step["reason"])
            for step in await connection.fetch(queries.get_events, order_id, 0)
        ),
    ]


async def latest_event_seqs(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The seq of the last event of each of these orders that is stored."""
    rows = await connection.fetch(queries.watched_orders, list(order_ids))
    return {row["order_id"]: 1 + row["status_seq"] for row in rows}


async def advance_status(
    connection: Connection, order_id: UUID, at: OrderStatus, to: OrderStatus, now: datetime, actor: str, reason: str
) -> bool:
    """One step of an order's status, with its event. False where it is elsewhere by now."""
    return await connection.fetchval(queries.step, order_id, at, to, now, actor, reason) is not None
