"""Carrier webhooks: authentic ones are stored once, before the answer; all others change nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from config.settings import Settings
from ops.services import CliServices
from tests.shipping import kuaidi100_kit as kuaidi100
from tests.shipping.sf_express_kit import CHECK_WORD, WEBHOOK_KEY
from tests.support.gateway import GatewayResponse
from tests.support.proxy import open_postgres_proxy
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import SHANGHAI

YES = {
    "sf_express": (200, '{"return_code":"0000","return_msg":"OK"}'),
    "kuaidi100": (200, '{"result":true,"returnCode":"200","message":"成功"}'),
}
NO = {
    "sf_express": (200, '{"return_code":"1000","return_msg":"not stored, send it again"}'),
    "kuaidi100": (400, '{"result":false,"returnCode":"500","message":"not stored, send it again"}'),
}
SYSTEMS = sorted(YES)


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


async def send(
    shipping_gateway: ShippingGateway, system: str, body: bytes, *, key: str = WEBHOOK_KEY, **headers: str
) -> GatewayResponse:
    path = f"/v1/webhooks/carriers/{system}" + (f"?key={key}" if system == "sf_express" else "")
    return await shipping_gateway.gateway.call("POST", path, user=None, data=body, headers=headers)


def sf(number: str, *routes: tuple[str, str, str]) -> bytes:
    """Encode SF Express's routes of a shipment: code, time in China, text."""
    routes_json = [
        {"mailno": number, "opCode": code, "acceptTime": at, "remark": text, "acceptAddress": "杭州市", "id": "1"}
        for code, at, text in routes
    ]
    return json.dumps({"Body": {"WaybillRoute": routes_json}}, ensure_ascii=False).encode()


def kd(number: str, *entries: tuple[str, str, str], **more: Any) -> bytes:
    """Encode kuaidi100's history of a shipment: code, time in China, text."""
    entries_json = [kuaidi100.entry(at, text, text, code) for code, at, text in reversed(entries)]
    return kuaidi100.webhook_body(kuaidi100.webhook_param(kuaidi100.query_result(number, data=entries_json), **more))


WRITE: dict[str, Callable[..., bytes]] = {"sf_express": sf, "kuaidi100": kd}
CODES = {"sf_express": ("50", "31", "44", "80", "4711"), "kuaidi100": ("103", "0", "5", "301", "4711")}
"""Picked up, in transit, out for delivery, delivered, and an unknown code."""


def history(system: str, *steps: int) -> list[tuple[str, str, str]]:
    return [(CODES[system][step], f"2026-11-1{step} 08:00:00", f"step {step}") for step in steps]


def counted(system: str, result: str) -> float:
    labels = {"system": system, "result": result}
    return REGISTRY.get_sample_value("floodgate_carrier_webhooks_total", labels) or 0


async def booked(shipping_gateway: ShippingGateway, system: str) -> tuple[UUID, UUID, str]:
    """Create an order with one shipment, booked by the worker (SF Express) or by staff (zto)."""
    ship_to = () if system == "sf_express" else (SHANGHAI,)
    order_id, [shipment] = await shipping_gateway.ship.add_booked_order(
        ("a", 1, 0), **({"ship_to": ship_to} if ship_to else {})
    )
    if system == "kuaidi100":
        answer = await shipping_gateway.post_action(shipment.shipment_id, "pack", tracking_no="ZTO73100012345")
        assert answer.status == 200, answer.text
        [shipment] = await shipping_gateway.ship.list_shipments(order_id)
    assert shipment.tracking_no is not None
    return order_id, shipment.shipment_id, shipment.tracking_no


async def state(shipping_gateway: ShippingGateway) -> list[Any]:
    """Read everything that a carrier webhook could change."""
    query = """SELECT (SELECT jsonb_agg(shipments ORDER BY shipment_id) FROM shipments)::text,
        (SELECT jsonb_agg(orders ORDER BY order_id) FROM orders)::text, (SELECT count(*) FROM shipment_events),
        (SELECT jsonb_agg(fulfilment_lines) FROM fulfilment_lines)::text, (SELECT count(*) FROM carrier_webhooks)"""
    return [tuple(row) for row in await shipping_gateway.ship.fetch_rows(query)]


