"""The solver process: finds short routes for one depot.

The search is PyVRP's iterated local search (https://pyvrp.org). The process reads a `SolveRequest` as JSON from
standard input and writes `SolverMessage` lines. No other module imports this one, and so PyVRP.

PyVRP knows no breaks. The break of each vehicle is therefore cut out of its clock: with a break of length s at time b,
times after b move s earlier. A route that fits such a day fits the real one with the break put back, unless a visit
overlaps it. If the breaks of vehicles differ, the window of a visit is the part of it that all their clocks allow. That
guides the search only; `compute_timetable`, which is exact, decides. Visits that it does not allow are removed and
inserted where they fit. If some remain unassigned, the search starts again with the breaks at other times.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pyvrp import Client, Depot, Location, ProblemData, VehicleType
from pyvrp import solve as run_search

from commerce.fleet.route_repair import VisitSequence, infeasibility_reason, repair_routes
from commerce.fleet.routing_problem import (
    RoutingProblem,
    RoutingVehicle,
    Solution,
    SolveRequest,
    SolverMessage,
    sum_distance,
)
from commerce.fleet.timetable import compute_timetable

_PRIZE_LEGS = 20
"""The cost of leaving a visit out, in longest legs.

It is much more than the detour that any single visit can cost.
"""
_ATTEMPTS = ((0.5, 0.7), (0.0, 0.5), (1.0, 0.9))
"""(position of the break in its window, share of the remaining time) of each search.

A later one runs only if the one before left visits unassigned.
"""
_PROGRESS_INTERVAL_S = 0.1


def solve(
    problem: RoutingProblem, time_limit_s: float, seed: int, report_progress: Callable[[float], None]
) -> Solution:
    """Assign as many visits as possible, then minimise the distance, searching for `time_limit_s`.

    `report_progress` receives the share of the time that has passed. An equal seed searches in the same order, but how
    far the search gets depends on the machine.
    """
    unassigned = {
        visit: reason
        for visit in range(len(problem.visits))
        if (reason := infeasibility_reason(problem, visit)) is not None
    }
    visits = [visit for visit in range(len(problem.visits)) if visit not in unassigned]
    began = time.perf_counter()

    def is_time_over() -> bool:
        return time.perf_counter() > began + time_limit_s

    best: list[VisitSequence] = [[] for _ in problem.vehicles]
    has_breaks = any(vehicle.break_from is not None for vehicle in problem.vehicles)
    for position, share in _ATTEMPTS if has_breaks else ((0.0, 1.0),):
        if not visits:
            break
        stop = _StopCriterion(began, time_limit_s, share, report_progress)
        sequences = _search(problem, visits, position, seed, stop)
        repaired = repair_routes(problem, sequences, visits, is_time_over)
        best = min(best, repaired, key=lambda candidate: _cost(problem, candidate, len(visits)))
        if sum(map(len, best)) == len(visits):
            break
    report_progress(1)
    assigned = {visit for sequence in best for visit in sequence}
    too_few = "there are not enough vehicles to make all stops in time"
    unassigned |= {visit: too_few for visit in visits if visit not in assigned}
    times = [
        compute_timetable(problem, vehicle, sequence) if sequence else None
        for vehicle, sequence in zip(problem.vehicles, best, strict=True)
    ]
    return Solution(best, times, unassigned)


def _cost(problem: RoutingProblem, sequences: Sequence[VisitSequence], visit_count: int) -> tuple[int, int]:
    """Return (unassigned visits, total distance)."""
    distance = sum(sum_distance(problem, sequence) for sequence in sequences)
    return visit_count - sum(map(len, sequences)), distance


class _StopCriterion:
    """Ends a search when its share of the time has passed. PyVRP calls it after each iteration."""

    def __init__(
        self, began: float, time_limit_s: float, share: float, report_progress: Callable[[float], None]
    ) -> None:
        now = time.perf_counter()
        self._began, self._time_limit_s, self._report_progress = began, time_limit_s, report_progress
        self._until = now + max(began + time_limit_s - now, 0) * share
        self._reported_at = now

    def __call__(self, best_cost: float) -> bool:
        now = time.perf_counter()
        if now - self._reported_at > _PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._report_progress(min((now - self._began) / self._time_limit_s, 1))
        return now > self._until


def _search(
    problem: RoutingProblem, visits: Sequence[int], position: float, seed: int, stop: _StopCriterion
) -> list[VisitSequence]:
    """Run PyVRP and return the sequence of visits of each vehicle."""
    points = [0, *(visit + 1 for visit in visits)]
    distances = [[problem.distances[a][b] for b in points] for a in points]
    durations = [[problem.durations[a][b] for b in points] for a in points]
    prize = _PRIZE_LEGS * max(map(max, distances)) + 1
    indices_of: dict[RoutingVehicle, list[int]] = {}
    for index, vehicle in enumerate(problem.vehicles):
        indices_of.setdefault(vehicle, []).append(index)
    vehicle_types = []
    for vehicle, indices in indices_of.items():
        clock = _clock_without_break(vehicle, position)
        vehicle_types.append(
            VehicleType(len(indices), [vehicle.capacity], tw_early=clock(vehicle.start), tw_late=clock(vehicle.end))
        )
    data = ProblemData(
        [Location(0, 0)] * len(points),
        _clients(problem, visits, position, prize),
        [Depot(0)],
        vehicle_types,
        [_matrix(distances)],
        [_matrix(durations)],
    )
    best = run_search(data, stop, seed=seed, collect_stats=False, display=False).best
    sequences: list[VisitSequence] = [[] for _ in problem.vehicles]
    unused = [list(indices) for indices in indices_of.values()]
    for route in best.routes():
        index = unused[route.vehicle_type()].pop()
        sequences[index] = [visits[activity.idx] for activity in route if activity.is_client()]
    return sequences


def _clients(problem: RoutingProblem, visits: Sequence[int], position: float, prize: int) -> list[Client]:
    clocks = [_clock_without_break(vehicle, position) for vehicle in problem.vehicles]
    clients = []
    for location, index in enumerate(visits, start=1):
        visit = problem.visits[index]
        opens, closes = max(clock(visit.opens) for clock in clocks), min(clock(visit.closes) for clock in clocks)
        if opens > closes:  # the window is shorter than the breaks are apart
            opens, closes = clocks[0](visit.opens), clocks[0](visit.closes)
        clients.append(
            Client(
                location,
                [visit.load],
                service_duration=visit.service,
                tw_early=max(opens, 0),
                tw_late=max(closes, 0),
                prize=prize,
                required=False,
            )
        )
    return clients


def _matrix(rows: list[list[int]]) -> Any:
    """Hide the type of a matrix.

    PyVRP accepts all that NumPy can read, while its stubs require NumPy's arrays.
    """
    return rows


def _clock_without_break(vehicle: RoutingVehicle, position: float) -> Callable[[int], int]:
    """Return the function that maps a time to a vehicle's clock without its break."""
    if vehicle.break_from is None or vehicle.break_to is None:
        return lambda at: at
    length = vehicle.break_length
    begins = vehicle.break_from + int((vehicle.break_to - length - vehicle.break_from) * position)
    return lambda at: min(at, max(begins, at - length))


def main() -> None:
    """Run the process."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=SolveRequest)

    def send(message: SolverMessage) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()

    solution = solve(request.problem, request.time_limit_s, request.seed, lambda share: send(SolverMessage(share)))
    send(SolverMessage(solution=solution))


if __name__ == "__main__":
    main()
