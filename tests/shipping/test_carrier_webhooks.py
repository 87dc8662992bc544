"""Carriers' pushes: stored once, repeated at will, about several parcels, about numbers that stand for none."""

from __future__ import annotations

import asyncio
import random
from itertools import count

from commerce.kernel.address import Address
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from commerce.shipping.model import Shipment
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import ShippingShop, tracking_event

_numbers = count(1)


def shipment_update(parcel: Shipment, *told: TrackingEvent) -> ShipmentUpdate:
    assert parcel.carrier is not None
    assert parcel.tracking_no is not None
    return ShipmentUpdate(parcel.carrier, parcel.tracking_no, list(told))


async def send(ship: ShippingShop, *pushes: ShipmentUpdate, webhook_id: str | None = None) -> str:
    notice = CarrierWebhook(webhook_id or f"n-{next(_numbers)}", list(pushes))
    return (await ship.shipping.handle_webhook("cheap", notice, b"{}")).result


async def stored_webhooks(ship: ShippingShop) -> list[tuple[str, str]]:
    return [
        tuple(row)
        for row in await ship.fetch_rows("SELECT webhook_id, result FROM carrier_webhooks ORDER BY webhook_id")
    ]


async def test_each_once(ship: ShippingShop) -> None:
    _, [parcel] = await ship.add_booked_order()
    gone, there = (
        shipment_update(parcel, tracking_event("picked_up", -9)),
        shipment_update(parcel, tracking_event("picked_up", -9), tracking_event(None, -5, code="hm")),
    )
    assert await send(ship, gone, webhook_id="n-a") == "status_changed"
    assert await send(ship, gone, webhook_id="n-a") == "duplicate"
    assert await send(ship, gone, webhook_id="n-b") == "unchanged"
    assert await send(ship, there, webhook_id="n-c") == "recorded"
    assert await send(ship, webhook_id="n-d") == "unchanged"
    assert await stored_webhooks(ship) == [
        ("n-a", "status_changed"),
        ("n-b", "unchanged"),
        ("n-c", "recorded"),
        ("n-d", "unchanged"),
    ]
    assert len(await ship.list_event_texts(parcel.shipment_id)) == 3


async def test_some_are_not_known(ship: ShippingShop) -> None:
    """What is known moves on; the push is not kept and comes again once its other number is known."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0))
    foreign = ShipmentUpdate("cheap", "cheap-000000", [tracking_event("delivered", -1)])
    whole = [
        shipment_update(first, tracking_event("picked_up", -9)),
        foreign,
        shipment_update(second, tracking_event("picked_up", -8)),
    ]
    assert [await send(ship, *whole, webhook_id="n-a") for _ in range(2)] == ["unknown_tracking_no"] * 2
    assert await stored_webhooks(ship) == []
    assert [one.status for one in await ship.list_shipments(order_id)] == ["picked_up"] * 2
    assert await ship.order_status(order_id) == "shipped"
    other = ShipmentUpdate("quick", shipment_update(first).tracking_no, [tracking_event("delivered", -1)])
    assert await send(ship, other) == "unknown_tracking_no", "the number is another carrier's"
    await ship.fetch_rows(
        "UPDATE bookings SET tracking_no = 'cheap-000000' WHERE tracking_no = $1 RETURNING 1", first.tracking_no
    )
    await ship.fetch_rows(
        "UPDATE shipments SET tracking_no = 'cheap-000000' WHERE tracking_no = $1 RETURNING 1", first.tracking_no
    )
    assert await send(ship, *whole[1:], webhook_id="n-a") == "status_changed"
    assert await stored_webhooks(ship) == [("n-a", "status_changed")]


async def test_news_of_a_booking_that_was_cancelled(ship: ShippingShop) -> None:
    """It moves nothing, whatever became of the parcel since, and the desk should know of it."""
    _, [cancelled] = await ship.add_booked_order()
    _, [moved] = await ship.add_booked_order()
    await ship.fulfilment.cancel(cancelled.shipment_id, "not wanted", "dan")
    await ship.fulfilment.redirect(moved.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    assert sorted(await ship.work_until_idle()) == ["booked", "cancelled", "replanned"]
    again = await ship.get_shipment(moved.shipment_id)
    assert again.tracking_no != moved.tracking_no
    assert again.booking_id != moved.booking_id
    assert ship.carriers["cheap"].booking_requests[-1].recipient.line == "Elsewhere 1"
    for parcel in (cancelled, moved):
        assert (
            await send(ship, shipment_update(parcel, tracking_event(None, -8, text="the order was cancelled")))
            == "recorded"
        )
    assert await ship.list_worklist("anomalies") == set()
    for parcel in (cancelled, moved):
        assert await send(ship, shipment_update(parcel, tracking_event("picked_up", -7))) == "recorded"
    assert await ship.list_worklist("anomalies") == {cancelled.shipment_id, moved.shipment_id}
    after = await ship.get_shipment(moved.shipment_id)
    assert (after.status, after.last_event_at) == ("booked", None)
    assert await send(ship, shipment_update(again, tracking_event("picked_up", -6))) == "status_changed"


async def test_twenty_at_once(ship: ShippingShop) -> None:
    """All of one order, some of them the same: each thing is written down once, and nobody waits for ever."""
    order_id, parcels = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0), cod=200)
    told = [
        tracking_event("picked_up", -9),
        tracking_event("in_transit", -8),
        tracking_event("out_for_delivery", -7),
        tracking_event("delivered", -6),
    ]
    pushes = [shipment_update(parcel, one) for parcel in parcels for one in told]
    random.Random(7).shuffle(pushes)
    both = [*pushes, *pushes, *pushes[:4]]
    results = await asyncio.gather(*(send(ship, one, webhook_id=f"n-{number % 10}") for number, one in enumerate(both)))
    assert set(results) <= {"status_changed", "recorded", "unchanged", "duplicate"}
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT status FROM payments") == "captured"
    coded = "SELECT count(*), count(DISTINCT (shipment_id, code)) FROM shipment_events WHERE code IS NOT NULL"
    assert [tuple(row) for row in await ship.fetch_rows(coded)] == [(8, 8)]
    assert (await ship.shipping.latest_event_seqs([order_id]))[order_id] == await ship.fetch_value(
        "SELECT count(*) FROM shipment_events"
    )
