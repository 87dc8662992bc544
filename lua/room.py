"""Scripts and reads of waiting rooms: who is in the room, by ticket hash, and with which number."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis

from lua.keys import SaleKeys
from lua.script import Argument, Commands, Script

_join, _leave, _close = Script("join_room"), Script("leave_room"), Script("close_room")
_place, _stage = Script("place_room"), Script("stage_room")
_SCAN_COUNT = 1_000
_WITHOUT_NUMBER = (b"0", b"left")
RoomStage = Literal["open", "closed", "drawn"]


class JoinOutcome(IntEnum):
    """Outcomes of joining; the numbers are those of `join_room.lua`."""

    PLACED = 0
    LISTED = 1
    FULL = 2
    NOT_READY = 3


class JoinResult(NamedTuple):
    """Redis's decision on one customer. `number` is 0 unless PLACED."""

    outcome: JoinOutcome
    number: int


class RoomPosition(NamedTuple):
    """A room as Redis has it.

    `stage` is None if Redis does not have it. `run_id` is that of the Redis process.
    """

    stage: RoomStage | None
    last_number: int
    run_id: str


async def join_room(
    client: Commands, keys: SaleKeys, joins: Sequence[tuple[bytes, int]], max_people: int, expired: int
) -> list[JoinResult]:
    """Join a batch of customers, each with ticket hash and the number of a verified ticket, 0 for none."""
    arguments: list[Argument] = [max_people, expired]
    for ticket_hash, number in joins:
        arguments += (ticket_hash, number)
    reply = await _join.call(client, [keys.room, keys.room_meta, keys.room_left], arguments)
    return [JoinResult(JoinOutcome(outcome), number) for outcome, number in reply]


async def leave_room(client: Commands, keys: SaleKeys, ticket_hash: bytes) -> bool:
    """Take a customer out of the room. Returns False if he was not in it."""
    return bool(await _leave.call(client, [keys.room, keys.room_meta, keys.room_left], [ticket_hash]))


async def close_room(client: Redis, keys: SaleKeys) -> int:
    """Close the list. Returns the number of people on it; a repeat returns the same."""
    return int(await _close.call(client, [keys.room, keys.room_meta], []))


async def place_room(client: Redis, keys: SaleKeys, first: int, hashes: Sequence[bytes]) -> int:
    """Give ticket hashes the numbers from `first` on, or with 0 put them back on the list."""
    return int(await _place.call(client, [keys.room, keys.room_left], [first, *hashes]))


async def stage_room(
    client: Redis, keys: SaleKeys, stage: RoomStage, listed: int, last_number: int, run_id: str
) -> int | None:
    """Bring a room to a stage; a later one stays.

    Returns the last number given, None if Redis is not the process with `run_id`.
    """
    last = int(await _stage.call(client, [keys.room_meta], [stage, listed, last_number, run_id]))
    return None if last < 0 else last


async def read_room(client: Redis, keys: SaleKeys) -> RoomPosition:
    """Read the stage of a room and the last number given."""
    pipe = client.pipeline(transaction=False)
    pipe.hmget(keys.room_meta, "stage", "last")
    pipe.info("server")
    (stage, last), info = await pipe.execute()
    return RoomPosition(stage.decode() if stage else None, int(last or 0), info["run_id"])


async def read_listed(client: Redis, keys: SaleKeys) -> set[bytes]:
    """Return the ticket hashes on a list that is closed and not drawn, those that left since included."""
    scan = client.hscan_iter(keys.room, count=_SCAN_COUNT)
    return {ticket_hash async for ticket_hash, place in scan if place in _WITHOUT_NUMBER}


async def count_people(client: Redis, keys: SaleKeys) -> int:
    """Count the people in a room, those whose turn came included."""
    return int(await client.hlen(keys.room))


async def count_left(client: Redis, keys: SaleKeys, above: int, up_to: int) -> int:
    """Count the numbers above one and up to another whose holders have left."""
    return int(await client.zcount(keys.room_left, f"({above}", up_to))


async def forget_left(client: Redis, keys: SaleKeys, up_to: int) -> None:
    """Forget the numbers of leavers up to one whose turn is over."""
    await client.zremrangebyscore(keys.room_left, "-inf", up_to)


async def forget_room(client: Redis, keys: SaleKeys) -> None:
    """Delete a room. UNLINK, since deleting millions of fields at once would hold up all orders."""
    await client.unlink(keys.room, keys.room_meta, keys.room_left)


async def read_stock(client: Redis, keys: SaleKeys) -> dict[str, int]:
    """Return the free units of every SKU of a sale; empty if it is not loaded."""
    stock: dict[Any, Any] = await client.hgetall(keys.stock)
    return {sku.decode(): int(units) for sku, units in stock.items()}
