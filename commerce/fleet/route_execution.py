"""Routes as drivers carry them out: read, depart, report each stop. Every call may be repeated."""

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
    """Applies tracking events to a shipment inside the caller's transaction."""

    async def __call__(
        self, connection: Connection, shipment_id: UUID, events: Sequence[TrackingEvent], actor: str, now: datetime
    ) -> None: ...


class RouteExecution:
    """Routes as drivers see them.

    `apply_tracking_events` advances the shipments, as it does for other carriers.
    """

    def __init__(self, db: Database, clock: Clock, apply_tracking_events: ApplyTrackingEvents) -> None:
        self._db = db
        self._clock = clock
        self._apply_tracking_events = apply_tracking_events

    async def driver_route(self, route_id: UUID) -> DriverRoute:
        """Read a route with its stops. Raises `NoSuchRoute`."""
        async with self._db.connection() as connection:
            return await self._read(connection, route_id)

    async def depart(self, route_id: UUID) -> DriverRoute:
        """Record that the vehicle departed: its shipments are out for delivery. A repeat changes nothing.

        Stops of shipments that were cancelled, held or booked again since the planning are removed. Raises
        `NoSuchRoute`.
        """
        async with self._db.transaction() as connection:
            await self._depart(connection, await self._lock(connection, route_id))
            return await self._read(connection, route_id)

    async def report(self, route_id: UUID, seq: int, report: StopReport) -> DriverRoute:
        """Record the outcome of a stop, and the departure if it was not recorded before.

        A repeat changes nothing.

        A failed stop may be reported as delivered later, after another attempt. Raises `NoSuchRoute`, `NoSuchStop` and
        `StopAlreadyReported`.
        """
        async with self._db.transaction() as connection:
            route = await self._lock(connection, route_id)
            await self._depart(connection, route)
            stop = await store.get_stop(connection, route_id, seq) if 0 < seq <= _MAX_SEQ else None
            if stop is None:
                raise NoSuchStop(f"the route has no stop {seq}, or its shipment was cancelled")
            shipment_id, status = stop
            if status == "delivered" and report.outcome == "failed":
                raise StopAlreadyReported(f"stop {seq} was reported as delivered; call the warehouse")
            if status != report.outcome:
                now = from_ms(self._clock.now_ms())
                await store.record_report(connection, route_id, seq, report.outcome, now, report.note)
                event = _outcome_event(report, now)
                await self._apply_tracking_events(connection, shipment_id, [event], _actor(route), now)
                await store.finish_if_all_reported(connection, route_id)
            return await self._read(connection, route_id)

    async def _read(self, connection: Connection, route_id: UUID) -> DriverRoute:
        route = await store.get_driver_route(connection, route_id)
        if route is None:
            raise _no_such_route()
        return route

    async def _lock(self, connection: Connection, route_id: UUID) -> store.LockedRoute:
        route = await store.lock_route(connection, route_id)
        if route is None:
            raise _no_such_route()
        return route

    async def _depart(self, connection: Connection, route: store.LockedRoute) -> None:
        if route.status != "planned":
            return
        now = from_ms(self._clock.now_ms())
        for shipment_id, status in await store.depart(connection, route, now):
            events = _departure_events(status, now)
            await self._apply_tracking_events(connection, shipment_id, events, _actor(route), now)
        await store.finish_if_all_reported(connection, route.route_id)


def _no_such_route() -> NoSuchRoute:
    return NoSuchRoute("there is no such route: it was planned again; ask for the new link")


def _actor(route: store.LockedRoute) -> str:
    return f"vehicle {route.vehicle_id}"


def _departure_events(status: ShipmentStatus, now: datetime) -> list[TrackingEvent]:
    """Return the events of a departure. A shipment on its second attempt gets one that changes no status."""
    is_second_attempt = status is ShipmentStatus.OUT_FOR_DELIVERY
    loaded = TrackingEvent(now, "loaded", "loaded into the vehicle", ShipmentStatus.PICKED_UP)
    departed = TrackingEvent(
        now, "departed", "out for delivery", None if is_second_attempt else ShipmentStatus.OUT_FOR_DELIVERY
    )
    return [loaded, departed] if status is ShipmentStatus.BOOKED else [departed]


def _outcome_event(report: StopReport, now: datetime) -> TrackingEvent:
    if report.outcome == "delivered":
        return TrackingEvent(now, "delivered", report.note or "delivered", ShipmentStatus.DELIVERED)
    return TrackingEvent(now, "failed", report.note or "could not be delivered", None)
