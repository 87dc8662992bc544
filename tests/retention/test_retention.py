"""Old rows are deleted in small steps; what is open or audited keeps its rows."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from prometheus_client import REGISTRY

from commerce.audit import store as audit_store
from commerce.kernel.clock import DAY_MS
from commerce.retention.model import Table
from commerce.retention.service import Retention
from config.retention import RetentionSettings
from config.settings import Settings, SettingsError, load
from ops.services import CliServices
from tests.drills import grown_shop
from tests.shipping.sf_express_kit import WEBHOOK_KEY
from tests.support.gateway import run_workers
from tests.support.rooms import ShiftedClock
from tests.support.sales import eventually
from tests.support.shipping_gateway import open_shipping_gateway
from tests.support.shipping_shop import open_shipping_shop, tracking_event
from workers.retention_worker import retention_ages

ORDERS = 20_000
OPEN = (
    "NOT (status IN ('delivered', 'cancelled') "
    "OR (status IN ('lost', 'returned_to_sender') AND resolved_at IS NOT NULL))"
)
OF_OPEN_SHIPMENT = f"EXISTS (SELECT FROM shipments WHERE shipments.shipment_id = {{id}} AND {OPEN})"
OF_OPEN_PAYMENT = (
    "(EXISTS (SELECT FROM payments WHERE payment_id = entry.payment_id AND status = 'pending') OR "
    "EXISTS (SELECT FROM refunds WHERE payment_id = entry.payment_id AND status = 'pending'))"
)
STAYS: dict[Table, str] = {
    "payment_webhooks": OF_OPEN_PAYMENT,
    "carrier_webhooks": OF_OPEN_SHIPMENT.format(id="ANY (entry.shipment_ids)"),
    "shipment_events": f"(to_status IS NOT NULL OR is_unknown_code OR contradicts_history OR "
    f"{OF_OPEN_SHIPMENT.format(id='entry.shipment_id')})",
    "staff_requests": "false",
    "carts": "user_id IS NOT NULL",
    "checkouts": "state = 'placing'",
    "article_votes": "false",
    "missed_searches": "false",
    "order_views": "false",
    "sales_by_minute": "false",
    "picture_imports": "ended_at IS NULL",
    "product_quality_days": "false",
}
"""rows that stay however old they are"""


async def count_rows(database_url: str, table: Table, condition: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table} AS entry WHERE {condition}"))
    finally:
        await connection.close()


def make_retention(shop: CliServices, rows_per_step: int, age: timedelta) -> Retention:
    """Make a retention three days from now."""
    clock = ShiftedClock()
    clock.shift_ms = 3 * DAY_MS
    return Retention(shop.db, clock, dict.fromkeys(STAYS, age), rows_per_step)


async def delete_all(retention: Retention, table: Table) -> int:
    rows = 0
    while deleted := (await retention.delete_old(table)).rows:
        rows += deleted
    return rows


async def test_old_rows_go_in_steps_and_those_of_open_things_stay(shop: CliServices, database_url: str) -> None:
    """In a database with 400 days of a shop; some of its payments, refunds and shipments are open."""
    connection = await asyncpg.connect(database_url)
    await grown_shop.fill(connection, ORDERS)
    await connection.close()
    for table, condition in STAYS.items():
        stored = await count_rows(database_url, table, "true")
        needed = await count_rows(database_url, table, condition)
        assert stored > needed, table
        assert needed > 0 or condition == "false"
        early = make_retention(shop, 100, timedelta(days=10_000))
        assert await early.delete_old(table) == (0, timedelta()), "nothing is old enough"
        retention = make_retention(shop, 100, timedelta(days=1))
        first = await retention.delete_old(table)
        assert first.rows == 100
        assert first.overdue > timedelta(days=1)
        assert await delete_all(retention, table) == stored - needed - 100
        assert (await retention.delete_old(table)).overdue == timedelta()
        assert await count_rows(database_url, table, "true") == needed
        assert await count_rows(database_url, table, condition) == needed


async def add_answers(connection: asyncpg.Connection[asyncpg.Record], count: int, age: str) -> None:
    await connection.execute(
        "INSERT INTO staff_requests (actor, idempotency_key, digest, created_at, status, content_type, body) "
        f"SELECT 'staff', '{age} ' || n, decode(repeat('00', 32), 'hex'), now() - interval '{age}', 200, '', '' "
        f"FROM generate_series(1, {count}) AS n"
    )


async def test_processes_skip_each_others_rows_and_wait_for_no_lock(shop: CliServices, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    await add_answers(owner, 300, "9 days")
    retention = make_retention(shop, 50, timedelta(days=1))
    async with owner.transaction(), asyncio.timeout(20):
        await owner.execute("SELECT FROM staff_requests LIMIT 1 FOR UPDATE")
        assert (await retention.delete_old("staff_requests")).rows == 50
    async with asyncio.timeout(20):
        counts = await asyncio.gather(*(delete_all(retention, "staff_requests") for _ in range(3)))
    assert sum(counts) == 250
    assert await owner.fetchval("SELECT count(*) FROM staff_requests") == 0
    await owner.close()


async def test_delivered_shipment_without_its_tracking_events_has_a_clean_history(
    shop: CliServices, settings: Settings
) -> None:
    async with open_shipping_shop(shop, settings) as ship:
        _, [shipment] = await ship.add_booked_order(("a", 1, 0))
        await ship.apply_events(
            shipment.shipment_id,
            *(tracking_event("picked_up", -60), tracking_event("in_transit", -50)),
            *(tracking_event("in_transit", -40, text="passes a hub"), tracking_event("delivered", -30)),
        )
        texts = await ship.list_event_texts(shipment.shipment_id)
        retention = make_retention(shop, 100, timedelta(days=1))
        assert (await retention.delete_old("shipment_events")).rows == 1
        left = await ship.list_event_texts(shipment.shipment_id)
        assert set(texts) - set(left) == {"passes a hub"}
        async with audit_store.open_order_snapshot(shop.db) as connection:
            orders = [shipment.order_id]
            assert await audit_store.list_violations(connection, "broken_shipment_histories", orders) == []


async def test_webhook_of_shipment_on_its_way_stays(shop: CliServices, make_settings: Callable[..., Settings]) -> None:
    """The webhook itself says which shipments it is about."""
    async with open_shipping_gateway(shop, make_settings) as shipping_gateway:
        ship, retention = shipping_gateway.ship, make_retention(shop, 100, timedelta(days=1))
        _, [shipment] = await ship.add_booked_order(("a", 1, 0))
        route = {"mailno": shipment.tracking_no, "opCode": "50", "acceptTime": "2026-11-11 10:00:00", "id": "1"}
        body = json.dumps({"Body": {"WaybillRoute": [{**route, "remark": "已收取"}]}})
        path = f"/v1/webhooks/carriers/sf_express?key={WEBHOOK_KEY}"
        answer = await shipping_gateway.gateway.call("POST", path, user=None, data=body.encode())
        assert answer.body["return_code"] == "0000"
        assert (await retention.delete_old("carrier_webhooks")).rows == 0
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
        assert (await retention.delete_old("carrier_webhooks")).rows == 1


async def test_worker_deletes_old_rows_and_counts_them(
    make_settings: Callable[..., Settings], database_url: str, sale_prefix: str
) -> None:
    """Answers to staff are kept for 48 hours."""
    owner = await asyncpg.connect(database_url)
    await add_answers(owner, 500, "49 hours")
    await add_answers(owner, 3, "47 hours")
    settings = make_settings(retention={"rows_per_step": 200, "step_pause_s": 0.01})
    labels = {"table": "staff_requests"}

    def deleted() -> float:
        return REGISTRY.get_sample_value("floodgate_retention_deleted_rows_total", labels) or 0

    before = deleted()
    async with run_workers(settings, "retention_worker"):

        async def is_done() -> bool:
            return deleted() - before == 500

        await eventually(is_done)
    assert await owner.fetchval("SELECT count(*) FROM staff_requests") == 3
    assert REGISTRY.get_sample_value("floodgate_retention_overdue_seconds", labels) == 0
    await owner.close()


async def test_document_says_of_each_table_how_long_it_is_kept(database_url: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page.partition("\n## Retention")[2].partition("\n## ")[0], re.MULTILINE)
    connection = await asyncpg.connect(database_url)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    assert {table["tablename"] for table in tables} == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_ages_are_those_of_the_settings_and_webhooks_outlast_their_repeats() -> None:
    ages = retention_ages(RetentionSettings(payment_webhook_days=200, staff_request_days=0.5))
    assert (ages["payment_webhooks"], ages["staff_requests"]) == (timedelta(days=200), timedelta(hours=12))
    assert ages["carrier_webhooks"] == timedelta(days=90)
    with pytest.raises(SettingsError, match=r"retention.payment_webhook_days: .* greater than or equal to 7"):
        load(retention={"payment_webhook_days": 1})
