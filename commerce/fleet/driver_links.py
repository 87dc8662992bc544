"""Signed links of drivers: a token that opens one route (JWT, RFC 7519, HS256).

The token is short, so that its QR code is easy to scan.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import jwt

from commerce.fleet.errors import BadLink

AUDIENCE = "floodgate-van"
"""the audience in the links that were sent already: another word would make them invalid"""
MAX_TOKEN_CHARS = 300
_ALGORITHM = "HS256"


def make_link(key: str, route_id: UUID, day: date, zone: ZoneInfo) -> str:
    """Make the token of a route.

    It is valid until the end of the day after the route's, in the warehouses' time zone.
    """
    ends = datetime.combine(day + timedelta(days=2), time(), zone)
    subject = urlsafe_b64encode(route_id.bytes).rstrip(b"=").decode()
    return jwt.encode({"aud": AUDIENCE, "sub": subject, "exp": int(ends.timestamp())}, key, _ALGORITHM)


def check_link(key: str, token: str, now: datetime) -> UUID:
    """Return the id of the route that a token opens. Raises `BadLink`."""
    if len(token) > MAX_TOKEN_CHARS:
        raise BadLink("this is not a driver's link")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "aud"], "verify_exp": False},  # `now` is the shop's clock
        )
        expires, route_id = int(claims["exp"]), UUID(bytes=urlsafe_b64decode(claims["sub"] + "=="))
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadLink("this link is not valid; scan the one on the route's sheet again") from None
    if now.timestamp() >= expires:
        raise BadLink("this link expired at the end of the day after its route's; ask for a new one")
    return route_id
