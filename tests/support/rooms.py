"""Waiting rooms for tests: a sale that opens when the test says so, with a room and people in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import lua
from commerce.kernel.clock import SystemClock, from_ms, to_ms
from commerce.waiting_rooms.keeper import RoomKeeper
from commerce.waiting_rooms.model import Room, RoomSettings
from commerce.waiting_rooms.tickets import hash_of
from lua import JoinResult, SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale

SKU = "A1"
MAX_STEP_S = 2.0
"""below the gap after which the turns of a room have stood still"""


class ShiftedClock(SystemClock):
    """The machine's clock, moved by `shift_ms`."""

    def __init__(self) -> None:
        self.shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


@dataclass
class TestRoom:
    """A room with its keeper, and a clock for them that the test moves."""

    __test__ = False  # pytest would take a class named Test… for a suite

    shop: CliServices
    keeper: RoomKeeper
    clock: ShiftedClock
    keys: SaleKeys
    sale_id: str

    async def read(self) -> Room:
        return await self.shop.rooms.get(self.sale_id)

    async def step(self, count: int = 1) -> Room:
        for _ in range(count):
            await self.keeper.step(await self.read())
        return await self.read()

    async def step_until(self, state: str) -> Room:
        """Step until the room is in a state; the delay of a draw is awaited on the way."""
        for _ in range(2_000):
            if (room := await self.step()).state == state:
                return room
            await self.clock.sleep(0.005)
        raise AssertionError(f"the room is {room.state}, not {state}")

    async def let_pass(self, seconds: float) -> Room:
        """Move the clock on in parts, with a step after each, as keepers that run all the time."""
        while seconds > 0:
            self.clock.shift_ms += int(min(seconds, MAX_STEP_S) * 1000)
            await self.step()
            seconds -= MAX_STEP_S
        return await self.read()

    async def join(self, users: Iterable[str], shown: int = 0) -> list[JoinResult]:
        room = await self.read()
        joins = [(hash_of(room.salt, self.sale_id, user)[0], shown) for user in users]
        return await lua.join_room(self.shop.redis, self.keys, joins, room.max_waiting, room.expired)

    async def numbers(self, users: Iterable[str]) -> list[int]:
        return [result.number for result in await self.join(users)]

    def move_to(self, moment: Any) -> None:
        self.clock.shift_ms = to_ms(moment) - SystemClock().now_ms()


async def open_room(shop: CliServices, sale_id: str, *, units: int = 100, **settings: Any) -> TestRoom:
    """Open a sale whose list closes in an hour and which opens in two; joining is open."""
    now = from_ms(shop.clock.now_ms())
    opens_at = now + timedelta(hours=2)
    keys = await make_sale(shop, sale_id, {SKU: (units, 100, None)}, opens_at=opens_at)
    values = {"fallback_rounds": 1, **settings}
    wanted = RoomSettings("on", now - timedelta(minutes=1), now + timedelta(hours=1), **values)
    await shop.rooms.put(sale_id, wanted, "test")
    clock = ShiftedClock()
    room = TestRoom(shop, RoomKeeper(shop.db, shop.redis, clock, shop.settings.rooms), clock, keys, sale_id)
    await room.step()
    return room


async def open_serving_room(
    shop: CliServices, sale_id: str, people: int, **settings: Any
) -> tuple[TestRoom, list[str]]:
    """Open a room, let people join and draw their places. Returns them in the order of their places."""
    room = await open_room(shop, sale_id, **settings)
    users = [f"user-{number}" for number in range(people)]
    await room.join(users)
    stored = await room.read()
    room.move_to(stored.list_closes_at)
    await room.step_until("serving")
    await room.step()
    numbers = dict(zip(await room.numbers(users), users, strict=True))
    return room, [numbers[number] for number in sorted(numbers)]
