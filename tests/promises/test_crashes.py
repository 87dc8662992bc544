"""P2, P3, P5: processes are killed at the worst moments, and every order that was promised is there at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.local.subprocesses import RunningProcess
from ops.services import CliServices
from tests.support.customer_crowd import CustomerCrowd
from tests.support.gateway import bearer
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve


async def drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.backlog(shop.redis, keys)).orders == 0


def limited_orders(count: int, stop: asyncio.Event | None = None):  # type: ignore[no-untyped-def]
    """That many orders, each under a key of its own; fewer if it is time to stop."""
    number = 0

    def next_order() -> tuple[str, str, Mapping[str, int]] | None:
        nonlocal number
        number += 1
        if number > count or (stop and stop.is_set()):
            return None
        return f"u{number % 500}", f"key-{number}", {"a": 1, "b": 1}

    return next_order


async def check(shop: CliServices, sale_id: str, crowd: CustomerCrowd) -> None:
    """Every promised order is stored once, no other is, and the books are right."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT order_id, user_id, idempotency_key FROM orders")
    stored = {row["order_id"]: (row["user_id"], row["idempotency_key"]) for row in rows}
    assert {id_: (user, key) for id_, (user, key, _) in crowd.promised.items()} == stored
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


@pytest.mark.parametrize("place", ["writer.after_read", "writer.before_commit", "writer.after_commit"])
async def test_a_writer_dies_in_mid_batch(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, place: str
) -> None:
    """It dies there three times over; whoever comes next, under its name or another, finishes."""
    keys = await make_sale(shop, sale_id, {"a": (10_000, 100, 50), "b": (10_000, 100, None)})
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        crowd = CustomerCrowd(settings, started.base, sale_id)
        stop = asyncio.Event()
        ordering = asyncio.create_task(crowd.run(8, limited_orders(5_000, stop)))
        for instance in ("one", "one", "two"):
            dying = await started.worker("order_writer", instance=instance, crash_at=f"{place}:2")
            assert await wait_for_exit(dying) == -9
        await started.worker("order_writer", instance="three")
        stop.set()
        await ordering
        await eventually(lambda: drained(shop, keys))
    assert len(crowd.promised) > 100
    await check(shop, sale_id, crowd)


async def test_a_gateway_dies_between_redis_and_its_answer(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """The clients repeat with their keys at the next gateway and get the very orders that were taken."""
    keys = await make_sale(shop, sale_id, {"a": (10_000, 100, 50), "b": (10_000, 100, None)})
    async with run_processes(settings, tmp_path) as started:
        await started.worker("order_writer")
        dying = await started.gateway(crash_at="intake.after_reserve:20")
        crowd = CustomerCrowd(settings, started.base, sale_id)
        ordering = asyncio.create_task(crowd.run(16, limited_orders(400)))
        assert await wait_for_exit(dying) == -9
        await started.gateway()
        await ordering
        await eventually(lambda: drained(shop, keys))
    assert len(crowd.promised) == 400
    assert crowd.answers["200"] > 0
    await check(shop, sale_id, crowd)


async def test_a_release_driver_dies_between_redis_and_its_row(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """P5: the goods came back and the row does not say so; the next driver finds out and gives nothing twice."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)})
    await reserve(
        shop.redis,
        keys,
        *(reservation(shop.ids.new, sale_id, {"a": 2}, user=f"u{n}", limits={"a": 5}) for n in range(6)),
    )
    quick = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"lease_s": 1})})
    async with run_processes(quick, tmp_path) as started:
        await started.worker("order_writer")
        await eventually(lambda: drained(shop, keys))
        await expire_all(shop)
        dying = await started.worker("release_worker", crash_at="release.after_redis")
        assert await wait_for_exit(dying) == -9
        assert (await lua.cut(shop.redis, keys)).stock == {"a": 20}
        audit = await shop.audit.audit_sale(sale_id)
        assert audit.clean, audit.findings
        await started.worker("release_worker")
        await eventually(lambda: _has_no_pending_releases(shop))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 20}
    assert (await shop.audit.audit_sale(sale_id)).clean


async def _has_no_pending_releases(shop: CliServices) -> bool:
    counts = await shop.audit.count_waiting()
    return counts["pending_releases"] == 0


@pytest.mark.parametrize("place", ["sale.after_commit", "load.after_begin", "load.before_load"])
async def test_who_opens_a_sale_dies(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, place: str
) -> None:
    """The sale keeper finishes what was begun."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)}, opened=False)
    async with run_processes(settings, tmp_path) as started:
        dying = await _open_by_http(started, sale_id, place)
        assert await wait_for_exit(dying) == -9
        await started.worker("sale_sync")
        await eventually(lambda: _loaded(shop, keys))
    sale = await shop.sales.get(sale_id)
    assert (sale.state, sale.is_loaded, sale.published_generation) == ("open", True, sale.generation)
    assert (await shop.audit.audit_sale(sale_id)).clean


async def _open_by_http(started: Processes, sale_id: str, place: str) -> RunningProcess:
    dying = await started.gateway(crash_at=place)
    url = f"http://127.0.0.1:{started.admin_port}/v1/admin/sales/{sale_id}/open"
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.post(url, headers=bearer(started.settings, "ann", roles=["operator"]))
    return dying


async def _loaded(shop: CliServices, keys: SaleKeys) -> bool:
    return await lua.loaded_epoch(shop.redis, keys) > 0


async def test_who_changes_stock_dies(shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path) -> None:
    """Before Redis or after it: the change is applied once."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, 5)})
    quick = settings.model_copy(update={"jobs": settings.jobs.model_copy(update={"lease_s": 1})})
    async with run_processes(quick, tmp_path) as started:
        for place in ("stock.after_record", "stock.after_redis"):
            dying = await started.gateway(crash_at=place)
            url = f"http://127.0.0.1:{started.admin_port}/v1/admin/sales/{sale_id}/stock-changes"
            headers = bearer(settings, "ann", roles=["sales"]) | {"Idempotency-Key": str(shop.ids.new())}
            async with aiohttp.ClientSession() as client:
                with pytest.raises(aiohttp.ClientError):
                    await client.post(url, headers=headers, json={"sku": "a", "delta": 5, "reason": "more"})
            assert await wait_for_exit(dying) == -9
        await started.worker("sale_sync")
        await eventually(lambda: _applied(shop, 2))
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 30}
    assert (await shop.audit.audit_sale(sale_id)).clean


async def _applied(shop: CliServices, count: int) -> bool:
    async with shop.db.connection() as connection:
        return await connection.fetchval("SELECT count(*) FROM stock_changes WHERE status = 'applied'") == count
