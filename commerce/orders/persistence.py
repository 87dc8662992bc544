"""Stores accepted orders in Postgres, each as one order or one dead letter.

An order may be delivered several times.

The common case is two plain COPYs in a transaction. If they fail, the cause is removed: orders that are stored already
(their entry was delivered again after a crash) are dropped; an order whose idempotency key belongs to another order is
stored as refused and its stock is released; otherwise the batch is bisected until the bad order is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from commerce.dead_letters import store as dead_letters
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, safe_error_text
from commerce.kernel.stream_payload import StreamedOrder
from commerce.orders import store

_CONTENT_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)
"""Errors caused by the content of an order; any other error is retried."""


@dataclass(slots=True)
class PersistResult:
    """The result of storing a batch; each of its orders is counted once."""

    stored: int = 0
    duplicates: int = 0
    refused: list[UUID] = field(default_factory=list)
    dead_lettered: dict[UUID, str] = field(default_factory=dict)


async def persist(connection: Connection, batch: Sequence[StreamedOrder], now: datetime) -> PersistResult:
    """Store a batch; a repeat stores nothing twice.

    Raises only errors that no order caused. Some orders may be stored then.
    """
    result = PersistResult()
    await _persist(connection, batch, now, result)
    return result


async def _persist(
    connection: Connection, batch: Sequence[StreamedOrder], now: datetime, result: PersistResult
) -> None:
    if not batch:
        return
    try:
        async with connection.transaction():
            await store.copy_orders(connection, batch, now)
            failpoint("writer.before_commit")
        result.stored += len(batch)
    except asyncpg.UniqueViolationError as error:
        remaining = await _drop_stored_and_refused(connection, batch, now, result)
        if len(remaining) < len(batch):
            await _persist(connection, remaining, now, result)
        else:
            await _bisect(connection, batch, now, result, error)
    except _CONTENT_ERRORS as error:
        await _bisect(connection, batch, now, result, error)


async def _drop_stored_and_refused(
    connection: Connection, batch: Sequence[StreamedOrder], now: datetime, result: PersistResult
) -> list[StreamedOrder]:
    """Return the orders that are not stored, after storing those with a used key as refused."""
    stored_ids = await store.find_existing(connection, [item.order.order_id for item in batch])
    result.duplicates += len(stored_ids)
    not_stored = [item for item in batch if item.order.order_id not in stored_ids]
    used_keys = await store.find_by_keys(connection, not_stored)
    remaining = []
    for item in not_stored:
        if key_owner := used_keys.get((item.order.user_id, item.order.idempotency_key)):
            await _refuse(connection, item, key_owner, now)
            result.refused.append(item.order.order_id)
        else:
            remaining.append(item)
    return remaining


async def _refuse(connection: Connection, item: StreamedOrder, key_owner: UUID, now: datetime) -> None:
    """Store an order as cancelled because its key belongs to another order, and make its release due.

    Redis keeps the keys of one sale for a day or two. A key that is reused in another sale or much later is found here:
    there is still one order per key, and the events of the refused one contain the reason.
    """
    async with connection.transaction():
        await store.copy_orders(connection, [item], now, with_keys=False)
        reason = f"the Idempotency-Key {item.order.idempotency_key!r} belongs to order {key_owner}"
        await store.cancel(connection, [item.order.order_id], now, "refused", "order_writer", reason)


async def _bisect(
    connection: Connection, batch: Sequence[StreamedOrder], now: datetime, result: PersistResult, error: Exception
) -> None:
    if len(batch) > 1:
        middle = len(batch) // 2
        await _persist(connection, batch[:middle], now, result)
        await _persist(connection, batch[middle:], now, result)
        return
    item = batch[0]
    error_text = safe_error_text(error)
    await dead_letters.insert(
        connection,
        order_id=item.order.order_id,
        sale_id=item.order.sale_id,
        order=item.order,
        payload=item.payload,
        error=error_text,
        entry=item.entry,
        now=now,
    )
    result.dead_lettered[item.order.order_id] = error_text
