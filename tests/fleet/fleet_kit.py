"""A yard for the tests: a warehouse, vans, parcels that wait, and a checker of routes that shares nothing with the
solver."""

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
    """The machine's clock, set to another day."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now_ms(self) -> int:
        return to_ms(self.at)


@dataclass
class FakeApplyTrackingEvents:
    """What vans say of parcels, written down in place of the shipping module, with what it would make of it."""

    told: list[tuple[UUID, str, str | None, str]] = field(default_factory=list)

    async def __call__(
        self, connection: Connection, shipment_id: UUID, news: Sequence[TrackingEvent], actor: str, now: datetime
    ) -> None:
        assert connection.is_in_transaction()
        for one in news:
            self.told.append((shipment_id, one.code, one.state, actor))
            if one.state is not None:
                await connection.execute(_MOVE, shipment_id, str(one.state), now)

    def codes(self, shipment_id: UUID) -> list[str]:
        return [code for id_, code, _, _ in self.told if id_ == shipment_id]


_MOVE = """
UPDATE shipments SET status = $2::text, handed_over_at = coalesce(handed_over_at, $3::timestamptz),
    ended_at = CASE WHEN $2::text = 'delivered' THEN $3::timestamptz END WHERE shipment_id = $1
"""
# The steps between and their events are the shipping module's, whose own tests try them.
_UNWATCHED = "ALTER TABLE shipments DISABLE TRIGGER USER"
_PARCEL = """
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
                       booked_at, planned_at, due_at, deliver_from, deliver_to, latitude, longitude)
VALUES ($1, $1, 0, 1, $3, $4, 'booked', $5, 100, 100, 100, 100, $6, 'CNY', 'own_fleet', $7, $8, $2, $2, $2, $9, $10,
        $11, $12)
"""


@dataclass
class FleetKit:
    """The fleet over a test's own database, on a day far from the others'."""

    shop: CliServices
    clock: FakeFleetClock
    fleet: Fleet
    heard: FakeApplyTrackingEvents
    driving: RouteExecution

    async def parcel(
        self,
        at: tuple[float, float] | None = DEPOT,
        window: tuple[str, str] | None = None,
        *,
        weight_g: int = 1_000,
        cod_minor: int = 0,
        warehouse: str = "hz",
        address: Mapping[str, str] = ADDRESS,
    ) -> UUID:
        """A booked parcel of the own fleet's."""
        id_ = self.shop.ids.new()
        opens, closes = map(time.fromisoformat, window) if window else (None, None)
        async with self.shop.db.connection() as connection:
            await connection.execute(
                _PARCEL,
                id_,
                self.clock.at - timedelta(days=1),
                warehouse,
                orjson.dumps(address).decode(),
                weight_g,
                cod_minor,
                f"VAN{id_.hex[-10:]}",
                DAY,
                opens,
                closes,
                *(at or (None, None)),
            )
        return id_

    async def route(self, *parcels: UUID, van: str = "V1") -> UUID:
        """A route for the day that nobody had to search for."""
        start = self.clock.at + timedelta(hours=2)
        times = [start + timedelta(hours=number) for number in range(len(parcels) + 1)]
        point, done = Point(*DEPOT), timedelta(seconds=STOP_S)
        stops = [
            Stop(number, parcel, None, 1_000, point, at, at + done, at, at + done)
            for number, (parcel, at) in enumerate(zip(parcels, times, strict=False), start=1)
        ]
        route_id = self.shop.ids.new()
        made = Route(route_id, DAY, van, "hz", point, "planned", 1, start, times[-1], None, stops)
        async with self.shop.db.transaction() as connection:
            assert await store.replace(connection, DAY, DAY, [made], self.clock.at) == []
        return route_id

    async def write(self, query: str, *values: object) -> None:
        async with self.shop.db.connection() as connection:
            await connection.execute(query, *values)

    async def value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)


async def make_fleet_kit(shop: CliServices, vans: str = VEHICLES_CSV, now: str = "07:00") -> FleetKit:
    """A warehouse `hz` with vans, early in the morning of `DAY`."""
    clock = FakeFleetClock(datetime.combine(DAY, time.fromisoformat(now), ZONE).astimezone(UTC))
    heard = FakeApplyTrackingEvents()
    fleet = Fleet(shop.db, clock, shop.ids, ZONE, STOP_S, SPEED_KMH)
    kit = FleetKit(shop, clock, fleet, heard, RouteExecution(shop.db, clock, heard))
    await kit.write(_UNWATCHED)
    add = "INSERT INTO warehouses VALUES ($1, $1, '{}', $2, $3)"
    for warehouse_id, (latitude, longitude) in {"hz": DEPOT, "sh": (31.2, 121.4)}.items():
        await kit.write(add, warehouse_id, latitude, longitude)
    report = await fleet.import_csv(vans.splitlines(keepends=True))
    assert not report.errors
    return kit


