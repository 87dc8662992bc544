"""Rows of payments, refunds, webhooks and the ledger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.jobs import store as jobs
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import OrderStatus
from commerce.payments.model import (
    OrderOfPayment,
    Payment,
    ReceivedWebhook,
    Refund,
    RequestedPayment,
    WebhookKey,
)
from commerce.payments.order_status import COLLECTED, Capture, Ending
from commerce.payments.provider_port import PaymentAction, ProviderRefund
from commerce.payments.tenders import ActionRenewal, NewPayment

_PAYMENT_FIELDS, _REFUND_COLUMNS = Payment.__struct_fields__, Refund.__struct_fields__
_PAYMENT_COLUMNS = [field for field in _PAYMENT_FIELDS if field != "task"]
queries = load_queries(__package__, payments=_PAYMENT_COLUMNS, inserted=_PAYMENT_COLUMNS, refunds=_REFUND_COLUMNS)
PAYMENTS, REFUNDS = "payments", "refunds"
"""queues of the payment worker"""
_MAX_REASON_CHARACTERS = 500
TRANSACTION_CONSTRAINT = "payments_method_transaction_id_key"


class RecordedMovement(NamedTuple):
    """A capture (without refund id) or a refund in our own records, with the provider's number of it.

    Refunds of earlier versions have no number."""

    payment_id: UUID
    refund_id: UUID | None
    amount: Money
    number: str | None


# Payments.


async def lock_orders(connection: Connection, payment_ids: Sequence[UUID], *, may_wait: bool) -> list[OrderOfPayment]:
    """Lock the orders of payments, in the sequence of their ids.

    Without `may_wait`, those that another transaction has locked are left out."""
    statement = queries.lock_orders if may_wait else queries.lock_free_orders
    rows = await connection.fetch(statement, payment_ids)
    return [OrderOfPayment(row["order_id"], OrderStatus(row["status"]), row["cancel_reason"]) for row in rows]


async def list_payments(connection: Connection, order_id: UUID) -> list[Payment]:
    """List an order's payments, those of the current plan revision last."""
    return (await list_payments_of_orders(connection, [order_id]))[order_id]


async def list_payments_of_orders(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, list[Payment]]:
    """List the payments of each of these orders, as `list_payments` does."""
    payments: dict[UUID, list[Payment]] = {order_id: [] for order_id in order_ids}
    for row in await connection.fetch(queries.list_payments, order_ids):
        payments[row["order_id"]].append(_payment(row))
    return payments


async def get_payment(connection: Connection, payment_id: UUID) -> Payment | None:
    return (await get_payments(connection, [payment_id])).get(payment_id)


