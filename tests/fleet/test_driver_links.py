"""A driver's link opens one route, made here, for two days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.fleet.driver_links import AUDIENCE, check_link, make_link
from commerce.fleet.errors import BadLink

KEY = "only for tests, and long enough for HS256"
ZONE = ZoneInfo("Asia/Shanghai")
ROUTE = UUID("01968d57-6a2c-7000-8000-00000000000b")
DAY = date(2031, 3, 4)
ENDS = datetime(2031, 3, 6, tzinfo=ZONE)
NOW = ENDS - timedelta(days=1)


def test_driver_link_opens_route_until_end_of_next_day() -> None:
    token = make_link(KEY, ROUTE, DAY, ZONE)
    assert len(token) <= 180
    assert check_link(KEY, token, ENDS.astimezone(UTC) - timedelta(seconds=1)) == ROUTE
    with pytest.raises(BadLink, match="ask for a new one"):
        check_link(KEY, token, ENDS)


@given(st.uuids())
def test_driver_link_is_unique_per_route(route_id: UUID) -> None:
    token = make_link(KEY, route_id, DAY, ZONE)
    assert check_link(KEY, token, NOW) == route_id
    assert (token == make_link(KEY, ROUTE, DAY, ZONE)) == (route_id == ROUTE)


def forged(key: str = KEY, algorithm: str = "HS256", **claims: object) -> str:
    given = {"aud": AUDIENCE, "sub": "AZaNV2oscACAAAAAAAAACw", "exp": int(ENDS.timestamp()), **claims}
    return jwt.encode({name: value for name, value in given.items() if value is not None}, key, algorithm)


@pytest.mark.parametrize(
    "token",
    [
        forged("another key that is long enough too"),
        forged("", "none"),
        forged(aud="floodgate"),
        forged(aud=None),
        forged(exp=None),
        forged(sub=None),
        forged(sub="short"),
        forged(sub="not base 64!"),
        forged(sub=str(ROUTE)),
        make_link(KEY, ROUTE, DAY, ZONE)[:-2] + "AA",
        "",
        "a.b.c",
        "é" * 20,
        "x" * 5_000,
    ],
)
def test_driver_link_forged_or_malformed_is_refused(token: str) -> None:
    with pytest.raises(BadLink) as refused:
        check_link(KEY, token, NOW)
    assert KEY not in str(refused.value)


def test_driver_link_with_other_route_is_refused() -> None:
    mine = make_link(KEY, ROUTE, DAY, ZONE).split(".")
    other = make_link(KEY, UUID(int=7), DAY, ZONE).split(".")
    with pytest.raises(BadLink):
        check_link(KEY, ".".join([mine[0], other[1], mine[2]]), NOW)
    assert check_link(KEY, forged(), NOW) == ROUTE  # it is the signature that counts
