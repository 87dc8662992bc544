"""Loads of a sale into Redis: the audit is clean afterwards, whatever was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import lua
from commerce.kernel.clock import DAY_MS
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from commerce.reservations import reacquisition
from commerce.reservations.service import Reservations
from commerce.sales import store
from commerce.sales.errors import LoadInProgress, NoSuchSale
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import ReserveOutcome, SaleKeys
from lua.keys import GROUP
from ops.services import CliServices
from tests.support.due_jobs import put_due
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)


async def wipe(shop: CliServices, keys: SaleKeys) -> None:
    """Delete all keys of a sale, as if Redis had lost its disk."""
    names = [key async for key in shop.redis.scan_iter(keys.meta.decode().replace("meta", "*"))]
    await shop.redis.delete(*names)


async def check_clean(shop: CliServices, sale_id: str) -> None:
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert audit.differences == 0


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def test_load_after_wipe_restores_stock_limits_and_keys(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, 3), "b": (20, 50, None)})
    orders = [
        reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, user=f"u{n}", limits={"a": 3}, key="k") for n in range(5)
    ]
    await reserve(shop.redis, keys, *orders)
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 10, "more"), "test")
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    before = await lua.cut(shop.redis, keys)
    await wipe(shop, keys)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.NOT_READY

    report = await load_sale(shop.db, shop.redis, shop.clock, sale_id)

    after = await lua.cut(shop.redis, keys)
    assert after.stock == before.stock == {"a": 40, "b": 25}
    assert after.epoch == before.epoch + 1 == report.epoch
    assert await lua.read_units_taken(shop.redis, keys) == {f"u{n}\0a".encode(): 2 for n in range(5)}
    answers = await reserve(shop.redis, keys, *orders)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.REPLAYED] * 5
    [over] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, user="u0", limits={"a": 3}))
    assert over.outcome is ReserveOutcome.OVER_LIMIT
    await check_clean(shop, sale_id)


async def test_load_after_dead_letter_continues_entry_ids(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """The newest entry is a dead letter; ids of the stream continue after it, before later cuts."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, 5)})
    bad = reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 5})
    payload = encode_accepted(msgspec.structs.replace(decode_accepted(bad.payload), currency="yuan"))
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, limits={"a": 5}))
    [dead_lettered] = await reserve(shop.redis, keys, msgspec.structs.replace(bad, payload=payload))
    async with run_workers(settings, "order_writer", "release_worker"):
        await eventually(lambda: is_drained(shop, keys))
        await check_clean(shop, sale_id)
        await shop.dead_letters.discard(bad.order_id, "test")
        await eventually(lambda: has_free_units(shop, keys, 49))
    await wipe(shop, keys)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    cut = await lua.cut(shop.redis, keys)
    assert cut.last_entry == dead_lettered.entry
    assert cut.stock == {"a": 49}
    await check_clean(shop, sale_id)


async def has_free_units(shop: CliServices, keys: SaleKeys, units: int) -> bool:
    return (await lua.cut(shop.redis, keys)).stock == {"a": units}


