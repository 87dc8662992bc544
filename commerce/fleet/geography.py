"""Where an address lies, by the regions that the shop knows, and how far two points are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import asin, cos, radians, sin, sqrt

from commerce.fleet.model import Point
from commerce.kernel.address import Address

EARTH_M = 6_371_009
"""The mean radius of the Earth (IUGG)."""
DETOUR = 1.4
"""A road is so much longer than the great circle. Measured were 1.2 for points anywhere in a city (Newell 1980, after
https://en.wikibooks.org/wiki/Transportation_Geography_and_Network_Science/Circuity) and 1.22 to 1.44 for the regions of
South Korea (Kim, Shin, Lee and Suh 2015); the careful end of that, since a van had better be early than late."""


def region_key(*parts: str) -> str:
    """A region's name as it is stored: small letters, trimmed, without the parts that are empty."""
    return "/".join(part for given in parts if (part := given.strip().lower()))


def region_keys(address: Address) -> list[str]:
    """The regions that an address lies in, the most specific first; its postcode comes after its district."""
    named = [part for part in (address.province, address.city, address.district) if part.strip()]
    nested = [region_key(address.country, *named[:count]) for count in range(len(named), -1, -1)]
    if not address.postcode.strip():
        return nested
    after = 1 if address.district.strip() else 0
    return [*nested[:after], region_key(address.country, address.postcode), *nested[after:]]


def locate(address: Address, known: Mapping[str, Point]) -> tuple[str, Point] | None:
    """The most specific region that is known, and where it lies."""
    return next(((name, known[name]) for name in region_keys(address) if name in known), None)


def great_circle_m(a: Point, b: Point) -> float:
    """The distance of two points on a sphere, in metres, by the haversine formula."""
    north, south = radians(a.latitude), radians(b.latitude)
    east = radians(b.longitude - a.longitude)
    half = sin((south - north) / 2) ** 2 + cos(north) * cos(south) * sin(east / 2) ** 2
    return 2 * EARTH_M * asin(min(1.0, sqrt(half)))


class TravelMatrix:
    """Distances (metres) and times (seconds) between points: by a matrix where it tells them, by the great circle where
    not.

    A point is called by names, the most specific first: a parcel's id or a region, a warehouse's id.
    """

    def __init__(self, speed_kmh: float, told: Mapping[tuple[str, str], tuple[int, int]] | None = None) -> None:
        self._speed_ms = speed_kmh / 3.6
        self._told = told or {}
        self.guessed = 0

    def matrices(self, points: Sequence[tuple[Sequence[str], Point]]) -> tuple[list[list[int]], list[list[int]]]:
        """Distances and times, from row to column. `guessed` counts the ways that a given matrix does not tell."""
        ways = [[self._way(a, b) for b in points] for a in points]
        return [[way[0] for way in row] for row in ways], [[way[1] for way in row] for row in ways]

    def _way(self, a: tuple[Sequence[str], Point], b: tuple[Sequence[str], Point]) -> tuple[int, int]:
        if a is b or a[1] == b[1]:
            return 0, 0
        if self._told:
            for start in a[0]:
                for end in b[0]:
                    if (start, end) in self._told:
                        return self._told[start, end]
            self.guessed += 1
        metres = great_circle_m(a[1], b[1]) * DETOUR
        return round(metres), round(metres / self._speed_ms)
