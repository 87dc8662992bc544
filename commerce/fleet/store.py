"""Rows of vehicles, places, routes and their stops."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, time
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.fleet.geography import region_key
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
from commerce.kernel.postgres import Connection, session_lock
from commerce.kernel.sql import load_queries
from commerce.shipping.model import ShipmentStatus

_VEHICLE_FIELDS = Vehicle.__struct_fields__
queries = load_queries(__package__, vehicles=_VEHICLE_FIELDS)
_STOP_COLUMNS = [name for name in Stop.__struct_fields__ if name != "point"]
_ROUTE_COLUMNS = [name for name in Route.__struct_fields__ if name not in ("depot", "stops")]


class PendingDelivery(NamedTuple):
    """A shipment that waits for a vehicle. Without a `point` only its address locates it."""

    shipment_id: UUID
    warehouse_id: str
    address: Address
    tracking_no: str | None
    weight_g: int
    deliver_from: time | None
    deliver_to: time | None
    point: Point | None


class LockedRoute(NamedTuple):
    """A route whose row is locked by the transaction."""

    route_id: UUID
    vehicle_id: str
    status: RouteStatus
    planned_at: datetime


async def list_warehouse_ids(connection: Connection) -> set[str]:
    """List the ids of all warehouses."""
    return {row["warehouse_id"] for row in await connection.fetch(queries.list_warehouse_ids)}


async def upsert_vehicles(connection: Connection, vehicles: Sequence[Vehicle]) -> tuple[int, int]:
    """Write vehicles. Returns how many were added and how many changed."""
    columns = [[getattr(vehicle, name) for vehicle in vehicles] for name in _VEHICLE_FIELDS]
    return _count(await connection.fetch(queries.upsert_vehicles, *columns))


async def upsert_places(connection: Connection, places: Sequence[Place]) -> tuple[int, int]:
    """Write places. Returns how many were added and how many changed."""
    rows = await connection.fetch(
        queries.upsert_places,
        [place.region for place in places],
        [place.point.latitude for place in places],
        [place.point.longitude for place in places],
    )
    return _count(rows)


def _count(rows: Sequence[Any]) -> tuple[int, int]:
    added = sum(row["added"] for row in rows)
    return added, len(rows) - added


async def list_vehicles(connection: Connection, count: int) -> list[Vehicle]:
    """List up to `count` vehicles by warehouse."""
    return [_vehicle(row) for row in await connection.fetch(queries.list_vehicles, count)]


async def list_undeparted_vehicles(connection: Connection, day: date) -> list[Vehicle]:
    """List active vehicles that have not departed on the day."""
    return [_vehicle(row) for row in await connection.fetch(queries.list_undeparted_vehicles, day)]


def _vehicle(row: Any) -> Vehicle:
    return Vehicle(**{name: row[name] for name in _VEHICLE_FIELDS})


def planning_lock(connection: Connection) -> AbstractAsyncContextManager[bool]:
    """Hold the planning lock. Yields False if another session holds it."""
    return session_lock(connection, queries.try_lock_planning, queries.unlock_planning)


async def list_pending_deliveries(
    connection: Connection, day: date, today: date, count: int
) -> tuple[list[PendingDelivery], int]:
    """List up to `count` deliveries that a plan for the day may take, and count them all.

    Those promised first come first.
    """
    rows = await connection.fetch(queries.list_pending_deliveries, day, today, count)
    deliveries = [
        PendingDelivery(
            shipment_id=row["shipment_id"],
            warehouse_id=row["warehouse_id"],
            address=msgspec.json.decode(row["address"], type=Address),
            tracking_no=row["tracking_no"],
            weight_g=row["weight_g"],
            deliver_from=row["deliver_from"],
            deliver_to=row["deliver_to"],
            point=None if row["latitude"] is None else _point(row),
        )
        for row in rows
    ]
    return deliveries, rows[0]["total"] if rows else 0


async def find_places(connection: Connection, regions: Collection[str]) -> dict[str, Point]:
    """Read the points of regions by key, without those that were never imported.

    Rows of older versions may have another form of a key; a row with the key itself comes before them.
    """
    rows = await connection.fetch(queries.find_places, list(regions))
    return {region_key(*row["region"].split("/")): _point(row) for row in rows}


async def find_depots(connection: Connection, warehouse_ids: Collection[str]) -> dict[str, Point]:
    """Read the points of warehouses by id."""
    rows = await connection.fetch(queries.find_depots, list(warehouse_ids))
    return {row["warehouse_id"]: _point(row) for row in rows}


def _point(row: Any) -> Point:
    return Point(row["latitude"], row["longitude"])


async def replace_planned_routes(
    connection: Connection, day: date, today: date, routes: Sequence[Route], now: datetime
) -> list[str]:
    """Write the routes of a day in place of those that have not departed.

    Returns the vehicles that departed meanwhile with planned deliveries. If there are any, roll the transaction back.
    """
    await connection.execute(queries.delete_planned_routes, day, today)
    shipment_ids = [stop.shipment_id for route in routes for stop in route.stops]
    vehicle_ids = [route.vehicle_id for route in routes]
    departed = await connection.fetch(queries.find_departed_vehicles, day, vehicle_ids, shipment_ids)
    if departed:
        return sorted(row["vehicle_id"] for row in departed)
    for route in routes:
        await connection.execute(
            queries.insert_route,
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
            queries.insert_stops,
            route.route_id,
            [stop.seq for stop in route.stops],
            [stop.shipment_id for stop in route.stops],
            [stop.point.latitude for stop in route.stops],
            [stop.point.longitude for stop in route.stops],
            *([getattr(stop, name) for stop in route.stops] for name in names),
        )
    return []


async def list_routes(connection: Connection, day: date) -> list[Route]:
    """List the routes of a day with their stops, by warehouse and vehicle."""
    rows = await connection.fetch(queries.list_routes, day)
    stops: dict[UUID, list[Stop]] = {row["route_id"]: [] for row in rows}
    for row in await connection.fetch(queries.list_stops, list(stops)):
        stops[row["route_id"]].append(Stop(**{name: row[name] for name in _STOP_COLUMNS}, point=_point(row)))
    return [
        Route(**{name: row[name] for name in _ROUTE_COLUMNS}, depot=_point(row), stops=stops[row["route_id"]])
        for row in rows
    ]


async def get_driver_route(connection: Connection, route_id: UUID) -> DriverRoute | None:
    """Read a route as its driver sees it."""
    row = await connection.fetchrow(queries.get_route, route_id)
    if row is None:
        return None
    stops = [
        DriverStop(
            seq=stop["seq"],
            address=msgspec.json.decode(stop["address"], type=Address),
            tracking_no=stop["tracking_no"],
            window_from=stop["window_from"],
            window_to=stop["window_to"],
            arrive_at=stop["arrive_at"],
            status=stop["status"],
            cash_to_collect=Money(stop["cod_minor"], stop["currency"]) if stop["cod_minor"] else None,
            note=stop["note"],
        )
        for stop in await connection.fetch(queries.list_driver_stops, route_id)
    ]
    names = ("route_id", "day", "vehicle_id", "status", "start_at", "end_at", "break_at")
    return DriverRoute(**{name: row[name] for name in names}, stops=stops)


async def lock_route(connection: Connection, route_id: UUID) -> LockedRoute | None:
    """Lock the row of a route for the transaction."""
    row = await connection.fetchrow(queries.lock_route, route_id)
    return LockedRoute(*(row[name] for name in LockedRoute._fields)) if row else None


async def depart(connection: Connection, route: LockedRoute, now: datetime) -> list[tuple[UUID, ShipmentStatus]]:
    """Record a departure and return the loaded shipments with their status.

    Stops of cancelled shipments are removed first. The shipments are in the order in which order locks are taken.
    """
    await connection.execute(queries.drop_cancelled_stops, route.route_id, route.planned_at)
    await connection.execute(queries.mark_departed, route.route_id, now)
    rows = await connection.fetch(queries.loaded_shipments, route.route_id)
    return [(row["shipment_id"], ShipmentStatus(row["status"])) for row in rows]


async def get_stop(connection: Connection, route_id: UUID, seq: int) -> tuple[UUID, StopStatus] | None:
    """Read (shipment id, status) of a stop."""
    row = await connection.fetchrow(queries.get_stop, route_id, seq)
    return (row["shipment_id"], row["status"]) if row else None


async def record_report(
    connection: Connection, route_id: UUID, seq: int, outcome: StopOutcome, now: datetime, note: str | None
) -> None:
    """Write the outcome of a stop."""
    await connection.execute(queries.record_report, route_id, seq, outcome, now, note)


async def finish_if_all_reported(connection: Connection, route_id: UUID) -> None:
    """Set the status `done` if every stop was reported."""
    await connection.execute(queries.finish_if_all_reported, route_id)
