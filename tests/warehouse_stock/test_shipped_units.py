"""Stock chooses the warehouse that ships; shipments hold its units, and take them along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from commerce.cancellations.model import CancelRequest
from commerce.jobs.model import JobKey
from commerce.orders.model import FULFILMENTS
from commerce.shipping.errors import InvalidShipmentState
from commerce.shipping.model import Shipment
from tests.support.sales import ADDRESS, make_sale
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event
from tests.support.stock_shop import StockShop, open_stock_shop

_HELD = "SELECT warehouse_id, units, planned FROM allotments WHERE sku = $1 AND units > 0 ORDER BY warehouse_id"
_MISHELD = """
SELECT sale_id, sku, warehouse_id, planned, held FROM allotments LEFT JOIN LATERAL (
    SELECT coalesce(sum(quantity), 0) AS held FROM shipments JOIN shipment_lines USING (shipment_id) JOIN orders
        ON orders.order_id = shipments.order_id
    WHERE orders.sale_id = allotments.sale_id AND shipment_lines.sku = allotments.sku
      AND shipments.warehouse_id = allotments.warehouse_id AND handed_over_at IS NULL
      AND ended_at IS NULL) AS lines ON true
WHERE planned <> held
"""


@dataclass
class StockedShop:
    """Shipping of a sale whose `a` is allotted: 6 units in hz, 4 in sh. No warehouse keeps `b`."""

    ship: ShippingShop
    stock: StockShop

    async def plan(self, *lines: tuple[str, int, int], **options: object) -> tuple[UUID, list[Shipment]]:
        order_id = await self.ship.add_order(*lines, **options)  # type: ignore[arg-type]
        assert await self.ship.work_on(await self.ship.claim_one(order_id)) == "planned"
        return order_id, await self.ship.list_shipments(order_id)

    async def held(self, sku: str = "a") -> dict[str, tuple[int, int]]:
        """Return the units of the sale by warehouse, and those of them that shipments hold."""
        rows = await self.stock.fetch_rows(_HELD, sku)
        return {row["warehouse_id"]: (row["units"], row["planned"]) for row in rows}

    async def kinds(self, warehouse_id: str) -> list[tuple[str, int, int]]:
        """Return kind and changes of the movements since the allotment, oldest first."""
        query = (
            "SELECT kind, on_hand_delta, allotted_delta FROM stock_movements WHERE warehouse_id = $1 "
            "ORDER BY movement_no OFFSET 2"
        )
        return [tuple(row) for row in await self.stock.fetch_rows(query, warehouse_id)]

    async def bring_back(self, shipment: Shipment) -> None:
        """Have a carrier take a booked shipment and bring it back."""
        await self.ship.apply_events(shipment.shipment_id, tracking_event("picked_up", 1))
        await self.ship.apply_events(shipment.shipment_id, tracking_event("returned_to_sender", 2))


@pytest.fixture
async def stocked(ship: ShippingShop) -> AsyncIterator[StockedShop]:
    async with open_stock_shop(ship.shop, adds_warehouses=False) as stock:
        await stock.receive("a", "hz", 6)
        await stock.receive("a", "sh", 4)
        await make_sale(ship.shop, "sale", {"a": (10, 100, None), "b": (10, 100, None)}, opened=False)
        yield StockedShop(ship, stock)
        assert await stock.fetch_rows(_MISHELD) == []


async def test_nearest_warehouse_that_holds_the_units_ships(stocked: StockedShop) -> None:
    _, [near] = await stocked.plan(("a", 2, 0), ship_to=[SHANGHAI])
    _, [far] = await stocked.plan(("a", 3, 0), ship_to=[SHANGHAI])
    assert (near.warehouse_id, far.warehouse_id) == ("sh", "hz")
    assert await stocked.held() == {"hz": (6, 3), "sh": (4, 2)}


async def test_fewest_warehouses_ship_though_another_is_nearer(stocked: StockedShop) -> None:
    _, [shipment] = await stocked.plan(("a", 1, 0), ("b", 1, 0), ship_to=[SHANGHAI])
    assert shipment.warehouse_id == "hz"


async def test_line_is_divided_when_no_warehouse_holds_it_whole(stocked: StockedShop) -> None:
    _, shipments = await stocked.plan(("a", 7, 0), ("a", 2, 1), ship_to=[ADDRESS, SHANGHAI])
    assert [(each.address_no, each.warehouse_id, each.value_minor) for each in shipments] == [
        (0, "hz", 600),
        (0, "sh", 100),
        (1, "sh", 200),
    ]
    assert await stocked.held() == {"hz": (6, 6), "sh": (4, 3)}


async def test_order_that_no_warehouse_can_ship_waits_for_units(stocked: StockedShop) -> None:
    await stocked.plan(("a", 9, 0))
    order_id = await stocked.ship.add_order(("a", 2, 0))
    assert await stocked.ship.work_on(await stocked.ship.claim_one(order_id)) == "cannot_ship"
    [row] = await stocked.stock.fetch_rows("SELECT last_error FROM jobs WHERE subject = $1", order_id)
    assert row["last_error"] == "warehouses have 1 of 2 units of a for sale; receive or count some"
    await stocked.stock.receive("a", "sh", 5)
    await stocked.ship.shop.jobs.retry_one(JobKey(FULFILMENTS, order_id), "dan")
    assert await stocked.ship.work_on(await stocked.ship.claim_one(order_id)) == "planned"
    [shipment] = await stocked.ship.list_shipments(order_id)
    assert shipment.warehouse_id == "sh"
    assert await stocked.stock.level("a", "sh") == (9, 5)


async def test_racing_plans_take_each_unit_once(stocked: StockedShop) -> None:
    for _ in range(6):
        await stocked.ship.add_order(("a", 2, 0))
    jobs = await stocked.ship.claim()
    results = await asyncio.gather(*(stocked.ship.work_on(job) for job in jobs))
    assert sorted(results) == ["cannot_ship", *["planned"] * 5]
    assert await stocked.held() == {"hz": (6, 6), "sh": (4, 4)}


async def test_shipped_units_leave_the_warehouse_and_cancelled_ones_stay(stocked: StockedShop) -> None:
    ship = stocked.ship
    _, [shipped] = await ship.add_booked_order(("a", 2, 0))
    other_id, _ = await ship.add_booked_order(("a", 3, 0))
    assert await stocked.held() == {"hz": (6, 5), "sh": (4, 0)}
    await ship.apply_events(shipped.shipment_id, tracking_event("picked_up", 1))
    await ship.apply_events(shipped.shipment_id, tracking_event("delivered", 2))
    assert await stocked.stock.level("a", "hz") == (4, 4)
    assert await stocked.kinds("hz") == [("shipped", -2, -2)]
    await ship.cancellations.cancel(CancelRequest(other_id, "staff dan", None, "not wanted"), [], 0)
    await ship.work_until_idle()
    assert await stocked.held() == {"hz": (4, 0), "sh": (4, 0)}


async def test_divided_and_merged_shipments_hold_their_units(stocked: StockedShop) -> None:
    repack = stocked.ship.fulfilment.repacking
    _, [shipment] = await stocked.plan(("a", 5, 0))
    halves = await repack.split(shipment.shipment_id, {0: 2}, "dan")
    assert await stocked.held() == {"hz": (6, 5), "sh": (4, 0)}
    await repack.merge(halves, "dan")
    assert await stocked.held() == {"hz": (6, 5), "sh": (4, 0)}


async def test_lost_units_are_sent_again_from_free_units(stocked: StockedShop) -> None:
    ship = stocked.ship
    _, [shipment] = await ship.add_booked_order(("a", 4, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", 1))
    await ship.apply_events(shipment.shipment_id, tracking_event("lost", 2))
    with pytest.raises(InvalidShipmentState, match="hz does not hold 2 more units of a"):
        await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    await stocked.stock.receive("a", "hz", 2)
    await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    assert await stocked.held() == {"hz": (4, 4), "sh": (4, 0)}
    [item] = (await stocked.stock.stock.list_allotments("sale", None, 5)).items
    assert (item.needed, item.allotted) == (12, 12)


async def test_units_that_a_carrier_brings_back_are_stock_again_once_it_is_decided(stocked: StockedShop) -> None:
    ship = stocked.ship
    _, [resent] = await ship.add_booked_order(("a", 2, 0))
    _, [cancelled] = await ship.add_booked_order(("a", 3, 0))
    for shipment in (resent, cancelled):
        await stocked.bring_back(shipment)
    assert await stocked.stock.level("a", "hz") == (1, 1)
    await ship.fulfilment.repacking.reship(resent.shipment_id, "they were out", "dan")
    assert await stocked.held() == {"hz": (3, 2), "sh": (4, 0)}
    await ship.cancellations.refund_shipment(cancelled.shipment_id, "not wanted", "staff dan")
    await ship.work_until_idle()
    assert await stocked.held() == {"hz": (6, 2), "sh": (4, 0)}
    assert [kind for kind in await stocked.kinds("hz") if kind[0] == "returned"] == [
        ("returned", 2, 2),
        ("returned", 3, 3),
    ]
