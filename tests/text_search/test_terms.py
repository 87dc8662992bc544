"""Terms of Chinese and English texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from commerce.text_search.terms import detect_language, drop_stop_terms, normalise, split, stem


def test_texts_are_compared_without_case_width_and_traditional_characters() -> None:
    assert normalise("ＲＥＦＵＮＤ 退貨運費") == "refund 退货运费"


def test_chinese_has_words_pairs_and_characters() -> None:
    terms = split("退货运费谁出")
    assert {"退货", "运费"} <= {*terms.words, *terms.pairs}
    assert terms.characters == list("退货运费谁出")
    assert terms.pairs == ["退货", "货运", "运费", "费谁", "谁出"]


def test_mixed_text_keeps_every_letter_digit_and_symbol() -> None:
    terms = split("COD订单 12345 Привет 😡")
    assert {"cod", "12345", "привет"} <= {*terms.words}
    assert {"订", "单", "😡"} <= {*terms.characters}


def test_english_words_share_a_stem() -> None:
    assert stem("refunded") == stem("refunds") == stem("refund's") == "refund"


def test_synonyms_share_a_term_across_languages() -> None:
    def groups(text: str) -> set[str]:
        return {word for word in split(text).words if word.startswith("=")}

    assert groups("货到付款") & groups("cash on delivery") & groups("COD")
    assert not groups("cashier")


def test_stop_words_are_dropped_unless_nothing_else_is_left() -> None:
    assert drop_stop_terms(split("how do I return it")).words[0] == "return"
    assert drop_stop_terms(split("how")).words == ["how"]
    assert drop_stop_terms(split("的")).characters == ["的"]


def test_language_is_chinese_with_a_chinese_character() -> None:
    assert (detect_language("COD 拒收"), detect_language("refund"), detect_language("😡")) == ("zh", "en", "en")


@given(st.text(max_size=200))
def test_any_text_is_split(text: str) -> None:
    terms = split(text)
    assert all(len(pair) == 2 for pair in terms.pairs)
    assert all(terms.words)
    drop_stop_terms(terms)
