"""One sale, order or change that fails does not keep the others from their turn."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY
from typer.testing import CliRunner

import lua
from commerce.kernel.errors import SomeFailed
from commerce.kernel.jobs import RetryPolicy
from commerce.reservations.service import Reservations
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import SaleKeys
from ops.cli import app
from ops.services import CliServices
from tests.support.due_jobs import put_due
from tests.support.gateway import TestGateway, run_workers
from tests.support.refusing_rows import refuse_updates
from tests.support.sales import eventually, expire_all, make_sale, order_body, reservation, reserve
from workers import metrics

POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=2)


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def make_sales(shop: CliServices, prefix: str) -> tuple[str, str]:
    """Open two sales. The first one, which all loops meet first, is the one to damage."""
    names = f"{prefix}-a", f"{prefix}-b"
    for name in names:
        await make_sale(shop, name, {"a": (50, 100, 3)})
    return names


async def test_sale_that_cannot_be_synced_does_not_keep_others_and_stock_changes_waiting(
    shop: CliServices, settings: Settings, sale_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = await make_sales(shop, sale_prefix)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET state = 'paused', generation = generation + 1")
        await refuse_updates(connection, "sales", f"OLD.sale_id = '{bad}'")
        await connection.execute(
            "INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, created_at) "
            "VALUES ($1, $2, 'a', 5, 'more', 'test', now())",
            change_id := shop.ids.new(),
            good,
        )
        await put_due(connection, "stock_changes", "stock_change.apply", change_id)

    async def is_good_in_sync() -> bool:
        sale = await shop.sales.get(good)
        stock = (await lua.cut(shop.redis, SaleKeys(good))).stock
        return sale.published_generation == sale.generation and stock == {"a": 55}

    failures = gauge("floodgate_worker_failures_total", worker="sale_sync")
    with caplog.at_level(logging.WARNING):
        async with run_workers(settings, "sale_sync"):
            await eventually(is_good_in_sync)
    assert gauge("floodgate_worker_failures_total", worker="sale_sync") > failures
    assert {record.sale_id for record in caplog.records if hasattr(record, "sale_id")} == {bad}


async def test_stock_change_that_fails_does_not_keep_others_waiting(shop: CliServices, sale_id: str) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await shop.redis.delete(keys.meta)
    changes = [
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", delta, "more"), "test")
        for delta in (1, 2, 4)
    ]
    await lua.load(shop.redis, keys, lua.SaleTerms(1, 1, "open", 0, None), [("a", 50)], [], lua.EntryId(0, 1))
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET epoch = 1, loaded_epoch = 1")
        await connection.execute("UPDATE jobs SET due_at = created_at")
        condition = f"OLD.change_id = '{changes[0].change_id}' AND NEW.status = 'applied'"
        await refuse_updates(connection, "stock_changes", condition)
    with pytest.raises(SomeFailed, match=str(changes[0].change_id)) as caught:
        await shop.stock.apply_due_changes()
    assert caught.value.count == 1
    stored = {change.change_id: change.status for change in await shop.stock.list_changes(sale_id, 10)}
    assert [stored[change.change_id] for change in changes] == ["pending", "applied", "applied"]


async def test_orders_that_cannot_be_cancelled_do_not_keep_others_from_expiring(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """As many as one step takes, and they are due first."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}) for _ in range(5)]
    await reserve(shop.redis, keys, *orders)

    async def is_stored() -> bool:
        return (await lua.read_backlog(shop.redis, keys)).orders == 0

    async with run_workers(settings, "order_writer"):
        await eventually(is_stored)
    await expire_all(shop)
    bad = {orders[0].order_id, orders[1].order_id}
    async with shop.db.connection() as connection:
        await connection.execute("ALTER TABLE orders ADD refused boolean NOT NULL DEFAULT false")
        await connection.execute(
            "UPDATE orders SET refused = true, pay_by = pay_by - interval '1 hour' WHERE order_id = ANY($1)", list(bad)
        )
        await refuse_updates(connection, "orders", "OLD.refused")
    reservations = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    with pytest.raises(SomeFailed) as caught:
        await reservations.expire_unpaid_orders()
    assert caught.value.count == 2
    assert [await reservations.expire_unpaid_orders() for _ in range(3)] == [2, 1, 0]
    with pytest.raises(SomeFailed):
        await reservations.expire_unpaid_orders()  # they have another turn when nothing else is due
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT order_id FROM orders WHERE status <> 'cancelled'")
    assert {row["order_id"] for row in rows} == bad


