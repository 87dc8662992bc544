"""Rows of dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from commerce.dead_letters.model import DeadLetter
from commerce.jobs import store as jobs
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.kernel.stream_payload import AcceptedOrder
from lua import EntryId

queries = load_queries(__package__)
_MAX_ERROR_CHARS = 2_000


async def insert(
    connection: Connection,
    *,
    order_id: UUID,
    sale_id: str,
    order: AcceptedOrder | None,
    payload: bytes,
    error: str,
    entry: EntryId,
    now: datetime,
    stock_lost: bool = False,
) -> None:
    """Store a dead letter; a repeat changes nothing.

    User and units are left out if Postgres cannot store them as text; `payload` contains them anyway. With
    `stock_lost` the order holds no units, because the stock was counted without it.
    """
    has_units = order is not None and not stock_lost and all(_is_storable(sku) for sku in order.units())
    units = order.units() if order and has_units else None
    await connection.execute(
        queries.insert,
        order_id,
        sale_id,
        order.user_id if order and _is_storable(order.user_id) else None,
        orjson.dumps(units).decode() if units is not None else None,
        payload,
        error[:_MAX_ERROR_CHARS].replace("\0", " ").encode(errors="replace").decode(),
        from_ms(entry.ms),
        entry.seq,
        now,
        stock_lost,
    )


def _is_storable(text: object) -> bool:
    """Check that Postgres accepts a value as text: no NUL, no half of a surrogate pair."""
    return isinstance(text, str) and "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter with the payload and the id of its stream entry.

    `retry` is the id under which Redis was asked for lost units, with its time in milliseconds.
    """

    letter: DeadLetter
    payload: bytes
    entry: EntryId
    retry: tuple[UUID, int] | None


async def get(connection: Connection, order_id: UUID) -> StoredDeadLetter | None:
    return _stored_dead_letter(await connection.fetchrow(queries.get, order_id))


async def lock(connection: Connection, order_id: UUID) -> StoredDeadLetter | None:
    """Read a dead letter and lock its row until the transaction ends."""
    return _stored_dead_letter(await connection.fetchrow(queries.lock, order_id))


async def list_after(connection: Connection, after: UUID, count: int, resolved: bool) -> list[DeadLetter]:
    return [_dead_letter(row) for row in await connection.fetch(queries.list_after, after, count, resolved)]


async def resolve(connection: Connection, order_id: UUID, status: str, now: datetime, actor: str) -> None:
    await connection.execute(queries.resolve, order_id, status, now, actor)


async def is_stored(connection: Connection, order_id: UUID) -> bool:
    """Check whether the order of a dead letter is stored as an order."""
    return bool(await connection.fetchval(queries.is_stored, order_id))


async def begin_retry(connection: Connection, order_id: UUID, retry_id: UUID, now: datetime) -> None:
    """Give a retry its id for Redis, unless there is one."""
    await connection.execute(queries.begin_retry, order_id, retry_id, now)


async def forget_retry(connection: Connection, order_id: UUID) -> None:
    """Drop the id of a retry: the next one asks Redis again."""
    await connection.execute(queries.forget_retry, order_id)


async def mark_reacquired(connection: Connection, order_id: UUID, epoch: int, seq: int) -> None:
    """Keep the position of the change in Redis: a server that lacks it must not sell."""
    await connection.execute(queries.mark_reacquired, order_id, epoch, seq)


async def hold_units(connection: Connection, order_id: UUID, units: dict[str, int]) -> None:
    """Make a dead letter hold the reacquired units."""
    await connection.execute(queries.hold_units, order_id, orjson.dumps(units).decode())


async def insert_release(connection: Connection, letter: DeadLetter, reason: str, now: datetime) -> None:
    """Insert a due release of the dead letter's units."""
    units = orjson.dumps(letter.units).decode()
    await connection.execute(
        queries.insert_release, letter.order_id, letter.sale_id, letter.user_id, units, reason, now
    )
    jobs.wake_after_commit(connection, "releases")


async def read_limits(connection: Connection, sale_id: str, skus: Sequence[str]) -> dict[str, int]:
    """Read the limits per user of a sale's SKUs, 0 for none."""
    rows = await connection.fetch(queries.read_limits, sale_id, list(skus))
    return {row["sku"]: row["user_limit"] for row in rows}


async def lock_epoch(connection: Connection, sale_id: str) -> int:
    """Read the epoch of a sale's load and keep it from changing until the transaction ends."""
    return int(await connection.fetchval(queries.lock_epoch, sale_id))


def _stored_dead_letter(row: Any) -> StoredDeadLetter | None:
    if row is None:
        return None
    entry = EntryId(to_ms(row["entry_at"]), row["entry_seq"])
    retry = (row["retry_id"], to_ms(row["retry_at"])) if row["retry_id"] else None
    return StoredDeadLetter(_dead_letter(row), row["payload"], entry, retry)


def _dead_letter(row: Any) -> DeadLetter:
    return DeadLetter(
        order_id=row["order_id"],
        sale_id=row["sale_id"],
        user_id=row["user_id"],
        units=orjson.loads(row["units"]) if row["units"] else None,
        error=row["error"],
        status=row["status"],
        stock_lost=row["stock_lost"],
        accepted_at=row["entry_at"],
        died_at=row["died_at"],
        resolved_at=row["resolved_at"],
        resolved_by=row["resolved_by"],
    )
