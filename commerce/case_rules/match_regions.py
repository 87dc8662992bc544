"""Conditions of a rule as regions, one for each thing that they look at. Without I/O.

A rule matches a case if each region contains the case's value. What a rule does not look at has no region, and neither
has a condition that everything fulfils; so rules can be compared: one covers another if each of its regions does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from commerce.aftersales.model import WHOLE, CaseKind, ClaimKind
from commerce.aftersales.reasons import REASONS
from commerce.case_rules.model import CaseInputs, CaseRule, DeliveryReport, RuleConditions


class Region(Protocol):
    """Values that fulfil a condition."""

    @property
    def is_empty(self) -> bool: ...

    def contains(self, value: Any) -> bool: ...

    def covers(self, other: Any) -> bool:
        """Tell whether it contains every value of another region of the same kind."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: frozenset[Any]

    @property
    def is_empty(self) -> bool:
        return not self.values

    def contains(self, value: Any) -> bool:
        return value in self.values

    def covers(self, other: Choice) -> bool:
        return other.values <= self.values


@dataclass(frozen=True, slots=True)
class Subset:
    """Sets with no other than some values."""

    values: frozenset[Any]

    @property
    def is_empty(self) -> bool:
        return not self.values

    def contains(self, value: Collection[Any]) -> bool:
        return self.values.issuperset(value)

    def covers(self, other: Subset) -> bool:
        return other.values <= self.values


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers from `low` to `high`; nothing is in no interval."""

    low: float
    high: float

    @property
    def is_empty(self) -> bool:
        return self.low > self.high

    def contains(self, value: float | None) -> bool:
        return value is not None and self.low <= value <= self.high

    def covers(self, other: Interval) -> bool:
        return self.low <= other.low and other.high <= self.high


@dataclass(frozen=True, slots=True)
class AmountRegion:
    """Amounts in an interval of their currency."""

    intervals: Mapping[str, Interval]

    @property
    def is_empty(self) -> bool:
        return not self.intervals

    def contains(self, value: tuple[str, int | None]) -> bool:
        interval = self.intervals.get(value[0])
        return interval is not None and interval.contains(value[1])

    def covers(self, other: AmountRegion) -> bool:
        return all(
            currency in self.intervals and self.intervals[currency].covers(interval)
            for currency, interval in other.intervals.items()
        )


@dataclass(frozen=True, slots=True)
class ProductRegion:
    """Sets of products that are all `allowed` (None: every product is), and of which none is excluded."""

    allowed: frozenset[str] | None
    excluded: frozenset[str]

    @property
    def is_empty(self) -> bool:
        return self.allowed is not None and not self.allowed

    def contains(self, value: frozenset[str]) -> bool:
        return (self.allowed is None or value <= self.allowed) and self.excluded.isdisjoint(value)

    def covers(self, other: ProductRegion) -> bool:
        if other.allowed is None:
            return self.allowed is None and self.excluded <= other.excluded
        is_allowed = self.allowed is None or other.allowed <= self.allowed
        return is_allowed and self.excluded.isdisjoint(other.allowed)


Regions = Mapping[str, Region]
"""regions by what they look at"""
_SUBJECTS = frozenset(
    [str(kind) for kind in CaseKind if kind is not CaseKind.CLAIM] + [f"claim {claim}" for claim in ClaimKind]
)
"""kinds of cases; a claim with its own kind"""
DOMAINS: Mapping[str, frozenset[Any]] = {
    "kind": _SUBJECTS,
    "reason": frozenset(REASONS),
    "carrier": frozenset(DeliveryReport),
}
_REFUNDED = "refunded "


def make_regions(conditions: RuleConditions) -> Regions:
    """Return the regions of conditions, without those that everything fulfils."""
    regions: dict[str, Region] = {
        "kind": Choice(_subjects(conditions)),
        "reason": _choice(conditions.reasons, DOMAINS["reason"]),
        "carrier": Subset(DOMAINS["carrier"] if conditions.carrier is None else frozenset(conditions.carrier)),
        "cases": _interval(conditions.min_cases, conditions.max_cases),
        "share": _interval(conditions.min_returned_share, conditions.max_returned_share, WHOLE),
    }
    for name, flag in (
        ("first_order", conditions.is_first_order),
        ("proven", conditions.is_delivery_proven),
        ("evidence", conditions.has_evidence),
    ):
        regions |= {} if flag is None else {name: Choice(frozenset({flag}))}
    if conditions.sales is not None:
        regions["sale"] = Choice(frozenset(conditions.sales))
    if conditions.min_days is not None or conditions.max_days is not None:
        regions["days"] = _interval(conditions.min_days, conditions.max_days, always_known=False)
    if conditions.skus is not None or conditions.excluded_skus is not None:
        excluded = frozenset(conditions.excluded_skus or ())
        allowed = None if conditions.skus is None else frozenset(conditions.skus) - excluded
        regions["products"] = ProductRegion(allowed, excluded if allowed is None else frozenset())
    if conditions.min_amount is not None or conditions.max_amount is not None:
        regions["amount"] = _amounts(conditions.min_amount, conditions.max_amount)
    lowest, highest = conditions.min_refunded or {}, conditions.max_refunded or {}
    for currency in lowest.keys() | highest.keys():
        regions[_REFUNDED + currency] = _interval(lowest.get(currency), highest.get(currency))
    return {name: region for name, region in regions.items() if not _is_everything(name, region)}


def covers(earlier: Regions, later: Regions) -> bool:
    """Tell whether whatever matches the later regions matches the earlier ones, too."""
    return all(name in later and region.covers(later[name]) for name, region in earlier.items())


class CompiledRules:
    """Rules that are ready to decide. The last one matches everything (`check_rules`)."""

    def __init__(self, rules: Sequence[CaseRule]) -> None:
        self.rules = rules
        self._regions = [make_regions(rule.conditions) for rule in rules]

    def find(self, inputs: CaseInputs) -> int:
        """Return the number of the first row that matches, from 1. The same inputs have the same row."""
        values = _values(inputs)
        for rule_no, regions in enumerate(self._regions, 1):
            if matches(regions, values, inputs):
                return rule_no
        raise AssertionError("the last row matches everything")


def matches(regions: Regions, values: Mapping[str, Any], inputs: CaseInputs) -> bool:
    """Tell whether the inputs, and their values by region, are in all regions."""
    return all(
        region.contains(
            inputs.refunded.get(name.removeprefix(_REFUNDED), 0) if name.startswith(_REFUNDED) else values[name]
        )
        for name, region in regions.items()
    )


def _values(inputs: CaseInputs) -> dict[str, Any]:
    return {
        "kind": str(inputs.kind) if inputs.claim is None else f"claim {inputs.claim}",
        "reason": inputs.reason,
        "carrier": inputs.carrier,
        "cases": inputs.cases,
        "share": inputs.returned_share,
        "first_order": inputs.is_first_order,
        "proven": inputs.is_delivery_proven,
        "evidence": inputs.has_evidence,
        "sale": inputs.sale_id,
        "days": inputs.days,
        "products": frozenset(inputs.skus),
        "amount": (inputs.currency, inputs.amount),
    }


def _subjects(conditions: RuleConditions) -> frozenset[str]:
    kinds = set(CaseKind if conditions.kinds is None else conditions.kinds)
    claims = {f"claim {claim}" for claim in (ClaimKind if conditions.claims is None else conditions.claims)}
    others = {str(kind) for kind in kinds - {CaseKind.CLAIM}} if conditions.claims is None else set[str]()
    return frozenset(others | (claims if CaseKind.CLAIM in kinds else set()))


def _choice(values: Sequence[Any] | None, domain: frozenset[Any]) -> Choice:
    return Choice(domain if values is None else frozenset(values))


def _interval(low: int | None, high: int | None, highest: float = inf, *, always_known: bool = True) -> Interval:
    """Return an interval. One of what is always known and never negative has no lower bound at 0."""
    lower = -inf if low is None or (always_known and low == 0) else low
    return Interval(lower, inf if high is None or high >= highest else high)


def _amounts(lowest: Mapping[str, int] | None, highest: Mapping[str, int] | None) -> AmountRegion:
    """Return the intervals of those currencies that all given bounds name, without empty ones."""
    bounds = [amounts for amounts in (lowest, highest) if amounts is not None]
    currencies = set.intersection(*(set(amounts) for amounts in bounds))
    intervals = {
        currency: Interval((lowest or {}).get(currency, 0), (highest or {}).get(currency, inf))
        for currency in currencies
    }
    return AmountRegion({currency: interval for currency, interval in intervals.items() if not interval.is_empty})


def _is_everything(name: str, region: Region) -> bool:
    if isinstance(region, Interval):
        return name != "days" and region == Interval(-inf, inf)
    return isinstance(region, Choice | Subset) and region.values == DOMAINS.get(name)
