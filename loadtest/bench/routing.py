"""`python -m loadtest.bench.routing`: how good and how fast routes are planned.

A city: 200 stops, 8 vans with a break each, every second stop with an appointment of two hours; against a planner that
always drives on to the nearest stop that can still be met, and one that takes the stop that can begin soonest. And
R101 of Solomon's problems ("Algorithms for the vehicle routing and scheduling problems with time window constraints",
Operations Research 35(2), 1987), against the best that is known: 1650.80 with 19 vans, distances not rounded
(https://www.sintef.no/projectweb/top/vrptw/100-customers/).
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

from rich.console import Console
from rich.table import Table

from commerce.fleet.geography import TravelMatrix
from commerce.fleet.model import Point
from commerce.fleet.routing_problem import (
    DEPOT,
    RoutingProblem,
    RoutingVehicle,
    SolveRequest,
    Times,
    Visit,
    length,
    load,
)
from commerce.fleet.solver_client import solve_in_subprocess
from commerce.fleet.timetable import timetable
from loadtest.bench.machine import description

Orders = list[list[int]]
SOLOMON = Path(__file__).parent / "solomon_r101.csv"
BEST_KNOWN, VANS = 1650.80, 19
_SCALE = 10_000
"""Solomon's distances are not whole: so many units are one of his. Times are rounded up, so that none is too short."""
_HOUR = 3_600


def city(seed: int, stops: int = 200, vans: int = 8) -> RoutingProblem:
    """Stops around a depot, more of them near it; metres and seconds, roads and speed as the fleet plans with them."""
    chance = random.Random(seed)  # noqa: S311  # a benchmark wants the same stops again
    points = [Point(30.25, 120.15)]
    calls = []
    for number in range(stops):
        far, angle = 12 * math.sqrt(chance.random()) * chance.uniform(0.4, 1), chance.uniform(0, 2 * math.pi)
        points.append(Point(30.25 + far * math.sin(angle) / 111.2, 120.15 + far * math.cos(angle) / 96.1))
        opens, closes = 8 * _HOUR, 18 * _HOUR
        if number % 2:
            opens = (8 + chance.randrange(8)) * _HOUR
            closes = opens + 2 * _HOUR
        calls.append(Visit(chance.randrange(500, 20_000), opens, closes, 240))
    van = RoutingVehicle(500_000, 8 * _HOUR, 18 * _HOUR, 11 * _HOUR + 1_800, 14 * _HOUR, 2_700)
    return RoutingProblem([van] * vans, calls, *TravelMatrix(25).matrices([((), point) for point in points]))


def solomon(file: Path = SOLOMON, vans: int = VANS) -> RoutingProblem:
    """A problem of Solomon's, from a file of x, y, demand, ready, due; the first line is the depot."""
    with file.open(encoding="utf-8", newline="") as lines:
        depot, *customers = [[int(value) for value in row] for row in list(csv.reader(lines))[1:]]
    ways = [[math.dist(a[:2], b[:2]) * _SCALE for b in (depot, *customers)] for a in (depot, *customers)]
    return RoutingProblem(
        [RoutingVehicle(200, 0, depot[4] * _SCALE)] * vans,
        [Visit(demand, ready * _SCALE, due * _SCALE, 10 * _SCALE) for _, _, demand, ready, due in customers],
        [[round(way) for way in row] for row in ways],
        [[math.ceil(way) for way in row] for row in ways],
    )


def nearest(problem: RoutingProblem, rank: Callable[[int, int, Times], tuple[int, int]]) -> Orders:
    """One van after the other drives on to the stop that `rank` puts first, of those that it can still meet."""
    open_calls, orders = set(range(len(problem.calls))), Orders()
    for van in problem.vans:
        order: list[int] = []
        while True:
            at = order[-1] + 1 if order else DEPOT
            ways = [
                (rank(problem.distances[at][call + 1], times.begins[-1], times), call)
                for call in sorted(open_calls)
                if load(problem, [*order, call]) <= van.capacity and (times := timetable(problem, van, [*order, call]))
            ]
            if not ways:
                break
            order.append(min(ways)[1])
            open_calls.discard(order[-1])
        orders.append(order)
    return orders


