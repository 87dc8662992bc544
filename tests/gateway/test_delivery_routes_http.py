"""Delivery routes over HTTP: reports of the driver with the signed link, and links that are refused."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from urllib.parse import urljoin
from uuid import UUID, uuid4

import jwt
import pytest

from commerce.fleet.driver_links import AUDIENCE, make_link
from commerce.fleet.errors import BadLink
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.services import CliServices
from tests.conftest import SECRET
from tests.support.gateway import GatewayResponse
from tests.support.shipping_gateway import NINGBO, ZONE, ShippingGateway, open_shipping_gateway

NASTY = {
    **NINGBO,
    "name": "<b onclick='x'>Li & \"Co\"</b>",
    "line": "</li><script>alert(1)</script> {title} {{",
}


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


async def loaded(shipping_gateway: ShippingGateway, *, cod: int = 0) -> list[Shipment]:
    """Create an order with two shipments for our own fleet; with `cod`, each collects a part of the cash."""
    _, shipments = await shipping_gateway.ship.add_booked_order(
        ("a", 1, 0), ("a", 1, 1), ship_to=(NINGBO, NASTY), cod=cod
    )
    assert [(shipment.carrier, shipment.status) for shipment in shipments] == [("own_fleet", "booked")] * 2
    return shipments


async def drive(shipping_gateway: ShippingGateway, token: str, path: str = "", **body: object) -> GatewayResponse:
    """Send a request of the driver's phone, which has nothing but the link."""
    method = "POST" if path and path != "/page" else "GET"
    return await shipping_gateway.gateway.call(method, f"/v1/driver-routes/{token}{path}", user=None, json=body or None)


async def test_driver_reports_update_shipments_and_orders(shipping_gateway: ShippingGateway) -> None:
    """Departures and reports may be repeated, and a failed stop is delivered later."""
    first, second = await loaded(shipping_gateway)
    route_id, token = await shipping_gateway.insert_route(first, second)
    route = await drive(shipping_gateway, token)
    assert (route.status, route.headers["Cache-Control"]) == (200, "no-store")
    assert (route.body["route_id"], route.body["vehicle_id"], route.body["status"]) == (str(route_id), "V1", "planned")
    assert [(stop["seq"], stop["status"], stop["cash_to_collect"]) for stop in route.body["stops"]] == [
        *((1, "planned", None), (2, "planned", None)),
    ]
    assert route.body["stops"][0]["address"] == NINGBO
    assert route.body["stops"][0]["tracking_no"] == first.tracking_no
    for _ in range(2):
        departed = await drive(shipping_gateway, token, "/depart")
        assert (departed.status, departed.body["status"]) == (200, "departed")
        assert (await shipping_gateway.ship.get_shipment(first.shipment_id)).status == "out_for_delivery"
    assert await shipping_gateway.ship.order_status(first.order_id) == "shipped"
    for _ in range(2):
        failed = await drive(shipping_gateway, token, "/stops/2", outcome="failed", note="nobody opens")
        assert (failed.status, failed.body["stops"][1]["note"]) == (200, "nobody opens")
        done = await drive(shipping_gateway, token, "/stops/1", outcome="delivered")
        assert (done.status, done.body["status"]) == (200, "done")
    back = await drive(shipping_gateway, token, "/stops/1", outcome="failed")
    assert (back.status, back.code) == (409, "conflict")
    assert (await drive(shipping_gateway, token, "/stops/2", outcome="delivered")).body["stops"][1][
        "status"
    ] == "delivered"
    assert await shipping_gateway.ship.order_status(first.order_id) == "delivered"
    shown = (await shipping_gateway.get_shipments(first.order_id)).body["shipments"]
    assert [(event["source"], event["text"]) for event in shown[1]["events"]][1:] == [
        ("fleet", "loaded into the vehicle"),
        ("fleet", "in transit, implied by the event after it"),
        ("fleet", "out for delivery"),
        ("fleet", "nobody opens"),
        ("fleet", "delivered"),
    ]
    await shipping_gateway.ship.check_records()