async def unchanged(
    shipping_gateway: ShippingGateway, system: str, body: bytes, result: str, expected: tuple[int, str], **options: Any
) -> None:
    before, count = await state(shipping_gateway), counted(system, result)
    answer = await send(shipping_gateway, system, body, **options)
    assert (answer.status, answer.text) == expected
    assert answer.headers["Content-Type"] == "application/json"
    assert await state(shipping_gateway) == before
    assert counted(system, result) == count + 1


@pytest.mark.parametrize("system", SYSTEMS)
async def test_carrier_webhooks_out_of_order_deliver_order_once(shipping_gateway: ShippingGateway, system: str) -> None:
    """A repeat changes nothing, a late event is only recorded, and the order arrives."""
    order_id, shipment_id, number = await booked(shipping_gateway, system)
    write, unknown = WRITE[system], counted_unknown(system)
    first = write(number, *history(system, 1))
    count = counted(system, "status_changed")
    answer = await send(shipping_gateway, system, first)
    assert (answer.status, answer.text) == YES[system]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]
    assert counted(system, "status_changed") == count + 1
    assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "in_transit"
    assert await shipping_gateway.ship.order_status(order_id) == "shipped"
    await unchanged(shipping_gateway, system, first, "duplicate", YES[system])
    late = write(number, *history(system, 0))
    count = counted(system, "recorded")
    assert (await send(shipping_gateway, system, late)).text == YES[system][1]
    assert counted(system, "recorded") == count + 1
    assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "in_transit"
    unknown_code = write(number, *history(system, 4, 1))
    assert (await send(shipping_gateway, system, unknown_code)).text == YES[system][1]
    assert counted_unknown(system) == unknown + 1
    assert [
        item["reason"]
        for item in (await shipping_gateway.call_as_staff("GET", "/shipments?worklist=anomalies")).body["items"]
    ] == ["step 4"]
    last = write(number, *history(system, 0, 1, 2, 3))
    assert (await send(shipping_gateway, system, last)).text == YES[system][1]
    assert await shipping_gateway.ship.order_status(order_id) == "delivered"
    kept = await shipping_gateway.ship.fetch_rows(
        "SELECT system, result, body FROM carrier_webhooks ORDER BY received_at"
    )
    assert [(row["system"], row["result"]) for row in kept] == [
        (system, w) for w in ("status_changed", "recorded", "recorded", "status_changed")
    ]
    assert kept[0]["body"] == first
    events = (await shipping_gateway.get_shipments(order_id)).body["shipments"][0]["events"]
    assert sorted(event["text"] for event in events if event["source"] == "webhook") == [
        *("picked up, implied by the event after it", "step 0", "step 1", "step 2", "step 3", "step 4"),
    ]
    await shipping_gateway.ship.check_records()


def counted_unknown(system: str) -> float:
    return REGISTRY.get_sample_value("floodgate_carrier_unknown_codes_total", {"system": system}) or 0


