"""Freight for customers: templates of zones and steps, and the compiled form that charges."""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec

from commerce.freight.errors import NoFreight
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.money import MAX_MINOR, Currency
from commerce.kernel.regions import normalise_region
from commerce.kernel.types import filled_line, filled_or_empty_line

MAX_ZONES, MAX_REGIONS, MAX_STEPS = 100, 5_000, 50
"""Zones of a template, regions of all its zones together, steps of a zone."""
MAX_FEE_MINOR = 10**10
WORLD = "*"
"""Stands for every country that no zone names."""
Measure = Literal["weight", "pieces", "amount"]
UNIT_NAMES: dict[Measure, str] = {"weight": "g", "pieces": "pieces", "amount": "minor units"}

FreightName = Annotated[
    str,
    msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", description="the template's name in URLs", examples=["heavy"]),
]
Fee = Annotated[int, msgspec.Meta(ge=0, le=MAX_FEE_MINOR, description="minor units of the currency")]
Quantity = Annotated[
    int, msgspec.Meta(ge=0, le=MAX_MINOR, description="g, pieces or minor units, as `charged_by` says")
]
PositiveQuantity = Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)]
RegionName = Annotated[str, filled_or_empty_line(200)]
ZoneName = Annotated[str, filled_line(100)]


class FreightRegion(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A country, a province, or a city, without what a more specific region of the template has.

    A city without a province is found in any province of the country. The country `*` is the rest of the world.
    """

    country: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^([A-Z]{2}|\*)\Z",
            description="ISO 3166 alpha-2, or * for every country that no zone names",
            extra_json_schema={"enum": [WORLD, *sorted(COUNTRIES)]},
        ),
    ]
    province: RegionName = ""
    city: RegionName = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.country, self.province, self.city)))


class FreightStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fee above a quantity and up to another one, in the unit that the template is charged by.

    The last step of a zone may have no `up_to`: then its fee is for all above, or, with `per`, comes on top of the fee
    of the step before for each begun `per` units.
    """

    above: Quantity
    fee_minor: Fee
    up_to: Quantity | None = None
    per: PositiveQuantity | None = None


class FreightZone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Regions that cost the same.

    Free once the items for an address cost `free_from_minor` after discounts.
    """

    name: ZoneName
    regions: tuple[FreightRegion, ...]
    steps: tuple[FreightStep, ...]
    free_from_minor: Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)] | None = None


class FreightTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of a template.

    Zones are looked up by the most specific region: city, province, country, world. The fee for cash on delivery is
    charged once per order.
    """

    currency: Currency
    charged_by: Measure
    cod_fee_minor: Fee = 0
    zones: tuple[FreightZone, ...]


class FreightTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A stored template. `version` counts its changes; `actor` made the last one."""

    name: FreightName
    version: int
    changed_at: datetime
    actor: str
    terms: FreightTerms


class FreightSummary(msgspec.Struct, frozen=True):
    """A template without its zones, with how many zones it has and how many sales use it."""

    name: FreightName
    version: int
    currency: str
    charged_by: Measure
    cod_fee_minor: int
    zones: int
    sales: int
    changed_at: datetime
    actor: str


class FreightCharge(msgspec.Struct, frozen=True):
    """A fee in minor units with what led to it: zone, step, and the quantity in the unit of the template.

    The step is null where the items cost enough for free delivery.
    """

    fee_minor: int
    zone: str
    quantity: int
    step: FreightStep | None


class _CompiledZone(NamedTuple):
    """A zone for look-ups: `ends` and `fees` are of the steps with an end.

    An open step with `per` comes on top of `base_fee`. A `free_from` above all amounts is never.
    """

    zone: FreightZone
    ends: list[int]
    fees: list[int]
    free_from: int
    open_step: FreightStep | None
    base_fee: int


class CompiledFreight:
    """A template as a gateway uses it: look-ups by region and bisection of steps."""

    __slots__ = ("_measure", "_zones", "charged_by", "cod_fee_minor", "currency", "name", "version")

    def __init__(self, template: FreightTemplate) -> None:
        """Compile a template that has no faults, as `template_checks` finds them."""
        terms = template.terms
        self.name, self.version = template.name, template.version
        self.currency, self.charged_by, self.cod_fee_minor = terms.currency, terms.charged_by, terms.cod_fee_minor
        self._measure = ("weight", "pieces", "amount").index(terms.charged_by)
        self._zones: dict[tuple[str, str, str], _CompiledZone] = {}
        for zone in terms.zones:
            compiled = _compile(zone)
            for region in zone.regions:
                self._zones[region_key(region)] = compiled

    def charge(self, country: str, province: str, city: str, grams: int, pieces: int, items_minor: int) -> int:
        """Return the freight of the items for one address, in minor units of `currency`.

        `country` is an ISO code, `province` may be empty. `grams`, `pieces` and `items_minor` (after discounts) are of
        all items for the address. Never negative and at most `MAX_MINOR`. Raises `NoFreight` if no zone has the
        address, or if its steps end below the quantity.
        """
        zone = self._find_zone(country, province, city)
        if items_minor >= zone.free_from:
            return 0
        quantity = (grams, pieces, items_minor)[self._measure]
        index = bisect_left(zone.ends, quantity)
        return zone.fees[index] if index < len(zone.ends) else self._charge_above(zone, quantity)

    def explain(
        self, country: str, province: str, city: str, grams: int, pieces: int, items_minor: int
    ) -> FreightCharge:
        """Return what `charge` returns with zone and step. Raises as it does."""
        fee = self.charge(country, province, city, grams, pieces, items_minor)
        zone = self._find_zone(country, province, city)
        quantity = (grams, pieces, items_minor)[self._measure]
        step = zone.zone.steps[bisect_left(zone.ends, quantity)] if items_minor < zone.free_from else None
        return FreightCharge(fee, zone.zone.name, quantity, step)

    def _find_zone(self, country: str, province: str, city: str) -> _CompiledZone:
        zones = self._zones
        city_key = normalise_region(city)
        # Who lives in a city that is its own province may leave the province out.
        province_key = normalise_region(province) or city_key
        zone = (
            (city_key and (zones.get((country, province_key, city_key)) or zones.get((country, "", city_key))))
            or zones.get((country, province_key, ""))
            or zones.get((country, "", ""))
            or zones.get((WORLD, "", ""))
        )
        if not zone:
            raise NoFreight(f"the shop does not deliver to {', '.join(filter(None, (city, province, country)))}")
        return zone

    def _charge_above(self, zone: _CompiledZone, quantity: int) -> int:
        step = zone.open_step
        if step is None:
            unit = UNIT_NAMES[self.charged_by]
            raise NoFreight(f"the shop delivers up to {zone.ends[-1]} {unit} there, and this is {quantity}")
        if step.per is None:
            return step.fee_minor
        return min(zone.base_fee - (step.above - quantity) // step.per * step.fee_minor, MAX_MINOR)


def region_key(region: FreightRegion) -> tuple[str, str, str]:
    """Return what equal regions share: country and the forms of province and city, empty if absent."""
    return region.country, normalise_region(region.province), normalise_region(region.city)


def _compile(zone: FreightZone) -> _CompiledZone:
    bounded = [step for step in zone.steps if step.up_to is not None]
    fees = [step.fee_minor for step in bounded]
    return _CompiledZone(
        zone=zone,
        ends=[step.up_to for step in bounded if step.up_to is not None],
        fees=fees,
        free_from=2**63 if zone.free_from_minor is None else zone.free_from_minor,
        open_step=zone.steps[-1] if zone.steps[-1].up_to is None else None,
        base_fee=fees[-1] if fees else 0,
    )
