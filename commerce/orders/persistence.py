"""Brings accepted orders into Postgres so that each ends as an order or as a dead letter, however often it comes.

The common case is two plain COPYs in a transaction. Only when those fail is it found out why: orders that are there
already (the entry was delivered again after a crash) are dropped, an order whose key already stands for another one
is stored as refused and its goods go back, and otherwise the batch is halved until the bad order stands alone.
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

_AT_FAULT = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    TypeError,
    OverflowError,
)
"""Errors that an order's content causes. Anything else is the database's state, and trying again is right."""


@dataclass(slots=True)
class PersistResult:
    """What became of a batch. Every order of it is counted once."""

    stored: int = 0
    duplicates: int = 0
    refused: list[UUID] = field(default_factory=list)
    dead_lettered: dict[UUID, str] = field(default_factory=dict)

    @property
    def dead(self) -> int:
        return len(self.dead_lettered)


async def persist(connection: Connection, arrived: Sequence[StreamedOrder], now: datetime) -> PersistResult:
    """Store all of them. Raises only what is not an order's fault, having stored some of them or none."""
    result = PersistResult()
    await _persist(connection, arrived, now, result)
    return result


async def _persist(
    connection: Connection, arrived: Sequence[StreamedOrder], now: datetime, result: PersistResult
) -> None:
    if not arrived:
        return
    try:
        async with connection.transaction():
            await store.copy_orders(connection, arrived, now)
            failpoint("writer.before_commit")
        result.stored += len(arrived)
    except asyncpg.UniqueViolationError as error:
        rest = await _without_known(connection, arrived, now, result)
        if len(rest) < len(arrived):
            await _persist(connection, rest, now, result)
        else:
            await _halve(connection, arrived, now, result, error)
    except _AT_FAULT as error:
        await _halve(connection, arrived, now, result, error)


async def _without_known(
    connection: Connection, arrived: Sequence[StreamedOrder], now: datetime, result: PersistResult
) -> list[StreamedOrder]:
    """The orders that are neither stored yet nor, since their key is taken, stored as refused just now."""
    known = await store.existing(connection, [item.order.order_id for item in arrived])
    result.duplicates += len(known)
    rest = [item for item in arrived if item.order.order_id not in known]
    taken = await store.by_keys(connection, rest)
    fresh = []
    for item in rest:
        if holder := taken.get((item.order.user_id, item.order.idempotency_key)):
            await _refuse(connection, item, holder, now)
            result.refused.append(item.order.order_id)
        else:
            fresh.append(item)
    return fresh


async def _refuse(connection: Connection, item: StreamedOrder, holder: UUID, now: datetime) -> None:
    """Store an order as cancelled because its key stands for another order; its goods go back.

    Redis knows the keys of a sale for a day or two. What it cannot see, the same key in another sale or long after,
    ends here: there is still one order a key, and the other one says why it is none.
    """
    async with connection.transaction():
        await store.copy_orders(connection, [item], now, with_keys=False)
        reason = f"the Idempotency-Key {item.order.idempotency_key!r} stands for order {holder}"
        await store.cancel(connection, [item.order.order_id], now, "refused", "order_writer", reason)


async def _halve(
    connection: Connection, arrived: Sequence[StreamedOrder], now: datetime, result: PersistResult, error: Exception
) -> None:
    if len(arrived) > 1:
        middle = len(arrived) // 2
        await _persist(connection, arrived[:middle], now, result)
        await _persist(connection, arrived[middle:], now, result)
        return
    item = arrived[0]
    why = safe_error_text(error)
    await dead_letters.insert(
        connection,
        order_id=item.order.order_id,
        sale_id=item.order.sale_id,
        order=item.order,
        payload=item.payload,
        error=why,
        entry=item.entry,
        now=now,
    )
    result.dead_lettered[item.order.order_id] = why