async def test_load_with_orders_in_stream_and_postgres_counts_each_once(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """Some orders are only in the stream, some in both, some only in Postgres: each counts once."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    for _ in range(3):
        await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    for _ in range(4):
        await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}))
    await shop.redis.delete(keys.meta, keys.stock)
    report = await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (report.units_free, report.waiting_orders) == (50 - 3 - 8, 4)
    await check_clean(shop, sale_id)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await check_clean(shop, sale_id)


@pytest.mark.parametrize("applied_before", [True, False])
async def test_load_with_unmarked_release_applies_it_once(
    shop: CliServices, settings: Settings, sale_id: str, sale_prefix: str, applied_before: bool
) -> None:
    """The worker died before it marked the release; then the sale is loaded again."""
    keys = await make_sale(shop, sale_id, {"a": (10, 100, 2)}, pay_within_s=10)
    order = reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 2})
    await reserve(shop.redis, keys, order)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await expire_all(shop)
    releases = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    assert await releases.expire_unpaid_orders() == 1
    if applied_before:
        async with shop.db.connection() as connection:
            created_at = await connection.fetchval("SELECT created_at FROM releases")
        created_ms = int(created_at.timestamp() * 1000)
        await lua.release(shop.redis, keys, [lua.Release(order.order_id, created_ms, "user", {"a": 2})])
        assert (await lua.cut(shop.redis, keys)).stock == {"a": 10}
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 8}
    await check_clean(shop, sale_id)
    assert await releases.apply_due_releases() == 1
    assert await releases.apply_due_releases() == 0
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 10}
    await check_clean(shop, sale_id)


async def test_mark_of_change_from_previous_load_is_refused(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """The change was applied to the previous load, and the worker marks it after the next load."""
    keys = await make_sale(shop, sale_id, {"a": (10, 100, None)})
    change_id, now = shop.ids.new(), shop.clock.now_ms()
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, created_at) "
            "VALUES ($1, $2, 'a', 5, 'more', 'test', to_timestamp($3::float8 / 1000))",
            change_id,
            sale_id,
            now,
        )
        await put_due(connection, "stock_changes", "stock_change.apply", change_id)
    result = await lua.change_stock(shop.redis, keys, change_id, now, "a", 5)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 10}

    async with shop.db.connection() as connection:
        marked = await store.mark_change_applied(
            connection, change_id, (await shop.sales.get(sale_id)).opens_at, result.epoch, result.number
        )
    assert not marked
    assert await shop.stock.apply_due_changes() == 1
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 15}
    await check_clean(shop, sale_id)


async def test_concurrent_loads_are_refused_except_one(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (10, 100, None)})
    results = await asyncio.gather(
        *(load_sale(shop.db, shop.redis, shop.clock, sale_id) for _ in range(3)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, LoadInProgress)]
    assert len(refused) < 3
    assert all(isinstance(result, LoadInProgress) or not isinstance(result, BaseException) for result in results)
    await check_clean(shop, sale_id)


async def test_rebuild_gives_entries_that_no_consumer_has_to_writers(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    [entry] = await lua.read_new(shop.redis, keys, "deleted", 10, 100)
    await shop.redis.xgroup_delconsumer(keys.orders, GROUP, "deleted")
    assert [finding.promise for finding in (await shop.audit.audit_sale(sale_id)).findings] == ["P2"]
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    [claimed] = await lua.claim_idle_entries(shop.redis, keys, "writer", 60_000, 10)
    assert claimed.id == entry.id


async def test_loads_during_orders_lose_and_oversell_nothing(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """Orders, the writer and loads run at the same time: no order is lost, no unit is sold twice."""
    keys = await make_sale(shop, sale_id, {"a": (100_000, 100, 2)})
    outcomes: list[ReserveOutcome] = []
    stop = asyncio.Event()
    turns = asyncio.Semaphore(0)  # an audit takes the longer the more orders there are

    async def buy(customer_no: int) -> None:
        while not stop.is_set():
            await turns.acquire()
            order = reservation(
                shop.ids.new, sale_id, {"a": 1}, user=f"u{customer_no}-{len(outcomes)}", limits={"a": 2}
            )
            outcomes.extend(answer.outcome for answer in await reserve(shop.redis, keys, order))

    async with run_workers(settings, "order_writer"):
        customers = [asyncio.create_task(buy(number)) for number in range(8)]
        for _ in range(5):
            for _ in range(400):
                turns.release()
            await eventually(_has_outcomes(outcomes, len(outcomes) + 50))
            await load_sale(shop.db, shop.redis, shop.clock, sale_id)
            audit = await shop.audit.audit_sale(sale_id)
            assert audit.clean, audit.findings
        stop.set()
        for _ in customers:
            turns.release()
        await asyncio.gather(*customers)
        await eventually(lambda: is_drained(shop, keys))
    assert set(outcomes) == {ReserveOutcome.ACCEPTED, ReserveOutcome.NOT_READY}, "orders were placed during loads"
    accepted = outcomes.count(ReserveOutcome.ACCEPTED)
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 100_000 - accepted}
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == accepted
    await check_clean(shop, sale_id)


def _has_outcomes(outcomes: list[ReserveOutcome], count: int) -> Callable[[], object]:
    async def has_enough() -> bool:
        return len(outcomes) >= count

    return has_enough


async def test_limit_added_later_counts_earlier_purchases(shop: CliServices, settings: Settings, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}))
    await shop.sales.change_item(sale_id, "a", 100, 3, "test")
    first, second = (reservation(shop.ids.new, sale_id, {"a": n}, limits={"a": 3}) for n in (2, 1))
    answers = await reserve(shop.redis, keys, first, second)
    assert [answer.outcome for answer in answers] == [ReserveOutcome.OVER_LIMIT, ReserveOutcome.ACCEPTED]
    await check_clean(shop, sale_id)


@pytest.mark.parametrize("step", ["unload", "restore_key_records", "load"])
async def test_first_limit_during_load_counts_earlier_purchases(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Set the limit before the load counts purchases, between count and load, and just before the load."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}))
    load_step = getattr(lua, step)

    async def set_limit_first(*arguments: Any) -> Any:
        monkeypatch.setattr(lua, step, load_step)
        await shop.sales.change_item(sale_id, "a", 100, 3, "test")
        return await load_step(*arguments)

    monkeypatch.setattr(lua, step, set_limit_first)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    while out_of_sync := await shop.sales.list_out_of_sync():
        assert await shop.sales.sync_to_redis(out_of_sync[0].sale_id)

    generation = (await shop.sales.get(sale_id)).generation
    [answer] = await reserve(
        shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 3}, generation=generation)
    )
    assert answer.outcome is ReserveOutcome.OVER_LIMIT
    await check_clean(shop, sale_id)


async def test_first_limit_during_reacquisition_counts_the_reacquired_units(
    shop: CliServices, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has read that there is no limit.

    The limit is set and the sale loaded before Redis has the job."""
    keys = await make_sale(shop, sale_id, {"a": (10, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 2})
    await reserve(shop.redis, keys, order)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await expire_all(shop)
    reservations = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    assert (await reservations.expire_unpaid_orders(), await reservations.apply_due_releases()) == (1, 1)

    async def set_limit_first(*arguments: Any) -> Any:
        monkeypatch.setattr(reacquisition, "reacquire", lua.reacquire)
        await shop.sales.change_item(sale_id, "a", 100, 3, "test")
        return await lua.reacquire(*arguments)

    monkeypatch.setattr(reacquisition, "reacquire", set_limit_first)
    stock = reacquisition.StockReacquisition(shop.db, shop.redis, shop.clock, shop.ids)
    decisions = [await stock.reacquire(order.order_id) for _ in range(2)]
    assert decisions == ["retry", "reacquired"]
    assert await lua.read_units_taken(shop.redis, keys) == {b"user\0a": 2}
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 8}


async def test_terms_changed_during_load_are_published_after_it(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    restore = lua.restore_key_records

    async def pause_first(*arguments: Any) -> None:
        await shop.sales.pause(sale_id, "test")
        await restore(*arguments)

    monkeypatch.setattr(lua, "restore_key_records", pause_first)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert [sale.sale_id for sale in await shop.sales.list_out_of_sync()] == [sale_id]
    assert await shop.sales.sync_to_redis(sale_id)
    [answer] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}))
    assert answer.outcome is ReserveOutcome.PAUSED


async def test_load_of_draft_is_refused(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, None)}, opened=False)
    with pytest.raises(NoSuchSale):
        await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    day = shop.clock.now_ms() // DAY_MS
    assert not await lua.unload(shop.redis, SaleKeys(sale_id), day)
