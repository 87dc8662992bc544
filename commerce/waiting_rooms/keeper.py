"""The keeping of a waiting room, from its opening over its list, its draw and its turns to its end.

Any number of keepers may run: each change is a compare-and-set on the room's row, and the time of the last step is in
the row, so two keepers let in no more people than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from math import ceil

import msgspec
from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.coupon_skus import is_coupon_sku
from commerce.kernel.errors import NotReady
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Database
from commerce.sales.model import SaleState
from commerce.waiting_rooms import store
from commerce.waiting_rooms.drand import DrandRelays
from commerce.waiting_rooms.draw import NO_DRAW, delay_rounds, digest_list, drand_time, iterate_delay, rank_hashes
from commerce.waiting_rooms.model import MAX_SOLD_OUT_SKUS, Room, Step
from commerce.waiting_rooms.order_counts import OrderCounts
from commerce.waiting_rooms.refusal_rates import RefusalRates, RushThresholds
from commerce.waiting_rooms.service import may_fall_back
from lua import RoomStage, SaleKeys

_logger = logging.getLogger(__name__)
_STAGES: dict[str, RoomStage] = {"waiting": "open", "drawing": "closed", "serving": "drawn", "ended": "drawn"}
_PLACED_PER_CALL = 1_000
_MAX_BURST_S = 1.0
_STEPS_KEPT = 60
_FORGET_INTERVAL_MS = 60_000
# Turns run while orders are taken. The row says each second that they do; a longer gap is added to every turn.
_RUNNING_INTERVAL_MS, _MIN_GAP_MS = 1_000, 3_000
_SOLD_OUT_MS = 2_000  # so long no unit is free before a room ends
# Pace: the writer's lag tells whether the shop keeps up with those who are let in.
_MAX_LAG_MS = 2_000
_SLOWER, _FASTER = 0.5, 1.1
_ACTOR = "room_keeper"


class RoomKeeper:
    """Takes the next step of a room, as often as it is called."""

    def __init__(
        self, db: Database, redis: Redis, clock: Clock, thresholds: RushThresholds, relays: DrandRelays | None = None
    ) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._rates = RefusalRates(redis, clock, thresholds)
        self._orders: dict[str, OrderCounts] = {}
        self._relays = relays
        self._delays: dict[str, asyncio.Task[str]] = {}
        self._fetches: dict[str, asyncio.Task[str]] = {}
        self._sold_out_since_ms: dict[str, int] = {}
        self._forgotten_ms: dict[str, int] = {}

    async def poll_refusals(self) -> None:
        """Read what the gateways report of refused orders; automatic rooms open and close by it."""
        await self._rates.poll()

    async def step(self, room: Room) -> None:
        """Take the next step of a room: open, prepare Redis, close the list, draw, serve, stand by or end."""
        now, keys = self._now(), SaleKeys(room.sale_id)
        if room.state == "ended":
            await self._forget(room, keys)
            return
        if room.sale_state is SaleState.CLOSED or (room.closes_at is not None and room.closes_at <= now):
            await self._end(room, now, room.sold_out)
            return
        if room.state == "standby":
            self._sold_out_since_ms.pop(room.sale_id, None)
            if room.opened_at is not None:  # somebody may have joined while it closed
                await self._keep_last_number(room, (await lua.read_room(self._redis, keys)).last_number)
            if room.mode == "on" or await self._is_rush(room, keys, now):
                await self._open(room, now)
            return
        last_number = await self._prepare_redis(room, keys)
        await self._keep_last_number(room, last_number)
        if room.state == "waiting" and now >= room.list_closes_at:
            await self._close_list(room, keys)
        elif room.state == "drawing":
            await self._draw(room, now)
        elif room.state == "serving" and now >= room.opens_at and room.sale_state is SaleState.OPEN:
            if room.mode == "automatic" and self._is_calm(room, last_number):
                await self._stand_by(room, now, room.served)
            else:
                await self._serve(room, keys, now, last_number)

    def close(self) -> None:
        """Stop computing delays and fetching randomness; another keeper begins again."""
        for task in (*self._delays.values(), *self._fetches.values()):
            task.cancel()

    # Automatic rooms.

    async def _is_rush(self, room: Room, keys: SaleKeys, now: datetime) -> bool:
        """Tell whether so many orders are refused that the room opens: while the sale is open and has units.

        A unit that is returned and bought at once opens no room: the time begins again while there is none.
        """
        if not self._rates.has_risen(room.sale_id) or now < room.opens_at or room.sale_state is not SaleState.OPEN:
            return False
        if not any(units > 0 for units in (await self._read_products(keys)).values()):
            self._rates.begin_again(room.sale_id)
        return self._rates.is_high(room.sale_id)

    async def _open(self, room: Room, now: datetime) -> None:
        async with self._db.transaction() as connection:
            opened = await store.open_room(connection, room, now)
            if opened:
                await store.log(connection, room.sale_id, now, _ACTOR, "room_opened", {"mode": room.mode})
                failpoint("room.before_opened")
        if opened:
            _logger.info("opened a room", extra={"sale_id": room.sale_id})

    async def _read_products(self, keys: SaleKeys) -> dict[str, int]:
        """Return the free units of products by SKU. Free coupons admit nobody."""
        stock = await lua.read_stock(self._redis, keys)
        return {sku: units for sku, units in stock.items() if not is_coupon_sku(sku)}

    def _is_calm(self, room: Room, last_number: int) -> bool:
        """Tell whether few orders were refused, and nobody has waited, for so long that the room closes."""
        if last_number > room.served:
            self._rates.note_waiting(room.sale_id)
        return self._rates.is_calm(room.sale_id)

    async def _stand_by(self, room: Room, now: datetime, served: int) -> None:
        """Close an automatic room until the next rush; the turns of numbers up to `served` are over."""
        async with self._db.transaction() as connection:
            closed = await store.stand_by(connection, room, served)
            if closed:
                await store.log(connection, room.sale_id, now, _ACTOR, "room_closed", {"served": room.served})
        self._orders.pop(room.sale_id, None)
        if closed:
            _logger.info("closed a room until the next rush", extra={"sale_id": room.sale_id, "count": room.served})

    # The list and its draw.

    async def _prepare_redis(self, room: Room, keys: SaleKeys) -> int:
        """Bring the room in Redis to the state of its row. Returns the last number given.

        Redis may be empty, or a copy that is behind: who is on the list gets his place from Postgres again.
        """
        wanted, known_last = _STAGES[room.state], max(room.entries or 0, room.last_number)
        position = await lua.read_room(self._redis, keys)
        is_closing = wanted == "open" and position.stage == "closed"  # by a keeper that died before it stored the list
        is_there = position.stage == wanted or is_closing
        if is_there and position.last_number >= known_last:
            return position.last_number
        if wanted != "open" and not is_there:
            await self._place_list(room, keys)
        failpoint("room.before_stage")
        last_number = await lua.stage_room(self._redis, keys, wanted, room.entries or 0, known_last, position.run_id)
        if last_number is None:
            raise NotReady("another Redis server has taken over meanwhile; the next step prepares it")
        return last_number

    async def _keep_last_number(self, room: Room, last_number: int) -> None:
        """Keep the last number in the room's row: then a loss of Redis makes no number occur twice."""
        if last_number > room.last_number:
            async with self._db.connection() as connection:
                await store.raise_last_number(connection, room.sale_id, last_number)

    async def _place_list(self, room: Room, keys: SaleKeys) -> None:
        part_no, placed = 0, 0
        while True:
            async with self._db.connection() as connection:
                hashes = await store.read_part(connection, room.sale_id, part_no)
            if not hashes:
                return
            for start in range(0, len(hashes), _PLACED_PER_CALL):
                first = placed + start + 1 if room.drawn_at is not None else 0
                await lua.place_room(self._redis, keys, first, hashes[start : start + _PLACED_PER_CALL])
            placed += len(hashes)
            part_no += 1

    async def _close_list(self, room: Room, keys: SaleKeys) -> None:
        people = await lua.close_room(self._redis, keys)
        failpoint("room.after_close")
        hashes = sorted(await lua.read_listed(self._redis, keys))
        if len(hashes) != people:
            raise NotReady(
                f"read {len(hashes)} of {people} people on the list: Redis was replaced meanwhile; the next step reads "
                "it again"
            )
        digest = await asyncio.to_thread(digest_list, room.sale_id, hashes)
        async with self._db.transaction() as connection:
            stored = await store.close_list(connection, room, hashes, digest, self._now)
        if stored:
            _logger.info("closed the list of a room", extra={"sale_id": room.sale_id, "count": people})

    async def _use_delay(self, room: Room) -> None:
        """Compute the delay beside the steps of other rooms; take its value when it is there."""
        rounds = delay_rounds(room.named_source) or room.fallback_rounds
        assert room.list_digest is not None
        task = self._delays.get(room.sale_id)
        if task is None:
            self._delays[room.sale_id] = asyncio.create_task(_compute_delay(room.list_digest, rounds))
            return
        if task.done():
            del self._delays[room.sale_id]
            await self._set_randomness(room, f"delay:{rounds}", task.result())

    async def _fetch(self, room: Room, now: datetime) -> None:
        """Fetch a named round of drand beside the steps of other rooms, again and again until it is there."""
        public_at = drand_time(room.named_source)
        if self._relays is None or public_at is None or now < public_at:
            return
        task = self._fetches.get(room.sale_id)
        if task is None:
            self._fetches[room.sale_id] = asyncio.create_task(self._relays.fetch_randomness(room.named_source))
            return
        if not task.done():
            return
        del self._fetches[room.sale_id]
        try:
            randomness = task.result()
        except NotReady as error:
            _logger.warning("cannot fetch a round of drand", extra={"sale_id": room.sale_id, "reason": str(error)})
            return
        async with self._db.transaction() as connection:
            if await store.set_randomness(connection, room.sale_id, room.named_source, randomness):
                await store.log(connection, room.sale_id, now, _ACTOR, "room_draw", {"randomness": randomness})

    async def _set_randomness(self, room: Room, source: str, randomness: str) -> None:
        async with self._db.connection() as connection:
            await store.set_randomness(connection, room.sale_id, source, randomness)

    async def _draw(self, room: Room, now: datetime) -> None:
        """Draw the places once there is a randomness."""
        if room.randomness is None and room.entries != 0 and not may_fall_back(room, now):
            await self._fetch(room, now)
            return
        _stop(self._fetches.pop(room.sale_id, None))  # by staff or by the delay there is, or will be, another value
        if room.randomness is not None:
            _stop(self._delays.pop(room.sale_id, None))
            await self._draw_places(room, now)
        elif room.entries == 0:
            await self._set_randomness(room, NO_DRAW, "none")
        else:
            await self._use_delay(room)

    async def _draw_places(self, room: Room, now: datetime) -> None:
        assert room.list_digest is not None
        assert room.randomness is not None
        hashes: list[bytes] = []
        part_no = 0
        async with self._db.connection() as connection:
            while part := await store.read_part(connection, room.sale_id, part_no):
                hashes += part
                part_no += 1
        places = await asyncio.to_thread(rank_hashes, room.list_digest, room.randomness, hashes)
        async with self._db.transaction() as connection:
            drawn = await store.mark_drawn(connection, room.sale_id, places, now)
        if drawn:
            _logger.info("drew the places of a room", extra={"sale_id": room.sale_id, "count": len(places)})

    # Serving.

    async def _serve(self, room: Room, keys: SaleKeys, now: datetime, last_number: int) -> None:
        """Raise the number served as far as stock, pace and the people in the room allow."""
        stock = await self._read_products(keys)
        [load] = await lua.read_load_states(self._redis, [keys])
        if not stock or not load.is_adopted:
            return  # Redis does not have the sale, or may be behind: nobody can order, and turns stand still
        free, sold_out = sum(stock.values()), sorted(sku for sku, units in stock.items() if units <= 0)
        now_ms = to_ms(now)
        if self._is_sold_out(room.sale_id, free, now_ms):
            if room.mode == "automatic":  # units may be returned, and the next rush may come; nobody waits for that
                await self._stand_by(room, now, last_number)
            else:
                await self._end(room, now, sold_out)
            return
        room = _continue_turns(room, now_ms)
        expired = _expired(room, now_ms)
        pace = await self._choose_pace(room, keys, now_ms)
        ordered = await self._count_orders(room, now_ms)
        has_left = await lua.count_left(self._redis, keys, expired, room.served)
        outstanding = max(0, room.served - expired - has_left - ordered)
        burst_s = max(_MAX_BURST_S, 1 / pace)
        elapsed_s = (now_ms - room.steps[-1].at_ms) / 1000 if room.steps else burst_s
        people = min(int(pace * max(0.0, min(elapsed_s, burst_s))), ceil(free * room.served_per_unit) - outstanding)
        served = max(room.served, min(room.served + people, last_number))
        changed = msgspec.structs.replace(
            room,
            served=served,
            expired=expired,
            pace_per_s=pace,
            steps=room.steps if served == room.served else _add_step(room, served, now_ms),
            sold_out=sold_out[:MAX_SOLD_OUT_SKUS],
        )
        is_due = room.turns_ran_at is None or now_ms - to_ms(room.turns_ran_at) >= _RUNNING_INTERVAL_MS
        if changed == room and not is_due:
            return
        async with self._db.connection() as connection:
            stored = await store.serve(connection, changed, now)
        if stored:
            await lua.forget_left(self._redis, keys, expired)

    def _is_sold_out(self, sale_id: str, free: int, now_ms: int) -> bool:
        """Tell whether no unit has been free for some time: a stock change may take all for a moment."""
        if free > 0:
            self._sold_out_since_ms.pop(sale_id, None)
            return False
        return now_ms - self._sold_out_since_ms.setdefault(sale_id, now_ms) >= _SOLD_OUT_MS

    async def _choose_pace(self, room: Room, keys: SaleKeys, now_ms: int) -> float:
        """Return the pace: lower while the order writer lags behind, else rising to the room's maximum."""
        oldest_ms = (await lua.read_backlog(self._redis, keys)).oldest_ms
        is_late = oldest_ms is not None and now_ms - oldest_ms > _MAX_LAG_MS
        pace = room.pace_per_s or room.max_pace_per_s
        return min(float(room.max_pace_per_s), max(1.0, pace * (_SLOWER if is_late else _FASTER)))

    async def _count_orders(self, room: Room, now_ms: int) -> int:
        """Count the people who ordered since the first of those who have a turn got it."""
        begun_ms = [step.at_ms for step in room.steps if step.end_ms(room.served_valid_s) > now_ms]
        if not begun_ms:
            return 0
        assert room.drawn_at is not None
        begin_ms = max(to_ms(room.opened_at or room.drawn_at), begun_ms[0] - _merged_ms(room))
        counts = self._orders.get(room.sale_id)
        if counts is None:
            counts = self._orders[room.sale_id] = OrderCounts(room.sale_id)
        async with self._db.connection() as connection:
            return await counts.count(connection, begin_ms, now_ms)

    async def _end(self, room: Room, now: datetime, sold_out: Sequence[str]) -> None:
        async with self._db.connection() as connection:
            ended = await store.end(connection, room.sale_id, now, sold_out[:MAX_SOLD_OUT_SKUS])
        self._orders.pop(room.sale_id, None)
        self._sold_out_since_ms.pop(room.sale_id, None)
        _stop(self._fetches.pop(room.sale_id, None))
        _stop(self._delays.pop(room.sale_id, None))
        if ended:
            _logger.info("ended a room", extra={"sale_id": room.sale_id, "count": room.served})

    async def _forget(self, room: Room, keys: SaleKeys) -> None:
        """Delete an ended room in Redis, again and again: a slower keeper may have put it back."""
        now_ms = self._clock.now_ms()
        if now_ms - self._forgotten_ms.get(room.sale_id, 0) >= _FORGET_INTERVAL_MS:
            await lua.forget_room(self._redis, keys)
            self._forgotten_ms[room.sale_id] = now_ms

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _stop(task: asyncio.Task[str] | None) -> None:
    """Stop a task whose result is not needed. asyncio would log a failure that nobody has looked at."""
    if task is not None and not task.cancel() and not task.cancelled():
        task.exception()


