"""Rows of orders, their lines and events, and of the releases that a cancellation makes due."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import orjson

from commerce.jobs import store as jobs
from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.kernel.stream_payload import PriceParts, StreamedOrder
from commerce.orders.copy_format import LINE_COLUMNS, ORDER_COLUMNS, encode_copy
from commerce.orders.model import (
    FULFILMENTS,
    EventKind,
    Order,
    OrderDiscount,
    OrderEvent,
    OrderFreight,
    OrderLine,
    OrderPrice,
    OrderStates,
    OrderStatus,
    OrderSummary,
    Tender,
    VersionedOrder,
)
from commerce.orders.state_store import read_states

queries = load_queries(__package__)


class OrderHeader(NamedTuple):
    """The fields of an order that payments and shipments need.

    Every change of its payments or shipments locks the order first (`lock_order`), so these changes are serialised.
    """

    order_id: UUID
    user_id: str
    sale_id: str
    status: OrderStatus
    total: Money
    plan: list[Tender]
    pay_by: datetime
    accepted_at: datetime
    cancel_reason: str | None


class StatusStep(NamedTuple):
    """A change of an order's status that the allowed steps have, with its reason."""

    order_id: UUID
    from_status: OrderStatus
    to_status: OrderStatus
    reason: str


class StoryEvent(NamedTuple):
    """Event of an order that its customer reads and that changes no status.

    `details` are ids, and amounts in minor units."""

    order_id: UUID
    kind: EventKind
    reason: str
    details: Mapping[str, Any] = {}


async def copy_orders(
    connection: Connection, orders: Sequence[StreamedOrder], now: datetime, *, with_keys: bool = True
) -> None:
    """Store orders and lines with two COPYs, with the parts of prices. Call inside a transaction.

    Without keys, idempotency keys are left NULL, for orders that are refused because of their key. Raises
    `UniqueViolationError` if an order or a key exists already.
    """
    order_rows, line_rows = encode_copy([(item.order, item.entry) for item in orders], now, with_keys=with_keys)
    for table, columns, rows in (("orders", ORDER_COLUMNS, order_rows), ("order_lines", LINE_COLUMNS, line_rows)):
        await connection.copy_to_table(table, source=BytesIO(rows), columns=columns, format="binary")
    parts = [(item.order.order_id, item.order.parts) for item in orders if item.order.parts is not None]
    if parts:
        await _insert_price_parts(connection, parts)


async def _insert_price_parts(connection: Connection, parts: Sequence[tuple[UUID, PriceParts]]) -> None:
    discounts = [
        (order_id, number, discount.promotion_id, discount.label, discount.amount)
        for order_id, price in parts
        for number, discount in enumerate(price.discounts)
    ]
    freight = [
        (order_id, address_no, amount)
        for order_id, price in parts
        for address_no, amount in enumerate(price.freight)
        if amount
    ]
    coupons = [(order_id, code) for order_id, price in parts for code in price.coupons]
    for statement, rows in (
        (queries.insert_discounts, discounts),
        (queries.insert_freight, freight),
        (queries.insert_coupons, coupons),
    ):
        if rows:
            await connection.execute(statement, *zip(*rows, strict=True))


