"""Cancelling paid orders over HTTP: previews, units, shipments to stop, and staff."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.gateway.test_fulfilment_http import is_problem
from tests.support.gateway import GatewayResponse
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import PRICE, tracking_event


@pytest.fixture
async def gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


async def post(
    gateway: ShippingGateway, order_id: UUID, path: str = "cancel", key: str | None = None, **body: object
) -> GatewayResponse:
    headers = {} if key is None else {"Idempotency-Key": key}
    path = f"/v1/orders/{order_id}/{path}"
    return await gateway.gateway.call("POST", path, user="user", headers=headers, **({"json": body} if body else {}))


async def test_customer_previews_and_cancels_units_then_the_rest(gateway: ShippingGateway) -> None:
    order_id = await gateway.ship.add_order(("a", 3, 0))
    lines = [{"line_no": 0, "quantity": 1}]
    preview = await post(gateway, order_id, "cancel/preview", lines=lines)
    assert preview.status == 200, preview.text
    assert (preview.body["refund"]["amount"], preview.body["shipments_to_stop"]) == (PRICE, 0)
    assert preview.body["lines"] == [{"line_no": 0, "ship_to": 0, "sku": "a", "quantity": 1, "cancelled": 1, "kept": 0}]
    assert is_problem(await post(gateway, order_id, lines=lines), 422, "invalid")
    for _ in range(2):
        reply = await post(gateway, order_id, key="k", lines=lines)
        assert (reply.status, reply.body["status"], reply.body["cancellation"]["status"]) == (200, "paid", "done")
    assert is_problem(await post(gateway, order_id, key="k", lines=[{"line_no": 0, "quantity": 2}]), 422, "key_reused")
    too_many = await post(gateway, order_id, key="l", lines=[{"line_no": 0, "quantity": 3}])
    assert is_problem(too_many, 409, "not_cancellable")
    assert is_problem(await post(gateway, order_id, key="l", lines=[{"line_no": 5, "quantity": 1}]), 422, "invalid")
    foreign = await gateway.gateway.call("POST", f"/v1/orders/{order_id}/cancel", user="other")
    assert is_problem(foreign, 404, "not_found")
    reply = await post(gateway, order_id)
    assert (reply.status, reply.body["status"], reply.body["cancel_reason"]) == (200, "cancelled", "by_customer")
    assert (await post(gateway, order_id)).body["cancellation"] == reply.body["cancellation"]
    assert is_problem(await post(gateway, order_id, "cancel/preview"), 409, "cannot_cancel")


async def test_cancellation_is_open_until_the_carrier_has_cancelled(gateway: ShippingGateway) -> None:
    order_id, [shipment] = await gateway.ship.add_booked_order(("a", 2, 0))
    assert (await post(gateway, order_id, "cancel/preview")).body["shipments_to_stop"] == 1
    reply = await post(gateway, order_id, reason="found it cheaper")
    assert (reply.status, reply.body["cancellation"]["status"]) == (202, "open")
    listed = await gateway.call_as_staff("GET", "/cancellations", role="support")
    assert [item["cancellation"]["order_id"] for item in listed.body["items"]] == [str(order_id)]
    await gateway.ship.work_until_idle()
    assert (await post(gateway, order_id)).body["status"] == "cancelled"
    listed = await gateway.call_as_staff("GET", f"/orders/{order_id}/cancellations", role="support")
    [cancellation] = listed.body["items"]
    assert (cancellation["status"], cancellation["reason"]) == ("done", "found it cheaper")
    assert (await gateway.call_as_staff("GET", "/cancellations", role="warehouse")).body["items"] == []
    assert (await gateway.ship.get_shipment(shipment.shipment_id)).status == "cancelled"


async def test_collected_shipment_is_not_cancelled(gateway: ShippingGateway) -> None:
    order_id, [shipment] = await gateway.ship.add_booked_order(("a", 2, 0))
    await gateway.ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -1))
    reply = await post(gateway, order_id)
    assert is_problem(reply, 409, "cannot_cancel")
    assert "ask for a return when it is delivered" in reply.body["detail"]


async def test_staff_cancel_units_and_refund_shipments(gateway: ShippingGateway) -> None:
    order_id = await gateway.ship.add_order(("a", 3, 0))
    path, body = f"/orders/{order_id}/cancel", {"reason": "sold out", "lines": [{"line_no": 0, "quantity": 1}]}
    assert is_problem(await gateway.call_as_staff("POST", path, role="support", json=body), 422, "invalid")
    assert is_problem(await gateway.call_as_staff("POST", path, role="catalog", json=body), 403, "forbidden")
    preview = await gateway.call_as_staff("POST", f"{path}/preview", role="support", json=body)
    assert preview.body["refund"]["amount"] == PRICE
    for _ in range(2):
        reply = await gateway.call_as_staff(
            "POST", path, role="support", json=body, headers={"Idempotency-Key": "staff-key"}
        )
        assert (reply.status, reply.body["order"]["status"]) == (200, "paid")
        assert [line["cancelled"] for line in reply.body["cancellation"]["lines"]] == [1]
    await gateway.ship.work_until_idle()
    [shipment] = await gateway.ship.list_shipments(order_id)
    refund = f"/shipments/{shipment.shipment_id}/refund"
    early = await gateway.call_as_staff("POST", refund, role="support", json={"reason": "gone"})
    assert is_problem(early, 409, "not_undelivered")
    await gateway.ship.apply_events(shipment.shipment_id, tracking_event("lost", -1))
    reply = await gateway.call_as_staff("POST", refund, role="support", json={"reason": "gone"})
    assert (reply.status, reply.body["cause"], reply.body["status"]) == (200, "lost", "done")
    assert await gateway.ship.order_status(order_id) == "cancelled"
