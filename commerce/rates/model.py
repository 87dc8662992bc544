"""Rates: what a carrier charges by region and weight, and which of them fit an address."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

from commerce.kernel.address import Address

Path = tuple[str, ...]
"""A region, part by part, in small letters: ("cn", "zhejiang", "hangzhou")."""
Verdict = Literal["chosen", "not_chosen", "excluded"]


class Rate(msgspec.Struct, frozen=True):
    """A step of a carrier's rate: weights above `from_g`, up to `to_g`, for `price_minor` in the table's currency."""

    carrier: str
    region: str
    from_g: int
    to_g: int
    price_minor: int
    days: int
    cod: bool


class RateTable(msgspec.Struct, frozen=True):
    """A table that was imported; `rates` is how many steps it has."""

    table_id: int
    imported_at: datetime
    actor: str
    source: str
    currency: str
    rates: int


class CarrierCandidate(msgspec.Struct, frozen=True):
    """What became of one carrier, and why; `price` in minor units. Without a rate for the parcel it has none."""

    carrier: str
    verdict: Verdict
    reason: str
    region: str | None = None
    price: int | None = None
    days: int | None = None
    expected_on: date | None = None


class CarrierChoice(msgspec.Struct, frozen=True):
    """Who brings a parcel, and how that came about: all carriers of the table by name.

    `price` is in minor units of `currency`; `kept` says that it arrives by the promised day. Without a carrier there is
    no price and no day either.
    """

    table_id: int
    currency: str
    promised_on: date
    candidates: list[CarrierCandidate]
    on_time: bool = False
    carrier: str | None = None
    price: int | None = None
    expected_on: date | None = None


def as_path(parts: Iterable[str]) -> Path:
    """The parts of a place as regions are compared: trimmed, case-folded, without those that are left empty."""
    return tuple(folded for part in parts if (folded := part.strip().casefold()))


def path_of(address: Address) -> Path:
    """Country, province, city, district. What an address leaves out is left out: a city may follow its country."""
    return as_path((address.country, address.province, address.city, address.district))


class WeightSteps(NamedTuple):
    """A carrier's steps in one region, by weight; they begin at 0 and join."""

    region: str
    ends_g: list[int]
    rates: list[Rate]

    def at(self, weight_g: int) -> Rate | None:
        """The step for a weight, or None above the last one."""
        index = bisect_left(self.ends_g, weight_g)
        return self.rates[index] if index < len(self.rates) else None


class RateTableIndex:
    """A table in memory. It never changes, so that whoever has it may keep it.

    A carrier's rate for an address is that of its most specific region that holds the address. If that region has no
    step for a weight, the carrier does not take it: the wider region does not stand in, since a carrier that names a
    town by itself has said all that it does there.
    """

    def __init__(self, table: RateTable, rates: Iterable[Rate]) -> None:
        """`rates` in any order; their steps join, as an import has made sure."""
        self.table = table
        self._regions: dict[Path, dict[str, WeightSteps]] = {}
        for (carrier, region), steps in groupby(
            sorted(rates, key=attrgetter("carrier", "region", "from_g")), key=attrgetter("carrier", "region")
        ):
            found = list(steps)
            here = self._regions.setdefault(tuple(region.split("/")), {})
            here[carrier] = WeightSteps(region, [rate.to_g for rate in found], found)
        self.carriers = sorted({carrier for here in self._regions.values() for carrier in here})

    def carriers_for(self, address: Address) -> Mapping[str, WeightSteps]:
        """The steps that hold for an address, by carrier; those that do not serve it are missing."""
        path = path_of(address)
        found: dict[str, WeightSteps] = {}
        for depth in range(1, len(path) + 1):
            found.update(self._regions.get(path[:depth], {}))
        return found

    def steps_of(self, carrier: str) -> list[WeightSteps]:
        """All steps of a carrier, by region."""
        return sorted(here[carrier] for here in self._regions.values() if carrier in here)
