"""The rows of payments, refunds, callbacks and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import Method
from commerce.orders.store import OrderHeader
from commerce.payments.model import ClaimedRefund, ParkedJob, Payment, Refund, Task, TenderInput
from commerce.payments.provider_port import PaymentAction, PaymentWebhook, ProviderRefund

queries = load_queries(__package__)
_PAYMENT, _REFUND = Payment.__struct_fields__, Refund.__struct_fields__


class RecordedMovement(NamedTuple):
    """A capture (no refund id) or a refund in our own books."""

    payment_id: UUID
    refund_id: UUID | None
    amount: Money
    transaction_id: str | None


def _payment(row: Any) -> Payment:
    values = {name: row[name] for name in _PAYMENT}
    if values["action"] is not None:
        values["action"] = msgspec.json.decode(values["action"], type=PaymentAction)
    return Payment(**values)


def _refund(row: Any) -> Refund:
    return Refund(**{name: row[name] for name in _REFUND})


async def payments_of(connection: Connection, order_id: UUID) -> list[Payment]:
    return [_payment(row) for row in await connection.fetch(queries.payments_of, order_id)]


async def payment(connection: Connection, payment_id: UUID) -> Payment | None:
    row = await connection.fetchrow(queries.payment, payment_id)
    return _payment(row) if row else None


async def refunds_of(connection: Connection, order_id: UUID) -> list[Refund]:
    return [_refund(row) for row in await connection.fetch(queries.refunds_of, order_id)]


async def refund(connection: Connection, refund_id: UUID) -> Refund | None:
    row = await connection.fetchrow(queries.refund, refund_id)
    return _refund(row) if row else None


async def add_payments(
    connection: Connection,
    order: OrderHeader,
    round_: int,
    parts: Sequence[tuple[UUID, TenderInput, str]],
    now: datetime,
    expires_at: datetime,
) -> None:
    """A new round; each part with its id and its scene."""
    await connection.execute(
        queries.add_payments,
        [id_ for id_, _, _ in parts],
        order.order_id,
        order.user_id,
        round_,
        order.total.currency,
        now,
        expires_at,
        [part.method for _, part, _ in parts],
        [scene for _, _, scene in parts],
        [part.payer for _, part, _ in parts],
        [part.amount for _, part, _ in parts],
    )


async def mark_requested(connection: Connection, payment_id: UUID, action: PaymentAction, due_at: datetime) -> bool:
    text = msgspec.json.encode(action).decode()
    return await _changed(connection, queries.asked, payment_id, text, due_at)


async def capture(
    connection: Connection,
    payment_id: UUID,
    at: datetime,
    transaction_id: str | None,
    now: datetime,
) -> bool:
    """Money was taken. False if that was written down before."""
    return await _changed(connection, queries.capture, payment_id, at, transaction_id, now)


async def authorise(connection: Connection, payment_id: UUID) -> bool:
    return await _changed(connection, queries.authorise, payment_id)


async def end_payment(connection: Connection, payment_id: UUID, status: str, now: datetime, reason: str) -> bool:
    """It failed or is closed: no money was taken, none will be."""
    return await _changed(connection, queries.finish, payment_id, status, now, reason[:500])


async def schedule_close(connection: Connection, payment_ids: Sequence[UUID], now: datetime) -> None:
    if payment_ids:
        await connection.execute(queries.close_soon, payment_ids, now)


async def set_task(connection: Connection, payment_id: UUID, task: Task | None, due_at: datetime) -> None:
    await connection.execute(queries.set_task, payment_id, task, due_at)


async def add_refund(
    connection: Connection,
    refund_id: UUID,
    paid: Payment,
    key: str,
    amount: int,
    reason: str,
    actor: str,
    now: datetime,
) -> bool:
    """A refund that is to be made. False if there is one under the key."""
    return await _changed(
        connection,
        queries.add_refund,
        *(refund_id, paid.payment_id, paid.order_id, key, amount, paid.currency, reason, actor, now),
    )


async def finish_refund(connection: Connection, refund_id: UUID, now: datetime) -> int | None:
    """It went back: the amount, or None if that was known."""
    row = await connection.fetchrow(queries.finish_refund, refund_id, now)
    if row is None:
        return None
    await connection.execute(queries.count_refunded, row["payment_id"], row["amount_minor"])
    return int(row["amount_minor"])


async def mark_refund_requested(connection: Connection, refund_id: UUID) -> None:
    await connection.execute(queries.refund_asked, refund_id)


async def claim_payments(
    connection: Connection, now: datetime, lease_s: int, count: int, without: Sequence[str]
) -> list[Payment]:
    """Due payments, except those of some methods; out of the way of others for the length of a lease."""
    return [_payment(row) for row in await connection.fetch(queries.claim_payments, now, lease_s, count, without)]


async def claim_refunds(
    connection: Connection, now: datetime, lease_s: int, count: int, without: Sequence[str]
) -> list[ClaimedRefund]:
    return [
        ClaimedRefund(_refund(row), row["method"], row["user_id"], row["captured_minor"])
        for row in await connection.fetch(queries.claim_refunds, now, lease_s, count, without)
    ]


async def postpone_payment(connection: Connection, job: Payment, due_at: datetime, why: str, *, park: bool) -> None:
    await connection.execute(queries.postpone_payment, job.payment_id, due_at, why[:500], park, job.task)


async def postpone_refund(connection: Connection, id_: UUID, due_at: datetime, why: str, *, park: bool) -> None:
    await connection.execute(queries.postpone_refund, id_, due_at, why[:500], park)


async def schedule_refund_poll(connection: Connection, id_: UUID, due_at: datetime) -> None:
    await connection.execute(queries.refund_waits, id_, due_at)


async def schedule_poll(connection: Connection, job: Payment, due_at: datetime, task: Task) -> None:
    await connection.execute(queries.look_again, job.payment_id, due_at, task, job.task)


async def insert_webhook(
    connection: Connection, method: Method, notice: PaymentWebhook, now: datetime, body: bytes
) -> bool:
    """False if it was stored before."""
    seen = notice.subject
    refund_id = seen.refund_id if isinstance(seen, ProviderRefund) else None
    values = (method, notice.webhook_id, seen.payment_id, refund_id, now, body)
    return await connection.fetchval(queries.add_notice, *values) is not None


async def set_webhook_result(connection: Connection, method: Method, notice_id: str, result: str) -> None:
    await connection.execute(queries.notice_result, method, notice_id, result)


async def get_webhook_result(connection: Connection, method: Method, notice_id: str) -> str | None:
    found: str | None = await connection.fetchval(queries.notice, method, notice_id)
    return found


async def insert_posting(
    connection: Connection, posting: str, order_id: UUID | None, currency: str, now: datetime, lines: Mapping[str, int]
) -> None:
    """Enter lines that add up to nothing into the ledger; a posting is entered once, a repeat is a unique violation."""
    assert sum(lines.values()) == 0
    await connection.execute(queries.post, posting, order_id, currency, now, list(lines), list(lines.values()))


async def get_posting(connection: Connection, posting: str) -> set[tuple[str, int, str]]:
    """A posting's lines: (account, amount, currency)."""
    rows = await connection.fetch(queries.posted, posting)
    return {(row["account"], row["amount_minor"], row["currency"]) for row in rows}


