"""The language that a reader gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.languages import choose_language, choose_text, read_accept_language


@pytest.mark.parametrize(
    ("available", "wanted", "chosen"),
    [
        (["en", "zh-CN"], ["zh-CN"], "zh-CN"),
        (["en", "zh-CN"], ["ZH-cn"], "zh-CN"),
        (["en", "zh-CN"], ["zh"], "zh-CN"),
        (["en", "zh"], ["zh-Hant-TW"], "zh"),
        (["en", "zh-CN"], ["zh-TW"], "zh-CN"),
        (["en", "zh-CN"], ["de", "zh"], "zh-CN"),
        (["en", "zh-CN"], ["de"], "en"),
        (["en-GB", "zh-CN"], [], "en-GB"),
        (["fr", "zh-CN"], ["de"], "fr"),
    ],
)
def test_language_is_the_nearest_of_the_wanted_ones(available: list[str], wanted: list[str], chosen: str) -> None:
    assert choose_language(available, wanted) == chosen


def test_text_without_any_language_is_the_default() -> None:
    assert choose_text({}, ["en"], "lb-1") == "lb-1"
    assert choose_text({"en": "Bags"}, ["zh"], "lb-1") == "Bags"


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        (None, []),
        ("", []),
        ("zh-CN, zh;q=0.9, en;q=0.95", ["zh-CN", "en", "zh"]),
        ("de;q=0, *;q=0.5, fr", ["fr"]),
        ("en;q=7, zh;;q=1, e n", []),
    ],
)
def test_accept_language_is_read_by_weight(header: str | None, tags: list[str]) -> None:
    assert read_accept_language(header) == tags


@given(st.text(max_size=2_000))
def test_any_header_is_read(header: str) -> None:
    assert len(read_accept_language(header)) <= 20
