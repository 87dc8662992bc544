"""The process that searches: short routes for one depot, by PyVRP's iterated local search (https://pyvrp.org).

It reads a task as JSON from standard input and writes lines of JSON. Nothing else imports this file, and so PyVRP.

PyVRP knows no breaks. So each van's break is taken out of its clock: with a break of length s at time b, what is after
b comes s earlier, and a route that fits such a day fits the real one with the break put back in, unless a stop lies
across it. Where the vans' breaks differ, a stop's window is what is left of it on the clocks of all of them. That is a
guess for the search only: what counts is `timetable`, which is exact. Stops that it does not allow are taken out and
put in where they fit; if some are left, the search begins again with the breaks elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pyvrp import Client, Depot, Location, ProblemData, VehicleType
from pyvrp import solve as search

from commerce.fleet.route_repair import Order, infeasibility_reason, repair_routes
from commerce.fleet.routing_problem import RoutingProblem, RoutingVehicle, Solution, SolveRequest, SolverMessage, length
from commerce.fleet.timetable import timetable

_PRIZE_LEGS = 20
"""What leaving a stop out costs, in the longest legs: much more than the way that any single stop is worth."""
_TRIES = ((0.5, 0.7), (0.0, 0.5), (1.0, 0.9))
"""Where in its window a break is put for the search, and the share of the time left that is spent on it; the later ones
only if the one before left stops over."""


def solve(problem: RoutingProblem, seconds: float, seed: int, progress: Callable[[float], None]) -> Solution:
    """Plan as many calls as can be and then the shortest way, searching for so many seconds.

    `progress` is told the share of the time that is over. The same seed searches in the same way, but how far it comes
    depends on the machine.
    """
    left = {call: why for call in range(len(problem.calls)) if (why := infeasibility_reason(problem, call))}
    calls = [call for call in range(len(problem.calls)) if call not in left]
    began = time.perf_counter()

    def over() -> bool:
        return time.perf_counter() > began + seconds

    best: list[Order] = [[] for _ in problem.vans]
    breaks = any(van.break_from is not None for van in problem.vans)
    for place, share in _TRIES if breaks else ((0.0, 1.0),):
        if not calls:
            break
        stop = _Stop(began, seconds, share, progress)
        found = repair_routes(problem, _searched(problem, calls, place, seed, stop), calls, over)
        best = min(best, found, key=lambda orders: (len(calls) - sum(map(len, orders)), _way(problem, orders)))
        if sum(map(len, best)) == len(calls):
            break
    progress(1)
    planned = {call for order in best for call in order}
    left |= {call: "there are not enough vans to make all stops in time" for call in calls if call not in planned}
    timed = [timetable(problem, van, order) for van, order in zip(problem.vans, best, strict=True)]
    return Solution(best, [times if order else None for times, order in zip(timed, best, strict=True)], left)


class _Stop:
    """Ends a search when its share of the time is over. PyVRP asks after each step."""

    def __init__(self, began: float, seconds: float, share: float, progress: Callable[[float], None]) -> None:
        now = time.perf_counter()
        self._began, self._seconds, self._progress = began, seconds, progress
        self._until = now + max(began + seconds - now, 0) * share
        self._told = now

    def __call__(self, best_cost: float) -> bool:
        now = time.perf_counter()
        if now - self._told > 0.1:
            self._told = now
            self._progress(min((now - self._began) / self._seconds, 1))
        return now > self._until


def _searched(problem: RoutingProblem, calls: Sequence[int], place: float, seed: int, stop: _Stop) -> list[Order]:
    """What PyVRP finds: the calls of each van in order."""
    clocks = [_clock(van, place) for van in problem.vans]
    points = [0, *(call + 1 for call in calls)]
    distances = [[problem.distances[a][b] for b in points] for a in points]
    durations = [[problem.durations[a][b] for b in points] for a in points]
    prize = _PRIZE_LEGS * max(map(max, distances)) + 1
    clients = []
    for number, call in enumerate(calls, start=1):
        asked = problem.calls[call]
        opens, closes = max(clock(asked.opens) for clock in clocks), min(clock(asked.closes) for clock in clocks)
        if opens > closes:  # shorter than the breaks are apart
            opens, closes = clocks[0](asked.opens), clocks[0](asked.closes)
        clients.append(
            Client(
                number,
                [asked.load],
                service_duration=asked.service,
                tw_early=max(opens, 0),
                tw_late=max(closes, 0),
                prize=prize,
                required=False,
            )
        )
    alike: dict[RoutingVehicle, list[int]] = {}
    for index, van in enumerate(problem.vans):
        alike.setdefault(van, []).append(index)
    types = []
    for van, same in alike.items():
        clock = _clock(van, place)
        types.append(VehicleType(len(same), [van.capacity], tw_early=clock(van.start), tw_late=clock(van.end)))
    locations = [Location(0, 0)] * len(points)
    data = ProblemData(locations, clients, [Depot(0)], types, [_matrix(distances)], [_matrix(durations)])
    best = search(data, stop, seed=seed, collect_stats=False, display=False).best
    orders: list[Order] = [[] for _ in problem.vans]
    free = [list(same) for same in alike.values()]
    for route in best.routes():
        orders[free[route.vehicle_type()].pop()] = [calls[act.idx] for act in route if act.is_client()]
    return orders


def _matrix(rows: list[list[int]]) -> Any:
    """PyVRP takes what NumPy can read, its types say NumPy's own arrays."""
    return rows


def _clock(van: RoutingVehicle, place: float) -> Callable[[int], int]:
    """A van's clock without its break."""
    if van.break_from is None or van.break_to is None:
        return lambda at: at
    length_s = van.break_s
    begins = van.break_from + int((van.break_to - length_s - van.break_from) * place)
    return lambda at: min(at, max(begins, at - length_s))


def _way(problem: RoutingProblem, orders: Sequence[Order]) -> int:
    return sum(length(problem, order) for order in orders)


def main() -> None:
    """The process."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=SolveRequest)

    def say(said: SolverMessage) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()

    say(SolverMessage(solution=solve(task.problem, task.seconds, task.seed, lambda share: say(SolverMessage(share)))))


if __name__ == "__main__":
    main()
