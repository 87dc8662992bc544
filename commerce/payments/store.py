"""Rows of payments, refunds, webhooks and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.jobs import store as jobs
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import FULFILMENTS, Method
from commerce.orders.store import OrderHeader
from commerce.payments.model import ClaimedRefund, ParkedJob, Payment, Refund, Task
from commerce.payments.provider_port import PaymentAction, PaymentWebhook, ProviderRefund
from commerce.payments.tenders import PlannedTender

_PAYMENT_COLUMNS, _REFUND_COLUMNS = Payment.__struct_fields__, Refund.__struct_fields__
queries = load_queries(__package__, payments=_PAYMENT_COLUMNS, refunds=_REFUND_COLUMNS)
_MAX_REASON_CHARACTERS = 500
TRANSACTION_CONSTRAINT = "payments_method_transaction_id_key"


class RecordedMovement(NamedTuple):
    """A capture (without refund id) or a refund in our own records."""

    payment_id: UUID
    refund_id: UUID | None
    amount: Money
    transaction_id: str | None


# Payments.


async def list_payments(connection: Connection, order_id: UUID) -> list[Payment]:
    """List an order's payments, those of the current plan revision last."""
    return [_payment(row) for row in await connection.fetch(queries.list_payments, order_id)]


async def get_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    row = await connection.fetchrow(queries.get_payment, payment_id)
    return _payment(row) if row else None


def _payment(row: Any) -> Payment:
    values = {column: row[column] for column in _PAYMENT_COLUMNS}
    if values["action"] is not None:
        values["action"] = msgspec.json.decode(values["action"], type=PaymentAction)
    return Payment(**values)


async def insert_payments(
    connection: Connection,
    order: OrderHeader,
    plan_revision: int,
    tenders: Sequence[tuple[UUID, PlannedTender]],
    now: datetime,
    subject: str | None,
) -> None:
    """Insert the payments of a new plan revision, for each tender with its payment id."""
    await connection.execute(
        queries.insert_payments,
        [payment_id for payment_id, _ in tenders],
        order.order_id,
        order.user_id,
        plan_revision,
        order.total.currency,
        now,
        subject,
        [tender.method for _, tender in tenders],
        [tender.flow for _, tender in tenders],
        [tender.payer for _, tender in tenders],
        [tender.amount_minor for _, tender in tenders],
        [tender.expires_at for _, tender in tenders],
        [tender.return_url for _, tender in tenders],
        [tender.payer_ip for _, tender in tenders],
    )


async def get_first_product(connection: Connection, order_id: UUID) -> tuple[str, str, int, int] | None:
    """Return an order's first product as (name, SKU, quantity), and the number of its other products."""
    row = await connection.fetchrow(queries.get_first_product, order_id)
    return (row["name"], row["sku"], row["quantity"], row["other_products"]) if row else None


async def renew_action(connection: Connection, payment_id: UUID, return_url: str | None, now: datetime) -> None:
    """Have the payment worker request a payment again for a new action; None keeps the return URL."""
    await connection.execute(queries.renew_action, payment_id, return_url, now)


async def mark_requested(connection: Connection, payment_id: UUID, action: PaymentAction, due_at: datetime) -> bool:
    """Store the customer's action and schedule the first poll.

    False if the payment is no longer waiting to be created."""
    text = msgspec.json.encode(action).decode()
    return await _changes_row(connection, queries.mark_requested, payment_id, text, due_at)


async def mark_captured(
    connection: Connection, payment_id: UUID, captured_at: datetime, transaction_id: str | None, now: datetime
) -> bool:
    """Mark a payment as captured. False if it was captured before."""
    return await _changes_row(connection, queries.mark_captured, payment_id, captured_at, transaction_id, now)


async def mark_authorised(connection: Connection, payment_id: UUID) -> bool:
    return await _changes_row(connection, queries.mark_authorised, payment_id)


async def end_payment(
    connection: Connection, payment_id: UUID, status: str, now: datetime, reason: str, provider_error: str | None = None
) -> bool:
    """Mark a payment as failed or closed: no money was taken and none will be.

    The customer sees `reason`, and only staff `provider_error`. False if it has ended before or is captured."""
    reason = reason[:_MAX_REASON_CHARACTERS]
    provider_error = provider_error and provider_error[:_MAX_REASON_CHARACTERS]
    return await _changes_row(connection, queries.end_payment, payment_id, status, now, reason, provider_error)


