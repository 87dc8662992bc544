"""Constraints: the database refuses rows of shipments that contradict each other."""

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
    "unknown status": "UPDATE shipments SET status = 'gone'",
    "step that is not allowed": "UPDATE shipments SET status = 'delivered', handed_over_at = now(), ended_at = now()",
    "step back": (
        "UPDATE shipments SET status = 'picked_up', handed_over_at = now(); UPDATE shipments SET status = 'booked'"
    ),
    "step without event": "UPDATE shipments SET status = 'picked_up', handed_over_at = now()",
    "event of another step": (f"{_EVENT}; UPDATE shipments SET status = 'cancelled', status_seq = 2, ended_at = now()"),
    "pick-up without time": "UPDATE shipments SET status = 'picked_up'",
    "booked without number": "UPDATE shipments SET tracking_no = NULL",
    "final status without time": "UPDATE shipments SET status = 'cancelled'",
    "end time without final status": "UPDATE shipments SET ended_at = now()",
    "unknown status after cancelling": "UPDATE shipments SET after_cancel = 'delivered'",
    "second job of a shipment": (
        "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at) "
        "SELECT subject, queue, 'shipment.cancel', system, due_at, created_at FROM jobs"
    ),
    "half a time window": "UPDATE shipments SET deliver_from = '09:00'",
    "half of coordinates": "UPDATE shipments SET latitude = 30",
    "two current bookings": _BOOKING,
    "number of two shipments": f"UPDATE bookings SET ended_at = now(), outcome = 'cancelled'; {_BOOKING}; "
    "UPDATE bookings SET tracking_no = (SELECT tracking_no FROM shipments), carrier = 'cheap'",
    "booked booking without number": "UPDATE bookings SET tracking_no = NULL",
    "ended booking that is current": "UPDATE bookings SET ended_at = now()",
    "event of a step that is not allowed": _EVENT.replace("'picked_up'", "'delivered'"),
    "event of half a step": _EVENT.replace("'booked', ", "NULL, "),
    "more planned than ordered": "UPDATE fulfilment_lines SET planned = 3",
    "more shipped than planned": "UPDATE fulfilment_lines SET shipped = 3",
    "more delivered than shipped": "UPDATE fulfilment_lines SET delivered = 1",
    "more returned than delivered": "UPDATE fulfilment_lines SET returned = 1",
    "negative count": "UPDATE fulfilment_lines SET planned = -1",
    "units of no order line": "UPDATE shipment_lines SET line_no = 7",
    "empty line": "UPDATE shipment_lines SET quantity = 0",
    "planned without time": "UPDATE fulfilments SET planned_at = NULL",
    "delivered without time": "UPDATE fulfilments SET status = 'delivered'",
}


async def test_contradictory_rows_are_refused(ship: ShippingShop) -> None:
    order_id, _ = await ship.add_booked_order(("a", 2, 0))
    ship.unchecked_orders.add(order_id)  # its rows are changed by hand
    accepted = []
    for name, sql in FORBIDDEN.items():
        try:
            async with ship.shop.db.transaction() as connection:
                await connection.execute(sql)
        except asyncpg.IntegrityConstraintViolationError:
            continue
        accepted.append(name)
    assert accepted == []
    # The same step with its event is allowed.
    async with ship.shop.db.transaction() as connection:
        await connection.execute(_EVENT)
        await connection.execute("UPDATE shipments SET status = 'picked_up', status_seq = 2, handed_over_at = now()")
        await connection.execute("UPDATE fulfilment_lines SET shipped = 2")
        await connection.execute("UPDATE fulfilments SET event_seq = 2")


async def test_database_and_code_have_the_same_transitions(ship: ShippingShop) -> None:
    rows = await ship.fetch_rows("SELECT from_status, to_status FROM shipment_transitions")
    assert {(ShipmentStatus(from_status), ShipmentStatus(to_status)) for from_status, to_status in rows} == TRANSITIONS
    definition = await ship.fetch_value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'shipments_status_check'"
    )
    assert {status for status in ShipmentStatus if f"'{status}'" in definition} == set(ShipmentStatus)
    # A paid order has one fulfilment, whatever paid it.
    order_id = await ship.add_order()
    query = "SELECT count(*) FROM fulfilments WHERE order_id = $1"
    assert await ship.fetch_value(query, order_id) == 1
    with pytest.raises(asyncpg.UniqueViolationError):
        await ship.fetch_rows("INSERT INTO fulfilments (order_id, paid_at) VALUES ($1, now()) RETURNING 1", order_id)


async def test_fulfilment_of_paid_order_is_due_at_its_event(ship: ShippingShop) -> None:
    """By the clock of the process: a worker that looks at once finds it, whatever the server's clock says."""
    order_id = await ship.add_order(("a", 1, 0))
    async with ship.shop.db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT paid_at, due_at, jobs.kind, at FROM fulfilments JOIN order_events USING (order_id) "
            "JOIN jobs ON subject = order_id AND queue = 'fulfilments' WHERE order_id = $1",
            order_id,
        )
    assert row["paid_at"] == row["due_at"] == row["at"]
    assert row["kind"] == "order.plan"
