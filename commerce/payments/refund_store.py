"""Rows of refunds, written in sets. What only reads them by their orders is in `store.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.orders.model import CANCELLATIONS, RefundWay
from commerce.payments.model import Refund, RefundToRequest, StuckRefundView
from commerce.payments.order_status import FailedRefund, NewRefund, StuckRefund, WaitingRefund
from commerce.payments.store import REFUNDS, queries, read_refund

_MAX_TEXT_CHARACTERS = 500


class OtherWay(NamedTuple):
    """A row of `refund_other_ways`."""

    way: RefundWay
    proof: str
    recorded_by: str
    confirmed_by: str | None


class RefundLoad(NamedTuple):
    """Waiting refunds of a method and currency for one reason, `since` the first of them."""

    method: str
    currency: str
    reason: str
    refunds: int
    amount_minor: int
    since: datetime


async def insert_refunds(connection: Connection, refunds: Mapping[UUID, NewRefund], now: datetime) -> set[UUID]:
    """Insert refunds by their ids, with jobs that are due now. Returns the ids of those that are new.

    Their orders become due for fulfilment: perhaps shipments must be stopped."""
    if not refunds:
        return set()
    jobs.wake_after_commit(connection, CANCELLATIONS)
    jobs.wake_after_commit(connection, REFUNDS)
    rows = await connection.fetch(
        queries.insert_refunds,
        now,
        list(refunds),
        [refund.payment.payment_id for refund in refunds.values()],
        [refund.payment.order_id for refund in refunds.values()],
        [refund.refund_key for refund in refunds.values()],
        [refund.amount_minor for refund in refunds.values()],
        [refund.payment.currency for refund in refunds.values()],
        [refund.reason for refund in refunds.values()],
        [refund.actor for refund in refunds.values()],
        [refund.attempt_no for refund in refunds.values()],
        [refund.retries for refund in refunds.values()],
        [INTERNAL_SYSTEM if refund.payment.is_internal else refund.payment.method for refund in refunds.values()],
    )
    return {row["refund_id"] for row in rows}


async def complete_refunds(
    connection: Connection,
    refunds: Sequence[tuple[UUID, RefundWay, str | None]],
    now: datetime,
    actor: str | None = None,
) -> set[UUID]:
    """Mark refunds, given with their ways and the numbers of the movements, as done, with their postings.

    `actor` is the member of staff who did it. Returns the ids of those that were not done before."""
    if not refunds:
        return set()
    refund_ids, ways, numbers = zip(*sorted(refunds, key=lambda refund: refund[0]), strict=True)
    rows = await connection.fetch(queries.complete_refunds, now, refund_ids, ways, numbers)
    postings = []
    for row in rows:
        accounts = {"provider": f"provider:{row['method']}", "transfer": "bank"}
        account = accounts.get(row["way"], f"credit:{row['user_id']}")
        entries = {account: -row["amount_minor"], "orders": row["amount_minor"]}
        name = f"refund {row['refund_id']}"
        postings.append(NewPosting(name, row["order_id"], row["currency"], entries, actor, row["number"]))
    await ledger.insert_postings(connection, postings, now)
    return {row["refund_id"] for row in rows}


async def fail_refunds(connection: Connection, refunds: Sequence[FailedRefund], now: datetime) -> None:
    """Mark attempts as failed, and remove their jobs."""
    if refunds:
        await connection.execute(
            queries.fail_refunds,
            now,
            [item.refund.refund_id for item in refunds],
            [_storable(item.error) for item in refunds],
            [item.provider_refund_id for item in refunds],
        )


async def mark_needing_other_way(connection: Connection, refunds: Sequence[StuckRefund], now: datetime) -> None:
    """Mark pending refunds as needing another way, and remove their jobs."""
    if refunds:
        await connection.execute(
            queries.mark_needing_other_way,
            now,
            [item.refund.refund_id for item in refunds],
            [item.reason for item in refunds],
            [_storable(item.error) for item in refunds],
            [item.provider_refund_id for item in refunds],
        )


async def mark_refunds_requested(connection: Connection, refund_ids: Sequence[UUID], now: datetime) -> None:
    """Note that the providers of refunds are about to be asked: they may know them from now on."""
    if refund_ids:
        await connection.execute(queries.mark_refunds_requested, now, refund_ids)


async def mark_refunds_waiting(connection: Connection, refunds: Sequence[WaitingRefund], now: datetime) -> None:
    """Note why refunds are not made now, and whether that was announced to their customers."""
    if refunds:
        await connection.execute(
            queries.mark_refunds_waiting,
            now,
            [item.refund.refund_id for item in refunds],
            [item.reason for item in refunds],
            [_storable(item.error) for item in refunds],
            [item.is_long for item in refunds],
        )


async def mark_refund_accepted(connection: Connection, refund_id: UUID, provider_refund_id: str | None) -> None:
    """Note that a provider works on a pending refund, and its number."""
    await connection.execute(queries.mark_refund_accepted, refund_id, provider_refund_id)


async def get_refunds_to_request(connection: Connection, refund_ids: Sequence[UUID]) -> dict[UUID, RefundToRequest]:
    rows = await connection.fetch(queries.get_refunds_to_request, refund_ids)
    return {
        row["refund_id"]: RefundToRequest(read_refund(row), row["method"], row["user_id"], row["captured_minor"])
        for row in rows
    }


async def list_needing_other_way(
    connection: Connection, after: tuple[datetime, UUID], size: int
) -> list[StuckRefundView]:
    """List refunds that need another way, the oldest first, after a time and a refund."""
    return [
        StuckRefundView(
            refund_id=row["refund_id"],
            order_id=row["order_id"],
            payment_id=row["payment_id"],
            user_id=row["user_id"],
            method=row["method"],
            amount=Money(row["amount_minor"], row["currency"]),
            reason=row["reason"],
            other_way_reason=row["other_way_reason"],
            since=row["other_way_since"],
            provider_refund_id=row["provider_refund_id"],
            provider_error=row["provider_error"],
            transfer_reference=row["transfer_reference"],
            transfer_recorded_by=row["transfer_recorded_by"],
        )
        for row in await connection.fetch(queries.list_needing_other_way, *after, size)
    ]


async def get_other_way(connection: Connection, refund_id: UUID) -> OtherWay | None:
    row = await connection.fetchrow(queries.get_other_way, refund_id)
    return OtherWay(*row) if row else None


async def put_other_way(
    connection: Connection, refund: Refund, way: RefundWay, proof: str, actor: str, now: datetime
) -> None:
    """Record how a refund is paid, in the place of a transfer that is not confirmed."""
    await connection.execute(queries.put_other_way, refund.refund_id, refund.order_id, way, proof, actor, now)


async def confirm_other_way(connection: Connection, refund_id: UUID, actor: str, now: datetime) -> None:
    await connection.execute(queries.confirm_other_way, refund_id, actor, now)


async def delete_other_way(connection: Connection, refund_id: UUID) -> None:
    """Delete a transfer that was recorded and not confirmed."""
    await connection.execute(queries.delete_other_way, refund_id)


async def reopen_refund(connection: Connection, refund_id: UUID, due_at: datetime, now: datetime) -> bool:
    """Have the payment worker poll a refund that needs another way. False if it needs none."""
    jobs.wake_after_commit(connection, REFUNDS)
    return await connection.fetchval(queries.reopen_refund, refund_id, due_at, now) is not None


async def measure_refunds(connection: Connection) -> list[RefundLoad]:
    """Add up the refunds that wait or need another way, by method, currency and reason."""
    return [RefundLoad(*row) for row in await connection.fetch(queries.measure_refunds)]


def _storable(text: str | None) -> str | None:
    """Shorten a provider's text, and replace what Postgres refuses in one."""
    return text and text[:_MAX_TEXT_CHARACTERS].replace("\0", " ").encode(errors="replace").decode()
