"""The check of a product's attributes: each kind, unknown, missing and kept ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.categories.attribute_values import AttributeDefinition, validate_attributes

NONE: frozenset[str] = frozenset()
DEFINITIONS = {
    "color": AttributeDefinition("choice", None, "required", frozenset({"color__red", "color__blue"})),
    "bag/features": AttributeDefinition("choices", None, "optional", frozenset({"dry", "light"})),
    "motto": AttributeDefinition("text", None, "optional", NONE),
    "height": AttributeDefinition("number", "cm", "optional", NONE),
    "pieces": AttributeDefinition("number", None, "optional", NONE),
    "washable": AttributeDefinition("boolean", None, "optional", NONE),
    "made": AttributeDefinition("date", None, "optional", NONE),
}
RIGHT: dict[str, Any] = {
    "color": "color__red",
    "bag/features": ["light", "dry"],
    "motto": "光 and light",
    "height": 12.5,
    "pieces": 0,
    "washable": False,
    "made": "2026-11-11",
}


def errors_of(**values: Any) -> list[tuple[str, str]]:
    attributes = {name.replace("__", "/"): value for name, value in values.items()}
    errors = validate_attributes(DEFINITIONS, {"color": "color__red", **attributes})
    return [(error["pointer"], error["detail"]) for error in errors]


def test_values_of_each_kind_are_right() -> None:
    assert validate_attributes(DEFINITIONS, RIGHT) == []


@pytest.mark.parametrize(
    ("name", "value", "place", "reason"),
    [
        ("color", ["color__red"], "/attributes/color", "must be the id of a choice"),
        ("color", "color__green", "/attributes/color", "not one of the choices: color__blue, color__red"),
        ("bag__features", "light", "/attributes/bag~1features", "must be a list"),
        ("bag__features", [], "/attributes/bag~1features", "must be a list of 1 to 50"),
        ("bag__features", ["light", "heavy"], "/attributes/bag~1features/1", "not one of the choices"),
        ("bag__features", ["light", {}], "/attributes/bag~1features/1", "must be the id"),
        ("bag__features", ["light", "light"], "/attributes/bag~1features", "twice"),
        ("motto", 3, "/attributes/motto", "must be a text"),
        ("motto", "two\nlines", "/attributes/motto", "one line"),
        ("motto", " \u200b ", "/attributes/motto", "one letter"),
        ("motto", "x" * 501, "/attributes/motto", "500"),
        ("height", "12.5 cm", "/attributes/height", "a number of cm, without the unit"),
        ("height", {"value": 12.5, "unit": "mm"}, "/attributes/height", "a number of cm, without the unit"),
        ("height", True, "/attributes/height", "must be a number"),
        ("pieces", 1e300, "/attributes/pieces", "must be a number from"),
        ("pieces", None, "/attributes/pieces", "must be a number"),
        ("washable", "yes", "/attributes/washable", "must be true or false"),
        ("washable", 1, "/attributes/washable", "must be true or false"),
        ("made", "11.11.2026", "/attributes/made", "a day such as"),
        ("made", "2026-02-30", "/attributes/made", "a day such as"),
        ("made", "1999-01-01", "/attributes/made", "years 2000"),
        ("weight", 3, "/attributes/weight", "no such attribute"),
    ],
)
def test_wrong_value_is_refused_with_its_pointer(name: str, value: Any, place: str, reason: str) -> None:
    ((pointer, detail),) = errors_of(**{name: value})
    assert pointer == place
    assert reason in detail


def test_missing_required_attribute_is_refused_unless_incomplete_ones_are_allowed() -> None:
    (error,) = validate_attributes(DEFINITIONS, {}, pointer="/items/3/attributes")
    assert error == {"pointer": "/items/3/attributes/color", "detail": "the category requires this attribute"}
    assert validate_attributes(DEFINITIONS, {}, must_be_complete=False) == []


def test_value_that_a_product_has_stays_right_when_its_choice_or_attribute_is_retired() -> None:
    kept = {"color": "color__green", "weight": 3, "washable": 1}
    assert validate_attributes(DEFINITIONS, {"color": "color__green", "weight": 3}, kept=kept) == []
    assert [error["pointer"] for error in validate_attributes(DEFINITIONS, {"color": "color__pink"}, kept=kept)] == [
        "/attributes/color"
    ]
    changed_type = validate_attributes(DEFINITIONS, {**RIGHT, "washable": True}, kept=kept)
    assert changed_type == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=600),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(DEFINITIONS)) | st.text(max_size=10), json_values, max_size=8))
def test_any_json_is_right_or_refused_with_pointers_into_it(values: dict[str, Any]) -> None:
    values = json.loads(json.dumps(values))
    for error in validate_attributes(DEFINITIONS, values, must_be_complete=False):
        _, base, key, *index = error["pointer"].split("/")
        value = values[key.replace("~1", "/").replace("~0", "~")]
        assert base == "attributes"
        assert not index or value[int(index[0])] not in list(DEFINITIONS["bag/features"].choices)
