"""Freight is charged by the most specific zone and by steps, and is free from a threshold."""

from __future__ import annotations

import unicodedata
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.freight.errors import NoFreight
from commerce.freight.model import FreightCharge, FreightStep
from commerce.freight.template_checks import find_errors
from commerce.kernel.money import MAX_MINOR
from tests.freight.templates import compile_terms, make_terms, make_zone

BY_WEIGHT = (FreightStep(0, 800, 1000), FreightStep(1000, 1200, 3000), FreightStep(3000, 300, per=500))


def flat(fee: int) -> tuple[FreightStep, ...]:
    return (FreightStep(0, fee),)


NESTED = compile_terms(
    make_zone("city", "CN/浙江/杭州", steps=flat(1)),
    make_zone("city anywhere", "CN//宁波", "GB//London", steps=flat(2)),
    make_zone("provinces", "CN/浙江省", "CN/北京市", "CN/广西壮族自治区", steps=flat(3)),
    make_zone("country", "CN", steps=flat(4)),
    make_zone("world", "*", steps=flat(5)),
)


@pytest.mark.parametrize(
    ("country", "province", "city", "fee"),
    [
        ("CN", "浙江省", "杭州市", 1),
        ("CN", "浙\u200b江\u3000", "杭州 市", 1),
        ("CN", "浙江", "宁波市", 2),
        ("CN", "", "宁波", 2),
        ("GB", "England", "LONDON", 2),
        ("CN", "浙江", "温州", 3),
        ("CN", "广西", "南宁市", 3),
        ("CN", "北京", "北京市", 3),
        ("CN", "", "北京", 3),
        ("CN", " \u200b", "北京", 3),
        ("CN", "江苏省", "杭州市", 4),
        ("CN", "", "杭州", 4),
        ("DE", "", "Köln", 5),
        ("GB", "", "Leeds", 5),
    ],
)
def test_address_is_charged_by_its_smallest_zone(country: str, province: str, city: str, fee: int) -> None:
    assert NESTED.charge(country, province, city, 100, 1, 1000) == fee
    decomposed = [unicodedata.normalize("NFD", text) for text in (province, city)]
    assert NESTED.charge(country, *decomposed, 100, 1, 1000) == fee


def test_address_without_zone_is_refused() -> None:
    freight = compile_terms(make_zone("east", "CN/浙江"), make_zone("capital", "GB//London"))
    for address in (("CN", "江苏", "苏州"), ("GB", "", "Leeds"), ("DE", "", "Köln")):
        with pytest.raises(NoFreight, match="does not deliver to"):
            freight.charge(*address, 100, 1, 1000)


@pytest.mark.parametrize(
    ("grams", "fee"),
    [(0, 800), (1, 800), (1000, 800), (1001, 1200), (3000, 1200), (3001, 1500), (3500, 1500), (3501, 1800)],
)
def test_weight_is_charged_by_its_step(grams: int, fee: int) -> None:
    assert compile_terms(make_zone("cn", "CN", steps=BY_WEIGHT)).charge("CN", "", "Beijing", grams, 1, 0) == fee


def test_pieces_and_amounts_are_charged_by_theirs() -> None:
    steps = (FreightStep(0, 100, 2), FreightStep(2, 50, per=1))
    pieces = compile_terms(make_zone("cn", "CN", steps=steps), charged_by="pieces")
    assert [pieces.charge("CN", "", "x", 9_000, count, 9_000) for count in (1, 2, 3, 5)] == [100, 100, 150, 250]
    amount = compile_terms(make_zone("cn", "CN", steps=steps), charged_by="amount")
    assert [amount.charge("CN", "", "x", 9_000, 9, items) for items in (0, 2, 4)] == [100, 100, 200]


