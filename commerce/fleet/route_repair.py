"""Finds visits that no vehicle can make, and repairs routes until the exact timetable allows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from commerce.fleet.routing_problem import DEPOT, RoutingProblem, RoutingVehicle, sum_distance, sum_load
from commerce.fleet.timetable import compute_timetable

VisitSequence = list[int]


def infeasibility_reason(problem: RoutingProblem, index: int) -> str | None:
    """Return the reason why a visit could not be made even if it were the only one; None if it could."""
    visit, vehicles = problem.visits[index], problem.vehicles
    if not vehicles:
        return "no vehicle of this warehouse is available on that day"
    able = [vehicle for vehicle in vehicles if vehicle.capacity >= visit.load]
    if not able:
        max_capacity = max(vehicle.capacity for vehicle in vehicles)
        return f"it weighs {visit.load} g, and no available vehicle of the warehouse carries more than {max_capacity} g"
    on_shift = [vehicle for vehicle in able if visit.opens <= vehicle.end and visit.closes >= vehicle.start]
    if not on_shift:
        return "its window lies outside the shift of every vehicle that can carry it"
    if not any(compute_timetable(problem, vehicle, [index]) for vehicle in on_shift):
        return "no vehicle that can carry it gets there in its window and back within its shift"
    return None


def repair_routes(
    problem: RoutingProblem,
    sequences: Sequence[VisitSequence],
    visits: Sequence[int],
    is_time_over: Callable[[], bool],
) -> list[VisitSequence]:
    """Remove visits that the exact timetable forbids, and insert unassigned `visits` where they fit.

    Insertion stops when `is_time_over` returns True.
    """
    repaired = [
        _remove_infeasible(problem, vehicle, sequence)
        for vehicle, sequence in zip(problem.vehicles, sequences, strict=True)
    ]
    assigned = {visit for sequence in repaired for visit in sequence}
    for visit in visits:
        if visit not in assigned and not is_time_over():
            _insert(problem, repaired, visit)
    return repaired


def _remove_infeasible(problem: RoutingProblem, vehicle: RoutingVehicle, sequence: VisitSequence) -> VisitSequence:
    if sum_load(problem, sequence) <= vehicle.capacity:
        if compute_timetable(problem, vehicle, sequence):
            return sequence
        shortened = [sequence[:at] + sequence[at + 1 :] for at in range(len(sequence))]
        if feasible := [shorter for shorter in shortened if compute_timetable(problem, vehicle, shorter)]:
            return min(feasible, key=lambda shorter: sum_distance(problem, shorter))
    kept: VisitSequence = []
    for visit in sequence:
        longer = [*kept, visit]
        if sum_load(problem, longer) <= vehicle.capacity and compute_timetable(problem, vehicle, longer):
            kept = longer
    return kept


def _insert(problem: RoutingProblem, sequences: list[VisitSequence], visit: int) -> None:
    """Insert a visit where it adds the least distance, if it fits anywhere."""
    best: tuple[int, int, VisitSequence] | None = None
    distances, point = problem.distances, visit + 1
    for index, (vehicle, sequence) in enumerate(zip(problem.vehicles, sequences, strict=True)):
        if sum_load(problem, sequence) + problem.visits[visit].load > vehicle.capacity:
            continue
        points = [DEPOT, *(each + 1 for each in sequence), DEPOT]
        for at, (a, b) in enumerate(pairwise(points)):
            added = distances[a][point] + distances[point][b] - distances[a][b]
            if best is None or added < best[0]:
                longer = [*sequence[:at], visit, *sequence[at:]]
                if compute_timetable(problem, vehicle, longer):
                    best = added, index, longer
    if best is not None:
        sequences[best[1]] = best[2]
