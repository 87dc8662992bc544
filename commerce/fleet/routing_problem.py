"""One depot's day as the search sees it: plain numbers that go to its process and come back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

DEPOT = 0


class RoutingVehicle(msgspec.Struct, frozen=True):
    """What binds a route. Times are seconds of one clock; the break's three fields are set together or not at all."""

    capacity: int
    start: int
    end: int
    break_from: int | None = None
    break_to: int | None = None
    break_s: int = 0


class Visit(msgspec.Struct, frozen=True):
    """A stop that is to be made: it must begin within its window, and takes `service` seconds."""

    load: int
    opens: int
    closes: int
    service: int


class RoutingProblem(msgspec.Struct, frozen=True):
    """One depot's day. Matrices are by point, from row to column: 0 is the depot, i + 1 is `calls[i]`."""

    vans: list[RoutingVehicle]
    calls: list[Visit]
    distances: list[list[int]]
    durations: list[list[int]]


class Times(NamedTuple):
    """`begins[i]` is when the i-th stop of the order begins."""

    start: int
    end: int
    begins: list[int]
    break_at: int | None


class Solution(msgspec.Struct, frozen=True):
    """The calls of each van in order (empty for those that stay) with their times, and why the others are left out."""

    orders: list[list[int]]
    times: list[Times | None]
    left: dict[int, str]


class SolveRequest(msgspec.Struct, frozen=True):
    """What is to be searched, for how long, and with which seed."""

    problem: RoutingProblem
    seconds: float
    seed: int


class SolverMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the process that searches says: the share of its time that is over, at last what it found."""

    share: float = 0
    solution: Solution | None = None


def load(problem: RoutingProblem, order: Sequence[int]) -> int:
    """What the calls weigh together."""
    return sum(problem.calls[call].load for call in order)


def length(problem: RoutingProblem, order: Sequence[int]) -> int:
    """The way from the depot over the calls and back."""
    points = [DEPOT, *(call + 1 for call in order), DEPOT]
    return sum(problem.distances[a][b] for a, b in pairwise(points))
