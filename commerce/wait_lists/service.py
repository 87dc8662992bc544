"""Wait-lists for staff and gateways: settings, joining, leaving, one's own place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sales import store as sales_store
from commerce.sales.errors import NoSuchItem, NoSuchSale, OverLimit
from commerce.sales.model import SaleState
from commerce.sales.service import Sales
from commerce.wait_lists import store
from commerce.wait_lists.errors import (
    InvalidWaitListState,
    NotOnWaitList,
    NoWaitList,
    StillAvailable,
    WaitListFull,
)
from commerce.wait_lists.model import (
    MAX_WAIT_LIST_SKUS,
    MAX_WAIT_LISTS,
    ChangedWaitListSettings,
    PublicWaitList,
    WaitList,
    WaitListEntry,
    WaitListJoin,
    WaitListSettings,
)
from commerce.wait_lists.store import SkuCounts
from lua import CustomerUnits, SaleKeys

_KEPT_AFTER_CLOSE = timedelta(days=1)
_ASK_AGAIN_S, _ENDED_ASK_AGAIN_S = 2, 30


class WaitListRequest(NamedTuple):
    """A join of one customer; `limit` is the sale's limit per user for the SKU, 0 for none."""

    user_id: str
    join: WaitListJoin
    limit: int


class WaitLists:
    """Wait-lists, one per sale, with places by SKU."""

    def __init__(self, db: Database, redis: Redis, sales: Sales, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._sales = sales
        self._clock = clock

    async def put(self, sale_id: str, settings: WaitListSettings, actor: str) -> WaitList:
        """Set up the wait-list of a sale, or replace its settings.

        Off, it ends the places of all who wait, and what is offered or held back goes on sale. Raises `NoSuchSale`, or
        `InvalidWaitListState` if the sale is closed or too many sales have wait-lists.
        """
        async with self._db.transaction() as connection:
            await _lock_sale(connection, sale_id)
            if (others := await store.count_others(connection, sale_id)) >= MAX_WAIT_LISTS:
                raise InvalidWaitListState(
                    f"cannot set up another wait-list: {others} sales that are not closed have one; close some first"
                )
            await self._store(connection, sale_id, settings, actor)
        await self._sales.sync_to_redis(sale_id)
        return await self.get(sale_id)

    async def change(self, sale_id: str, changes: ChangedWaitListSettings, actor: str) -> WaitList:
        """Change the given settings of a wait-list, as `put` does. Raises `NoWaitList` if the sale has none."""
        async with self._db.transaction() as connection:
            await _lock_sale(connection, sale_id)
            current = await store.get_settings(connection, sale_id)
            if current is None:
                raise _no_wait_list(sale_id)
            settings = msgspec.structs.replace(current, **msgspec.to_builtins(changes))
            if settings != current:
                await self._store(connection, sale_id, settings, actor)
        await self._sales.sync_to_redis(sale_id)
        return await self.get(sale_id)

    async def _store(self, connection: Connection, sale_id: str, settings: WaitListSettings, actor: str) -> None:
        await store.put(connection, sale_id, settings, self._now())
        await sales_store.set_wait_list(connection, sale_id, settings.mode == "on")
        await store.log(connection, sale_id, self._now(), actor, "wait_list", msgspec.to_builtins(settings))

    async def get(self, sale_id: str) -> WaitList:
        """Read a wait-list. Raises `NoWaitList`."""
        async with self._db.connection() as connection:
            wait_lists = await store.list_wait_lists(connection, self._now(), sale_id)
        if not wait_lists:
            raise _no_wait_list(sale_id)
        return wait_lists[0]

    async def list_kept(self) -> list[WaitList]:
        """List the wait-lists of sales that are open, paused or closed lately."""
        async with self._db.connection() as connection:
            return await store.list_wait_lists(connection, self._now() - _KEPT_AFTER_CLOSE)

    async def join(
        self, wait_list: WaitList, requests: Sequence[WaitListRequest]
    ) -> list[tuple[WaitListEntry, int] | ProblemError]:
        """Give each customer of a batch a place, the same one however often he joins.

        Returns per request the place with the highest number that had an offer, or the refusal: `StillAvailable` while
        a unit is free, `OverLimit`, `WaitListFull`, or `NotReady` if Redis cannot tell.
        """
        sale_id = wait_list.sale_id
        pairs = list(dict.fromkeys((request.user_id, request.join.sku) for request in requests))
        async with self._db.transaction() as connection:
            # The lock first: the keeper puts units on sale under it, so they are seen here, or this place there.
            counts = await store.lock_skus(connection, sale_id, sorted({sku for _, sku in pairs}))
            places = await store.list_open_places(connection, sale_id, pairs)
            units = await self._read_units(sale_id, [pair for pair in pairs if pair not in places])
            problems: dict[tuple[str, str], ProblemError] = {}
            added: list[tuple[str, int, WaitListJoin]] = []
            awaited_skus: int | None = None
            for request in requests:
                user_id, join, _ = request
                pair = user_id, join.sku
                if pair in places:
                    continue
                if (of_sku := counts.get(join.sku)) is None:
                    problems[pair] = NoSuchItem(f"{sale_id} does not offer {join.sku}")
                    continue
                problem = _find_refusal(wait_list, request, units[pair], of_sku)
                if problem is None and not of_sku.is_awaited:
                    if awaited_skus is None:
                        awaited_skus = await store.count_awaited_skus(connection, sale_id)
                    awaited_skus += 1
                    if awaited_skus > MAX_WAIT_LIST_SKUS:
                        problem = WaitListFull(f"cannot wait for {join.sku}: people wait for too many other SKUs")
                if problem is not None:
                    problems[pair] = problem
                    continue
                number = of_sku.last_number + 1
                counts[join.sku] = of_sku._replace(last_number=number, waiting=of_sku.waiting + 1)
                added.append((user_id, number, join))
                places[pair] = WaitListEntry(sale_id, join.sku, number, user_id, join.quantity, "waiting", None, None)
            if added:
                await store.insert_places(connection, sale_id, added, self._now())
        results: list[tuple[WaitListEntry, int] | ProblemError] = []
        for user_id, join, _ in requests:
            place = places.get((user_id, join.sku))
            results.append(problems[user_id, join.sku] if place is None else (place, counts[join.sku].offered_number))
        return results

    async def _read_units(
        self, sale_id: str, pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], CustomerUnits | None]:
        """Read what Redis has for new places; None if it does not tell."""
        try:
            units = await lua.read_customer_units(self._redis, SaleKeys(sale_id), pairs)
        except REDIS_UNAVAILABLE:
            return dict.fromkeys(pairs)
        return dict(zip(pairs, units, strict=True))

    async def get_place(self, sale_id: str, sku: str, user_id: str) -> WaitListEntry:
        """Read the last place of a customer for a SKU. Raises `NotOnWaitList`."""
        async with self._db.connection() as connection:
            place = await store.get_latest_place(connection, sale_id, sku, user_id)
        if place is None:
            raise NotOnWaitList(f"you have no place on the wait-list for {sku}")
        return place

    async def leave(self, sale_id: str, sku: str, user_id: str) -> bool:
        """Give up a place, or what is offered. Returns False if the customer has neither.

        Raises `NotReady` if an offer is being made.
        """
        async with self._db.transaction() as connection:
            await store.lock_skus(connection, sale_id, [sku])
            if await store.leave(connection, sale_id, sku, user_id, self._now()):
                return True
            place = await store.get_latest_place(connection, sale_id, sku, user_id)
        if place is not None and place.state == "offered":
            raise NotReady("an offer is being made to you at this moment; repeat the request")
        return False

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _lock_sale(connection: Connection, sale_id: str) -> None:
    sale = await sales_store.lock(connection, sale_id)
    if sale is None:
        raise NoSuchSale(f"there is no sale {sale_id!r}")
    if sale.state is SaleState.CLOSED:
        raise InvalidWaitListState(f"cannot change the wait-list: {sale_id} is closed")


