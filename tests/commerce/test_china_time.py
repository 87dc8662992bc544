"""Moments that are written in China's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.china_time import format_china_time, parse_china_time


@given(st.integers(946_684_800, 32_503_651_199))  # the years 2000 to 2999
def test_time_formatted_and_parsed_is_the_same_moment_in_utc(seconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    text = (moment + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")
    assert format_china_time(moment) == text
    parsed = parse_china_time(text)
    assert (parsed, parsed.tzinfo) == (moment, UTC)


def test_fraction_of_a_second_is_cut_off() -> None:
    assert format_china_time(datetime(2026, 1, 1, 20, 30, 15, 999_999, tzinfo=UTC)) == "2026-01-02 04:30:15"


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        "soon",
        "2026-11-11",
        "2026-1-2 04:30:15",
        "2026-11-11 8:00:00",
        "2026-11-11  08:00:00",
        "2026-11-11 08:00:00.0",
        "2026-13-01 00:00:00",
        "2026-02-30 00:00:00",
        "2026-11-11 24:00:00",
        "2026-11-11T08:00:00",
        "0000-01-01 00:00:00",
        "２026-11-11 08:00:00",
        "0001-01-01 00:00:00",
        "1999-12-31 23:59:59",
        "3000-01-01 00:00:00",
        "9999-12-31 23:59:59",
    ],
)
def test_text_in_another_form_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match=r"is not a time like|must be in|out of range"):
        parse_china_time(text)
