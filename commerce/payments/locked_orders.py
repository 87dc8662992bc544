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
from commerce.kernel.postgres import Connection
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.payments import order_status, store
from commerce.payments.model import INTERNAL_METHODS, Payment
from commerce.payments.order_status import ACTOR, LockedOrder, NewRefund, OrderChanges


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


async def write_changes(connection: Connection, ids: IdGenerator, locked: Iterable[LockedOrder], now: datetime) -> None:
    """Write the noted changes of locked orders, with a statement for all changes of a kind that there are.

    Refunds are written one by one: they are rare."""
    changes = [order.changes for order in locked]

    def collect(kind: Callable[[OrderChanges], Sequence[Any]]) -> list[Any]:
        return [change for order_changes in changes for change in kind(order_changes)]

    await jobs.remove(connection, store.PAYMENTS, collect(lambda kinds: kinds.finished))
    await store.mark_captured(connection, collect(lambda kinds: kinds.captures), now)
    await store.mark_authorised(connection, collect(lambda kinds: kinds.authorised))
    await store.end_payments(connection, collect(lambda kinds: kinds.endings), now)
    await store.schedule_close(connection, collect(lambda kinds: kinds.closing), now)
    for refund in collect(lambda kinds: kinds.new_refunds):
        await _insert_refund(connection, ids.new(), refund, now)
    for payment, refund_id in collect(lambda kinds: kinds.completed_refunds):
        await _complete_refund(connection, payment, refund_id, now)
    recoveries = [
        NewJob(payment_id, "payment.recover_order", INTERNAL_SYSTEM, now)
        for payment_id in collect(lambda kinds: kinds.recovering)
    ]
    await jobs.put(connection, store.PAYMENTS, recoveries, now)
    await orders.advance_statuses(connection, collect(lambda kinds: kinds.steps), now, ACTOR)


async def _insert_refund(connection: Connection, refund_id: UUID, refund: NewRefund, now: datetime) -> None:
    values = (refund.payment, refund.refund_key, refund.amount_minor, refund.reason, refund.actor, now)
    is_new = await store.insert_refund(connection, refund_id, *values)
    if is_new and refund.payment.method in INTERNAL_METHODS:
        # No provider is called, so it completes at once: another tender may need that very credit.
        await _complete_refund(connection, refund.payment, refund_id, now)


async def _complete_refund(connection: Connection, payment: Payment, refund_id: UUID, now: datetime) -> None:
    """Mark a refund as done and post it to the ledger, once."""
    amount = await store.mark_refunded(connection, refund_id, now)
    if amount is None:
        return
    # Collected cash is refunded as store credit, because there is no driver to hand it over.
    target = f"credit:{payment.user_id}" if payment.method in INTERNAL_METHODS else f"provider:{payment.method}"
    if payment.method in INTERNAL_METHODS:
        await store.adjust_store_credit(connection, payment.user_id, payment.currency, amount)
    entries = {target: -amount, "orders": amount}
    posting = NewPosting(f"refund {refund_id}", payment.order_id, payment.currency, entries)
    await ledger.insert_postings(connection, [posting], now)
