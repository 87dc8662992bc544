"""Finds the coordinates of addresses by region, and the distances and travel times between points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import asin, cos, radians, sin, sqrt

from commerce.fleet.model import Point
from commerce.kernel.address import Address
from commerce.kernel.regions import to_region_path

EARTH_RADIUS_M = 6_371_009
"""Mean radius of the Earth (IUGG)."""
DETOUR_FACTOR = 1.4
"""Length of a road relative to the great circle.

Measured: 1.2 between random points of a city (Newell 1980, after
https://en.wikibooks.org/wiki/Transportation_Geography_and_Network_Science/Circuity), 1.22 to 1.44 in the regions of
South Korea (Kim, Shin, Lee and Suh 2015). The upper end is used, since a vehicle should rather be early than late.
"""

Leg = tuple[int, int]
"""Distance in metres, travel time in seconds."""
TravelLegs = Mapping[tuple[str, str], Leg]
"""Legs by the names of their ends, as `fleet_csv.read_travel_matrix` reads them."""
NamedPoint = tuple[Sequence[str], Point]
"""A point with its names, the most specific first: a shipment id or a region, a warehouse id."""


def region_key(*parts: str) -> str:
    """Return the key of a region: its parts in the form of `to_region_path`."""
    return "/".join(to_region_path(parts))


def region_keys(address: Address) -> list[str]:
    """Return the keys of all regions of an address, the most specific first.

    The postcode comes after the district.
    """
    named = to_region_path((address.province, address.city, address.district))
    nested = [region_key(address.country, *named[:count]) for count in range(len(named), -1, -1)]
    if not to_region_path([address.postcode]):
        return nested
    after = 1 if to_region_path([address.district]) else 0
    return [*nested[:after], region_key(address.country, address.postcode), *nested[after:]]


def locate(address: Address, places: Mapping[str, Point]) -> tuple[str, Point] | None:
    """Return the most specific region of an address that is in `places`, with its point."""
    return next(((key, places[key]) for key in region_keys(address) if key in places), None)


def great_circle_m(a: Point, b: Point) -> float:
    """Return the distance of two points on a sphere in metres, by the haversine formula."""
    latitude_a, latitude_b = radians(a.latitude), radians(b.latitude)
    longitude = radians(b.longitude - a.longitude)
    half = sin((latitude_b - latitude_a) / 2) ** 2 + cos(latitude_a) * cos(latitude_b) * sin(longitude / 2) ** 2
    return 2 * EARTH_RADIUS_M * asin(min(1.0, sqrt(half)))


class TravelMatrix:
    """Distances and travel times between points.

    They are those of a matrix if it has the leg, else estimated by the great circle.
    """

    def __init__(self, speed_kmh: float, known_legs: TravelLegs | None = None) -> None:
        self._speed_m_per_s = speed_kmh / 3.6
        self._known_legs = known_legs or {}
        self.estimated_legs = 0

    def matrices(self, points: Sequence[NamedPoint]) -> tuple[list[list[int]], list[list[int]]]:
        """Return distances (m) and travel times (s), from row to column.

        `estimated_legs` counts the legs that a given matrix lacks.
        """
        legs = [[self._leg(a, b) for b in points] for a in points]
        return [[leg[0] for leg in row] for row in legs], [[leg[1] for leg in row] for row in legs]

    def _leg(self, a: NamedPoint, b: NamedPoint) -> Leg:
        if a is b or a[1] == b[1]:
            return 0, 0
        if self._known_legs:
            for start in a[0]:
                for end in b[0]:
                    if (start, end) in self._known_legs:
                        return self._known_legs[start, end]
            self.estimated_legs += 1
        metres = great_circle_m(a[1], b[1]) * DETOUR_FACTOR
        return round(metres), round(metres / self._speed_m_per_s)
