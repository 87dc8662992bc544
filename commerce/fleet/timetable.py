"""When a van is where, if it calls in a given order: the earliest times that keep every window, shift and break.

Driving times are fixed, so being earlier never hurts, and it is enough to carry the earliest time of two cases along
the way: the break is still to come, or it has been taken. That makes the answer exact: None is said only where no
timetable exists. A break may interrupt a drive, never a stop; it may also be before the start or after the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from commerce.fleet.routing_problem import DEPOT, RoutingProblem, RoutingVehicle, Times, Visit


class _Step(NamedTuple):
    """A point as it is reached at the earliest. `pause` is when the break began, if it was taken on the way here."""

    begins: int
    leaves: int
    pause: int | None = None


class _Rest(NamedTuple):
    """The break: when it may begin, and how long it is. A van without one has one of no length."""

    earliest: int
    latest: int
    length: int


_Case = tuple[_Step | None, _Step | None]
"""The break is still to come; it has been taken."""


def timetable(problem: RoutingProblem, van: RoutingVehicle, order: Sequence[int]) -> Times | None:
    """The times of calls (indices of `problem.calls`) in this order. Loads are not looked at.

    The van ends as early as it can, and does not start earlier than it must for its first stop.
    """
    found = _from(problem, van, order, van.start)
    if found is None or not order:
        return found
    first = order[0]
    late = problem.calls[first].opens - problem.durations[DEPOT][first + 1]
    later = _from(problem, van, order, late) if late > van.start else None
    return later if later is not None and later.end <= found.end else found


def _from(problem: RoutingProblem, van: RoutingVehicle, order: Sequence[int], start: int) -> Times | None:
    rest = _rest(van)
    before = max(van.start, rest.earliest)
    rested = max(start, before + rest.length)
    case: _Case = (_Step(start, start), _Step(rested, rested, before) if before <= rest.latest else None)
    trail, at = [case], DEPOT
    home = Visit(0, van.start, van.end, 0)
    for point, call in [*((call + 1, problem.calls[call]) for call in order), (DEPOT, home)]:
        case = _driven(case, problem.durations[at][point], call, rest)
        if case == (None, None):
            return None
        trail.append(case)
        at = point
    return _times(van, rest, trail)


def _rest(van: RoutingVehicle) -> _Rest:
    if van.break_from is None or van.break_to is None:
        return _Rest(van.start, van.end, 0)
    return _Rest(van.break_from, van.break_to - van.break_s, van.break_s)


def _driven(case: _Case, drive: int, call: Visit, rest: _Rest) -> _Case:
    plain, rested = case
    still = None if plain is None else _begin(plain.leaves + drive, call)
    had = None if rested is None else _begin(rested.leaves + drive, call)
    # As early as it may be: if that is after the van has arrived, it waits at the door for its break.
    if plain is not None and (pause := max(plain.leaves, rest.earliest)) <= rest.latest:
        now = _begin(max(plain.leaves + drive, rest.earliest) + rest.length, call, pause)
        if now is not None and (had is None or now.begins < had.begins):
            had = now
    return still, had


def _begin(ready: int, call: Visit, pause: int | None = None) -> _Step | None:
    begins = max(ready, call.opens)
    return _Step(begins, begins + call.service, pause) if begins <= call.closes else None


def _times(van: RoutingVehicle, rest: _Rest, trail: Sequence[_Case]) -> Times | None:
    """Choose how it ends, and walk back over the cases that led there."""
    plain, rested = trail[-1]
    after = None if plain is None else max(plain.leaves, rest.earliest)
    if after is not None and (after > rest.latest or after + rest.length > van.end):
        after = None
    if after is None and rested is None:
        return None
    resting = after is None or (rested is not None and plain is not None and rested.leaves <= plain.leaves)
    pause, begins = (None if resting else after), []
    for case in reversed(trail):
        step = case[resting]
        assert step is not None
        begins.append(step.begins)
        if resting and step.pause is not None:
            resting, pause = False, step.pause
    begins.reverse()
    return Times(begins[0], begins[-1], begins[1:-1], pause if van.break_from is not None else None)
