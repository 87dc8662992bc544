"""The keeping of a room: the list, the draw, serving, restarts and the end."""

from __future__ import annotations

import asyncio
import hmac
from datetime import timedelta

import msgspec
import pytest

import lua
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from commerce.waiting_rooms import draw, keeper, store
from commerce.waiting_rooms.errors import InvalidRoomState
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import RoomSettings
from commerce.waiting_rooms.service import WaitingRooms, to_public_room
from lua import JoinOutcome
from ops.services import CliServices
from tests.support.rooms import SKU, ShiftedClock, TestRoom, open_room, open_serving_room
from tests.support.sales import make_sale, reservation, reserve

LATER = timedelta(seconds=1)


async def _file(shop: CliServices, sale_id: str) -> list[str]:
    text = b"".join([part async for part in shop.rooms.draw_file(sale_id)]).decode()
    return text.splitlines(keepends=True)


async def test_people_of_a_room_get_the_places_of_the_draw_and_later_ones_stand_behind(
    shop: CliServices, sale_id: str
) -> None:
    room = await open_room(shop, sale_id)
    users = [f"user-{number}" for number in range(50)]
    assert {result.outcome for result in await room.join(users * 2)} == {JoinOutcome.LISTED}
    with pytest.raises(InvalidRoomState, match="closes at"):
        await _file(shop, sale_id)
    stored = await room.read()
    room.move_to(stored.list_closes_at)
    closed = await room.step()
    assert (closed.state, closed.entries) == ("drawing", 50)
    with pytest.raises(draw.DrawError, match="not drawn yet"):
        draw.check_draw(await _file(shop, sale_id))
    assert await room.numbers(["late-1", "late-2", "late-1"]) == [51, 52, 51]
    assert set(await room.numbers(users)) == {0}
    await room.step_until("serving")
    await room.step()
    lines = await _file(shop, sale_id)
    assert draw.check_draw(lines).list_digest == (closed.list_digest or b"").hex()
    places = {line.strip(): number for number, line in enumerate(lines[1:], 1)}
    hashes = [draw.ticket_hash(sale_id, user, _nonce(stored.salt, user)).hex() for user in users]
    assert await room.numbers(users) == [places[ticket] for ticket in hashes]
    assert await room.numbers(["late-3", "late-1"]) == [53, 51]


def _nonce(salt: bytes, user: str) -> bytes:
    return hmac.new(salt, user.encode(), "sha256").digest()[:16]


async def test_named_randomness_draws_and_one_that_comes_late_is_refused(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=30)
    await room.join(["a", "b"])
    stored = await room.read()
    with pytest.raises(Invalid, match="after the list closes"):
        await shop.rooms.name_source(sale_id, "the lottery", stored.list_closes_at, "test")
    named_at = stored.list_closes_at + timedelta(seconds=10)
    for source in ("", " ", "x" * 301, "two\nlines", "drand:abc:1", f"drand:{'ab' * 32}:9", "Delay:60", "\u043botto"):
        with pytest.raises(Invalid, match="cannot name this source"):
            await shop.rooms.name_source(sale_id, source, named_at, "test")
    await shop.rooms.name_source(sale_id, "the lottery", named_at, "test")
    with pytest.raises(InvalidRoomState, match="room is waiting"):
        await shop.rooms.set_randomness(sale_id, "3 14 15", "test")
    room.move_to(stored.list_closes_at)
    assert (await room.step(3)).randomness is None
    rooms = WaitingRooms(shop.db, shop.sales, room.clock)
    with pytest.raises(InvalidRoomState, match="list is closed"):
        await rooms.name_source(sale_id, "another lottery", named_at + LATER, "test")
    with pytest.raises(InvalidRoomState, match="the lottery is published at"):
        await rooms.set_randomness(sale_id, "3 14 15", "test")
    room.move_to(named_at)
    with pytest.raises(Invalid, match="without leading zeros"):
        await rooms.set_randomness(sale_id, "03 14 15", "test")
    await rooms.set_randomness(sale_id, "3 14 15", "test")
    drawn = await room.step()
    assert (drawn.state, drawn.source, drawn.randomness) == ("serving", "the lottery", "3 14 15")
    checked = draw.check_draw(await _file(shop, sale_id))
    assert checked.is_confirmed
    assert "compare the randomness with 'the lottery': 3 14 15" in checked.advice


