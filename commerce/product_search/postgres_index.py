"""The index of products in Postgres: the truth for other indexes, and what answers in their place."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from math import log2
from typing import NamedTuple, TypeVar

import asyncpg

from commerce.kernel.errors import Overloaded
from commerce.kernel.postgres import Connection, Database
from commerce.product_search import store
from commerce.product_search.category_phrases import choose_phrases, list_phrase_candidates
from commerce.product_search.documents import BRAND, CATEGORY, CURRENCY
from commerce.product_search.errors import CursorOutdated
from commerce.product_search.facets import AVAILABLE, PRICE, build_facets
from commerce.product_search.model import (
    MAX_FACET_VALUES,
    MAX_FACETS,
    MAX_TOTAL,
    Facet,
    NumberRange,
    ProductHit,
    SearchPage,
    SearchPosition,
    SearchTerms,
    Suggestion,
)
from commerce.product_search.query_terms import QueryWord, list_reduced, loosen, quote, require_all, split_query
from commerce.product_search.store import Conditions, FacetRow, WeighedQuery
from commerce.text_search.spelling import is_corrected, is_near, list_rests
from commerce.text_search.terms import list_spellings, normalise

_Filter = TypeVar("_Filter")
_MAX_RARITY, _MAX_NEAR = 10, 200
_MAX_CANDIDATES = 100
_MIN_COMPLETED = 2
"""letters from which a word is completed"""
_LIKE_SIGNS = re.compile(r"[%_\\]")


class _ChosenQuery(NamedTuple):
    """A query for a text, the words that count for the sequence, and the corrected text."""

    query: str
    words: list[QueryWord]
    corrected_text: str | None


class PostgresProductIndex:
    """Searches in Postgres. Each takes `timeout_ms` per statement at most."""

    def __init__(self, db: Database, timeout_ms: int) -> None:
        self._db = db
        self._timeout_ms = timeout_ms

    async def search(self, terms: SearchTerms) -> SearchPage:
        """Find products, as the port says."""
        if not terms.text and terms.sort == "relevance":
            terms = replace(terms, sort="newest")
        if terms.after is not None and terms.sort == "relevance" and terms.after.index_name != store.INDEX_NAME:
            raise CursorOutdated("cannot continue the list: the cursor is of another index; read the first page")
        async with self._open() as connection:
            chosen = None
            if terms.text:
                chosen = await _choose_query(connection, terms.text)
                if chosen is None:
                    return SearchPage([], 0, False, [], None, None)
            conditions = build_conditions(terms, None if chosen is None else chosen.query)
            hits, next_position = await _find(connection, terms, conditions, chosen)
            total = await store.count_found(connection, conditions, MAX_TOTAL + 1)
            facets = await _count_facets(connection, terms, conditions) if terms.with_facets else []
        corrected = None if chosen is None else chosen.corrected_text
        return SearchPage(hits, min(total, MAX_TOTAL), total > MAX_TOTAL, facets, next_position, corrected)

    async def suggest(self, text: str, language: str, limit: int) -> Sequence[Suggestion]:
        """Complete the beginning of a name, as the port says."""
        typed = normalise(text).strip()
        query = await asyncio.to_thread(_complete_query, text)
        async with self._open() as connection:
            pattern = _LIKE_SIGNS.sub(r"\\\g<0>", typed) + "%"
            categories = await store.suggest_categories(connection, pattern, limit) if typed else []
            products = await store.suggest_products(connection, query, _MAX_CANDIDATES) if query else []
        found_categories = {key: Suggestion("category", key, name) for key, _, name in categories}
        for key, name_language, name in categories:
            if name_language == language:
                found_categories[key] = Suggestion("category", key, name)
        found_products = _rank_names(products, typed, language)
        shown_categories = list(found_categories.values())[: max(1, limit // 3, limit - len(found_products))]
        return [*shown_categories, *found_products][:limit]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Connection]:
        """Open the transaction of a search. Raises `Overloaded` if a statement takes too long."""
        try:
            async with self._db.snapshot() as connection:
                await store.begin_search(connection, self._timeout_ms)
                yield connection
        except asyncpg.QueryCanceledError:
            raise Overloaded("the search takes too long now; repeat it with more words or filters") from None


def build_conditions(terms: SearchTerms, query: str | None) -> Conditions:
    """Return the conditions of a search, whose text has become `query`."""
    price = terms.price
    has_range = price is not None and (price.min_minor is not None or price.max_minor is not None)
    filters = [[f"{CATEGORY}={terms.category_id}"]] if terms.category_id is not None else []
    filters += [[f"{BRAND}={brand}" for brand in terms.brands]] if terms.brands else []
    filters += [[f"{CURRENCY}={price.currency}"]] if price is not None else []
    filters += [[f"{key}={value}" for value in values] for key, values in terms.attributes.items()]
    bits = None
    if terms.is_available:
        bits = b"" if terms.available is None else terms.available.bits
    return Conditions(
        text=query,
        filters=" & ".join(f"({' | '.join(map(quote, group))})" for group in filters) or None,
        min_minor=(price.min_minor or 0) if price is not None and has_range else None,
        max_minor=2**62 if price is None or price.max_minor is None else price.max_minor,
        numbers=_format_numbers(terms.numbers),
        bits=bits,
    )


def _format_numbers(numbers: Mapping[str, NumberRange]) -> str | None:
    """Return a condition on `numbers` in SQL/JSON path language."""
    conditions = []
    for key, (low, high) in numbers.items():
        bounds = [f"@ >= {low!r}"] if low is not None else []
        bounds += [f"@ <= {high!r}"] if high is not None else []
        conditions.append(f"exists($.{json.dumps(key)}[*] ? ({' && '.join(bounds) or '@ == @'}))")
    return " && ".join(conditions) or None


async def _find(
    connection: Connection, terms: SearchTerms, conditions: Conditions, chosen: _ChosenQuery | None
) -> tuple[list[ProductHit], SearchPosition | None]:
    """Find a page of hits, and the position after it."""
    count = terms.limit + 1
    if terms.sort == "relevance" and chosen is not None:
        words = await _weigh(connection, chosen.words)
        rows = await store.find_by_score(connection, conditions, words, MAX_TOTAL, terms.after, count)
    else:
        rows = await store.find_sorted(connection, conditions, terms.sort, terms.after, count)
    hits = [hit for hit, _ in rows[: terms.limit]]
    return hits, rows[terms.limit - 1][1] if len(rows) > terms.limit else None


async def _weigh(connection: Connection, words: Sequence[QueryWord]) -> WeighedQuery:
    """Return the words with weights that grow with their rarity.

    They are whole numbers, which rarely change as products come and go, so the sequence of pages stays.
    """
    listed, products = await store.count_products(connection, [term for word in words for term in word.terms])
    weights = [
        float(1 + min(_MAX_RARITY, max(0, round(log2((listed + 1) / (_count(word, products) + 1)))))) for word in words
    ]
    return WeighedQuery(weights, [require_all([word]) for word in words])


def _count(word: QueryWord, products: Mapping[str, int]) -> int:
    parts = min((products.get(part, 0) for part in word.parts), default=0)
    return max(products.get(word.term, 0), parts)


async def _choose_query(connection: Connection, text: str) -> _ChosenQuery | None:
    """Return the strictest query for a text that finds a product at all, whatever the filters.

    First all words; then mistyped ones corrected, if they are in no product, with as many as half of the known words;
    then these without the correction: an unknown word may also be a name that the shop does not have.
    """
    words = await asyncio.to_thread(split_query, text)
    if not words:
        return None
    strict = require_all(words)
    if await store.choose_query(connection, [strict]) is not None:
        return _ChosenQuery(strict, words + await _list_names(connection, text), None)
    known_words = await _list_known(connection, words)
    corrected_text = await _correct(connection, text, [word.term for word in words if word not in known_words])
    if corrected_text is not None and (corrected := await _reduce(connection, corrected_text)) is not None:
        return corrected._replace(corrected_text=corrected_text)
    return await _reduce(connection, text)


async def _reduce(connection: Connection, text: str) -> _ChosenQuery | None:
    """Return the query for as many of the known words as a product has, down to half; None if none has."""
    words = await asyncio.to_thread(split_query, text)
    known_words = await _list_known(connection, words + [QueryWord(part) for word in words for part in word.characters])
    words = loosen(words, known_words.__contains__)
    if not words:
        return None
    _, products = await store.count_products(connection, [term for word in words for term in word.terms])
    words.sort(key=lambda word: _count(word, products))
    query = await store.choose_query(connection, list(list_reduced(words)))
    return None if query is None else _ChosenQuery(query, words + await _list_names(connection, text), None)


async def _list_names(connection: Connection, text: str) -> list[QueryWord]:
    """Return the names of categories in a text, if they have products."""
    candidates = await asyncio.to_thread(list_phrase_candidates, text)
    _, products = await store.count_products(connection, candidates)
    return choose_phrases(candidates, lambda phrase: products.get(phrase, 0) > 0)


async def _list_known(connection: Connection, words: Sequence[QueryWord]) -> set[QueryWord]:
    """Return the words that a product has."""
    places = await store.list_known(connection, [require_all([word]) for word in words])
    return {words[place] for place in places}


async def _correct(connection: Connection, text: str, unknown: Sequence[str]) -> str | None:
    """Return the text with words of products in place of unknown ones; None if none is near."""
    corrected = {word for word in unknown if is_corrected(word)}
    if not corrected:
        return None
    replaced: dict[str, str] = {}
    for word in sorted(corrected):
        near = await store.list_near(connection, sorted(list_rests(word)), _MAX_NEAR)
        best = next((other for other in near if is_near(word, other.term)), None)
        if best is not None:
            replaced[word] = best.spelling
    if not replaced:
        return None
    result = normalise(text)
    for stem, spelling in list_spellings(text):
        if stem in replaced:
            result = re.sub(rf"(?<!\w){re.escape(spelling)}(?!\w)", replaced[stem], result)
    return " ".join(result.split())


async def _count_facets(connection: Connection, terms: SearchTerms, conditions: Conditions) -> list[Facet]:
    """Count values of fields, each without the filter by the field itself."""
    parent_id = None
    if terms.category_id is not None:
        parent_id = await store.find_facet_parent(connection, terms.category_id)
    available = None if terms.available is None else terms.available.bits
    reduced = dict(_list_reduced_terms(terms))

    async def count(conditions: Conditions, fields: list[str] | None) -> list[FacetRow]:
        return await store.count_facets(
            connection, conditions, MAX_TOTAL, fields, parent_id, available, MAX_FACETS, MAX_FACET_VALUES
        )

    rows = [row for row in await count(conditions, None) if row.field not in reduced]
    for field, without in reduced.items():
        own = await count(build_conditions(without, conditions.text), [field])
        rows += [row for row in own if row.field == field]
    return build_facets(rows, reduced)


def _list_reduced_terms(terms: SearchTerms) -> Iterable[tuple[str, SearchTerms]]:
    """Yield each field with a filter, with the terms without that filter."""
    if terms.category_id is not None:
        yield CATEGORY, replace(terms, category_id=None)
    if terms.brands:
        yield BRAND, replace(terms, brands=[])
    if terms.price is not None:
        yield PRICE, replace(terms, price=terms.price._replace(min_minor=None, max_minor=None))
    if terms.is_available:
        yield AVAILABLE, replace(terms, is_available=False)
    for key in terms.attributes:
        yield key, replace(terms, attributes=_without(terms.attributes, key))
    for key in terms.numbers:
        yield key, replace(terms, numbers=_without(terms.numbers, key))


def _without(filters: Mapping[str, _Filter], key: str) -> dict[str, _Filter]:
    return {other: value for other, value in filters.items() if other != key}


def _complete_query(text: str) -> str | None:
    """Return the query for products whose title has all words of a text, the last one perhaps in part.

    A last letter that stands alone says too little; it only counts where names are compared.
    """
    words, spellings = split_query(text), list_spellings(text)
    stem, last = spellings[-1] if spellings else ("", "")
    if not last or not normalise(text).endswith(last):  # it ends in Chinese, or the last word is complete
        return require_all(words) or None
    others = [word for word in words if word.term != stem]
    if len(last) < _MIN_COMPLETED:
        return require_all(others or words) or None
    return " & ".join(filter(None, (require_all(others), f"({quote(stem)} | {quote(last)}:*)")))


def _rank_names(products: Sequence[tuple[str, dict[str, str]]], typed: str, language: str) -> list[Suggestion]:
    """Return a name of each product, in the language if it can be.

    Short names that begin as was typed come first."""
    ranked: list[tuple[tuple[bool, bool, bool, int, str], str]] = []
    for product_id, names in products:
        places: list[tuple[bool, bool, bool, int, str]] = []
        for tag, name in names.items():
            start = normalise(name).find(typed)
            places.append((start != 0, start < 0, tag != language, len(name), name))
        if places:
            ranked.append((min(places), product_id))
    ranked.sort()
    suggestions: dict[str, Suggestion] = {}
    for place, product_id in ranked:
        suggestions.setdefault(place[-1], Suggestion("product", product_id, place[-1]))
    return list(suggestions.values())