def broken(problem: RoutingProblem, orders: Orders, all_times: Sequence[Times | None]) -> int:
    """How many rules are broken: windows, loads, shifts, breaks, ways driven too fast."""
    faults = len([call for order in orders for call in order]) - len({call for order in orders for call in order})
    for van, order, times in zip(problem.vans, orders, all_times, strict=True):
        if not order:
            continue
        assert times is not None
        calls = [problem.calls[call] for call in order]
        pause = (times.break_at or 0, (times.break_at or 0) + (van.break_s if times.break_at is not None else 0))
        faults += times.start < van.start or times.end > van.end or sum(call.load for call in calls) > van.capacity
        faults += sum(not call.opens <= at <= call.closes for call, at in zip(calls, times.begins, strict=True))
        if van.break_from is not None and van.break_to is not None:
            faults += times.break_at is None or not (van.break_from <= pause[0] and pause[1] <= van.break_to)
        faults += sum(_common(pause, (at, at + call.service)) > 0 for call, at in zip(calls, times.begins, strict=True))
        leaves = [times.start, *(at + call.service for call, at in zip(calls, times.begins, strict=True))]
        points = [DEPOT, *(call + 1 for call in order), DEPOT]
        for (a, b), left, reached in zip(pairwise(points), leaves, [*times.begins, times.end], strict=True):
            faults += reached - left - _common(pause, (left, reached)) < problem.durations[a][b]
    return faults


def _common(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


async def _planned(problem: RoutingProblem, seconds: float, seed: int) -> tuple[Orders, Sequence[Times | None], float]:
    began = time.perf_counter()
    found = await solve_in_subprocess(SolveRequest(problem, seconds, seed), lambda share: None)
    return found.orders, found.times, time.perf_counter() - began


def _nearest(problem: RoutingProblem) -> tuple[Orders, Sequence[Times | None], float]:
    """The better of the two: the one that leaves out less, then the shorter."""
    began = time.perf_counter()
    both = [
        nearest(problem, lambda way, begins, _: (way, begins)),
        nearest(problem, lambda way, begins, _: (begins, way)),
    ]
    best = min(both, key=lambda orders: (-sum(map(len, orders)), _way(problem, orders)))
    times = [timetable(problem, van, order) for van, order in zip(problem.vans, best, strict=True)]
    return best, times, time.perf_counter() - began


def _way(problem: RoutingProblem, orders: Orders) -> int:
    return sum(length(problem, order) for order in orders)


async def run(seeds: Sequence[int], seconds: Sequence[float]) -> None:
    """Print the figures."""
    console = Console(width=110)
    console.print(f"{datetime.now(UTC):%Y-%m-%d}, {description()}", highlight=False)
    table = Table(
        "city", "planner", "time", "stops", "left over", "vans", "way", "rules broken", title="200 stops, 8 vans"
    )
    for seed in seeds:
        problem = city(seed)
        rows = [("nearest", _nearest(problem))]
        rows += [(f"plan, {given:g} s", await _planned(problem, given, seed)) for given in seconds]
        for name, (orders, times, took) in rows:
            stops = sum(map(len, orders))
            table.add_row(
                str(seed),
                name,
                f"{took:.1f} s",
                str(stops),
                str(len(problem.calls) - stops),
                str(sum(map(bool, orders))),
                f"{_way(problem, orders) / 1_000:.1f} km",
                str(broken(problem, orders, times)),
            )
    console.print(table)
    table = Table("seed", "time", "left over", "vans", "way", "gap", "rules broken", title="Solomon R101, 19 vans")
    problem = solomon()
    for seed in seeds:
        for given in seconds:
            orders, times, took = await _planned(problem, given, seed)
            way, left = _way(problem, orders) / _SCALE, len(problem.calls) - sum(map(len, orders))
            table.add_row(
                str(seed),
                f"{took:.1f} s",
                str(left),
                str(sum(map(bool, orders))),
                f"{way:.2f}",
                "" if left else f"{max(way / BEST_KNOWN - 1, 0):.2%}",
                str(broken(problem, orders, times)),
            )
    console.print(table)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.routing", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 20], help="of searching, in each run")
    options = parser.parse_args()
    asyncio.run(run(options.seeds, options.seconds))


if __name__ == "__main__":
    main()
