"""Maps deliveries and vehicles to a routing problem, and its solution back to routes.

Times of a problem are seconds since the day began in the warehouses' time zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from commerce.fleet.geography import TravelMatrix, locate, region_keys
from commerce.fleet.model import Point, Route, Stop, UnassignedDelivery, Vehicle
from commerce.fleet.routing_problem import RouteTimes, RoutingProblem, RoutingVehicle, Solution, Visit, sum_distance
from commerce.fleet.store import PendingDelivery
from commerce.kernel.ids import IdGenerator

_DAY_S = 86_400


class Day:
    """A day in the warehouses' time zone; it need not have 24 hours."""

    def __init__(self, day: date, zone: ZoneInfo) -> None:
        self.day = day
        self._zone = zone
        self._begins = datetime.combine(day, time(), zone).astimezone(UTC)

    def second_of_time(self, at: time) -> int:
        """Return the second of the day at which the shop's clocks show a time."""
        return self.second_of_moment(datetime.combine(self.day, at, self._zone))

    def second_of_moment(self, moment: datetime) -> int:
        """Return the second of the day of a moment, rounded up; below 0 for a moment before the day."""
        return -((self._begins - moment.astimezone(UTC)) // timedelta(seconds=1))

    def moment_of_second(self, second: int) -> datetime:
        """Return the moment of a second of the day."""
        return self._begins + timedelta(seconds=second)


class LocatedDelivery(NamedTuple):
    """A delivery with its point. `names` are those by which a travel matrix may name the point."""

    delivery: PendingDelivery
    names: tuple[str, ...]
    point: Point


class Depot(NamedTuple):
    """The day of one warehouse: its vehicles and deliveries, in the order of the routing problem."""

    warehouse_id: str
    point: Point
    vehicles: list[Vehicle]
    deliveries: list[LocatedDelivery]


def locate_deliveries(
    deliveries: Sequence[PendingDelivery], places: Mapping[str, Point]
) -> tuple[list[LocatedDelivery], list[UnassignedDelivery]]:
    """Find the point of each delivery.

    It is the shipment's own coordinates, else the most specific known region of its address.
    """
    located, unassigned = [], []
    for delivery in deliveries:
        shipment_id = str(delivery.shipment_id)
        if delivery.point is not None:
            located.append(LocatedDelivery(delivery, (shipment_id,), delivery.point))
        elif place := locate(delivery.address, places):
            located.append(LocatedDelivery(delivery, (shipment_id, place[0]), place[1]))
        else:
            reason = f"its region has no coordinates; import one of {', '.join(region_keys(delivery.address))}"
            unassigned.append(UnassignedDelivery(delivery.shipment_id, delivery.warehouse_id, reason))
    return located, unassigned


def group_by_depot(
    located: Sequence[LocatedDelivery], vehicles: Sequence[Vehicle], points: Mapping[str, Point]
) -> list[Depot]:
    """Group deliveries and vehicles by warehouse; each group is a routing problem of its own."""
    return [
        Depot(
            warehouse_id,
            points[warehouse_id],
            [vehicle for vehicle in vehicles if vehicle.warehouse_id == warehouse_id],
            [each for each in located if each.delivery.warehouse_id == warehouse_id],
        )
        for warehouse_id in sorted({each.delivery.warehouse_id for each in located})
    ]


def available_vehicles(vehicles: Sequence[Vehicle], day: Day, now: datetime) -> list[Vehicle]:
    """Return the vehicles whose shift is not over."""
    return [vehicle for vehicle in vehicles if day.second_of_time(vehicle.shift_to) > day.second_of_moment(now)]


def build_problem(depot: Depot, day: Day, now: datetime, stop_s: int, travel: TravelMatrix) -> RoutingProblem:
    """Build the routing problem of a depot.

    A delivery without a window may be made during the shift of any vehicle.

    `stop_s` is the time that each stop takes.
    """
    vehicles = [_routing_vehicle(vehicle, day, day.second_of_moment(now)) for vehicle in depot.vehicles]
    first_start = min((vehicle.start for vehicle in vehicles), default=0)
    last_end = max((vehicle.end for vehicle in vehicles), default=_DAY_S)
    visits = [
        Visit(
            load=delivery.weight_g,
            opens=first_start if delivery.deliver_from is None else day.second_of_time(delivery.deliver_from),
            closes=last_end if delivery.deliver_to is None else day.second_of_time(delivery.deliver_to),
            service=stop_s,
        )
        for delivery, _, _ in depot.deliveries
    ]
    points = [((depot.warehouse_id,), depot.point), *((names, point) for _, names, point in depot.deliveries)]
    return RoutingProblem(vehicles, visits, *travel.matrices(points))


def _routing_vehicle(vehicle: Vehicle, day: Day, now: int) -> RoutingVehicle:
    start, end = max(day.second_of_time(vehicle.shift_from), now), day.second_of_time(vehicle.shift_to)
    if vehicle.break_from is None or vehicle.break_to is None or vehicle.break_s is None:
        return RoutingVehicle(vehicle.capacity_g, start, end)
    break_from = max(day.second_of_time(vehicle.break_from), now)
    break_to = day.second_of_time(vehicle.break_to)
    if break_from > break_to - vehicle.break_s:  # a driver who has not departed by now has had the break
        return RoutingVehicle(vehicle.capacity_g, start, end)
    return RoutingVehicle(vehicle.capacity_g, start, end, break_from, break_to, vehicle.break_s)


def build_routes(depot: Depot, problem: RoutingProblem, solution: Solution, day: Day, ids: IdGenerator) -> list[Route]:
    """Build the routes of a solution. A vehicle that is not used has none."""
    return [
        _build_route(depot, problem, vehicle, sequence, times, day, ids)
        for vehicle, sequence, times in zip(depot.vehicles, solution.sequences, solution.times, strict=True)
        if times is not None
    ]


def _build_route(
    depot: Depot,
    problem: RoutingProblem,
    vehicle: Vehicle,
    sequence: Sequence[int],
    times: RouteTimes,
    day: Day,
    ids: IdGenerator,
) -> Route:
    return Route(
        route_id=ids.new(),
        day=day.day,
        vehicle_id=vehicle.vehicle_id,
        warehouse_id=depot.warehouse_id,
        depot=depot.point,
        status="planned",
        distance_m=sum_distance(problem, sequence),
        start_at=day.moment_of_second(times.start),
        end_at=day.moment_of_second(times.end),
        break_at=None if times.break_at is None else day.moment_of_second(times.break_at),
        stops=[
            _build_stop(seq, depot.deliveries[visit], problem.visits[visit], begins, day)
            for seq, (visit, begins) in enumerate(zip(sequence, times.begins, strict=True), start=1)
        ],
    )


def _build_stop(seq: int, located: LocatedDelivery, visit: Visit, begins: int, day: Day) -> Stop:
    return Stop(
        seq=seq,
        shipment_id=located.delivery.shipment_id,
        tracking_no=located.delivery.tracking_no,
        weight_g=located.delivery.weight_g,
        point=located.point,
        window_from=day.moment_of_second(visit.opens),
        window_to=day.moment_of_second(visit.closes),
        arrive_at=day.moment_of_second(begins),
        leave_at=day.moment_of_second(begins + visit.service),
    )


def list_unassigned(depot: Depot, solution: Solution) -> list[UnassignedDelivery]:
    """List the deliveries of a depot that are on no route, with the reasons."""
    return [
        UnassignedDelivery(depot.deliveries[visit].delivery.shipment_id, depot.warehouse_id, reason)
        for visit, reason in sorted(solution.unassigned.items())
    ]
