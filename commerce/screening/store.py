"""Rows of screening."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.screening.model import (
    MAX_MARKS_PER_KIND,
    Mark,
    MarkKind,
    Score,
    ScoreReason,
    ScreenedSale,
    ScreenedUser,
    ScreeningDecision,
    Sighting,
    Signal,
    Suspect,
)

queries = load_queries(__package__, screened_users=ScreenedUser.__struct_fields__)
_decode_reasons = msgspec.json.Decoder(list[ScoreReason]).decode
GroupKey = tuple[str, MarkKind, bytes]
"""sale, kind and mark of a group"""
UserKey = tuple[str, str]
"""sale and user"""
_PAIRS_PER_CALL = 10_000


class Group(NamedTuple):
    """A mark with the number of its members; of a form also the number of addresses that it came from."""

    key: GroupKey
    members: int
    is_crowded: bool
    addresses: int


class Measured(NamedTuple):
    """Measures of a customer besides his marks, and the score that he has."""

    peak_per_s: int
    fastest_ms: int | None
    stored: Score


class OrderPhones(NamedTuple):
    """A stored order with the phone numbers of its addresses; `salt` is None if its sale is not screened."""

    order_id: UUID
    sale_id: str
    user_id: str
    accepted_at: datetime
    salt: bytes | None
    phones: list[str]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Turn rows into the arrays of `unnest`."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _user(row: Any) -> ScreenedUser:
    return ScreenedUser(**{**row, "reasons": _decode_reasons(row["reasons"])})


async def try_lock(connection: Connection) -> bool:
    """Take the workers' lock until the transaction ends. Returns False if another one has it."""
    return bool(await connection.fetchval(queries.try_lock))


# Sales.


async def list_unscreened(connection: Connection, closes_after: datetime, count: int) -> list[str]:
    """List running sales that are not screened yet."""
    return [row["sale_id"] for row in await connection.fetch(queries.list_unscreened, closes_after, count)]


async def insert_sale(connection: Connection, sale_id: str, salt: bytes, now: datetime) -> None:
    await connection.execute(queries.insert_sale, sale_id, salt, now)


async def lock_sales(connection: Connection, sale_ids: Iterable[str]) -> None:
    """Lock sales until the transaction ends. Call it before customers of them are changed."""
    await connection.execute(queries.lock_sales, sorted(set(sale_ids)))


async def list_sales(connection: Connection, closes_after: datetime, count: int) -> list[ScreenedSale]:
    """List the screened sales that run, newest first."""
    return [ScreenedSale(*row) for row in await connection.fetch(queries.list_sales, closes_after, count)]


# Sightings and marks.


async def insert_sightings(connection: Connection, sightings: Sequence[Sighting]) -> None:
    await connection.execute(queries.insert_sightings, *_columns(sightings, len(Sighting._fields)))


async def count_sightings(connection: Connection) -> int:
    """Count the rows that wait for a worker, nearly."""
    return int(await connection.fetchval(queries.count_sightings))


async def take_sightings(connection: Connection, count: int) -> tuple[list[Sighting], int]:
    """Delete the oldest sightings and return those of screened sales, and the number of all."""
    rows = await connection.fetch(queries.take_sightings, count)
    return [Sighting(*tuple(row)[:-1]) for row in rows if row["is_screened"]], len(rows)


async def upsert_users(connection: Connection, sightings: Iterable[Sighting]) -> set[UserKey]:
    """Store what was seen of customers. Returns them."""
    merged: dict[UserKey, Sighting] = {}
    for sighting in sightings:
        key = sighting.sale_id, sighting.user_id
        stored = merged.get(key)
        merged[key] = sighting if stored is None else _merge(stored, sighting)
    rows = [
        (
            *(
                sighting.sale_id,
                sighting.user_id,
                sighting.joins,
                sighting.orders,
                sighting.peak_per_s,
                sighting.fastest_ms,
            ),
            *(sighting.first_request_at, sighting.last_request_at),
        )
        for sighting in merged.values()
    ]
    await connection.execute(queries.upsert_users, *_columns(rows, 8))
    return set(merged)


def _merge(first: Sighting, second: Sighting) -> Sighting:
    fastest = [ms for ms in (first.fastest_ms, second.fastest_ms) if ms is not None]
    return first._replace(
        joins=first.joins + second.joins,
        orders=first.orders + second.orders,
        peak_per_s=max(first.peak_per_s, second.peak_per_s),
        fastest_ms=min(fastest, default=None),
        first_request_at=min(first.first_request_at, second.first_request_at),
        last_request_at=max(first.last_request_at, second.last_request_at),
    )