def point_near_depot(north_km: float, east_km: float) -> tuple[float, float]:
    """A point so far from the warehouse, nearly."""
    return DEPOT[0] + north_km / 111.2, DEPOT[1] + east_km / (111.2 * math.cos(math.radians(DEPOT[0])))


def find_route_errors(
    routes: Sequence[Route], vehicles: Sequence[Vehicle], drive_s: Callable[[Any, Any], float]
) -> list[str]:
    """Whatever is wrong with routes, told from their times alone. `drive_s` says how long a way takes at the least."""
    vans = {vehicle.vehicle_id: vehicle for vehicle in vehicles}
    count = Counter(stop.shipment_id for route in routes for stop in route.stops)
    found = [f"{id_} is planned twice" for id_, times in count.items() if times > 1]
    for route in routes:
        found += _find_errors(route, vans[route.vehicle_id], drive_s)
    return found


def _find_errors(route: Route, van: Vehicle, drive_s: Callable[[Any, Any], float]) -> list[str]:
    found = []
    if route.start_at < _moment(route.day, van.shift_from) or route.end_at > _moment(route.day, van.shift_to):
        found.append(f"{van.vehicle_id} is out from {route.start_at} to {route.end_at}")
    if sum(stop.weight_g for stop in route.stops) > van.capacity_g:
        found.append(f"{van.vehicle_id} is too heavy")
    if [stop.seq for stop in route.stops] != list(range(1, len(route.stops) + 1)) or not route.stops:
        found.append(f"{van.vehicle_id} counts its stops wrongly")
    pause = _pause(route, van, found)
    for stop in route.stops:
        if not stop.window_from <= stop.arrive_at <= stop.window_to:
            found.append(f"stop {stop.seq} is not in its window")
        if (stop.leave_at - stop.arrive_at).total_seconds() != STOP_S:
            found.append(f"stop {stop.seq} is too short")
        if _common(pause, (stop.arrive_at, stop.leave_at)):
            found.append(f"the break lies across stop {stop.seq}")
    places = [(route.start_at, route.start_at, route.depot)]
    places += [(stop.arrive_at, stop.leave_at, stop.point) for stop in route.stops]
    places += [(route.end_at, route.end_at, route.depot)]
    for (_, left, a), (reached, _, b) in pairwise(places):
        if (reached - left).total_seconds() - _common(pause, (left, reached)) < drive_s(a, b) - 1:
            found.append(f"{van.vehicle_id} drives too fast from {left} to {reached}")
    return found


def _pause(route: Route, van: Vehicle, found: list[str]) -> tuple[datetime, datetime]:
    if van.break_from is None or van.break_to is None or van.break_s is None:
        if route.break_at is not None:
            found.append(f"{van.vehicle_id} has a break it has not")
        return route.start_at, route.start_at
    if route.break_at is None:
        found.append(f"{van.vehicle_id} has no break")
        return route.start_at, route.start_at
    ends = route.break_at + timedelta(seconds=van.break_s)
    if route.break_at < _moment(route.day, van.break_from) or ends > _moment(route.day, van.break_to):
        found.append(f"{van.vehicle_id} has its break at {route.break_at}")
    return route.break_at, ends


def _moment(day: date, at: time) -> datetime:
    return datetime.combine(day, at, ZONE)


def _common(a: tuple[datetime, datetime], b: tuple[datetime, datetime]) -> float:
    return max((min(a[1], b[1]) - max(a[0], b[0])).total_seconds(), 0)


def straight_line_s(a: Any, b: Any) -> float:
    """No van is faster than straight there at its speed: told by the cosine formula, with a little less of a globe."""
    if a == b:
        return 0
    north, south = math.radians(a.latitude), math.radians(b.latitude)
    east = math.radians(b.longitude - a.longitude)
    cosine = math.sin(north) * math.sin(south) + math.cos(north) * math.cos(south) * math.cos(east)
    return math.acos(min(1, cosine)) * 6_371_000 * 1.4 / (SPEED_KMH / 3.6)
