"""Shipments over HTTP, as a customer reads and watches them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import orjson
import pytest

from commerce.shipping import store
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import bearer
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import SHANGHAI, tracking_event


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


class ShipmentEventStream:
    """Reads server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> tuple[int, dict[str, Any]]:
        """Read the next event's id and data. Raises `EOFError` at the end."""
        lines: dict[str, str] = {}
        while line := (await asyncio.wait_for(self.response.content.readline(), 10)).decode():
            name, _, value = line.rstrip("\n").partition(": ")
            lines[name] = value
            if line == "\n" and "data" in lines:
                assert lines["event"] == "shipment"
                return int(lines["id"]), orjson.loads(lines["data"])
        raise EOFError

    async def ends(self) -> bool:
        with pytest.raises(EOFError):
            await self.event()
        return True


async def watch(
    shipping_gateway: ShippingGateway, stack: AsyncExitStack, order_id: UUID, last: int | None = None
) -> ShipmentEventStream:
    headers = bearer(shipping_gateway.gateway.settings) | ({"Last-Event-ID": str(last)} if last is not None else {})
    url = f"{shipping_gateway.gateway.base}/v1/orders/{order_id}/shipments/events"
    response = await stack.enter_async_context(shipping_gateway.gateway.client.get(url, headers=headers))
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
    assert response.headers["X-Request-Id"]
    return ShipmentEventStream(response)


async def status_of_stream(shipping_gateway: ShippingGateway, order_id: UUID, last: int) -> int:
    path, headers = f"/v1/orders/{order_id}/shipments/events", {"Last-Event-ID": str(last)}
    return (await shipping_gateway.gateway.call("GET", path, headers=headers)).status


async def test_customer_reads_unplanned_units_then_shipments_with_events(shipping_gateway: ShippingGateway) -> None:
    """First nothing is planned; then two shipments have their lines, and events in the order of time."""
    ship = shipping_gateway.ship
    order_id = await ship.add_order(("a", 2, 0), ("b", 1, 1), ship_to=(ADDRESS, SHANGHAI))
    unplanned = await shipping_gateway.get_shipments(order_id)
    assert (unplanned.status, unplanned.body) == (
        200,
        {"order_id": str(order_id), "unplanned_units": 3, "shipments": []},
    )
    await ship.work_until_idle()
    first, second = await ship.list_shipments(order_id)
    await ship.apply_events(
        first.shipment_id, tracking_event("in_transit", -5), tracking_event("picked_up", -60, text="fetched")
    )
    shown = (await shipping_gateway.get_shipments(order_id)).body
    assert shown["unplanned_units"] == 0
    transported, planned = shown["shipments"]
    assert (transported["shipment_id"], transported["status"], transported["parcel_no"], transported["ship_to"]) == (
        *(str(first.shipment_id), "in_transit", 1, 0),
    )
    assert transported["lines"] == [{"line_no": 0, "sku": "a", "quantity": 2}]
    assert (transported["carrier"], transported["tracking_no"]) == ("sf_express", first.tracking_no)
    events = [(event["status"], event["source"], event["text"]) for event in transported["events"]]
    assert events == [
        ("picked_up", "webhook", "fetched"),
        ("in_transit", "webhook", "it is in_transit"),
        ("booked", "system", f"sf_express takes it as {first.tracking_no}"),
    ]
    assert (planned["status"], planned["carrier"], planned["tracking_no"], planned["ship_to"]) == (
        "planned",
        "zto",
        None,
        1,
    )
    assert planned["promised_on"] == second.promised_on.isoformat()
    whole = await shipping_gateway.get_shipments(order_id)
    for path, length in (("", whole.headers["Content-Length"]), ("/events", None)):
        url = f"{shipping_gateway.gateway.base}/v1/orders/{order_id}/shipments{path}"
        async with (
            asyncio.timeout(20),
            shipping_gateway.gateway.client.head(url, headers=bearer(shipping_gateway.gateway.settings)) as answer,
        ):
            assert (answer.status, answer.headers.get("Content-Length"), await answer.read()) == (200, length, b"")
    assert shipping_gateway.gateway.services.watcher._streams.total() == 0


