"""What a driver does with a route: look at it, leave, report each stop. All of it may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from commerce.fleet import store
from commerce.fleet.errors import NoSuchRoute, NoSuchStop, StopAlreadyReported
from commerce.fleet.model import DriverRoute, StopReport
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection, Database
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.model import ShipmentStatus

_MAX_SEQ = 32_767


class ApplyTrackingEvents(Protocol):
    """The one place that changes a parcel's status is told what happened, in the same transaction."""

    async def __call__(
        self, connection: Connection, shipment_id: UUID, news: Sequence[TrackingEvent], actor: str, now: datetime
    ) -> None: ...


class RouteExecution:
    """Routes as their drivers see them. Parcels go on by `hears`."""

    def __init__(self, db: Database, clock: Clock, hears: ApplyTrackingEvents) -> None:
        self._db = db
        self._clock = clock
        self._hears = hears

    async def driver_route(self, route_id: UUID) -> DriverRoute:
        """The route with its stops. Raises `NoSuchRoute`."""
        async with self._db.connection() as connection:
            return await self._board(connection, route_id)

    async def depart(self, route_id: UUID) -> DriverRoute:
        """The van is under way, and its parcels are out for delivery.

        What was called off since the route was planned, or booked anew, is taken from it. Raises `NoSuchRoute`.
        """
        async with self._db.transaction() as connection:
            await self._leave(connection, await self._lock(connection, route_id))
            return await self._board(connection, route_id)

    async def report(self, route_id: UUID, seq: int, report: StopReport) -> DriverRoute:
        """What became of a stop; the van has left, if nobody said so before.

        A failed stop may become delivered, on a second try. Raises `NoSuchRoute`, `NoSuchStop` and `Reported`.
        """
        async with self._db.transaction() as connection:
            route = await self._lock(connection, route_id)
            await self._leave(connection, route)
            stop = await store.stop(connection, route_id, seq) if 0 < seq <= _MAX_SEQ else None
            if stop is None:
                raise NoSuchStop(f"the route has no stop {seq}, or its parcel was called off")
            shipment_id, before = stop
            if before == "delivered" and report.outcome == "failed":
                raise StopAlreadyReported(f"stop {seq} was reported as delivered: call the desk")
            if before != report.outcome:
                now = from_ms(self._clock.now_ms())
                await store.report(connection, route_id, seq, report.outcome, now, report.note)
                await self._hears(connection, shipment_id, [_outcome(report, now)], _actor(route), now)
                await store.finish_if_all_reported(connection, route_id)
            return await self._board(connection, route_id)

    async def _board(self, connection: Connection, route_id: UUID) -> DriverRoute:
        board = await store.board(connection, route_id)
        if board is None:
            raise _no_route()
        return board

    async def _lock(self, connection: Connection, route_id: UUID) -> store.LockedRoute:
        route = await store.lock_route(connection, route_id)
        if route is None:
            raise _no_route()
        return route

    async def _leave(self, connection: Connection, route: store.LockedRoute) -> None:
        if route.status != "planned":
            return
        now = from_ms(self._clock.now_ms())
        for shipment_id, status in await store.depart(connection, route, now):
            await self._hears(connection, shipment_id, _departure(status, now), _actor(route), now)
        await store.finish_if_all_reported(connection, route.route_id)


def _no_route() -> NoSuchRoute:
    return NoSuchRoute("there is no such route: it was planned anew, ask for the new link")


def _actor(route: store.LockedRoute) -> str:
    return f"van {route.vehicle_id}"


def _departure(status: ShipmentStatus, now: datetime) -> list[TrackingEvent]:
    """A parcel that was out before and came back goes out again, which changes nothing but is worth knowing."""
    again = status is ShipmentStatus.OUT_FOR_DELIVERY
    loaded = TrackingEvent(now, "loaded", "loaded into the van", ShipmentStatus.PICKED_UP)
    left = TrackingEvent(now, "left", "out for delivery", None if again else ShipmentStatus.OUT_FOR_DELIVERY)
    return [loaded, left] if status is ShipmentStatus.BOOKED else [left]


def _outcome(report: StopReport, now: datetime) -> TrackingEvent:
    if report.outcome == "delivered":
        return TrackingEvent(now, "delivered", report.note or "delivered", ShipmentStatus.DELIVERED)
    return TrackingEvent(now, "failed", report.note or "could not be delivered", None)
