"""Turns: how long they last, who counts as waiting for an order, and rooms of sales that are open."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

import lua
from commerce.kernel.clock import from_ms, to_ms
from commerce.waiting_rooms import service, store
from commerce.waiting_rooms.errors import InvalidRoomState
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import Room, RoomSettings
from commerce.waiting_rooms.order_counts import OrderCounts
from commerce.waiting_rooms.service import WaitingRooms
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.coupons import make_coupon
from tests.support.gateway import run_workers
from tests.support.rooms import SKU, ShiftedClock, TestRoom, open_room, open_serving_room
from tests.support.sales import eventually, make_sale


async def _store_orders(shop: CliServices, sale_id: str, count: int, users: int, begin_ms: int, step_ms: int) -> None:
    """Store orders of the users in turn, with ids that begin with their times."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
            "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) "
            "SELECT (lpad(to_hex($3::bigint + n * $4::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid, "
            "$1 || (n % $5), $1 || n, decode(repeat('00', 16), 'hex'), $1, 1, 'CNY', 100, '[]', '[]', now(), 0, now(), "
            "now() + interval '1 hour' FROM generate_series(0, $2::bigint - 1) AS n",
            sale_id,
            count,
            begin_ms,
            step_ms,
            users,
        )


async def test_turns_stand_still_while_nobody_can_order(shop: CliServices, sale_id: str) -> None:
    room, _ = await open_serving_room(shop, sale_id, 30, units=10, served_per_unit=1, served_valid_s=60)
    room.move_to((await room.read()).opens_at)
    assert (await room.let_pass(4)).served == 10

    await shop.sales.pause(sale_id, "test")
    await room.let_pass(70)
    await shop.sales.open(sale_id, "test")
    assert ((await room.let_pass(4)).expired, (await room.read()).served) == (0, 10)
    run_id = await shop.redis.hget(room.keys.meta, "run_id")
    await shop.redis.hset(room.keys.meta, "run_id", "0" * 40)  # a copy that may be behind
    await room.let_pass(70)
    await shop.redis.hset(room.keys.meta, "run_id", run_id)
    assert ((await room.let_pass(4)).expired, (await room.read()).served) == (0, 10)
    stock = await shop.redis.hgetall(room.keys.stock)
    await shop.redis.delete(room.keys.stock)  # a rebuild
    await room.let_pass(70)
    await shop.redis.hset(room.keys.stock, mapping=stock)
    assert ((await room.let_pass(40)).expired, (await room.read()).served) == (0, 10)
    expired = await room.let_pass(20)
    assert (expired.expired, expired.served) == (10, 20), "turns last as long as usual in all"


async def test_count_of_a_restarted_keeper_holds_and_takes_people_once(shop: CliServices, sale_id: str) -> None:
    now_ms, window_ms = shop.clock.now_ms(), 300_000
    await _store_orders(shop, sale_id, 300, 30, now_ms - window_ms, 1_000)
    counts = OrderCounts(sale_id)
    async with shop.db.connection() as connection:
        at_first = await counts.count(connection, now_ms - window_ms, now_ms)
        later = await counts.count(connection, now_ms - window_ms + 500, now_ms + 500)
        assert 280 <= at_first <= 300
        assert at_first - later <= 20, "the first window is not one block, dropped as a whole"
        assert await OrderCounts(sale_id).count(connection, now_ms - 5_000, now_ms) == 5
        await _store_orders(shop, f"{sale_id}-2", 300, 3, now_ms - window_ms + 7, 0)
        assert await store.count_buyers(connection, f"{sale_id}-2", now_ms - window_ms, now_ms) == 3


async def test_room_of_running_sale_begins_at_once_and_earlier_orders_do_not_count(
    shop: CliServices, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {SKU: (5, 100, None)})
    now_ms = shop.clock.now_ms()
    await _store_orders(shop, sale_id, 500, 500, now_ms - 200_000, 400)
    stored = await shop.rooms.put(sale_id, RoomSettings("on", from_ms(now_ms), served_per_unit=1), "test")
    assert (stored.state, stored.entries, stored.source) == ("serving", 0, "none: nobody is on the list")
    clock = ShiftedClock()
    room = TestRoom(shop, RoomKeeper(shop.db, shop.redis, clock, shop.settings.rooms), clock, keys, sale_id)
    await room.step()
    assert await room.numbers([f"user-{number}" for number in range(40)]) == list(range(1, 41))
    assert (await room.let_pass(10)).served == 5


