"""Vehicles, places, plans, routes with their stops, and routes as drivers see them."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.types import filled_line

RouteStatus = Literal["planned", "departed", "done"]
StopStatus = Literal["planned", "delivered", "failed"]
StopOutcome = Literal["delivered", "failed"]
VehicleId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,31}\Z")]
Note = Annotated[str, filled_line(500)]


class Vehicle(msgspec.Struct, frozen=True):
    """A vehicle with its shift in the warehouses' time zone.

    The break of `break_s` seconds lies between `break_from` and `break_to`.
    """

    vehicle_id: VehicleId
    warehouse_id: str
    capacity_g: int
    shift_from: time
    shift_to: time
    break_from: time | None = None
    break_to: time | None = None
    break_s: int | None = None
    active: bool = True


class Point(msgspec.Struct, frozen=True):
    """Coordinates in degrees."""

    latitude: float
    longitude: float


class Place(msgspec.Struct, frozen=True):
    """The point of a region (`cn/zhejiang/hangzhou`) or postcode (`cn/310000`), as by `region_key`."""

    region: str
    point: Point


class Stop(msgspec.Struct, frozen=True):
    """A delivery on a route, from `arrive_at` to `leave_at`; `arrive_at` lies in the window."""

    seq: int
    shipment_id: UUID
    tracking_no: str | None
    weight_g: int
    point: Point
    window_from: datetime
    window_to: datetime
    arrive_at: datetime
    leave_at: datetime
    status: StopStatus = "planned"


class Route(msgspec.Struct, frozen=True):
    """The day of a vehicle.

    The break may be before `start_at` or after `end_at`; it is None for a vehicle without a break.
    """

    route_id: UUID
    day: date
    vehicle_id: str
    warehouse_id: str
    depot: Point
    status: RouteStatus
    distance_m: int
    start_at: datetime
    end_at: datetime
    break_at: datetime | None
    stops: list[Stop]


class UnassignedDelivery(msgspec.Struct, frozen=True):
    """A delivery that is on no route, with the reason."""

    shipment_id: UUID
    warehouse_id: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """The routes of a day, including those that had departed.

    `not_considered` counts deliveries beyond the most that a plan takes, `estimated_legs` legs that the given travel
    matrix lacks.
    """

    day: date
    routes: list[Route]
    unassigned: list[UnassignedDelivery]
    not_considered: int = 0
    estimated_legs: int = 0


class DriverStop(msgspec.Struct, frozen=True):
    """A stop as its driver sees it: only what is needed of the customer's data."""

    seq: int
    address: Address
    tracking_no: str | None
    window_from: datetime
    window_to: datetime
    arrive_at: datetime
    status: StopStatus
    cash_to_collect: Money | None = None
    note: str | None = None


class DriverRoute(msgspec.Struct, frozen=True):
    """A route as its driver sees it."""

    route_id: UUID
    day: date
    vehicle_id: str
    status: RouteStatus
    start_at: datetime
    end_at: datetime
    break_at: datetime | None
    stops: list[DriverStop]


class StopReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The outcome of a stop."""

    outcome: StopOutcome
    note: Note | None = None