async def test_shipments_of_other_customer_are_not_found(shipping_gateway: ShippingGateway) -> None:
    order_id = await shipping_gateway.ship.add_order()
    for path in (f"/v1/orders/{order_id}/shipments", f"/v1/orders/{order_id}/shipments/events"):
        other = await shipping_gateway.gateway.call("GET", path, user="other")
        assert (other.status, other.code) == (404, "not_found")
        assert (await shipping_gateway.gateway.call("GET", path, user=None)).status == 401
        assert (await shipping_gateway.gateway.call("GET", path, user="ann", roles=["warehouse"])).status == 401
        unknown = await shipping_gateway.gateway.call("GET", path.replace(str(order_id), str(uuid4())))
        assert (unknown.status, unknown.code) == (404, "not_found")
        assert (await shipping_gateway.gateway.call("GET", path.replace(str(order_id), "7"))).status == 422
    for wrong in ("-1", "x", str(2**31)):
        headers = {"Last-Event-ID": wrong}
        bad = await shipping_gateway.gateway.call("GET", f"/v1/orders/{order_id}/shipments/events", headers=headers)
        assert (bad.status, bad.code) == (422, "invalid")
    assert (await shipping_gateway.call_as_staff("GET", f"/orders/{order_id}/shipments")).body["unplanned_units"] == 1


async def test_shipment_stream_runs_from_planning_past_loss_to_delivery(shipping_gateway: ShippingGateway) -> None:
    """A stream opened before planning sends all events, past a lost shipment, to the delivery."""
    ship = shipping_gateway.ship
    order_id = await ship.add_order(("a", 1, 0))
    async with AsyncExitStack() as stack:
        stream = await watch(shipping_gateway, stack, order_id)
        await ship.work_until_idle()
        seq, booked = await stream.event()
        assert (seq, booked["status"], booked["source"]) == (1, "booked", "system")
        [shipment] = await ship.list_shipments(order_id)
        await ship.apply_events(
            shipment.shipment_id, tracking_event("picked_up"), tracking_event(None, 1, text="stands in a jam")
        )
        assert [await stream.event() for _ in range(2)][1][1]["text"] == "stands in a jam"
        late = await watch(shipping_gateway, stack, order_id, last=2)
        assert (await late.event())[0] == 3
        await ship.apply_events(shipment.shipment_id, tracking_event("lost", 2))
        for watcher in (stream, late):
            assert (await watcher.event())[1]["status"] == "lost"
        assert (
            await shipping_gateway.post_action(shipment.shipment_id, "reship", reason="nobody finds it")
        ).status == 200
        again = (await ship.list_shipments(order_id))[1]
        for watcher in (stream, late):
            seq, data = await watcher.event()
            assert (seq, data["shipment_id"], data["text"]) == (
                *(5, str(again.shipment_id), "reshipped: nobody finds it"),
            )
        await ship.work_until_idle()
        await ship.apply_events(again.shipment_id, tracking_event("delivered", 5))
        for watcher in (stream, late):
            events = [await watcher.event() for _ in range(5)]
            assert [seq for seq, _ in events] == [6, 7, 8, 9, 10]
            assert [data["status"] for _, data in events][-2:] == ["out_for_delivery", "delivered"]
            assert await watcher.ends()
        afterwards = await watch(shipping_gateway, stack, order_id, last=9)
        assert (await afterwards.event())[0] == 10
        assert await afterwards.ends()
    assert await status_of_stream(shipping_gateway, order_id, 10) == 204
    assert await status_of_stream(shipping_gateway, order_id, 2**31 - 1) == 204


