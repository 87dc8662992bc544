"""Templates are read from CSV whole, with each fault by row and column, and written as they are read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.freight import freight_csv
from commerce.freight.errors import InvalidFreight
from commerce.freight.freight_csv import FreightFile, FreightRowError, format_freight_templates, read_freight_templates
from commerce.freight.model import FreightStep, FreightTemplate, FreightTerms
from commerce.freight.template_checks import find_errors
from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import UnreadableCsv
from tests.freight.templates import make_terms, make_zone

HEADER = "template,currency,charged_by,cod_fee,zone,free_from,country,province,city,above,up_to,per,fee\n"
GOOD = """heavy,CNY,weight,7.00,east,99.00,CN,浙江省,,,,,
heavy,CNY,weight,,east,,CN,,上海,0,1000,,8.00
heavy,CNY,weight,,east,,,,,1000,,500,3
heavy,CNY,weight,,world,,*,,,0,,,5.00
"""
STEPS = (FreightStep(0, 800, 1000), FreightStep(1000, 300, per=500))
TERMS = make_terms(
    make_zone("east", "CN/浙江省", "CN//上海", steps=STEPS, free_from=9900), make_zone("world", "*"), cod_fee_minor=700
)


def read(text: str, header: str = HEADER) -> FreightFile:
    return read_freight_templates((header + text).splitlines(keepends=True))


def read_errors(text: str) -> list[tuple[int, str, str]]:
    return [(error.line, error.column, error.reason) for error in read(text).errors]


def export(terms: FreightTerms, name: str = "heavy") -> str:
    changed_at = datetime(2026, 11, 1, tzinfo=UTC)
    template = FreightTemplate(name=name, version=1, changed_at=changed_at, actor="test", terms=terms)
    return format_freight_templates([template])


def test_rows_of_regions_and_steps_become_a_template() -> None:
    assert read(GOOD) == FreightFile({"heavy": TERMS}, [], 4)


def test_several_templates_and_amounts_are_read() -> None:
    content = read(
        "gifts,JPY,amount,,all,,JP,,,0,5000,,600\ngifts,JPY,amount,,all,,,,,5000,,1000,50\n"
        "heavy,CNY,weight,,all,,cn,,,0,,,5\ngold,GBP,amount,,all,,GB,,,0,9.99,,1.50\n"
    )
    assert content.errors == []
    assert content.templates == {
        "gifts": make_terms(
            make_zone("all", "JP", steps=(FreightStep(0, 600, 5000), FreightStep(5000, 50, per=1000))),
            currency="JPY",
            charged_by="amount",
        ),
        "heavy": make_terms(make_zone("all", "CN")),
        "gold": make_terms(
            make_zone("all", "GB", steps=(FreightStep(0, 150, 999),)), currency="GBP", charged_by="amount"
        ),
    }


def test_optional_columns_may_be_absent() -> None:
    header = "template,currency,charged_by,zone,country,above,up_to,fee\n"
    assert read("heavy,CNY,pieces,all,CN,0,,5\n", header).errors == []
    with pytest.raises(UnreadableCsv, match="needs the columns template, currency"):
        read("", "template,currency\n")
    with pytest.raises(UnreadableCsv, match="its header is"):
        read("", HEADER.replace("city", "town"))


FLAT_ROW = "t,CNY,weight,,z,,CN,,,0,,,5\n"
WRONG_ROWS = {
    ("template", "is not up to 64 small letters"): "T 1,CNY,weight,,z,,GB,,,,,,",
    ("currency", "'XXQ' is not an ISO 4217 currency"): "t,XXQ,weight,,z,,GB,,,,,,",
    ("currency", "it is GBP, and CNY on line 2"): "t,GBP,weight,,z,,GB,,,,,,",
    ("charged_by", "'size' is not weight"): "t,CNY,size,,z,,GB,,,,,,",
    ("charged_by", "it is pieces, and weight on line 2"): "t,CNY,pieces,,z,,GB,,,,,,",
    ("zone", "is not one line"): "t,CNY,weight,,\u200b,,GB,,,,,,",
    ("cod_fee", "'-1' is not an amount"): "t,CNY,weight,-1,z,,GB,,,,,,",
    ("free_from", "'x' is not an amount"): "t,CNY,weight,,z,x,GB,,,,,,",
    ("free_from", "0 minor units are not from 1"): "t,CNY,weight,,y,0,GB,,,0,,,1",
    ("fee", "the row has neither a region"): "t,CNY,weight,,z,,,,,,,,",
    ("country", "it is empty"): "t,CNY,weight,,z,,,Zhejiang,,,,,",
    ("country", "'ZZ' is not the code"): "t,CNY,weight,,z,,ZZ,,,,,,",
    ("country", "the region CN is in the zone 'z' already"): "t,CNY,weight,,y,,CN,,,0,,,1",
    ("province", "is not empty and shows nothing"): "t,CNY,weight,,z,,GB,\u3000,,,,,",
    ("province", "needs at least one letter"): "t,CNY,weight,,z,,GB,\u200b,,,,,",
    ("city", "without control characters"): "t,CNY,weight,,z,,GB,,a\x07,,,,",
    ("city", "is the rest of the world"): "t,CNY,weight,,z,,*,,London,,,,",
    ("above", "above is '', not a whole number"): "t,CNY,weight,,z,,,,,,,,1",
    ("above", "above is '-1', not a whole number"): "t,CNY,weight,,z,,,,,-1,5,,1",
    ("above", "the first step begins at 3 g"): "t,CNY,weight,,y,,GB,,,3,,,1",
    ("up_to", "up_to is '1.5', not a whole number"): "t,CNY,weight,,z,,,,,0,1.5,,1",
    ("per", "a step with an end has one fee"): "t,CNY,weight,,y,,GB,,,0,5,1,1",
    ("fee", "'' is not an amount"): "t,CNY,weight,,z,,,,,0,5,,",
    ("fee", "'1.555' has more decimals"): "t,CNY,weight,,z,,,,,0,5,,1.555",
    ("fee", "the zone 'y' has no step"): "t,CNY,weight,,y,,GB,,,,,,",
    ("country", "the zone 'y' has no region"): "t,CNY,weight,,y,,,,,0,,,1",
    ("", "5 fields where the header has 13"): "t,CNY,weight,,z",
}


@pytest.mark.parametrize(("column", "reason"), WRONG_ROWS)
def test_wrong_row_is_named_by_line_and_column(column: str, reason: str) -> None:
    [error] = read_errors(f"{FLAT_ROW}{WRONG_ROWS[column, reason]}\n")
    assert error[:2] == (3, column)
    assert reason in error[2]


def test_steps_with_gap_overlap_and_wrong_order_are_named_by_row() -> None:
    rows = ("0,100", "200,300", "250,400", "50,60")
    text = "t,CNY,weight,,z,,CN,,,,,,\n" + "".join(
        f"t,CNY,weight,,z,,,,,{start},{end},,1\n" for start, end in (row.split(",") for row in rows)
    )
    assert read_errors(text) == [
        (4, "above", "there is no fee from 100 g to 200"),
        (5, "above", "the step from 250 g overlaps the one before, which goes up to 300"),
        (6, "above", "the steps do not ascend: one from 50 g follows one from 250"),
    ]


def test_all_wrong_rows_are_named_and_broken_zones_are_not_blamed_twice() -> None:
    text = "t,CNY,weight,5,z,,CN,,,0,10,,x\nt,CNY,weight,6,z,,,,,10,,,1\nt,CNY,weight,,y,,ZZ,,,1,,,1\n"
    errors = read(text).errors
    assert [(error.line, error.column) for error in errors] == [
        (2, "fee"),
        (3, "cod_fee"),
        (4, "country"),
        (4, "above"),
    ]
    assert errors[0].to_line_error() == LineError(2, "fee: 'x' is not an amount like 2.55")
    assert FreightRowError(5, "", "not CSV").to_line_error() == LineError(5, "not CSV")


def test_file_without_rows_or_with_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidFreight, match="no row after the header"):
        read("")
    monkeypatch.setattr(freight_csv, "MAX_ROWS", 2)
    assert read(FLAT_ROW + "t,CNY,weight,,z,,GB,,,,,,\n").errors == []
    with pytest.raises(InvalidFreight, match="more than 2 rows"):
        read(FLAT_ROW * 3)


PLACES = st.text(st.characters(categories=["L", "N", "P", "Zs", "Cf"], exclude_characters="/"), max_size=6)


@st.composite
def terms(draw: st.DrawFn) -> FreightTerms:
    """Draw templates, most of them without faults."""
    ends = sorted(draw(st.sets(st.integers(1, 9999), max_size=4)))
    fees = draw(st.lists(st.integers(0, 9999), min_size=len(ends) + 1, max_size=len(ends) + 1))
    starts = [0, *ends]
    last = FreightStep(starts[-1], fees[-1], None, draw(st.none() | st.integers(1, 500)))
    bounded = [FreightStep(start, fee, end) for start, fee, end in zip(starts, fees, ends, strict=False)]
    regions = draw(st.lists(st.tuples(st.sampled_from(["CN", "GB"]), PLACES, PLACES), min_size=1, max_size=4))
    zones = [
        make_zone(
            f"zone, {number}",
            "/".join(region),
            steps=(*bounded, last),
            free_from=draw(st.none() | st.integers(1, 9999)),
        )
        for number, region in enumerate(regions)
    ]
    return make_terms(
        *zones,
        currency=draw(st.sampled_from(["CNY", "JPY", "KWD"])),
        charged_by=draw(st.sampled_from(["weight", "pieces", "amount"])),
        cod_fee_minor=draw(st.integers(0, 9999)),
    )


@given(terms())
def test_exported_template_is_imported_as_it_was(template: FreightTerms) -> None:
    if find_errors(template):
        return
    assert read_freight_templates(export(template).splitlines(keepends=True)) == FreightFile(
        {"heavy": template}, [], sum(len(zone.regions) + len(zone.steps) for zone in template.zones)
    )


def test_example_of_the_documentation_is_a_template_without_faults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    example = page[page.index(HEADER) :].partition("```")[0]
    content = read_freight_templates(example.splitlines(keepends=True))
    assert content.errors == []
    assert [zone.name for zone in content.templates["mainland"].zones] == ["near", "far"]
