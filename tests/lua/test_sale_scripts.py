"""unload.lua, load.lua, publish.lua and acknowledge.lua, and the reads around them."""

from __future__ import annotations

import lua
from commerce.kernel.clock import DAY_MS
from lua import EntryId, LoadOutcome, PublishOutcome, ReserveOutcome, SaleKeys, SaleTerms
from ops.services import CliServices
from tests.support.sales import make_sale, reservation, reserve


def _terms(shop: CliServices, epoch: int, generation: int = 1, state: str = "open") -> SaleTerms:
    return SaleTerms(epoch, generation, state, shop.clock.now_ms() - 1_000, None)


async def test_load_of_loaded_sale_changes_nothing(shop: CliServices, sale_id: str) -> None:
    keys, first, zero = SaleKeys(sale_id), _terms(shop, 1), EntryId(0, 1)
    assert await lua.load(shop.redis, keys, first, [("a", 5)], [], zero) is LoadOutcome.LOADED
    assert await lua.load(shop.redis, keys, _terms(shop, 2), [("a", 9)], [], zero) is LoadOutcome.LOADED_BEFORE
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 5}
    assert await lua.read_loaded_epoch(shop.redis, keys) == 1


async def test_load_half_done_leaves_sale_not_ready(shop: CliServices, sale_id: str) -> None:
    """A load that died half-way has staged stock, which is not for sale."""
    keys = SaleKeys(sale_id)
    await shop.redis.hset(keys.staged(1, "stock").decode(), mapping={"a": 5})
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.NOT_READY
    await lua.load(shop.redis, keys, _terms(shop, 1), [("a", 3)], [], EntryId(0, 1))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 3}


async def test_load_after_wipe_keeps_stream_ids_rising(shop: CliServices, sale_id: str) -> None:
    keys, future = SaleKeys(sale_id), EntryId(shop.clock.now_ms() + 3_600_000, 7)
    await lua.load(shop.redis, keys, _terms(shop, 1), [("a", 5)], [], future)
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.entry is not None
    assert result.entry > future


async def test_load_with_lower_min_entry_keeps_last_stream_id(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    await lua.acknowledge(shop.redis, keys, [entry async for entry in lua.iter_stream(shop.redis, keys)])
    await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    await lua.load(shop.redis, keys, _terms(shop, 9), [("a", 5)], [], EntryId(0, 1))
    assert (await lua.cut(shop.redis, keys)).last_entry == result.entry


async def test_publish_with_older_generation_changes_nothing(shop: CliServices, sale_id: str) -> None:
    keys = SaleKeys(sale_id)
    assert await lua.publish(shop.redis, keys, _terms(shop, 1)) is PublishOutcome.NOT_READY
    await lua.load(shop.redis, keys, _terms(shop, 1, 5), [("a", 5)], [], EntryId(0, 1))
    assert await lua.publish(shop.redis, keys, _terms(shop, 1, 6, "paused")) is PublishOutcome.PUBLISHED
    assert await lua.publish(shop.redis, keys, _terms(shop, 1, 5)) is PublishOutcome.OLDER
    assert await lua.publish(shop.redis, keys, _terms(shop, 2, 7)) is PublishOutcome.NOT_READY
    [result] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert result.outcome is ReserveOutcome.PAUSED


async def test_unload_keeps_orders_and_keys(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, 2)})
    order = reservation(shop.ids.new, sale_id, {"a": 1}, limits={"a": 2}, key="k")
    await reserve(shop.redis, keys, order)
    assert await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
    assert (await lua.cut(shop.redis, keys)).stock == {}
    assert await lua.read_all_accepted(shop.redis, keys) == {order.order_id: "user"}
    assert len([entry async for entry in lua.iter_stream(shop.redis, keys)]) == 1
    [record] = await lua.find_key_records(shop.redis, [keys], shop.clock.now_ms() // DAY_MS, "user", "k")
    assert record is not None


async def test_acknowledge_removes_exactly_given_entries(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    for _ in range(3):
        await reserve(shop.redis, keys, *(reservation(shop.ids.new, sale_id, {"a": 1}) for _ in range(4)))
    entries = await lua.read_new(shop.redis, keys, "reader", 2, 100)
    assert await lua.acknowledge(shop.redis, keys, entries) == 2
    assert await lua.acknowledge(shop.redis, keys, entries) == 0
    assert (await lua.read_backlog(shop.redis, keys)).orders == 4
    assert await lua.read_pending(shop.redis, keys, "reader", EntryId(0, 0), 10) == ([], None)
    assert len(await lua.read_new(shop.redis, keys, "reader", 10, 100)) == 1


async def test_iter_stream_pages_through_long_stream(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (1_000, 100, None)})
    for _ in range(450):
        await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    entries = [entry.id async for entry in lua.iter_stream(shop.redis, keys)]
    assert len(entries) == len(set(entries)) == 450
    assert [entry.id async for entry in lua.iter_stream(shop.redis, keys, up_to=entries[99])] == entries[:100]
