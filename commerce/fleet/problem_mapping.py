"""From parcels and vans to a problem in plain numbers, and from what was found back to routes. Times of a problem are
seconds since the day began on the shop's clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fleet.geography import TravelMatrix, locate, region_keys
from commerce.fleet.model import Point, Route, Stop, UnassignedDelivery, Vehicle
from commerce.fleet.routing_problem import RoutingProblem, RoutingVehicle, Solution, Visit, length
from commerce.fleet.store import PendingDelivery
from commerce.kernel.ids import IdGenerator

_DAY_S = 86_400


class Day:
    """A day on the shop's clocks, which need not have 24 hours."""

    def __init__(self, day: date, zone: ZoneInfo) -> None:
        self.day = day
        self._zone = zone
        self._begins = datetime.combine(day, time(), zone).astimezone(UTC)

    def second(self, at: time) -> int:
        """The second of the day at which the shop's clocks show a time."""
        return self.second_of(datetime.combine(self.day, at, self._zone))

    def second_of(self, moment: datetime) -> int:
        """A moment, from the day's beginning; below 0 if it was before. Rounded up."""
        return -((self._begins - moment.astimezone(UTC)) // timedelta(seconds=1))

    def moment(self, second: int) -> datetime:
        """The other way round."""
        return self._begins + timedelta(seconds=second)


class LocatedDelivery(NamedTuple):
    """A parcel with the point it goes to; `names` are those by which a matrix may call the point."""

    parcel: PendingDelivery
    names: tuple[str, ...]
    point: Point


class Depot(NamedTuple):
    """One warehouse's day: its vans and where its parcels go, in the order of the problem."""

    warehouse_id: str
    point: Point
    vehicles: list[Vehicle]
    bound: list[LocatedDelivery]


def locate_deliveries(
    parcels: Sequence[PendingDelivery], places: Mapping[str, Point]
) -> tuple[list[LocatedDelivery], list[UnassignedDelivery]]:
    """Find where each parcel goes: where it was said to, else the most specific place that is known."""
    bound, lost = [], []
    for parcel in parcels:
        if parcel.point is not None:
            bound.append(LocatedDelivery(parcel, (str(parcel.shipment_id),), parcel.point))
        elif found := locate(parcel.address, places):
            bound.append(LocatedDelivery(parcel, (str(parcel.shipment_id), found[0]), found[1]))
        else:
            why = f"no place is known for it: import one of {', '.join(region_keys(parcel.address))}"
            lost.append(UnassignedDelivery(parcel.shipment_id, parcel.warehouse_id, why))
    return bound, lost


def group_by_depot(
    bound: Sequence[LocatedDelivery], vehicles: Sequence[Vehicle], points: Mapping[str, Point]
) -> list[Depot]:
    """One problem for each warehouse that has parcels, since a parcel lies in one of them."""
    return [
        Depot(
            warehouse_id,
            points[warehouse_id],
            [vehicle for vehicle in vehicles if vehicle.warehouse_id == warehouse_id],
            [one for one in bound if one.parcel.warehouse_id == warehouse_id],
        )
        for warehouse_id in sorted({one.parcel.warehouse_id for one in bound})
    ]


def available_vehicles(vehicles: Sequence[Vehicle], day: Day, now: datetime) -> list[Vehicle]:
    """The vans whose shift is not over."""
    return [vehicle for vehicle in vehicles if day.second(vehicle.shift_to) > day.second_of(now)]


def problem(depot: Depot, day: Day, now: datetime, stop_s: int, ways: TravelMatrix) -> RoutingProblem:
    """What is to be solved. A stop without an appointment may be made while any of the vans drives."""
    vans = [_van(vehicle, day, day.second_of(now)) for vehicle in depot.vehicles]
    opens = min((van.start for van in vans), default=0)
    closes = max((van.end for van in vans), default=_DAY_S)
    calls = [
        Visit(
            one.parcel.weight_g,
            opens if one.parcel.deliver_from is None else day.second(one.parcel.deliver_from),
            closes if one.parcel.deliver_to is None else day.second(one.parcel.deliver_to),
            stop_s,
        )
        for one in depot.bound
    ]
    points = [((depot.warehouse_id,), depot.point), *((one.names, one.point) for one in depot.bound)]
    return RoutingProblem(vans, calls, *ways.matrices(points))


def _van(vehicle: Vehicle, day: Day, now: int) -> RoutingVehicle:
    start, end = max(day.second(vehicle.shift_from), now), day.second(vehicle.shift_to)
    if vehicle.break_from is None or vehicle.break_to is None or vehicle.break_s is None:
        return RoutingVehicle(vehicle.capacity_g, start, end)
    begins, ends = max(day.second(vehicle.break_from), now), day.second(vehicle.break_to)
    if begins > ends - vehicle.break_s:  # a driver who is still here now has had it
        return RoutingVehicle(vehicle.capacity_g, start, end)
    return RoutingVehicle(vehicle.capacity_g, start, end, begins, ends, vehicle.break_s)


def routes(depot: Depot, solved: RoutingProblem, solution: Solution, day: Day, ids: IdGenerator) -> list[Route]:
    """The routes that were found; vans that stay have none."""
    made = []
    for vehicle, order, times in zip(depot.vehicles, solution.orders, solution.times, strict=True):
        if times is None:
            continue
        made.append(
            Route(
                ids.new(),
                day.day,
                vehicle.vehicle_id,
                depot.warehouse_id,
                depot.point,
                "planned",
                length(solved, order),
                day.moment(times.start),
                day.moment(times.end),
                None if times.break_at is None else day.moment(times.break_at),
                [
                    _stop(number, depot.bound[call], solved.calls[call], begins, day)
                    for number, (call, begins) in enumerate(zip(order, times.begins, strict=True), start=1)
                ],
            )
        )
    return made


def _stop(seq: int, bound: LocatedDelivery, call: Visit, begins: int, day: Day) -> Stop:
    return Stop(
        seq,
        bound.parcel.shipment_id,
        bound.parcel.tracking_no,
        bound.parcel.weight_g,
        bound.point,
        day.moment(call.opens),
        day.moment(call.closes),
        day.moment(begins),
        day.moment(begins + call.service),
    )


def left_over(depot: Depot, solution: Solution) -> list[UnassignedDelivery]:
    """The parcels that are on no route."""
    found: list[tuple[UUID, str]] = [
        (depot.bound[call].parcel.shipment_id, why) for call, why in sorted(solution.left.items())
    ]
    return [UnassignedDelivery(shipment_id, depot.warehouse_id, why) for shipment_id, why in found]
