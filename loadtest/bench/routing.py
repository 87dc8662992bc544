"""`python -m loadtest.bench.routing`: quality and speed of route planning.

A city: 200 stops, 8 vehicles with a break each, every second stop with a window of two hours; against two greedy
planners, one that always goes on to the nearest stop that can still be met, and one that takes the stop that can begin
first. And R101 of Solomon's problems ("Algorithms for the vehicle routing and scheduling problems with time window
constraints", Operations Research 35(2), 1987), against the best known result: 1650.80 with 19 vehicles, distances not
rounded (https://www.sintef.no/projectweb/top/vrptw/100-customers/).
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from commerce.fleet.geography import TravelMatrix
from commerce.fleet.model import Point
from commerce.fleet.routing_problem import (
    DEPOT,
    RouteTimes,
    RoutingProblem,
    RoutingVehicle,
    SolveRequest,
    Visit,
    sum_distance,
    sum_load,
)
from commerce.fleet.solver_client import solve_in_subprocess
from commerce.fleet.timetable import compute_timetable
from commerce.kernel.standard_streams import open_standard_streams
from loadtest.bench.machine import describe_machine
from ops.commands.console import print_line, print_table
from ops.commands.safe_console import Table

Sequences = list[list[int]]
"""visits by vehicle, in driving order"""
SOLOMON = Path(__file__).parent / "solomon_r101.csv"
BEST_KNOWN_DISTANCE, SOLOMON_VEHICLES = 1650.80, 19
_SCALE = 10_000
"""units per unit of Solomon's distances, which are not whole

Durations are rounded up, so that none is too short.
"""
_HOUR_S = 3_600


class _PlannedRoutes(NamedTuple):
    sequences: Sequences
    times: Sequence[RouteTimes | None]
    seconds: float


def create_city(seed: int, stops: int = 200, vehicles: int = 8) -> RoutingProblem:
    """Return random stops around a depot, more of them near it.

    Metres and seconds; detours and speed as the fleet plans with them.
    """
    chance = random.Random(seed)  # noqa: S311  # a benchmark needs the same stops again
    points = [Point(30.25, 120.15)]
    visits = []
    for number in range(stops):
        radius_km, angle = 12 * math.sqrt(chance.random()) * chance.uniform(0.4, 1), chance.uniform(0, 2 * math.pi)
        latitude = 30.25 + radius_km * math.sin(angle) / 111.2
        points.append(Point(latitude, 120.15 + radius_km * math.cos(angle) / 96.1))
        opens, closes = 8 * _HOUR_S, 18 * _HOUR_S
        if number % 2:
            opens = (8 + chance.randrange(8)) * _HOUR_S
            closes = opens + 2 * _HOUR_S
        visits.append(Visit(chance.randrange(500, 20_000), opens, closes, 240))
    vehicle = RoutingVehicle(500_000, 8 * _HOUR_S, 18 * _HOUR_S, 11 * _HOUR_S + 1_800, 14 * _HOUR_S, 2_700)
    matrices = TravelMatrix(25).matrices([((), point) for point in points])
    return RoutingProblem([vehicle] * vehicles, visits, *matrices)


def read_solomon(file: Path = SOLOMON, vehicles: int = SOLOMON_VEHICLES) -> RoutingProblem:
    """Read a problem of Solomon's from a CSV file: x, y, demand, ready, due; first the depot."""
    with file.open(encoding="utf-8", newline="") as lines:
        depot, *customers = [[int(value) for value in row] for row in list(csv.reader(lines))[1:]]
    points = (depot, *customers)
    distances = [[math.dist(a[:2], b[:2]) * _SCALE for b in points] for a in points]
    return RoutingProblem(
        [RoutingVehicle(200, 0, depot[4] * _SCALE)] * vehicles,
        [Visit(demand, ready * _SCALE, due * _SCALE, 10 * _SCALE) for _, _, demand, ready, due in customers],
        [[round(distance) for distance in row] for row in distances],
        [[math.ceil(distance) for distance in row] for row in distances],
    )


def plan_greedily(problem: RoutingProblem, rank: Callable[[int, int, RouteTimes], tuple[int, int]]) -> Sequences:
    """Plan one vehicle after the other, always on to the lowest ranked stop that it can still meet.

    `rank` gets the distance to the stop, the begin of the visit, and the times of the route.
    """
    open_visits, sequences = set(range(len(problem.visits))), Sequences()
    for vehicle in problem.vehicles:
        sequence: list[int] = []
        while True:
            point = sequence[-1] + 1 if sequence else DEPOT
            candidates = [
                (rank(problem.distances[point][visit + 1], times.begins[-1], times), visit)
                for visit in sorted(open_visits)
                if sum_load(problem, [*sequence, visit]) <= vehicle.capacity
                and (times := compute_timetable(problem, vehicle, [*sequence, visit]))
            ]
            if not candidates:
                break
            sequence.append(min(candidates)[1])
            open_visits.discard(sequence[-1])
        sequences.append(sequence)
    return sequences