def _no_wait_list(sale_id: str) -> NoWaitList:
    return NoWaitList(f"{sale_id} has no wait-list; set one up with `floodgate wait-list set`")


def _find_refusal(
    wait_list: WaitList, request: WaitListRequest, units: CustomerUnits | None, counts: SkuCounts
) -> ProblemError | None:
    """Return the reason why a customer gets no new place, None if there is none."""
    _, join, limit = request
    if units is None or units.free is None:
        return NotReady("cannot tell at the moment if there are free units; repeat the request")
    if limit and units.bought + join.quantity > limit:
        return OverLimit(
            f"the limit per user for {join.sku} is {limit}, and you have {units.bought}: wait for fewer", sku=join.sku
        )
    if units.free > 0:
        return StillAvailable(f"{units.free} units of {join.sku} are free: order them", sku=join.sku)
    if counts.waiting >= wait_list.max_people_per_sku:
        return WaitListFull(f"{counts.waiting} people wait for {join.sku}, and it takes no more; try again later")
    return None


def to_public_wait_list(wait_list: WaitList, now: datetime) -> PublicWaitList:
    """Return the part of a wait-list that everybody sees."""
    return PublicWaitList(
        wait_list.sale_id,
        "off" if wait_list.is_ending(now) else wait_list.mode,
        wait_list.accept_s,
        wait_list.skus,
        _ENDED_ASK_AGAIN_S if wait_list.is_ending(now) else _ASK_AGAIN_S,
    )
