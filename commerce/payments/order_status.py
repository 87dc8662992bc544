"""What becomes of an order when one of its payments moves. The one place that decides; everybody comes here.

Call inside a transaction, with the order locked: callbacks, polling, deadlines, cancellations and staff all lock the
order first, so whichever comes first is seen whole by the next, and each of them alone is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import store
from commerce.payments.model import INTERNAL_METHODS, Payment
from commerce.payments.provider_port import ProviderPayment

_ACTOR = "payment_worker"


class ProviderMismatch(Exception):
    """What a provider says cannot be true of this payment: it is left as it is, for a person to look at."""


async def record_capture_by_id(
    connection: Connection, ids: IdGenerator, payment_id: UUID, seen: ProviderPayment, now: datetime
) -> str:
    """Write a capture down and what follows from it. Call inside a transaction. Raises `Disagreement`."""
    found = await store.payment(connection, payment_id)
    order = await orders.lock_order(connection, found.order_id) if found else None
    paid = await store.payment(connection, payment_id)
    if order is None or paid is None:
        raise ProviderMismatch(f"there is no payment {payment_id}")
    if not await record_capture(connection, order, paid, seen, now):
        return "known"
    await update_order_and_payments(connection, ids, order, now)
    return "captured"


async def record_refund_by_id(connection: Connection, ids: IdGenerator, refund_id: UUID, now: datetime) -> str:
    """Write down that a refund went through. Call inside a transaction. Raises `Disagreement`."""
    found = await store.refund(connection, refund_id)
    order = await orders.lock_order(connection, found.order_id) if found else None
    paid = await store.payment(connection, found.payment_id) if found else None
    if order is None or paid is None:
        raise ProviderMismatch(f"there is no refund {refund_id}")
    return "refunded" if await record_refund(connection, paid, refund_id, now) else "known"


async def record_capture(
    connection: Connection, order: OrderHeader, paid: Payment, seen: ProviderPayment, now: datetime
) -> bool:
    """Money was taken. False if that was known. Raises `Disagreement` over the amount or the transaction."""
    if seen.amount != paid.amount:
        raise ProviderMismatch(f"{paid.method} says {seen.amount} was paid, it should be {paid.amount}")
    if paid.status == "captured":
        if seen.transaction_id != paid.transaction_id:
            raise ProviderMismatch(f"paid in transaction {paid.transaction_id} and again in {seen.transaction_id}")
        return False
    at = seen.captured_at or now
    if not await store.capture(connection, paid.payment_id, at, seen.transaction_id, now):
        return False
    source = {"balance": f"credit:{paid.user_id}", "cod": "cash"}.get(paid.method, f"provider:{paid.method}")
    lines = {source: paid.amount_minor, "orders": -paid.amount_minor}
    await store.insert_posting(connection, f"capture {paid.payment_id}", order.order_id, paid.currency, now, lines)
    return True


async def update_order_and_payments(
    connection: Connection, ids: IdGenerator, order: OrderHeader, now: datetime
) -> None:
    """Bring the order to where its payments say it is, and its payments to where the order says they should be."""
    payments = await store.payments_of(connection, order.order_id)
    if not payments:
        return
    last = payments[-1].plan_revision
    current = [one for one in payments if one.plan_revision == last]
    await _give_back(
        connection, ids, [one for one in payments if one.plan_revision != last], now, "it was replaced by another"
    )
    # What goes back pays for nothing, though its payment stays captured.
    refunds = await store.refunds_of(connection, order.order_id)
    leaving = {one.payment_id for one in refunds if one.status != "failed"} & {one.payment_id for one in current}
    if order.status is OrderStatus.AWAITING_PAYMENT:
        await _awaiting(connection, ids, order, current, bool(leaving), now)
    elif order.status is OrderStatus.CANCELLED:
        await _cancelled(connection, ids, order, current, bool(leaving), now)


def order_status_from_payments(current: Sequence[Payment]) -> OrderStatus | None:
    """Where an order goes whose payments these are: paid, confirmed where cash is still to come, or nowhere yet."""
    if all(one.status == "captured" for one in current):
        return OrderStatus.PAID
    if all(one.status in ("captured", "authorised") for one in current):
        return OrderStatus.CONFIRMED
    return None


async def _awaiting(
    connection: Connection,
    ids: IdGenerator,
    order: OrderHeader,
    current: Sequence[Payment],
    leaving: bool,
    now: datetime,
) -> None:
    if not leaving and (to := order_status_from_payments(current)):
        reason = "all of it is paid" if to is OrderStatus.PAID else "it is paid on delivery"
        await orders.advance_status(connection, order.order_id, order.status, to, now, _ACTOR, reason)
    elif leaving or any(one.status in ("failed", "closed") for one in current):
        # An order is paid whole or not at all; the customer may begin anew as long as there is time.
        await _give_back(connection, ids, current, now, "another part of the order was not paid")


async def _cancelled(
    connection: Connection,
    ids: IdGenerator,
    order: OrderHeader,
    current: Sequence[Payment],
    leaving: bool,
    now: datetime,
) -> None:
    if order.cancel_reason == "expired" and not leaving and order_status_from_payments(current):
        # It came too late; the goods are taken again if there are any, which takes a look into Redis.
        if not any(one.task == "recover_order" for one in current):
            await store.set_task(connection, current[0].payment_id, "recover_order", now)
        return
    await _give_back(connection, ids, current, now, "the order was cancelled")


async def refund_late_payments(connection: Connection, ids: IdGenerator, order: OrderHeader, now: datetime) -> None:
    """The goods cannot be had again: all money goes back."""
    payments = await store.payments_of(connection, order.order_id)
    await _give_back(connection, ids, payments, now, "it came too late and the goods are gone")


async def reinstate_order(connection: Connection, order: OrderHeader, now: datetime) -> None:
    """The goods were taken again: the order lives on. Raises `Disagreement` where it is not paid after all."""
    payments = await store.payments_of(connection, order.order_id)
    current = [one for one in payments if one.plan_revision == payments[-1].plan_revision]
    to = order_status_from_payments(current)
    if to is None:
        raise ProviderMismatch("the goods were taken again, and it is not paid any more")
    await orders.advance_status(
        connection, order.order_id, order.status, to, now, _ACTOR, "paid late, and the goods were still there"
    )


async def _give_back(
    connection: Connection, ids: IdGenerator, payments: Sequence[Payment], now: datetime, reason: str
) -> None:
    """See that none of these takes or keeps money."""
    await store.schedule_close(connection, [one.payment_id for one in payments if one.status == "pending"], now)
    for one in payments:
        if one.status == "authorised":
            await store.end_payment(connection, one.payment_id, "closed", now, reason)
        elif one.status == "captured":
            await refund_remaining(connection, ids, one, "whole", reason, _ACTOR, now)


async def refund_remaining(
    connection: Connection,
    ids: IdGenerator,
    paid: Payment,
    key: str,
    reason: str,
    actor: str,
    now: datetime,
    most: int = 2**62,
) -> int:
    """Make the refund of what is left of a payment, at most so much; gives how much that is."""
    refunds = [one for one in await store.refunds_of(connection, paid.order_id) if one.payment_id == paid.payment_id]
    left = paid.amount_minor - sum(one.amount_minor for one in refunds if one.status != "failed")
    amount = min(left, most)
    if amount <= 0:
        return 0
    refund_id = ids.new()
    if not await store.add_refund(connection, refund_id, paid, key, amount, reason, actor, now):
        return 0
    if paid.method in INTERNAL_METHODS:
        # Nobody outside is asked, so it is done at once: another way to pay may need that very credit.
        await record_refund(connection, paid, refund_id, now)
    return amount


async def record_refund(connection: Connection, paid: Payment, refund_id: UUID, now: datetime) -> bool:
    """A refund went through. False if that was known."""
    amount = await store.finish_refund(connection, refund_id, now)
    if amount is None:
        return False
    # Cash that was collected goes back as store credit: nobody is there to hand it over.
    target = f"credit:{paid.user_id}" if paid.method in INTERNAL_METHODS else f"provider:{paid.method}"
    if paid.method in INTERNAL_METHODS:
        await store.adjust_store_credit(connection, paid.user_id, paid.currency, amount)
    lines = {target: -amount, "orders": amount}
    await store.insert_posting(connection, f"refund {refund_id}", paid.order_id, paid.currency, now, lines)
    return True