async def test_stop_report_with_invalid_input_is_refused(shipping_gateway: ShippingGateway) -> None:
    [first, *_] = await loaded(shipping_gateway)
    _, token = await shipping_gateway.insert_route(first)
    for seq, status in (("2", 404), ("0", 422), ("32768", 422), ("x", 422)):
        assert (await drive(shipping_gateway, token, f"/stops/{seq}", outcome="delivered")).status == status
    for body in ({"outcome": "lost"}, {"note": "x"}, {"outcome": "failed", "note": ""}, {"outcome": "failed", "x": 1}):
        assert (await drive(shipping_gateway, token, "/stops/1", **body)).status == 422
    for note in ("x" * 501, "nul \0", "two\nlines"):
        assert (await drive(shipping_gateway, token, "/stops/1", outcome="failed", note=note)).status == 422
    assert (await drive(shipping_gateway, token, "/stops/1", outcome="failed", note="x" * 500)).status == 200


def forged(route_id: UUID, key: str, **changed: object) -> str:
    claims = jwt.decode(make_link(key, route_id, datetime.now(ZONE).date(), ZONE), options={"verify_signature": False})
    return jwt.encode({**claims, **changed}, key, "HS256")


async def test_driver_link_forged_or_expired_shows_and_changes_nothing(shipping_gateway: ShippingGateway) -> None:
    """Forged or expired links and customers' tokens show no address and change nothing."""
    [first, *_] = await loaded(shipping_gateway)
    today = datetime.now(ZONE).date()
    route_id, good = await shipping_gateway.insert_route(first)
    key, expired_day = shipping_gateway.gateway.settings.driver_link_key(), today - timedelta(days=2)
    bad = [
        forged(route_id, "somebody else's key, which is long enough"),
        forged(route_id, SECRET),  # the key of customers' tokens
        forged(route_id, key, aud="floodgate"),
        forged(route_id, key, sub="x"),
        jwt.encode({"aud": AUDIENCE, "sub": "AZaNV2oscACAAAAAAAAACw", "exp": 2**40}, "", "none"),
        make_link(key, route_id, expired_day, ZONE),
        good[:-4] + "AAAA",
        "x",
        "%00",
        "%ff",
    ]
    for token in bad:
        for path, body in (("", {}), ("/page", {}), ("/depart", {}), ("/stops/1", {"outcome": "delivered"})):
            answer = await drive(shipping_gateway, token, path, **body)
            assert (answer.status, answer.code) == (401, BadLink.code), token
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert NINGBO["line"] not in answer.text
    assert (await shipping_gateway.ship.get_shipment(first.shipment_id)).status == "booked"
    long = await drive(shipping_gateway, "x" * 301)
    assert (long.status, long.code) == (422, "invalid")
    gone = make_link(key, uuid4(), today, ZONE)
    for path in ("", "/page", "/depart"):
        answer = await drive(shipping_gateway, gone, path)
        assert (answer.status, answer.code) == (404, "not_found")
    valid = make_link(key, route_id, expired_day + timedelta(days=1), ZONE)
    assert (await drive(shipping_gateway, valid)).status == 200, "the link is valid until the end of the next day"


