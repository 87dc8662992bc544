"""The order writer: many sales at once, entries of other writers, and orders that cannot be stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
from redis.asyncio import Redis

import lua
from commerce.kernel import stream_payload
from commerce.orders import store
from config.settings import Settings
from lua import SaleKeys
from lua.keys import GROUP
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.proxy import open_postgres_proxy
from tests.support.sales import eventually, make_sale, reservation, reserve
from workers import metrics, order_writer

CONCURRENT_READS, SALES, BLOCK_MS = 2, 12, 600


async def _are_written(redis: Redis, sales: list[SaleKeys]) -> bool:
    return not any(await lua.read_accepted_counts(redis, sales))


async def test_writer_with_more_sales_than_read_slots_reads_each_in_time(
    shop: CliServices, make_settings: Callable[..., Settings], sale_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads share the slots: each sale is read within the block time, on few connections."""
    names = [f"{sale_prefix}-{number}" for number in range(SALES)]
    sales = [await make_sale(shop, name, {"a": (50, 100, None)}) for name in names]
    settings = make_settings(
        limits={"redis_connections": 3},
        writer={"concurrent_reads": CONCURRENT_READS, "read_block_ms": BLOCK_MS, "claim_idle_ms": 60_000},
    )
    with caplog.at_level(logging.WARNING):
        async with run_workers(settings, "order_writer"):
            for _ in range(3):
                for name, keys in zip(names, sales, strict=True):
                    await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                await eventually(lambda: _are_written(shop.redis, sales))
            max_blocked = 0
            for name, keys in list(zip(names, sales, strict=True))[::5]:  # now that all of them wait for orders
                started = asyncio.get_running_loop().time()
                await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                while not await _are_written(shop.redis, [keys]):
                    max_blocked = max(max_blocked, (await shop.redis.info("clients"))["blocked_clients"])
                assert asyncio.get_running_loop().time() - started < 5 * BLOCK_MS / 1000
            worker_clients = [
                client for client in await shop.redis.client_list() if client["name"] == "floodgate-worker"
            ]
    assert 0 < max_blocked <= CONCURRENT_READS
    assert len(worker_clients) <= CONCURRENT_READS + 4
    assert caplog.text == ""


async def _list_pending(shop: CliServices, keys: SaleKeys) -> list[dict[str, Any]]:
    pending: list[dict[str, Any]] = await shop.redis.xpending_range(keys.orders, GROUP, "-", "+", 100)
    return pending


async def _count_dead_letters(shop: CliServices) -> int:
    return len((await shop.dead_letters.list_letters(None, 100)).items)


async def _count_stored(shop: CliServices) -> int:
    async with shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM orders"))


async def _order(shop: CliServices, keys: SaleKeys, sale_id: str, count: int = 1, *, price: int = 100) -> None:
    """Add one stream entry with `count` orders. A price below 0 makes orders that Postgres refuses."""
    await reserve(shop.redis, keys, *(reservation(shop.ids.new, sale_id, {"a": 1}, price=price) for _ in range(count)))


