"""Moments and days from outside: all of them lie in the years 2000 to 2999.

Year 1 becomes `-infinity` in Postgres, and no arithmetic with zones works at either end of the calendar.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

_FIRST_YEAR, _LAST_YEAR = 2000, 2999
_START, _END = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC)
YEARS = f"in the years {_FIRST_YEAR} to {_LAST_YEAR}"
_SCHEMA = {"pattern": "^2[0-9]{3}-"}
Moment = Annotated[datetime, msgspec.Meta(tz=True, description=f"RFC 3339, {YEARS}", extra_json_schema=_SCHEMA)]
Day = Annotated[date, msgspec.Meta(description=YEARS, extra_json_schema=_SCHEMA)]


class WithMoments(msgspec.Struct, frozen=True):
    """Base of structs that take moments or days from outside. It refuses those out of bounds."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, date):
                try:
                    check_years(value)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None  # msgspec adds the path


def check_years(value: date) -> None:
    """Raise `ValueError` if a day or a moment with a zone is not in the years 2000 to 2999."""
    is_within = _START <= value < _END if isinstance(value, datetime) else _FIRST_YEAR <= value.year <= _LAST_YEAR
    if not is_within:
        raise ValueError(f"{value.isoformat()} is not {YEARS}")


def parse_moment(text: str) -> datetime:
    """Parse ISO 8601 with a zone into UTC. Raises `ValueError` for any other text and for other years."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no time zone")
    check_years(moment)
    return moment.astimezone(UTC)


def parse_local_moment(text: str, zone: ZoneInfo) -> datetime:
    """Parse ISO 8601 into UTC; a text without a zone is a time of the clocks in `zone`.

    Raises `ValueError` for any other text and for other years, and with two choices for a time that these clocks skip
    or show twice.
    """
    local = datetime.fromisoformat(text)
    if local.tzinfo is not None:
        return parse_moment(text)
    check_years(local.date())
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first != second:
        is_skipped = first > second
        choices = " or ".join(moment.astimezone(zone).isoformat() for moment in sorted((first, second)))
        reason = "does not exist: clocks go forward then" if is_skipped else "occurs twice: clocks go back then"
        raise LocalTimeError(f"{local.isoformat()} in {zone.key} {reason}; write {choices}")
    check_years(first)
    return first


class LocalTimeError(ValueError):
    """A local time that stands for no moment or for two. The text names the two choices."""


def parse_day(text: str) -> date:
    """Parse a day such as 2026-11-11. Raises `ValueError` for any other text and for other years."""
    day = date.fromisoformat(text)
    check_years(day)
    return day