async def test_driver_page_escapes_texts_and_buttons_send_reports(shipping_gateway: ShippingGateway) -> None:
    """Customers' texts are escaped, and the buttons send valid requests to existing paths."""
    first, second = await loaded(shipping_gateway, cod=100)
    _, token = await shipping_gateway.insert_route(first, second)
    page = await drive(shipping_gateway, token, "/page")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Request-Id"]
    assert page.text.count("<script>") == 1
    assert "onclick='" not in page.text
    for text in ("&lt;b onclick=&#x27;x&#x27;&gt;Li &amp; &quot;Co&quot;&lt;/b&gt;", "{title} {{", "V1, ", "collect "):
        assert text in page.text
    assert re.findall(r"collect [^<]+", page.text) == ["collect 0.50 CNY"] * 2
    async with shipping_gateway.gateway.client.head(
        f"{shipping_gateway.gateway.base}/v1/driver-routes/{token}/page"
    ) as answer:
        assert answer.status == 200
    # As the script does: the button's path is relative to the page's path.
    assert 'fetch(path, {method: "POST"' in page.text
    sent = re.findall(r"<button data-path='([^']+)'(?: data-outcome='([^']+)')?", page.text)
    assert [path for path, _ in sent] == ["depart", "stops/1", "stops/1", "stops/2", "stops/2"]
    for path, outcome in (sent[0], sent[2], sent[3]):
        url = urljoin(f"{shipping_gateway.gateway.base}/v1/driver-routes/{token}/page", path)
        body = {"json": {"outcome": outcome}} if outcome else {}
        async with shipping_gateway.gateway.client.post(url, **body) as done:  # type: ignore[arg-type]
            assert done.status == 200, await done.text()
    page = await drive(shipping_gateway, token, "/page")
    assert re.findall(r"<li class='([a-z]+)'", page.text) == ["failed", "delivered"]
    assert re.findall(r"data-path='([^']+)'", page.text) == ["stops/1"] * 2, "a failed stop may still be delivered"


async def test_staff_list_routes_with_working_links(shipping_gateway: ShippingGateway) -> None:
    [first, *_] = await loaded(shipping_gateway)
    today = datetime.now(ZONE).date()
    await shipping_gateway.insert_route(first, day=today)
    routes = await shipping_gateway.call_as_staff("GET", f"/routes?day={today}")
    [item] = routes.body["items"]
    assert (item["route"]["vehicle_id"], len(item["route"]["stops"])) == ("V1", 1)
    assert (await shipping_gateway.gateway.call("GET", item["link"], user=None)).status == 200
    assert (await shipping_gateway.call_as_staff("GET", f"/routes?day={today + timedelta(days=1)}")).body == {
        "items": []
    }
    for wrong, status in (("", 400), ("?day=today", 422), (f"?day={today}&day={today}", 400)):
        assert (await shipping_gateway.call_as_staff("GET", f"/routes{wrong}")).status == status
    assert (await shipping_gateway.call_as_staff("GET", f"/routes?day={today}", role="support")).status == 403
    # Customers' tokens are signed elsewhere, and the settings have no key for links.
    settings = shipping_gateway.gateway.settings
    keyless = settings.auth.keys[0].model_copy(update={"algorithm": "RS256"})
    object.__setattr__(settings, "auth", settings.auth.model_copy(update={"keys": (keyless,)}))
    nothing = await drive(shipping_gateway, "x")
    assert (nothing.status, nothing.code) == (503, "not_ready")
    assert "FLOODGATE_SHIPPING__DRIVER_LINK_KEY" in nothing.text


async def test_driver_link_token_is_never_logged(
    shipping_gateway: ShippingGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The token is not logged either when a request fails unexpectedly."""
    [first, *_] = await loaded(shipping_gateway)
    _, token = await shipping_gateway.insert_route(first)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    for name in ("driver_route", "depart", "report"):
        monkeypatch.setattr(shipping_gateway.gateway.services.route_execution, name, broken)
    caplog.set_level(logging.DEBUG)
    for path, body in (("", {}), ("/page", {}), ("/depart", {}), ("/stops/1", {"outcome": "delivered"}), ("/no", {})):
        answer = await drive(shipping_gateway, token, path, **body)
        assert answer.status == (404 if path == "/no" else 500)
        assert token not in answer.text
    failed = [record for record in caplog.records if record.getMessage() == "a request failed"]
    assert {record.path for record in failed} == {  # type: ignore[attr-defined]
        *(
            "/v1/driver-routes/{token}",
            "/v1/driver-routes/{token}/page",
            "/v1/driver-routes/{token}/depart",
            "/v1/driver-routes/{token}/stops/{seq}",
        ),
    }
    logged = [str(value) for record in caplog.records for value in record.__dict__.values()] + [caplog.text]
    assert not [text for text in logged if token in text]
