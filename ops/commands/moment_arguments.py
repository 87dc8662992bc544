"""Moments and days on the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import typer

from commerce.kernel.moments import YEARS, LocalTimeError, parse_day, parse_local_moment
from config.settings import load
from ops.commands.console import exit_on_error, format_time, print_detail


def read_moment(text: str) -> datetime:
    """Read `now` or ISO 8601 into UTC, and print it by both clocks on standard error.

    A time without a zone is by the shop's clock. One that this clock skips or shows twice is refused with two choices.
    """
    zone = _read_zone()
    if text == "now":
        moment = datetime.now(UTC).replace(microsecond=0)
    else:
        try:
            moment = parse_local_moment(text, zone)
        except LocalTimeError as error:
            raise typer.BadParameter(str(error)) from None
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is neither `now` nor a time like 2026-11-11T00:00:00+08:00, {YEARS}"
            ) from None
    print_detail(f"{text} is {_format(moment, zone)}")
    return moment


def format_clocks(moment: datetime | None) -> str:
    """Format a moment by the shop's clock and in UTC, to the second; None becomes "never"."""
    return "never" if moment is None else _format(moment, _read_zone())


def _format(moment: datetime, zone: ZoneInfo) -> str:
    utc = f"{format_time(moment.astimezone(UTC))} UTC"
    if zone.key == "UTC":
        return f"{utc}, which is the shop's time zone"
    return f"{format_time(moment.astimezone(zone))} {zone.key}, {utc}"


def _read_zone() -> ZoneInfo:
    with exit_on_error():
        return ZoneInfo(load().shop.time_zone)
    raise AssertionError  # exit_on_error has ended the command


def read_day(text: str) -> date:
    """Read a day such as 2026-11-11."""
    try:
        return parse_day(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day like 2026-11-11, {YEARS}") from None