async def schedule_close(connection: Connection, payment_ids: Sequence[UUID], now: datetime) -> None:
    """Have the payment worker close pending payments now, parked ones too."""
    if payment_ids:
        await connection.execute(queries.schedule_close, payment_ids, now)


async def set_task(connection: Connection, payment_id: UUID, task: Task | None, due_at: datetime) -> None:
    await connection.execute(queries.set_task, payment_id, task, due_at)


async def schedule_poll(connection: Connection, job: Payment, due_at: datetime, task: Task) -> None:
    """Schedule the next query or close of a payment, unless its task was changed in the meantime."""
    await connection.execute(queries.schedule_poll, job.payment_id, due_at, task, job.task)


async def postpone_payment(connection: Connection, job: Payment, due_at: datetime, reason: str, *, park: bool) -> None:
    """Store why a job failed and when it is tried again; a parked one is not.

    Does nothing if its task was changed in the meantime."""
    values = (job.payment_id, due_at, reason[:_MAX_REASON_CHARACTERS], park, job.task)
    await connection.execute(queries.postpone_payment, *values)


async def claim_payments(
    connection: Connection, now: datetime, lease_s: int, count: int, excluded_methods: Sequence[str]
) -> list[Payment]:
    """Claim due payments for `lease_s` seconds, without those that call an excluded method."""
    rows = await connection.fetch(queries.claim_payments, now, lease_s, count, excluded_methods)
    return [_payment(row) for row in rows]


async def is_fully_refunded(connection: Connection, order_id: UUID) -> bool:
    """Tell if all money of an order is refunded or being refunded.

    Cash that is still to be collected counts as money."""
    result: bool = await connection.fetchval(queries.is_fully_refunded, order_id)
    return result


async def list_cash_due(connection: Connection, order_id: UUID) -> list[tuple[UUID, int]]:
    """List the cash that is still to be collected on delivery, as (payment id, minor units)."""
    rows = await connection.fetch(queries.list_cash_due, order_id)
    return [(row["payment_id"], row["amount_minor"]) for row in rows]


# Refunds.


async def list_refunds(connection: Connection, order_id: UUID) -> list[Refund]:
    """List an order's refunds, oldest first."""
    return [_refund(row) for row in await connection.fetch(queries.list_refunds, order_id)]


async def get_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    row = await connection.fetchrow(queries.get_refund, refund_id)
    return _refund(row) if row else None


def _refund(row: Any) -> Refund:
    return Refund(**{column: row[column] for column in _REFUND_COLUMNS})


async def insert_refund(
    connection: Connection,
    refund_id: UUID,
    payment: Payment,
    refund_key: str,
    amount_minor: int,
    reason: str,
    actor: str,
    now: datetime,
) -> bool:
    """Insert a refund that is due now. False if the payment has a refund with this key.

    The order becomes due for fulfilment: perhaps its shipments must be stopped."""
    jobs.wake_after_commit(connection, FULFILMENTS)
    return await _changes_row(
        connection,
        queries.insert_refund,
        *(refund_id, payment.payment_id, payment.order_id, refund_key, amount_minor, payment.currency),
        *(reason, actor, now),
    )


async def mark_refunded(connection: Connection, refund_id: UUID, now: datetime) -> int | None:
    """Mark a refund as done and add it to its payment.

    Returns the minor units, or None if it was done before."""
    row = await connection.fetchrow(queries.mark_refunded, refund_id, now)
    if row is None:
        return None
    await connection.execute(queries.add_refunded_amount, row["payment_id"], row["amount_minor"])
    return int(row["amount_minor"])


async def mark_refund_requested(connection: Connection, refund_id: UUID) -> None:
    await connection.execute(queries.mark_refund_requested, refund_id)


async def schedule_refund_poll(connection: Connection, refund_id: UUID, due_at: datetime) -> None:
    await connection.execute(queries.schedule_refund_poll, refund_id, due_at)


async def postpone_refund(
    connection: Connection, refund_id: UUID, due_at: datetime, reason: str, *, park: bool
) -> None:
    """Store why a refund failed and when it is tried again; a parked one is not."""
    await connection.execute(queries.postpone_refund, refund_id, due_at, reason[:_MAX_REASON_CHARACTERS], park)


async def claim_refunds(
    connection: Connection, now: datetime, lease_s: int, count: int, excluded_methods: Sequence[str]
) -> list[ClaimedRefund]:
    """Claim due refunds for `lease_s` seconds, without those of the excluded methods."""
    return [
        ClaimedRefund(_refund(row), row["method"], row["user_id"], row["captured_minor"])
        for row in await connection.fetch(queries.claim_refunds, now, lease_s, count, excluded_methods)
    ]


