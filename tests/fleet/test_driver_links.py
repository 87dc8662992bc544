"""Links of drivers: each opens one route, until the end of the day after."""

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


def forge_token(key: str = KEY, algorithm: str = "HS256", **claims: object) -> str:
    all_claims = {"aud": AUDIENCE, "sub": "AZaNV2oscACAAAAAAAAACw", "exp": int(ENDS.timestamp()), **claims}
    return jwt.encode({name: value for name, value in all_claims.items() if value is not None}, key, algorithm)


@pytest.mark.parametrize(
    "token",
    [
        forge_token("another key that is long enough too"),
        forge_token("", "none"),
        forge_token(aud="floodgate"),
        forge_token(aud=None),
        forge_token(exp=None),
        forge_token(sub=None),
        forge_token(sub="short"),
        forge_token(sub="not base 64!"),
        forge_token(sub=str(ROUTE)),
        make_link(KEY, ROUTE, DAY, ZONE)[:-2] + "AA",
        "",
        "a.b.c",
        "é" * 20,
        "x" * 5_000,
    ],
)
def test_driver_link_forged_or_malformed_is_refused(token: str) -> None:
    with pytest.raises(BadLink) as raised:
        check_link(KEY, token, NOW)
    assert KEY not in str(raised.value)


def test_driver_link_with_other_route_is_refused() -> None:
    own = make_link(KEY, ROUTE, DAY, ZONE).split(".")
    other = make_link(KEY, UUID(int=7), DAY, ZONE).split(".")
    with pytest.raises(BadLink):
        check_link(KEY, ".".join([own[0], other[1], own[2]]), NOW)
    assert check_link(KEY, forge_token(), NOW) == ROUTE  # a token with a valid signature