async def add_marks(connection: Connection, marks: Iterable[Mark]) -> None:
    """Store marks and count the new ones in their groups."""
    columns = _columns(list(dict.fromkeys(marks)), len(Mark._fields))
    await _count_members(connection, await connection.fetch(queries.insert_marks, *columns, MAX_MARKS_PER_KIND))


async def add_form_addresses(connection: Connection, sightings: Iterable[Sighting]) -> None:
    """Store the addresses that forms came from, and count the new ones. Call it after `add_marks`."""
    pairs = {
        (sighting.sale_id, sighting.form, sighting.address, sighting.user_id)
        for sighting in sightings
        if sighting.form is not None and sighting.address is not None
    }
    rows = await connection.fetch(queries.insert_form_addresses, *_columns(list(pairs), 4))
    await _count_members(connection, rows)


async def _count_members(connection: Connection, added: Iterable[Any]) -> None:
    counts = Counter(tuple(row) for row in added)
    await connection.execute(queries.add_members, *_columns([(*key, count) for key, count in counts.items()], 4))


async def list_groups(connection: Connection, keys: Sequence[GroupKey]) -> list[Group]:
    rows = await connection.fetch(queries.list_groups, *_columns(keys, 3))
    return [
        Group((row["sale_id"], row["kind"], row["mark"]), row["members"], row["is_crowded"], row["addresses"])
        for row in rows
    ]


async def set_crowded(connection: Connection, changes: Sequence[tuple[GroupKey, bool]]) -> None:
    """Mark groups as crowded or not; their members are to be scored again."""
    await connection.execute(queries.set_crowded, *_columns([(*key, is_crowded) for key, is_crowded in changes], 4))


async def next_to_rescore(connection: Connection) -> tuple[GroupKey, str] | None:
    """Return a group whose members are to be scored again, and the last one who was."""
    row = await connection.fetchrow(queries.next_to_rescore)
    return None if row is None else ((row["sale_id"], row["kind"], row["mark"]), row["rescored_to"])


async def list_members(connection: Connection, key: GroupKey, after: str, count: int) -> list[str]:
    return [row["member"] for row in await connection.fetch(queries.list_members, *key, after, count)]


async def set_rescored(connection: Connection, key: GroupKey, rescored_to: str | None) -> None:
    await connection.execute(queries.set_rescored, *key, rescored_to)


# Scores.


async def list_crowds(connection: Connection, sale_id: str, user_ids: Sequence[str]) -> dict[str, dict[MarkKind, int]]:
    """Return the number of members of each customer's largest crowd, by kind."""
    crowds: dict[str, dict[MarkKind, int]] = {}
    for row in await connection.fetch(queries.list_crowds, sale_id, list(user_ids)):
        crowds.setdefault(row["user_id"], {})[row["kind"]] = row["members"]
    return crowds


async def list_measured(connection: Connection, sale_id: str, user_ids: Sequence[str]) -> dict[str, Measured]:
    rows = await connection.fetch(queries.list_measured, sale_id, list(user_ids))
    return {
        row["user_id"]: Measured(
            row["peak_per_s"], row["fastest_ms"], Score(row["score"], tuple(_decode_reasons(row["reasons"])))
        )
        for row in rows
    }


async def set_scores(connection: Connection, sale_id: str, scores: dict[str, Score], now: datetime) -> None:
    """Set the scores of customers under a new version of the sale."""
    version = await connection.fetchval(queries.raise_version, sale_id)
    rows = [
        (user_id, score.score, msgspec.json.encode(score.reasons).decode()) for user_id, score in sorted(scores.items())
    ]
    users, points, reasons = _columns(rows, 3)
    await connection.execute(queries.set_scores, sale_id, users, points, reasons, now, version)


async def list_suspects(
    connection: Connection, sale_id: str, after: tuple[int, str], min_score: int, is_first: bool, count: int
) -> list[Suspect]:
    """List the customers that have changed after a version and user.

    With `is_first` those below `min_score` are left out.
    """
    rows = await connection.fetch(queries.list_suspects, sale_id, *after, min_score, is_first, count)
    suspects = []
    for row in rows:
        signals: tuple[Signal, ...] = tuple(reason.signal for reason in _decode_reasons(row["reasons"]))
        suspects.append(
            Suspect(row["user_id"], row["version"], row["score"], signals, row["raised_at"], row["cleared_until"])
        )
    return suspects


# Staff.


async def list_users(
    connection: Connection,
    sale_id: str,
    min_score: int,
    after: tuple[int, str],
    signal: Signal | None,
    is_cleared: bool | None,
    now: datetime,
    count: int,
) -> list[ScreenedUser]:
    """List scored customers after a score and user, highest score first."""
    rows = await connection.fetch(queries.list_users, sale_id, min_score, *after, signal, is_cleared, now, count)
    return [_user(row) for row in rows]


