"""P2, P3, P5: processes are killed at failpoints, and every promised order is stored at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

import lua
from commerce.kernel.clock import from_ms, to_ms
from config.settings import Settings
from lua import SaleKeys
from ops.local.subprocesses import RunningProcess
from ops.services import CliServices
from tests.support.customer_crowd import CustomerCrowd
from tests.support.due_jobs import count_open
from tests.support.gateway import bearer
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve


async def is_stored(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


def limited_orders(count: int, stop: asyncio.Event | None = None):  # type: ignore[no-untyped-def]
    """Return a function that returns `count` orders, each under its own key, then None.

    It returns None earlier if `stop` is set."""
    number = 0

    def next_order() -> tuple[str, str, Mapping[str, int]] | None:
        nonlocal number
        number += 1
        if number > count or (stop and stop.is_set()):
            return None
        return f"u{number % 500}", f"key-{number}", {"a": 1, "b": 1}

    return next_order


async def check_orders(shop: CliServices, sale_id: str, crowd: CustomerCrowd) -> None:
    """Check that exactly the promised orders are stored, and that the audit is clean."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT order_id, user_id, idempotency_key FROM orders")
    stored = {row["order_id"]: (row["user_id"], row["idempotency_key"]) for row in rows}
    assert {id_: (user, key) for id_, (user, key, _) in crowd.promised.items()} == stored
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


@pytest.mark.parametrize("failpoint", ["writer.after_read", "writer.before_commit", "writer.after_commit"])
async def test_writer_killed_during_batch_stores_orders_once(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, failpoint: str
) -> None:
    """Kill three writers in succession; a writer of the same or another name continues."""
    keys = await make_sale(shop, sale_id, {"a": (10_000, 100, 50), "b": (10_000, 100, None)})
    async with run_processes(settings, tmp_path) as processes:
        await processes.gateway()
        crowd = CustomerCrowd(settings, processes.base, sale_id)
        stop = asyncio.Event()
        ordering = asyncio.create_task(crowd.run(8, limited_orders(5_000, stop)))
        for instance in ("one", "one", "two"):
            killed = await processes.worker("order_writer", instance=instance, crash_at=f"{failpoint}:2")
            assert await wait_for_exit(killed) == -9
        await processes.worker("order_writer", instance="three")
        stop.set()
        await ordering
        await eventually(lambda: is_stored(shop, keys))
    assert len(crowd.promised) > 100
    await check_orders(shop, sale_id, crowd)


async def test_gateway_killed_before_reply_keeps_orders_under_their_keys(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Clients repeat their keys at the next gateway and get the orders that were accepted."""
    keys = await make_sale(shop, sale_id, {"a": (10_000, 100, 50), "b": (10_000, 100, None)})
    async with run_processes(settings, tmp_path) as processes:
        await processes.worker("order_writer")
        killed = await processes.gateway(crash_at="intake.after_reserve:20")
        crowd = CustomerCrowd(settings, processes.base, sale_id)
        ordering = asyncio.create_task(crowd.run(16, limited_orders(400)))
        assert await wait_for_exit(killed) == -9
        await processes.gateway()
        await ordering
        await eventually(lambda: is_stored(shop, keys))
    assert len(crowd.promised) == 400
    assert crowd.answers["200"] > 0
    await check_orders(shop, sale_id, crowd)


async def test_release_worker_killed_before_commit_releases_stock_once(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """P5: Redis released the stock and the row does not say so. The next worker releases nothing twice."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)})
    await reserve(
        shop.redis,
        keys,
        *(reservation(shop.ids.new, sale_id, {"a": 2}, user=f"u{n}", limits={"a": 5}) for n in range(6)),
    )
    short_lease = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"lease_s": 1})})
    async with run_processes(short_lease, tmp_path) as processes:
        await processes.worker("order_writer")
        await eventually(lambda: is_stored(shop, keys))
        await expire_all(shop)
        killed = await processes.worker("release_worker", crash_at="release.after_redis")
        assert await wait_for_exit(killed) == -9
        assert (await lua.cut(shop.redis, keys)).stock == {"a": 20}
        audit = await shop.audit.audit_sale(sale_id)
        assert audit.clean, audit.findings
        await processes.worker("release_worker")
        await eventually(lambda: _has_no_pending_releases(shop))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 20}
    assert (await shop.audit.audit_sale(sale_id)).clean


async def _has_no_pending_releases(shop: CliServices) -> bool:
    return await count_open(shop, "releases") == 0


@pytest.mark.parametrize("failpoint", ["sale.after_commit", "load.after_begin", "load.before_load"])
async def test_gateway_killed_while_opening_sale_is_finished_by_sale_sync(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, failpoint: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)}, opened=False)
    async with run_processes(settings, tmp_path) as processes:
        killed = await _open_sale_by_http(processes, sale_id, failpoint)
        assert await wait_for_exit(killed) == -9
        await processes.worker("sale_sync")
        await eventually(lambda: _is_loaded(shop, keys))
    sale = await shop.sales.get(sale_id)
    assert (sale.state, sale.is_loaded, sale.published_generation) == ("open", True, sale.generation)
    assert (await shop.audit.audit_sale(sale_id)).clean


