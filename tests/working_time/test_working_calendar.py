"""Working time against a count of minutes that shares no code with it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commerce.working_time.model import CalendarTerms
from commerce.working_time.public_holidays import LAST_YEAR
from commerce.working_time.working_calendar import WorkingCalendar, uncertain_from

_MINUTE = timedelta(minutes=1)
_DAY_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_OFFICE = {name: ["09:00-12:00", "13:00-18:00"] for name in _DAY_NAMES[:5]}
_ALWAYS = {name: ["00:00-24:00"] for name in _DAY_NAMES}
# As the State Council announced them for 2026 (gov.cn, 4 November 2025).
_HOLIDAYS_2026 = [
    ((1, 1), (1, 3)),
    ((2, 15), (2, 23)),
    ((4, 4), (4, 6)),
    ((5, 1), (5, 5)),
    ((6, 19), (6, 21)),
    ((9, 25), (9, 27)),
    ((10, 1), (10, 7)),
]
_MAKE_UP_DAYS_2026 = {(1, 4), (2, 14), (2, 28), (5, 9), (9, 20), (10, 10)}


def _calendar(**terms: Any) -> WorkingCalendar:
    return WorkingCalendar(msgspec.convert(terms, CalendarTerms))


def _china(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Shanghai"))


def _is_worked(terms: dict[str, Any], moment: datetime) -> bool:
    """Tell whether the clocks show working time, by the words of the terms."""
    local = moment.astimezone(ZoneInfo(terms["zone"]))
    month_day = (local.month, local.day)
    hours = terms["hours"].get(_DAY_NAMES[local.weekday()], [])
    if terms.get("public_holidays") == "china" and local.year == 2026:
        if month_day in _MAKE_UP_DAYS_2026:
            hours = terms["hours"].get("make_up_day", terms["hours"].get("monday", []))
        elif any(first <= month_day <= last for first, last in _HOLIDAYS_2026):
            hours = []
    for exception in terms.get("exceptions", []):
        if exception["day"] == local.date().isoformat():
            hours = exception.get("hours", [])
    clock = f"{local:%H:%M}"
    return any(text[:5] <= clock < text[6:] for text in hours)


def _count_minutes(terms: dict[str, Any], start: datetime, end: datetime) -> int:
    count = 0
    while start < end:
        count += _is_worked(terms, start)
        start += _MINUTE
    return count


@st.composite
def _hours(draw: st.DrawFn) -> list[str]:
    marks = sorted(draw(st.sets(st.integers(0, 96), min_size=0, max_size=6)))
    marks = marks[: len(marks) // 2 * 2]
    texts = [f"{mark // 4:02}:{mark % 4 * 15:02}" for mark in marks]
    return [f"{texts[index]}-{texts[index + 1]}" for index in range(0, len(texts), 2)]


_STARTS = st.sampled_from(
    [
        datetime(2025, 12, 29, 3, 0, tzinfo=UTC),  # the end of a year, and make-up days after it
        datetime(2026, 2, 10, 3, 0, tzinfo=UTC),  # the Spring Festival
        datetime(2026, 3, 6, 3, 0, tzinfo=UTC),  # clocks go forward in New York and Havana
        datetime(2026, 3, 27, 3, 0, tzinfo=UTC),  # clocks go forward in Berlin
        datetime(2026, 4, 3, 3, 0, tzinfo=UTC),  # clocks go back in Lord Howe and Santiago
        datetime(2026, 9, 4, 3, 0, tzinfo=UTC),  # clocks go forward at midnight in Santiago
        datetime(2026, 9, 18, 3, 0, tzinfo=UTC),  # the National Day and its make-up days
        datetime(2026, 10, 23, 3, 0, tzinfo=UTC),  # clocks go back in Berlin
        datetime(2026, 10, 30, 3, 0, tzinfo=UTC),  # clocks go back in New York and Havana
        datetime(2027, 12, 30, 3, 0, tzinfo=UTC),  # a year without known holidays
    ]
)
_ZONES = st.sampled_from(
    [
        *("Asia/Shanghai", "Europe/Berlin", "America/New_York", "America/Havana", "America/Santiago"),
        *("Australia/Lord_Howe", "Asia/Kathmandu", "UTC"),
    ]
)
_WEEKS = st.one_of(
    st.just(_OFFICE),
    st.just(_ALWAYS),
    st.fixed_dictionaries(
        {"wednesday": st.just(["00:00-04:30"])}, optional={name: _hours() for name in _DAY_NAMES if name != "wednesday"}
    ),
    st.fixed_dictionaries(
        {"sunday": st.just(["00:30-02:30", "03:00-24:00"])}, optional={"make_up_day": _hours(), "monday": _hours()}
    ),
)


@settings(deadline=None, max_examples=50)
@given(
    zone=_ZONES,
    hours=_WEEKS,
    start=_STARTS,
    before=st.integers(0, 6 * 1440),
    length=st.integers(0, 6 * 1440),
    holidays=st.sampled_from(["none", "china"]),
    exception=st.none() | st.tuples(st.integers(0, 9), _hours()),
)
@example(
    "Europe/Berlin",
    {"sunday": ["00:30-02:30", "03:00-24:00"]},
    datetime(2026, 10, 23, 3, 0, tzinfo=UTC),
    0,
    8640,
    "none",
    None,
)
def test_working_time_between_moments_equals_count_of_minutes(
    zone: str,
    hours: dict[str, list[str]],
    start: datetime,
    before: int,
    length: int,
    holidays: str,
    exception: tuple[int, list[str]] | None,
) -> None:
    terms: dict[str, Any] = {"zone": zone, "hours": hours, "public_holidays": holidays}
    if exception is not None:
        day = (start + timedelta(days=exception[0])).date()
        terms["exceptions"] = [{"day": day.isoformat(), "hours": exception[1], "reason": "an inventory"}]
    start += before * _MINUTE
    end = start + length * _MINUTE
    calendar = _calendar(**terms)

    minutes = _count_minutes(terms, start, end)
    assert calendar.measure(start, end) == minutes * _MINUTE
    assert calendar.is_open(start) == _is_worked(terms, start)

    # The moment by which so much time has passed is the end of the last minute that counts.
    due_at = calendar.add(start, minutes * _MINUTE)
    assert due_at <= end
    assert _count_minutes(terms, due_at, end) == 0
    assert minutes == 0 or _is_worked(terms, due_at - _MINUTE)

    opening = calendar.next_opening(start)
    assert opening == start if _is_worked(terms, start) else _is_worked(terms, opening)
    assert _count_minutes(terms, start, min(opening, end)) == 0


@settings(deadline=None)
@given(
    zone=_ZONES,
    hours=_WEEKS,
    start=st.integers(0, 5 * 365 * 86_400).map(lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    seconds=st.integers(1, 5_184_000),
    more=st.integers(0, 1_000_000),
)
def test_added_time_is_measured_again_and_adds_up(
    zone: str, hours: dict[str, list[str]], start: datetime, seconds: int, more: int
) -> None:
    calendar = _calendar(zone=zone, hours=hours, public_holidays="china")
    duration, rest = timedelta(seconds=seconds), timedelta(microseconds=more)
    due_at = calendar.add(start, duration)
    assert calendar.measure(start, due_at) == duration
    assert calendar.measure(start, due_at - timedelta(microseconds=1)) < duration
    assert calendar.add(due_at, rest) == calendar.add(start, duration + rest) or rest == timedelta()
    assert calendar.measure(due_at, start) == timedelta()


def test_deadline_over_the_spring_festival_skips_it_and_counts_its_make_up_days() -> None:
    calendar = _calendar(hours=_OFFICE, public_holidays="china")
    # Saturday the 14th is worked, from the 15th to the 23rd nobody is, and the Saturday after it is worked again.
    assert calendar.add(_china("2026-02-13T17:00"), timedelta(hours=9)) == _china("2026-02-14T18:00")
    assert calendar.add(_china("2026-02-13T17:00"), timedelta(hours=10)) == _china("2026-02-24T10:00")
    assert calendar.measure(_china("2026-02-28T00:00"), _china("2026-03-01T00:00")) == timedelta(hours=8)


def test_deadline_over_a_lunch_break_is_later_by_the_break() -> None:
    calendar = _calendar(hours=_OFFICE)
    assert calendar.add(_china("2026-11-30T11:30"), timedelta(hours=1)) == _china("2026-11-30T13:30")
    assert calendar.add(_china("2026-11-30T11:30"), timedelta(minutes=30)) == _china("2026-11-30T12:00")
    assert calendar.add(_china("2026-11-30T12:15"), timedelta(hours=1)) == _china("2026-11-30T14:00")


def test_calendar_around_the_clock_counts_hours_that_pass_also_when_clocks_change() -> None:
    calendar = _calendar(zone="Europe/Berlin", hours=_ALWAYS)
    start = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
    assert calendar.add(start, timedelta(days=200)) == start + timedelta(days=200)
    assert calendar.measure(start, start + timedelta(days=400)) == timedelta(days=400)


def test_own_exception_overrules_holiday_and_weekday() -> None:
    exceptions = [
        {"day": "2026-10-03", "hours": ["10:00-11:00"], "reason": "the festival"},
        {"day": "2026-10-12", "reason": "inventory"},
    ]
    calendar = _calendar(hours=_OFFICE, public_holidays="china", exceptions=exceptions)
    assert calendar.next_opening(_china("2026-10-01T08:00")) == _china("2026-10-03T10:00")
    assert calendar.measure(_china("2026-10-12T00:00"), _china("2026-10-13T00:00")) == timedelta()


def test_year_without_known_holidays_has_plain_weekends_and_is_uncertain() -> None:
    terms = msgspec.convert({"hours": _OFFICE, "public_holidays": "china"}, CalendarTerms)
    new_year = datetime(LAST_YEAR + 1, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert uncertain_from(terms) == new_year.date()
    is_weekday = new_year.weekday() < 5
    assert WorkingCalendar(terms).is_open(new_year.replace(hour=10)) == is_weekday
    entered = msgspec.structs.replace(terms, entered_until=date(LAST_YEAR + 1, 12, 31))
    assert uncertain_from(entered) == date(LAST_YEAR + 2, 1, 1)
    assert uncertain_from(msgspec.structs.replace(terms, public_holidays="none")) is None


@pytest.mark.parametrize(
    ("terms", "detail"),
    [
        ({"hours": {}}, "needs at least 4 working hours"),
        ({"hours": {"monday": ["09:00-12:59"]}}, "needs at least 4 working hours"),
        ({"hours": {**_OFFICE, "sunday": ["12:00-09:00"]}}, "do not ascend"),
        ({"hours": {**_OFFICE, "sunday": ["09:00-12:00", "11:00-13:00"]}}, "do not ascend"),
        ({"hours": {**_OFFICE, "sunday": ["22:00-02:00"]}}, "hours over midnight"),
        ({"hours": {**_OFFICE, "make_up_day": ["09:00-09:00"]}}, "do not ascend"),
        ({"hours": {**_OFFICE, "sunday": ["24:00-24:00"]}}, "regex"),
        ({"hours": {**_OFFICE, "sunday": ["9:00-10:00"]}}, "regex"),
        ({"hours": _OFFICE, "zone": "Asia/Shangri-La"}, "no time zone"),
        ({"hours": _OFFICE, "zone": "Asia"}, "no time zone"),
        ({"hours": _OFFICE, "zone": "../../etc/passwd"}, "regex"),
        ({"hours": _OFFICE, "zone": "A/../../etc/passwd"}, "regex"),
        ({"hours": _OFFICE, "public_holidays": "mars"}, "Invalid enum"),
        ({"hours": _OFFICE, "exceptions": [{"day": "2026-10-12", "reason": "a"}] * 2}, "occurs twice"),
        ({"hours": _OFFICE, "exceptions": [{"day": "1066-10-14", "reason": "a"}]}, "in the years 2000"),
        ({"hours": _OFFICE, "exceptions": [{"day": "2026-10-12", "reason": "a", "hours": ["12:00-11:00"]}]}, "ascend"),
        ({"hours": _OFFICE, "entered_until": "3026-10-12"}, "in the years 2000"),
    ],
)
def test_bad_calendar_is_refused_with_the_place(terms: dict[str, Any], detail: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=detail):
        msgspec.convert(terms, CalendarTerms)
