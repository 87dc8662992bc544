"""The routing problem of a depot and day as plain numbers, and the messages of the solver process.

Any units will do if they are used throughout; the fleet uses grams, metres, and seconds since the day began.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

DEPOT = 0


class RoutingVehicle(msgspec.Struct, frozen=True):
    """The limits of a route: capacity, shift and break.

    The three break fields are set together or not at all.
    """

    capacity: int
    start: int
    end: int
    break_from: int | None = None
    break_to: int | None = None
    break_length: int = 0


class Visit(msgspec.Struct, frozen=True):
    """A stop to make: it must begin within its window and takes `service`."""

    load: int
    opens: int
    closes: int
    service: int


class RoutingProblem(msgspec.Struct, frozen=True):
    """Matrices are by point, from row to column: point 0 is the depot, point i + 1 is `visits[i]`."""

    vehicles: list[RoutingVehicle]
    visits: list[Visit]
    distances: list[list[int]]
    durations: list[list[int]]


class RouteTimes(NamedTuple):
    """The times of a route; `begins[i]` is the begin of the i-th visit in its sequence."""

    start: int
    end: int
    begins: list[int]
    break_at: int | None


class Solution(msgspec.Struct, frozen=True):
    """The sequence of visits of each vehicle with its times, and the reason of each unassigned visit.

    Visits are indices of `RoutingProblem.visits`. A vehicle that is not used has an empty sequence and no times.
    """

    sequences: list[list[int]]
    times: list[RouteTimes | None]
    unassigned: dict[int, str]


class SolveRequest(msgspec.Struct, frozen=True):
    """A problem to solve, with the time limit of the search and its random seed."""

    problem: RoutingProblem
    time_limit_s: float
    seed: int


class SolverMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message of the solver process: the share of its time that has passed, or the solution at last."""

    share: float = 0
    solution: Solution | None = None


def sum_load(problem: RoutingProblem, sequence: Sequence[int]) -> int:
    """Return the total load of a sequence of visits."""
    return sum(problem.visits[visit].load for visit in sequence)


def sum_distance(problem: RoutingProblem, sequence: Sequence[int]) -> int:
    """Return the distance from the depot through the visits and back."""
    points = [DEPOT, *(visit + 1 for visit in sequence), DEPOT]
    return sum(problem.distances[a][b] for a, b in pairwise(points))
