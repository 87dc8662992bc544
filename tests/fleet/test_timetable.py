"""The exact timetable against every way to spend a short day, second by second; the search that relies on it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.fleet.routing_problem import RouteTimes, RoutingProblem, RoutingVehicle, Visit, sum_distance, sum_load
from commerce.fleet.solver_process import solve
from commerce.fleet.timetable import compute_timetable

DAY = 24


@st.composite
def problems(draw: st.DrawFn, calls: int = 3, vans: int = 1) -> RoutingProblem:
    def times(most: int) -> st.SearchStrategy[int]:
        return st.integers(0, most)

    made = []
    for _ in range(vans):
        start = draw(times(4))
        end = draw(st.integers(start, DAY))
        rest = draw(st.none() | st.integers(1, 4))
        begins = draw(st.integers(start, end))
        if rest is None or begins + rest > end:
            made.append(RoutingVehicle(draw(st.integers(2, 6)), start, end))
        else:
            made.append(
                RoutingVehicle(draw(st.integers(2, 6)), start, end, begins, draw(st.integers(begins + rest, end)), rest)
            )
    asked = []
    for _ in range(calls):
        opens = draw(times(16))
        asked.append(Visit(draw(st.integers(1, 3)), opens, opens + draw(times(8)), draw(times(2))))
    size = calls + 1
    ways = [[draw(times(4)) if a != b else 0 for b in range(size)] for a in range(size)]
    return RoutingProblem(made, asked, ways, ways)


def soonest(problem: RoutingProblem, van: RoutingVehicle, order: list[int]) -> int | None:
    """The earliest end, by trying all there is to do at each second: drive on, wait, serve, or rest."""
    legs = [0, *(call + 1 for call in order), 0]
    has_break = van.break_from is not None
    now = {(0, problem.durations[legs[0]][legs[1]], not has_break)}
    at: dict[int, set[tuple[int, int, bool]]] = {van.start: now}
    for second in range(van.start, van.end + 1):
        states, grown = at.pop(second, set()), set[tuple[int, int, bool]]()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in grown:
                continue
            grown.add(state)
            leg, left, rested = state
            home = leg == len(order)
            if home and left == 0 and _rested(van, rested, second):
                return second
            at.setdefault(second + 1, set()).add((leg, max(left - 1, 0), rested))
            if not rested and van.break_from <= second <= van.break_to - van.break_length:  # type: ignore[operator]
                at.setdefault(second + van.break_length, set()).add((leg, left, True))
            if left == 0 and not home:
                call = problem.visits[order[leg]]
                if call.opens <= second <= call.closes:
                    after = (leg + 1, problem.durations[legs[leg + 1]][legs[leg + 2]], rested)
                    if call.service:
                        at.setdefault(second + call.service, set()).add(after)
                    else:
                        waiting.append(after)
    return None


def _rested(van: RoutingVehicle, rested: bool, second: int) -> bool:
    """It has had its break, or has time for it at home."""
    if rested or van.break_from is None or van.break_to is None:
        return True
    return max(second, van.break_from) + van.break_length <= min(van.break_to, van.end)


def wrong(problem: RoutingProblem, van: RoutingVehicle, order: list[int], times: RouteTimes) -> bool:
    """Whether a timetable breaks any of its rules."""
    pause = (0, 0) if times.break_at is None else (times.break_at, times.break_at + van.break_length)
    if (times.break_at is None) != (van.break_from is None):
        return True
    if times.break_at is not None and not (van.break_from <= pause[0] and pause[1] <= van.break_to):  # type: ignore[operator]
        return True
    left, point = times.start, 0
    for call, begins in [*zip(order, times.begins, strict=True), (None, times.end)]:
        to = 0 if call is None else call + 1
        if begins - left - common(pause, (left, begins)) < problem.durations[point][to]:
            return True
        point, left = to, begins
        if call is not None:
            asked = problem.visits[call]
            left = begins + asked.service
            if not asked.opens <= begins <= asked.closes or common(pause, (begins, left)):
                return True
    return times.start < van.start or times.end > van.end


def common(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_timetable_equals_exhaustive_search(problem: RoutingProblem) -> None:
    (van,) = problem.vehicles
    for order in ([0], [0, 1], [2, 1, 0]):
        found, best = compute_timetable(problem, van, order), soonest(problem, van, order)
        assert (None if found is None else found.end) == best
        assert found is None or not wrong(problem, van, order, found)


@settings(max_examples=25, deadline=None)
@given(problems(calls=5, vans=2))
def test_solve_keeps_all_rules_and_explains_unassigned_visits(problem: RoutingProblem) -> None:
    found = solve(problem, 0.01, 1, lambda share: None)
    calls = [call for order in found.sequences for call in order]
    assert sorted([*calls, *found.unassigned]) == list(range(5))
    for van, order, times in zip(problem.vehicles, found.sequences, found.times, strict=True):
        assert (times is None) == (not order)
        assert sum_load(problem, order) <= van.capacity
        assert times is None or not wrong(problem, van, order, times)
    for call, why in found.unassigned.items():
        alone = any(
            van.capacity >= problem.visits[call].load and compute_timetable(problem, van, [call])
            for van in problem.vehicles
        )
        assert alone == ("not enough" in why)


def test_timetable_starts_late_for_first_window() -> None:
    problem = RoutingProblem([RoutingVehicle(9, 0, 100)], [Visit(1, 50, 60, 5)], [[0, 7], [7, 0]], [[0, 7], [7, 0]])
    assert compute_timetable(problem, problem.vehicles[0], [0]) == RouteTimes(43, 62, [50], None)
    assert sum_distance(problem, [0]) == 14


def test_solve_with_equal_breaks_and_tight_windows_assigns_all_possible_visits() -> None:
    """Four vans that all rest from 120 to 150, and forty stops whose windows leave no room for being late by that."""
    vans = [RoutingVehicle(100, 0, 300, 120, 150, 30)] * 4
    calls = [Visit(1, 30 * (number // 4), 30 * (number // 4) + 12, 5) for number in range(40)]
    ways = [[0 if a == b else 8 for b in range(41)] for a in range(41)]
    problem = RoutingProblem(vans, calls, ways, ways)
    found = solve(problem, 1, 1, lambda share: None)
    planned = sum(map(len, found.sequences))
    assert planned == 36  # the four that open at 120 lie in the break
    assert not any(
        times is not None and wrong(problem, vans[0], order, times)
        for order, times in zip(found.sequences, found.times, strict=True)
    )
