"""A poll that brings nothing new writes only when to poll again."""

from __future__ import annotations

from typing import Any

from tests.support.shipping_shop import ShippingShop, tracking_event

_VERSIONS = """
SELECT 'shipments' AS name, array_agg(xmin::text ORDER BY shipment_id) AS versions FROM shipments
UNION ALL SELECT 'orders', array_agg(xmin::text ORDER BY order_id) FROM orders
UNION ALL SELECT 'fulfilments', array_agg(xmin::text ORDER BY order_id) FROM fulfilments
UNION ALL SELECT 'fulfilment_lines', array_agg(xmin::text ORDER BY order_id) FROM fulfilment_lines
UNION ALL SELECT 'bookings', array_agg(xmin::text ORDER BY booking_id) FROM bookings
UNION ALL SELECT 'shipment_events', array_agg(xmin::text ORDER BY order_id, seq) FROM shipment_events
"""


async def _read_versions(ship: ShippingShop) -> dict[str, Any]:
    """Return by table the transactions that wrote its rows last."""
    return {row["name"]: row["versions"] for row in await ship.fetch_rows(_VERSIONS)}


async def test_poll_without_new_events_writes_its_job_only(ship: ShippingShop) -> None:
    """Before the shipment has left, and on its way, where the webhook was faster than the poll."""
    _, [shipment] = await ship.add_booked_order()
    cheap, id_ = ship.carriers["cheap"], shipment.shipment_id
    assert shipment.tracking_no is not None
    for events in ([], [tracking_event("in_transit", -5)]):
        cheap.tracking[shipment.tracking_no] = events
        if events:
            await ship.apply_events(id_, *events)
        await ship.make_all_due()
        before, due_at = await _read_versions(ship), (await ship.get_job(id_)).due_at
        assert await ship.work_until_idle() == ["unchanged"]
        assert await _read_versions(ship) == before
        assert (await ship.get_job(id_)).due_at > due_at
