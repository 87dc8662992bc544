"""The rows of vans, places, routes and their stops."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.fleet.model import (
    DriverRoute,
    DriverStop,
    Place,
    Point,
    Route,
    RouteStatus,
    Stop,
    StopOutcome,
    StopStatus,
    Vehicle,
)
from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.shipping.model import ShipmentStatus

queries = load_queries(__package__)
_VEHICLE = Vehicle.__struct_fields__


class PendingDelivery(NamedTuple):
    """A parcel that waits for a van. `point` is None where only its address tells where it goes."""

    shipment_id: UUID
    warehouse_id: str
    address: Address
    tracking_no: str | None
    weight_g: int
    deliver_from: time | None
    deliver_to: time | None
    point: Point | None


class LockedRoute(NamedTuple):
    """A route whose row is locked."""

    route_id: UUID
    vehicle_id: str
    status: RouteStatus
    planned_at: datetime


async def warehouse_ids(connection: Connection) -> set[str]:
    return {row["warehouse_id"] for row in await connection.fetch(queries.warehouse_ids)}


async def put_vehicles(connection: Connection, vehicles: Sequence[Vehicle]) -> tuple[int, int]:
    """Returns how many were added and how many changed."""
    columns = [[getattr(vehicle, name) for vehicle in vehicles] for name in _VEHICLE]
    return _counted(await connection.fetch(queries.put_vehicles, *columns))


async def put_places(connection: Connection, places: Sequence[Place]) -> tuple[int, int]:
    """Returns how many were added and how many changed."""
    rows = await connection.fetch(
        queries.put_places,
        [place.region for place in places],
        [place.point.latitude for place in places],
        [place.point.longitude for place in places],
    )
    return _counted(rows)


def _counted(rows: Sequence[Any]) -> tuple[int, int]:
    added = sum(row["added"] for row in rows)
    return added, len(rows) - added


async def vehicles(connection: Connection, most: int) -> list[Vehicle]:
    return [_vehicle(row) for row in await connection.fetch(queries.vehicles, most)]


async def free_vehicles(connection: Connection, day: date) -> list[Vehicle]:
    """Active vans that have not left on the day."""
    return [_vehicle(row) for row in await connection.fetch(queries.free_vehicles, day)]


def _vehicle(row: Any) -> Vehicle:
    return Vehicle(**{name: row[name] for name in _VEHICLE})


async def lock_planning(connection: Connection) -> bool:
    """Held by the connection until `unlock_planning`. False if somebody else has it."""
    return bool(await connection.fetchval(queries.lock_planning))


async def unlock_planning(connection: Connection) -> None:
    await connection.execute(queries.unlock_planning)


async def pending_deliveries(
    connection: Connection, day: date, today: date, most: int
) -> tuple[list[PendingDelivery], int]:
    """Parcels that a plan for the day may take, those that were promised first first, and how many there are in all."""
    rows = await connection.fetch(queries.to_deliver, day, today, most)
    waiting = [
        PendingDelivery(
            row["shipment_id"],
            row["warehouse_id"],
            msgspec.json.decode(row["address"], type=Address),
            row["tracking_no"],
            row["weight_g"],
            row["deliver_from"],
            row["deliver_to"],
            None if row["latitude"] is None else _point(row),
        )
        for row in rows
    ]
    return waiting, rows[0]["found"] if rows else 0


async def known_places(connection: Connection, regions: Collection[str]) -> dict[str, Point]:
    return {row["region"]: _point(row) for row in await connection.fetch(queries.known_places, list(regions))}


async def depots(connection: Connection, ids: Collection[str]) -> dict[str, Point]:
    return {row["warehouse_id"]: _point(row) for row in await connection.fetch(queries.depots, list(ids))}


def _point(row: Any) -> Point:
    return Point(row["latitude"], row["longitude"])


async def replace(connection: Connection, day: date, today: date, routes: Sequence[Route], now: datetime) -> list[str]:
    """Write the day's routes in place of those that have not left. Returns the vans that meanwhile left with what was
    planned; then nothing may be kept of it."""
    await connection.execute(queries.drop_planned, day, today)
    planned = [stop.shipment_id for route in routes for stop in route.stops]
    taken = await connection.fetch(queries.taken, day, [route.vehicle_id for route in routes], planned)
    if taken:
        return sorted(row["vehicle_id"] for row in taken)
    for route in routes:
        await connection.execute(
            queries.add_route,
            route.route_id,
            day,
            route.vehicle_id,
            route.warehouse_id,
            route.distance_m,
            route.start_at,
            route.end_at,
            route.break_at,
            now,
        )
        names = ("window_from", "window_to", "arrive_at", "leave_at")
        await connection.execute(
            queries.add_stops,
            route.route_id,
            [stop.seq for stop in route.stops],
            [stop.shipment_id for stop in route.stops],
            [stop.point.latitude for stop in route.stops],
            [stop.point.longitude for stop in route.stops],
            *([getattr(stop, name) for stop in route.stops] for name in names),
        )
    return []


async def routes_of(connection: Connection, day: date) -> list[Route]:
    """A day's routes with their stops, by warehouse and van."""
    rows = await connection.fetch(queries.routes_of, day)
    stops: dict[UUID, list[Stop]] = {row["route_id"]: [] for row in rows}
    for row in await connection.fetch(queries.stops_of, list(stops)):
        stops[row["route_id"]].append(
            Stop(
                row["seq"],
                row["shipment_id"],
                row["tracking_no"],
                row["weight_g"],
                _point(row),
                row["window_from"],
                row["window_to"],
                row["arrive_at"],
                row["leave_at"],
                row["status"],
            )
        )
    return [
        Route(
            row["route_id"],
            row["day"],
            row["vehicle_id"],
            row["warehouse_id"],
            _point(row),
            row["status"],
            row["distance_m"],
            row["start_at"],
            row["end_at"],
            row["break_at"],
            stops[row["route_id"]],
        )
        for row in rows
    ]


