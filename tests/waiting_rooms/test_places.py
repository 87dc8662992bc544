"""Places: who left or missed his turn, and a Redis that is replaced while places are read or written."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import lua
from commerce.kernel.errors import NotReady
from commerce.waiting_rooms.tickets import hash_of
from gateway.room_joins import Outcome, RoomJoins
from lua import JoinOutcome, RoomPosition, SaleKeys
from ops.services import CliServices
from tests.support.rooms import TestRoom, open_room, open_serving_room
from tests.support.sales import eventually


async def _leave(room: TestRoom, user: str) -> bool:
    stored = await room.read()
    return await lua.leave_room(room.shop.redis, room.keys, hash_of(stored.salt, room.sale_id, user)[0])


async def test_leaver_joining_again_has_the_same_number_and_takes_no_other(shop: CliServices, sale_id: str) -> None:
    room, users = await open_serving_room(shop, sale_id, 20, units=4, served_per_unit=1, served_valid_s=60)
    for _ in range(3):
        assert await _leave(room, users[0])
        assert not await _leave(room, users[0])
        assert await room.numbers([users[0], users[0]]) == [1, 1]
    assert await room.numbers(["new"]) == [21], "no numbers were used up"
    assert await lua.count_left(shop.redis, room.keys, 0, 99) == 0
    assert await _leave(room, users[1])
    room.move_to((await room.read()).opens_at)
    assert (await room.let_pass(4)).served == 5, "the next person gets the turn of who left"
    assert await room.numbers([users[1]]) == [2]
    await room.let_pass(64)
    assert await _leave(room, users[0])
    assert await room.numbers([users[0]]) == [22], "after his turn he stands at the end"


async def test_leaver_of_a_closed_list_keeps_his_place_in_the_draw(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    await room.join(["ann", "ben"])
    room.move_to((await room.read()).list_closes_at)
    await room.step()
    assert [await _leave(room, user) for user in ("ann", "ben")] == [True, True]
    assert await room.numbers(["ann"]) == [0]
    await room.step_until("serving")
    await room.step()
    assert await lua.count_left(shop.redis, room.keys, 0, 99) == 1
    assert sorted(await room.numbers(["ann", "ben"])) == [1, 2]


async def test_place_after_a_missed_turn_is_restored_by_its_ticket(shop: CliServices, sale_id: str) -> None:
    room, users = await open_serving_room(shop, sale_id, 3, max_waiting=3, served_valid_s=10)
    assert (await room.join(["new"]))[0].outcome is JoinOutcome.FULL
    room.move_to((await room.read()).opens_at)
    assert (await room.let_pass(14)).expired == 3
    assert await room.numbers([users[0]]) == [4]
    await room.step()
    await shop.redis.delete(room.keys.room, room.keys.room_meta)
    await room.step()
    assert [result.number for result in await room.join([users[0]], shown=4)] == [4]
    assert await room.numbers(["new", "newer"]) == [5, 6], "the room is full of those who wait, not of all who ever did"
    assert (await room.join(["newest"]))[0].outcome is JoinOutcome.FULL


async def test_redis_that_is_behind_gives_no_number_twice(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id)
    await room.join(["ann"])
    room.move_to((await room.read()).list_closes_at)
    await room.step()
    assert await room.numbers(["late-1", "late-2"]) == [2, 3]
    assert (await room.step()).last_number == 3, "the row has it before the sale opens"
    await room.step_until("serving")
    await room.step()
    await shop.redis.hset(room.keys.room_meta, "last", 1)  # a promoted copy
    await room.step()
    assert await room.numbers(["late-3"]) == [4]
    assert await lua.close_room(shop.redis, room.keys) == 1
    run_id = (await lua.read_room(shop.redis, room.keys)).run_id
    await lua.stage_room(shop.redis, room.keys, "open", 9, 0, run_id)  # by a keeper with an old row
    assert (await lua.read_room(shop.redis, room.keys))[:2] == ("drawn", 4)
    await shop.redis.delete(room.keys.room_meta)
    assert await lua.stage_room(shop.redis, room.keys, "open", 0, 7, run_id) == 7
    await lua.close_room(shop.redis, room.keys)
    assert (await lua.read_room(shop.redis, room.keys))[:2] == ("closed", 7)


async def test_list_read_from_a_redis_that_was_replaced_is_not_stored(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await open_room(shop, sale_id)
    users = [f"user-{number}" for number in range(20)]
    await room.join(users)
    room.move_to((await room.read()).list_closes_at)
    people, read_listed = await shop.redis.dump(room.keys.room), lua.read_listed

    async def read_elsewhere(client: Any, keys: SaleKeys) -> set[bytes]:
        await client.delete(keys.room)
        return await read_listed(client, keys)

    with monkeypatch.context() as patch:
        patch.setattr(lua, "read_listed", read_elsewhere)
        with pytest.raises(NotReady, match="0 of 20 people"):
            await room.step()
    assert (await room.read()).state == "waiting"
    await shop.redis.restore(room.keys.room, 0, people)
    assert (await room.step()).entries == 20


async def test_list_placed_on_a_redis_that_was_replaced_is_placed_again(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, users = await open_serving_room(shop, sale_id, 5)
    await shop.redis.delete(room.keys.room, room.keys.room_meta)
    read_room = lua.read_room

    async def read_other(client: Any, keys: SaleKeys) -> RoomPosition:
        return (await read_room(client, keys))._replace(run_id="0" * 40)

    with monkeypatch.context() as patch:
        patch.setattr(lua, "read_room", read_other)
        with pytest.raises(NotReady, match="another Redis server"):
            await room.step()
    assert (await lua.read_room(shop.redis, room.keys)).stage is None
    await room.step()
    assert await room.numbers(users) == [1, 2, 3, 4, 5]


async def test_joins_that_wait_use_the_latest_room(shop: CliServices, sale_id: str) -> None:
    room = await open_room(shop, sale_id, max_waiting=1)
    stored, gate = await room.read(), asyncio.Event()

    class SlowLink:
        async def execute_command(self, *command: Any) -> Any:
            await gate.wait()
            return await shop.redis.execute_command(*command)

    joins = RoomJoins(SlowLink(), shop.settings)  # type: ignore[arg-type]
    outcomes: list[Outcome] = []
    joins.submit(stored, b"a" * 32, 0, outcomes.append)
    await asyncio.sleep(0)  # the first batch is on its way
    joins.submit(msgspec.structs.replace(stored, max_waiting=2), b"b" * 32, 0, outcomes.append)
    gate.set()

    async def are_all_answered() -> bool:
        return len(outcomes) == 2

    await eventually(are_all_answered)
    assert outcomes == [(JoinOutcome.LISTED, 0)] * 2
