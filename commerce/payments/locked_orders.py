"""Locks orders, reads them with their payments, and writes what `order_status.py` has decided.

A set of orders takes as many statements as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus, RefundWay
from commerce.orders.store import StoryEvent
from commerce.payments import order_status, refund_store, store
from commerce.payments.order_status import ACTOR, Capture, LockedOrder, OrderChanges
from commerce.payments.refund_status import build_story_of_new


class OrderRow(Protocol):
    """The fields of a locked row that decisions need; an `OrderHeader` has them."""

    @property
    def order_id(self) -> UUID: ...
    @property
    def status(self) -> OrderStatus: ...
    @property
    def cancel_reason(self) -> str | None: ...


async def lock_orders(
    connection: Connection, payment_ids: Sequence[UUID], *, may_wait: bool = True
) -> dict[UUID, LockedOrder]:
    """Lock the orders of payments until the transaction ends, and read them. Returns each by its payments.

    They are locked in the sequence of their ids. Without `may_wait`, orders that another transaction has locked are
    left out. Payments that do not exist are left out."""
    locked = await read_orders(connection, await store.lock_orders(connection, payment_ids, may_wait=may_wait))
    return {payment_id: order for order in locked for payment_id in order.payments}


async def read_orders(connection: Connection, rows: Sequence[OrderRow]) -> list[LockedOrder]:
    """Read locked orders with their payments and refunds."""
    locked = {row.order_id: LockedOrder(row.order_id, row.status, row.cancel_reason, {}, []) for row in rows}
    if not locked:
        return []
    cancelled = [order.order_id for order in locked.values() if order.status is OrderStatus.CANCELLED]
    for order_id in await orders.list_paid_before(connection, cancelled):
        locked[order_id].was_paid = True
    for order_id, payment_id in await store.list_captured_late(connection, cancelled):
        locked[order_id].captured_late.add(payment_id)
    captured: set[UUID] = set()
    for order_id, payments in (await store.list_payments_of_orders(connection, list(locked))).items():
        locked[order_id].payments = {payment.payment_id: payment for payment in payments}
        if any(payment.status == "captured" for payment in payments):
            captured.add(order_id)
    if captured:  # without a capture there are no refunds
        for refund in await store.list_refunds_of_orders(connection, list(captured)):
            locked[refund.order_id].refunds.append(refund)
    return list(locked.values())


async def update_order(connection: Connection, ids: IdGenerator, row: OrderRow, now: datetime) -> None:
    """Bring an order and its payments in line. Call inside a transaction that holds the order lock."""
    [order] = await read_orders(connection, [row])
    order_status.update(order)
    await write_changes(connection, ids, [order], now)


async def end_payments(connection: Connection, ids: IdGenerator, order_id: UUID, now: datetime) -> None:
    """Close the payments of an order that was cancelled after it was paid, except what was captured.

    Call inside the transaction that has cancelled it, under its lock."""
    order = LockedOrder(order_id, OrderStatus.CANCELLED, None, {}, [], was_paid=True)
    for payment in await store.list_payments(connection, order_id):
        order.payments[payment.payment_id] = payment
    order_status.end_payments(order)
    await write_changes(connection, ids, [order], now)


async def capture_cash(connection: Connection, row: OrderRow, now: datetime, *, is_final: bool) -> bool:
    """Capture an order's payments on delivery with the cash that is in the ledger.

    `is_final` is that of `order_status.record_cash`. Call inside a transaction that holds the order lock. Returns
    whether any payment changed."""
    [order] = await read_orders(connection, [row])
    collected_minor = (await store.sum_uncaptured_cash(connection, [order.order_id]))[order.order_id]
    if not order_status.record_cash(order, collected_minor, now, is_final=is_final):
        return False
    await store.mark_captured(connection, order.changes.captures, now)
    await store.end_payments(connection, order.changes.endings, now)
    if order.status is OrderStatus.CANCELLED and order.changes.captures:
        # The payment worker refunds it.
        payment_id = order.changes.captures[0].payment.payment_id
        task = NewJob(payment_id, "payment.update_order", INTERNAL_SYSTEM, now)
        await jobs.put(connection, store.PAYMENTS, [task], now)
    # Of what is complete the customer learns with the delivery.
    story = [_capture_story(order, capture) for capture in order.changes.captures if capture.uncollected_minor]
    await orders.insert_story_events(connection, story, now, ACTOR)
    return True


async def update_and_write(
    connection: Connection, ids: IdGenerator, locked: Iterable[LockedOrder], now: datetime
) -> None:
    """Bring orders in line whose payments have changed, and write all changes. An order may occur twice."""
    distinct = {order.order_id: order for order in locked}
    for order in distinct.values():
        if order.changes.may_move_order:
            order_status.update(order)
    await write_changes(connection, ids, distinct.values(), now)
    # A step of the order tells its customer of the money. Without one, the order that he has read shows too little.
    story = [
        _capture_story(order, capture)
        for order in distinct.values()
        if not order.changes.steps
        for capture in order.changes.captures
    ]
    await orders.insert_story_events(connection, story, now, ACTOR)


def _capture_story(order: LockedOrder, capture: Capture) -> StoryEvent:
    payment = capture.payment
    amount_minor = payment.amount_minor - capture.uncollected_minor
    text = f"{format_money(amount_minor, payment.currency)} was paid by {payment.method}"
    if capture.uncollected_minor:
        text += f"; the other {format_money(capture.uncollected_minor, payment.currency)} are no longer due"
    return StoryEvent(
        order.order_id,
        "payment",
        text,
        {"payment_id": str(payment.payment_id), "amount": amount_minor, "currency": payment.currency},
    )


async def write_changes(
    connection: Connection, ids: IdGenerator, locked: Iterable[LockedOrder], now: datetime, actor: str = ACTOR
) -> None:
    """Write the noted changes of locked orders, with a statement for all changes of a kind that there are."""
    changes = [order.changes for order in locked]

    def collect(kind: Callable[[OrderChanges], Sequence[Any]]) -> list[Any]:
        return [change for order_changes in changes for change in kind(order_changes)]

    await jobs.remove(connection, store.PAYMENTS, collect(lambda kinds: kinds.finished))
    await store.mark_captured(connection, collect(lambda kinds: kinds.captures), now)
    await store.mark_authorised(connection, collect(lambda kinds: kinds.authorised))
    await store.end_payments(connection, collect(lambda kinds: kinds.endings), now)
    await store.schedule_close(connection, collect(lambda kinds: kinds.closing), now)
    story = await _write_refunds(connection, ids, changes, now)
    recoveries = [
        NewJob(payment_id, "payment.recover_order", INTERNAL_SYSTEM, now)
        for payment_id in collect(lambda kinds: kinds.recovering)
    ]
    await jobs.put(connection, store.PAYMENTS, recoveries, now)
    await orders.advance_statuses(connection, collect(lambda kinds: kinds.steps), now, ACTOR)
    await orders.insert_story_events(connection, story, now, actor)


async def _write_refunds(
    connection: Connection, ids: IdGenerator, changes: Sequence[OrderChanges], now: datetime
) -> list[StoryEvent]:
    """Write the noted changes of refunds, in sets. Returns what customers read about them."""
    requested = [refund_id for kinds in changes for refund_id in kinds.requested_refunds]
    await refund_store.mark_refunds_requested(connection, requested, now)
    await refund_store.mark_refunds_waiting(
        connection, [item for kinds in changes for item in kinds.waiting_refunds], now
    )
    await refund_store.fail_refunds(connection, [item for kinds in changes for item in kinds.failed_refunds], now)
    await refund_store.mark_needing_other_way(
        connection, [item for kinds in changes for item in kinds.stuck_refunds], now
    )
    new_refunds = {ids.new(): refund for kinds in changes for refund in kinds.new_refunds}
    inserted = await refund_store.insert_refunds(connection, new_refunds, now)
    completed: list[tuple[UUID, RefundWay, str | None]] = [
        (item.refund.refund_id, item.way, item.provider_refund_id)
        for kinds in changes
        for item in kinds.completed_refunds
    ]
    # No provider is called, so they complete at once: another tender may need that very credit. Collected cash is
    # refunded as store credit too, because there is no driver to hand it over.
    completed += [
        (refund_id, "store_credit", None)
        for refund_id, refund in new_refunds.items()
        if refund_id in inserted and refund.payment.is_internal
    ]
    await refund_store.complete_refunds(connection, completed, now)
    story = [
        build_story_of_new(refund_id, refund)
        for refund_id, refund in new_refunds.items()
        if refund_id in inserted and refund.attempt_no == 1 and not refund.is_announced
    ]
    return [*story, *(event for kinds in changes for event in kinds.story)]
