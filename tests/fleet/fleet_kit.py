"""A fleet for the tests, and a checker of routes that shares no code with the solver."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from commerce.fleet import store
from commerce.fleet.model import Point, Route, Stop, Vehicle
from commerce.fleet.route_execution import RouteExecution
from commerce.fleet.service import Fleet
from commerce.kernel.clock import SystemClock, to_ms
from commerce.kernel.postgres import Connection
from commerce.shipping.carrier_port import TrackingEvent
from ops.services import CliServices
from tests.support.sales import ADDRESS

ZONE = ZoneInfo("Asia/Shanghai")
DAY = date(2031, 3, 4)
DEPOT = (30.25, 120.15)
STOP_S, SPEED_KMH = 240, 25
VEHICLES_CSV = """vehicle_id,warehouse_id,capacity_g,shift_from,shift_to,break_from,break_to,break_s,active
V1,hz,500000,08:00,18:00,12:00,14:00,2700,yes
V2,hz,300000,09:00,17:00,,,,yes
"""


class FakeFleetClock(SystemClock):
    """A clock that stands at a moment of another day."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now_ms(self) -> int:
        return to_ms(self.at)


@dataclass
class FakeApplyTrackingEvents:
    """Collects tracking events in place of the shipping module, and applies their status."""

    applied: list[tuple[UUID, str, str | None, str]] = field(default_factory=list)

    async def __call__(
        self, connection: Connection, shipment_id: UUID, events: Sequence[TrackingEvent], actor: str, now: datetime
    ) -> None:
        assert connection.is_in_transaction()
        for event in events:
            self.applied.append((shipment_id, event.code, event.status, actor))
            if event.status is not None:
                await connection.execute(_SET_STATUS, shipment_id, str(event.status), now)

    def codes(self, shipment_id: UUID) -> list[str]:
        return [code for id_, code, _, _ in self.applied if id_ == shipment_id]


_SET_STATUS = """
UPDATE shipments SET status = $2::text, handed_over_at = coalesce(handed_over_at, $3::timestamptz),
    ended_at = CASE WHEN $2::text = 'delivered' THEN $3::timestamptz END WHERE shipment_id = $1
"""
# Steps between statuses and their events belong to the shipping module and its tests.
_DISABLE_TRIGGERS = "ALTER TABLE shipments DISABLE TRIGGER USER"
_INSERT_SHIPMENT = """
WITH ordered AS (
    INSERT INTO orders (order_id, user_id, body_digest, sale_id, generation, status, status_seq, currency, total_minor,
                        ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by)
    VALUES ($1, 'user', '0123456789abcdef', 'sale', 1, 'paid', 1, 'CNY', 100, '[]', '[]',
            $2::timestamptz, 0, $2, $2::timestamptz + interval '1 hour')
), sent AS (
    INSERT INTO fulfilments (order_id, paid_at) VALUES ($1, $2)
)
INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, status, weight_g, length_mm,
                       width_mm, height_mm, value_minor, cod_minor, currency, carrier, tracking_no, promised_on,
                       booked_at, planned_at, deliver_from, deliver_to, latitude, longitude)
VALUES ($1, $1, 0, 1, $3, $4, 'booked', $5, 100, 100, 100, 100, $6, 'CNY', 'own_fleet', $7, $8, $2, $2, $9, $10,
        $11, $12)
"""


@dataclass
class FleetKit:
    """The fleet over the tests' database, on the day `DAY`."""

    shop: CliServices
    clock: FakeFleetClock
    fleet: Fleet
    tracking: FakeApplyTrackingEvents
    execution: RouteExecution

    async def add_delivery(
        self,
        point: tuple[float, float] | None = DEPOT,
        window: tuple[str, str] | None = None,
        *,
        weight_g: int = 1_000,
        cod_minor: int = 0,
        warehouse: str = "hz",
        address: Mapping[str, str] = ADDRESS,
    ) -> UUID:
        """Insert a shipment that is booked with the own fleet, and return its id."""
        shipment_id = self.shop.ids.new()
        opens, closes = map(time.fromisoformat, window) if window else (None, None)
        async with self.shop.db.connection() as connection:
            await connection.execute(
                _INSERT_SHIPMENT,
                shipment_id,
                self.clock.at - timedelta(days=1),
                warehouse,
                orjson.dumps(address).decode(),
                weight_g,
                cod_minor,
                f"FL{shipment_id.hex[-10:]}",
                DAY,
                opens,
                closes,
                *(point or (None, None)),
            )
        return shipment_id

    async def add_route(self, *shipment_ids: UUID, vehicle_id: str = "V1") -> UUID:
        """Store a route of the day with these shipments, without a search, and return its id."""
        start = self.clock.at + timedelta(hours=2)
        times = [start + timedelta(hours=number) for number in range(len(shipment_ids) + 1)]
        point, stop_time = Point(*DEPOT), timedelta(seconds=STOP_S)
        stops = [
            Stop(
                seq=seq,
                shipment_id=shipment_id,
                tracking_no=None,
                weight_g=1_000,
                point=point,
                window_from=at,
                window_to=at + stop_time,
                arrive_at=at,
                leave_at=at + stop_time,
            )
            for seq, (shipment_id, at) in enumerate(zip(shipment_ids, times, strict=False), start=1)
        ]
        route_id = self.shop.ids.new()
        route = Route(
            route_id=route_id,
            day=DAY,
            vehicle_id=vehicle_id,
            warehouse_id="hz",
            depot=point,
            status="planned",
            distance_m=1,
            start_at=start,
            end_at=times[-1],
            break_at=None,
            stops=stops,
        )
        async with self.shop.db.transaction() as connection:
            assert await store.replace_planned_routes(connection, DAY, DAY, [route], self.clock.at) == []
        return route_id

    async def execute(self, query: str, *values: object) -> None:
        async with self.shop.db.connection() as connection:
            await connection.execute(query, *values)

    async def fetch_value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)


