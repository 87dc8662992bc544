"""Finds the faults of a freight template, each with a JSON pointer into its terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from commerce.freight.errors import InvalidFreight
from commerce.freight.model import (
    MAX_FEE_MINOR,
    MAX_REGIONS,
    MAX_STEPS,
    MAX_ZONES,
    UNIT_NAMES,
    WORLD,
    FreightRegion,
    FreightStep,
    FreightTerms,
    FreightZone,
    region_key,
)
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.money import MAX_MINOR, MoneyError, minor_digits
from commerce.kernel.types import is_filled

_MAX_REPORTED_ERRORS = 100


class TermsError(NamedTuple):
    """A fault, with the JSON pointer of the part that has it."""

    pointer: str
    detail: str


def check_terms(terms: FreightTerms) -> None:
    """Raise `InvalidFreight` with the faults of a template, if it has any."""
    errors = find_errors(terms)
    if errors:
        raise InvalidFreight(errors[0].detail, errors=[error._asdict() for error in errors[:_MAX_REPORTED_ERRORS]])


def find_errors(terms: FreightTerms) -> list[TermsError]:
    """Return the faults of a template in the order of its parts, none if it can be used."""
    return list(_find_errors(terms))


def _find_errors(terms: FreightTerms) -> Iterator[TermsError]:
    try:
        minor_digits(terms.currency)
    except MoneyError as error:
        yield TermsError("/currency", str(error))
    yield from _check_amount("/cod_fee_minor", terms.cod_fee_minor, 0, MAX_FEE_MINOR)
    yield from _check_count("/zones", "the template", "zone", len(terms.zones), MAX_ZONES)
    regions = sum(len(zone.regions) for zone in terms.zones)
    if regions > MAX_REGIONS:
        yield TermsError("/zones", f"its zones have {regions} regions, more than {MAX_REGIONS}")
    names: dict[str, int] = {}
    zone_names: dict[tuple[str, str, str], str] = {}
    unit = UNIT_NAMES[terms.charged_by]
    for number, zone in enumerate(terms.zones):
        pointer = f"/zones/{number}"
        if names.setdefault(zone.name, number) != number:
            yield TermsError(f"{pointer}/name", f"two zones have the name {zone.name!r}")
        yield from _check_zone(pointer, zone, zone_names, unit)


def _check_zone(
    pointer: str, zone: FreightZone, zone_names: dict[tuple[str, str, str], str], unit: str
) -> Iterator[TermsError]:
    """Check a zone; `zone_names` has the zones of the regions before it and is updated."""
    if not is_filled(zone.name) or zone.name != zone.name.strip():
        yield TermsError(f"{pointer}/name", f"{zone.name!r} needs a letter or digit, and no blank at its ends")
    if zone.free_from_minor is not None:
        yield from _check_amount(f"{pointer}/free_from_minor", zone.free_from_minor, 1, MAX_MINOR)
    yield from _check_count(f"{pointer}/regions", f"the zone {zone.name!r}", "region", len(zone.regions), MAX_REGIONS)
    for number, region in enumerate(zone.regions):
        place = f"{pointer}/regions/{number}"
        errors = list(_check_region(place, region))
        yield from errors
        key = region_key(region)
        if not errors and key in zone_names:
            yield TermsError(place, f"the region {region} is in the zone {zone_names[key]!r} already")
        zone_names.setdefault(key, zone.name)
    yield from _check_count(f"{pointer}/steps", f"the zone {zone.name!r}", "step", len(zone.steps), MAX_STEPS)
    yield from _check_steps(f"{pointer}/steps", zone.steps, unit)


def _check_region(pointer: str, region: FreightRegion) -> Iterator[TermsError]:
    if region.country != WORLD and region.country not in COUNTRIES:
        yield TermsError(
            f"{pointer}/country",
            f"{region.country[:40]!r} is not the code of a country in two capital letters (ISO 3166-1), such as CN, "
            f"nor {WORLD} for all others",
        )
    for field, text in (("province", region.province), ("city", region.city)):
        if text and not is_filled(text):
            yield TermsError(
                f"{pointer}/{field}", f"{text[:40]!r} needs at least one letter or digit; leave it out for all of them"
            )
        elif text != text.strip():
            yield TermsError(f"{pointer}/{field}", f"{text[:40]!r} has blanks at its ends; leave them out")
        elif text and region.country == WORLD:
            yield TermsError(f"{pointer}/{field}", f"the country {WORLD} is the rest of the world: it has no {field}")


def _check_steps(pointer: str, steps: Sequence[FreightStep], unit: str) -> Iterator[TermsError]:
    """Check that steps begin at 0, ascend, and have no gaps or overlaps; only the last one may be open."""
    if steps and steps[0].above:
        yield TermsError(f"{pointer}/0/above", f"the first step begins at {steps[0].above} {unit}, not at 0")
    for number, step in enumerate(steps):
        yield from _check_step(f"{pointer}/{number}", step, unit)
        if step.up_to is None and number + 1 < len(steps):
            yield TermsError(f"{pointer}/{number}/up_to", "only the last step may have no end")
    for number, (before, step) in enumerate(pairwise(steps), 1):
        yield from _check_successor(f"{pointer}/{number}/above", before, step, unit)


def _check_step(pointer: str, step: FreightStep, unit: str) -> Iterator[TermsError]:
    yield from _check_amount(f"{pointer}/fee_minor", step.fee_minor, 0, MAX_FEE_MINOR)
    for field, quantity, minimum in (("above", step.above, 0), ("up_to", step.up_to, 0), ("per", step.per, 1)):
        if quantity is not None and not minimum <= quantity <= MAX_MINOR:
            yield TermsError(f"{pointer}/{field}", f"{field} is {quantity}, not from {minimum} to {MAX_MINOR}")
    if step.up_to is not None and step.up_to <= step.above:
        yield TermsError(f"{pointer}/up_to", f"the step ends at {step.up_to} {unit}, not above {step.above}")
    if step.up_to is not None and step.per is not None:
        yield TermsError(f"{pointer}/per", "a step with an end has one fee: only a last step without end may have per")


def _check_successor(pointer: str, before: FreightStep, step: FreightStep, unit: str) -> Iterator[TermsError]:
    if step.above < before.above:
        detail = f"the steps do not ascend: one from {step.above} {unit} follows one from {before.above}"
        yield TermsError(pointer, detail)
    elif before.up_to is not None and step.above < before.up_to:
        detail = f"the step from {step.above} {unit} overlaps the one before, which goes up to {before.up_to}"
        yield TermsError(pointer, detail)
    elif before.up_to is not None and step.above > before.up_to:
        yield TermsError(pointer, f"there is no fee from {before.up_to} {unit} to {step.above}")


def _check_amount(pointer: str, amount: int, minimum: int, maximum: int) -> Iterator[TermsError]:
    if not minimum <= amount <= maximum:
        yield TermsError(pointer, f"{amount} minor units are not from {minimum} to {maximum}")


def _check_count(pointer: str, owner: str, part: str, count: int, maximum: int) -> Iterator[TermsError]:
    if count == 0:
        yield TermsError(pointer, f"{owner} has no {part}; it needs at least one")
    elif count > maximum:
        yield TermsError(pointer, f"{owner} has {count} {part}s, more than {maximum}")
