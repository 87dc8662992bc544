"""Waiting rooms for staff and gateways: settings, the randomness of the draw, its file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

import msgspec
import orjson

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.postgres import Connection, Database
from commerce.sales.service import Sales
from commerce.waiting_rooms import store
from commerce.waiting_rooms.draw import (
    FORMAT,
    LATE,
    MAX_TEXT_CHARS,
    NO_DRAW,
    QUICKNET,
    TEXT_RULE,
    delay_rounds,
    digest_list,
    drand_time,
    is_source,
    is_value_of,
)
from commerce.waiting_rooms.errors import InvalidRoomState, NoRoom
from commerce.waiting_rooms.model import MAX_ROOMS, PublicDraw, PublicRoom, Room, RoomSettings

_SHOWN_AFTER_END = timedelta(days=1)
_MIN_ASK_AGAIN_S, _MAX_ASK_AGAIN_S = 1, 30
_SALT_BYTES = 32
_MIN_JOIN_TIME = timedelta(seconds=1)


class WaitingRooms:
    """Waiting rooms, one per sale."""

    def __init__(self, db: Database, sales: Sales, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self._db = db
        self._sales = sales
        self._clock = clock
        self._random = random

    async def put(self, sale_id: str, settings: RoomSettings, actor: str) -> Room:
        """Set up the room of a sale, or change it. That of an open sale has no draw: first come, first served.

        A new automatic room stands by, also one that was off before its list closed. One that was on stays open until
        it is calm. With the mode `on` a room in standby opens, before the list closes for a draw.

        Once the list is closed, its times and all that the draw depends on stay as they are. Raises
        `InvalidRoomState`.
        """
        sale = await self._sales.get(sale_id)
        closes_at = settings.list_closes_at or max(sale.opens_at, settings.join_opens_at + _MIN_JOIN_TIME)
        if not settings.join_opens_at < closes_at <= max(sale.opens_at, self._now() + _MIN_JOIN_TIME):
            raise Invalid(
                "cannot set up the room: joining must open before the list closes, and the list must close before the "
                f"sale opens at {sale.opens_at:%Y-%m-%dT%H:%M:%SZ}, or at once if it is open; correct the times"
            )
        async with self._db.transaction() as connection:
            if await store.share_opening(connection, sale_id) != sale.opens_at:
                raise InvalidRoomState(f"cannot set up the room: {sale_id} was changed at this moment; repeat it")
            room = await store.get(connection, sale_id)
            if room is not None and room.randomness_at is not None and room.randomness_at <= closes_at + LATE:
                raise InvalidRoomState(
                    f"cannot close the list at {closes_at:%Y-%m-%dT%H:%M:%SZ}: {room.named_source} is public by then; "
                    "close it earlier, or name a later one first"
                )
            others = await store.count_others(connection, sale_id, self._now() - _SHOWN_AFTER_END)
            if settings.mode != "off" and (room is None or room.mode == "off") and others >= MAX_ROOMS:
                raise InvalidRoomState(f"cannot open another room: {others} are on; turn off those that are not needed")
            if not await store.put(connection, sale_id, settings, closes_at, self._random(_SALT_BYTES), self._now()):
                raise InvalidRoomState(
                    f"cannot change the room of {sale_id}: its list is closed, or will be within seconds; only mode, "
                    "pace, served_valid_s, max_waiting and served_per_unit may change, and nothing after its end"
                )
            has_no_list = room is None or (room.state == "standby" and room.listed_at is None)
            if has_no_list and settings.mode != "automatic" and sale.opens_at <= self._now():
                await self._skip_draw(connection, sale_id)
            detail = msgspec.to_builtins(settings)
            await store.log(connection, sale_id, self._now(), actor, "room", detail)
        return await self.get(sale_id)

    async def _skip_draw(self, connection: Connection, sale_id: str) -> None:
        """Close the list of a room before anybody is on it: the sale is open, and a draw would stop it."""
        room = await store.get(connection, sale_id)
        assert room is not None
        await store.close_list(connection, room, [], digest_list(sale_id, []), self._now)
        await store.set_randomness(connection, sale_id, NO_DRAW, "none")
        await store.mark_drawn(connection, sale_id, [], self._now())

    async def get(self, sale_id: str) -> Room:
        """Read a room. Raises `NoRoom`."""
        async with self._db.connection() as connection:
            room = await store.get(connection, sale_id)
        if room is None:
            raise NoRoom(f"{sale_id} has no waiting room; set one up with `floodgate room set`")
        return room

    async def list_shown(self) -> list[Room]:
        """List the rooms that are on; those that ended days ago are left out."""
        async with self._db.connection() as connection:
            return await store.list_rooms(connection, self._now() - _SHOWN_AFTER_END)

    async def name_source(self, sale_id: str, source: str, at: datetime | None, actor: str) -> Room:
        """Name the public randomness of a draw and its time, before the list closes.

        `source` is `drand:CHAIN:ROUND` or `delay:ROUNDS`, which need no time, or a text such as the name of a lottery
        draw. Raises `Invalid` if the randomness could be known before the list is closed.
        """
        room = await self.get(sale_id)
        if not is_source(source):
            raise Invalid(
                f"cannot name this source: use drand:{QUICKNET}:ROUND, delay:ROUNDS with at most 10000, or at most "
                f"{MAX_TEXT_CHARS} printable ASCII characters that look like neither"
            )
        public_at, rounds = drand_time(source), delay_rounds(source)
        if public_at is not None and at not in (None, public_at):
            raise Invalid(
                f"cannot name this source: it is public at {public_at:%Y-%m-%dT%H:%M:%SZ}; leave the time out"
            )
        at = None if rounds is not None else public_at or at
        if rounds is None and (at is None or at <= room.list_closes_at + LATE):
            raise Invalid(
                "cannot name this source: its time must be after the list closes at "
                f"{room.list_closes_at:%Y-%m-%dT%H:%M:%SZ}; name a later one"
            )
        async with self._db.transaction() as connection:
            if not await store.name_source(connection, sale_id, source, at, rounds or room.fallback_rounds):
                raise InvalidRoomState(f"cannot name a source for {sale_id}: its list is closed")
            detail = {"source": source, "at": at.isoformat() if at else None}
            await store.log(connection, sale_id, self._now(), actor, "room_source", detail)
        return await self.get(sale_id)

    async def set_randomness(self, sale_id: str, randomness: str, actor: str) -> Room:
        """Give the value of the named randomness. The places follow within a second.

        Raises `Invalid` if it has another form than values of this source have, and `InvalidRoomState` if the list is
        not closed, the value is there, or its time has not come or is over.
        """
        room = await self.get(sale_id)
        if room.state != "drawing" or room.randomness is not None:
            raise InvalidRoomState(f"cannot draw the places of {sale_id}: the room is {room.state}")
        if not is_value_of(room.named_source, randomness):
            raise Invalid(
                f"cannot use this value of {room.named_source}: give 64 digits of 0-9 and a-f"
                if drand_time(room.named_source)
                else f"cannot use this value of {room.named_source}: write {TEXT_RULE}, such as 1 5 23"
            )
        if room.randomness_at is not None and self._now() < room.randomness_at:
            raise InvalidRoomState(
                f"cannot draw the places of {sale_id}: {room.named_source} is published at "
                f"{room.randomness_at:%Y-%m-%dT%H:%M:%SZ}; repeat the command then"
            )
        if may_fall_back(room, self._now()):
            raise InvalidRoomState(
                f"cannot draw the places of {sale_id} by {room.named_source}: it came too late, so "
                f"delay:{room.fallback_rounds} takes its place, as was announced"
            )
        async with self._db.transaction() as connection:
            if not await store.set_randomness(connection, sale_id, room.named_source, randomness):
                raise InvalidRoomState(f"cannot draw the places of {sale_id}: they are drawn")
            await store.log(connection, sale_id, self._now(), actor, "room_draw", {"randomness": randomness})
        return await self.get(sale_id)

    async def draw_file(self, sale_id: str) -> AsyncIterator[bytes]:
        """Yield the file of a draw in parts: the closed list, after the draw in the order of the places.

        Raises `NoRoom`, or `InvalidRoomState` if the list is not closed, or is drawn while it is read.
        """
        room = await self.get(sale_id)
        if room.list_digest is None:
            raise InvalidRoomState(f"the list of {sale_id} closes at {room.list_closes_at:%Y-%m-%dT%H:%M:%SZ}")
        drawn = room.drawn_at is not None
        fallback, fallback_at = find_fallback(room)
        header = {
            "format": FORMAT,
            "sale_id": sale_id,
            "entries": room.entries,
            "list_digest": room.list_digest.hex(),
            "list_closes_at": room.list_closes_at,
            "listed_at": room.listed_at,
            "named_source": room.named_source,
            "randomness_at": room.randomness_at,
            "fallback": fallback,
            "fallback_at": fallback_at,
            "source": room.source if drawn else None,
            "randomness": room.randomness if drawn else None,
        }
        yield orjson.dumps(header) + b"\n"
        part_no, left = 0, room.entries or 0
        while left > 0:
            async with self._db.connection() as connection:
                hashes = await store.read_file_part(connection, room, part_no)
            if not hashes:
                raise InvalidRoomState(f"the places of {sale_id} were drawn during the download; repeat it")
            yield b"".join(ticket.hex().encode() + b"\n" for ticket in hashes)
            part_no, left = part_no + 1, left - len(hashes)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def may_fall_back(room: Room, now: datetime) -> bool:
    """Tell whether the delay takes the place of the named randomness.

    It does if that is not known in time, and if it was public before the list was closed.
    """
    _, fallback_at = find_fallback(room)
    if room.randomness_at is None or fallback_at is None or room.listed_at is None:
        return room.listed_at is not None
    return room.listed_at >= room.randomness_at - LATE or now >= fallback_at


def find_fallback(room: Room) -> tuple[str | None, datetime | None]:
    """Return what takes the place of the named randomness, and when; nothing takes that of a delay."""
    if room.randomness_at is None:
        return None, None
    return f"delay:{room.fallback_rounds}", room.randomness_at + timedelta(seconds=room.fallback_after_s)


def to_public_room(room: Room, now: datetime) -> PublicRoom:
    """Return the part of a room that everybody sees."""
    draw = PublicDraw(
        room.named_source,
        room.randomness_at,
        *find_fallback(room),
        room.listed_at,
        room.entries,
        None if room.list_digest is None else room.list_digest.hex(),
        room.source,
        room.randomness,
        None if room.list_digest is None else f"/v1/sales/{room.sale_id}/room/draw",
    )
    return PublicRoom(
        room.sale_id,
        room.state,
        room.is_open,
        room.join_opens_at,
        room.list_closes_at,
        room.opens_at,
        room.served,
        room.expired,
        room.last_number,
        round(room.pace_per_s, 1),
        room.sold_out,
        _ask_again_s(room, now),
        draw,
    )


def _ask_again_s(room: Room, now: datetime) -> int:
    """Return when it is worth asking again: the later, the longer nothing can change."""
    if not room.is_open:
        return _MAX_ASK_AGAIN_S
    next_at = room.join_opens_at if now < room.join_opens_at else room.list_closes_at
    if room.state != "waiting":
        next_at = room.opens_at
    left_s = int((next_at - now).total_seconds())
    return max(_MIN_ASK_AGAIN_S, min(_MAX_ASK_AGAIN_S, left_s))
