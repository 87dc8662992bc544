"""One place has one form, however it is written; two places keep two."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commerce.kernel.regions import normalise_region, parse_region, to_region_path


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("浙江省", "浙江"),
        ("北京市", "北京"),
        ("北京\u200b 市", "北京"),
        ("内蒙古自治区", "内蒙古"),
        ("广西壮族自治区", "广西"),
        ("宁夏回族自治区", "宁夏"),
        ("新疆维吾尔自治区", "新疆"),
        ("香港特别行政区", "香港"),
        ("香港特別行政區", "香港"),
        ("津市市", "津市"),
        ("Zhejiang Province", "ZHEJIANG"),
        ("Guangxi Zhuang Autonomous Region", "Guangxi"),
        ("Ｚｈｅｊｉａｎｇ", "zhejiang"),
        ("Zürich", unicodedata.normalize("NFD", "ZÜRICH")),
        ("e\u200b\u0301", "é"),
        ("New  York", "newyork"),
        ("\u3000Hang\u00a0zhou\ufeff", "Hangzhou"),
        ("GIEẞEN", "giessen"),
        ("ガ", "ｶﾞ"),
    ],
)
def test_region_written_in_two_ways_has_one_form(text: str, same: str) -> None:
    assert normalise_region(text) == normalise_region(same)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Kansas City", "Kansas"),
        ("海南藏族自治州", "海南省"),
        ("朝阳区", "朝阳"),
        ("津市", "津"),
        ("Province", ""),
        ("市", ""),
        ("Zürich", "Zurich"),
    ],
)
def test_regions_that_differ_keep_two_forms(text: str, other: str) -> None:
    assert normalise_region(text) != normalise_region(other)


@pytest.mark.parametrize("blank", ["", " \u3000", "\u200b\u2060", "\ufeff", "\u3164\u115f\uffa0", "\ufe0f", "\u202e"])
def test_region_without_visible_characters_is_empty(blank: str) -> None:
    assert normalise_region(blank) == ""
    assert to_region_path(["CN", blank, "Hangzhou"]) == ("cn", "hangzhou")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
@example("ǰ市市省")
@example("ᾳ\u0345\u200b\u0301")
def test_region_form_is_stable_under_repetition_and_decomposition(text: str) -> None:
    form = normalise_region(text)
    assert normalise_region(form) == form
    assert normalise_region(unicodedata.normalize("NFD", text)) == form
    assert normalise_region(unicodedata.normalize("NFC", text)) == form


def test_region_path_is_split_at_slashes_of_any_width() -> None:
    assert parse_region("CN／浙江省/ 杭州市") == ["cn", "浙江", "杭州"]
