"""Planning of a day: limits of routes, infeasible deliveries, repeated and concurrent plans."""

from __future__ import annotations

import asyncio
import random
from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from commerce.fleet.errors import PlanningInProgress
from commerce.fleet.model import Plan, StopReport
from commerce.kernel.errors import Invalid
from ops.services import CliServices
from tests.fleet.fleet_kit import DAY, FleetKit, find_route_errors, make_fleet_kit, point_near_depot, straight_line_s
from tests.support.sales import ADDRESS

QUICK_S = 0.1


@pytest.fixture
async def kit(shop: CliServices) -> FleetKit:
    return await make_fleet_kit(shop)


def planned_shipments(plan: Plan) -> set[UUID]:
    return {stop.shipment_id for route in plan.routes for stop in route.stops}


def reasons_by_shipment(plan: Plan) -> dict[UUID, str]:
    return {delivery.shipment_id: delivery.reason for delivery in plan.unassigned}


async def test_plan_keeps_windows_shifts_breaks_and_capacities(kit: FleetKit) -> None:
    rng = random.Random(7)
    shipment_ids = set()
    for number in range(24):
        hour = rng.randrange(8, 16)
        window = (f"{hour:02}:00", f"{hour + 2:02}:00") if number % 2 else None
        at = point_near_depot(rng.uniform(-8, 8), rng.uniform(-8, 8))
        shipment_ids.add(await kit.add_delivery(at, window, weight_g=20_000))
    shares: list[float] = []
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S, report_progress=shares.append)
    assert planned_shipments(plan) | set(reasons_by_shipment(plan)) == shipment_ids
    assert not planned_shipments(plan) & set(reasons_by_shipment(plan))
    assert len(planned_shipments(plan)) >= 22
    assert find_route_errors(plan.routes, await kit.fleet.list_vehicles(), straight_line_s) == []
    assert plan.routes == await kit.fleet.list_routes(DAY)
    assert shares[-1] == 1
    assert shares == sorted(shares)


async def test_plan_reports_infeasible_deliveries_and_plans_others(kit: FleetKit) -> None:
    fine = await kit.add_delivery(point_near_depot(1, 1))
    heavy = await kit.add_delivery(point_near_depot(1, 2), weight_g=500_001)
    early = await kit.add_delivery(point_near_depot(1, 3), ("05:00", "07:30"))
    far = await kit.add_delivery(point_near_depot(200, 0))
    lost = await kit.add_delivery(None)
    elsewhere = await kit.add_delivery((31.21, 121.41), warehouse="sh")
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S)
    assert planned_shipments(plan) == {fine}
    reasons = reasons_by_shipment(plan)
    assert set(reasons) == {heavy, early, far, lost, elsewhere}
    assert "500001 g" in reasons[heavy]
    assert "500000 g" in reasons[heavy]
    assert "outside the shift" in reasons[early]
    assert "back within its shift" in reasons[far]
    assert "cn/zhejiang/hangzhou/xihu, cn/310000, cn/zhejiang/hangzhou" in reasons[lost]
    assert "no vehicle of this warehouse" in reasons[elsewhere]


async def test_plan_with_too_few_vehicles_leaves_deliveries_unassigned(kit: FleetKit) -> None:
    shipment_ids = {await kit.add_delivery(point_near_depot(1, number), weight_g=200_000) for number in range(6)}
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S)
    assert len(planned_shipments(plan)) == 3  # 500 kg take two of 200 kg, 300 kg take one
    assert planned_shipments(plan) | set(reasons_by_shipment(plan)) == shipment_ids
    assert all("not enough vehicles" in reason for reason in reasons_by_shipment(plan).values())
    assert find_route_errors(plan.routes, await kit.fleet.list_vehicles(), straight_line_s) == []


async def test_plan_locates_address_by_smallest_known_region(kit: FleetKit) -> None:
    places = "region,latitude,longitude\nCN/Zhejiang/Hangzhou,30.2,120.1\n CN / 310000 ,30.3,120.2\n"
    assert (await kit.fleet.import_csv(places.splitlines(keepends=True))).added == 2
    by_code = await kit.add_delivery(None)
    by_city = await kit.add_delivery(None, address={**ADDRESS, "postcode": "", "district": "Gongshu"})
    own = await kit.add_delivery((30.26, 120.16))
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S)
    points = {
        stop.shipment_id: (stop.point.latitude, stop.point.longitude) for route in plan.routes for stop in route.stops
    }
    assert points == {by_code: (30.3, 120.2), by_city: (30.2, 120.1), own: (30.26, 120.16)}


async def test_plan_with_travel_matrix_follows_it_and_counts_missing_legs(kit: FleetKit) -> None:
    a, b = await kit.add_delivery(point_near_depot(1, 0)), await kit.add_delivery(point_near_depot(0, 1))
    legs = {("hz", str(a)): (700, 60), (str(a), str(b)): (800, 60), (str(b), "hz"): (900, 60)}
    back = {(end, start): (50_000, 3_600) for start, end in legs}
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S, known_legs={**legs, **back})
    assert [[stop.shipment_id for stop in route.stops] for route in plan.routes] == [[a, b]]
    assert (plan.routes[0].distance_m, plan.estimated_legs) == (2_400, 0)
    assert (await kit.fleet.plan(DAY, seconds=QUICK_S, known_legs=legs)).estimated_legs == 3


