"""Deadlines: a test for each known complaint about clocks, and a count of minutes that shares no code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.conversations.deadlines import ClockEvent, ClockRun, Deadlines, DeadlineTimes, compute_deadlines
from commerce.working_time.model import CalendarTerms
from commerce.working_time.working_calendar import WorkingCalendar

_SHANGHAI = ZoneInfo("Asia/Shanghai")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")
_OFFICE = {day: ["09:00-12:00", "13:00-18:00"] for day in _WEEKDAYS}
_CALENDAR = WorkingCalendar(msgspec.convert({"hours": _OFFICE, "public_holidays": "china"}, CalendarTerms))
_TIMES = DeadlineTimes(timedelta(hours=2), timedelta(hours=16), timedelta(hours=24))


def _at(text: str) -> datetime:
    """A moment in November or December 2026, such as `30 09:15`; the 30th is a Monday."""
    day, clock = text.split()
    month = "11" if int(day) > 15 else "12"
    return datetime.fromisoformat(f"2026-{month}-{day}T{clock}").replace(tzinfo=_SHANGHAI).astimezone(UTC)


def _events(*texts: str) -> list[ClockEvent]:
    """Build events from `30 09:15 opened`."""
    return [ClockEvent(_at(text[:8]), text[9:], "anna") for text in texts]  # type: ignore[arg-type]


def _compute(*texts: str, times: DeadlineTimes = _TIMES) -> Deadlines:
    return compute_deadlines(_events(*texts), times, _CALENDAR)


def _runs(deadlines: Deadlines, kind: str) -> list[ClockRun]:
    return [run for run in deadlines.runs if run.kind == kind]


def test_clock_after_an_answer_stops_zammad_3140() -> None:
    deadlines = _compute("30 09:00 opened", "30 10:00 staff_reply")
    [run] = _runs(deadlines, "first_response")
    assert (run.stopped_at, run.worked, run.is_late) == (_at("30 10:00"), timedelta(hours=1), False)
    assert (deadlines.due_at, deadlines.due_kind) == (_at("01 18:00"), "decision")
    answered_later = _compute("30 09:00 opened", "30 10:00 staff_reply", "01 17:00 staff_reply")
    assert _runs(answered_later, "first_response") == [run]


def test_clock_after_resolving_does_not_run_for_a_thank_you_chatwoot_10178() -> None:
    deadlines = _compute("30 09:00 opened", "30 10:00 staff_reply", "30 11:00 resolved", "30 11:05 customer_message")
    assert deadlines.due_at is None
    assert all(run.stopped_at is not None for run in deadlines.runs)
    again = ("30 11:05 reopened", "30 11:05 customer_message", "30 11:10 resolved")
    deadlines = _compute("30 09:00 opened", "30 10:00 staff_reply", "30 11:00 resolved", *again)
    assert deadlines.due_at is None
    assert [run.stopped_at for run in _runs(deadlines, "decision")] == [_at("30 11:00"), _at("30 11:10")]


def test_clock_outside_hours_does_not_run_chatwoot_13392_osticket_2131() -> None:
    # Opened on Friday evening; the two hours are over on Monday at 11.
    assert _compute("27 18:30 opened").due_at == _at("30 11:00")
    assert _compute("27 17:00 opened").due_at == _at("30 10:00")
    [run] = _runs(_compute("27 18:30 opened", "30 09:30 staff_reply"), "first_response")
    assert (run.worked, run.is_late) == (timedelta(minutes=30), False)


def test_clock_at_lunch_does_not_run_frappe_helpdesk_2212() -> None:
    assert _compute("30 11:30 opened").due_at == _at("30 14:30")
    assert _compute("30 12:10 opened").due_at == _at("30 15:00")


def test_clock_after_reopen_starts_again_and_earlier_record_stays_zammad_188() -> None:
    deadlines = _compute("30 09:00 opened", "30 10:00 staff_reply", "30 17:00 resolved", "01 09:00 reopened")
    assert (deadlines.due_at, deadlines.due_kind) == (_at("01 11:00"), "first_response")
    done, running = _runs(deadlines, "decision")
    assert (done.worked, done.stopped_at, done.is_late) == (timedelta(hours=7), _at("30 17:00"), False)
    assert (running.run_no, running.started_at, running.due_at) == (2, _at("01 09:00"), _at("02 18:00"))


def test_clock_after_merge_counts_from_the_unanswered_message_zammad_904() -> None:
    target = _events("30 09:00 opened", "30 10:30 staff_reply")
    merged = ClockEvent(_at("30 11:00"), "merged", "anna", since=_at("30 10:00"))
    deadlines = compute_deadlines([*target, merged], _TIMES, _CALENDAR)
    assert (deadlines.due_at, deadlines.due_kind) == (_at("30 12:00"), "first_response")
    assert [run.started_at for run in _runs(deadlines, "decision")] == [_at("30 09:00")]
    # Both wait: the customer who has waited longer counts. One that was answered changes nothing.
    both = compute_deadlines([*_events("30 10:15 opened"), merged], _TIMES, _CALENDAR)
    assert both.due_at == _at("30 12:00")
    earlier = compute_deadlines([*_events("30 09:15 opened"), merged], _TIMES, _CALENDAR)
    assert earlier.due_at == _at("30 11:15")
    answered = compute_deadlines([*target, merged._replace(since=None)], _TIMES, _CALENDAR)
    assert (answered.due_at, answered.due_kind) == (_at("01 18:00"), "decision")


def test_clock_of_split_conversation_counts_from_its_message() -> None:
    split = ClockEvent(_at("30 16:00"), "opened", "anna", since=_at("30 10:00"))
    assert compute_deadlines([split], _TIMES, _CALENDAR).due_at == _at("30 12:00")


def test_first_response_is_not_overruled_by_an_update_zammad_5177() -> None:
    base = ("30 09:00 opened", "30 12:30 staff_reply")
    expected = _runs(_compute(*base), "first_response")
    for kind in ("staff_reply", "customer_message", "pause", "resume", "decided", "resolved"):
        assert _runs(_compute(*base, f"01 15:00 {kind}"), "first_response") == expected


def test_late_first_reply_stays_late_and_listed_chatwoot_13392() -> None:
    deadlines = _compute("30 09:00 opened", "30 14:01 staff_reply", "30 15:00 resolved", "01 09:00 reopened")
    late, running = _runs(deadlines, "first_response")
    assert (late.is_late, late.due_at, late.worked) == (True, _at("30 11:00"), timedelta(hours=4, minutes=1))
    assert (running.is_late, running.stopped_at) == (False, None)


def test_pause_is_kept_when_the_policy_changes_glpi_6902() -> None:
    events = ("30 09:00 opened", "30 10:00 staff_reply", "30 10:00 pause", "02 10:00 resume")
    assert _compute(*events).due_at == _at("03 18:00")  # one hour was used, fifteen are left
    shorter = DeadlineTimes(timedelta(hours=1), timedelta(hours=4), None)
    assert _compute(*events, times=shorter).due_at == _at("02 14:00")


def test_decision_clock_is_paused_while_somebody_else_must_act() -> None:
    paused = _compute("30 09:00 opened", "30 10:00 staff_reply", "30 10:00 pause")
    assert (paused.due_at, paused.due_kind) == (None, None)
    [run] = _runs(paused, "decision")
    assert (run.is_paused, run.due_at, run.worked) == (True, None, timedelta(hours=1))
    twice = ("30 10:00 pause", "30 10:30 pause", "30 11:00 resume", "30 11:30 resume")
    assert _compute("30 09:00 opened", "30 10:00 staff_reply", *twice).due_at == _at("02 10:00")


def test_missed_decision_stays_missed_through_a_pause() -> None:
    events = ("23 09:00 opened", "23 09:30 staff_reply", "26 09:00 pause")
    [run] = _runs(_compute(*events), "decision")
    assert (run.is_late, run.is_paused, run.due_at) == (True, True, _at("24 18:00"))
    assert _compute(*events).due_at is None
    assert _compute(*events, "30 09:00 resume").due_at == _at("24 18:00")


def test_note_that_is_no_event_never_stops_a_clock_and_web_note_reopens_zammad_1322() -> None:
    # Internal notes do not reach the function; what the customer writes reopens, and then the clock runs.
    assert _compute("30 09:00 opened").due_kind == "first_response"
    deadlines = _compute("30 09:00 opened", "30 10:00 resolved", "30 10:05 customer_message", "30 10:05 reopened")
    assert (deadlines.due_at, deadlines.due_kind) == (_at("30 12:05") + timedelta(hours=1), "first_response")


def test_money_clock_runs_through_pauses_and_resolving_until_money_has_moved() -> None:
    events = ("30 09:00 opened", "30 10:00 decided", "30 10:00 money_due", "30 10:00 pause", "30 10:05 resolved")
    deadlines = _compute(*events)
    assert (deadlines.due_at, deadlines.due_kind) == (_at("03 10:00"), "money")
    [run] = _runs(_compute(*events, "04 10:00 money_done"), "money")
    assert (run.is_late, run.worked) == (True, timedelta(hours=32))


def test_exactly_in_time_is_not_late() -> None:
    [run] = _runs(_compute("30 09:00 opened", "30 11:00 staff_reply"), "first_response")
    assert not run.is_late


def test_reply_between_closing_and_the_next_opening_is_late_for_a_deadline_at_closing() -> None:
    # Opened at 16:00 with two hours: due at 18:00, when support closes.
    [run] = _runs(_compute("30 16:00 opened", "30 18:01 staff_reply"), "first_response")
    assert (run.due_at, run.worked, run.is_late) == (_at("30 18:00"), timedelta(hours=2), True)
    [run] = _runs(_compute("30 16:00 opened", "30 18:00 staff_reply"), "first_response")
    assert not run.is_late


def test_pause_after_closing_does_not_forget_a_deadline_at_closing() -> None:
    events = ("23 09:00 opened", "23 09:30 staff_reply", "24 18:30 pause")  # sixteen hours were over at 18:00
    [run] = _runs(_compute(*events), "decision")
    assert (run.is_late, run.due_at) == (True, _at("24 18:00"))
    assert _compute(*events, "26 09:00 resume").due_at == _at("24 18:00")
    # Paused in the moment itself: in time, and missed as soon as it goes on.
    [run] = _runs(_compute(*events[:2], "24 18:00 pause"), "decision")
    assert (run.is_late, run.due_at) == (False, None)
    assert _compute(*events[:2], "24 18:00 pause", "25 20:00 resume").due_at == _at("25 20:00")


def test_clock_without_deadline_measures() -> None:
    deadlines = _compute("30 09:00 opened", "01 18:00 staff_reply", times=DeadlineTimes(None, None, None))
    assert deadlines.due_at is None
    assert [run.worked for run in _runs(deadlines, "first_response")] == [timedelta(hours=16)]


# --- a count of minutes, with states in words, that shares no code with the function

_HOLIDAYS = {(2026, 10, day) for day in range(1, 8)} | {(2026, 9, day) for day in range(25, 28)}
_MAKE_UP_DAYS = {(2026, 9, 20), (2026, 10, 10)}


def _is_worked(moment: datetime) -> bool:
    local = moment.astimezone(_SHANGHAI)
    day = (local.year, local.month, local.day)
    if day in _HOLIDAYS or (local.weekday() > 4 and day not in _MAKE_UP_DAYS):
        return False
    return 9 <= local.hour < 12 or 13 <= local.hour < 18


class _MinuteCount:
    """Walks through the minutes with the events as words."""

    def __init__(self, allowed: dict[str, int]) -> None:
        self.allowed = allowed
        self.minutes: dict[str, int] = {}
        self.missed_at: dict[str, datetime] = {}
        self.is_paused = False
        self.stopped: list[tuple[str, int, bool]] = []

    def apply(self, word: str, moment: datetime) -> None:
        if word in ("opened", "reopened"):
            self.minutes.setdefault("first_response", 0)
            if "decision" not in self.minutes:
                self.minutes["decision"], self.is_paused = 0, False
        elif word in ("pause", "resume"):
            self.is_paused = word == "pause" and "decision" in self.minutes
        elif word == "money_due":
            self.minutes.setdefault("money", 0)
        stops = {"staff_reply": ["first_response"], "money_done": ["money"]}
        stops |= {end: ["first_response", "decision"] for end in ("decided", "resolved", "closed")}
        for kind in stops.get(word, []):
            if kind in self.minutes:
                count = self.minutes.pop(kind)
                self.stopped.append((kind, count, self.missed_at.pop(kind, moment) < moment))

    def counting(self) -> list[str]:
        return [kind for kind in self.minutes if not (kind == "decision" and self.is_paused)]

    def note_missed(self, moment: datetime) -> None:
        for kind in self.counting():
            if self.minutes[kind] == self.allowed[kind]:
                self.missed_at.setdefault(kind, moment)


def _count(events: list[tuple[datetime, str]], allowed: dict[str, int]) -> tuple[list[tuple[str, int, bool]], Any]:
    """Return (kind, minutes, is late) of each stopped run, and the first deadline that runs."""
    count, moment, pending = _MinuteCount(allowed), events[0][0], list(events)
    while True:
        while pending and pending[0][0] == moment:
            count.apply(pending.pop(0)[1], moment)
        count.note_missed(moment)
        counting = count.counting()
        if not pending and all(kind in count.missed_at for kind in counting):
            return count.stopped, min((count.missed_at[kind] for kind in counting), default=None)
        for kind in counting if _is_worked(moment) else ():
            count.minutes[kind] += 1
        moment += timedelta(minutes=1)


_WORDS = st.sampled_from(
    [
        *("customer_message", "staff_reply", "pause", "resume", "decided", "money_due", "money_done"),
        *("resolved", "reopened", "closed"),
    ]
)


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(0, 22 * 1440).map(lambda minutes: datetime(2026, 9, 17, tzinfo=UTC) + timedelta(minutes=minutes)),
    steps=st.lists(st.tuples(st.integers(0, 3_000), _WORDS), max_size=8),
    allowed=st.fixed_dictionaries({kind: st.integers(1, 1_200) for kind in ("first_response", "decision", "money")}),
)
def test_deadlines_over_holidays_pauses_and_reopens_equal_count_of_minutes(
    start: datetime, steps: list[tuple[int, str]], allowed: dict[str, int]
) -> None:
    words = [(start, "opened")]
    for minutes, word in steps:
        words.append((words[-1][0] + timedelta(minutes=minutes), word))
    times = DeadlineTimes(*(timedelta(minutes=allowed[kind]) for kind in ("first_response", "decision", "money")))
    deadlines = compute_deadlines([ClockEvent(at, word) for at, word in words], times, _CALENDAR)  # type: ignore[arg-type]
    stopped, due_at = _count(words, allowed)

    runs = [(run.kind, run.worked // timedelta(minutes=1), run.is_late) for run in deadlines.runs if run.stopped_at]
    assert sorted(runs) == sorted(stopped)
    assert deadlines.due_at == due_at