async def get_user(connection: Connection, sale_id: str, user_id: str) -> ScreenedUser | None:
    row = await connection.fetchrow(queries.get_user, sale_id, user_id)
    return None if row is None else _user(row)


async def list_decisions(connection: Connection, sale_id: str, user_id: str, count: int) -> list[ScreeningDecision]:
    """List the latest decisions on a customer, latest first."""
    rows = await connection.fetch(queries.list_decisions, sale_id, user_id, count)
    return [ScreeningDecision(**row) for row in rows]


async def clear(
    connection: Connection, sale_id: str, user_id: str, now: datetime, actor: str, reason: str, until: datetime
) -> bool:
    """Clear a customer and record it. Returns False if the sale is not screened."""
    version = await connection.fetchval(queries.raise_version, sale_id)
    if version is None:
        return False
    await connection.execute(queries.set_cleared, sale_id, user_id, now, until, version)
    await connection.execute(queries.insert_decision, sale_id, user_id, now, actor, "cleared", reason, until)
    return True


async def revoke(connection: Connection, sale_id: str, user_id: str, now: datetime, actor: str, reason: str) -> bool:
    """Revoke a clearing and record it. Returns False if there is none that lasts."""
    version = await connection.fetchval(queries.raise_version, sale_id)
    if version is None or await connection.fetchval(queries.revoke, sale_id, user_id, now, version) is None:
        return False
    await connection.execute(queries.insert_decision, sale_id, user_id, now, actor, "revoked", reason, None)
    return True


# Phone numbers of orders.


async def get_progress(connection: Connection, not_before: UUID) -> UUID:
    """Return the order up to which phone numbers were read, or `not_before` if that is later."""
    progress = await connection.fetchval(queries.get_progress, not_before)
    return UUID(int=progress.int)


async def set_progress(connection: Connection, order_id: UUID) -> None:
    await connection.execute(queries.set_progress, order_id)


async def list_order_phones(connection: Connection, after: UUID, before: UUID, count: int) -> list[OrderPhones]:
    """List stored orders between two ids, with their phone numbers."""
    return [OrderPhones(*row) for row in await connection.fetch(queries.list_order_phones, after, before, count)]


# Deletion by age.


async def list_old_users(connection: Connection, before: datetime, count: int) -> list[UserKey]:
    """List and lock customers who were not seen since a moment."""
    return [(row["sale_id"], row["user_id"]) for row in await connection.fetch(queries.list_old_users, before, count)]


async def delete_old_users(connection: Connection, before: datetime, count: int) -> tuple[int, list[GroupKey]]:
    """Delete customers who were not seen since a moment, with all that belongs to them.

    Returns their number, and the groups that have become smaller.
    """
    users = await list_old_users(connection, before, count)
    if not users:
        return 0, []
    columns = _columns(users, 2)
    marks = [Mark(*row) for row in await connection.fetch(queries.delete_marks, *columns)]
    removed = Counter((mark.sale_id, mark.kind, mark.mark) for mark in marks)
    removed.update(await _delete_form_addresses(connection, marks))
    groups = _columns([(*key, members) for key, members in removed.items()], 4)
    await connection.execute(queries.remove_members, *groups)
    await connection.execute(queries.delete_empty_groups, *groups[:3])
    await connection.execute(queries.delete_decisions, *columns)
    await connection.execute(queries.delete_users, *columns)
    return len(users), list(removed)


async def _delete_form_addresses(connection: Connection, marks: Iterable[Mark]) -> list[GroupKey]:
    """Delete the addresses of forms that the owners of these marks used. Returns a group for each."""
    of_users: dict[UserKey, dict[MarkKind, list[bytes]]] = {}
    for mark in marks:
        of_users.setdefault((mark.sale_id, mark.member), {}).setdefault(mark.kind, []).append(mark.mark)
    pairs = list(
        {
            (sale_id, form, address.hex())
            for (sale_id, _), hashes in of_users.items()
            for form, address in product(hashes.get("form", ()), hashes.get("address", ()))
        }
    )
    deleted: list[GroupKey] = []
    for start in range(0, len(pairs), _PAIRS_PER_CALL):
        columns = _columns(pairs[start : start + _PAIRS_PER_CALL], 3)
        deleted += [tuple(row) for row in await connection.fetch(queries.delete_form_addresses, *columns)]
    return deleted


async def delete_old_sightings(connection: Connection, before: datetime, count: int) -> int:
    """Delete some sightings that no worker has folded since a moment. Returns their number."""
    return len(await connection.fetch(queries.delete_old_sightings, before, count))


async def delete_old_sales(connection: Connection, before: datetime) -> None:
    """Forget the sales that ended before a moment and of which nothing is left."""
    await connection.execute(queries.delete_old_sales, before)
