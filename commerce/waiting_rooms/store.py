"""Rows of waiting rooms and their lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.sales.model import SaleState
from commerce.waiting_rooms.draw import NO_DRAW, digest_list
from commerce.waiting_rooms.model import HASH_BYTES, MAX_ROOMS, Room, RoomSettings, Step

_SALE_FIELDS = ("opens_at", "closes_at", "sale_state")
queries = load_queries(__package__, waiting_rooms=[name for name in Room.__struct_fields__ if name not in _SALE_FIELDS])
_PART_HASHES = 4_096


def _room(row: Any) -> Room:
    steps = [Step(*step) for step in orjson.loads(row["steps"])]
    return Room(**{**row, "steps": steps, "sale_state": SaleState(row["sale_state"])})


async def put(
    connection: Connection, sale_id: str, settings: RoomSettings, list_closes_at: datetime, salt: bytes, now: datetime
) -> bool:
    """Insert or change a room. Returns False if it has come too far for this change."""
    return bool(
        await connection.fetchval(
            queries.put_room,
            sale_id,
            settings.mode,
            salt,
            settings.join_opens_at,
            list_closes_at,
            settings.min_account_age_s,
            settings.served_valid_s,
            settings.max_pace_per_s,
            settings.max_waiting,
            settings.served_per_unit,
            settings.fallback_after_s,
            settings.fallback_rounds,
            now,
        )
    )


async def share_opening(connection: Connection, sale_id: str) -> datetime | None:
    """Read when a sale opens, which does not change until the transaction ends."""
    opens_at: datetime | None = await connection.fetchval(queries.share_opening, sale_id)
    return opens_at


async def log(connection: Connection, sale_id: str, at: datetime, actor: str, action: str, detail: Any) -> None:
    await connection.execute(queries.log, sale_id, at, actor, action, orjson.dumps(detail).decode())


async def get(connection: Connection, sale_id: str) -> Room | None:
    row = await connection.fetchrow(queries.get_room, sale_id)
    return _room(row) if row else None


async def list_rooms(connection: Connection, ended_after: datetime) -> list[Room]:
    return [_room(row) for row in await connection.fetch(queries.list_rooms, ended_after, MAX_ROOMS)]


async def count_others(connection: Connection, sale_id: str, ended_after: datetime) -> int:
    """Count the rooms that are listed besides that of a sale."""
    return int(await connection.fetchval(queries.count_others, ended_after, sale_id))


async def name_source(
    connection: Connection, sale_id: str, source: str, at: datetime | None, fallback_rounds: int
) -> bool:
    """Name the randomness of a draw. Returns False if the list is closed."""
    return bool(await connection.fetchval(queries.name_source, sale_id, source, at, fallback_rounds))


async def close_list(
    connection: Connection,
    room: Room,
    hashes: Sequence[bytes],
    list_digest: bytes,
    read_time: Callable[[], datetime],
) -> bool:
    """Store the sorted list of a room. Returns False if another process has changed the room.

    Call inside a transaction. The time is read last, so that the list is fixed by then as nearly as can be.
    """
    if not await connection.fetchval(queries.lock_open_list, room.sale_id, room.version):
        return False
    await _store_list(connection, room.sale_id, hashes)
    await connection.execute(queries.close_list, room.sale_id, read_time(), len(hashes), list_digest)
    return True


async def raise_last_number(connection: Connection, sale_id: str, last_number: int) -> None:
    """Keep the last number given: whoever joins next gets a higher one."""
    await connection.execute(queries.raise_last_number, sale_id, last_number)


async def set_randomness(connection: Connection, sale_id: str, source: str, randomness: str) -> bool:
    """Set the randomness of a closed list. Returns False if there is one already."""
    return bool(await connection.fetchval(queries.set_randomness, sale_id, source, randomness))


async def mark_drawn(connection: Connection, sale_id: str, places: Sequence[bytes], now: datetime) -> bool:
    """Store the list in the order of its places. Returns False if that is done."""
    if not await connection.fetchval(queries.mark_drawn, sale_id, now):
        return False
    await connection.execute(queries.delete_list, sale_id)
    await _store_list(connection, sale_id, places)
    return True


async def _store_list(connection: Connection, sale_id: str, hashes: Sequence[bytes]) -> None:
    parts = [b"".join(hashes[start : start + _PART_HASHES]) for start in range(0, len(hashes), _PART_HASHES)]
    await connection.executemany(queries.insert_part, [(sale_id, number, part) for number, part in enumerate(parts)])


async def read_part(connection: Connection, sale_id: str, part_no: int) -> list[bytes]:
    """Return a part of a list, empty after the last."""
    return _split(await connection.fetchval(queries.read_part, sale_id, part_no) or b"")


async def read_file_part(connection: Connection, room: Room, part_no: int) -> list[bytes]:
    """Return a part of a list as long as its order is that of `room`, else nothing."""
    data = await connection.fetchval(queries.read_file_part, room.sale_id, part_no, room.drawn_at) or b""
    return _split(data)


def _split(data: bytes) -> list[bytes]:
    return [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]


async def serve(connection: Connection, room: Room, now: datetime) -> bool:
    """Store a step that was taken from `room.version`. Returns False if another process took one."""
    steps = orjson.dumps([tuple(step) for step in room.steps]).decode()
    return bool(
        await connection.fetchval(
            queries.serve,
            room.sale_id,
            room.version,
            room.served,
            room.expired,
            room.pace_per_s,
            steps,
            room.sold_out,
            now,
        )
    )


async def open_room(connection: Connection, room: Room, now: datetime) -> bool:
    """Open a room that stands by. Returns False if another process has changed it."""
    digest = digest_list(room.sale_id, [])
    return bool(await connection.fetchval(queries.open_room, room.sale_id, room.version, now, digest, NO_DRAW))


async def stand_by(connection: Connection, room: Room, served: int) -> bool:
    """Close an automatic room until the next rush. Returns False if another process has changed it."""
    return bool(await connection.fetchval(queries.stand_by, room.sale_id, room.version, served))


async def end(connection: Connection, sale_id: str, now: datetime, sold_out: Sequence[str]) -> bool:
    """End a room. Returns False if it has ended before."""
    return bool(await connection.fetchval(queries.end_room, sale_id, now, list(sold_out)))


async def count_buyers(connection: Connection, sale_id: str, since_ms: int, until_ms: int) -> int:
    """Count the people with stored orders of a sale, by the time in the orders' ids."""
    return int(await connection.fetchval(queries.count_buyers, sale_id, _first_id(since_ms), _first_id(until_ms)))


def _first_id(ms: int) -> UUID:
    return UUID(int=ms << 80)