async def board(connection: Connection, route_id: UUID) -> DriverRoute | None:
    """A route as its driver sees it."""
    row = await connection.fetchrow(queries.route, route_id)
    if row is None:
        return None
    stops = [
        DriverStop(
            stop["seq"],
            msgspec.json.decode(stop["address"], type=Address),
            stop["tracking_no"],
            stop["window_from"],
            stop["window_to"],
            stop["arrive_at"],
            stop["status"],
            Money(stop["cod_minor"], stop["currency"]) if stop["cod_minor"] else None,
            stop["note"],
        )
        for stop in await connection.fetch(queries.board, route_id)
    ]
    names = ("route_id", "day", "vehicle_id", "status", "start_at", "end_at", "break_at")
    return DriverRoute(**{name: row[name] for name in names}, stops=stops)


async def lock_route(connection: Connection, route_id: UUID) -> LockedRoute | None:
    row = await connection.fetchrow(queries.lock_route, route_id)
    return LockedRoute(*(row[name] for name in LockedRoute._fields)) if row else None


async def depart(connection: Connection, route: LockedRoute, now: datetime) -> list[tuple[UUID, ShipmentStatus]]:
    """The van has left. Returns what it has with it, without what was called off, and where those parcels were."""
    await connection.execute(queries.drop_called_off, route.route_id, route.planned_at)
    await connection.execute(queries.leave, route.route_id, now)
    rows = await connection.fetch(queries.on_board, route.route_id)
    return [(row["shipment_id"], ShipmentStatus(row["status"])) for row in rows]


async def stop(connection: Connection, route_id: UUID, seq: int) -> tuple[UUID, StopStatus] | None:
    row = await connection.fetchrow(queries.stop, route_id, seq)
    return (row["shipment_id"], row["status"]) if row else None


async def report(
    connection: Connection, route_id: UUID, seq: int, outcome: StopOutcome, now: datetime, note: str | None
) -> None:
    await connection.execute(queries.report, route_id, seq, outcome, now, note)


async def finish_if_all_reported(connection: Connection, route_id: UUID) -> None:
    """Nothing more is to be done if every stop was reported."""
    await connection.execute(queries.finish, route_id)