async def make_fleet_kit(shop: CliServices, vehicles: str = VEHICLES_CSV, now: str = "07:00") -> FleetKit:
    """Set up warehouse `hz` with vehicles and `sh` without, early in the morning of `DAY`."""
    clock = FakeFleetClock(datetime.combine(DAY, time.fromisoformat(now), ZONE).astimezone(UTC))
    tracking = FakeApplyTrackingEvents()
    fleet = Fleet(shop.db, clock, shop.ids, ZONE, STOP_S, SPEED_KMH)
    kit = FleetKit(shop, clock, fleet, tracking, RouteExecution(shop.db, clock, tracking))
    await kit.execute(_DISABLE_TRIGGERS)
    insert = "INSERT INTO warehouses VALUES ($1, $1, '{}', $2, $3)"
    for warehouse_id, (latitude, longitude) in {"hz": DEPOT, "sh": (31.2, 121.4)}.items():
        await kit.execute(insert, warehouse_id, latitude, longitude)
    report = await fleet.import_csv(vehicles.splitlines(keepends=True))
    assert not report.errors
    return kit


def point_near_depot(north_km: float, east_km: float) -> tuple[float, float]:
    """Return a point about this far from the warehouse."""
    return DEPOT[0] + north_km / 111.2, DEPOT[1] + east_km / (111.2 * math.cos(math.radians(DEPOT[0])))


def find_route_errors(
    routes: Sequence[Route], vehicles: Sequence[Vehicle], drive_s: Callable[[Any, Any], float]
) -> list[str]:
    """Return everything wrong with routes, judged by their times alone.

    `drive_s` returns the least time of a leg.
    """
    vehicle_of = {vehicle.vehicle_id: vehicle for vehicle in vehicles}
    plan_count = Counter(stop.shipment_id for route in routes for stop in route.stops)
    errors = [f"{shipment_id} is planned twice" for shipment_id, count in plan_count.items() if count > 1]
    for route in routes:
        errors += _find_errors(route, vehicle_of[route.vehicle_id], drive_s)
    return errors


def _find_errors(route: Route, vehicle: Vehicle, drive_s: Callable[[Any, Any], float]) -> list[str]:
    errors = []
    if route.start_at < _moment(route.day, vehicle.shift_from) or route.end_at > _moment(route.day, vehicle.shift_to):
        errors.append(f"{vehicle.vehicle_id} is out from {route.start_at} to {route.end_at}")
    if sum(stop.weight_g for stop in route.stops) > vehicle.capacity_g:
        errors.append(f"{vehicle.vehicle_id} is too heavy")
    if [stop.seq for stop in route.stops] != list(range(1, len(route.stops) + 1)) or not route.stops:
        errors.append(f"{vehicle.vehicle_id} counts its stops wrongly")
    pause = _check_break(route, vehicle, errors)
    for stop in route.stops:
        if not stop.window_from <= stop.arrive_at <= stop.window_to:
            errors.append(f"stop {stop.seq} is not in its window")
        if (stop.leave_at - stop.arrive_at).total_seconds() != STOP_S:
            errors.append(f"stop {stop.seq} is too short")
        if _overlap_s(pause, (stop.arrive_at, stop.leave_at)):
            errors.append(f"the break overlaps stop {stop.seq}")
    points = [(route.start_at, route.start_at, route.depot)]
    points += [(stop.arrive_at, stop.leave_at, stop.point) for stop in route.stops]
    points += [(route.end_at, route.end_at, route.depot)]
    for (_, leave_at, a), (arrive_at, _, b) in pairwise(points):
        if (arrive_at - leave_at).total_seconds() - _overlap_s(pause, (leave_at, arrive_at)) < drive_s(a, b) - 1:
            errors.append(f"{vehicle.vehicle_id} drives too fast from {leave_at} to {arrive_at}")
    return errors


def _check_break(route: Route, vehicle: Vehicle, errors: list[str]) -> tuple[datetime, datetime]:
    if vehicle.break_from is None or vehicle.break_to is None or vehicle.break_s is None:
        if route.break_at is not None:
            errors.append(f"{vehicle.vehicle_id} has a break that it should not have")
        return route.start_at, route.start_at
    if route.break_at is None:
        errors.append(f"{vehicle.vehicle_id} has no break")
        return route.start_at, route.start_at
    ends = route.break_at + timedelta(seconds=vehicle.break_s)
    if route.break_at < _moment(route.day, vehicle.break_from) or ends > _moment(route.day, vehicle.break_to):
        errors.append(f"{vehicle.vehicle_id} has its break at {route.break_at}")
    return route.break_at, ends


def _moment(day: date, at: time) -> datetime:
    return datetime.combine(day, at, ZONE)


def _overlap_s(a: tuple[datetime, datetime], b: tuple[datetime, datetime]) -> float:
    return max((min(a[1], b[1]) - max(a[0], b[0])).total_seconds(), 0)


def straight_line_s(a: Any, b: Any) -> float:
    """Return the least driving time: straight there, by the cosine formula on a slightly smaller globe."""
    if a == b:
        return 0
    north, south = math.radians(a.latitude), math.radians(b.latitude)
    east = math.radians(b.longitude - a.longitude)
    cosine = math.sin(north) * math.sin(south) + math.cos(north) * math.cos(south) * math.cos(east)
    return math.acos(min(1, cosine)) * 6_371_000 * 1.4 / (SPEED_KMH / 3.6)
