"""The rows of releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from commerce.kernel.clock import to_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


@dataclass(frozen=True, slots=True)
class ClaimedRelease:
    """A claimed release with the number of its attempts, this one included."""

    release_id: UUID
    sale_id: str
    user_id: str
    units: dict[str, int]
    created_ms: int
    attempts: int


async def claim(connection: Connection, now: datetime, lease_s: int, count: int) -> list[ClaimedRelease]:
    """Due releases, out of the way of others for the length of a lease."""
    rows = await connection.fetch(queries.claim, now, lease_s, count)
    return [
        ClaimedRelease(
            row["release_id"],
            row["sale_id"],
            row["user_id"],
            orjson.loads(row["units"]),
            to_ms(row["created_at"]),
            row["attempts"],
        )
        for row in rows
    ]


async def mark_applied(
    connection: Connection, sale_id: str, epoch: int, done: Sequence[tuple[UUID, int]], now: datetime
) -> bool:
    """Write what Redis did, (id, seq); False if a newer load has begun, which then applies them itself.

    Call inside a transaction.
    """
    if await connection.fetchval(queries.lock_epoch, sale_id) != epoch:
        return False
    ids, seqs = [id_ for id_, _ in done], [seq for _, seq in done]
    await connection.execute(queries.settle, ids, seqs, now, epoch)
    return True


async def postpone(connection: Connection, due: Sequence[tuple[UUID, datetime]], why: str, *, park: bool) -> None:
    ids, times = [id_ for id_, _ in due], [time for _, time in due]
    await connection.execute(queries.postpone, ids, times, why, park)


@dataclass(frozen=True, slots=True)
class ReacquireJob:
    """A retake; `units` has for each SKU the units and the limit a user (0: none)."""

    release_id: UUID
    sale_id: str
    user_id: str
    status: str
    created_ms: int
    units: dict[str, tuple[int, int]]


async def begin_reacquire(connection: Connection, id_: UUID, order_id: UUID, now: datetime) -> ReacquireJob | None:
    """The retake of an order, made if there is none; None while what went back is not applied. In a transaction."""
    await connection.execute(queries.begin_retake, id_, order_id, now)
    row = await connection.fetchrow(queries.get_retake, order_id)
    if row is None:
        return None
    units = {sku: (units, limit) for sku, (units, limit) in orjson.loads(row["units"]).items()}
    created_ms = to_ms(row["created_at"])
    return ReacquireJob(row["release_id"], row["sale_id"], row["user_id"], row["status"], created_ms, units)


async def refuse_retake(connection: Connection, id_: UUID, now: datetime) -> None:
    await connection.execute(queries.refuse_retake, id_, now)