def _continue_turns(room: Room, now_ms: int) -> Room:
    """Return the room with the time added to its turns in which nobody could order."""
    gap_ms = 0 if room.turns_ran_at is None else now_ms - to_ms(room.turns_ran_at)
    if gap_ms < _MIN_GAP_MS:
        return room
    return msgspec.structs.replace(
        room, steps=[step._replace(stood_still_ms=step.stood_still_ms + gap_ms) for step in room.steps]
    )


def _expired(room: Room, now_ms: int) -> int:
    """Return the number up to which everybody has had his time."""
    return max([room.expired, *(step.served for step in room.steps if step.end_ms(room.served_valid_s) <= now_ms)])


def _add_step(room: Room, served: int, now_ms: int) -> list[Step]:
    """Add a step. Steps of a short time become one with its last moment, so that nobody's time is cut."""
    steps = [step for step in room.steps if step.end_ms(room.served_valid_s) > now_ms]
    if len(steps) >= 2 and now_ms - steps[-2].at_ms < _merged_ms(room):
        steps.pop()
    return [*steps, Step(served, now_ms)]


def _merged_ms(room: Room) -> int:
    return room.served_valid_s * 1000 // _STEPS_KEPT


async def _compute_delay(list_digest: bytes, rounds: int) -> str:
    """Compute the delay, a round per call of a thread: a process that stops waits for one round."""
    values = iterate_delay(list_digest, rounds)
    value = b""
    for _ in range(rounds):
        value = await asyncio.to_thread(next, values)
    return value.hex()
