"""The exact timetable compared with an exhaustive search, and the solver that relies on it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.fleet.routing_problem import RouteTimes, RoutingProblem, RoutingVehicle, Visit, sum_distance, sum_load
from commerce.fleet.solver_process import solve
from commerce.fleet.timetable import compute_timetable

DAY = 24


@st.composite
def problems(draw: st.DrawFn, visits: int = 3, vehicles: int = 1) -> RoutingProblem:
    def times(maximum: int) -> st.SearchStrategy[int]:
        return st.integers(0, maximum)

    drawn_vehicles = []
    for _ in range(vehicles):
        start = draw(times(4))
        end = draw(st.integers(start, DAY))
        break_length = draw(st.none() | st.integers(1, 4))
        begins = draw(st.integers(start, end))
        if break_length is None or begins + break_length > end:
            drawn_vehicles.append(RoutingVehicle(draw(st.integers(2, 6)), start, end))
        else:
            break_to = draw(st.integers(begins + break_length, end))
            capacity = draw(st.integers(2, 6))
            drawn_vehicles.append(RoutingVehicle(capacity, start, end, begins, break_to, break_length))
    drawn_visits = []
    for _ in range(visits):
        opens = draw(times(16))
        drawn_visits.append(Visit(draw(st.integers(1, 3)), opens, opens + draw(times(8)), draw(times(2))))
    size = visits + 1
    legs = [[draw(times(4)) if a != b else 0 for b in range(size)] for a in range(size)]
    return RoutingProblem(drawn_vehicles, drawn_visits, legs, legs)


def earliest_end(problem: RoutingProblem, vehicle: RoutingVehicle, sequence: list[int]) -> int | None:
    """Find the earliest end by trying everything at each second: drive, wait, serve, or take the break."""
    legs = [0, *(visit + 1 for visit in sequence), 0]
    has_break = vehicle.break_from is not None
    now = {(0, problem.durations[legs[0]][legs[1]], not has_break)}
    at: dict[int, set[tuple[int, int, bool]]] = {vehicle.start: now}
    for second in range(vehicle.start, vehicle.end + 1):
        states, grown = at.pop(second, set()), set[tuple[int, int, bool]]()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in grown:
                continue
            grown.add(state)
            leg, left, rested = state
            home = leg == len(sequence)
            if home and left == 0 and _can_take_break(vehicle, rested, second):
                return second
            at.setdefault(second + 1, set()).add((leg, max(left - 1, 0), rested))
            if not rested and vehicle.break_from <= second <= vehicle.break_to - vehicle.break_length:  # type: ignore[operator]
                at.setdefault(second + vehicle.break_length, set()).add((leg, left, True))
            if left == 0 and not home:
                visit = problem.visits[sequence[leg]]
                if visit.opens <= second <= visit.closes:
                    after = (leg + 1, problem.durations[legs[leg + 1]][legs[leg + 2]], rested)
                    if visit.service:
                        at.setdefault(second + visit.service, set()).add(after)
                    else:
                        waiting.append(after)
    return None


def _can_take_break(vehicle: RoutingVehicle, rested: bool, second: int) -> bool:
    """Tell whether the break was taken, or can be taken at the depot."""
    if rested or vehicle.break_from is None or vehicle.break_to is None:
        return True
    return max(second, vehicle.break_from) + vehicle.break_length <= min(vehicle.break_to, vehicle.end)


def is_invalid(problem: RoutingProblem, vehicle: RoutingVehicle, sequence: list[int], times: RouteTimes) -> bool:
    """Tell whether a timetable breaks any of its rules."""
    break_ = (0, 0) if times.break_at is None else (times.break_at, times.break_at + vehicle.break_length)
    if (times.break_at is None) != (vehicle.break_from is None):
        return True
    if times.break_at is not None and not (vehicle.break_from <= break_[0] and break_[1] <= vehicle.break_to):  # type: ignore[operator]
        return True
    left, point = times.start, 0
    for visit, begins in [*zip(sequence, times.begins, strict=True), (None, times.end)]:
        to = 0 if visit is None else visit + 1
        if begins - left - overlap(break_, (left, begins)) < problem.durations[point][to]:
            return True
        point, left = to, begins
        if visit is not None:
            stop = problem.visits[visit]
            left = begins + stop.service
            if not stop.opens <= begins <= stop.closes or overlap(break_, (begins, left)):
                return True
    return times.start < vehicle.start or times.end > vehicle.end


def overlap(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_timetable_equals_exhaustive_search(problem: RoutingProblem) -> None:
    (vehicle,) = problem.vehicles
    for sequence in ([0], [0, 1], [2, 1, 0]):
        times, end = compute_timetable(problem, vehicle, sequence), earliest_end(problem, vehicle, sequence)
        assert (None if times is None else times.end) == end
        assert times is None or not is_invalid(problem, vehicle, sequence, times)


@settings(max_examples=25, deadline=None)
@given(problems(visits=5, vehicles=2))
def test_solve_keeps_all_rules_and_explains_unassigned_visits(problem: RoutingProblem) -> None:
    solution = solve(problem, 0.01, 1, lambda share: None)
    assigned = [visit for sequence in solution.sequences for visit in sequence]
    assert sorted([*assigned, *solution.unassigned]) == list(range(5))
    for vehicle, sequence, times in zip(problem.vehicles, solution.sequences, solution.times, strict=True):
        assert (times is None) == (not sequence)
        assert sum_load(problem, sequence) <= vehicle.capacity
        assert times is None or not is_invalid(problem, vehicle, sequence, times)
    for visit, reason in solution.unassigned.items():
        alone = any(
            vehicle.capacity >= problem.visits[visit].load and compute_timetable(problem, vehicle, [visit])
            for vehicle in problem.vehicles
        )
        assert alone == ("not enough" in reason)


def test_timetable_starts_late_for_first_window() -> None:
    problem = RoutingProblem([RoutingVehicle(9, 0, 100)], [Visit(1, 50, 60, 5)], [[0, 7], [7, 0]], [[0, 7], [7, 0]])
    assert compute_timetable(problem, problem.vehicles[0], [0]) == RouteTimes(43, 62, [50], None)
    assert sum_distance(problem, [0]) == 14


def test_solve_with_equal_breaks_and_tight_windows_assigns_all_possible_visits() -> None:
    """Four vehicles have a break from 120 to 150, and the windows of forty visits cannot absorb it."""
    vehicles = [RoutingVehicle(100, 0, 300, 120, 150, 30)] * 4
    visits = [Visit(1, 30 * (number // 4), 30 * (number // 4) + 12, 5) for number in range(40)]
    legs = [[0 if a == b else 8 for b in range(41)] for a in range(41)]
    problem = RoutingProblem(vehicles, visits, legs, legs)
    solution = solve(problem, 1, 1, lambda share: None)
    assigned = sum(map(len, solution.sequences))
    assert assigned == 36  # the four that open at 120 lie in the break
    assert not any(
        times is not None and is_invalid(problem, vehicles[0], sequence, times)
        for sequence, times in zip(solution.sequences, solution.times, strict=True)
    )
