"""Deadlines of a conversation: a pure function of its events, a policy and a working calendar.

Three clocks count working time. The first response runs from opening or reopening to the first reply or decision. The
decision runs to the decision or resolution, and is paused while somebody else must act. The money runs from the moment
that it is due until it has moved. Internal notes, tags and other changes are no events of clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from commerce.working_time.working_calendar import WorkingCalendar

ClockEventKind = Literal[
    "opened",
    "customer_message",
    "staff_reply",
    "pause",
    "resume",
    "decided",
    "money_due",
    "money_done",
    "resolved",
    "closed",
    "reopened",
    "merged",
]
DeadlineKind = Literal["first_response", "decision", "money"]
_NONE = timedelta()


class ClockEvent(NamedTuple):
    """An event that may start, pause or stop a clock.

    `since` is how long the customer has waited already: of `opened` for a conversation that was split off, of `merged`
    for an unanswered one that was merged into this one."""

    at: datetime
    kind: ClockEventKind
    actor: str = ""
    since: datetime | None = None


class DeadlineTimes(NamedTuple):
    """Working time that a policy allows; None: the clock only measures."""

    first_response: timedelta | None
    decision: timedelta | None
    money: timedelta | None


class ClockRun(NamedTuple):
    """A run of a clock.

    `due_at` is missing while the clock is paused in time. `worked` is working time without pauses until the stop or
    the last pause. A run that was stopped late stays late."""

    kind: DeadlineKind
    run_no: int
    started_at: datetime
    allowed: timedelta | None
    due_at: datetime | None
    is_paused: bool
    stopped_at: datetime | None
    stopped_by: str | None
    worked: timedelta
    is_late: bool


class Deadlines(NamedTuple):
    """All runs of the three clocks, and the next deadline of those that run now."""

    runs: list[ClockRun]
    due_at: datetime | None
    due_kind: DeadlineKind | None


def compute_deadlines(events: Sequence[ClockEvent], times: DeadlineTimes, calendar: WorkingCalendar) -> Deadlines:
    """Compute the deadlines after all events. Events of the same moment count in their sequence."""
    clocks = _Clocks(times, calendar)
    for event in sorted(events, key=lambda event: event.at):
        clocks.apply(event)
    runs = [run for clock in clocks.all() for run in clock.finish()]
    running = [run for run in runs if run.stopped_at is None and not run.is_paused]
    due = min(((run.due_at, run.kind) for run in running if run.due_at is not None), default=(None, None))
    return Deadlines(runs, *due)


class _Clocks:
    """The three clocks and what events do to them."""

    def __init__(self, times: DeadlineTimes, calendar: WorkingCalendar) -> None:
        self.first_response = _Clock("first_response", times.first_response, calendar)
        self.decision = _Clock("decision", times.decision, calendar)
        self.money = _Clock("money", times.money, calendar)

    def all(self) -> tuple[_Clock, ...]:
        return self.first_response, self.decision, self.money

    def apply(self, event: ClockEvent) -> None:
        """Apply an event. A customer's message alone starts nothing: words of thanks are no question."""
        match event.kind:
            case "opened" | "reopened":
                self.first_response.start(event.since or event.at)
                self.decision.start(event.since or event.at)
            case "merged" if event.since is not None:
                self.first_response.start(event.since)
            case "decided" | "resolved" | "closed":
                self.first_response.stop(event)
                self.decision.stop(event)
            case "pause":
                self.decision.pause(event.at)
            case "resume":
                self.decision.resume(event.at)
            case "staff_reply":
                self.first_response.stop(event)
            case "money_due":
                self.money.start(event.at)
            case "money_done":
                self.money.stop(event)


class _Clock:
    """The runs of a clock so far, and the one that has not stopped."""

    def __init__(self, kind: DeadlineKind, allowed: timedelta | None, calendar: WorkingCalendar) -> None:
        self._kind = kind
        self._allowed = allowed
        self._calendar = calendar
        self._runs: list[ClockRun] = []
        self._started_at: datetime | None = None
        self._running_since: datetime | None = None
        self._worked = _NONE
        self._due_at: datetime | None = None
        self._is_late = False

    def start(self, at: datetime) -> None:
        """Start a run, or let the one that runs without a pause begin earlier."""
        if self._started_at is not None and not (at < self._started_at == self._running_since):
            return
        self._started_at, self._running_since, self._worked, self._due_at = at, None, _NONE, None
        self._is_late = False
        self.resume(at)

    def resume(self, at: datetime) -> None:
        if self._started_at is None or self._running_since is not None:
            return
        self._running_since = at
        if self._allowed is not None and self._due_at is None:
            self._due_at = self._calendar.add(at, self._allowed - self._worked)

    def pause(self, at: datetime) -> None:
        self._halt(at)
        if not self._is_late:  # the moment at which it was missed is kept
            self._due_at = None

    def stop(self, event: ClockEvent) -> None:
        if self._started_at is None:
            return
        self._halt(event.at)
        self._runs.append(self._run(event.at, event.actor))
        self._started_at = None

    def _halt(self, at: datetime) -> None:
        """Count until a moment. After the deadline it is late, also before support opens the next time."""
        if self._running_since is not None:
            self._worked += self._calendar.measure(self._running_since, at)
            self._running_since = None
            self._is_late = self._due_at is not None and at > self._due_at

    def finish(self) -> list[ClockRun]:
        """Return all runs, the one that has not stopped included."""
        return self._runs if self._started_at is None else [*self._runs, self._run(None, None)]

    def _run(self, stopped_at: datetime | None, stopped_by: str | None) -> ClockRun:
        assert self._started_at is not None
        is_paused = stopped_at is None and self._running_since is None
        return ClockRun(
            kind=self._kind,
            run_no=len(self._runs) + 1,
            started_at=self._started_at,
            allowed=self._allowed,
            due_at=self._due_at,
            is_paused=is_paused,
            stopped_at=stopped_at,
            stopped_by=stopped_by,
            worked=self._worked,
            is_late=self._is_late,
        )
