"""Rows of releases and reacquisitions."""

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
class PendingRelease:
    """A release that is not marked as applied."""

    release_id: UUID
    sale_id: str
    user_id: str
    units: dict[str, int]
    created_ms: int


async def get_pending(connection: Connection, release_ids: Sequence[UUID]) -> list[PendingRelease]:
    """Read those of the releases that are pending."""
    rows = await connection.fetch(queries.get_pending, release_ids)
    return [
        PendingRelease(
            release_id=row["release_id"],
            sale_id=row["sale_id"],
            user_id=row["user_id"],
            units=orjson.loads(row["units"]),
            created_ms=to_ms(row["created_at"]),
        )
        for row in rows
    ]


async def mark_applied(
    connection: Connection, sale_id: str, epoch: int, applied: Sequence[tuple[UUID, int]], now: datetime
) -> bool:
    """Mark releases as applied in Redis, given as (id, seq), and finish their jobs.

    Call inside a transaction. Returns False if some were not pending, or if a newer load has begun; that load then
    applies them.
    """
    if await connection.fetchval(queries.lock_epoch, sale_id) != epoch:
        return False
    ids, seqs = [id_ for id_, _ in applied], [seq for _, seq in applied]
    return int(await connection.fetchval(queries.mark_applied, ids, seqs, now, epoch)) == len(applied)


@dataclass(frozen=True, slots=True)
class ReacquireJob:
    """A reacquisition.

    `units` maps each SKU to the units and the limit per user (0: none), as they were in `sale_epoch`."""

    release_id: UUID
    sale_id: str
    user_id: str
    status: str
    created_ms: int
    units: dict[str, tuple[int, int]]
    sale_epoch: int


async def begin_reacquire(connection: Connection, id_: UUID, order_id: UUID, now: datetime) -> ReacquireJob | None:
    """Read the reacquisition of an order, or create it with the id `id_`. Call inside a transaction.

    Returns None while the order's release is not applied.
    """
    await connection.execute(queries.begin_reacquire, id_, order_id, now)
    row = await connection.fetchrow(queries.get_reacquire, order_id)
    if row is None:
        return None
    return ReacquireJob(
        release_id=row["release_id"],
        sale_id=row["sale_id"],
        user_id=row["user_id"],
        status=row["status"],
        created_ms=to_ms(row["created_at"]),
        units={sku: (units, limit) for sku, (units, limit) in orjson.loads(row["units"]).items()},
        sale_epoch=row["sale_epoch"],
    )


async def refuse_reacquire(connection: Connection, sale_id: str, epoch: int, id_: UUID, now: datetime) -> bool:
    """Mark a reacquisition as refused by Redis. Call inside a transaction.

    Returns False if it was not pending, or if a newer load has begun: that load may have applied it.
    """
    if await connection.fetchval(queries.lock_epoch, sale_id) != epoch:
        return False
    return str(await connection.execute(queries.refuse_reacquire, id_, now)) == "UPDATE 1"
