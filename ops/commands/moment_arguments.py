"""Moments and days on the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime

import typer

from commerce.kernel.moments import YEARS, check_years, parse_day


def read_moment(text: str) -> datetime:
    """Read `now` or ISO 8601; a time without a zone is UTC."""
    if text == "now":
        return datetime.now(UTC).replace(microsecond=0)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        check_years(moment)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither `now` nor a time like 2026-11-11T00:00:00+08:00, {YEARS}"
        ) from None
    return moment.astimezone(UTC)


def read_day(text: str) -> date:
    """Read a day such as 2026-11-11."""
    try:
        return parse_day(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day like 2026-11-11, {YEARS}") from None
