"""Splitting, merging and reshipping: units and cash on delivery are kept."""

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


async def add_planned_order(
    ship: ShippingShop, *lines: tuple[str, int, int], **options: object
) -> tuple[UUID, list[Shipment]]:
    """Add an order whose shipments are planned and not booked."""
    order_id = await ship.add_order(*lines, **options)  # type: ignore[arg-type]
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    return order_id, await ship.list_shipments(order_id)


async def units_by_line(ship: ShippingShop, shipment_id: UUID) -> dict[int, int]:
    return {line.line_no: line.quantity for line in (await ship.fulfilment.get(shipment_id)).lines}


async def test_split_then_merge_restores_shipment(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    order_id, [shipment] = await add_planned_order(ship, ("a", 5, 0), ("b", 1, 0), cod=601)
    before = await ship.get_shipment(shipment.shipment_id)
    first, second = await repack.split(shipment.shipment_id, {0: 2, 1: 1}, "dan")
    assert (first, await units_by_line(ship, first), await units_by_line(ship, second)) == (
        shipment.shipment_id,
        {0: 3},
        {0: 2, 1: 1},
    )
    halves = await ship.list_shipments(order_id)
    assert [(half.value_minor, half.cod_minor, half.carrier) for half in halves] == [
        (300, 300, "cheap"),
        (300, 301, "cheap"),
    ]
    assert sum(half.weight_g for half in halves) > before.weight_g
    for units_of, reason in (
        ({0: 3}, "would be empty"),
        ({0: 4}, "does not hold 4 units of line 0"),
        ({7: 1}, "does not hold 1 units of line 7"),
        ({0: 0}, "does not hold 0 units"),
    ):
        with pytest.raises(Invalid, match=reason):
            await repack.split(first, units_of, "dan")
    await ship.check_records()
    assert await repack.merge([first, second, second], "dan") == first
    whole = await ship.get_shipment(first)
    assert (await units_by_line(ship, first), whole.cod_minor, whole.value_minor) == ({0: 5, 1: 1}, 601, 600)
    assert (whole.weight_g, whole.length_mm) == (before.weight_g, before.length_mm)
    assert (await ship.get_shipment(second)).status == "cancelled"
    with pytest.raises(InvalidShipmentState, match="its units are in other shipments by now"):
        await repack.reship(second, "again", "dan")
    assert await ship.work_until_idle() == ["booked"]
    assert ship.carriers["cheap"].booking_requests[0].cod == whole.cod
    for call in (repack.split(first, {0: 1}, "dan"), repack.merge([first, second], "dan")):
        with pytest.raises(InvalidShipmentState, match="a carrier may collect it"):
            await call


async def test_merge_of_unlike_shipments_is_refused(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    lines = [("a", 1, 0), ("c", 1, 0), ("a", 1, 1), ("b", 2, 0), ("b", 2, 0)]
    order_id, shipments = await add_planned_order(ship, *lines, ship_to=[ADDRESS, SHANGHAI])
    id_of = {(each.warehouse_id, each.address_no, each.value_minor): each.shipment_id for each in shipments}
    near, other_warehouse, far = id_of["hz", 0, 300], id_of["sh", 0, 100], id_of["hz", 1, 100]
    heavy = id_of["hz", 0, 200]
    _, [foreign] = await add_planned_order(ship)
    for other_id, error_type, reason in (
        (other_warehouse, InvalidShipmentState, "do not have the same warehouse and address"),
        (far, InvalidShipmentState, "do not have the same warehouse and address"),
        (heavy, InvalidShipmentState, "it needs 2 boxes"),
        (foreign.shipment_id, Invalid, "not a shipment of the same order"),
        (UUID(int=7), Invalid, "not a shipment of the same order"),
        (near, Invalid, "name two at least"),
    ):
        with pytest.raises(error_type, match=reason):
            await repack.merge([near, other_id], "dan")
    with pytest.raises(NoSuchShipment):
        await repack.merge([UUID(int=7), near], "dan")
    # A held shipment stays held: its units cannot be moved to another.
    await ship.fulfilment.hold(heavy, "wait", "dan")
    for call in (repack.split(heavy, {3: 1}, "dan"), repack.merge([near, heavy], "dan")):
        with pytest.raises(InvalidShipmentState, match="is held: wait"):
            await call
    assert len(await ship.list_shipments(order_id)) == 4


async def test_merge_across_address_numbers_is_refused(ship: ShippingShop) -> None:
    """Units are counted per address number, so shipments cannot be merged across two equal addresses."""
    order_id = await ship.add_order(("a", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, {**ADDRESS, "line": "Elsewhere 1"}])
    await ship.fetch_rows("UPDATE order_lines SET line_no = 0 WHERE order_id = $1 RETURNING 1", order_id)
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    first, second = (shipment.shipment_id for shipment in await ship.list_shipments(order_id))
    await ship.fulfilment.redirect(second, Address(**ADDRESS), "moved in together", "dan")
    with pytest.raises(InvalidShipmentState, match="same warehouse and address"):
        await ship.fulfilment.repacking.merge([first, second], "dan")


async def test_split_beyond_shipments_per_order_is_refused(ship: ShippingShop) -> None:
    _, [shipment] = await add_planned_order(ship, ("a", 3, 0))
    rules = ship.fulfilment.repacking._policy.model_copy(update={"shipments_per_order": 2})  # type: ignore[attr-defined]
    ship.fulfilment.repacking._policy = rules
    await ship.fulfilment.repacking.split(shipment.shipment_id, {0: 1}, "dan")
    with pytest.raises(InvalidShipmentState, match="has 2 shipments, and may not have more"):
        await ship.fulfilment.repacking.split(shipment.shipment_id, {0: 1}, "dan")


async def test_reship_returned_shipment_succeeds_once(ship: ShippingShop) -> None:
    repack = ship.fulfilment.repacking
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0), cod=200)
    first_id = shipment.shipment_id
    with pytest.raises(InvalidShipmentState, match="it is booked: only a lost, returned or cancelled one is reshipped"):
        await repack.reship(first_id, "lost", "dan")
    await ship.apply_events(first_id, tracking_event("returned_to_sender", -1))
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 2
    assert await ship.list_worklist("undelivered") == {first_id}
    results = await asyncio.gather(
        *(repack.reship(first_id, "came back", "dan") for _ in range(5)), return_exceptions=True
    )
    [again] = [result for result in results if isinstance(result, UUID)]
    assert [str(result) for result in results if isinstance(result, ProblemError)] == ["it was reshipped already"] * 4
    assert await ship.list_worklist("undelivered") == set()
    assert await ship.work_until_idle() == ["booked"]
    second = await ship.get_shipment(again)
    assert (second.replaces, second.parcel_no, second.cod_minor) == (first_id, 2, 200)
    assert await units_by_line(ship, again) == {0: 2}
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 0
    # After a cancellation only the last shipment of the chain can be reshipped.
    await ship.fulfilment.cancel(again, "not wanted", "dan")
    await ship.work_until_idle()
    with pytest.raises(InvalidShipmentState, match="reshipped already"):
        await repack.reship(first_id, "after all", "dan")
    third = await repack.reship(again, "after all", "dan")
    await ship.work_until_idle()
    await ship.apply_events(third, tracking_event("delivered", 1))
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT status FROM payments WHERE method = 'cod'") == "captured"
    with pytest.raises(NoSuchShipment):
        await repack.reship(UUID(int=7), "lost", "dan")