@pytest.mark.parametrize("failpoint", ["sale.after_terms", "load.after_begin", "load.before_load"])
async def test_gateway_killed_while_setting_first_limit_counts_earlier_purchases(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, failpoint: str
) -> None:
    """P4: customers who bought before the limit do not get the whole limit again."""
    customers = [f"u{number}" for number in range(5)]
    await make_sale(shop, sale_id, {"a": (100, 100, None)})
    async with run_processes(settings, tmp_path) as processes, aiohttp.ClientSession() as client:
        await processes.worker("order_writer")
        killed = await processes.gateway(crash_at=failpoint)
        crowd = CustomerCrowd(settings, processes.base, sale_id)
        for customer in customers:
            assert await crowd.order(client, customer, "before", {"a": 2}) == "202"
        url = f"http://127.0.0.1:{processes.admin_port}/v1/admin/sales/{sale_id}/items/a"
        with pytest.raises(aiohttp.ClientError):
            await client.patch(
                url, headers=bearer(settings, "ann", roles=["sales"]), json={"price": 100, "limit_per_user": 3}
            )
        assert await wait_for_exit(killed) == -9
        await processes.worker("sale_sync")
        await eventually(lambda: _is_in_sync(shop, sale_id))
        await processes.gateway()
        for customer in customers:
            assert await crowd.order(client, customer, "too-many", {"a": 2}) == "over_limit"
            assert await crowd.order(client, customer, "last", {"a": 1}) == "202"
        await eventually(lambda: is_stored(shop, SaleKeys(sale_id)))
    await check_orders(shop, sale_id, crowd)


async def test_gateway_killed_while_moving_the_end_is_finished_by_sale_sync(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (100, 100, None)})
    closes_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    async with run_processes(settings, tmp_path) as processes, aiohttp.ClientSession() as client:
        killed = await processes.gateway(crash_at="sale.after_change")
        url = f"http://127.0.0.1:{processes.admin_port}/v1/admin/sales/{sale_id}"
        with pytest.raises(aiohttp.ClientError):
            await client.patch(
                url, headers=bearer(settings, "ann", roles=["sales"]), json={"closes_at": closes_at.isoformat()}
            )
        assert await wait_for_exit(killed) == -9
        sale = await shop.sales.get(sale_id)
        assert (sale.closes_at, sale.published_generation < sale.generation) == (closes_at, True)
        assert await shop.redis.hget(keys.meta, "closes_ms") == b""
        await processes.worker("sale_sync")
        await eventually(lambda: _is_in_sync(shop, sale_id))
    assert int(await shop.redis.hget(keys.meta, "closes_ms")) == to_ms(closes_at)


async def _is_in_sync(shop: CliServices, sale_id: str) -> bool:
    sale = await shop.sales.get(sale_id)
    return sale.is_loaded and sale.published_generation == sale.generation


async def _open_sale_by_http(processes: Processes, sale_id: str, failpoint: str) -> RunningProcess:
    killed = await processes.gateway(crash_at=failpoint)
    url = f"http://127.0.0.1:{processes.admin_port}/v1/admin/sales/{sale_id}/open"
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.post(url, headers=bearer(processes.settings, "ann", roles=["operator"]))
    return killed


async def _is_loaded(shop: CliServices, keys: SaleKeys) -> bool:
    return await lua.read_loaded_epoch(shop.redis, keys) > 0


async def test_gateway_killed_during_stock_change_applies_it_once(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Kill one gateway before and one after the change in Redis."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)})
    short_lease = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"lease_s": 1})})
    async with run_processes(short_lease, tmp_path) as processes:
        for failpoint in ("stock.after_record", "stock.after_redis"):
            killed = await processes.gateway(crash_at=failpoint)
            url = f"http://127.0.0.1:{processes.admin_port}/v1/admin/sales/{sale_id}/stock-changes"
            headers = bearer(settings, "ann", roles=["sales"]) | {"Idempotency-Key": str(shop.ids.new())}
            async with aiohttp.ClientSession() as client:
                with pytest.raises(aiohttp.ClientError):
                    await client.post(url, headers=headers, json={"sku": "a", "delta": 5, "reason": "more"})
            assert await wait_for_exit(killed) == -9
        await processes.worker("sale_sync")
        await eventually(lambda: _are_applied(shop, 2))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 30}
    assert (await shop.audit.audit_sale(sale_id)).clean


async def _are_applied(shop: CliServices, count: int) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM stock_changes WHERE status = 'applied'") == count)
