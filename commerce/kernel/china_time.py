"""China's time, in which payment providers and carriers write moments without saying so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""a fixed offset: China has had no summer time since 1991, so the machine needs no table of time zones"""
_FORMAT = "%Y-%m-%d %H:%M:%S"
_PATTERN = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


def format_china_time(moment: datetime) -> str:
    """Format a moment as `2014-07-24 03:07:50` in China's time."""
    return moment.astimezone(CHINA).strftime(_FORMAT)


def parse_china_time(text: object) -> datetime:
    """Parse `2014-07-24 03:07:50` in China's time into a moment in UTC.

    Raises `ValueError` for any other text, such as one with single digits, for a day that does not exist, and for a
    year that is not in 2000 to 2999."""
    if not isinstance(text, str) or not _PATTERN.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is not a time like 2014-07-24 03:07:50")
    return datetime.fromisoformat(text).replace(tzinfo=CHINA).astimezone(UTC)
