"""Computes the earliest times of a route that keep every window, shift and break.

Driving times are fixed, so being earlier never hurts. It is therefore enough to track the earliest time of two cases
along the route: the break is still to come, or it was taken. That makes the result exact: there is no timetable only if
none exists. A break may interrupt a drive, never a visit, and may be before the start or after the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from commerce.fleet.routing_problem import DEPOT, RouteTimes, RoutingProblem, RoutingVehicle, Visit


class _Step(NamedTuple):
    """The earliest visit of a point.

    `break_at` is when the break began, if it was taken on the leg to this point.
    """

    begins: int
    leaves: int
    break_at: int | None = None


class _Break(NamedTuple):
    """The earliest and latest begin of the break, and its length.

    A vehicle without a break has one of length 0.
    """

    earliest: int
    latest: int
    length: int


_Case = tuple[_Step | None, _Step | None]
"""The step with the break still to come, and the step with the break taken."""


def compute_timetable(problem: RoutingProblem, vehicle: RoutingVehicle, sequence: Sequence[int]) -> RouteTimes | None:
    """Compute the times of a sequence of visits (indices of `problem.visits`), or None if there are none.

    The route ends as early as possible and starts no earlier than the first visit requires. Loads are not checked.
    """
    times = _compute_from(problem, vehicle, sequence, vehicle.start)
    if times is None or not sequence:
        return times
    first = sequence[0]
    later_start = problem.visits[first].opens - problem.durations[DEPOT][first + 1]
    later = _compute_from(problem, vehicle, sequence, later_start) if later_start > vehicle.start else None
    return later if later is not None and later.end <= times.end else times


def _compute_from(
    problem: RoutingProblem, vehicle: RoutingVehicle, sequence: Sequence[int], start: int
) -> RouteTimes | None:
    pause = _break_of(vehicle)
    break_at = max(vehicle.start, pause.earliest)
    rested_start = max(start, break_at + pause.length)
    with_break = _Step(rested_start, rested_start, break_at) if break_at <= pause.latest else None
    case: _Case = (_Step(start, start), with_break)
    cases, at = [case], DEPOT
    return_home = Visit(0, vehicle.start, vehicle.end, 0)
    for point, visit in [*((index + 1, problem.visits[index]) for index in sequence), (DEPOT, return_home)]:
        case = _drive(case, problem.durations[at][point], visit, pause)
        if case == (None, None):
            return None
        cases.append(case)
        at = point
    return _trace_back(vehicle, pause, cases)


def _break_of(vehicle: RoutingVehicle) -> _Break:
    if vehicle.break_from is None or vehicle.break_to is None:
        return _Break(vehicle.start, vehicle.end, 0)
    return _Break(vehicle.break_from, vehicle.break_to - vehicle.break_length, vehicle.break_length)


def _drive(case: _Case, duration: int, visit: Visit, pause: _Break) -> _Case:
    before, after = case
    still_before = None if before is None else _begin(before.leaves + duration, visit)
    now_after = None if after is None else _begin(after.leaves + duration, visit)
    # The break is taken as early as possible. If that is after arrival, the vehicle waits at the stop for it.
    if before is not None and (break_at := max(before.leaves, pause.earliest)) <= pause.latest:
        ready = max(before.leaves + duration, pause.earliest) + pause.length
        taken = _begin(ready, visit, break_at)
        if taken is not None and (now_after is None or taken.begins < now_after.begins):
            now_after = taken
    return still_before, now_after


def _begin(ready: int, visit: Visit, break_at: int | None = None) -> _Step | None:
    begins = max(ready, visit.opens)
    return _Step(begins, begins + visit.service, break_at) if begins <= visit.closes else None


def _trace_back(vehicle: RoutingVehicle, pause: _Break, cases: Sequence[_Case]) -> RouteTimes | None:
    """Choose the case that the route ends in, and walk back over the cases that led to it."""
    before, after = cases[-1]
    break_at_end = None if before is None else max(before.leaves, pause.earliest)
    if break_at_end is not None and (break_at_end > pause.latest or break_at_end + pause.length > vehicle.end):
        break_at_end = None
    if break_at_end is None and after is None:
        return None
    is_after = break_at_end is None or (after is not None and before is not None and after.leaves <= before.leaves)
    break_at, begins = (None if is_after else break_at_end), []
    for case in reversed(cases):
        step = case[is_after]
        assert step is not None
        begins.append(step.begins)
        if is_after and step.break_at is not None:
            is_after, break_at = False, step.break_at
    begins.reverse()
    return RouteTimes(begins[0], begins[-1], begins[1:-1], break_at if vehicle.break_from is not None else None)
