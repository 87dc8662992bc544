"""Rates of carriers by region and weight, and the table that finds those of an address."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.regions import to_region_path

RegionPath = tuple[str, ...]
"""The parts of a region as by `to_region_path`: ("cn", "zhejiang", "hangzhou")."""
Verdict = Literal["chosen", "not_chosen", "excluded"]


class Rate(msgspec.Struct, frozen=True):
    """A weight step of a carrier in a region: above `from_g`, up to `to_g`.

    `price_minor` is in minor units of the table's currency.
    """

    carrier: str
    region: str
    from_g: int
    to_g: int
    price_minor: int
    days: int
    cod: bool


class RateTable(msgspec.Struct, frozen=True):
    """An imported table; `rates` is its number of steps."""

    table_id: int
    imported_at: datetime
    actor: str
    source: str
    currency: str
    rates: int


class CarrierCandidate(msgspec.Struct, frozen=True):
    """A carrier as it was considered, with the verdict and its reason. `price` is in minor units.

    A carrier without a rate for the shipment has no price and no days.
    """

    carrier: str
    verdict: Verdict
    reason: str
    region: str | None = None
    price: int | None = None
    days: int | None = None
    expected_on: date | None = None


class CarrierChoice(msgspec.Struct, frozen=True):
    """The carrier chosen for a shipment, with all candidates of the table by name.

    `price` is in minor units of `currency`; `on_time` tells that it arrives by the promised day. Without a carrier
    there is neither price nor day. Kept as JSON in `shipments.carrier_choice`.
    """

    table_id: int
    currency: str
    promised_on: date
    candidates: list[CarrierCandidate]
    on_time: bool = False
    carrier: str | None = None
    price: int | None = None
    expected_on: date | None = None


def region_path_of(address: Address) -> RegionPath:
    """Return country, province, city, district without missing parts: a city may follow its country."""
    return to_region_path((address.country, address.province, address.city, address.district))


class WeightSteps(NamedTuple):
    """The steps of a carrier in one region by weight, from 0 and without gaps."""

    region: str
    ends_g: list[int]
    rates: list[Rate]

    def at(self, weight_g: int) -> Rate | None:
        """Return the step for a weight, or None above the last one."""
        index = bisect_left(self.ends_g, weight_g)
        return self.rates[index] if index < len(self.rates) else None


class RateTableIndex:
    """An immutable rate table in memory, indexed by region.

    The rate of a carrier for an address is that of its most specific region that contains the address. If that region
    has no step for a weight, the carrier does not take it. The wider region is not tried: a carrier that lists a town
    separately lists all that it offers there.
    """

    def __init__(self, table: RateTable, rates: Iterable[Rate]) -> None:
        """Index rates in any order. Their steps have no gaps, as `read_rate_table` checks."""
        self.table = table
        self._regions: dict[RegionPath, dict[str, WeightSteps]] = {}
        for (carrier, region), steps in groupby(
            sorted(rates, key=attrgetter("carrier", "region", "from_g")), key=attrgetter("carrier", "region")
        ):
            rates_of_region = list(steps)
            carriers = self._regions.setdefault(to_region_path(region.split("/")), {})
            # A table of an older version may have a region in two forms, 浙江 and 浙江省: the longer one is in force.
            carriers[carrier] = WeightSteps(region, [rate.to_g for rate in rates_of_region], rates_of_region)
        self.carriers = sorted({carrier for carriers in self._regions.values() for carrier in carriers})

    def steps_by_carrier(self, address: Address) -> Mapping[str, WeightSteps]:
        """Return the steps for an address by carrier, without carriers that do not serve it."""
        path = region_path_of(address)
        steps: dict[str, WeightSteps] = {}
        for depth in range(1, len(path) + 1):
            steps.update(self._regions.get(path[:depth], {}))
        return steps

    def steps_of(self, carrier: str) -> list[WeightSteps]:
        """Return all steps of a carrier, by region."""
        return sorted(carriers[carrier] for carriers in self._regions.values() if carrier in carriers)