# Webhooks.


async def insert_webhook(
    connection: Connection, method: Method, webhook: PaymentWebhook, now: datetime, body: bytes
) -> bool:
    """Store a webhook with the result `received`. False if it was stored before."""
    subject = webhook.subject
    refund_id = subject.refund_id if isinstance(subject, ProviderRefund) else None
    values = (method, webhook.webhook_id, subject.payment_id, refund_id, now, body)
    return await connection.fetchval(queries.insert_webhook, *values) is not None


async def set_webhook_result(connection: Connection, method: Method, webhook_id: str, result: str) -> None:
    await connection.execute(queries.set_webhook_result, method, webhook_id, result[:_MAX_REASON_CHARACTERS])


async def get_webhook_result(connection: Connection, method: Method, webhook_id: str) -> str | None:
    result: str | None = await connection.fetchval(queries.get_webhook_result, method, webhook_id)
    return result


# The ledger and store credit.


async def insert_posting(
    connection: Connection,
    posting: str,
    order_id: UUID | None,
    currency: str,
    now: datetime,
    entries: Mapping[str, int],
) -> None:
    """Insert ledger entries (account: minor units) that add up to zero.

    Raises `UniqueViolationError` if the posting exists."""
    assert sum(entries.values()) == 0
    values = (posting, order_id, currency, now, list(entries), list(entries.values()))
    await connection.execute(queries.insert_posting, *values)


async def get_posting(connection: Connection, posting: str) -> set[tuple[str, int, str]]:
    """Return a posting's entries as (account, minor units, currency)."""
    rows = await connection.fetch(queries.get_posting, posting)
    return {(row["account"], row["amount_minor"], row["currency"]) for row in rows}


async def adjust_store_credit(connection: Connection, user_id: str, currency: str, amount_minor: int) -> bool:
    """Add to a user's store credit, or take from it. False if there is not enough."""
    await connection.execute(queries.open_credit_account, user_id, currency)
    return await connection.fetchval(queries.adjust_store_credit, user_id, currency, amount_minor) is not None


async def list_credit_balances(connection: Connection, user_id: str) -> list[Money]:
    rows = await connection.fetch(queries.list_credit_balances, user_id)
    return [Money(row["balance_minor"], row["currency"]) for row in rows]


async def read_newest_entry(connection: Connection) -> int:
    """Return the highest line id, 0 if there is no entry."""
    return int(await connection.fetchval(queries.read_newest_entry))


async def list_ledger_writers(connection: Connection) -> set[str]:
    """Return the transactions that have inserted, or are about to insert, entries."""
    return {row["virtualtransaction"] for row in await connection.fetch(queries.list_ledger_writers)}


async def sum_entries(connection: Connection, after: int, up_to: int) -> dict[str, int]:
    """Sum the entries with these line ids by currency, in minor units."""
    return {row["currency"]: row["amount"] for row in await connection.fetch(queries.sum_entries, after, up_to)}


# Parked jobs and reconciliation.


async def list_parked_jobs(connection: Connection) -> list[ParkedJob]:
    """List parked payments and refunds by order."""
    return [
        ParkedJob(
            kind=row["kind"],
            id=row["id"],
            order_id=row["order_id"],
            method=row["method"],
            amount=Money(row["amount_minor"], row["currency"]),
            task=row["task"] or "",
            attempts=row["attempts"],
            reason=row["last_error"] or "",
        )
        for row in await connection.fetch(queries.list_parked_jobs)
    ]


async def retry_parked_job(connection: Connection, job_id: UUID, now: datetime) -> bool:
    """Make a parked payment or refund due now. False if none with this id is parked."""
    statements = (queries.retry_payment, queries.retry_refund)
    return any([await _changes_row(connection, statement, job_id, now) for statement in statements])


async def list_movements(connection: Connection, method: str, start: datetime, end: datetime) -> list[RecordedMovement]:
    """List a provider's captures and completed refunds from `start` until before `end`."""
    movements = []
    for statement in (queries.list_captures, queries.list_completed_refunds):
        for row in await connection.fetch(statement, method, start, end):
            amount = Money(row["amount_minor"], row["currency"])
            movements.append(RecordedMovement(row["payment_id"], row["refund_id"], amount, row["transaction_id"]))
    return movements


async def _changes_row(connection: Connection, statement: str, *values: object) -> bool:
    status: str = await connection.execute(statement, *values)
    return not status.endswith(" 0")
