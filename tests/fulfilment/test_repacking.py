"""Parcels that are split, put together and sent once more: goods and cash stay what they were."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.kernel.address import Address
from commerce.kernel.errors import Invalid, ProblemError
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from commerce.shipping.model import Shipment
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event


async def planned(ship: ShippingShop, *lines: tuple[str, int, int], **more: object) -> tuple[UUID, list[Shipment]]:
    """An order whose parcels nobody was asked for yet."""
    order_id = await ship.add_order(*lines, **more)  # type: ignore[arg-type]
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    return order_id, await ship.list_shipments(order_id)


async def holds(ship: ShippingShop, shipment_id: UUID) -> dict[int, int]:
    return {line.line_no: line.quantity for line in (await ship.fulfilment.get(shipment_id)).lines}


async def test_split_and_put_together_again(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    order_id, [parcel] = await planned(ship, ("a", 5, 0), ("b", 1, 0), cod=601)
    before = await ship.get_shipment(parcel.shipment_id)
    first, second = await repack.split(parcel.shipment_id, {0: 2, 1: 1}, "dan")
    assert (first, await holds(ship, first), await holds(ship, second)) == (parcel.shipment_id, {0: 3}, {0: 2, 1: 1})
    halves = await ship.list_shipments(order_id)
    assert [(one.value_minor, one.cod_minor, one.carrier) for one in halves] == [
        (300, 300, "cheap"),
        (300, 301, "cheap"),
    ]
    assert sum(one.weight_g for one in halves) > before.weight_g
    for part, why in (
        ({0: 3}, "would be empty"),
        ({0: 4}, "does not hold 4 units of line 0"),
        ({7: 1}, "does not hold 1 units of line 7"),
        ({0: 0}, "does not hold 0 units"),
    ):
        with pytest.raises(Invalid, match=why):
            await repack.split(first, part, "dan")
    await ship.check_records()
    assert await repack.merge([first, second, second], "dan") == first
    whole = await ship.get_shipment(first)
    assert (await holds(ship, first), whole.cod_minor, whole.value_minor) == ({0: 5, 1: 1}, 601, 600)
    assert (whole.weight_g, whole.length_mm) == (before.weight_g, before.length_mm)
    assert (await ship.get_shipment(second)).status == "cancelled"
    with pytest.raises(InvalidShipmentState, match="its units are in other shipments by now"):
        await repack.reship(second, "again", "dan")
    assert await ship.work_until_idle() == ["booked"]
    assert ship.carriers["cheap"].booking_requests[0].cod == whole.cod
    for refused in (repack.split(first, {0: 1}, "dan"), repack.merge([first, second], "dan")):
        with pytest.raises(InvalidShipmentState, match="a carrier may collect it"):
            await refused


async def test_what_cannot_be_put_together(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    lines = [("a", 1, 0), ("c", 1, 0), ("a", 1, 1), ("b", 2, 0), ("b", 2, 0)]
    order_id, parcels = await planned(ship, *lines, ship_to=[ADDRESS, SHANGHAI])
    found = {(one.warehouse_id, one.address_no, one.value_minor): one.shipment_id for one in parcels}
    near, other_house, far = found["hz", 0, 300], found["sh", 0, 100], found["hz", 1, 100]
    heavy = found["hz", 0, 200]
    _, [foreign] = await planned(ship)
    for with_, kind, why in (
        (other_house, InvalidShipmentState, "do not have the same warehouse and address"),
        (far, InvalidShipmentState, "do not have the same warehouse and address"),
        (heavy, InvalidShipmentState, "it needs 2 boxes"),
        (foreign.shipment_id, Invalid, "no shipment of the same order"),
        (UUID(int=7), Invalid, "no shipment of the same order"),
        (near, Invalid, "name two at least"),
    ):
        with pytest.raises(kind, match=why):
            await repack.merge([near, with_], "dan")
    with pytest.raises(NoSuchShipment):
        await repack.merge([UUID(int=7), near], "dan")
    # What is held is not let go by being put elsewhere.
    await ship.fulfilment.hold(heavy, "wait", "dan")
    for refused in (repack.split(heavy, {3: 1}, "dan"), repack.merge([near, heavy], "dan")):
        with pytest.raises(InvalidShipmentState, match="is held: wait"):
            await refused
    assert len(await ship.list_shipments(order_id)) == 4


async def test_two_addresses_that_became_one(ship: ShippingShop) -> None:
    """One line, in part for each of two addresses, is counted by address: such parcels stay apart."""
    order_id = await ship.add_order(("a", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, {**ADDRESS, "line": "Elsewhere 1"}])
    await ship.fetch_rows("UPDATE order_lines SET line_no = 0 WHERE order_id = $1 RETURNING 1", order_id)
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    first, second = (one.shipment_id for one in await ship.list_shipments(order_id))
    await ship.fulfilment.redirect(second, Address(**ADDRESS), "moved in together", "dan")
    with pytest.raises(InvalidShipmentState, match="same warehouse and address"):
        await ship.fulfilment.repacking.merge([first, second], "dan")


async def test_a_parcel_too_many(ship: ShippingShop) -> None:
    _, [parcel] = await planned(ship, ("a", 3, 0))
    rules = ship.fulfilment.repacking._policy.model_copy(update={"shipments_per_order": 2})  # type: ignore[attr-defined]
    ship.fulfilment.repacking._policy = rules
    await ship.fulfilment.repacking.split(parcel.shipment_id, {0: 1}, "dan")
    with pytest.raises(InvalidShipmentState, match="has 2 shipments, and may not have more"):
        await ship.fulfilment.repacking.split(parcel.shipment_id, {0: 1}, "dan")


async def test_sent_once_more(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    order_id, [parcel] = await ship.add_booked_order(("a", 2, 0), cod=200)
    id_ = parcel.shipment_id
    with pytest.raises(InvalidShipmentState, match="it is booked: only a lost, returned or cancelled one is reshipped"):
        await repack.reship(id_, "lost", "dan")
    await ship.apply_events(id_, tracking_event("returned_to_sender", -1))
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 2
    assert await ship.list_worklist("undelivered") == {id_}
    results = await asyncio.gather(*(repack.reship(id_, "came back", "dan") for _ in range(5)), return_exceptions=True)
    [again] = [one for one in results if isinstance(one, UUID)]
    assert [str(one) for one in results if isinstance(one, ProblemError)] == ["it was reshipped already"] * 4
    assert await ship.list_worklist("undelivered") == set()
    assert await ship.work_until_idle() == ["booked"]
    second = await ship.get_shipment(again)
    assert (second.replaces, second.parcel_no, second.cod_minor) == (id_, 2, 200)
    assert await holds(ship, again) == {0: 2}
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 0
    # Called off, and sent after all: what is sent once more is the last of them.
    await ship.fulfilment.cancel(again, "not wanted", "dan")
    await ship.work_until_idle()
    with pytest.raises(InvalidShipmentState, match="reshipped already"):
        await repack.reship(id_, "after all", "dan")
    third = await repack.reship(again, "after all", "dan")
    await ship.work_until_idle()
    await ship.apply_events(third, tracking_event("delivered", 1))
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT status FROM payments WHERE method = 'cod'") == "captured"
    with pytest.raises(NoSuchShipment):
        await repack.reship(UUID(int=7), "lost", "dan")