async def test_plan_again_keeps_departed_routes_and_replaces_others(kit: FleetKit) -> None:
    first = {await kit.add_delivery(point_near_depot(1, number), weight_g=150_000) for number in range(4)}
    before = await kit.fleet.plan(DAY, seconds=QUICK_S)
    assert planned_shipments(before) == first
    assert len(before.routes) == 2
    gone, stays = before.routes
    await kit.execution.depart(gone.route_id)
    late = await kit.add_delivery(point_near_depot(2, 2))
    after = await kit.fleet.plan(DAY, seconds=QUICK_S)
    kept = {route.route_id: route for route in after.routes}
    assert [stop.shipment_id for stop in kept[gone.route_id].stops] == [stop.shipment_id for stop in gone.stops]
    assert stays.route_id not in kept
    assert planned_shipments(after) == first | {late}
    assert reasons_by_shipment(after) == {}
    assert find_route_errors(after.routes, await kit.fleet.list_vehicles(), straight_line_s) == []


async def test_plan_ignores_held_cancelled_and_foreign_shipments(kit: FleetKit) -> None:
    held, other, cancelled, fine = [await kit.add_delivery() for _ in range(4)]
    await kit.execute("UPDATE shipments SET held_reason = 'asked' WHERE shipment_id = $1", held)
    await kit.execute("UPDATE shipments SET carrier = 'sf' WHERE shipment_id = $1", other)
    await kit.execute("UPDATE shipments SET after_cancel = 'cancelled' WHERE shipment_id = $1", cancelled)
    assert planned_shipments(await kit.fleet.plan(DAY, seconds=QUICK_S)) == {fine}


async def test_plan_takes_delivery_for_one_future_day_only(kit: FleetKit) -> None:
    shipment_id = await kit.add_delivery()
    assert planned_shipments(await kit.fleet.plan(DAY + timedelta(days=1), seconds=QUICK_S)) == {shipment_id}
    assert planned_shipments(await kit.fleet.plan(DAY, seconds=QUICK_S)) == set()
    kit.clock.at += timedelta(days=2)
    assert planned_shipments(await kit.fleet.plan(DAY + timedelta(days=2), seconds=QUICK_S)) == {shipment_id}
    assert await kit.fetch_value("SELECT count(*) FROM route_stops") == 1


async def test_plan_takes_failed_delivery_again_but_not_delivered_one(kit: FleetKit) -> None:
    missed, brought = await kit.add_delivery(point_near_depot(1, 0)), await kit.add_delivery(point_near_depot(2, 0))
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S)
    for stop in plan.routes[0].stops:
        report = StopReport("failed" if stop.shipment_id == missed else "delivered")
        await kit.execution.report(plan.routes[0].route_id, stop.seq, report)
    again = await kit.fleet.plan(DAY + timedelta(days=1), seconds=QUICK_S)
    assert planned_shipments(again) == {missed}
    assert brought not in reasons_by_shipment(again)


async def test_plan_of_today_starts_no_route_in_the_past(shop: CliServices) -> None:
    kit = await make_fleet_kit(shop, now="15:10")
    fits, over = (
        await kit.add_delivery(point_near_depot(1, 0)),
        await kit.add_delivery(point_near_depot(2, 0), ("10:00", "14:00")),
    )
    plan = await kit.fleet.plan(DAY, seconds=QUICK_S)
    assert planned_shipments(plan) == {fits}
    assert set(reasons_by_shipment(plan)) == {over}
    assert all(route.start_at >= kit.clock.at for route in plan.routes)
    assert all(route.break_at is None for route in plan.routes)  # its time was over at 14:00
    kit.clock.at = datetime.combine(DAY, datetime.min.time(), kit.clock.at.tzinfo) + timedelta(hours=12)
    assert "no vehicle" in reasons_by_shipment(await kit.fleet.plan(DAY, seconds=QUICK_S))[fits]


async def test_plan_of_past_or_distant_day_is_refused(kit: FleetKit) -> None:
    for day in (DAY - timedelta(days=1), DAY + timedelta(days=31), date(1970, 1, 1)):
        with pytest.raises(Invalid, match="30 days ahead"):
            await kit.fleet.plan(day)
    for seconds in (0, -1, 3_601, float("nan")):
        with pytest.raises(Invalid, match="3600 seconds"):
            await kit.fleet.plan(DAY, seconds=seconds)


async def test_concurrent_plans_second_is_refused(kit: FleetKit) -> None:
    shipment_ids = {await kit.add_delivery(point_near_depot(number, 1)) for number in range(5)}
    started = asyncio.Event()
    first = asyncio.create_task(kit.fleet.plan(DAY, seconds=1, report_progress=lambda share: started.set()))
    await started.wait()
    with pytest.raises(PlanningInProgress, match="being planned already"):
        await kit.fleet.plan(DAY + timedelta(days=1), seconds=QUICK_S)
    assert planned_shipments(await first) == shipment_ids
    assert planned_shipments(await kit.fleet.plan(DAY + timedelta(days=1), seconds=QUICK_S)) == set()


async def test_plan_during_departure_is_refused(kit: FleetKit) -> None:
    route_id = await kit.add_route(await kit.add_delivery())
    started = asyncio.Event()
    second = asyncio.create_task(kit.fleet.plan(DAY, seconds=1, report_progress=lambda share: started.set()))
    await started.wait()
    await kit.execution.depart(route_id)
    with pytest.raises(PlanningInProgress, match="V1 departed"):
        await second
    assert [route.route_id for route in await kit.fleet.list_routes(DAY)] == [route_id]