async def test_shipment_stream_of_refunded_order_ends(shipping_gateway: ShippingGateway) -> None:
    """The stream of a refunded order ends although its units are in no shipment."""
    ship = shipping_gateway.ship
    order_id, [shipment] = await ship.add_booked_order(("a", 1, 0))
    async with AsyncExitStack() as stack:
        stream = await watch(shipping_gateway, stack, order_id)
        assert (await stream.event())[1]["status"] == "booked"
        await ship.refund_all(order_id)
        assert (await shipping_gateway.post_action(shipment.shipment_id, "cancel", reason="not wanted")).status == 200
        await ship.work_until_idle()
        assert [(await stream.event())[1]["status"] for _ in range(2)] == [None, "cancelled"]
        assert await stream.ends()
    unsent = await ship.add_order(("a", 1, 0))
    await ship.refund_all(unsent)
    assert await status_of_stream(shipping_gateway, unsent, 0) == 204


async def test_shipment_event_during_poll_is_sent_at_once(
    shipping_gateway: ShippingGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event between a stream's query and its wait is sent at once, not a heartbeat later."""
    services = shipping_gateway.gateway.services
    shipping, last_seqs = services.shipping, services.watcher._last_seqs
    order_id, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 1, 0))
    events_after, polls = shipping.events_after, 0

    async def counted_events_after(*arguments: Any) -> Any:
        nonlocal polls
        polls += 1
        result = await events_after(*arguments)
        if polls == 2:
            await shipping_gateway.ship.apply_events(shipment.shipment_id, tracking_event("in_transit"))
            await eventually(lambda: _is(last_seqs.get(("shipments", order_id)) == 3))
        return result

    monkeypatch.setattr(shipping, "events_after", counted_events_after)
    async with AsyncExitStack() as stack:
        stream = await watch(shipping_gateway, stack, order_id)
        assert (await stream.event())[0] == 1
        assert (await stream.event())[0] == 2
        assert (await stream.event())[1]["status"] == "in_transit"
    assert polls > 2


async def _is(value: bool) -> bool:
    return value


async def test_shipment_stream_longer_than_one_read_is_complete(shipping_gateway: ShippingGateway) -> None:
    """A long history is sent in several reads, without a wait between them, up to its end."""
    order_id, [shipment] = await shipping_gateway.ship.add_booked_order(("a", 1, 0))
    await shipping_gateway.ship.apply_events(shipment.shipment_id, tracking_event("out_for_delivery"))
    more = store.MAX_EVENTS * 2
    await shipping_gateway.ship.fetch_rows(
        "INSERT INTO shipment_events (order_id, seq, shipment_id, at, received_at, source, actor, text) "
        "SELECT $1, 4 + n, $2, now(), now(), 'webhook', 'test', 'event ' || n FROM generate_series(1, $3) AS n",
        *(order_id, shipment.shipment_id, more),
    )
    await shipping_gateway.ship.fetch_rows(
        "UPDATE fulfilments SET event_seq = event_seq + $2 WHERE order_id = $1", order_id, more
    )
    await shipping_gateway.ship.apply_events(shipment.shipment_id, tracking_event("delivered", 1))
    async with AsyncExitStack() as stack, asyncio.timeout(20):
        stream = await watch(shipping_gateway, stack, order_id)
        assert [(await stream.event())[0] for _ in range(more + 5)] == list(range(1, more + 6))
        assert await stream.ends()


async def test_shipment_stream_ends_after_time_limit_and_is_counted(
    shop: CliServices, make_settings: Callable[..., Settings]
) -> None:
    """Streams end after `event_stream_max_s`, and a gateway refuses more than `concurrent_event_streams`."""
    limits = {"concurrent_event_streams": 1, "event_stream_max_s": 0.2}
    async with open_shipping_gateway(shop, make_settings, limits=limits) as shipping_gateway, AsyncExitStack() as stack:
        order_id = await shipping_gateway.ship.add_order()
        stream = await watch(shipping_gateway, stack, order_id)
        full = await shipping_gateway.gateway.call("GET", f"/v1/orders/{order_id}/shipments/events")
        assert (full.status, full.code) == (503, "overloaded")
        async with asyncio.timeout(20):
            assert await stream.ends()
        assert await (await watch(shipping_gateway, stack, order_id)).ends()