async def test_drand_round_has_its_own_time_which_must_be_after_the_close(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    stored = await room.read()
    number = (stored.list_closes_at - draw.QUICKNET_FIRST_AT) // timedelta(seconds=3)
    public, later = (f"drand:{draw.QUICKNET}:{number + more}" for more in (1, 5))
    with pytest.raises(Invalid, match="after the list closes"):
        await shop.rooms.name_source(sale_id, public, None, "test")
    with pytest.raises(Invalid, match="it is public at"):
        await shop.rooms.name_source(sale_id, public, stored.list_closes_at + timedelta(hours=1), "test")
    named = await shop.rooms.name_source(sale_id, later, None, "test")
    assert named.randomness_at == draw.drand_time(later)


async def test_list_that_is_closed_late_does_not_use_the_public_value(shop: CliServices, sale_id: str) -> None:
    """The last second before the named time is late, too: the list was not seen by anybody before."""
    room = await open_room(shop, sale_id)
    named_at = (await room.read()).list_closes_at + timedelta(seconds=10)
    await shop.rooms.name_source(sale_id, "the lottery", named_at, "test")
    await room.join(["a"])
    room.move_to(named_at - timedelta(seconds=0.5))
    await room.step()
    room.move_to(named_at)
    with pytest.raises(InvalidRoomState, match="takes its place"):
        await WaitingRooms(shop.db, shop.sales, room.clock).set_randomness(sale_id, "1", "test")
    assert (await room.step_until("serving")).source == "delay:1"
    assert "fixed when that was public" in draw.check_draw(await _file(shop, sale_id)).advice[0]


async def test_announced_delay_survives_a_change_of_the_room(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    stored = await shop.rooms.name_source(sale_id, "delay:7", None, "test")
    values = {name: getattr(stored, name) for name in RoomSettings.__struct_fields__}
    await shop.rooms.put(sale_id, RoomSettings(**{**values, "max_pace_per_s": 9}), "test")
    assert (await room.read()).named_source == "delay:7"


async def test_download_ends_when_the_places_are_drawn_meanwhile(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PART_HASHES", 2)
    room = await open_room(shop, sale_id)
    await room.join([f"user-{number}" for number in range(5)])
    room.move_to((await room.read()).list_closes_at)
    await room.step()
    parts = shop.rooms.draw_file(sale_id)
    assert [len(await anext(parts)) for _ in range(2)][1] == 130, "the first line, and two hashes of the closed list"
    await room.step_until("serving")
    with pytest.raises(InvalidRoomState, match="drawn during the download"):
        await anext(parts)
    assert draw.check_draw(await _file(shop, sale_id)).entries == 5


async def test_randomness_that_does_not_come_is_replaced_by_the_delay(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, fallback_after_s=30, fallback_rounds=2)
    await room.join(["a", "b", "c"])
    stored = await room.read()
    await shop.rooms.name_source(sale_id, "the lottery", stored.list_closes_at + 5 * LATER, "test")
    room.move_to(stored.list_closes_at)
    await room.step()
    room.move_to(stored.list_closes_at + timedelta(seconds=40))
    assert (await room.step_until("serving")).source == "delay:2"
    checked = draw.check_draw(await _file(shop, sale_id))
    assert not checked.is_confirmed
    assert "'the lottery' was named and not used" in checked.advice[0]
    page = to_public_room(await room.read(), stored.opens_at).draw
    assert (page.fallback, page.fallback_at) == ("delay:2", stored.list_closes_at + 35 * LATER)
    assert page.listed_at == (await room.read()).listed_at


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Failpoints that raise once."""
    points: list[str] = []

    def hit(name: str) -> None:
        if name in points:
            points.remove(name)
            raise RuntimeError(name)

    monkeypatch.setattr(keeper, "failpoint", hit)
    return points


async def test_interrupted_close_and_lost_redis_lose_no_place(
    shop: CliServices, sale_id: str, crash: list[str]
) -> None:
    room = await open_room(shop, sale_id)
    users = [f"user-{number}" for number in range(30)]
    await room.join(users)
    room.move_to((await room.read()).list_closes_at)
    crash.append("room.after_close")
    with pytest.raises(RuntimeError):
        await room.step()
    assert await room.numbers(["late"]) == [31]
    await room.step()
    await shop.redis.delete(room.keys.room, room.keys.room_meta)  # a Redis that has lost everything
    await room.step_until("serving")
    crash.append("room.before_stage")
    with pytest.raises(RuntimeError):
        await room.step()
    await room.step()
    numbers = await room.numbers(users)
    assert sorted(numbers) == list(range(1, 31))
    assert [result.number for result in await room.join(["late"], shown=31)] == [31], "the ticket restores the place"
    await shop.redis.delete(room.keys.room, room.keys.room_meta)
    await room.step()
    assert await room.numbers(users) == numbers


async def test_serving_keeps_order_skips_leavers_and_is_bounded_by_stock(shop: CliServices, sale_id: str) -> None:
    room, users = await open_serving_room(shop, sale_id, 40, units=5, served_per_unit=2, served_valid_s=60)
    stored = await room.read()
    left = [draw.ticket_hash(sale_id, user, _nonce(stored.salt, user)) for user in users[2:5]]
    assert [await lua.leave_room(shop.redis, room.keys, ticket) for ticket in left] == [True] * 3
    assert not await lua.leave_room(shop.redis, room.keys, left[0])
    assert (await room.step()).served == 0, "the sale is not open yet"
    room.move_to(stored.opens_at)
    assert (await room.let_pass(4)).served == 13, "ten people for five units; three have left"
    served = await room.let_pass(64)
    assert (served.expired, served.served) == (13, 23), "those whose time is over are replaced"
    assert await room.numbers(users[:1]) == [41], "joining again leads to the end"
    assert await room.numbers(users[30:31]) == [31]


async def test_two_keepers_serve_no_faster_and_never_back(shop: CliServices, sale_id: str) -> None:
    room, _ = await open_serving_room(shop, sale_id, 200, units=1_000, max_pace_per_s=20)
    room.move_to((await room.read()).opens_at)
    other, began_ms = RoomKeeper(shop.db, shop.redis, room.clock, shop.settings.rooms), room.clock.now_ms()
    served = [0]
    for _ in range(4):
        room.clock.shift_ms += 1_000
        stored = await room.read()
        await asyncio.gather(room.keeper.step(stored), other.step(stored))
        await asyncio.gather(room.keeper.step(await room.read()), other.step(await room.read()))
        served.append((await room.read()).served)
    assert served == sorted(served)
    assert 60 <= served[-1] <= 5 + 20 * (room.clock.now_ms() - began_ms) / 1000
    stale = msgspec.structs.replace(await room.read(), served=1)
    await room.keeper.step(stale)
    assert (await room.read()).served >= served[-1]


async def test_room_ends_for_all_when_the_last_unit_is_gone(shop: CliServices, sale_id: str) -> None:
    room, _ = await open_serving_room(shop, sale_id, 10, units=3)
    room.move_to((await room.read()).opens_at)
    assert (await room.step()).served == 6
    await shop.redis.hset(room.keys.meta, "opens_ms", 0)
    await reserve(shop.redis, room.keys, reservation(shop.ids.new, sale_id, {SKU: 3}))
    await room.step()
    ended = await room.let_pass(2)
    assert (ended.state, ended.sold_out, ended.served) == ("ended", [SKU], 6)
    assert await room.step() == ended


async def test_room_of_open_sale_draws_nothing_and_serves_first_comers_first(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {SKU: (100, 100, None)})
    now = from_ms(shop.clock.now_ms())
    stored = await shop.rooms.put(sale_id, RoomSettings("on", now), "test")
    clock = ShiftedClock()
    room = TestRoom(shop, RoomKeeper(shop.db, shop.redis, clock, shop.settings.rooms), clock, keys, sale_id)
    room.move_to(stored.list_closes_at)
    await room.step_until("serving")
    await room.step()
    assert await room.numbers(["ann", "ben", "ann"]) == [1, 2, 1]
    assert (await room.step()).served == 2
    assert draw.check_draw(await _file(shop, sale_id)).entries == 0


async def test_full_room_refuses_new_people_and_keeps_the_others(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, max_waiting=2)
    outcomes = [result.outcome for result in await room.join(["a", "b", "c", "a"])]
    assert outcomes == [JoinOutcome.LISTED, JoinOutcome.LISTED, JoinOutcome.FULL, JoinOutcome.LISTED]


async def test_settings_of_the_draw_are_fixed_when_the_list_is_closed(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    stored = await room.read()
    settings = RoomSettings("on", stored.join_opens_at, stored.list_closes_at, fallback_rounds=1)
    late = msgspec.structs.replace(settings, list_closes_at=stored.opens_at + LATER)
    with pytest.raises(Invalid, match="correct the times"):
        await shop.rooms.put(sale_id, late, "test")
    room.move_to(stored.list_closes_at)
    await room.step()
    with pytest.raises(InvalidRoomState, match="its list is closed"):
        await shop.rooms.put(sale_id, msgspec.structs.replace(settings, min_account_age_s=60), "test")
    changed = await shop.rooms.put(sale_id, msgspec.structs.replace(settings, max_pace_per_s=7), "test")
    assert (changed.max_pace_per_s, changed.salt) == (7, stored.salt)
