"""The one place that decides an order's status from its payments, and its payments from its status.

Webhooks, polling, deadlines, cancellations and staff all lock the order first and then call these functions. Each sees
the complete result of the one before, and each of them alone is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
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
CaptureResult = Literal["captured", "unchanged"]
RefundResult = Literal["refunded", "unchanged"]


class ProviderMismatch(Exception):
    """A contradiction between a provider and our records.

    The payment stays as it is, and staff resolve it."""


async def record_capture_by_id(
    connection: Connection, ids: IdGenerator, payment_id: UUID, provider_payment: ProviderPayment, now: datetime
) -> CaptureResult:
    """Lock the order of a payment, record its capture and update the order.

    Call inside a transaction. Raises `ProviderMismatch` if the payment does not exist, or as `record_capture`."""
    unlocked = await store.get_payment(connection, payment_id)
    order = await orders.lock_order(connection, unlocked.order_id) if unlocked else None
    payment = await store.get_payment(connection, payment_id)
    if order is None or payment is None:
        raise ProviderMismatch(f"there is no payment {payment_id}")
    if not await record_capture(connection, order, payment, provider_payment, now):
        return "unchanged"
    await update_order_and_payments(connection, ids, order, now)
    return "captured"


async def record_refund_by_id(connection: Connection, ids: IdGenerator, refund_id: UUID, now: datetime) -> RefundResult:
    """Lock the order of a refund and record that the refund is done.

    Call inside a transaction. Raises `ProviderMismatch` if the refund does not exist."""
    refund = await store.get_refund(connection, refund_id)
    order = await orders.lock_order(connection, refund.order_id) if refund else None
    payment = await store.get_payment(connection, refund.payment_id) if refund else None
    if order is None or payment is None:
        raise ProviderMismatch(f"there is no refund {refund_id}")
    return "refunded" if await record_refund(connection, payment, refund_id, now) else "unchanged"


async def record_capture(
    connection: Connection, order: OrderHeader, payment: Payment, provider_payment: ProviderPayment, now: datetime
) -> bool:
    """Mark a payment as captured and post it to the ledger. False if it was captured before.

    Call inside a transaction that holds the order lock. Raises `ProviderMismatch` if the amount is another, or if the
    payment was captured in another transaction of the provider."""
    if provider_payment.amount != payment.amount:
        raise ProviderMismatch(
            f"{payment.method} captured {provider_payment.amount}, but the payment is {payment.amount}"
        )
    if payment.status == "captured":
        if provider_payment.transaction_id != payment.transaction_id:
            transactions = f"{payment.transaction_id} and again in {provider_payment.transaction_id}"
            raise ProviderMismatch(f"paid in transaction {transactions}")
        return False
    captured_at, transaction_id = provider_payment.captured_at or now, provider_payment.transaction_id
    if not await store.mark_captured(connection, payment.payment_id, captured_at, transaction_id):
        return False
    source = {"balance": f"credit:{payment.user_id}", "cod": "cash"}.get(payment.method, f"provider:{payment.method}")
    entries = {source: payment.amount_minor, "orders": -payment.amount_minor}
    posting = f"capture {payment.payment_id}"
    await store.insert_posting(connection, posting, order.order_id, payment.currency, now, entries)
    return True


async def update_order_and_payments(
    connection: Connection, ids: IdGenerator, order: OrderHeader, now: datetime
) -> None:
    """Advance the order as far as its payments allow, and close or refund payments it does not need.

    Call inside a transaction that holds the order lock."""
    payments = await store.list_payments(connection, order.order_id)
    if not payments:
        return
    current = current_payments(payments)
    replaced = [payment for payment in payments if payment not in current]
    await _close_or_refund(connection, ids, replaced, now, "it was replaced by another")
    # A payment that is being refunded pays for nothing, though its status is still `captured`.
    refunds = await store.list_refunds(connection, order.order_id)
    refunded_ids = {refund.payment_id for refund in refunds if refund.status != "failed"}
    has_refunds = any(payment.payment_id in refunded_ids for payment in current)
    if order.status is OrderStatus.AWAITING_PAYMENT:
        await _update_awaiting_order(connection, ids, order, current, has_refunds, now)
    elif order.status is OrderStatus.CANCELLED:
        await _update_cancelled_order(connection, ids, order, current, has_refunds, now)


def current_payments(payments: Sequence[Payment]) -> list[Payment]:
    """Return the payments of the latest plan revision: only these count for the order."""
    revision = max((payment.plan_revision for payment in payments), default=0)
    return [payment for payment in payments if payment.plan_revision == revision]


def order_status_from_payments(current: Sequence[Payment]) -> OrderStatus | None:
    """Return the status that these payments allow, or None if they do not pay the order.

    `PAID` if all are captured, `CONFIRMED` if those that are not are cash on delivery."""
    if all(payment.status == "captured" for payment in current):
        return OrderStatus.PAID
    if all(payment.status in ("captured", "authorised") for payment in current):
        return OrderStatus.CONFIRMED
    return None


async def _update_awaiting_order(
    connection: Connection,
    ids: IdGenerator,
    order: OrderHeader,
    current: Sequence[Payment],
    has_refunds: bool,
    now: datetime,
) -> None:
    if not has_refunds and (status := order_status_from_payments(current)):
        reason = "all of it is paid" if status is OrderStatus.PAID else "to be paid on delivery"
        await orders.advance_status(connection, order.order_id, order.status, status, now, _ACTOR, reason)
    elif has_refunds or any(payment.status in ("failed", "closed") for payment in current):
        # An order is paid whole or not at all; the customer may start again while there is time.
        await _close_or_refund(connection, ids, current, now, "another part of the order was not paid")


async def _update_cancelled_order(
    connection: Connection,
    ids: IdGenerator,
    order: OrderHeader,
    current: Sequence[Payment],
    has_refunds: bool,
    now: datetime,
) -> None:
    if order.cancel_reason == "expired" and not has_refunds and order_status_from_payments(current):
        # The order was paid too late. Its stock is reacquired if there is any, which needs Redis and so is a job.
        if not any(payment.task == "recover_order" for payment in current):
            await store.put_internal_task(connection, current[0].payment_id, "recover_order", now)
        return
    await _close_or_refund(connection, ids, current, now, "the order was cancelled")


async def refund_late_payments(connection: Connection, ids: IdGenerator, order: OrderHeader, now: datetime) -> None:
    """Refund all payments of an expired order that the stock or the customer's limit does not allow.

    Call inside a transaction that holds the order lock."""
    payments = await store.list_payments(connection, order.order_id)
    await _close_or_refund(
        connection, ids, payments, now, "it came too late, and the stock or the customer's limit did not allow it"
    )


async def reinstate_order(connection: Connection, order: OrderHeader, now: datetime) -> None:
    """Advance an expired order whose stock was reacquired.

    Call inside a transaction that holds the order lock. Raises `ProviderMismatch` if it is no longer paid."""
    status = order_status_from_payments(current_payments(await store.list_payments(connection, order.order_id)))
    if status is None:
        raise ProviderMismatch("the stock was reacquired, but the order is no longer paid")
    reason = "paid late, and the stock was still available"
    await orders.advance_status(connection, order.order_id, order.status, status, now, _ACTOR, reason)


async def _close_or_refund(
    connection: Connection, ids: IdGenerator, payments: Sequence[Payment], now: datetime, reason: str
) -> None:
    """Make sure that none of these payments takes or keeps money."""
    pending = [payment.payment_id for payment in payments if payment.status == "pending"]
    await store.schedule_close(connection, pending, now)
    for payment in payments:
        if payment.status == "authorised":
            await store.end_payment(connection, payment.payment_id, "closed", now, reason)
        elif payment.status == "captured":
            await refund_remaining(connection, ids, payment, "whole", reason, _ACTOR, now)


async def refund_remaining(
    connection: Connection,
    ids: IdGenerator,
    payment: Payment,
    refund_key: str,
    reason: str,
    actor: str,
    now: datetime,
    max_minor: int = 2**62,
) -> int:
    """Insert a refund for the part of a payment that is not refunded yet, up to `max_minor` minor units.

    Call inside a transaction that holds the order lock. Returns the amount in minor units; 0 if nothing is left or
    `refund_key` was used before. Refunds of internal methods (store credit, cash) complete at once."""
    refunds = await store.list_refunds(connection, payment.order_id)
    refunded = sum(
        refund.amount_minor
        for refund in refunds
        if refund.payment_id == payment.payment_id and refund.status != "failed"
    )
    amount = min(payment.amount_minor - refunded, max_minor)
    if amount <= 0:
        return 0
    refund_id = ids.new()
    if not await store.insert_refund(connection, refund_id, payment, refund_key, amount, reason, actor, now):
        return 0
    if payment.method in INTERNAL_METHODS:
        # No provider is called, so it completes at once: another tender may need that very credit.
        await record_refund(connection, payment, refund_id, now)
    return amount


async def record_refund(connection: Connection, payment: Payment, refund_id: UUID, now: datetime) -> bool:
    """Mark a refund as done and post it to the ledger. False if it was done before.

    Call inside a transaction that holds the order lock."""
    amount = await store.mark_refunded(connection, refund_id, now)
    if amount is None:
        return False
    # Collected cash is refunded as store credit, because there is no driver to hand it over.
    target = f"credit:{payment.user_id}" if payment.method in INTERNAL_METHODS else f"provider:{payment.method}"
    if payment.method in INTERNAL_METHODS:
        await store.adjust_store_credit(connection, payment.user_id, payment.currency, amount)
    entries = {target: -amount, "orders": amount}
    await store.insert_posting(connection, f"refund {refund_id}", payment.order_id, payment.currency, now, entries)
    return True
