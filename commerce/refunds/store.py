"""Rows of refund grants and of the order lines that they refund."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.payments.provider_port import StatementLine
from commerce.refunds.model import (
    Grant,
    GrantedLine,
    GrantKind,
    GrantRequest,
    HandRefund,
    HandRefundOutcome,
    Strategy,
)
from commerce.refunds.valuation import RefundableLine


class StoredGrant(NamedTuple):
    """A row of `refund_grants`."""

    grant_id: UUID
    order_id: UUID
    kind: GrantKind
    source_id: UUID | None
    amount_minor: int
    freight_minor: int
    fee_minor: int
    currency: str
    strategy: Strategy
    reason: str
    actor: str
    created_at: datetime
    request_digest: bytes | None


class StoredHandRefund(NamedTuple):
    """A row of `refunds_by_hand`."""

    refund_id: UUID
    payment_id: UUID
    order_id: UUID
    amount_minor: int
    currency: str
    number: str
    booked_on: date
    proof: str | None
    recorded_by: str | None
    confirmed_by: str | None
    outcome: HandRefundOutcome | None


class GrantedSums(NamedTuple):
    """Sums of an order's grants, with its whole freight, in minor units."""

    freight_minor: int
    granted_freight_minor: int
    granted_minor: int
    was_shipped: bool
    cash_under_way_minor: int


queries = load_queries(__package__, refund_grants=StoredGrant._fields)


async def list_refundable_lines(connection: Connection, order_id: UUID) -> list[RefundableLine]:
    return [RefundableLine(*row) for row in await connection.fetch(queries.list_refundable_lines, order_id)]


async def get_granted_sums(connection: Connection, order_id: UUID) -> GrantedSums:
    [row] = await connection.fetch(queries.get_granted_sums, order_id)
    return GrantedSums(*row)


async def find_grant(connection: Connection, kind: GrantKind, source_id: UUID) -> StoredGrant | None:
    """Return the grant of a source, such as a case."""
    row = await connection.fetchrow(queries.get_grant_of_source, kind, source_id)
    return StoredGrant(*row) if row else None


def refund_key(grant_id: UUID) -> str:
    """Return the key of the refunds of a grant."""
    return f"grant {grant_id}"


async def list_grant_amounts(connection: Connection, order_id: UUID) -> dict[UUID, int]:
    """Return the amounts of an order's grants by id, the newest first."""
    rows = await connection.fetch(queries.list_grant_amounts, order_id)
    return {row["grant_id"]: row["amount_minor"] for row in rows}


async def sum_granted_by(connection: Connection, order_id: UUID, actor: str) -> int:
    """Add up what a person has granted of an order, in minor units."""
    amount_minor: int = await connection.fetchval(queries.sum_granted_by, order_id, actor)
    return amount_minor


async def list_owed_orders(connection: Connection, order_ids: Sequence[UUID]) -> list[UUID]:
    """List those of the orders that are owed more than was refunded and not collected."""
    return [row["order_id"] for row in await connection.fetch(queries.list_owed_orders, order_ids)]


async def list_grant_lines(connection: Connection, grant_id: UUID) -> list[GrantedLine]:
    return [GrantedLine(*row) for row in await connection.fetch(queries.list_grant_lines, grant_id)]


async def insert_grant(
    connection: Connection, grant_id: UUID, grant: Grant, request: GrantRequest, now: datetime
) -> None:
    """Insert a grant with its lines. Raises `UniqueViolationError` if its source has one."""
    values = (grant_id, grant.order_id, request.kind, request.source_id)
    amounts = (grant.amount, grant.freight, grant.fee, grant.currency)
    await connection.execute(
        queries.insert_grant,
        *(*values, *amounts, grant.strategy, request.reason, request.actor, now, request.request_digest),
    )
    if grant.lines:
        await connection.execute(
            queries.insert_grant_lines,
            grant_id,
            grant.order_id,
            [line.line_no for line in grant.lines],
            [line.ship_to for line in grant.lines],
            [line.first_unit for line in grant.lines],
            [line.quantity for line in grant.lines],
            [line.amount for line in grant.lines],
        )


# Refunds that were made by hand.


async def insert_refunds_by_hand(
    connection: Connection, method: str, day: date, lines: Mapping[UUID, StatementLine], actor: str, now: datetime
) -> int:
    """Insert refunds of payments by a method, by their ids. Returns the number of those that are new."""
    lines = dict(sorted(lines.items()))
    rows = await connection.fetch(
        queries.insert_refunds_by_hand,
        *(day, now, actor, list(lines)),
        [line.payment_id for line in lines.values()],
        [line.amount.amount for line in lines.values()],
        [line.amount.currency for line in lines.values()],
        [line.transaction_id for line in lines.values()],
        method,
    )
    return len(rows)


async def list_refunds_by_hand(connection: Connection, after: tuple[datetime, UUID], size: int) -> list[HandRefund]:
    """List refunds by hand that are not posted, the oldest first, after a time and a refund."""
    return [
        HandRefund(
            refund_id=row["refund_id"],
            payment_id=row["payment_id"],
            order_id=row["order_id"],
            method=row["method"],
            amount=Money(row["amount_minor"], row["currency"]),
            number=row["number"],
            booked_on=row["booked_on"],
            found_at=row["found_at"],
            proof=row["proof"],
            recorded_by=row["recorded_by"],
        )
        for row in await connection.fetch(queries.list_refunds_by_hand, *after, size)
    ]


async def lock_refund_by_hand(connection: Connection, refund_id: UUID) -> StoredHandRefund | None:
    row = await connection.fetchrow(queries.lock_refund_by_hand, refund_id)
    return StoredHandRefund(*row) if row else None


async def record_refund_by_hand(connection: Connection, refund_id: UUID, proof: str, actor: str, now: datetime) -> None:
    await connection.execute(queries.record_refund_by_hand, refund_id, proof, actor, now)


async def confirm_refund_by_hand(
    connection: Connection, refund_id: UUID, actor: str, now: datetime, outcome: HandRefundOutcome
) -> None:
    await connection.execute(queries.confirm_refund_by_hand, refund_id, actor, now, outcome)


async def date_refund(connection: Connection, refund_id: UUID, at: datetime) -> None:
    """Date a refund that is done by the provider's day."""
    await connection.execute(queries.date_refund, refund_id, at)