def test_more_than_the_last_step_is_refused_or_charged_once() -> None:
    closed = compile_terms(make_zone("cn", "CN", steps=BY_WEIGHT[:2]))
    assert closed.charge("CN", "", "x", 3000, 1, 0) == 1200
    with pytest.raises(NoFreight, match="up to 3000 g there, and this is 3001"):
        closed.charge("CN", "", "x", 3001, 1, 0)
    open_ended = compile_terms(make_zone("cn", "CN", steps=(*BY_WEIGHT[:2], FreightStep(3000, 5000))))
    assert open_ended.charge("CN", "", "x", 10**9, 1, 0) == 5000


def test_freight_is_free_from_the_threshold_of_its_zone() -> None:
    freight = compile_terms(make_zone("cn", "CN", free_from=9900), make_zone("world", "*"))
    assert [freight.charge("CN", "", "x", 1, 1, items) for items in (0, 9899, 9900, 10**12)] == [500, 500, 0, 0]
    assert freight.charge("DE", "", "x", 1, 1, MAX_MINOR) == 500


def test_explained_charge_has_zone_quantity_and_step() -> None:
    freight = compile_terms(make_zone("cn", "CN", steps=BY_WEIGHT, free_from=9900), cod_fee_minor=700)
    assert freight.cod_fee_minor == 700
    assert freight.explain("CN", "", "x", 3200, 1, 0) == FreightCharge(1500, "cn", 3200, BY_WEIGHT[2])
    assert freight.explain("CN", "", "x", 1000, 1, 0) == FreightCharge(800, "cn", 1000, BY_WEIGHT[0])
    assert freight.explain("CN", "", "x", 3200, 1, 9900) == FreightCharge(0, "cn", 3200, None)


def test_charge_stays_within_amounts_of_money() -> None:
    freight = compile_terms(make_zone("cn", "CN", steps=(FreightStep(0, 10**10, per=1),)))
    assert freight.charge("CN", "", "x", 10**12, 1, 0) == MAX_MINOR


@st.composite
def step_lists(draw: st.DrawFn, ascending: bool) -> tuple[FreightStep, ...]:
    """Draw steps without faults; `ascending` ones never get cheaper."""
    ends = sorted(draw(st.sets(st.integers(1, 500), max_size=6)))
    fees = draw(st.lists(st.integers(0, 1000), min_size=len(ends) + 1, max_size=len(ends) + 1))
    if ascending:
        fees.sort()
    starts = [0, *ends]
    per = draw(st.none() | st.integers(1, 50))
    bounded = [FreightStep(start, fee, end) for start, fee, end in zip(starts, fees, ends, strict=False)]
    return (*bounded, FreightStep(starts[-1], fees[-1], None, per))


@given(step_lists(ascending=True), st.integers(0, 800), st.integers(0, 800))
def test_charge_by_ascending_steps_never_falls_with_weight(steps: tuple[FreightStep, ...], a: int, b: int) -> None:
    freight = compile_terms(make_zone("cn", "CN", steps=steps))
    lighter, heavier = sorted((a, b))
    assert freight.charge("CN", "", "x", lighter, 1, 0) <= freight.charge("CN", "", "x", heavier, 1, 0)


@given(step_lists(ascending=False), st.integers(0, 800), st.integers(1, 1000), st.integers(0, 1000))
def test_charge_equals_a_search_of_all_steps(
    steps: tuple[FreightStep, ...], grams: int, free_from: int, items: int
) -> None:
    zone = make_zone("cn", "CN", steps=steps, free_from=free_from)
    assert find_errors(make_terms(zone)) == []
    fee = compile_terms(zone).charge("CN", "", "x", grams, 1, items)
    expected = 0
    if items < free_from:
        for before, step in zip([None, *steps], steps, strict=False):
            if step.up_to is None and grams > step.above and step.per:
                expected = (before.fee_minor if before else 0) + ceil((grams - step.above) / step.per) * step.fee_minor
            elif (grams > step.above or not step.above) and (step.up_to is None or grams <= step.up_to):
                expected = 0 if step.per else step.fee_minor
    assert fee == expected >= 0
