"""Automatic rooms open in a rush, serve people by the order of joining, and close when it is calm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest

import lua
from commerce.kernel.clock import from_ms
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import RoomSettings
from commerce.waiting_rooms.refusal_rates import RefusalRates
from config.settings import Settings
from config.waiting_rooms import WaitingRoomSettings
from lua import JoinOutcome
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, run_workers
from tests.support.rooms import SKU, ShiftedClock, TestRoom
from tests.support.sales import eventually, make_sale, order_body

THRESHOLDS = WaitingRoomSettings(
    opens_at_refused_per_s=100, opens_after_s=3, closes_below_refused_per_s=10, closes_after_s=20
)


async def open_automatic_room(shop: CliServices, sale_id: str, *, units: int = 100, **settings: Any) -> TestRoom:
    """Open a sale with an automatic room that stands by."""
    keys, clock = await make_sale(shop, sale_id, {SKU: (units, 100, None)}), ShiftedClock()
    wanted = RoomSettings("automatic", from_ms(shop.clock.now_ms()) - timedelta(minutes=1), **settings)
    await shop.rooms.put(sale_id, wanted, "test")
    room = TestRoom(shop, RoomKeeper(shop.db, shop.redis, clock, THRESHOLDS), clock, keys, sale_id)
    await room.keeper.poll_refusals()
    return room


async def refuse(room: TestRoom, seconds: int, per_s: int, keeper: RoomKeeper | None = None) -> str:
    """Let gateways report so many refused orders per second, with a step of a keeper each second."""
    keeper = keeper or room.keeper
    for _ in range(seconds):
        if per_s:
            await lua.share_usage(room.shop.redis, b"a gateway", {lua.REFUSED_ORDERS: {room.sale_id: per_s}}, b"$")
        room.clock.shift_ms += 1_000
        await keeper.poll_refusals()
        await keeper.step(await room.read())
    return (await room.read()).state


async def read_openings(room: TestRoom) -> list[str]:
    async with room.shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT action FROM sale_log WHERE sale_id = $1 AND action LIKE 'room\\__%' ORDER BY log_id", room.sale_id
        )
    return [row["action"] for row in rows]


async def test_room_opens_only_after_seconds_of_many_refusals(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id)
    assert await refuse(room, 2, 200) == "standby", "not for so long"
    assert await refuse(room, 1, 0) == "standby"
    assert await refuse(room, 2, 200) == "standby", "not in a row"
    assert await refuse(room, 10, 50) == "serving", "a rate between the thresholds does not end the rush"
    opened = await room.read()
    assert (opened.entries, opened.served, opened.randomness, opened.is_open) == (0, 0, "none", True)


async def test_rates_between_thresholds_open_no_room(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id)
    assert await refuse(room, 30, 90) == "standby"


async def test_places_are_given_in_order_at_once_and_room_closes_when_nobody_waits(
    shop: CliServices, sale_id: str
) -> None:
    room = await open_automatic_room(shop, sale_id, max_pace_per_s=1)
    assert [result.outcome for result in await room.join(["early"])] == [JoinOutcome.NOT_READY]
    assert await refuse(room, 4, 200) == "serving"
    await room.step()
    assert await room.numbers(["ann", "ben", "cyd"]) == [1, 2, 3]
    assert await refuse(room, 2, 0) == "serving"
    assert 0 < (await room.read()).served < 3
    assert await refuse(room, 25, 0) == "standby"
    closed = await room.read()
    assert (closed.served, closed.expired, closed.steps) == (3, 3, [])
    assert await room.numbers(["late"]) == [4], "a join that met the closing"
    assert await refuse(room, 4, 200) == "serving"
    await room.step()
    assert await room.numbers(["late", "ann", "dan"]) == [4, 5, 6], "a number is kept, and one that was served is not"
    assert await refuse(room, 4, 0) == "serving"
    assert (await room.read()).served == 6
    assert await read_openings(room) == ["room_opened", "room_closed", "room_opened"]


async def test_room_stays_open_while_orders_are_refused_or_people_wait(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id, units=1, served_per_unit=1, served_valid_s=3_600)
    assert await refuse(room, 4, 200) == "serving"
    assert await refuse(room, 40, 20) == "serving"
    assert await refuse(room, 10, 0) == "serving"
    assert await refuse(room, 5, 20) == "serving", "the calm begins again"
    assert await refuse(room, 15, 0) == "serving"
    await room.numbers(["ann", "ben"])
    assert await refuse(room, 40, 0) == "serving"
    assert (await room.read()).served == 1, "ben waits for the one unit"


async def test_room_does_not_flap_at_any_load(shop: CliServices, sale_id: str) -> None:
    """A random load may open and close the room only as often as the two times allow."""
    room, random = await open_automatic_room(shop, sale_id), Random(1)
    changes, state, seconds = 0, "standby", 0
    while seconds < 300:
        length = random.choice((1, 2, 3, 5, 25))
        new = await refuse(room, length, random.choice((0, 5, 50, 200)))
        seconds, changes, state = seconds + length, changes + (new != state), new
    assert 0 < changes <= 2 * seconds / (THRESHOLDS.opens_after_s + THRESHOLDS.closes_after_s) + 1


async def test_two_keepers_open_and_close_once(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id)
    other = RoomKeeper(shop.db, shop.redis, room.clock, THRESHOLDS)
    await other.poll_refusals()
    for _ in range(4):
        await lua.share_usage(shop.redis, b"a gateway", {lua.REFUSED_ORDERS: {sale_id: 200}}, b"$")
        room.clock.shift_ms += 1_000
        stored = await room.read()
        for keeper in (room.keeper, other):
            await keeper.poll_refusals()
        await asyncio.gather(room.keeper.step(stored), other.step(stored))
    assert await read_openings(room) == ["room_opened"]
    for _ in range(25):
        room.clock.shift_ms += 1_000
        stored = await room.read()
        for keeper in (room.keeper, other):
            await keeper.poll_refusals()
        await asyncio.gather(room.keeper.step(stored), other.step(stored))
    assert await read_openings(room) == ["room_opened", "room_closed"]


async def test_killed_keeper_leaves_room_closed_and_another_opens_it(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await open_automatic_room(shop, sale_id)

    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "room.before_opened":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("commerce.waiting_rooms.keeper.failpoint", kill)
        with pytest.raises(Killed):
            await refuse(room, 5, 200)
    assert (await room.read()).state == "standby"
    assert await read_openings(room) == []
    other = RoomKeeper(shop.db, shop.redis, room.clock, THRESHOLDS)
    await other.poll_refusals()
    assert await refuse(room, 2, 200, other) == "standby", "a new keeper measures again"
    assert await refuse(room, 2, 200, other) == "serving"
    await other.step(await room.read())
    assert await room.numbers(["ann"]) == [1]


async def test_redis_lost_while_room_stands_by_gives_no_number_twice(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id)
    await refuse(room, 4, 200)
    await room.step()
    await room.numbers(["ann", "ben"])
    assert await refuse(room, 25, 0) == "standby"
    assert await room.numbers(["late"]) == [3], "a join that met the closing"
    await room.step()
    await shop.redis.delete(room.keys.room, room.keys.room_meta)
    assert await refuse(room, 4, 200) == "serving"
    await room.step()
    assert await room.numbers(["cyd", "ann"]) == [4, 5]
    assert [result.number for result in await room.join(["late"], shown=3)] == [3]


async def test_room_that_sells_out_stands_by_and_opens_for_returned_units(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id, units=2, served_per_unit=1)
    assert await refuse(room, 4, 200) == "serving"
    await room.step()
    assert await room.numbers([f"user-{number}" for number in range(10)]) == list(range(1, 11))
    await refuse(room, 2, 200)
    await shop.redis.hset(room.keys.stock, SKU, 0)
    assert await refuse(room, 4, 200) == "standby"
    closed = await room.read()
    assert (closed.served, closed.expired, closed.sold_out) == (10, 10, []), "nobody keeps a place for nothing"
    assert await refuse(room, 10, 200) == "standby"
    await shop.redis.hset(room.keys.stock, SKU, 1)
    assert await refuse(room, 1, 200) == "standby", "one unit that is bought at once opens no room"
    await shop.redis.hset(room.keys.stock, SKU, 0)
    assert await refuse(room, 5, 200) == "standby"
    await shop.redis.hset(room.keys.stock, SKU, 5)
    assert await refuse(room, 6, 200) == "serving"
    await room.step()
    assert await room.numbers(["user-9", "new"]) == [11, 12]
    await shop.sales.close(sale_id, "test")
    assert await refuse(room, 1, 0) == "ended"


async def test_paused_or_sold_out_sale_opens_no_room(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id, units=1)
    await shop.sales.pause(sale_id, "test")
    assert await refuse(room, 6, 200) == "standby"
    await shop.sales.open(sale_id, "test")
    await shop.redis.hset(room.keys.stock, SKU, 0)
    assert await refuse(room, 6, 200) == "standby"
    await shop.sales.close(sale_id, "test")
    assert await refuse(room, 1, 0) == "ended"


async def test_mode_changes_lose_no_list_and_open_no_sale_to_a_crowd(shop: CliServices, sale_id: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=2)
    await make_sale(shop, sale_id, {SKU: (100, 100, None)}, opens_at=opens_at)
    begin = from_ms(shop.clock.now_ms()) - timedelta(minutes=1)

    async def put(mode: Any) -> str:
        return (await shop.rooms.put(sale_id, RoomSettings(mode, begin), "test")).state

    assert await put("automatic") == "standby"
    assert await put("on") == "waiting", "the list is still to be drawn"
    assert await put("automatic") == "waiting", "people may be on the list"
    assert await put("off") == "waiting"
    assert await put("automatic") == "standby"
    assert await put("off") == "waiting"


async def test_standby_room_that_was_open_opens_with_mode_on(shop: CliServices, sale_id: str) -> None:
    room = await open_automatic_room(shop, sale_id)
    await refuse(room, 4, 200)
    assert await refuse(room, 25, 0) == "standby"
    stored = await room.read()
    values = {name: getattr(stored, name) for name in RoomSettings.__struct_fields__}
    await shop.rooms.put(sale_id, RoomSettings(**{**values, "mode": "on"}), "test")
    assert await refuse(room, 1, 0) == "serving"
    assert await refuse(room, 40, 0) == "serving", "a room that is on does not close"


async def test_gap_in_measurement_begins_again(shop: CliServices, sale_id: str) -> None:
    clock = ShiftedClock()
    rates = RefusalRates(shop.redis, clock, THRESHOLDS)
    await rates.poll()
    for seconds in (1, 1, 1, 9, 1, 1):
        await lua.share_usage(shop.redis, b"a gateway", {lua.REFUSED_ORDERS: {sale_id: 5_000}}, b"$")
        clock.shift_ms += seconds * 1_000
        await rates.poll()
    assert not rates.is_high(sale_id)
    await lua.share_usage(shop.redis, b"a gateway", {lua.REFUSED_ORDERS: {sale_id: 5_000}}, b"$")
    clock.shift_ms += 1_000
    await rates.poll()
    assert rates.is_high(sale_id)
    assert not rates.is_calm(sale_id)


def test_thresholds_without_hysteresis_are_refused() -> None:
    with pytest.raises(ValueError, match="a room would close in a rush"):
        WaitingRoomSettings(opens_at_refused_per_s=5, closes_below_refused_per_s=6)


async def test_rush_over_two_gateways_opens_room_of_both_and_calm_closes_it(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    """One gateway refuses for its backlog; at the other one orders then need a ticket, too."""
    await make_sale(shop, sale_id, {SKU: (1_000, 100, None)})
    await shop.rooms.put(sale_id, RoomSettings("automatic", from_ms(shop.clock.now_ms())), "test")
    rooms = {
        "opens_at_refused_per_s": 5, "opens_after_s": 1, "closes_below_refused_per_s": 5, "closes_after_s": 1
    }  # fmt: skip
    settings, body = make_settings(rooms=rooms), order_body(sale_id, (SKU, 1))
    full = make_settings(rooms=rooms, limits={"backlog_orders": 1, "orders_per_user_per_s": 1_000})
    async with open_gateway(settings) as gateway, open_gateway(full) as refusing:
        page = await read_page(gateway, sale_id)
        assert (page["state"], page["is_open"]) == ("standby", False)
        assert (await gateway.order(body, user="before")).status == 202
        refused = await gateway.call("POST", f"/v1/sales/{sale_id}/room", user="ann")
        assert (refused.status, refused.code) == (403, "room_not_open")

        async def is_open(part: TestGateway) -> bool:
            return bool((await read_page(part, sale_id))["is_open"])

        async def press_until_open() -> bool:
            answer = await refusing.order(body, user="crowd")
            assert answer.status in (202, 403, 503), answer
            return await is_open(gateway) and await is_open(refusing)

        async with run_workers(settings, "room_keeper"):
            await eventually(press_until_open)
            without = await gateway.order(body, user="ann")
            assert (without.status, without.code) == (403, "not_your_turn")
            assert f"/v1/sales/{sale_id}/room" in without.body["detail"]

            async def join() -> GatewayResponse | None:
                answer = await gateway.call("POST", f"/v1/sales/{sale_id}/room", user="ann")
                return answer if answer.status == 200 else None

            place = await eventually(join)
            assert place.body["number"] == 1

            async def order_with_ticket() -> bool:
                headers = {"Room-Ticket": place.body["ticket"], "Idempotency-Key": "ann-1"}
                answer = await gateway.call("POST", "/v1/orders", user="ann", headers=headers, json=body)
                return answer.status in (200, 202)

            await eventually(order_with_ticket)

            async def is_closed() -> bool:
                return not await is_open(gateway)

            await eventually(is_closed)
            assert (await gateway.order(body, user="after")).status == 202
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.differences == 0


async def read_page(gateway: TestGateway, sale_id: str) -> Any:
    answer = await gateway.call("GET", f"/v1/sales/{sale_id}/room", user=None)
    assert answer.status == 200
    return answer.body
