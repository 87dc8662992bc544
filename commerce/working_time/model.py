"""Working calendars as staff set them."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

from commerce.kernel.moments import Day, WithMoments
from commerce.kernel.types import Reason

MINUTES_PER_DAY = 1440
MIN_WEEK_MINUTES = 240
"""a calendar with less would make deadlines of years"""
_MAX_SPANS, _MAX_EXCEPTIONS = 6, 1_000

CalendarId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["default"])]
_SPAN_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z"
HoursText = Annotated[
    str,
    msgspec.Meta(pattern=_SPAN_PATTERN, description="from and until, by the zone's clocks", examples=["09:00-12:00"]),
]
Hours = Annotated[
    list[HoursText], msgspec.Meta(max_length=_MAX_SPANS, description="in ascending order, not overlapping")
]
ZoneName = Annotated[
    str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*\Z", examples=["Asia/Shanghai"])
]
PublicHolidays = Literal["none", "china"]
DaySpans = tuple[tuple[int, int], ...]
"""first minute and end of each span, counted from midnight by the zone's clocks"""


def parse_hours(hours: list[str]) -> DaySpans:
    """Parse the hours of a day. Raises `ValueError` unless they ascend without overlapping."""
    spans = tuple((_to_minutes(text[:5]), _to_minutes(text[6:])) for text in hours)
    minutes = [minute for span in spans for minute in span]
    if any(start >= end for start, end in spans) or any(first > second for first, second in pairwise(minutes)):
        raise ValueError(
            f"{', '.join(hours)} do not ascend: each must end after it begins and before the next; "
            "hours over midnight are one until 24:00 and one from 00:00"
        )
    return spans


def _to_minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


class WeekHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Working hours of each weekday; a day without any is free.

    `make_up_day` has those of a day on which people work in exchange for a holiday; left out, Monday's."""

    monday: Hours = msgspec.field(default_factory=list)
    tuesday: Hours = msgspec.field(default_factory=list)
    wednesday: Hours = msgspec.field(default_factory=list)
    thursday: Hours = msgspec.field(default_factory=list)
    friday: Hours = msgspec.field(default_factory=list)
    saturday: Hours = msgspec.field(default_factory=list)
    sunday: Hours = msgspec.field(default_factory=list)
    make_up_day: Hours | None = None

    def __post_init__(self) -> None:
        minutes = sum(end - start for day in self.weekdays() for start, end in parse_hours(day))
        if self.make_up_day is not None:
            parse_hours(self.make_up_day)
        if minutes < MIN_WEEK_MINUTES:
            raise ValueError(
                f"a week needs at least {MIN_WEEK_MINUTES // 60} working hours, and this one has {minutes} minutes"
            )

    def weekdays(self) -> tuple[list[str], ...]:
        """Return the hours from Monday to Sunday."""
        return (self.monday, self.tuesday, self.wednesday, self.thursday, self.friday, self.saturday, self.sunday)


class CalendarException(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A day with hours of its own, or free without any. It overrules weekday and public holiday."""

    day: Day
    hours: Hours = msgspec.field(default_factory=list)
    reason: Reason

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_hours(self.hours)


class CalendarTerms(WithMoments, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A working calendar.

    `public_holidays` names the country whose holidays are free and whose make-up days are worked. They are decided from
    year to year: past the last known year only weekdays count, until the library is updated, or until staff have
    entered `exceptions` and say so by `entered_until`."""

    zone: ZoneName = "Asia/Shanghai"
    hours: WeekHours
    public_holidays: PublicHolidays = "none"
    exceptions: Annotated[list[CalendarException], msgspec.Meta(max_length=_MAX_EXCEPTIONS)] = msgspec.field(
        default_factory=list
    )
    entered_until: Day | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        days = [exception.day for exception in self.exceptions]
        if len(set(days)) < len(days):
            raise ValueError("exceptions: a day occurs twice")
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError):  # it is none, a folder, or outside
            raise ValueError(f"zone: there is no time zone {self.zone!r}") from None


class StoredCalendar(msgspec.Struct, frozen=True, kw_only=True):
    """A stored calendar. From `uncertain_from` on public holidays are not known, and only weekdays count."""

    calendar_id: str
    version: int
    terms: CalendarTerms
    changed_at: datetime
    actor: str
    uncertain_from: Day | None = None
