"""The services of our own fleet, wired once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fleet.route_execution import RouteExecution
from commerce.fleet.service import Fleet
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.service import Shipping
from config.settings import Settings


def build_fleet(settings: Settings, db: Database, clock: Clock, ids: IdGenerator) -> Fleet:
    shipping = settings.shipping
    return Fleet(db, clock, ids, ZoneInfo(shipping.timezone), shipping.stop_service_s, shipping.vehicle_speed_kmh)


def build_route_execution(db: Database, clock: Clock, shipping: Shipping) -> RouteExecution:
    return RouteExecution(db, clock, partial(_apply_vehicle_events, shipping))


async def _apply_vehicle_events(
    shipping: Shipping,
    connection: Connection,
    shipment_id: UUID,
    events: Sequence[TrackingEvent],
    actor: str,
    now: datetime,
) -> None:
    """Apply what a vehicle's driver reports of a shipment, as its tracking events."""
    await shipping.apply_tracking_events(connection, shipment_id, events, "fleet", actor, now)