async def find_existing(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the orders that are stored."""
    return {row["order_id"] for row in await connection.fetch(queries.find_existing, order_ids)}


async def find_by_keys(connection: Connection, orders: Sequence[StreamedOrder]) -> dict[tuple[str, str], UUID]:
    """Map (user, key) of the given orders to the stored order that has it. Unused pairs are left out."""
    rows = await connection.fetch(
        queries.find_by_keys,
        [item.order.user_id for item in orders],
        [item.order.idempotency_key for item in orders],
    )
    return {(row["user_id"], row["idempotency_key"]): row["order_id"] for row in rows}


async def cancel(
    connection: Connection, order_ids: Sequence[UUID], now: datetime, cause: str, actor: str, reason: str
) -> list[UUID]:
    """Cancel the orders that await payment, and make their releases due. Returns their ids.

    Their payments become due too: pending ones are closed, captured ones refunded. Call inside a transaction.
    """
    rows = await connection.fetch(queries.cancel, list(order_ids), now, cause, actor, reason)
    cancelled = [row["release_id"] for row in rows]
    if cancelled:
        jobs.wake_after_commit(connection, "releases")
    for order_id in cancelled:
        jobs.wake_waiters_after_commit(connection, order_id)
    if await connection.execute(queries.schedule_payments_of_cancelled, cancelled, now) != "INSERT 0 0":
        jobs.wake_after_commit(connection, "payments")
    return cancelled


async def list_paid_before(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the orders that were paid or confirmed at some time."""
    if not order_ids:
        return set()
    return {row["order_id"] for row in await connection.fetch(queries.list_paid_before, order_ids)}


async def lock_expired(connection: Connection, now: datetime, count: int, excluded: Collection[UUID]) -> list[UUID]:
    """Lock unpaid orders whose time to pay is over, skipping locked and excluded rows."""
    rows = await connection.fetch(queries.lock_expired, now, count, list(excluded))
    return [row["order_id"] for row in rows]


async def get(connection: Connection, order_id: UUID) -> tuple[str, Order] | None:
    """Read an order with its lines. Returns (user id, order)."""
    stored = (await read_changed(connection, {order_id: None})).get(order_id)
    return (stored.user_id, stored.order) if stored else None


async def _read_prices(connection: Connection, rows: Iterable[Any]) -> dict[UUID, OrderPrice]:
    """Read the discounts, coupons and freight of orders that have some; others take no query."""
    rows = [row for row in rows if row["discount_minor"] or row["freight_minor"] or row["cod_fee_minor"]]
    ids = [row["order_id"] for row in rows]
    discounts: dict[UUID, list[OrderDiscount]] = defaultdict(list)
    freight: dict[UUID, list[OrderFreight]] = defaultdict(list)
    coupons: dict[UUID, list[str]] = defaultdict(list)
    if ids:
        for order_id, *values in await connection.fetch(queries.get_discounts, ids):
            discounts[order_id].append(OrderDiscount(*values))
        for order_id, *values in await connection.fetch(queries.get_freight, ids):
            freight[order_id].append(OrderFreight(*values))
        for order_id, code in await connection.fetch(queries.get_coupons, ids):
            coupons[order_id].append(code)
    return {id_: _price(row, discounts[id_], freight[id_], coupons[id_]) for id_, row in zip(ids, rows, strict=True)}


def _price(row: Any, discounts: list[OrderDiscount], freight: list[OrderFreight], coupons: list[str]) -> OrderPrice:
    discount, freight_minor, cod_fee = row["discount_minor"], row["freight_minor"], row["cod_fee_minor"]
    subtotal = row["total_minor"] + discount - freight_minor - cod_fee
    return OrderPrice(subtotal, discount, freight_minor, cod_fee, discounts, freight, coupons)


def _order(
    row: Any, lines: list[OrderLine], prices: Mapping[UUID, OrderPrice], states_of: Mapping[UUID, OrderStates]
) -> Order:
    states = states_of[row["order_id"]]
    return Order(
        order_id=row["order_id"],
        status=OrderStatus(row["status"]),
        sale_id=row["sale_id"],
        total=Money(row["total_minor"], row["currency"]),
        price=prices.get(row["order_id"]) or _price(row, [], [], []),
        accepted_at=row["accepted_at"],
        pay_by=row["pay_by"],
        cancel_reason=row["cancel_reason"],
        lines=lines,
        ship_to=msgspec.json.decode(row["ship_to"], type=list[Address]),
        payments=msgspec.json.decode(row["payment_plan"], type=list[Tender]),
        payment_state=states.payment_state,
        delivery_state=states.delivery_state,
        return_state=states.return_state,
        refunds=states.refunds,
        replacements=states.replacements,
        replaces=states.replaces,
    )


async def read_changed(
    connection: Connection, versions: Mapping[UUID, int | None]
) -> dict[UUID, VersionedOrder | None]:
    """Read the stored orders whose version is not the given one; None stands for an order that is gone."""
    rows = await connection.fetch(queries.read_changed_orders, list(versions), list(versions.values()))
    stored = {row["order_id"]: row for row in rows if row["version"] is not None}
    lines: dict[UUID, list[OrderLine]] = defaultdict(list)
    for order_id, *values in await connection.fetch(queries.get_lines_of_orders, list(stored)) if stored else ():
        lines[order_id].append(OrderLine(*values))
    prices = await _read_prices(connection, stored.values())
    states_of = await read_states(connection, list(stored))
    orders: dict[UUID, VersionedOrder | None] = {row["order_id"]: None for row in rows}
    for order_id, row in stored.items():
        if order_id in states_of:  # it may be gone meanwhile
            order = _order(row, lines[order_id], prices, states_of)
            orders[order_id] = VersionedOrder(row["version"], row["user_id"], order)
    return orders


async def lock_order(connection: Connection, order_id: UUID) -> OrderHeader | None:
    """Read an order's header and lock its row until the transaction ends."""
    row = await connection.fetchrow(queries.lock_order, order_id)
    return _order_header(row) if row else None


async def lock_free_orders(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, OrderHeader]:
    """Read orders' headers and lock their rows, except those that are locked; they are left out."""
    return _by_id(await connection.fetch(queries.lock_free_orders, order_ids))


async def read_order_header(connection: Connection, order_id: UUID) -> OrderHeader | None:
    """Read an order's header without a lock, for display only."""
    return (await read_order_headers(connection, [order_id])).get(order_id)


async def read_order_headers(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, OrderHeader]:
    """Read orders' headers without a lock, for display only."""
    return _by_id(await connection.fetch(queries.read_order_headers, order_ids))


def _by_id(rows: Sequence[Any]) -> dict[UUID, OrderHeader]:
    return {row["order_id"]: _order_header(row) for row in rows}


def _order_header(row: Any) -> OrderHeader:
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


async def find_customers(connection: Connection, user_ids: Sequence[str]) -> set[str]:
    """Return those of the users who have an order that is not cancelled."""
    return {row["user_id"] for row in await connection.fetch(queries.find_customers, user_ids)}


async def find_id_by_key(connection: Connection, user_id: str, idempotency_key: str) -> UUID | None:
    order_id: UUID | None = await connection.fetchval(queries.find_id_by_key, user_id, idempotency_key)
    return order_id


async def list_before(connection: Connection, user_id: str, before: UUID, count: int) -> list[OrderSummary]:
    """List orders of a user with ids below `before`, newest first."""
    rows = await connection.fetch(queries.list_orders, user_id, before, count)
    states_of = await read_states(connection, [row["order_id"] for row in rows])
    return [
        OrderSummary(
            order_id=row["order_id"],
            status=OrderStatus(row["status"]),
            sale_id=row["sale_id"],
            total=Money(row["total_minor"], row["currency"]),
            accepted_at=row["accepted_at"],
            pay_by=row["pay_by"],
            payment_state=states_of[row["order_id"]].payment_state,
            delivery_state=states_of[row["order_id"]].delivery_state,
            return_state=states_of[row["order_id"]].return_state,
        )
        for row in rows
        if row["order_id"] in states_of
    ]


async def list_events(connection: Connection, order_id: UUID) -> list[OrderEvent]:
    """List all events of a stored order. The first two are derived from the order row."""
    row = await connection.fetchrow(queries.get_first_events, order_id)
    if row is None:
        return []
    prices = await _read_prices(connection, [row])
    total, price = Money(row["total_minor"], row["currency"]), prices.get(order_id) or _price(row, [], [], [])
    return [
        OrderEvent(0, row["accepted_at"], OrderStatus.ACCEPTED, "customer", "the stock was reserved"),
        OrderEvent(
            *(1, row["persisted_at"], OrderStatus.AWAITING_PAYMENT, "order_writer", "the order was stored"),
            total=total,
            price=price,
        ),
        *(
            OrderEvent(
                *(1 + event["seq"], event["at"], OrderStatus(event["status"]), event["actor"], event["reason"]),
                kind=event["kind"],
                details=orjson.loads(event["details"]) if event["details"] else None,
            )
            for event in await connection.fetch(queries.get_events, order_id, 0)
        ),
    ]


async def insert_story_events(connection: Connection, events: Sequence[StoryEvent], now: datetime, actor: str) -> None:
    """Insert events that change no status. Call inside a transaction that holds the locks of their orders."""
    batches: list[list[StoryEvent]] = []
    for event in events:
        batch = next((batch for batch in batches if all(event.order_id != other.order_id for other in batch)), None)
        if batch is None:
            batches.append(batch := [])
        batch.append(event)
        jobs.wake_waiters_after_commit(connection, event.order_id)
    for batch in batches:  # a statement changes each order once
        await connection.execute(
            queries.insert_story_events,
            [event.order_id for event in batch],
            [event.kind for event in batch],
            [event.reason for event in batch],
            [orjson.dumps(event.details).decode() if event.details else None for event in batch],
            now,
            actor,
        )


async def latest_event_seqs(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the seq of the last event by order, for orders that are stored."""
    rows = await connection.fetch(queries.latest_event_seqs, list(order_ids))
    return {row["order_id"]: 1 + row["status_seq"] for row in rows}


async def advance_status(
    connection: Connection,
    order_id: UUID,
    from_status: OrderStatus,
    to_status: OrderStatus,
    now: datetime,
    actor: str,
    reason: str,
) -> bool:
    """Change the status of an order as `advance_statuses`. False if its status is not `from_status`."""
    step = StatusStep(order_id, from_status, to_status, reason)
    return bool(await advance_statuses(connection, [step], now, actor))


async def advance_statuses(connection: Connection, steps: Sequence[StatusStep], now: datetime, actor: str) -> set[UUID]:
    """Change the statuses of orders and insert the events.

    Returns the orders that had the status from which their step begins. Those that are paid or confirmed become due
    for fulfilment.
    """
    if not steps:
        return set()
    steps = sorted(steps)
    for step in steps:
        jobs.wake_waiters_after_commit(connection, step.order_id)
    rows = await connection.fetch(
        queries.advance_statuses,
        [step.order_id for step in steps],
        [step.from_status for step in steps],
        [step.to_status for step in steps],
        [step.reason for step in steps],
        now,
        actor,
    )
    if any(row["to_status"] in (OrderStatus.PAID, OrderStatus.CONFIRMED) for row in rows):
        jobs.wake_after_commit(connection, FULFILMENTS)
    return {row["order_id"] for row in rows}
