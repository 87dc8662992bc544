"""Wait-lists for tests: a sold-out sale, people who wait, and a keeper whose clock is moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lua
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import ProblemError
from commerce.sales.model import StockChangeInput
from commerce.wait_lists.model import WaitList, WaitListEntry, WaitListJoin, WaitListSettings
from commerce.wait_lists.offer_keeper import WaitListKeeper
from commerce.wait_lists.service import WaitListRequest
from lua import Cut, ReserveOutcome, ReserveResult, SaleKeys
from ops.services import CliServices
from tests.support.rooms import ShiftedClock
from tests.support.sales import make_sale, reservation, reserve

SKU = "A1"
ACCEPT_S = 600
MAX_STEP_S = 2.0
"""below the gap after which the time to accept has stood still"""


@dataclass
class TestWaitList:
    """A wait-list with its keeper."""

    __test__ = False  # pytest would take a class named Test… for a suite

    shop: CliServices
    keeper: WaitListKeeper
    clock: ShiftedClock
    keys: SaleKeys
    sale_id: str
    limit: int = 0

    def new_keeper(self) -> WaitListKeeper:
        """Return another keeper, with the same clock."""
        return WaitListKeeper(self.shop.db, self.shop.redis, self.clock, self.shop.ids)

    async def read(self) -> WaitList:
        return await self.shop.wait_lists.get(self.sale_id)

    async def step(self, count: int = 1) -> WaitList:
        for _ in range(count):
            await self.keeper.step(await self.read())
        return await self.read()

    async def let_pass(self, seconds: float) -> WaitList:
        """Move the clock on in parts, with a step after each, as keepers that run all the time."""
        while seconds > 0:
            self.clock.shift_ms += int(min(seconds, MAX_STEP_S) * 1000)
            await self.step()
            seconds -= MAX_STEP_S
        return await self.read()

    async def end_offers(self, in_ms: int = 0) -> None:
        """Let the time of all offers end now, soon or long ago."""
        at = from_ms(self.clock.now_ms() + in_ms)
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE wait_list_entries SET accept_by = $1 WHERE state = 'offered'", at)

    async def join(self, users: Iterable[str], quantity: int = 1) -> list[WaitListEntry | ProblemError]:
        requests = [WaitListRequest(user, WaitListJoin(SKU, quantity), self.limit) for user in users]
        results = await self.shop.wait_lists.join(await self.read(), requests)
        return [result if isinstance(result, ProblemError) else result[0] for result in results]

    async def numbers(self, users: Iterable[str]) -> list[int]:
        places = await self.join(users)
        assert not any(isinstance(place, ProblemError) for place in places), places
        return [place.number for place in places if isinstance(place, WaitListEntry)]

    async def return_units(self, units: int) -> None:
        """Return units to the sale."""
        change = StockChangeInput(SKU, units, "found in the warehouse")
        await self.shop.stock.change(self.sale_id, self.shop.ids.new(), change, "test")

    async def states(self) -> dict[str, str]:
        """Return the state of each customer's last place, in order of their numbers."""
        async with self.shop.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id, state FROM wait_list_entries WHERE sale_id = $1 ORDER BY number", self.sale_id
            )
        return {row["user_id"]: row["state"] for row in rows}

    async def users_in(self, state: str) -> list[str]:
        return [user for user, state_of_user in (await self.states()).items() if state_of_user == state]

    async def order(self, user: str, units: int = 1, key: str | None = None) -> ReserveResult:
        limits = {SKU: self.limit} if self.limit else None
        order = reservation(self.shop.ids.new, self.sale_id, {SKU: units}, user=user, key=key, limits=limits)
        [result] = await reserve(self.shop.redis, self.keys, order)
        return result

    async def outcomes(self, users: Sequence[str]) -> list[ReserveOutcome]:
        return [(await self.order(user)).outcome for user in users]

    async def cut(self) -> Cut:
        return await lua.cut(self.shop.redis, self.keys)

    async def units(self) -> tuple[int, int, int]:
        """Return the units free, held back and offered."""
        cut = await self.cut()
        return cut.stock.get(SKU, 0), cut.held_back.get(SKU, 0), cut.offered.get(SKU, 0)


async def open_wait_list(
    shop: CliServices, sale_id: str, *, units: int = 0, limit: int | None = None, **settings: Any
) -> TestWaitList:
    """Open a sale with a wait-list."""
    keys = await make_sale(shop, sale_id, {SKU: (units, 100, limit)})
    await shop.wait_lists.put(sale_id, WaitListSettings(**{"accept_s": ACCEPT_S, **settings}), "test")
    clock = ShiftedClock()
    keeper = WaitListKeeper(shop.db, shop.redis, clock, shop.ids)
    return TestWaitList(shop, keeper, clock, keys, sale_id, limit or 0)
