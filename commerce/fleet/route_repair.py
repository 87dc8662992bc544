"""What no van can do at all, and making any routes into routes that the exact timetable allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from commerce.fleet.routing_problem import DEPOT, RoutingProblem, RoutingVehicle, length, load
from commerce.fleet.timetable import timetable

Order = list[int]


def infeasibility_reason(problem: RoutingProblem, index: int) -> str | None:
    """Why a call could not be made even if there were no others."""
    call, vans = problem.calls[index], problem.vans
    if not vans:
        return "no van of this warehouse is free on that day"
    strong = [van for van in vans if van.capacity >= call.load]
    if not strong:
        most = max(van.capacity for van in vans)
        return f"it weighs {call.load} g, and no free van of the warehouse carries more than {most} g"
    there = [van for van in strong if call.opens <= van.end and call.closes >= van.start]
    if not there:
        return "its window lies outside the shift of every van that can carry it"
    if not any(timetable(problem, van, [index]) for van in there):
        return "no van that can carry it gets there in its window and back within its shift"
    return None


def repair_routes(
    problem: RoutingProblem, orders: Sequence[Order], calls: Sequence[int], over: Callable[[], bool]
) -> list[Order]:
    """Take out what the exact timetable does not allow, and put in where it fits what of `calls` is on no route, until
    the time for that is over."""
    kept = [_kept(problem, van, order) for van, order in zip(problem.vans, orders, strict=True)]
    planned = {call for order in kept for call in order}
    for call in calls:
        if call not in planned and not over():
            _insert(problem, kept, call)
    return kept


def _kept(problem: RoutingProblem, van: RoutingVehicle, order: Order) -> Order:
    if load(problem, order) <= van.capacity:
        if timetable(problem, van, order):
            return order
        shorter = [order[:at] + order[at + 1 :] for at in range(len(order))]
        if healed := [one for one in shorter if timetable(problem, van, one)]:
            return min(healed, key=lambda one: length(problem, one))
    kept: Order = []
    for call in order:
        if load(problem, [*kept, call]) <= van.capacity and timetable(problem, van, [*kept, call]):
            kept.append(call)
    return kept


def _insert(problem: RoutingProblem, orders: list[Order], call: int) -> None:
    """Put a call where it makes the way longest by the least, if it fits anywhere."""
    found: tuple[int, int, Order] | None = None
    ways = problem.distances
    for index, (van, order) in enumerate(zip(problem.vans, orders, strict=True)):
        if load(problem, order) + problem.calls[call].load > van.capacity:
            continue
        points = [DEPOT, *(one + 1 for one in order), DEPOT]
        for at, (a, b) in enumerate(pairwise(points)):
            more = ways[a][call + 1] + ways[call + 1][b] - ways[a][b]
            if found is None or more < found[0]:
                longer = [*order[:at], call, *order[at:]]
                if timetable(problem, van, longer):
                    found = more, index, longer
    if found is not None:
        orders[found[1]] = found[2]
