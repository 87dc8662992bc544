"""The rows of dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from commerce.dead_letters.model import DeadLetter
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.kernel.stream_payload import AcceptedOrder
from lua import EntryId

queries = load_queries(__package__)
_ERROR_CHARS = 2_000


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
) -> None:
    """Keep it, whatever it is: what cannot be stored as text is left out, since `payload` has all of it anyway."""
    units = order.units() if order and all(_storable(sku) for sku in order.units()) else None
    await connection.execute(
        queries.insert,
        order_id,
        sale_id,
        order.user_id if order and _storable(order.user_id) else None,
        orjson.dumps(units).decode() if units is not None else None,
        payload,
        error[:_ERROR_CHARS].replace("\0", " ").encode(errors="replace").decode(),
        from_ms(entry.ms),
        entry.seq,
        now,
    )


def _storable(text: object) -> bool:
    """Whether Postgres takes it as text: no NUL, no half of a surrogate pair."""
    return isinstance(text, str) and "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter with what the stream's entry held."""

    letter: DeadLetter
    payload: bytes
    entry: EntryId


async def get(connection: Connection, order_id: UUID) -> StoredDeadLetter | None:
    return _held(await connection.fetchrow(queries.get, order_id))


async def lock(connection: Connection, order_id: UUID) -> StoredDeadLetter | None:
    """The same, locked until the transaction ends."""
    return _held(await connection.fetchrow(queries.lock, order_id))


async def list_after(connection: Connection, after: UUID, count: int, resolved: bool) -> list[DeadLetter]:
    return [_letter(row) for row in await connection.fetch(queries.list_after, after, count, resolved)]


async def resolve(connection: Connection, order_id: UUID, status: str, now: datetime, actor: str) -> None:
    await connection.execute(queries.resolve, order_id, status, now, actor)


async def release(connection: Connection, letter: DeadLetter, reason: str, now: datetime) -> None:
    """Make the release of its units due."""
    units = orjson.dumps(letter.units).decode()
    await connection.execute(queries.release, letter.order_id, letter.sale_id, letter.user_id, units, reason, now)


def _held(row: Any) -> StoredDeadLetter | None:
    if row is None:
        return None
    return StoredDeadLetter(_letter(row), row["payload"], EntryId(to_ms(row["entry_at"]), row["entry_seq"]))


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(
        order_id=row["order_id"],
        sale_id=row["sale_id"],
        user_id=row["user_id"],
        units=orjson.loads(row["units"]) if row["units"] else None,
        error=row["error"],
        status=row["status"],
        accepted_at=row["entry_at"],
        died_at=row["died_at"],
        resolved_at=row["resolved_at"],
        resolved_by=row["resolved_by"],
    )