async def test_carrier_webhook_not_authentic_is_refused_and_not_stored(
    shipping_gateway: ShippingGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Forged, altered, truncated and foreign webhooks are refused and counted."""
    for system in SYSTEMS:
        await _not_believed(shipping_gateway, system, caplog)


async def _not_believed(shipping_gateway: ShippingGateway, system: str, caplog: pytest.LogCaptureFixture) -> None:
    _, shipment_id, number = await booked(shipping_gateway, system)
    good = WRITE[system](number, *history(system, 0, 1))
    if system == "sf_express":
        for key in ("", WEBHOOK_KEY[:-1], WEBHOOK_KEY.upper(), CHECK_WORD):
            await unchanged(shipping_gateway, system, good, "bad_signature", NO[system], key=key)
        await unchanged(shipping_gateway, system, good[:-9], "malformed", NO[system])
    else:
        await unchanged(shipping_gateway, system, good.replace(b"step", b"stop"), "bad_signature", NO[system])
        await unchanged(shipping_gateway, system, good[:-9], "bad_signature", NO[system])
        foreign = kuaidi100.webhook_body(kuaidi100.webhook_param(kuaidi100.query_result(number, com="ems")))
        await unchanged(shipping_gateway, system, foreign, "foreign", NO[system])
    await unchanged(shipping_gateway, system, b"", "malformed", NO[system])
    other = "kuaidi100" if system == "sf_express" else "sf_express"
    await unchanged(shipping_gateway, other, good, "malformed", NO[other])
    assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "booked"
    assert WEBHOOK_KEY not in caplog.text
    assert kuaidi100.SALT not in caplog.text
    huge = await send(shipping_gateway, system, b"x" * (shipping_gateway.gateway.settings.limits.body_bytes + 1))
    assert (huge.status, huge.code) == (413, "body_too_large")
    packed = await send(shipping_gateway, system, good, **{"Content-Encoding": "gzip"})
    assert packed.status == 415
    assert (await send(shipping_gateway, system, good)).text == YES[system][1]


async def test_carrier_webhook_before_booking_is_stored_is_accepted_on_repeat(
    shipping_gateway: ShippingGateway,
) -> None:
    """A webhook that arrives before the answer to the booking is sent again and accepted then."""
    for system in SYSTEMS:
        await _known_later(shipping_gateway, system)


async def _known_later(shipping_gateway: ShippingGateway, system: str) -> None:
    number = "SF0000000004711" if system == "sf_express" else "ZTO73100012345"
    body = WRITE[system](number, *history(system, 0))
    for _ in range(2):
        await unchanged(shipping_gateway, system, body, "unknown_tracking_no", NO[system])
    order_id, shipment_id, _ = await booked(shipping_gateway, system)
    for table in ("bookings", "shipments"):
        await shipping_gateway.ship.fetch_rows(
            f"UPDATE {table} SET tracking_no = $1 WHERE shipment_id = $2", number, shipment_id
        )
    answer = await send(shipping_gateway, system, body)
    assert (answer.status, answer.text) == YES[system]
    assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "picked_up"
    assert await shipping_gateway.ship.order_status(order_id) == "shipped"


async def test_carrier_webhook_with_one_unknown_number_applies_the_known_one(shipping_gateway: ShippingGateway) -> None:
    """Events of known shipments are applied at once; the webhook is sent again for the unknown one."""
    _, shipment_id, number = await booked(shipping_gateway, "sf_express")
    document = json.loads(sf(number, *history("sf_express", 0)))
    document["Body"]["WaybillRoute"] += json.loads(sf("SF0000000009999", *history("sf_express", 1)))["Body"][
        "WaybillRoute"
    ]
    body = json.dumps(document).encode()
    for _ in range(2):
        answer = await send(shipping_gateway, "sf_express", body)
        assert (answer.status, answer.text) == NO["sf_express"]
    assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "picked_up"
    assert await shipping_gateway.ship.fetch_value("SELECT count(*) FROM carrier_webhooks") == 0


async def test_carrier_webhook_without_database_is_answered_not_stored(
    shop: CliServices, make_settings: Callable[..., Settings], database_url: str, tmp_path: Path
) -> None:
    async with (
        open_postgres_proxy(database_url, tmp_path) as (proxy, url),
        open_shipping_gateway(shop, make_settings, database_url=url) as shipping_gateway,
    ):
        _, shipment_id, number = await booked(shipping_gateway, "sf_express")
        proxy.cut()
        for system in SYSTEMS:
            body, count = WRITE[system](number, *history(system, 0)), counted(system, "not_stored")
            answer = await send(shipping_gateway, system, body)
            assert (answer.status, answer.text) == NO[system]
            assert counted(system, "not_stored") == count + 1
            assert (await send(shipping_gateway, system, b"forged")).text == NO[system][1]
        proxy.refuse = False
        assert (await send(shipping_gateway, "sf_express", sf(number, *history("sf_express", 0)))).text == YES[
            "sf_express"
        ][1]
        assert (await shipping_gateway.ship.get_shipment(shipment_id)).status == "picked_up"


async def test_carrier_webhook_of_unconfigured_system_is_not_found(
    shop: CliServices, make_settings: Callable[..., Settings]
) -> None:
    """Unconfigured systems are 404, and other names are no systems."""
    async with open_shipping_gateway(shop, make_settings, carrier_settings={}) as shipping_gateway:
        for system in SYSTEMS:
            answer = await send(shipping_gateway, system, b"x")
            assert (answer.status, answer.code) == (404, "not_found")
        for name in ("own_fleet", "zto", "x"):
            assert (await send(shipping_gateway, name, b"x")).status == 422
        assert (await shipping_gateway.gateway.call("GET", "/v1/webhooks/carriers/kuaidi100", user=None)).status == 405
