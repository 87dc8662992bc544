"""Searches in Postgres: words in two languages, mistakes, filters, counts, sequences and pages."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.product_search.errors import CursorOutdated
from commerce.product_search.model import (
    AvailableProducts,
    FacetCount,
    NumberRange,
    PriceRange,
    SearchPosition,
    SearchTerms,
    Suggestion,
)
from commerce.product_search.postgres_index import PostgresProductIndex
from ops.services import CliServices
from tests.support.search_shop import ids, index_all, make_search_shop, publish, search

_WORDS = [
    ("jacket", {"storm", "denim"}),
    ("JACKETS", {"storm", "denim"}),
    ("Storm Jacket", {"storm"}),
    ("冲锋衣", {"storm"}),
    ("衝鋒衣", {"storm"}),  # traditional characters
    ("运动鞋", {"runner"}),
    ("鞋", {"runner"}),
    ("外套", {"storm", "denim"}),  # the name of their category
    ("红色", {"storm", "runner", "mug"}),
    ("nordwind", {"storm", "runner"}),
    ("nordwind 运动鞋", {"runner"}),
    ("red waterproof jacket", {"storm"}),
    ("防水", {"storm"}),
    ("mountain", {"storm"}),
    ("马克杯", {"mug"}),
    ("🎁", {"mug"}),
    ("runner-2", {"runner"}),
    ("red shoes 42", {"runner"}),
    ("the red and the shoes", {"runner"}),
]
_MISTYPED = [
    ("jakcet", "jacket", {"storm", "denim"}),
    ("Strom jaket", "storm jacket", {"storm"}),
    ("cofee 杯", "coffee 杯", {"mug"}),
    ("nordwnd", "nordwind", {"storm", "runner"}),
]
_SIGNS = [
    "&|!",
    "'",
    '"',
    "\\",
    "%_",
    "*",
    "-jacket-",
    "jacket:*",
    "!jacket",
    "'jacket'",
    "jacket\\",
    "()",
    "<->",
    "$1",
    "\u202e",
    "שלום",
    "😀",
    "a" * 200,
    "衣" * 200,
    "a b " * 50,
    "=1",
    "* brand=Acme",
    "jacket & !storm",
]
_RANGES: list[tuple[tuple[float | None, float | None], set[str]]] = [
    ((250, 480), {"storm", "runner"}),
    ((None, 300), {"runner"}),
    ((900, None), {"denim"}),
    ((1000, None), set()),
    ((None, None), {"storm", "denim", "runner"}),
]


@pytest.fixture
async def index(shop: CliServices) -> PostgresProductIndex:
    return await make_search_shop(shop)


async def test_words_find_the_products_that_have_all_of_them(index: PostgresProductIndex) -> None:
    for text, expected in _WORDS:
        page = await search(index, text)
        assert set(ids(page)) == expected
        assert (page.total, page.is_total_capped, page.corrected_text, page.next) == (len(expected), False, None, None)


async def test_mistyped_words_are_corrected(index: PostgresProductIndex) -> None:
    for text, corrected, expected in _MISTYPED:
        page = await search(index, text)
        assert (set(ids(page)), page.corrected_text) == (expected, corrected)


async def test_word_that_finds_something_is_not_corrected(shop: CliServices, index: PostgresProductIndex) -> None:
    await publish(shop, "hug", {"names": {"en": "Strom cable"}, "prices": [100]})
    await index_all(shop)
    page = await search(index, "strom")
    assert (ids(page), page.corrected_text) == (["hug"], None)


async def test_some_words_may_be_missing_if_nothing_has_all(index: PostgresProductIndex) -> None:
    assert ids(await search(index, "red waterproof jacket umbrellas")) == ["storm"]
    assert set(ids(await search(index, "denim mug"))) == {"denim", "mug"}
    assert ids(await search(index, "umbrellas")) == []


async def test_correction_that_finds_nothing_is_dropped(index: PostgresProductIndex) -> None:
    page = await search(index, "denik running mug")  # nothing has two of denim, running and mug
    assert (set(ids(page)), page.corrected_text) == ({"runner", "mug"}, None)


async def test_whole_name_of_a_category_comes_before_a_name_that_has_its_words(
    shop: CliServices, index: PostgresProductIndex
) -> None:
    names = {"en": "Shoes Hanger", "zh-CN": "鞋架"}
    await publish(shop, "hanger", {"names": names, "category_id": "kitchen", "prices": [100]})
    await index_all(shop)
    for text in ("shoes", "鞋"):
        assert ids(await search(index, text)) == ["runner", "hanger"]


async def test_signs_and_operators_are_text(index: PostgresProductIndex) -> None:
    for text in _SIGNS:
        page = await search(index, text, with_facets=True)
        await index.suggest(text, "en", 10)
        if "jacket" in text:
            assert "storm" in ids(page)


async def test_name_counts_more_than_category_and_description(index: PostgresProductIndex) -> None:
    assert ids(await search(index, "storm")) == ["storm", "mug"]
    assert ids(await search(index, "外套"))[0] == "denim"


async def test_filters_fit_together(index: PostgresProductIndex) -> None:
    assert set(ids(await search(index, category_id="clothing"))) == {"storm", "denim", "runner"}
    assert ids(await search(index, category_id="shoes")) == ["runner"]
    assert set(ids(await search(index, attributes={"color": ["red", "blue"]}))) == {"storm", "denim", "runner", "mug"}
    assert ids(await search(index, attributes={"color": ["blue"], "waterproof": ["false"]})) == ["denim"]
    assert ids(await search(index, attributes={"size": ["42"]})) == ["runner"]
    assert ids(await search(index, "red", brands=["Acme", "Other"])) == ["mug"]
    assert ids(await search(index, attributes={"color": ["red' | 'blue"]})) == []
    assert ids(await search(index, brands=["' & !'x"])) == []
    assert ids(await search(index, category_id="unknown")) == []


async def test_numbers_are_filtered_by_range(index: PostgresProductIndex) -> None:
    for bounds, expected in _RANGES:
        assert set(ids(await search(index, numbers={"weight": NumberRange(*bounds)}))) == expected


async def test_price_filter_needs_a_variant_in_the_range(index: PostgresProductIndex) -> None:
    assert ids(await search(index, price=PriceRange("CNY", 36_000, 40_000))) == ["runner"]
    assert ids(await search(index, price=PriceRange("CNY", 31_000, 35_000))) == []
    assert ids(await search(index, price=PriceRange("CNY", None, 5_000))) == ["mug"]
    assert ids(await search(index, price=PriceRange("USD", None, None))) == []


async def test_availability_comes_with_the_search(index: PostgresProductIndex) -> None:
    numbers = {hit.product_id: hit.product_no for hit in (await search(index)).hits}
    bits = bytearray(numbers["mug"] // 8 + 1)
    bits[numbers["mug"] // 8] |= 1 << numbers["mug"] % 8
    available = AvailableProducts("1", bytes(bits))
    assert ids(await search(index, is_available=True, available=available)) == ["mug"]
    assert [available.has(number) for number in (numbers["mug"], numbers["storm"], 10**6)] == [True, False, False]
    assert ids(await search(index, is_available=True, available=AvailableProducts("2", b""))) == []
    facets = {facet.kind: facet for facet in (await search(index, available=available, with_facets=True)).facets}
    assert facets["available"].counts == [FacetCount("true", 1)]


async def test_counts_leave_out_their_own_filter(index: PostgresProductIndex) -> None:
    terms: dict[str, Any] = {"category_id": "clothing", "attributes": {"color": ["blue"]}, "brands": ["Nordwind"]}
    page = await search(index, with_facets=True, **terms)
    facets = {facet.field: facet for facet in page.facets}
    assert ids(page) == ["storm"]
    assert facets["color"].counts == [FacetCount("red", 2), FacetCount("blue", 1)]
    assert facets["brand"].counts == [FacetCount("Acme", 1), FacetCount("Nordwind", 1)]
    assert facets["category"].counts == [FacetCount("jackets", 1)]
    assert (facets["waterproof"].kind, facets["waterproof"].counts) == ("boolean", [FacetCount("true", 1)])
    assert facets["weight"].range == NumberRange(480, 480)
    assert facets["price"].range == NumberRange(45_000, 45_000)
    for facet in ("color", "brand"):  # each count is what a search with that value finds
        for value, products in facets[facet].counts:
            chosen: dict[str, Any] = {"attributes": {"color": [value]}} if facet == "color" else {"brands": [value]}
            assert (await search(index, **{**terms, **chosen})).total == products


async def test_counts_of_categories_are_of_the_next_level(index: PostgresProductIndex) -> None:
    async def count(category_id: str | None) -> dict[str, int]:
        page = await search(index, with_facets=True, category_id=category_id)
        return {
            value: products for facet in page.facets if facet.kind == "category" for value, products in facet.counts
        }

    assert await count(None) == {"clothing": 3, "kitchen": 1}
    assert await count("clothing") == {"jackets": 2, "shoes": 1}
    assert await count("shoes") == {"jackets": 2, "shoes": 1}


async def test_sequences(index: PostgresProductIndex) -> None:
    assert ids(await search(index, sort="price_up")) == ["mug", "denim", "runner", "storm"]
    assert ids(await search(index, sort="price_down")) == ["storm", "runner", "denim", "mug"]
    assert ids(await search(index, sort="newest")) == ["mug", "runner", "denim", "storm"]
    assert ids(await search(index)) == ["mug", "runner", "denim", "storm"]
    assert ids(await search(index, "jacket", sort="price_up")) == ["denim", "storm"]


@pytest.mark.parametrize("text", ["", "cup"])
@pytest.mark.parametrize("sort", ["relevance", "price_up", "price_down", "newest"])
async def test_pages_have_each_product_once(
    shop: CliServices, index: PostgresProductIndex, text: str, sort: str
) -> None:
    for number in range(7):
        name = "Cup" if number % 2 else "Big cup of tin"
        await publish(shop, f"cup{number}", {"names": {"en": name}, "prices": [100 + number // 3]})
    await index_all(shop)
    whole = await search(index, text, sort=sort, limit=100)
    pages, after = [], None
    while True:
        page = await search(index, text, sort=sort, limit=2, after=after)
        assert page.total == whole.total
        pages += ids(page)
        if (after := page.next) is None:
            break
    assert pages == ids(whole)
    assert len(pages) == len(set(pages)) == (7 if text else 11)


async def test_score_of_another_index_is_refused_and_price_is_not(index: PostgresProductIndex) -> None:
    with pytest.raises(CursorOutdated):
        await search(index, "jacket", after=SearchPosition("other", 1.0, 5))
    assert ids(await search(index, sort="price_up", after=SearchPosition("other", 20_000, 1))) == ["runner", "storm"]


async def test_suggestions_complete_names_of_products_and_categories(index: PostgresProductIndex) -> None:
    assert await index.suggest("ja", "en", 10) == [
        Suggestion("category", "jackets", "Jackets & Coats"),
        Suggestion("product", "denim", "Denim Jacket"),
        Suggestion("product", "storm", "Storm Jacket"),
    ]
    assert await index.suggest("storm ja", "zh-CN", 10) == [Suggestion("product", "storm", "Storm Jacket")]
    assert await index.suggest("咖啡", "zh-CN", 10) == [Suggestion("product", "mug", "咖啡杯")]
    assert await index.suggest("外", "zh-CN", 1) == [Suggestion("category", "jackets", "外套")]
    assert await index.suggest("coffee m", "en", 10) == [Suggestion("product", "mug", "Coffee Mug")]
    for nothing in ("", " ", "zzz", "%", "_"):
        assert await index.suggest(nothing, "en", 10) == []


async def test_search_without_words_that_are_terms_finds_nothing(index: PostgresProductIndex) -> None:
    assert await index.search(SearchTerms(text="!?")) == ([], 0, False, [], None, None)