async def test_sale_with_failing_releases_does_not_keep_others_waiting(shop: CliServices, sale_prefix: str) -> None:
    bad, good = await make_sales(shop, sale_prefix)
    async with shop.db.connection() as connection:
        for sale in (bad, good):
            await connection.execute(
                "INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at) "
                "VALUES ($1, $2, 'user', '{\"a\": 1}', 'test', now())",
                release_id := shop.ids.new(),
                sale,
            )
            await put_due(connection, "releases", "release.apply", release_id)
        await refuse_updates(connection, "releases", f"OLD.sale_id = '{bad}' AND NEW.status = 'applied'")
    with pytest.raises(SomeFailed, match=bad):
        await Reservations(shop.db, shop.redis, shop.clock, POLICY).apply_due_releases()
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT sale_id, status FROM releases")
    assert {row["sale_id"]: row["status"] for row in rows} == {bad: "pending", good: "applied"}


async def test_broken_stream_does_not_keep_others_from_being_measured_and_written(
    shop: CliServices, make_settings: Callable[..., Settings], sale_prefix: str
) -> None:
    """The writer, the observer and the auditor go on with the other sale, be it open or closed."""
    bad, good = await make_sales(shop, sale_prefix)
    await reserve(shop.redis, SaleKeys(good), reservation(shop.ids.new, good, {"a": 1}, limits={"a": 3}))
    for sale in (bad, good):
        await shop.sales.close(sale, "test")
    await shop.redis.delete(SaleKeys(bad).orders, SaleKeys(bad).accepted)
    await shop.redis.set(SaleKeys(bad).orders, "no stream")
    await shop.redis.set(SaleKeys(bad).accepted, "no hash")
    settings = make_settings(observer={"gauges_every_s": 0.05, "audit_every_s": 0.05})

    async def is_measured() -> bool:
        return gauge("floodgate_stream_backlog_orders", sale=good) == 1

    async def is_written_and_audited() -> bool:
        is_audited = gauge("floodgate_audit_timestamp_seconds", sale=good) > 0
        return is_audited and (await lua.read_backlog(shop.redis, SaleKeys(good))).orders == 0

    async with run_workers(settings, "observer", "auditor"):
        await eventually(is_measured)
        async with run_workers(settings, "order_writer"):
            await eventually(is_written_and_audited)
    assert gauge("floodgate_worker_failures_total", worker="observer") > 0
    assert gauge("floodgate_worker_failures_total", worker="auditor") > 0


async def test_gauge_that_fails_does_not_keep_others_from_being_measured(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    async with shop.db.connection() as connection:
        await connection.execute("ALTER TABLE dead_letters RENAME TO lost_letters")
    metrics.WORKLIST_SHIPMENTS.labels("parked").set(-1)
    settings = make_settings(observer={"gauges_every_s": 0.05})
    failures = gauge("floodgate_worker_failures_total", worker="observer")

    async def is_measured() -> bool:
        has_failed = gauge("floodgate_worker_failures_total", worker="observer") > failures
        return has_failed and gauge("floodgate_worklist_shipments", worklist="parked") == 0

    async with run_workers(settings, "observer"):
        await eventually(is_measured)


async def test_sale_that_cannot_be_read_does_not_keep_gateway_from_others(
    shop: CliServices, gateway: TestGateway, sale_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await make_sales(shop, sale_prefix)
    sales = gateway.services.snapshots._sales
    read_snapshot = sales.read_snapshot

    async def fail_for_bad(sale: object, previous: object) -> object:
        if sale.sale_id == bad:  # type: ignore[attr-defined]
            raise TypeError("this sale is damaged")
        return await read_snapshot(sale, previous)  # type: ignore[arg-type]

    monkeypatch.setattr(sales, "read_snapshot", fail_for_bad)
    answers = {sale: await gateway.order(order_body(sale, ("a", 1))) for sale in (bad, good)}
    assert (answers[bad].status, answers[bad].code) == (503, "not_ready")
    assert answers[good].status == 202
    assert (await gateway.call("GET", "/health/ready")).status == 200
    assert gauge("floodgate_snapshot_failures_total") > 0


async def test_audit_command_with_a_damaged_sale_audits_the_others_and_names_it(
    shop: CliServices, settings: Settings, sale_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await make_sales(shop, sale_prefix)
    await shop.redis.delete(SaleKeys(bad).orders)
    await shop.redis.set(SaleKeys(bad).orders, "no stream")
    monkeypatch.setenv("REDIS_URL", settings.redis())
    monkeypatch.setenv("DATABASE_URL", settings.database())
    result = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "--json"])
    assert result.exit_code == 1
    assert [audit["sale_id"] for audit in json.loads(result.stdout)] == [good]
    assert f"cannot audit: {bad} (" in result.stderr
