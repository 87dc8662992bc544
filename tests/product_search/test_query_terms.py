"""Words of queries: names of categories in them, and unknown Chinese words in their characters."""

from __future__ import annotations

import pytest

from commerce.product_search.category_phrases import choose_phrases, list_name_phrases, list_phrase_candidates
from commerce.product_search.query_terms import loosen, split_query


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("Floor Lamps", ["#floor lamp"]),
        ("Beds & Bed Frames", ["#bed", "#bed frame"]),
        ("Handbags, Wallets & Cases", ["#handbag", "#wallet", "#case"]),
        ("Chair & Sofa Cushions", ["#sofa cushion"]),
        ("水龙头", ["#水龙头"]),
        ("耳机/耳麦", ["#耳机", "#耳麦"]),
        ("马桶与坐浴盆配件", ["#坐浴盆配件"]),
        ("T 恤", ["#t 恤"]),
        ("&", []),
    ],
)
def test_name_of_a_category_is_one_term_per_noun(name: str, phrases: list[str]) -> None:
    assert list(list_name_phrases(name)) == phrases


@pytest.mark.parametrize(
    ("text", "known_terms", "chosen"),
    [
        ("black floor lamps", {"#lamp", "#floor", "#floor lamp"}, ["#floor lamp"]),
        ("pencil and pens", {"#pen", "#pencil"}, ["#pencil", "#pen"]),
        ("红色水龙头", {"#水龙头", "#龙头"}, ["#水龙头"]),
        ("Nordwind 水龙头 lamp", {"#水龙头", "#lamp"}, ["#lamp", "#水龙头"]),
        ("floor 红 lamp", {"#floor lamp"}, []),
        ("!", {"#"}, []),
    ],
)
def test_longest_known_names_of_a_query_are_chosen(text: str, known_terms: set[str], chosen: list[str]) -> None:
    words = choose_phrases(list_phrase_candidates(text), known_terms.__contains__)
    assert [word.term for word in words] == chosen


def test_long_query_has_a_bounded_number_of_candidates() -> None:
    assert len(list_phrase_candidates("".join(chr(0x4E00 + number) for number in range(200)))) == 400


def test_unknown_chinese_word_becomes_its_known_characters() -> None:
    words = split_query("电竞椅 chair unknown")
    known_terms = {"椅", "chair"}
    assert [word.term for word in loosen(words, lambda word: word.term in known_terms)] == ["椅", "chair"]
    assert loosen(words, lambda word: False) == []
    assert loosen(words, lambda word: True) == words
