"""Deadlines computed day by day from stored events, without code of the shop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

_ZONE = ZoneInfo("Asia/Shanghai")
_FREE = {date(2026, 9, 25), *(date(2026, 10, day) for day in range(1, 8))}
"""mid-autumn and the National Day; the weekend after the first is free anyway"""
_MAKE_UP_DAYS = {date(2026, 9, 20), date(2026, 10, 10)}
_OFFICE = ((time(9), time(12)), (time(13), time(18)))
_LONG = ((time(8), time(22)),)
_ENDED, _DECIDED = ("resolved", "closed"), ("approved", "declined", "resolved")
_NONE = timedelta()


class Terms(NamedTuple):
    """Hours of working time of the three clocks, from a moment on. `is_long`: each day from 8 to 22."""

    since: datetime
    first_response: int
    decision: int
    money: int
    is_long: bool = False


class ExpectedRun(NamedTuple):
    """A run of a clock: when it is due, whether it was late, and when it stopped."""

    kind: str
    run_no: int
    started_at: datetime
    due_at: datetime | None
    is_late: bool
    stopped_at: datetime | None


def spans_of(day: date, *, is_long: bool) -> list[tuple[datetime, datetime]]:
    """Return the working hours of a day in UTC."""
    if is_long:
        hours: Sequence[tuple[time, time]] = _LONG
    else:
        is_worked = day in _MAKE_UP_DAYS or (day.weekday() < 5 and day not in _FREE)
        hours = _OFFICE if is_worked else ()
    return [
        (datetime.combine(day, start, _ZONE).astimezone(UTC), datetime.combine(day, end, _ZONE).astimezone(UTC))
        for start, end in hours
    ]


def is_working(moment: datetime, *, is_long: bool) -> bool:
    return any(start <= moment < end for start, end in spans_of(moment.astimezone(_ZONE).date(), is_long=is_long))


def _work(since: datetime, until: datetime, *, is_long: bool) -> timedelta:
    total, day = _NONE, since.astimezone(_ZONE).date()
    while day <= until.astimezone(_ZONE).date():
        for start, end in spans_of(day, is_long=is_long):
            total += max(_NONE, min(end, until) - max(start, since))
        day += timedelta(days=1)
    return total


def _after(since: datetime, left: timedelta, *, is_long: bool) -> datetime:
    if not left:
        return since  # also outside working hours
    day = since.astimezone(_ZONE).date()
    while True:
        for start, end in spans_of(day, is_long=is_long):
            begin = max(start, since)
            if end > begin:
                if end - begin >= left:
                    return begin + left
                left -= end - begin
        day += timedelta(days=1)


@dataclass
class _Stretch:
    """A run as stretches of time in which it counts; the last one may be open."""

    started_at: datetime
    stretches: list[list[datetime | None]] = field(default_factory=list)
    stopped_at: datetime | None = None

    @property
    def is_counting(self) -> bool:
        return bool(self.stretches) and self.stretches[-1][1] is None

    def end_stretch(self, at: datetime) -> None:
        if self.is_counting:
            self.stretches[-1][1] = at

    def judge(self, kind: str, number: int, terms: Terms, *, was_counting: bool = False) -> ExpectedRun:
        """Return the run with its deadline: the moment at which its stretches have used up what is allowed.

        Paused in time it has none. `was_counting`: the last stretch ended because the run stopped."""
        left, due_at, is_late = timedelta(hours=getattr(terms, kind)), None, False
        for number_of_stretch, (start, end) in enumerate(self.stretches, 1):
            assert start is not None
            ends_at = _after(start, left, is_long=terms.is_long)
            is_late = end is not None and end > ends_at
            if end is None or is_late or (was_counting and number_of_stretch == len(self.stretches)):
                due_at = ends_at
            if end is None or is_late:
                break
            left -= _work(start, end, is_long=terms.is_long)
        return ExpectedRun(kind, number, self.started_at, due_at, is_late, self.stopped_at)


class Expected(NamedTuple):
    """All runs of the clocks of a conversation, and what is due next."""

    runs: list[ExpectedRun]
    due: tuple[datetime | None, str | None]


def expect(events: Sequence[Mapping[str, Any]], policies: Sequence[Terms]) -> Expected:
    """Compute the clocks of a conversation by its stored events.

    A run that has stopped was judged by the terms of that moment, another one by the last terms."""
    clocks = _Clocks(policies)
    for event in sorted(events, key=lambda event: event["at"]):
        if event["kind"] == "merged" and "into" in event["details"]:
            return Expected(clocks.done, (None, None))
        clocks.begin(event)
        clocks.end(event)
        clocks.pause(event)
    return clocks.conclude()


class _Clocks:
    """The clocks that count, and the runs that have stopped."""

    def __init__(self, policies: Sequence[Terms]) -> None:
        self.done: list[ExpectedRun] = []
        self._policies = policies
        self._running: dict[str, _Stretch] = {}
        self._numbers: Counter[str] = Counter()

    def begin(self, event: Mapping[str, Any]) -> None:
        details, at = event["details"], event["at"]
        since = datetime.fromisoformat(details["waiting_since"]) if "waiting_since" in details else None
        if event["kind"] == "opened" or (details.get("from") in _ENDED and details.get("status") not in _ENDED):
            for kind in ("first_response", "decision"):
                self._start(kind, since if since and event["kind"] == "opened" else at)
        if event["kind"] == "merged" and since is not None:
            self._start("first_response", since)

    def end(self, event: Mapping[str, Any]) -> None:
        details, at = event["details"], event["at"]
        is_over = details.get("case_status") in _DECIDED or details.get("status") in _ENDED
        if is_over or event["kind"] == "reply" or "is_answer" in details:
            self._stop("first_response", at)
        if is_over:
            self._stop("decision", at)
        if details.get("money_state") in ("granted", "needs_other_way"):
            self._start("money", at)
        elif details.get("money_state") in ("nothing_due", "done"):
            self._stop("money", at)

    def pause(self, event: Mapping[str, Any]) -> None:
        """Pause the decision while somebody else must act. Only it is ever paused."""
        status, run = event["details"].get("status", ""), self._running.get("decision")
        if run is None or not status:
            return
        if status.startswith("waiting_"):
            run.end_stretch(event["at"])
        elif not run.is_counting:
            run.stretches.append([event["at"], None])

    def conclude(self) -> Expected:
        runs = [
            (run.judge(kind, self._numbers[kind], self._policies[-1]), run.is_counting)
            for kind, run in self._running.items()
        ]
        due = [(run.due_at, run.kind) for run, is_counting in runs if is_counting and run.due_at is not None]
        return Expected([*self.done, *(run for run, _ in runs)], min(due, default=(None, None)))

    def _start(self, kind: str, at: datetime) -> None:
        run = self._running.get(kind)
        if run is None:
            self._numbers[kind] += 1
        elif at >= run.started_at or not run.is_counting or len(run.stretches) > 1:
            return
        self._running[kind] = _Stretch(at, [[at, None]])

    def _stop(self, kind: str, at: datetime) -> None:
        run = self._running.pop(kind, None)
        if run is not None:
            is_counting = run.is_counting
            run.end_stretch(at)
            run.stopped_at = at
            terms = [terms for terms in self._policies if terms.since <= at][-1]
            self.done.append(run.judge(kind, self._numbers[kind], terms, was_counting=is_counting))
