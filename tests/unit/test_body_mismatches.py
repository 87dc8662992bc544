"""A refused body gets every mismatch at once, each with its place."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from commerce.kernel.errors import Invalid
from commerce.sales.model import SaleInput
from gateway.body_mismatches import list_mismatches
from gateway.decoding import decode_json, decode_order_body
from tests.support.sales import order_body


def mismatches(body: Any, type_: Any = None) -> list[tuple[str, str]]:
    """Return pointer and text of each mismatch that the answer names."""
    content = msgspec.json.encode(body)
    with pytest.raises(Invalid) as error:
        decode_json(msgspec.json.Decoder(type_), content) if type_ else decode_order_body(content)
    errors: list[dict[str, str]] = error.value.extra["errors"]
    return [(item["pointer"], item["detail"]) for item in errors]


def test_order_with_several_mismatches_names_each_with_its_place() -> None:
    body = order_body("double-11") | {
        "lines": [{"sku": "a", "quantity": 0}, {"quantity": "1", "colour": "red"}, {"sku": "b", "quantity": 1}],
        "payments": [{"method": "gold", "amount": 1}],
        "wrong": 1,
    }
    assert sorted(mismatches(body)) == [
        ("", "Object contains unknown field `wrong`"),
        ("/lines/0/quantity", "Expected `int` >= 1"),
        ("/lines/1", "Object contains unknown field `colour`"),
        ("/lines/1", "Object missing required field `sku`"),
        ("/lines/1/quantity", "Expected `int`, got `str`"),
        ("/payments/0/method", "Invalid enum value 'gold'"),
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        (None, ""),
        (order_body("double-11"), "/lines"),
        (order_body("double-11", ("a", 1)) | {"ship_to": {}}, "/ship_to"),
    ],
)
def test_body_with_one_mismatch_names_it_alone(body: Any, pointer: str) -> None:
    assert [place for place, _ in mismatches(body)] == [pointer]


def test_body_with_many_mismatches_names_twenty() -> None:
    assert len(mismatches(order_body("double-11", *[("a", 0)] * 90))) == 20


def test_large_body_with_many_mismatches_names_the_first_alone() -> None:
    """A search for all would hold up every other request."""
    assert mismatches(order_body("double-11", *[("a", 0)] * 1_000)) == [("/lines/0/quantity", "Expected `int` >= 1")]


def test_mismatch_that_a_struct_checks_as_a_whole_is_named() -> None:
    sale = {"sale_id": "a", "title": "A", "currency": "CNY", "opens_at": "0001-01-01T00:00:00Z"}
    assert [place for place, _ in mismatches(sale, SaleInput)] == [""]


def test_valid_body_and_text_that_is_no_json_have_no_mismatches() -> None:
    body = msgspec.json.encode(order_body("double-11", ("a", 1)))
    assert list_mismatches(body, type(decode_order_body(body))) == []
    assert list_mismatches(body[:-1], type(decode_order_body(body))) == []
