"""No crowd keeps others from Postgres: each kind of use of a gateway has its connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from commerce.kernel.errors import Overloaded
from config.settings import Settings, SettingsError, load
from ops.services import CliServices
from tests.shipping.sf_express_kit import WEBHOOK_KEY
from tests.support.connections import held_connection
from tests.support.gateway import GatewayResponse
from tests.support.sales import eventually, make_sale
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway

CROWD = 60
PROMPT_S = 3.0
"""far less than the 10 s that a statement may hang, and far more than a busy machine needs"""
SHARES = ("customers", "staff", "webhooks", "background", "search")
DONE = {
    "customers": (200, None),
    "staff": (200, None),
    "webhooks": ("0000",),
    "background": ("read",),
    "search": (200, None),
}
REFUSED = {
    "customers": (503, "2"),
    "staff": (503, "2"),
    "webhooks": ("1000",),
    "background": ("overloaded",),
    "search": (503, "2"),
}
HANGING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
SMALLEST = {
    "total_connections": 5,
    "customer_connections": 1,
    "staff_connections": 1,
    "webhook_connections": 1,
    "background_connections": 1,
    "search_connections": 1,
}


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings, database_shares=SMALLEST) as gateway:
        yield gateway


async def pause(gateway: ShippingGateway, sale_id: str) -> GatewayResponse:
    return await gateway.call_as_staff("POST", f"/sales/{sale_id}/pause", role="sales")


async def send_webhook(gateway: ShippingGateway, tracking_no: str | None) -> GatewayResponse:
    route = {"mailno": tracking_no, "opCode": "50", "acceptTime": "2026-11-11 10:00:00", "remark": "已收取", "id": "1"}
    body = json.dumps({"Body": {"WaybillRoute": [route]}}).encode()
    path = f"/v1/webhooks/carriers/sf_express?key={WEBHOOK_KEY}"
    return await gateway.gateway.call("POST", path, user=None, data=body)


async def add_booked_shipment(gateway: ShippingGateway) -> str | None:
    order_id: UUID = await gateway.ship.add_order(("a", 1, 0))
    await gateway.ship.work_until_idle()
    [shipment] = await gateway.ship.list_shipments(order_id)
    return shipment.tracking_no


@asynccontextmanager
async def locked(database_url: str, table: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Make all statements on a table hang."""
    owner = await asyncpg.connect(database_url)
    async with owner.transaction():
        await owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield owner
    await owner.close()


async def test_crowd_of_hanging_reads_delays_neither_staff_nor_webhooks(
    shop: CliServices, shipping_gateway: ShippingGateway, database_url: str, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"mug": (5, 100, None)})
    tracking_no = await add_booked_shipment(shipping_gateway)
    gateway = shipping_gateway.gateway
    async with locked(database_url, "saved_addresses") as owner:
        readers = [asyncio.create_task(gateway.call("GET", "/v1/addresses")) for _ in range(CROWD)]

        async def has_hanging_read() -> bool:
            return bool(await owner.fetchval(HANGING))

        await eventually(has_hanging_read)
        async with asyncio.timeout(PROMPT_S):
            paused = await pause(shipping_gateway, sale_id)
            stored = await send_webhook(shipping_gateway, tracking_no)
            await gateway.services.snapshots.refresh()
        assert (paused.status, paused.body["state"]) == (200, "paused")
        assert stored.body["return_code"] == "0000"
        assert not any(reader.done() for reader in readers)
    assert {(await reader).status for reader in readers} == {200}


@pytest.mark.parametrize("exhausted", SHARES)
async def test_exhausted_share_refuses_its_own_while_the_others_go_on(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, exhausted: str
) -> None:
    await make_sale(shop, sale_id, {"mug": (5, 100, None)})
    async with open_shipping_gateway(
        shop, make_settings, database_shares=SMALLEST, limits={"database_timeout_s": 1}
    ) as shipping_gateway:
        tracking_no = await add_booked_shipment(shipping_gateway)
        gateway = shipping_gateway.gateway
        async with held_connection(gateway.services.db, exhausted):
            for share in SHARES:
                if share != exhausted:
                    async with asyncio.timeout(PROMPT_S):
                        assert await use(shipping_gateway, share, sale_id, tracking_no) == DONE[share]
            before = refusals(exhausted)
            assert await use(shipping_gateway, exhausted, sale_id, tracking_no) == REFUSED[exhausted]
            assert refusals(exhausted) > before


async def use(gateway: ShippingGateway, share: str, sale_id: str, tracking_no: str | None) -> tuple[object, ...]:
    """Use Postgres as a share does. Returns what tells success from a refusal."""
    match share:
        case "customers":
            answer = await gateway.gateway.call("GET", "/v1/orders")
        case "search":
            answer = await gateway.gateway.call("GET", "/v1/product-search", params={"q": "mug"})
        case "staff":
            answer = await pause(gateway, sale_id)
        case "webhooks":
            return ((await send_webhook(gateway, tracking_no)).body["return_code"],)
        case _:
            try:
                await gateway.gateway.services.snapshots.refresh()
            except Overloaded as error:
                return (error.code,)
            return ("read",)
    return answer.status, answer.headers.get("Retry-After")


def refusals(share: str) -> float:
    return REGISTRY.get_sample_value("floodgate_database_refusals_total", {"share": share}) or 0


@pytest.mark.parametrize("share", ["customer", "staff", "webhook", "background", "search"])
def test_settings_that_leave_a_share_without_connection_are_refused(share: str) -> None:
    with pytest.raises(SettingsError, match=f"database_shares.{share}_connections"):
        load(database_shares={f"{share}_connections": 0})
    with pytest.raises(SettingsError, match="the shares keep 9 connections of 8; raise total_connections"):
        load(database_shares={"total_connections": 8})