async def adjust_store_credit(connection: Connection, user_id: str, currency: str, amount: int) -> bool:
    """Add to a user's store credit, or take from it; False where there is not enough."""
    await connection.execute(queries.open_credit, user_id, currency)
    return await connection.fetchval(queries.move_credit, user_id, currency, amount) is not None


async def credit(connection: Connection, user_id: str) -> list[Money]:
    return [Money(row["balance_minor"], row["currency"]) for row in await connection.fetch(queries.credit, user_id)]


async def parked(connection: Connection) -> list[ParkedJob]:
    """What was given up, by order."""
    return [
        ParkedJob(
            row["kind"],
            row["id"],
            row["order_id"],
            row["method"],
            Money(row["amount_minor"], row["currency"]),
            row["task"] or "",
            row["attempts"],
            row["last_error"] or "",
        )
        for row in await connection.fetch(queries.parked)
    ]


async def retry(connection: Connection, id_: UUID, now: datetime) -> bool:
    """Take up a parked payment or refund again."""
    done = [await _changed(connection, query, id_, now) for query in (queries.retry_payment, queries.retry_refund)]
    return any(done)


async def movements_between(
    connection: Connection, method: str, start: datetime, end: datetime
) -> list[RecordedMovement]:
    """What we have of a provider in a stretch of time: captures, and refunds that are done."""
    found = []
    for query in (queries.captured_between, queries.refunded_between):
        for row in await connection.fetch(query, method, start, end):
            amount = Money(row["amount_minor"], row["currency"])
            found.append(RecordedMovement(row["payment_id"], row["refund_id"], amount, row["transaction_id"]))
    return found


async def _changed(connection: Connection, query: str, *values: object) -> bool:
    done: str = await connection.execute(query, *values)
    return not done.endswith(" 0")
