"""Cash on delivery: each parcel brings a part, and the payment is there once all of it is."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.payments.errors import NotCollectable
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event


async def taken(ship: ShippingShop, order_id: UUID) -> list[tuple[str, str, int]]:
    query = "SELECT method, status, amount_minor FROM payments WHERE order_id = $1 ORDER BY tender_no"
    return [tuple(row) for row in await ship.fetch_rows(query, order_id)]


async def test_over_several_parcels_and_a_part_paid_before(ship: ShippingShop) -> None:
    """700 in all, 501 of it at the door: by what each parcel is worth, to the last unit."""
    order_id, parcels = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), ("b", 4, 0), cod=501)
    assert [(one.value_minor, one.cod_minor) for one in parcels] == [(300, 214), (200, 143), (200, 144)]
    asked = [parcel.cod.amount for parcel in ship.carriers["cheap"].booking_requests if parcel.cod]
    assert sorted(asked) == [143, 144, 214]
    for number, parcel in enumerate(parcels):
        before = await taken(ship, order_id)
        assert before == [("balance", "captured", 199), ("cod", "authorised", 501)], number
        end = tracking_event("delivered", number - 9)
        await ship.apply_events(parcel.shipment_id, end)
        await ship.apply_events(parcel.shipment_id, end)
    assert await taken(ship, order_id) == [("balance", "captured", 199), ("cod", "captured", 501)]
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash'") == 501
    shown = await ship.shipping.get_order_shipments(order_id, "user")
    assert sum(one.cash_to_collect.amount for one in shown.shipments if one.cash_to_collect) == 501


async def test_one_parcel_is_lost(ship: ShippingShop) -> None:
    """Its part is collected with the parcel that is sent for it."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await ship.apply_events(second.shipment_id, tracking_event("lost", -8))
    assert await taken(ship, order_id) == [("cod", "authorised", 300)]
    again = await ship.fulfilment.repacking.reship(second.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(again)).cod_minor == second.cod_minor == 200
    await ship.work_until_idle()
    await ship.apply_events(again, tracking_event("delivered", -1))
    assert await taken(ship, order_id) == [("cod", "captured", 300)]
    assert await ship.order_status(order_id) == "delivered"


async def test_who_has_paid_is_not_asked_at_the_door(ship: ShippingShop) -> None:
    """Staff take the cash before there are parcels, or when no courier comes for it any more: once, in any order."""
    early = await ship.add_order(cod=300)
    await collect(ship, early)
    assert await ship.work_until_idle() == ["planned", "booked"]
    order_id, [parcel] = await ship.add_booked_order(cod=300)
    assert [one.cod is not None for one in ship.carriers["cheap"].booking_requests] == [False, True]
    for end in ("picked_up", "lost"):
        with pytest.raises(NotCollectable, match="couriers collect it"):
            await collect(ship, order_id)
        await ship.apply_events(parcel.shipment_id, tracking_event(end, -5 if end == "picked_up" else -4))
    await collect(ship, order_id)
    assert await taken(ship, order_id) == [("cod", "captured", 300)]
    again = await ship.fulfilment.repacking.reship(parcel.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(again)).cod_minor == 0
    await ship.work_until_idle()
    await ship.apply_events(again, tracking_event("delivered", -1))
    await collect(ship, order_id)
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash'") == 600


async def test_staff_and_the_driver_at_once(ship: ShippingShop) -> None:
    """Either the parcel collects, or staff have: never both, never neither."""
    made = [await ship.add_order(cod=300) for _ in range(20)]

    async def staff() -> int:
        done = 0
        for order_id in made:
            try:
                await collect(ship, order_id)
                done += 1
            except NotCollectable:
                pass
        return done

    done, _ = await asyncio.gather(staff(), ship.work_until_idle())
    for order_id in made:
        [(_, status, amount)] = await taken(ship, order_id)
        [parcel] = await ship.list_shipments(order_id)
        assert (status, parcel.cod_minor) in (("captured", 0), ("authorised", amount))
    assert await ship.fetch_value("SELECT count(*) FROM payments WHERE status = 'captured'") == done


async def collect(ship: ShippingShop, order_id: UUID) -> None:
    """Staff say that the cash of an order has come in."""
    payment_id = await ship.fetch_value(
        "SELECT payment_id FROM payments WHERE order_id = $1 AND method = 'cod'", order_id
    )
    await ship.shop.payments.record_cash_collected(payment_id)


async def test_only_who_collects_cash_brings_it(ship: ShippingShop) -> None:
    _, [parcel] = await ship.add_booked_order(cod=100, ship_to=[SHANGHAI])
    assert parcel.carrier == "cheap"
    assert parcel.carrier_choice is not None
    reasons = {one["carrier"]: one["reason"] for one in parcel.carrier_choice["candidates"]}
    assert reasons["byhand"] == "no cash on delivery there"
    _, [paid] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert paid.carrier == "byhand"
