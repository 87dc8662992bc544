"""Each fault of a template is named, with a pointer to its part."""

from __future__ import annotations

import msgspec
import pytest

from commerce.freight.errors import InvalidFreight
from commerce.freight.model import FreightRegion, FreightStep, FreightTerms
from commerce.freight.template_checks import check_terms, find_errors
from tests.freight.templates import FLAT, make_terms, make_zone

S = FreightStep


def steps_of(*steps: FreightStep) -> FreightTerms:
    return make_terms(make_zone("cn", "CN", steps=steps))


FAULTS = {
    "no zone": (make_terms(), "/zones", "the template has no zone"),
    "no region": (make_terms(make_zone("cn")), "/zones/0/regions", "'cn' has no region"),
    "no step": (make_terms(make_zone("cn", "CN", steps=())), "/zones/0/steps", "'cn' has no step"),
    "unknown country": (make_terms(make_zone("cn", "ZZ")), "/zones/0/regions/0/country", "'ZZ' is not the code"),
    "small country": (make_terms(make_zone("cn", "cn")), "/zones/0/regions/0/country", "'cn' is not the code"),
    "blank province": (make_terms(make_zone("cn", "CN/ ")), "/zones/0/regions/0/province", "needs at least one letter"),
    "wide blank": (make_terms(make_zone("cn", "CN/\u3000")), "/zones/0/regions/0/province", "at least one letter"),
    "zero width": (make_terms(make_zone("cn", "CN/a/\u200b")), "/zones/0/regions/0/city", "at least one letter"),
    "city of the world": (make_terms(make_zone("w", "*//London")), "/zones/0/regions/0/city", "rest of the world"),
    "region twice": (
        make_terms(make_zone("a", "CN/浙江/杭州"), make_zone("b", "GB", "CN/浙江省/杭州市")),
        "/zones/1/regions/1",
        "the region CN/浙江省/杭州市 is in the zone 'a' already",
    ),
    "region twice in its zone": (
        make_terms(make_zone("a", "CN", "CN")),
        "/zones/0/regions/1",
        "in the zone 'a' already",
    ),
    "name twice": (make_terms(make_zone("a", "CN"), make_zone("a", "GB")), "/zones/1/name", "two zones"),
    "blank name": (make_terms(make_zone("\u200b", "CN")), "/zones/0/name", "needs a letter or digit"),
    "blank at the end of a name": (make_terms(make_zone("a ", "CN")), "/zones/0/name", "no blank at its ends"),
    "blank before a city": (make_terms(make_zone("a", "CN// b")), "/zones/0/regions/0/city", "has blanks at its ends"),
    "late start": (steps_of(S(5, 1)), "/zones/0/steps/0/above", "begins at 5 g, not at 0"),
    "gap": (steps_of(S(0, 1, 5), S(7, 2)), "/zones/0/steps/1/above", "there is no fee from 5 g to 7"),
    "overlap": (steps_of(S(0, 1, 5), S(3, 2)), "/zones/0/steps/1/above", "from 3 g overlaps the one before"),
    "same start": (steps_of(S(0, 1, 5), S(0, 2)), "/zones/0/steps/1/above", "from 0 g overlaps"),
    "descending": (steps_of(S(0, 1, 5), S(5, 2, 9), S(3, 2)), "/zones/0/steps/2/above", "the steps do not ascend"),
    "empty step": (steps_of(S(0, 1, 0)), "/zones/0/steps/0/up_to", "ends at 0 g, not above 0"),
    "open step first": (steps_of(S(0, 1), S(5, 2)), "/zones/0/steps/0/up_to", "only the last step"),
    "per with an end": (steps_of(S(0, 1, 5, 1)), "/zones/0/steps/0/per", "only a last step without end"),
    "per of nothing": (steps_of(S(0, 1, per=0)), "/zones/0/steps/0/per", "per is 0"),
    "negative fee": (steps_of(S(0, -1)), "/zones/0/steps/0/fee_minor", "-1 minor units are not from 0"),
    "fee too high": (steps_of(S(0, 10**10 + 1)), "/zones/0/steps/0/fee_minor", "minor units are not from 0"),
    "negative cod fee": (make_terms(make_zone("cn", "CN"), cod_fee_minor=-1), "/cod_fee_minor", "-1 minor units"),
    "free from nothing": (
        make_terms(make_zone("cn", "CN", free_from=0)),
        "/zones/0/free_from_minor",
        "0 minor units are not from 1",
    ),
    "currency": (make_terms(make_zone("cn", "CN"), currency="XXQ"), "/currency", "'XXQ' is not an ISO 4217 currency"),
    "too many zones": (
        make_terms(*(make_zone(str(n), f"CN/{n}") for n in range(101))),
        "/zones",
        "has 101 zones, more than 100",
    ),
    "too many regions": (
        make_terms(make_zone("a", *(f"CN/{n}" for n in range(5001)))),
        "/zones",
        "have 5001 regions, more than 5000",
    ),
    "too many steps": (
        steps_of(*(S(n, 1, n + 1) for n in range(51))),
        "/zones/0/steps",
        "has 51 steps, more than 50",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_template_with_fault_names_it(name: str) -> None:
    terms, pointer, detail = FAULTS[name]
    errors = {error.pointer: error.detail for error in find_errors(terms)}
    assert detail in errors[pointer]
    with pytest.raises(InvalidFreight) as raised:
        check_terms(terms)
    assert pointer in [error["pointer"] for error in raised.value.extra["errors"]]


def test_template_with_many_faults_names_all() -> None:
    terms = make_terms(make_zone("a", "ZZ", steps=(S(1, -1),)), make_zone("a"), currency="XXQ")
    assert [error.pointer for error in find_errors(terms)] == [
        "/currency",
        "/zones/0/regions/0/country",
        "/zones/0/steps/0/above",
        "/zones/0/steps/0/fee_minor",
        "/zones/1/name",
        "/zones/1/regions",
    ]


def test_same_city_in_two_provinces_is_two_regions() -> None:
    zones = make_zone("a", "CN/江苏/鼓楼"), make_zone("b", "CN/福建/鼓楼", "CN//鼓楼", "CN", "*", steps=FLAT)
    assert find_errors(make_terms(*zones)) == []


def test_template_as_json_is_read_back_without_absent_parts() -> None:
    terms = make_terms(make_zone("cn", "CN", "GB//London", steps=(S(0, 1, 5), S(5, 2, per=3)), free_from=9))
    text = msgspec.json.encode(terms)
    assert msgspec.json.decode(text, type=FreightTerms) == terms
    assert b'"province"' not in text
    assert FreightRegion("GB", "", "London") == terms.zones[0].regions[1]
