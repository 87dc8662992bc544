"""change_stock.lua and release.lua: each outcome, and that nothing is returned twice."""

from __future__ import annotations

from uuid import uuid4

import pytest

import lua
from commerce.kernel.clock import DAY_MS
from lua import ChangeStockOutcome, Release, ReleaseOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (3, 50, None)})


async def place_order(shop: CliServices, sale_id: str, keys: SaleKeys, units: dict[str, int]) -> Release:
    """Place an order and return the release that would undo it."""
    order = reservation(shop.ids.new, sale_id, units, limits={"a": 3})
    await reserve(shop.redis, keys, order)
    return Release(order.order_id, shop.clock.now_ms(), "user", units)


async def test_release_applied_returns_stock_and_limit(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    release = await place_order(shop, sale_id, keys, {"a": 2, "b": 1})
    epoch, [result] = await lua.release(shop.redis, keys, [release])
    assert (epoch, result) == ((await shop.sales.get(sale_id)).epoch, (ReleaseOutcome.APPLIED, 1))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 5, "b": 3}
    assert await lua.read_units_taken(shop.redis, keys) == {}


async def test_release_repeated_is_already_applied_and_changes_nothing(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    release = await place_order(shop, sale_id, keys, {"a": 2})
    _, first = await lua.release(shop.redis, keys, [release, release])
    _, again = await lua.release(shop.redis, keys, [release])
    assert [result.outcome for result in [*first, *again]] == [
        ReleaseOutcome.APPLIED,
        ReleaseOutcome.ALREADY_APPLIED,
        ReleaseOutcome.ALREADY_APPLIED,
    ]
    assert {result.seq for result in [*first, *again]} == {1}
    assert (await lua.cut(shop.redis, keys)).stock["a"] == 5


async def test_units_written_off_return_to_limit_and_not_to_stock(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    release = await place_order(shop, sale_id, keys, {"a": 3, "b": 1})
    part = Release(uuid4(), release.created_ms, "user", {"a": 2, "b": 1}, {"a": 1, "b": 1})
    for _ in range(2):
        await lua.release(shop.redis, keys, [part, part])
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 3, "b": 2}
    assert await lua.read_units_taken(shop.redis, keys) == {b"user\0a": 1}


async def test_releases_of_several_days_in_one_call_are_each_applied_once(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    now = shop.clock.now_ms()
    releases = [Release(uuid4(), now - days * DAY_MS, "user", {"b": 1}) for days in (0, 3, 6, 0)]
    _, results = await lua.release(shop.redis, keys, releases)
    assert list(results) == [(ReleaseOutcome.APPLIED, seq) for seq in (1, 2, 3, 4)]
    _, results = await lua.release(shop.redis, keys, releases)
    assert {result.outcome for result in results} == {ReleaseOutcome.ALREADY_APPLIED}


async def test_release_after_dedup_days_is_too_old_and_returns_nothing(
    shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    release = Release(uuid4(), shop.clock.now_ms() - 8 * DAY_MS, "user", {"a": 1})
    _, [result] = await lua.release(shop.redis, keys, [release])
    assert result.outcome is ReleaseOutcome.TOO_OLD
    assert (await lua.cut(shop.redis, keys)).stock["a"] == 5


async def test_release_in_unloaded_sale_is_not_ready(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    release = await place_order(shop, sale_id, keys, {"a": 1})
    await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    epoch, [result] = await lua.release(shop.redis, keys, [release])
    assert (epoch, result.outcome) == (0, ReleaseOutcome.NOT_READY)


async def test_change_stock_up_and_down_is_applied_once(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    change, now = uuid4(), shop.clock.now_ms()
    first = await lua.change_stock(shop.redis, keys, change, now, "a", 7)
    again = await lua.change_stock(shop.redis, keys, change, now, "a", 7)
    assert (first.outcome, again.outcome) == (ChangeStockOutcome.APPLIED, ChangeStockOutcome.ALREADY_APPLIED)
    down = await lua.change_stock(shop.redis, keys, uuid4(), now, "a", -12)
    assert (down.outcome, down.number) == (ChangeStockOutcome.APPLIED, 2)
    assert (await lua.cut(shop.redis, keys)).stock["a"] == 0


async def test_change_stock_below_zero_is_not_enough(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    result = await lua.change_stock(shop.redis, keys, uuid4(), shop.clock.now_ms(), "a", -6)
    assert (result.outcome, result.number) == (ChangeStockOutcome.NOT_ENOUGH, 5)
    assert (await lua.cut(shop.redis, keys)).stock["a"] == 5


async def test_change_stock_unloaded_or_too_old_is_refused(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    now = shop.clock.now_ms()
    old = await lua.change_stock(shop.redis, keys, uuid4(), now - 9 * DAY_MS, "a", 1)
    assert old.outcome is ChangeStockOutcome.TOO_OLD
    await shop.redis.delete(keys.meta)
    assert (await lua.change_stock(shop.redis, keys, uuid4(), now, "a", 1)).outcome is ChangeStockOutcome.NOT_READY
