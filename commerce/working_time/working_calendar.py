"""Arithmetic with working time.

A moment is working time if the clocks of the calendar's zone show a time within the hours of that day. So an hour that
these clocks skip does not count, and one that they show twice counts twice. The spans of a year are computed once, in
UTC with running totals: adding and measuring are binary searches, however long the time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from commerce.working_time.model import CalendarTerms, DaySpans, parse_hours
from commerce.working_time.public_holidays import LAST_YEAR, special_day

_NONE, _DAY, _SECOND = timedelta(), timedelta(days=1), timedelta(seconds=1)


class _Year(NamedTuple):
    """Working spans of a year in UTC. `totals` has the working time until the end of each span."""

    starts: list[datetime]
    ends: list[datetime]
    totals: list[timedelta]

    @property
    def total(self) -> timedelta:
        return self.totals[-1] if self.totals else _NONE

    def measure_until(self, moment: datetime) -> timedelta:
        """Measure the working time of the year before a moment."""
        index = bisect_right(self.starts, moment) - 1
        if index < 0:
            return _NONE
        return self.totals[index] - max(_NONE, self.ends[index] - moment)


class WorkingCalendar:
    """A calendar that computes. Moments need a zone; results are in UTC.

    From the day `uncertain_from` on its public holidays are not known."""

    def __init__(self, terms: CalendarTerms) -> None:
        self.uncertain_from = uncertain_from(terms)
        self._zone = ZoneInfo(terms.zone)
        self._has_holidays = terms.public_holidays == "china"
        hours = terms.hours
        self._weekdays = [parse_hours(day) for day in hours.weekdays()]
        self._make_up_day = parse_hours(hours.monday if hours.make_up_day is None else hours.make_up_day)
        self._exceptions = {exception.day: parse_hours(exception.hours) for exception in terms.exceptions}
        self._years: dict[int, _Year] = {}

    def add(self, moment: datetime, duration: timedelta) -> datetime:
        """Return the first moment by which `duration` of working time has passed since `moment`.

        With no duration that is `moment`, also outside working time."""
        if duration <= _NONE:
            return moment.astimezone(UTC)
        year_no = self._year_no(moment)
        year = self._year(year_no)
        left = year.measure_until(moment) + duration
        while left > year.total:
            left -= year.total
            year_no += 1
            year = self._year(year_no)
        index = bisect_left(year.totals, left)
        return year.ends[index] - (year.totals[index] - left)

    def measure(self, start: datetime, end: datetime) -> timedelta:
        """Measure the working time between two moments; none if the end is not after the start."""
        if end <= start:
            return _NONE
        first, last = self._year_no(start), self._year_no(end)
        whole_years = sum((self._year(year_no).total for year_no in range(first, last)), _NONE)
        return whole_years + self._year(last).measure_until(end) - self._year(first).measure_until(start)

    def is_open(self, moment: datetime) -> bool:
        """Tell whether a moment is working time. The end of a span is not."""
        year = self._year(self._year_no(moment))
        index = bisect_right(year.starts, moment) - 1
        return index >= 0 and moment < year.ends[index]

    def next_opening(self, moment: datetime) -> datetime:
        """Return the first moment of working time from `moment` on."""
        if self.is_open(moment):
            return moment.astimezone(UTC)
        year_no = self._year_no(moment)
        while True:
            year = self._year(year_no)
            index = bisect_left(year.starts, moment)
            if index < len(year.starts):
                return year.starts[index]
            year_no += 1

    def hours_on(self, day: date) -> DaySpans:
        """Return the hours of a day: its exception's, else by public holiday, else its weekday's."""
        if day in self._exceptions:
            return self._exceptions[day]
        special = special_day(day) if self._has_holidays else None
        if special == "holiday":
            return ()
        return self._make_up_day if special == "make_up_day" else self._weekdays[day.weekday()]

    def local_day(self, moment: datetime) -> date:
        """Return the day that the zone's clocks show."""
        return moment.astimezone(self._zone).date()

    def _year_no(self, moment: datetime) -> int:
        return self.local_day(moment).year

    def _year(self, year_no: int) -> _Year:
        year = self._years.get(year_no)
        if year is None:
            year = self._years[year_no] = self._compute_year(year_no)
        return year

    def _compute_year(self, year_no: int) -> _Year:
        year, total, day = _Year([], [], []), _NONE, date(year_no, 1, 1)
        while day.year == year_no:
            for start, end in self._convert(day, self.hours_on(day)):
                total += end - start
                year.starts.append(start)
                year.ends.append(end)
                year.totals.append(total)
            day += _DAY
        return year

    def _convert(self, day: date, spans: DaySpans) -> Iterator[tuple[datetime, datetime]]:
        """Yield the spans of a day in UTC: apart before and after a change of the zone's clocks."""
        if not spans:
            return
        midnight = datetime.combine(day, time(), UTC)
        for start, end in self._even_parts(day):
            offset = self._offset(start)
            for first, last in spans:
                span_start = max(start, midnight + timedelta(minutes=first) - offset)
                span_end = min(end, midnight + timedelta(minutes=last) - offset)
                if span_start < span_end:
                    yield span_start, span_end

    def _even_parts(self, day: date) -> list[tuple[datetime, datetime]]:
        """Return the day in UTC, split where the zone's offset changes."""
        start, end = (datetime.combine(at, time(), self._zone).astimezone(UTC) for at in (day, day + _DAY))
        offset = self._offset(start)
        if start >= end or offset == self._offset(end - _SECOND):
            return [(start, end)]
        before, after = 0, int((end - start).total_seconds()) - 1
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(start + timedelta(seconds=middle)) == offset:
                before = middle
            else:
                after = middle
        change = start + timedelta(seconds=after)
        return [(start, change), (change, end)]

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or _NONE


def uncertain_from(terms: CalendarTerms) -> date | None:
    """Return the first day whose public holidays are not known, if the calendar follows any."""
    if terms.public_holidays == "none":
        return None
    library_ends = date(LAST_YEAR + 1, 1, 1)
    return library_ends if terms.entered_until is None else max(library_ends, terms.entered_until + _DAY)
