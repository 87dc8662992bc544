"""Routes as drivers carry them out: read, depart, report, each repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from commerce.fleet.errors import NoSuchRoute, NoSuchStop, StopAlreadyReported
from commerce.fleet.model import DriverRoute, StopReport
from commerce.fleet.route_execution import RouteExecution
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.errors import NoSuchShipment
from ops.services import CliServices
from tests.fleet.fleet_kit import DAY, FleetKit, make_fleet_kit


@pytest.fixture
async def kit(shop: CliServices) -> FleetKit:
    return await make_fleet_kit(shop)


async def test_driver_route_shows_only_needed_customer_data(kit: FleetKit) -> None:
    shipment_id = await kit.add_delivery(cod_minor=1_250)
    route_id = await kit.add_route(shipment_id)
    route = await kit.execution.driver_route(route_id)
    (stop,) = route.stops
    assert (route.vehicle_id, route.day, route.status) == ("V1", DAY, "planned")
    assert (stop.address.name, stop.address.phone, stop.address.line) == (
        "Zhang San",
        "13800000000",
        "Wenyi West Road 969",
    )
    assert stop.cash_to_collect == Money(1_250, "CNY")
    assert stop.window_from == stop.arrive_at
    shown = msgspec.json.encode(route).decode()
    assert str(shipment_id) not in shown
    assert "user" not in shown


async def test_depart_twice_sends_shipments_out_once(kit: FleetKit) -> None:
    shipment_ids = [await kit.add_delivery() for _ in range(3)]
    route_id = await kit.add_route(*reversed(shipment_ids))
    both = await asyncio.gather(kit.execution.depart(route_id), kit.execution.depart(route_id))
    assert [route.status for route in both] == ["departed", "departed"]
    for shipment_id in shipment_ids:
        assert kit.tracking.codes(shipment_id) == ["loaded", "departed"]
    assert {actor for *_, actor in kit.tracking.applied} == {"vehicle V1"}
    assert [shipment_id for shipment_id, *_ in kit.tracking.applied[::2]] == sorted(
        shipment_ids
    )  # by order, in which all transactions take locks


async def test_depart_drops_held_cancelled_and_rebooked_shipments(kit: FleetKit) -> None:
    fine, held, ended, rebooked = [await kit.add_delivery() for _ in range(4)]
    route_id = await kit.add_route(fine, held, ended, rebooked)
    await kit.execute("UPDATE shipments SET held_reason = 'asked' WHERE shipment_id = $1", held)
    await kit.execute("UPDATE shipments SET status = 'cancelled', ended_at = now() WHERE shipment_id = $1", ended)
    after_planning = kit.clock.at + timedelta(minutes=1)
    await kit.execute("UPDATE shipments SET booked_at = $2 WHERE shipment_id = $1", rebooked, after_planning)
    route = await kit.execution.depart(route_id)
    assert [stop.seq for stop in route.stops] == [1]
    assert {shipment_id for shipment_id, *_ in kit.tracking.applied} == {fine}
    with pytest.raises(NoSuchStop):
        await kit.execution.report(route_id, 2, StopReport("delivered"))
    empty_route = await kit.add_route(held, vehicle_id="V2")
    assert (await kit.execution.depart(empty_route)).status == "done"


async def test_report_before_departure_counts_once_and_departs(kit: FleetKit) -> None:
    first, second = await kit.add_delivery(), await kit.add_delivery()
    route_id = await kit.add_route(first, second)

    async def report() -> DriverRoute:
        return await kit.execution.report(route_id, 1, StopReport("delivered", "to the neighbour"))

    routes = await asyncio.gather(report(), report(), report())
    assert {route.status for route in routes} == {"departed"}
    assert routes[0].stops[0].note == "to the neighbour"
    assert kit.tracking.codes(first) == ["loaded", "departed", "delivered"]
    assert kit.tracking.codes(second) == ["loaded", "departed"]
    with pytest.raises(StopAlreadyReported, match="call the warehouse"):
        await kit.execution.report(route_id, 1, StopReport("failed"))
    assert (await kit.execution.report(route_id, 2, StopReport("failed"))).status == "done"
    assert await kit.fetch_value("SELECT status FROM shipments WHERE shipment_id = $1", second) == "out_for_delivery"
    assert (await kit.execution.report(route_id, 2, StopReport("delivered"))).stops[1].status == "delivered"
    assert kit.tracking.codes(second) == ["loaded", "departed", "failed", "delivered"]


async def test_second_attempt_sends_no_second_pick_up_event(kit: FleetKit) -> None:
    shipment_id = await kit.add_delivery()
    route_id = await kit.add_route(shipment_id)
    await kit.execution.report(route_id, 1, StopReport("failed", "nobody there"))
    (again,) = (await kit.fleet.plan(DAY + timedelta(days=1), seconds=0.1)).routes
    await kit.execution.depart(again.route_id)
    assert kit.tracking.codes(shipment_id) == ["loaded", "departed", "failed", "departed"]


async def test_refused_driver_calls_change_nothing(kit: FleetKit) -> None:
    route_id = await kit.add_route(await kit.add_delivery())
    for unknown_id in (uuid4(), UUID(int=0)):
        for call in (kit.execution.driver_route, kit.execution.depart):
            with pytest.raises(NoSuchRoute):
                await call(unknown_id)
    for seq in (0, -1, 2, 40_000, 2**70):
        with pytest.raises(NoSuchStop):
            await kit.execution.report(route_id, seq, StopReport("delivered"))

    async def refuse(
        connection: Connection, shipment_id: UUID, events: Sequence[TrackingEvent], actor: str, now: datetime
    ) -> None:
        raise NoSuchShipment("gone")

    with pytest.raises(NoSuchShipment):
        await RouteExecution(kit.shop.db, kit.clock, refuse).report(route_id, 1, StopReport("delivered"))
    route = await kit.execution.driver_route(route_id)
    assert (route.status, route.stops[0].status) == ("planned", "planned")
    assert await kit.fetch_value("SELECT status FROM shipments") == "booked"
