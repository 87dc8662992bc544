"""The index of texts: what is found, in which order, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.text_search import service
from commerce.text_search.model import Hit, IndexedText
from commerce.text_search.service import TextIndex, weigh_terms
from commerce.text_search.spelling import NearWords

TEXTS = {
    "freight": IndexedText("退货的运费谁来出", "邮费;寄回运费", "质量问题由商家承担运费，不想要了由您承担。"),
    "coupon": IndexedText("退货后优惠券还能用吗", "红包", "整单取消时优惠券会退回账户。"),
    "timing": IndexedText("退款什么时候到账", "多久到账", "支付宝当天，银行卡一到五天。"),
    "english": IndexedText("When your refund arrives", "how long", "Cards take up to five days 😀."),
}


def make_index(texts: dict[str, IndexedText] = TEXTS) -> TextIndex:
    index = TextIndex()
    for key, text in texts.items():
        index.put(key, weigh_terms(text))
    return index


def keys(hits: list[Hit]) -> list[str]:
    return [hit.key for hit in hits]


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("运费谁付", "freight"),
        ("邮费", "freight"),
        ("優惠券退貨還能用嗎", "coupon"),
        ("券", "coupon"),
        ("REFUNDS", "english"),
        ("refnud", "english"),
        ("arives", "english"),
        ("😀", "english"),
    ],
)
def test_best_text_is_first(query: str, best: str) -> None:
    assert keys(make_index().search(query, 10))[0] == best


@pytest.mark.parametrize("query", ["", " ", "!?", "😡", "\0", "zzzzzz", "\u200b"])
def test_query_without_known_terms_finds_nothing(query: str) -> None:
    assert make_index().search(query, 10) == []


def test_query_with_hardly_a_known_term_finds_nothing() -> None:
    assert make_index().search("给我推荐一部适合周末看的老电影吧朋友", 10) == []


def test_title_counts_more_than_body() -> None:
    index = make_index({"body": IndexedText("a b", "", "refund c d"), "title": IndexedText("refund", "", "a b c d")})
    assert keys(index.search("refund", 10)) == ["title", "body"]


def test_texts_are_left_out_and_moved_by_the_caller() -> None:
    index = make_index()
    assert "freight" not in keys(index.search("运费", 10, accepts=lambda key: key != "freight"))
    first, second = keys(index.search("退", 10))[:2]
    assert keys(index.search("退", 10, factor=lambda key: 9.0 if key == second else 1.0))[:2] == [second, first]
    assert len(index.search("退", 1)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(TEXTS)), st.booleans()), max_size=40))
def test_changed_index_finds_as_a_new_one(changes: list[tuple[str, bool]]) -> None:
    present: dict[str, IndexedText] = {}
    index = TextIndex()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "_MIN_DEAD", 3)
        for key, is_added in changes:
            if is_added:
                index.put(key, weigh_terms(TEXTS[key]))
                present[key] = TEXTS[key]
            else:
                index.remove(key)
                present.pop(key, None)
    assert len(index) == len(present)
    fresh = make_index(present)
    for query in ("退", "refund", "运费谁出"):
        assert sorted(keys(index.search(query, 10))) == sorted(keys(fresh.search(query, 10)))


@given(st.from_regex(r"[a-z]{4,12}", fullmatch=True), st.data())
def test_word_is_near_after_one_mistake_and_not_after_two(word: str, data: st.DataObject) -> None:
    near_words = NearWords()
    near_words.add(word)
    place = data.draw(st.integers(0, len(word) - 2))
    swapped = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    for mistyped in (swapped, word[:place] + "q" + word[place + 1 :], word[:place] + "x" + word[place:], word):
        assert near_words.find(mistyped) == [word]
    shortened = word[:place] + word[place + 1 :]
    assert near_words.find(shortened) == ([word] if len(shortened) >= 4 else [])
    assert near_words.find("0" * len(word)) == []
