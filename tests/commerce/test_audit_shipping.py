"""The audit reports each violation of P7, and of P8 for shipments; it trusts no constraint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID

import pytest

from commerce.audit import store
from commerce.cancellations.model import CancelRequest, UnitsToCancel
from config.settings import Settings
from ops.services import CliServices
from tests.support.fake_carrier import refusal
from tests.support.shipping_shop import SHANGHAI, ShippingShop, open_shipping_shop, tracking_event

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


async def find_violations(
    ship: ShippingShop, orders: Sequence[UUID], checks: Iterable[str] = VIOLATIONS
) -> dict[str, list[str]]:
    async with store.open_order_snapshot(ship.shop.db) as connection:
        return {name: await store.list_violations(connection, name, orders) for name in checks}


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
        await connection.execute("ALTER TABLE fulfilment_lines DROP CONSTRAINT fulfilment_lines_cancelled_check")
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


async def test_order_without_job_is_found_until_its_last_step(ship: ShippingShop) -> None:
    async def list_violating() -> list[str]:
        return (await find_violations(ship, [order_id], ["orders_without_job"]))["orders_without_job"]

    order_id = await ship.add_order()
    assert await list_violating() == []
    await ship.fetch_rows("DELETE FROM jobs WHERE subject = $1 RETURNING 1", order_id)
    assert await list_violating() == [str(order_id)], "it would never be planned"
    await ship.fulfilment.replan(order_id)
    await ship.work_until_idle()
    assert await list_violating() == [], "planned; its shipments have the jobs"
    [shipment] = await ship.list_shipments(order_id)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -5))
    assert await list_violating() == []
    await ship.fetch_rows("DELETE FROM jobs WHERE subject = $1 RETURNING 1", order_id)
    assert await list_violating() == [str(order_id)], "it would never be completed"


async def test_refunded_order_needs_a_job_until_it_is_cancelled(ship: ShippingShop) -> None:
    order_id = await ship.add_order()
    await ship.refund_all(order_id)
    await ship.fetch_rows("DELETE FROM jobs WHERE queue = 'fulfilments' RETURNING 1")
    assert (await find_violations(ship, [order_id], ["orders_without_job"]))["orders_without_job"] == []
    assert await ship.work_until_idle() == ["cancelled"]
    assert (await find_violations(ship, [order_id], ["orders_without_job"]))["orders_without_job"] == []


async def test_order_that_waits_for_nothing_is_found(ship: ShippingShop) -> None:
    async def list_violating() -> list[str]:
        return (await find_violations(ship, orders, ["orders_without_end"]))["orders_without_end"]

    lost_order, [lost] = await ship.add_booked_order()
    await ship.apply_events(lost.shipment_id, tracking_event("lost", -1))
    await ship.work_until_idle()
    stopped_order, _ = await ship.add_booked_order(("a", 2, 0))
    request = CancelRequest(stopped_order, "staff dan", None, "sold out")
    assert (await ship.cancellations.cancel(request, [], 0)).status == "fulfilling"
    orders = [lost_order, stopped_order]
    assert await list_violating() == []
    await ship.fetch_rows("DELETE FROM jobs WHERE queue = 'cancellations' RETURNING 1")
    assert await list_violating() == [str(lost_order)], "nobody would decide about it"
    await ship.fetch_rows("UPDATE shipments SET after_cancel = NULL WHERE order_id = $1 RETURNING 1", stopped_order)
    assert await list_violating() == [str(lost_order), str(stopped_order)]


async def test_cancelled_units_without_cancellation_are_found(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 3, 0))
    request = CancelRequest(order_id, "staff dan", None, "sold out", [UnitsToCancel(0, 1)])
    await ship.cancellations.cancel(request, [], 0)
    name = "fulfilment_and_cancellations"
    assert (await find_violations(ship, [order_id], [name]))[name] == []
    for change in ("cancelled = 2", "cancelling = 1, cancelled = 1"):
        await ship.fetch_rows(f"UPDATE fulfilment_lines SET {change} RETURNING 1")
        assert (await find_violations(ship, [order_id], [name]))[name] == [f"{order_id} line 0 to 0"]


async def test_shipment_without_job_is_found_while_work_is_left(ship: ShippingShop) -> None:
    async def list_violating() -> set[UUID]:
        violations = await find_violations(ship, orders, ["shipments_without_job"])
        return {UUID(text) for text in violations["shipments_without_job"]}

    booked_order, [booked] = await ship.add_booked_order()
    delivered_order, [delivered] = await ship.add_booked_order()
    await ship.apply_events(delivered.shipment_id, tracking_event("delivered", -5))
    by_staff_order, [by_staff] = await ship.add_booked_order(ship_to=[SHANGHAI])
    parked_order = await ship.add_order()
    for carrier in ("cheap", "quick"):
        ship.carriers[carrier].next_outcomes = [refusal()]
    await ship.work_until_idle()
    [parked] = await ship.list_shipments(parked_order)
    cancelled_order, [cancelled] = await ship.add_booked_order()
    await ship.fulfilment.cancel(cancelled.shipment_id, "no longer wanted", "dan")
    orders = [booked_order, delivered_order, by_staff_order, parked_order, cancelled_order]
    assert await list_violating() == set()
    await ship.fetch_rows("DELETE FROM jobs WHERE queue = 'shipments' RETURNING 1")
    expected = {booked.shipment_id, parked.shipment_id, cancelled.shipment_id}
    assert await list_violating() == expected, "staff book the one without a job"
    await ship.fetch_rows(
        "UPDATE shipments SET carrier = 'sf_express' WHERE shipment_id = $1 RETURNING 1", by_staff.shipment_id
    )
    assert await list_violating() == expected | {by_staff.shipment_id}