def count_broken_rules(problem: RoutingProblem, sequences: Sequences, all_times: Sequence[RouteTimes | None]) -> int:
    """Count the broken rules: repeated visits, windows, loads, shifts, breaks, and legs driven too fast."""
    all_visits = [visit for sequence in sequences for visit in sequence]
    broken = len(all_visits) - len(set(all_visits))
    for vehicle, sequence, times in zip(problem.vehicles, sequences, all_times, strict=True):
        if sequence:
            assert times is not None
            broken += _count_broken_on_route(problem, vehicle, sequence, times)
    return broken


def _count_broken_on_route(
    problem: RoutingProblem, vehicle: RoutingVehicle, sequence: list[int], times: RouteTimes
) -> int:
    visits = [problem.visits[visit] for visit in sequence]
    ends = [begin + visit.service for visit, begin in zip(visits, times.begins, strict=True)]
    break_at = times.break_at or 0
    pause = (break_at, break_at + (vehicle.break_length if times.break_at is not None else 0))
    is_over_limit = sum_load(problem, sequence) > vehicle.capacity
    broken = int(times.start < vehicle.start or times.end > vehicle.end or is_over_limit)
    broken += sum(not visit.opens <= begin <= visit.closes for visit, begin in zip(visits, times.begins, strict=True))
    if vehicle.break_from is not None and vehicle.break_to is not None:
        broken += times.break_at is None or not (vehicle.break_from <= pause[0] and pause[1] <= vehicle.break_to)
    broken += sum(_overlap(pause, visit_time) > 0 for visit_time in zip(times.begins, ends, strict=True))
    points = [DEPOT, *(visit + 1 for visit in sequence), DEPOT]
    for (a, b), left, reached in zip(pairwise(points), [times.start, *ends], [*times.begins, times.end], strict=True):
        broken += reached - left - _overlap(pause, (left, reached)) < problem.durations[a][b]
    return broken


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


async def _solve(problem: RoutingProblem, seconds: float, seed: int) -> _PlannedRoutes:
    started = time.perf_counter()
    solution = await solve_in_subprocess(SolveRequest(problem, seconds, seed), lambda share: None)
    return _PlannedRoutes(solution.sequences, solution.times, time.perf_counter() - started)


def _plan_greedily_both(problem: RoutingProblem) -> _PlannedRoutes:
    """Return the better result of the two greedy planners: more stops first, then the shorter distance."""
    started = time.perf_counter()
    results = [
        plan_greedily(problem, lambda distance, begin, _: (distance, begin)),
        plan_greedily(problem, lambda distance, begin, _: (begin, distance)),
    ]
    best = min(results, key=lambda sequences: (-sum(map(len, sequences)), _total_distance(problem, sequences)))
    times = [
        compute_timetable(problem, vehicle, sequence) for vehicle, sequence in zip(problem.vehicles, best, strict=True)
    ]
    return _PlannedRoutes(best, times, time.perf_counter() - started)


def _total_distance(problem: RoutingProblem, sequences: Sequences) -> int:
    return sum(sum_distance(problem, sequence) for sequence in sequences)


async def run(seeds: Sequence[int], time_limits_s: Sequence[float]) -> None:
    """Run all measurements and print the tables."""
    print_line(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}")
    print_table(await _measure_city(seeds, time_limits_s))
    print_table(await _measure_solomon(seeds, time_limits_s))


async def _measure_city(seeds: Sequence[int], time_limits_s: Sequence[float]) -> Table:
    table = Table(
        *("city", "planner", "time", "stops", "unassigned", "vehicles", "distance", "rules broken"),
        title="200 stops, 8 vehicles",
    )
    for seed in seeds:
        problem = create_city(seed)
        rows = [("greedy", _plan_greedily_both(problem))]
        rows += [(f"plan, {limit_s:g} s", await _solve(problem, limit_s, seed)) for limit_s in time_limits_s]
        for name, planned in rows:
            stops = sum(map(len, planned.sequences))
            table.add_row(
                str(seed),
                name,
                f"{planned.seconds:.1f} s",
                str(stops),
                str(len(problem.visits) - stops),
                str(sum(map(bool, planned.sequences))),
                f"{_total_distance(problem, planned.sequences) / 1_000:.1f} km",
                str(count_broken_rules(problem, planned.sequences, planned.times)),
            )
    return table


async def _measure_solomon(seeds: Sequence[int], time_limits_s: Sequence[float]) -> Table:
    table = Table(
        *("seed", "time", "unassigned", "vehicles", "distance", "gap", "rules broken"),
        title="Solomon R101, 19 vehicles",
    )
    problem = read_solomon()
    for seed in seeds:
        for limit_s in time_limits_s:
            planned = await _solve(problem, limit_s, seed)
            distance = _total_distance(problem, planned.sequences) / _SCALE
            unassigned = len(problem.visits) - sum(map(len, planned.sequences))
            table.add_row(
                str(seed),
                f"{planned.seconds:.1f} s",
                str(unassigned),
                str(sum(map(bool, planned.sequences))),
                f"{distance:.2f}",
                "" if unassigned else f"{max(distance / BEST_KNOWN_DISTANCE - 1, 0):.2%}",
                str(count_broken_rules(problem, planned.sequences, planned.times)),
            )
    return table


def main() -> None:
    """Parse the options and run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.routing", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 20], help="of the search, in each run")
    options = parser.parse_args()
    asyncio.run(run(options.seeds, options.seconds))


if __name__ == "__main__":
    open_standard_streams()
    main()