async def get_payments(connection: Connection, payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
    rows = await connection.fetch(queries.get_payments, payment_ids)
    return {row["payment_id"]: _payment(row) for row in rows}


def _payment(row: Any) -> Payment:
    values = {field: row[field] for field in _PAYMENT_FIELDS}
    if values["action"] is not None:
        values["action"] = msgspec.json.decode(values["action"], type=PaymentAction)
    return Payment(**values)


async def insert_payments(
    connection: Connection, payments: Sequence[NewPayment], now: datetime
) -> dict[UUID, list[Payment]]:
    """Insert payments of any orders, with their jobs. Returns them by order, those of an order by tender."""
    inserted: dict[UUID, list[Payment]] = defaultdict(list)
    if payments:
        rows = await connection.fetch(
            queries.insert_payments,
            now,
            [payment.payment_id for payment in payments],
            [payment.order.order_id for payment in payments],
            [payment.order.user_id for payment in payments],
            [payment.plan_revision for payment in payments],
            [payment.tender_no for payment in payments],
            [payment.tender.method for payment in payments],
            [payment.tender.flow for payment in payments],
            [payment.tender.payer for payment in payments],
            [payment.tender.amount_minor for payment in payments],
            [payment.order.total.currency for payment in payments],
            [payment.tender.expires_at for payment in payments],
            [payment.subject for payment in payments],
            [payment.tender.return_url for payment in payments],
            [payment.tender.payer_ip for payment in payments],
        )
        jobs.wake_after_commit(connection, PAYMENTS)
        for row in rows:
            inserted[row["order_id"]].append(_payment(row))
    return inserted


async def list_without_cod_fee(connection: Connection, order_ids: Sequence[UUID]) -> list[UUID]:
    """Return those of the orders that lack the fee of their sale for cash on delivery."""
    return [row["order_id"] for row in await connection.fetch(queries.list_without_cod_fee, order_ids)]


async def get_first_products(
    connection: Connection, order_ids: Sequence[UUID]
) -> dict[UUID, tuple[str, str, int, int]]:
    """Return each order's first product as (name, SKU, quantity), and the number of its other products."""
    rows = await connection.fetch(queries.get_first_products, order_ids) if order_ids else []
    return {row["order_id"]: (row["name"], row["sku"], row["quantity"], row["other_products"]) for row in rows}


async def renew_actions(connection: Connection, renewals: Sequence[ActionRenewal], now: datetime) -> None:
    """Have the payment worker request payments again for new actions."""
    if renewals:
        renewals = sorted(renewals)
        payment_ids, return_urls = zip(*renewals, strict=True)
        await connection.execute(queries.renew_actions, payment_ids, return_urls, now)
        jobs.wake_after_commit(connection, PAYMENTS)


async def mark_requested(connection: Connection, requested: Sequence[RequestedPayment]) -> set[UUID]:
    """Store the customers' actions and schedule the first polls, while the claims hold.

    Returns the ids of the payments that were waiting for it."""
    requested = sorted(requested, key=lambda item: item.job.subject)  # all statements lock jobs in this sequence
    rows = await connection.fetch(
        queries.mark_requested,
        [item.job.subject for item in requested],
        [item.job.attempts for item in requested],
        [item.job.leased_until for item in requested],
        [msgspec.json.encode(item.action).decode() for item in requested],
        [item.poll_at for item in requested],
    )
    return {row["subject"] for row in rows}


async def mark_captured(connection: Connection, captures: Sequence[Capture], now: datetime) -> None:
    """Mark payments as captured, and post each to the ledger unless it was captured before."""
    if not captures:
        return
    captures = sorted(captures, key=lambda capture: capture.payment.payment_id)
    await connection.execute(
        queries.mark_captured,
        [capture.payment.payment_id for capture in captures],
        [capture.captured_at for capture in captures],
        [capture.transaction_id for capture in captures],
        [capture.source for capture in captures],
        [capture.uncollected_minor for capture in captures],
        now,
    )


async def mark_authorised(connection: Connection, payment_ids: Sequence[UUID]) -> None:
    if payment_ids:
        await connection.execute(queries.mark_authorised, sorted(payment_ids))


async def end_payments(connection: Connection, endings: Sequence[Ending], now: datetime) -> None:
    """Mark payments as failed or closed, unless they have ended before or are captured."""
    if not endings:
        return
    endings = sorted(endings, key=lambda ending: ending.payment_id)
    await connection.execute(
        queries.end_payments,
        [ending.payment_id for ending in endings],
        [ending.status for ending in endings],
        [ending.reason[:_MAX_REASON_CHARACTERS] for ending in endings],
        [ending.provider_error and ending.provider_error[:_MAX_REASON_CHARACTERS] for ending in endings],
        now,
    )


async def schedule_close(connection: Connection, payment_ids: Sequence[UUID], now: datetime) -> None:
    """Have the payment worker close pending payments now, parked ones too."""
    if payment_ids:
        await connection.execute(queries.schedule_close, sorted(payment_ids), now)
        jobs.wake_after_commit(connection, PAYMENTS)


async def list_fully_refunded(connection: Connection, order_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of the orders of which all money is refunded or being refunded.

    Cash that is still to be collected counts as money."""
    rows = await connection.fetch(queries.list_fully_refunded, order_ids)
    return {row["order_id"] for row in rows}


async def list_cash_due(connection: Connection, order_id: UUID) -> list[tuple[UUID, int]]:
    """List the cash that is still to be collected on delivery, as (payment id, minor units)."""
    rows = await connection.fetch(queries.list_cash_due, [order_id])
    return [(row["payment_id"], row["amount_minor"]) for row in rows]


async def sum_cash_due(connection: Connection, order_ids: Sequence[UUID]) -> Counter[UUID]:
    """Sum up the cash that is still to be collected on delivery, in minor units by order."""
    sums = Counter[UUID]()
    for row in await connection.fetch(queries.list_cash_due, order_ids):
        sums[row["order_id"]] += row["amount_minor"]
    return sums


async def get_cash_due(connection: Connection, order_id: UUID) -> int:
    """Return the cash that an order has to bring on delivery, collected or not, in minor units."""
    return int(await connection.fetchval(queries.get_cash_due, order_id))


async def get_taken_off_cash(connection: Connection, order_id: UUID) -> int:
    """Return what refund grants have taken off the cash that is due on delivery, in minor units."""
    return int(await connection.fetchval(queries.get_taken_off_cash, order_id))


async def sum_uncaptured_cash(connection: Connection, order_ids: Sequence[UUID]) -> Counter[UUID]:
    """Sum up the cash that was collected for payments which are not captured yet, in minor units by order."""
    rows = await connection.fetch(queries.sum_uncaptured_cash, order_ids, COLLECTED)
    return Counter({row["order_id"]: row["amount_minor"] for row in rows})


async def list_captured_late(connection: Connection, order_ids: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
    """List the payments of cancelled orders that were captured after that, as (order, payment)."""
    rows = await connection.fetch(queries.list_captured_late, order_ids) if order_ids else []
    return [(row["order_id"], row["payment_id"]) for row in rows]


# Refunds.


async def list_refunds(connection: Connection, order_id: UUID) -> list[Refund]:
    """List an order's refunds, oldest first."""
    return await list_refunds_of_orders(connection, [order_id])


async def list_refunds_of_orders(connection: Connection, order_ids: Sequence[UUID]) -> list[Refund]:
    """List the refunds of orders, oldest first."""
    return [read_refund(row) for row in await connection.fetch(queries.list_refunds, order_ids)]


async def get_refund(connection: Connection, refund_id: UUID) -> Refund | None:
    row = await connection.fetchrow(queries.get_refund, refund_id)
    return read_refund(row) if row else None


def read_refund(row: Any) -> Refund:
    """Convert a row with the columns of `refunds`."""
    return Refund(**{column: row[column] for column in _REFUND_COLUMNS})


# Webhooks.


async def insert_webhooks(
    connection: Connection, webhooks: Sequence[tuple[ReceivedWebhook, str]], now: datetime
) -> set[WebhookKey]:
    """Store webhooks with their results, those that were not stored before. Returns their keys."""
    webhooks = sorted(webhooks, key=lambda item: item[0].key)  # transactions with the same ones do not block each other
    subjects = [received.webhook.subject for received, _ in webhooks]
    rows = await connection.fetch(
        queries.insert_webhooks,
        [received.method for received, _ in webhooks],
        [received.webhook.webhook_id for received, _ in webhooks],
        [subject.payment_id for subject in subjects],
        [subject.refund_id if isinstance(subject, ProviderRefund) else None for subject in subjects],
        [result[:_MAX_REASON_CHARACTERS] for _, result in webhooks],
        [received.body for received, _ in webhooks],
        now,
    )
    return {(row["method"], row["webhook_id"]) for row in rows}


async def get_webhook_results(connection: Connection, keys: Sequence[WebhookKey]) -> dict[WebhookKey, str]:
    """Return the results of those of the webhooks that are stored."""
    methods, webhook_ids = [method for method, _ in keys], [webhook_id for _, webhook_id in keys]
    rows = await connection.fetch(queries.get_webhook_results, methods, webhook_ids)
    return {(row["method"], row["webhook_id"]): row["result"] for row in rows}


# The ledger and store credit.


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


# Reconciliation.


async def list_movements(connection: Connection, method: str, start: datetime, end: datetime) -> list[RecordedMovement]:
    """List a provider's captures and completed refunds from `start` until before `end`."""
    movements = []
    for statement in (queries.list_captures, queries.list_completed_refunds):
        for row in await connection.fetch(statement, method, start, end):
            amount = Money(row["amount_minor"], row["currency"])
            movements.append(RecordedMovement(row["payment_id"], row["refund_id"], amount, row["number"]))
    return movements