async def test_writer_stores_entries_that_are_neither_pending_nor_new(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """Somebody deleted a consumer that had read them."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    for _ in range(5):
        await _order(shop, keys, sale_id)
    await lua.read_new(shop.redis, keys, "deleted", 3, 100)
    await shop.redis.xgroup_delconsumer(keys.orders, GROUP, "deleted")
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _are_written(shop.redis, [keys]))
    assert await _count_stored(shop) == 5


@pytest.mark.parametrize("writers", [1, 2])
async def test_entry_of_writer_with_slow_postgres_is_claimed_by_none(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, writers: int
) -> None:
    """Neither that writer nor another claims it, however long one attempt takes."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    settings = make_settings(writer={"claim_idle_ms": 900})
    async with AsyncExitStack() as stack:
        async with shop.db.transaction() as connection:
            await connection.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            for number in range(writers):
                await stack.enter_async_context(run_workers(settings, "order_writer", instance=f"writer-{number}"))
            await _order(shop, keys, sale_id)
            [before] = await eventually(lambda: _list_pending(shop, keys))
            idle_ms: list[int] = []
            while sum(after < earlier for earlier, after in pairwise(idle_ms)) < 5:  # renewed, or claimed
                [entry] = await _list_pending(shop, keys)
                idle_ms.append(entry["time_since_delivered"])
            assert (entry["consumer"], entry["times_delivered"]) == (before["consumer"], 1)
        await eventually(lambda: _are_written(shop.redis, [keys]))


async def test_writer_without_postgres_is_relieved_by_one_that_has_it(
    shop: CliServices, make_settings: Callable[..., Settings], database_url: str, sale_id: str, tmp_path: Path
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with open_postgres_proxy(database_url, tmp_path) as (proxy, url), AsyncExitStack() as stack:
        cut = make_settings(database_url=url)
        await stack.enter_async_context(run_workers(cut, "order_writer", instance="cut"))
        await _order(shop, keys, sale_id)
        await eventually(lambda: _are_written(shop.redis, [keys]))
        proxy.cut()
        await _order(shop, keys, sale_id)
        await eventually(lambda: _list_pending(shop, keys))
        async with run_workers(make_settings(), "order_writer", instance="good"):
            await eventually(lambda: _are_written(shop.redis, [keys]))
    assert await _count_stored(shop) == 2


class BrokenCodec:
    """An encoder or decoder with a defect."""

    def decode(self, *_: object, **__: object) -> NoReturn:
        raise ValueError("a defect of the program")

    __call__ = decode


DEFECTS = {
    "the program encodes no order": (store, "encode_copy"),
    "the program decodes no order": (stream_payload, "_decoder"),
}


async def _has_suspects(min_count: float) -> bool:
    return metrics.SUSPECT_BATCHES._value.get() >= min_count  # type: ignore[no-any-return]


@pytest.mark.parametrize("sizes", [[1], [3, 1, 2]], ids=str)
@pytest.mark.parametrize("defect", DEFECTS)
async def test_writer_with_defect_dead_letters_no_order(
    shop: CliServices,
    make_settings: Callable[..., Settings],
    sale_id: str,
    defect: str,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The orders stay in the stream, and are stored by a program without the defect."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    for size in sizes:
        await _order(shop, keys, sale_id, size)
    attempts_before = metrics.SUSPECT_BATCHES._value.get()
    settings = make_settings(writer={"entries_per_read": 1, "backoff_max_s": 0.1})
    with monkeypatch.context() as patch:
        patch.setattr(*DEFECTS[defect], BrokenCodec())
        async with run_workers(settings, "order_writer"):
            await eventually(lambda: _has_suspects(attempts_before + 2 * len(sizes)))
        assert await _count_dead_letters(shop) == 0
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _are_written(shop.redis, [keys]))
    assert (await _count_stored(shop), await _count_dead_letters(shop)) == (sum(sizes), 0)


@pytest.mark.parametrize("sizes", [[1], [1] * 5, [2, 3]], ids=str)
async def test_bad_orders_are_dead_lettered_once_other_orders_are_stored(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, sizes: list[int]
) -> None:
    """Also after a restart, and if they are more than the batches that are written at once."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    settings = make_settings(writer={"entries_per_read": 1, "backoff_max_s": 0.1})
    attempts_before = metrics.SUSPECT_BATCHES._value.get()
    for size in sizes:
        await _order(shop, keys, sale_id, size, price=-1)
    async with run_workers(settings, "order_writer"):
        if sizes == [1]:
            await eventually(lambda: _are_written(shop.redis, [keys]))
        else:
            await eventually(lambda: _has_suspects(attempts_before + 2))
        await eventually(partial(_has_dead_letters, shop, 1 if sizes[0] == 1 else 0))
    good = 0
    async with run_workers(settings, "order_writer"):
        while not good or not await _are_written(shop.redis, [keys]):
            await _order(shop, keys, sale_id)
            good += 1
            await eventually(partial(_has_stored, shop, good))
    assert (await _count_stored(shop), await _count_dead_letters(shop)) == (good, sum(sizes))


async def _has_dead_letters(shop: CliServices, count: int) -> bool:
    return await _count_dead_letters(shop) == count


async def _has_stored(shop: CliServices, count: int) -> bool:
    return await _count_stored(shop) == count


async def _fails_to_write(more_than: float) -> bool:
    return metrics.WRITE_FAILURES._value.get() > more_than  # type: ignore[no-any-return]


async def test_failed_commit_of_orders_is_no_evidence(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await _order(shop, keys, sale_id, 2, price=-1)
    attempts_before, failures_before = metrics.SUSPECT_BATCHES._value.get(), metrics.WRITE_FAILURES._value.get()
    async with shop.db.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE serialization_failure; END $$; CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON orders "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
        )
    async with run_workers(make_settings(writer={"entries_per_read": 1, "backoff_max_s": 0.1}), "order_writer"):
        await eventually(lambda: _has_suspects(attempts_before + 2))
        await _order(shop, keys, sale_id)
        suspected = metrics.SUSPECT_BATCHES._value.get() - attempts_before
        await eventually(lambda: _fails_to_write(failures_before + suspected + 2))
        suspected = metrics.SUSPECT_BATCHES._value.get()
        await eventually(lambda: _has_suspects(suspected + 2))
        assert (await _count_stored(shop), await _count_dead_letters(shop)) == (0, 0)
        async with shop.db.connection() as connection:
            await connection.execute("DROP TRIGGER fail ON orders")
        await eventually(lambda: _are_written(shop.redis, [keys]))
    assert (await _count_stored(shop), await _count_dead_letters(shop)) == (1, 2)


async def test_reader_that_ends_finishes_its_batches_however_long_they_take(
    shop: CliServices, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await _order(shop, keys, sale_id)
    lists: list[set[str]] = []
    to_read = {sale_id}

    async def list_sales(services: object) -> set[str]:
        lists.append(set(to_read))
        return lists[-1]

    def find_readers() -> list[asyncio.Task[None]]:
        return [task for task in asyncio.all_tasks() if "SaleStreamWriter.run" in repr(task.get_coro())]

    async def was_listed(times: int) -> bool:
        return len(lists) >= times

    monkeypatch.setattr(order_writer, "_sales_to_read", list_sales)
    monkeypatch.setattr(order_writer, "_POLL_INTERVAL_S", 0.02)
    async with run_workers(settings, "order_writer"):
        async with shop.db.transaction() as connection:
            await connection.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            await eventually(lambda: _list_pending(shop, keys))
            to_read.clear()
            await eventually(partial(was_listed, len(lists) + 5))
            assert len(find_readers()) == 1
        await eventually(lambda: _are_written(shop.redis, [keys]))

        async def has_ended() -> bool:
            return not find_readers()

        await eventually(has_ended)
