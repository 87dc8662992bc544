"""Vans, places, routes and their stops, and what a driver sees of them."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money

RouteStatus = Literal["planned", "departed", "done"]
StopStatus = Literal["planned", "delivered", "failed"]
StopOutcome = Literal["delivered", "failed"]
VehicleId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,31}\Z")]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+\Z")]


class Vehicle(msgspec.Struct, frozen=True):
    """A van. Times are those of the shop's clocks; its break of `break_s` lies between `break_from` and `break_to`."""

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
    """Where something is, in degrees."""

    latitude: float
    longitude: float


class Place(msgspec.Struct, frozen=True):
    """Where a region (`cn/zhejiang/hangzhou`) or a postcode (`cn/310000`) lies, in small letters."""

    region: str
    point: Point


class Stop(msgspec.Struct, frozen=True):
    """A parcel on a route. The van is at the door from `arrive_at` to `leave_at`; `arrive_at` lies in the window."""

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
    """A van's day. The break may be before it starts or after it ends; it is None where the van has none."""

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
    """A parcel that is on no route, and why."""

    shipment_id: UUID
    warehouse_id: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """A day's routes, those that had left included.

    `waiting` counts parcels that were not looked at because there were too many; `guessed_legs` the ways between two
    points that the matrix does not tell.
    """

    day: date
    routes: list[Route]
    unassigned: list[UnassignedDelivery]
    not_considered: int = 0
    estimated_legs: int = 0


class DriverStop(msgspec.Struct, frozen=True):
    """What a driver must know at a door, and no more of the customer. `collects` is the cash to take."""

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
    """What became of a stop."""

    outcome: StopOutcome
    note: Note | None = None
