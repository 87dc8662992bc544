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
    order_id = await ship.order(*lines, **more)  # type: ignore[arg-type]
    assert await ship.one(await ship.claimed(order_id)) == "planned"
    return order_id, await ship.parcels(order_id)


async def holds(ship: ShippingShop, shipment_id: UUID) -> dict[int, int]:
    return {line.line_no: line.quantity for line in (await ship.desk.show(shipment_id)).lines}


async def test_split_and_put_together_again(ship: ShippingShop) -> None:
    repack = ship.desk.repacking
    order_id, [parcel] = await planned(ship, ("a", 5, 0), ("b", 1, 0), cod=601)
    before = await ship.parcel(parcel.shipment_id)
    first, second = await repack.split(parcel.shipment_id, {0: 2, 1: 1}, "dan")
    assert (first, await holds(ship, first), await holds(ship, second)) == (parcel.shipment_id, {0: 3}, {0: 2, 1: 1})
    halves = await ship.parcels(order_id)
    assert [(one.value_minor, one.cod_minor, one.carrier) for one in halves] == [
        (300, 300, "cheap"),
        (300, 301, "cheap"),
    ]
    assert sum(one.weight_g for one in halves) > before.weight_g
    for part, why in (
        ({0: 3}, "nothing would stay"),
        ({0: 4}, "does not hold 4 units of line 0"),
        ({7: 1}, "does not hold 1 units of line 7"),
        ({0: 0}, "does not hold 0 units"),
    ):
        with pytest.raises(Invalid, match=why):
            await repack.split(first, part, "dan")
    await ship.check()
    assert await repack.merge([first, second, second], "dan") == first
    whole = await ship.parcel(first)
    assert (await holds(ship, first), whole.cod_minor, whole.value_minor) == ({0: 5, 1: 1}, 601, 600)
    assert (whole.weight_g, whole.length_mm) == (before.weight_g, before.length_mm)
    assert (await ship.parcel(second)).status == "cancelled"
    with pytest.raises(InvalidShipmentState, match="its goods are in other parcels by now"):
        await repack.reship(second, "again", "dan")
    assert await ship.work() == ["booked"]
    assert ship.carriers["cheap"].parcels[0].cod == whole.cod
    for refused in (repack.split(first, {0: 1}, "dan"), repack.merge([first, second], "dan")):
        with pytest.raises(InvalidShipmentState, match="somebody may come for it"):
            await refused


async def test_what_cannot_be_put_together(ship: ShippingShop) -> None:
    repack = ship.desk.repacking
    lines = [("a", 1, 0), ("c", 1, 0), ("a", 1, 1), ("b", 2, 0), ("b", 2, 0)]
    order_id, parcels = await planned(ship, *lines, ship_to=[ADDRESS, SHANGHAI])
    found = {(one.warehouse_id, one.address_no, one.value_minor): one.shipment_id for one in parcels}
    near, other_house, far = found["hz", 0, 300], found["sh", 0, 100], found["hz", 1, 100]
    heavy = found["hz", 0, 200]
    _, [foreign] = await planned(ship)
    for with_, kind, why in (
        (other_house, InvalidShipmentState, "one warehouse or do not go to one address"),
        (far, InvalidShipmentState, "one warehouse or do not go to one address"),
        (heavy, InvalidShipmentState, "it takes 2 parcels"),
        (foreign.shipment_id, Invalid, "no parcel of the same order"),
        (UUID(int=7), Invalid, "no parcel of the same order"),
        (near, Invalid, "two parcels at least"),
    ):
        with pytest.raises(kind, match=why):
            await repack.merge([near, with_], "dan")
    with pytest.raises(NoSuchShipment):
        await repack.merge([UUID(int=7), near], "dan")
    # What is held is not let go by being put elsewhere.
    await ship.desk.hold(heavy, "wait", "dan")
    for refused in (repack.split(heavy, {3: 1}, "dan"), repack.merge([near, heavy], "dan")):
        with pytest.raises(InvalidShipmentState, match="is held: wait"):
            await refused
    assert len(await ship.parcels(order_id)) == 4


async def test_two_addresses_that_became_one(ship: ShippingShop) -> None:
    """One line, in part for each of two addresses, is counted by address: such parcels stay apart."""
    order_id = await ship.order(("a", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, {**ADDRESS, "line": "Elsewhere 1"}])
    await ship.rows("UPDATE order_lines SET line_no = 0 WHERE order_id = $1 RETURNING 1", order_id)
    assert await ship.one(await ship.claimed(order_id)) == "planned"
    first, second = (one.shipment_id for one in await ship.parcels(order_id))
    await ship.desk.redirect(second, Address(**ADDRESS), "moved in together", "dan")
    with pytest.raises(InvalidShipmentState, match="do not go to one address"):
        await ship.desk.repacking.merge([first, second], "dan")


async def test_a_parcel_too_many(ship: ShippingShop) -> None:
    _, [parcel] = await planned(ship, ("a", 3, 0))
    rules = ship.desk.repacking._rules.model_copy(update={"shipments_per_order": 2})  # type: ignore[attr-defined]
    ship.desk.repacking._rules = rules
    await ship.desk.repacking.split(parcel.shipment_id, {0: 1}, "dan")
    with pytest.raises(InvalidShipmentState, match="has 2 parcels, and may not have more"):
        await ship.desk.repacking.split(parcel.shipment_id, {0: 1}, "dan")


async def test_sent_once_more(ship: ShippingShop) -> None:
    repack = ship.desk.repacking
    order_id, [parcel] = await ship.sent(("a", 2, 0), cod=200)
    id_ = parcel.shipment_id
    with pytest.raises(InvalidShipmentState, match="it is booked: there is nothing to send once more"):
        await repack.reship(id_, "lost", "dan")
    await ship.hear(id_, tracking_event("returned_to_sender", -1))
    assert (await ship.shipping.show(order_id, "user")).unplanned_units == 2
    assert await ship.on("undelivered") == {id_}
    results = await asyncio.gather(*(repack.reship(id_, "came back", "dan") for _ in range(5)), return_exceptions=True)
    [again] = [one for one in results if isinstance(one, UUID)]
    assert [str(one) for one in results if isinstance(one, ProblemError)] == ["it was sent once more already"] * 4
    assert await ship.on("undelivered") == set()
    assert await ship.work() == ["booked"]
    second = await ship.parcel(again)
    assert (second.replaces, second.parcel_no, second.cod_minor) == (id_, 2, 200)
    assert await holds(ship, again) == {0: 2}
    assert (await ship.shipping.show(order_id, "user")).unplanned_units == 0
    # Called off, and sent after all: what is sent once more is the last of them.
    await ship.desk.cancel(again, "not wanted", "dan")
    await ship.work()
    with pytest.raises(InvalidShipmentState, match="once more already"):
        await repack.reship(id_, "after all", "dan")
    third = await repack.reship(again, "after all", "dan")
    await ship.work()
    await ship.hear(third, tracking_event("delivered", 1))
    assert await ship.status(order_id) == "delivered"
    assert await ship.value("SELECT status FROM payments WHERE method = 'cod'") == "captured"
    with pytest.raises(NoSuchShipment):
        await repack.reship(UUID(int=7), "lost", "dan")
