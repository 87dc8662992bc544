"""Refuses rule sets that cannot mean what they say. Without I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from commerce.aftersales.reasons import REASONS
from commerce.case_rules.errors import BadRules
from commerce.case_rules.joint_cover import CoverSearch
from commerce.case_rules.match_regions import Regions, covers, make_regions
from commerce.case_rules.model import CaseRule, RuleOutcome
from commerce.kernel.money import MoneyError, minor_digits

MAX_SHOWN_ERRORS = 50


class ExistingNames(NamedTuple):
    """Those SKUs and sales of a rule set that exist."""

    skus: Collection[str]
    sales: Collection[str]


_Error = dict[str, str]
_BOUNDS = {
    "days": "max_days is less than min_days",
    "cases": "max_cases is less than min_cases",
    "share": "max_returned_share is less than min_returned_share",
    "kind": "claims are named, and kinds has no claim",
    "products": "every one of skus is excluded",
    "amount": "no currency has an amount between min_amount and max_amount",
}


def check_rules(rules: Sequence[CaseRule], existing: ExistingNames) -> None:
    """Raise `BadRules` with each fault and its place.

    Faults are unknown codes, rows that never match, and a last row that does not leave the rest to a person."""
    errors = list[_Error]()
    regions = [make_regions(rule.conditions) for rule in rules]
    search = CoverSearch()
    for number, rule in enumerate(rules):
        pointer = f"/rules/{number}"
        errors += _find_unknown(rule, pointer, existing)
        errors += _find_contradictions(regions[number], pointer)
        errors += _find_cover(regions, number, pointer, search)
    if regions[-1] or rules[-1].outcome is not RuleOutcome.BY_HAND:
        detail = 'the last row leaves the rest to a person: {"outcome": "by_hand", "reason": …} without conditions'
        errors.append({"pointer": f"/rules/{len(rules) - 1}", "detail": detail})
    if errors:
        others = f"; and {len(errors) - 1} more, see errors" if len(errors) > 1 else ""
        first = errors[0]
        raise BadRules(f"{first['pointer']}: {first['detail']}{others}", errors=errors[:MAX_SHOWN_ERRORS])


def _find_unknown(rule: CaseRule, pointer: str, existing: ExistingNames) -> list[_Error]:
    conditions, errors = rule.conditions, list[_Error]()

    def check(member: str, names: Collection[str] | None, valid: Collection[str], detail: str) -> None:
        for name in sorted(set(names or ()).difference(valid)):
            errors.append({"pointer": f"{pointer}/conditions/{member}", "detail": f"{name}: {detail}"})

    check("reasons", conditions.reasons, REASONS, "no code of GET /v1/return-reasons")
    check("skus", conditions.skus, existing.skus, "there is no such product")
    check("excluded_skus", conditions.excluded_skus, existing.skus, "there is no such product")
    check("sales", conditions.sales, existing.sales, "there is no such sale")
    for member in ("min_amount", "max_amount", "min_refunded", "max_refunded"):
        amounts = getattr(conditions, member)
        check(member, amounts, [name for name in amounts or () if _is_currency(name)], "no currency of payments")
    return errors


def _find_contradictions(regions: Regions, pointer: str) -> list[_Error]:
    return [
        {
            "pointer": f"{pointer}/conditions",
            "detail": f"it never matches: {_BOUNDS.get(name, 'max_refunded is less than min_refunded')}",
        }
        for name, region in regions.items()
        if region.is_empty
    ]


def _find_cover(regions: Sequence[Regions], number: int, pointer: str, search: CoverSearch) -> list[_Error]:
    """Find earlier rows that take all cases of a row. One that takes everything is the fault itself."""
    if number == len(regions) - 1 or any(region.is_empty for region in regions[number].values()):
        return []  # the last one must be there
    if not regions[number]:
        detail = "it matches every case, so no row after it counts: make it the last one, or add a condition"
        return [{"pointer": pointer, "detail": detail}]
    for earlier in range(number):
        if regions[earlier] and covers(regions[earlier], regions[number]):
            return [{"pointer": pointer, "detail": f"it never matches: row {earlier + 1} takes all of its cases"}]
    if rows := [str(row + 1) for row in search.find(regions[:number], regions[number])]:
        names = f"{', '.join(rows[:-1])} and {rows[-1]}"
        return [{"pointer": pointer, "detail": f"it never matches: rows {names} together take all of its cases"}]
    return []


def _is_currency(name: str) -> bool:
    try:
        minor_digits(name)
    except MoneyError:
        return False
    return True
