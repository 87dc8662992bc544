"""Cash on delivery: the payment is captured once the parts of all shipments are collected."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.payments.errors import NotCollectable
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event


async def list_payments(ship: ShippingShop, order_id: UUID) -> list[tuple[str, str, int]]:
    query = "SELECT method, status, amount_minor FROM payments WHERE order_id = $1 ORDER BY tender_no"
    return [tuple(row) for row in await ship.fetch_rows(query, order_id)]


async def test_cash_over_several_shipments_is_captured_once_complete(ship: ShippingShop) -> None:
    """501 of 700 are due on delivery, split by the values of the shipments to the last minor unit."""
    order_id, shipments = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), ("b", 4, 0), cod=501)
    assert [(shipment.value_minor, shipment.cod_minor) for shipment in shipments] == [
        (300, 214),
        (200, 143),
        (200, 144),
    ]
    amounts = [request.cod.amount for request in ship.carriers["cheap"].booking_requests if request.cod]
    assert sorted(amounts) == [143, 144, 214]
    for number, shipment in enumerate(shipments):
        before = await list_payments(ship, order_id)
        assert before == [("balance", "captured", 199), ("cod", "authorised", 501)], number
        end = tracking_event("delivered", number - 9)
        await ship.apply_events(shipment.shipment_id, end)
        await ship.apply_events(shipment.shipment_id, end)
    assert await list_payments(ship, order_id) == [("balance", "captured", 199), ("cod", "captured", 501)]
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash'") == 501
    order_shipments = await ship.shipping.get_order_shipments(order_id, "user")
    assert sum(view.cash_to_collect.amount for view in order_shipments.shipments if view.cash_to_collect) == 501


async def test_cash_of_lost_shipment_is_collected_with_its_replacement(ship: ShippingShop) -> None:
    """The part of a lost shipment is collected with its replacement."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await ship.apply_events(second.shipment_id, tracking_event("lost", -8))
    assert await list_payments(ship, order_id) == [("cod", "authorised", 300)]
    replacement = await ship.fulfilment.repacking.reship(second.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(replacement)).cod_minor == second.cod_minor == 200
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    assert await list_payments(ship, order_id) == [("cod", "captured", 300)]
    assert await ship.order_status(order_id) == "delivered"


async def test_cash_collected_by_staff_is_not_collected_on_delivery(ship: ShippingShop) -> None:
    """Staff record cash before planning, or once no shipment collects it any more: once, in any order."""
    early = await ship.add_order(cod=300)
    await collect(ship, early)
    assert await ship.work_until_idle() == ["planned", "booked"]
    order_id, [shipment] = await ship.add_booked_order(cod=300)
    assert [request.cod is not None for request in ship.carriers["cheap"].booking_requests] == [False, True]
    for end in ("picked_up", "lost"):
        with pytest.raises(NotCollectable, match="carriers collect the cash"):
            await collect(ship, order_id)
        await ship.apply_events(shipment.shipment_id, tracking_event(end, -5 if end == "picked_up" else -4))
    await collect(ship, order_id)
    assert await list_payments(ship, order_id) == [("cod", "captured", 300)]
    replacement = await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(replacement)).cod_minor == 0
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    await collect(ship, order_id)
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash'") == 600


async def test_staff_and_planning_at_once_collect_cash_once(ship: ShippingShop) -> None:
    """Each order's cash is collected by staff or by its shipment, never by both or neither."""
    order_ids = [await ship.add_order(cod=300) for _ in range(20)]

    async def collect_all() -> int:
        done = 0
        for order_id in order_ids:
            try:
                await collect(ship, order_id)
                done += 1
            except NotCollectable:
                pass
        return done

    done, _ = await asyncio.gather(collect_all(), ship.work_until_idle())
    for order_id in order_ids:
        [(_, status, amount)] = await list_payments(ship, order_id)
        [shipment] = await ship.list_shipments(order_id)
        assert (status, shipment.cod_minor) in (("captured", 0), ("authorised", amount))
    assert await ship.fetch_value("SELECT count(*) FROM payments WHERE status = 'captured'") == done


async def collect(ship: ShippingShop, order_id: UUID) -> None:
    """Record as staff that the cash of an order was collected."""
    payment_id = await ship.fetch_value(
        "SELECT payment_id FROM payments WHERE order_id = $1 AND method = 'cod'", order_id
    )
    await ship.shop.payments.record_cash_collected(payment_id)


async def test_cash_order_goes_to_carrier_that_collects_cash(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order(cod=100, ship_to=[SHANGHAI])
    assert shipment.carrier == "cheap"
    assert shipment.carrier_choice is not None
    reasons = {candidate["carrier"]: candidate["reason"] for candidate in shipment.carrier_choice["candidates"]}
    assert reasons["byhand"] == "no cash on delivery there"
    _, [paid] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert paid.carrier == "byhand"
