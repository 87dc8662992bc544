"""The database defends itself: what cannot be true of parcels cannot be written."""

from __future__ import annotations

import asyncpg
import pytest

from commerce.shipping.model import TRANSITIONS, ShipmentStatus
from tests.support.shipping_shop import ShippingShop

_EVENT = (
    "INSERT INTO shipment_events (order_id, seq, shipment_id, at, received_at, source, actor, from_status, to_status, "
    "text) SELECT order_id, 2, shipment_id, now(), now(), 'staff', 'eve', 'booked', 'picked_up', 'x' FROM shipments"
)
_BOOKING = (
    "INSERT INTO bookings (booking_id, shipment_id, carrier, requested_at) "
    "SELECT gen_random_uuid(), shipment_id, 'quick', now() FROM shipments"
)
FORBIDDEN = {
    "a status that is none": "UPDATE shipments SET status = 'gone'",
    "a step that is none": "UPDATE shipments SET status = 'delivered', handed_over_at = now(), ended_at = now()",
    "back": "UPDATE shipments SET status = 'picked_up', handed_over_at = now(); UPDATE shipments SET status = 'booked'",
    "a step without an event": "UPDATE shipments SET status = 'picked_up', handed_over_at = now()",
    "the event of another step": (
        f"{_EVENT}; UPDATE shipments SET status = 'cancelled', status_seq = 2, ended_at = now(), task = NULL"
    ),
    "a step that is not handed over": "UPDATE shipments SET status = 'picked_up'",
    "booked without a number": "UPDATE shipments SET tracking_no = NULL",
    "an end without a time": "UPDATE shipments SET status = 'cancelled'",
    "a time without an end": "UPDATE shipments SET ended_at = now()",
    "cancelling for nothing": "UPDATE shipments SET task = 'cancel'",
    "half a window": "UPDATE shipments SET deliver_from = '09:00'",
    "half a place": "UPDATE shipments SET latitude = 30",
    "two bookings that may stand": _BOOKING,
    "a number of two parcels": f"UPDATE bookings SET ended_at = now(), outcome = 'cancelled'; {_BOOKING}; "
    "UPDATE bookings SET tracking_no = (SELECT tracking_no FROM shipments), carrier = 'cheap'",
    "booked under no number": "UPDATE bookings SET tracking_no = NULL",
    "over and still standing": "UPDATE bookings SET ended_at = now()",
    "an event of a step that is none": _EVENT.replace("'picked_up'", "'delivered'"),
    "an event of half a step": _EVENT.replace("'booked', ", "NULL, "),
    "more planned than ordered": "UPDATE fulfilment_lines SET planned = 3",
    "more left than planned": "UPDATE fulfilment_lines SET shipped = 3",
    "more arrived than left": "UPDATE fulfilment_lines SET delivered = 1",
    "more given back than arrived": "UPDATE fulfilment_lines SET returned = 1",
    "fewer than none": "UPDATE fulfilment_lines SET planned = -1",
    "goods of no line": "UPDATE shipment_lines SET line_no = 7",
    "an empty line": "UPDATE shipment_lines SET quantity = 0",
    "planned at no time": "UPDATE fulfilments SET planned_at = NULL",
    "delivered at no time": "UPDATE fulfilments SET status = 'delivered'",
}


async def test_what_cannot_be_written(ship: ShippingShop) -> None:
    await ship.add_booked_order(("a", 2, 0))
    survived = []
    for name, sql in FORBIDDEN.items():
        try:
            async with ship.shop.db.transaction() as connection:
                await connection.execute(sql)
        except asyncpg.IntegrityConstraintViolationError:
            continue
        survived.append(name)
    assert survived == []
    # What news does, done with an event, is allowed.
    async with ship.shop.db.transaction() as connection:
        await connection.execute(_EVENT)
        await connection.execute("UPDATE shipments SET status = 'picked_up', status_seq = 2, handed_over_at = now()")
        await connection.execute("UPDATE fulfilment_lines SET shipped = 2")
        await connection.execute("UPDATE fulfilments SET event_seq = 2")


async def test_the_same_steps_here_and_there(ship: ShippingShop) -> None:
    rows = await ship.fetch_rows("SELECT from_status, to_status FROM shipment_transitions")
    assert {(ShipmentStatus(one), ShipmentStatus(other)) for one, other in rows} == TRANSITIONS
    definition = await ship.fetch_value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'shipments_status_check'"
    )
    assert {one for one in ShipmentStatus if f"'{one}'" in definition} == set(ShipmentStatus)
    # An order that was paid is to be sent, once, however it came to be.
    order_id = await ship.add_order()
    query = "SELECT count(*) FROM fulfilments WHERE order_id = $1"
    assert await ship.fetch_value(query, order_id) == 1
    with pytest.raises(asyncpg.UniqueViolationError):
        await ship.fetch_rows("INSERT INTO fulfilments (order_id, paid_at) VALUES ($1, now()) RETURNING 1", order_id)
