"""The check of a product's attributes against its category. It reads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from math import isfinite
from typing import Any, NamedTuple

from commerce.categories.model import AttributeKind, InheritedRule
from commerce.kernel.moments import YEARS, check_years
from commerce.kernel.types import CONTROL, is_filled

MAX_TEXT_CHARS, MAX_CHOSEN, MAX_NUMBER = 500, 50, 10**15
_CONTROL = re.compile(f"[{CONTROL}]")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_SHOWN = 5


class AttributeDefinition(NamedTuple):
    """An attribute of a category: what its values must be. `choices` are those that are not retired."""

    kind: AttributeKind
    unit: str | None
    rule: InheritedRule
    choices: frozenset[str]


def validate_attributes(
    definitions: Mapping[str, AttributeDefinition],
    values: Mapping[str, Any],
    *,
    kept: Mapping[str, Any] | None = None,
    must_be_complete: bool = True,
    pointer: str = "/attributes",
) -> list[dict[str, str]]:
    """Return faults of a product's attributes as errors with JSON pointers (RFC 6901).

    The pointers begin with `pointer`.

    `values` is decoded JSON by attribute: the id of a choice, a list of such ids, a text, a number, a boolean, or a
    day such as "2026-11-11". A value that equals the one in `kept` is right: it is what the product has already, and
    the attribute or choice may have been retired since. `must_be_complete` says that none that is required may be
    missing; a draft need not be complete.
    """
    kept = kept or {}
    errors = list[dict[str, str]]()
    for attribute_id, value in values.items():
        if attribute_id in kept and _is_same(kept[attribute_id], value):
            continue
        place = f"{pointer}/{_escape(attribute_id)}"
        definition = definitions.get(attribute_id)
        if definition is None:
            errors.append({"pointer": place, "detail": "the category has no such attribute"})
        else:
            errors += [
                {"pointer": f"{place}{suffix}", "detail": detail} for suffix, detail in _find_faults(definition, value)
            ]
    if must_be_complete:
        errors += [
            {"pointer": f"{pointer}/{_escape(attribute_id)}", "detail": "the category requires this attribute"}
            for attribute_id, definition in definitions.items()
            if definition.rule == "required" and attribute_id not in values
        ]
    return errors


def _find_faults(definition: AttributeDefinition, value: Any) -> list[tuple[str, str]]:
    """Return the faults of a value, each with the end of its pointer."""
    match definition.kind:
        case "choice":
            return _find_choice_faults(definition, value, "")
        case "choices":
            return _find_list_faults(definition, value)
        case "text":
            fault = _find_text_fault(value)
        case "number":
            fault = _find_number_fault(definition.unit, value)
        case "boolean":
            fault = None if isinstance(value, bool) else "must be true or false"
        case "date":
            fault = _find_day_fault(value)
    return [] if fault is None else [("", fault)]


def _find_choice_faults(definition: AttributeDefinition, value: Any, suffix: str) -> list[tuple[str, str]]:
    if not isinstance(value, str):
        return [(suffix, "must be the id of a choice")]
    if value not in definition.choices:
        shown = ", ".join(sorted(definition.choices)[:_MAX_SHOWN])
        more = " …" if len(definition.choices) > _MAX_SHOWN else ""
        return [(suffix, f"is not one of the choices: {shown}{more}")]
    return []


def _find_list_faults(definition: AttributeDefinition, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CHOSEN:
        return [("", f"must be a list of 1 to {MAX_CHOSEN} ids of choices")]
    faults = [
        fault for index, choice in enumerate(value) for fault in _find_choice_faults(definition, choice, f"/{index}")
    ]
    if not faults and len(set(value)) < len(value):
        faults = [("", "has a choice twice")]
    return faults


def _find_text_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if len(value) > MAX_TEXT_CHARS or _CONTROL.search(value) or not is_filled(value):
        return f"must be one line of 1 to {MAX_TEXT_CHARS} characters with at least one letter or digit"
    return None


def _find_number_fault(unit: str | None, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number of {unit}, without the unit" if unit else "must be a number"
    if not isfinite(value) or abs(value) > MAX_NUMBER:
        return f"must be a number from -{MAX_NUMBER} to {MAX_NUMBER}"
    return None


def _find_day_fault(value: Any) -> str | None:
    fault = f"must be a day such as 2026-11-11, {YEARS}"
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        return fault
    try:
        check_years(date.fromisoformat(value))
    except ValueError:
        return fault
    return None


def _is_same(kept: Any, value: Any) -> bool:
    """Compare two JSON values; true is not 1."""
    return type(kept) is type(value) and bool(kept == value)


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