async def test_room_ends_after_some_time_without_stock_and_leaves_redis(shop: CliServices, sale_id: str) -> None:
    room, _ = await open_serving_room(shop, sale_id, 10, units=3)
    room.move_to((await room.read()).opens_at)
    await room.let_pass(2)
    await shop.redis.hset(room.keys.stock, SKU, 0)
    assert (await room.step()).state == "serving"
    await shop.redis.hset(room.keys.stock, SKU, 3)
    await room.step()
    await shop.redis.hset(room.keys.stock, SKU, 0)
    room.clock.shift_ms += 2_500
    assert (await room.step()).state == "serving", "there was no stock for a moment, twice"
    assert (await room.let_pass(2)).state == "ended"
    assert await shop.redis.exists(room.keys.room), "as after a crash between the two"
    await room.step()
    assert not await shop.redis.exists(room.keys.room, room.keys.room_meta, room.keys.room_left)
    await shop.redis.hset(room.keys.room, "x", 1)  # by a keeper that was slower
    room.clock.shift_ms += 61_000
    await room.step()
    assert not await shop.redis.exists(room.keys.room)


async def test_times_are_fixed_seconds_before_the_list_closes(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    stored = await room.read()
    rooms = WaitingRooms(shop.db, shop.sales, room.clock)
    later = RoomSettings("on", stored.join_opens_at, stored.opens_at, fallback_rounds=1)
    room.move_to(stored.list_closes_at - timedelta(seconds=3))
    with pytest.raises(InvalidRoomState, match="within seconds"):
        await rooms.put(sale_id, later, "test")
    same = msgspec.structs.replace(later, list_closes_at=stored.list_closes_at, max_pace_per_s=7)
    assert (await rooms.put(sale_id, same, "test")).max_pace_per_s == 7
    room.move_to(stored.list_closes_at - timedelta(seconds=30))
    assert (await rooms.put(sale_id, later, "test")).list_closes_at == stored.opens_at


async def test_list_is_stored_with_the_time_at_which_it_is_fixed(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await open_room(shop, sale_id)
    store_list = store._store_list

    async def store_slowly(*arguments: object) -> None:
        await store_list(*arguments)  # type: ignore[arg-type]
        room.clock.shift_ms += 5_000

    monkeypatch.setattr(store, "_store_list", store_slowly)
    closes_at = (await room.read()).list_closes_at
    room.move_to(closes_at)
    listed_at = (await room.step()).listed_at
    assert listed_at is not None
    assert to_ms(listed_at) - to_ms(closes_at) >= 5_000


async def test_room_beyond_the_maximum_is_refused(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await open_room(shop, sale_id)
    stored = await room.read()
    await make_sale(shop, f"{sale_id}-2", {SKU: (1, 100, None)}, opens_at=stored.opens_at)
    monkeypatch.setattr(service, "MAX_ROOMS", 1)
    settings = RoomSettings("on", stored.join_opens_at, stored.list_closes_at, fallback_rounds=1)
    with pytest.raises(InvalidRoomState, match="another room"):
        await shop.rooms.put(f"{sale_id}-2", settings, "test")
    monkeypatch.setattr(service, "MAX_ROOMS", 0)
    assert (await shop.rooms.put(sale_id, settings, "test")).mode == "on"


async def test_long_step_of_a_room_holds_up_no_other(
    shop: CliServices, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, released, take_step = await open_room(shop, sale_id), asyncio.Event(), RoomKeeper.step
    await open_room(shop, f"{sale_id}-2")
    keys = SaleKeys(f"{sale_id}-2")
    await shop.redis.delete(keys.room_meta)

    async def step_slowly(self: RoomKeeper, stored: Room) -> None:
        if stored.sale_id == room.sale_id:
            await released.wait()
        await take_step(self, stored)

    async def is_prepared() -> bool:
        return (await lua.read_room(shop.redis, keys)).stage == "open"

    monkeypatch.setattr(RoomKeeper, "step", step_slowly)
    async with run_workers(settings, "room_keeper"):
        try:
            await eventually(is_prepared)
            await shop.redis.delete(keys.room_meta)
            await eventually(is_prepared)
        finally:
            released.set()


async def test_coupons_that_are_left_let_nobody_in(shop: CliServices, sale_id: str) -> None:
    """The room ends when the products are sold, though coupons are left."""
    room, _ = await open_serving_room(shop, sale_id, 10, units=3, served_per_unit=1)
    await make_coupon(shop, sale_id, "TEN", 100)
    room.move_to((await room.read()).opens_at)
    assert (await room.let_pass(4)).served == 3
    await shop.redis.hset(room.keys.stock, SKU, 0)
    ended = await room.let_pass(4)
    assert (ended.state, ended.sold_out) == ("ended", [SKU])
