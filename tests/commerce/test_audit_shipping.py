"""The audit reports each violation of P7, and of P8 for shipments; it trusts no constraint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest

from commerce.audit import store
from config.settings import Settings
from ops.services import CliServices
from tests.support.shipping_shop import ShippingShop, open_shipping_shop, tracking_event

VIOLATIONS = {
    "fulfilment_counts_out_of_order": "UPDATE fulfilment_lines SET delivered = shipped + 1 WHERE order_id = $1",
    "fulfilment_and_shipments": "UPDATE fulfilment_lines SET shipped = 0 WHERE order_id = $1",
    "shipped_without_counts": "UPDATE fulfilment_lines SET delivered = 0 WHERE order_id = $1",
    "booked_twice": "INSERT INTO bookings (booking_id, shipment_id, carrier, requested_at) "
    "SELECT gen_random_uuid(), shipment_id, 'quick', now() FROM shipments WHERE order_id = $1",
    "shipped_without_booking": "UPDATE bookings SET tracking_no = 'another' WHERE shipment_id IN "
    "(SELECT shipment_id FROM shipments WHERE order_id = $1)",
    "paid_without_fulfilment": "DELETE FROM fulfilments WHERE order_id = $1",
    "broken_shipment_histories": "UPDATE shipments SET status = 'in_transit', ended_at = NULL WHERE order_id = $1",
}


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings) as opened:
        yield opened


async def find_violations(ship: ShippingShop, orders: Sequence[UUID]) -> dict[str, list[str]]:
    async with store.open_order_snapshot(ship.shop.db) as connection:
        return {name: await store.list_violations(connection, name, orders) for name in VIOLATIONS}


async def test_audit_with_shipment_violations_reports_each(ship: ShippingShop) -> None:
    orders: dict[str, UUID] = {}
    for name in VIOLATIONS:
        order_id, [shipment] = await ship.add_booked_order(("a", 2, 0))
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -5))
        orders[name] = order_id
    unbroken, _ = await ship.add_booked_order(("a", 1, 0))
    ids = [*orders.values(), unbroken]
    assert not any((await find_violations(ship, ids)).values())
    async with ship.shop.db.connection() as connection:
        await connection.execute("ALTER TABLE fulfilment_lines DROP CONSTRAINT fulfilment_lines_in_order")
        await connection.execute("DROP INDEX bookings_one_current")
        await connection.execute("SET session_replication_role = replica")  # no triggers, no foreign keys
        for name, statement in VIOLATIONS.items():
            await connection.execute(statement, orders[name])
        await connection.execute("RESET session_replication_role")
    violations = await find_violations(ship, ids)
    for name, order_id in orders.items():
        shipments = [str(shipment.shipment_id) for shipment in await ship.list_shipments(order_id)]
        expected = [text for text in violations[name] if str(order_id) in text or text in shipments]
        assert expected, (name, violations)
        others = [text for text in violations[name] if text not in expected]
        assert (
            name in ("fulfilment_counts_out_of_order", "fulfilment_and_shipments", "shipped_without_counts")
            or not others
        ), (name, others)
