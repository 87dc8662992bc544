"""Limits of wait-lists: how many SKUs people wait for, and how much of a step one SKU or offer takes."""

from __future__ import annotations

import asyncio

import pytest

from commerce.kernel.errors import ProblemError
from commerce.wait_lists import offer_keeper
from commerce.wait_lists.errors import StillAvailable, WaitListFull
from commerce.wait_lists.model import WaitListEntry, WaitListJoin, WaitListSettings
from commerce.wait_lists.offer_keeper import WaitListKeeper
from commerce.wait_lists.service import WaitListRequest
from lua import ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale
from tests.support.wait_lists import open_wait_list


async def _open(shop: CliServices, sale_id: str, units: dict[str, int]) -> SaleKeys:
    keys = await make_sale(shop, sale_id, {sku: (count, 100, None) for sku, count in units.items()})
    await shop.wait_lists.put(sale_id, WaitListSettings(), "test")
    return keys


async def _join(shop: CliServices, sale_id: str, sku: str, user: str = "ann") -> WaitListEntry | ProblemError:
    [result] = await shop.wait_lists.join(
        await shop.wait_lists.get(sale_id), [WaitListRequest(user, WaitListJoin(sku), 0)]
    )
    return result if isinstance(result, ProblemError) else result[0]


async def test_only_skus_that_people_wait_for_count(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused joins, repeated leaves and returned units take no place of a SKU that is awaited."""
    monkeypatch.setattr("commerce.wait_lists.service.MAX_WAIT_LIST_SKUS", 2)
    keys = await _open(shop, sale_id, {"full-1": 5, "full-2": 5, "a": 0, "b": 0, "c": 0, "returned": 0})
    for sku in ("full-1", "full-2"):
        assert isinstance(await _join(shop, sale_id, sku), StillAvailable)
    await shop.wait_lists.leave(sale_id, "c", "ann")
    await shop.redis.hset(keys.held_back.decode(), "returned", 1)
    await WaitListKeeper(shop.db, shop.redis, shop.clock, shop.ids).step(await shop.wait_lists.get(sale_id))
    assert (await shop.wait_lists.get(sale_id)).skus == []
    for sku in ("a", "b"):
        assert isinstance(await _join(shop, sale_id, sku), WaitListEntry)
    assert isinstance(await _join(shop, sale_id, "c"), WaitListFull)
    assert isinstance(await _join(shop, sale_id, "b", "ben"), WaitListEntry)
    assert [counts.sku for counts in (await shop.wait_lists.get(sale_id)).skus] == ["a", "b"]
    await shop.wait_lists.leave(sale_id, "a", "ann")
    assert isinstance(await _join(shop, sale_id, "c"), WaitListEntry)


async def test_number_of_awaited_skus_holds_in_a_race(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commerce.wait_lists.service.MAX_WAIT_LIST_SKUS", 3)
    skus = [f"s{number}" for number in range(10)]
    await _open(shop, sale_id, dict.fromkeys(skus, 0))
    results = await asyncio.gather(*(_join(shop, sale_id, sku) for sku in skus))
    assert sum(isinstance(result, WaitListEntry) for result in results) == 3
    assert len((await shop.wait_lists.get(sale_id)).skus) == 3


async def test_step_lists_the_skus_held_back_once(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of SKUs may be held back; each is then read alone."""
    skus = [f"s{number}" for number in range(20)]
    keys = await _open(shop, sale_id, dict.fromkeys(skus, 0))
    await shop.redis.hset(keys.held_back.decode(), mapping=dict.fromkeys(skus, 2))
    lists, original = 0, offer_keeper.lua.list_held_back

    async def count(*arguments):  # type: ignore[no-untyped-def]
        nonlocal lists
        lists += 1
        return await original(*arguments)

    monkeypatch.setattr(offer_keeper.lua, "list_held_back", count)
    await WaitListKeeper(shop.db, shop.redis, shop.clock, shop.ids).step(await shop.wait_lists.get(sale_id))
    assert lists == 1
    assert await shop.redis.hgetall(keys.stock.decode()) == {sku.encode(): b"2" for sku in skus}


async def test_taken_offers_are_found_however_many_others_run(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offer_keeper, "_OFFERS_PER_CALL", 5)
    wait_list = await open_wait_list(shop, sale_id)
    users = [f"u{number:02}" for number in range(12)]
    await wait_list.join(users)
    await wait_list.return_units(12)
    await wait_list.step(4)
    assert await wait_list.units() == (0, 0, 12)
    taken = [users[0], users[6], users[11]]
    assert await wait_list.outcomes(taken) == [ReserveOutcome.ACCEPTED] * 3
    await wait_list.let_pass(8)
    assert await wait_list.users_in("taken") == taken
