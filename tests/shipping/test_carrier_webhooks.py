"""Carriers' webhooks: repeated, about several shipments, with unknown numbers, and all at once."""

from __future__ import annotations

import asyncio
import random
from itertools import count

from commerce.kernel.address import Address
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from commerce.shipping.model import Shipment
from tests.support.refusing_rows import refuse_updates
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import ShippingShop, tracking_event

_numbers = count(1)


def shipment_update(shipment: Shipment, *events: TrackingEvent) -> ShipmentUpdate:
    assert shipment.carrier is not None
    assert shipment.tracking_no is not None
    return ShipmentUpdate(shipment.carrier, shipment.tracking_no, list(events))


async def send(ship: ShippingShop, *updates: ShipmentUpdate, webhook_id: str | None = None) -> str:
    webhook = CarrierWebhook(webhook_id or f"n-{next(_numbers)}", list(updates))
    return (await ship.shipping.handle_webhook("cheap", webhook, b"{}")).result


async def stored_webhooks(ship: ShippingShop) -> list[tuple[str, str]]:
    return [
        tuple(row)
        for row in await ship.fetch_rows("SELECT webhook_id, result FROM carrier_webhooks ORDER BY webhook_id")
    ]


async def test_webhook_is_stored_and_applied_once(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order()
    picked_up, weighed = (
        shipment_update(shipment, tracking_event("picked_up", -9)),
        shipment_update(shipment, tracking_event("picked_up", -9), tracking_event(None, -5, code="weighed")),
    )
    assert await send(ship, picked_up, webhook_id="n-a") == "status_changed"
    assert await send(ship, picked_up, webhook_id="n-a") == "duplicate"
    assert await send(ship, picked_up, webhook_id="n-b") == "unchanged"
    assert await send(ship, weighed, webhook_id="n-c") == "recorded"
    assert await send(ship, webhook_id="n-d") == "unchanged"
    assert await stored_webhooks(ship) == [
        ("n-a", "status_changed"),
        ("n-b", "unchanged"),
        ("n-c", "recorded"),
        ("n-d", "unchanged"),
    ]
    assert len(await ship.list_event_texts(shipment.shipment_id)) == 3


async def test_webhook_with_number_in_other_form_is_applied(ship: ShippingShop) -> None:
    """Numbers are compared in one form, those of older rows too."""
    for stored, sent in (("sf12345", "SF12345"), ("SF54321", "sf54321"), ("SF 99999", "SF 99999")):
        _, [shipment] = await ship.add_booked_order()
        for table in ("bookings", "shipments"):
            query = f"UPDATE {table} SET tracking_no = $2 WHERE shipment_id = $1 RETURNING 1"
            assert await ship.fetch_rows(query, shipment.shipment_id, stored)
        update = ShipmentUpdate("cheap", sent, [tracking_event("picked_up", -9)])
        assert await send(ship, update) == "status_changed"
        assert (await ship.get_shipment(shipment.shipment_id)).status == "picked_up"


async def test_webhook_with_unknown_number_is_applied_and_not_stored(ship: ShippingShop) -> None:
    """Shipments with known numbers advance. The webhook is not stored until its other number is known."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0))
    foreign = ShipmentUpdate("cheap", "cheap-000000", [tracking_event("delivered", -1)])
    updates = [
        shipment_update(first, tracking_event("picked_up", -9)),
        foreign,
        shipment_update(second, tracking_event("picked_up", -8)),
    ]
    assert [await send(ship, *updates, webhook_id="n-a") for _ in range(2)] == ["unknown_tracking_no"] * 2
    assert await stored_webhooks(ship) == []
    assert [shipment.status for shipment in await ship.list_shipments(order_id)] == ["picked_up"] * 2
    assert await ship.order_status(order_id) == "shipped"
    other = ShipmentUpdate("quick", shipment_update(first).tracking_no, [tracking_event("delivered", -1)])
    assert await send(ship, other) == "unknown_tracking_no", "the number is another carrier's"
    await ship.fetch_rows(
        "UPDATE bookings SET tracking_no = 'cheap-000000' WHERE tracking_no = $1 RETURNING 1", first.tracking_no
    )
    await ship.fetch_rows(
        "UPDATE shipments SET tracking_no = 'cheap-000000' WHERE tracking_no = $1 RETURNING 1", first.tracking_no
    )
    assert await send(ship, *updates[1:], webhook_id="n-a") == "status_changed"
    assert await stored_webhooks(ship) == [("n-a", "status_changed")]


async def test_events_of_cancelled_booking_are_anomalies(ship: ShippingShop) -> None:
    """Events of a cancelled booking change nothing. Those with a status are shown to staff."""
    _, [cancelled] = await ship.add_booked_order()
    _, [moved] = await ship.add_booked_order()
    await ship.fulfilment.cancel(cancelled.shipment_id, "not wanted", "dan")
    await ship.fulfilment.redirect(moved.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    assert sorted(await ship.work_until_idle()) == ["booked", "cancelled", "replanned"]
    rebooked = await ship.get_shipment(moved.shipment_id)
    assert rebooked.tracking_no != moved.tracking_no
    assert rebooked.booking_id != moved.booking_id
    assert ship.carriers["cheap"].booking_requests[-1].recipient.line == "Elsewhere 1"
    for shipment in (cancelled, moved):
        assert (
            await send(ship, shipment_update(shipment, tracking_event(None, -8, text="the order was cancelled")))
            == "recorded"
        )
    assert await ship.list_worklist("anomalies") == set()
    for shipment in (cancelled, moved):
        assert await send(ship, shipment_update(shipment, tracking_event("picked_up", -7))) == "recorded"
    assert await ship.list_worklist("anomalies") == {cancelled.shipment_id, moved.shipment_id}
    after = await ship.get_shipment(moved.shipment_id)
    assert (after.status, after.last_event_at) == ("booked", None)
    assert await send(ship, shipment_update(rebooked, tracking_event("picked_up", -6))) == "status_changed"


async def test_concurrent_webhooks_store_each_event_once(ship: ShippingShop) -> None:
    """Webhooks of one order, some of them equal: each event is stored once, without a deadlock."""
    order_id, shipments = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0), cod=200)
    events = [
        tracking_event("picked_up", -9),
        tracking_event("in_transit", -8),
        tracking_event("out_for_delivery", -7),
        tracking_event("delivered", -6),
    ]
    updates = [shipment_update(shipment, event) for shipment in shipments for event in events]
    random.Random(7).shuffle(updates)
    repeated = [*updates, *updates, *updates[:4]]
    results = await asyncio.gather(
        *(send(ship, update, webhook_id=f"n-{number % 10}") for number, update in enumerate(repeated))
    )
    assert set(results) <= {"status_changed", "recorded", "unchanged", "duplicate"}
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT status FROM payments") == "captured"
    query = "SELECT count(*), count(DISTINCT (shipment_id, code)) FROM shipment_events WHERE code IS NOT NULL"
    assert [tuple(row) for row in await ship.fetch_rows(query)] == [(8, 8)]
    assert (await ship.shipping.latest_event_seqs([order_id]))[order_id] == await ship.fetch_value(
        "SELECT count(*) FROM shipment_events"
    )


async def test_webhook_with_one_failing_shipment_advances_the_others_and_comes_again(ship: ShippingShop) -> None:
    _, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0))
    updates = [shipment_update(shipment, tracking_event("picked_up", -9)) for shipment in (first, second)]
    async with ship.shop.db.connection() as connection:
        await refuse_updates(connection, "shipments", f"OLD.shipment_id = '{first.shipment_id}'")
    assert await send(ship, *updates, webhook_id="n-a") == "not_stored"
    assert [(await ship.get_shipment(shipment.shipment_id)).status for shipment in (first, second)] == [
        "booked",
        "picked_up",
    ]
    async with ship.shop.db.connection() as connection:
        await connection.execute("DROP TRIGGER refuse_some ON shipments")
    assert await send(ship, *updates, webhook_id="n-a") == "status_changed"
    assert (await ship.get_shipment(first.shipment_id)).status == "picked_up"
