"""Searches in memory by the rules of those in Postgres: the same products and sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from math import log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from commerce.product_search.category_phrases import choose_phrases, list_phrase_candidates
from commerce.product_search.documents import BRAND, CATEGORY, CURRENCY
from commerce.product_search.errors import CursorOutdated
from commerce.product_search.facets import AVAILABLE, PRICE
from commerce.product_search.index_wire import MEMORY_INDEX_NAME
from commerce.product_search.memory_facets import FacetCounter, Matching
from commerce.product_search.memory_postings import Mask
from commerce.product_search.memory_products import WEIGHTS, MemoryProducts, mark_bits
from commerce.product_search.model import MAX_TOTAL, SearchPage, SearchPosition, SearchTerms
from commerce.product_search.query_terms import MAX_CHOSEN, QueryWord, loosen, split_query
from commerce.text_search.spelling import is_corrected

_MAX_RARITY = 10
_MAX_MINOR = 2**62
_FEW = 32
"""One in so many products is few: their filters are looked through, not the products of each filter."""
_RANK_SCALE = np.float32(1.64493406685)
"""of `ts_rank` of Postgres"""
_RANKS = np.zeros(256, np.float32)
for _code, _weight in WEIGHTS.items():
    _RANKS[_code] = np.float32(_weight) / _RANK_SCALE


class _ChosenWords(NamedTuple):
    """The products that a text finds, and the words that count for the sequence."""

    mask: Mask
    words: list[QueryWord]


class MemoryProductIndex:
    """An index over products in memory. `parents` has the parent of each category, None of roots."""

    def __init__(self, products: MemoryProducts, parents: dict[str, str | None]) -> None:
        self.products = products
        self._counter = FacetCounter(products, parents)

    def search(self, terms: SearchTerms) -> SearchPage | None:
        """Find products. None if a word may be mistyped: only Postgres corrects.

        Raises `CursorOutdated` if `after` is a place in the scores of another index.
        """
        if not terms.text and terms.sort == "relevance":
            terms = replace(terms, sort="newest")
        if terms.after is not None and terms.sort == "relevance" and terms.after.index_name != MEMORY_INDEX_NAME:
            raise CursorOutdated("cannot continue the list: the cursor is of another index; read the first page")
        base, words = self.products.listed, list[QueryWord]()
        if terms.text:
            chosen = self._choose(terms.text)
            if chosen is None:
                return None
            base, words = base & chosen.mask, chosen.words
            if not words:
                return SearchPage([], 0, False, [], None, None)
        matching = self._match(terms, base)
        hits, following = self._rank(terms, matching.numbers, words)
        facets = self._counter.count(terms, matching) if terms.with_facets else []
        total = len(matching.numbers)
        page = [self.products.read_hit(number) for number in hits.tolist()]
        return SearchPage(page, min(total, MAX_TOTAL), total > MAX_TOTAL, facets, following, None)

    def _choose(self, text: str) -> _ChosenWords | None:
        """Return what the strictest query finds that finds a product at all; no words if none does."""
        words, size = split_query(text), self.products.size
        masks = {word: self._mark_word(word) for word in words}
        names = choose_phrases(list_phrase_candidates(text), lambda phrase: self._count_term(phrase) > 0)
        if words and (strict := reduce(np.logical_and, masks.values())).any():
            return _ChosenWords(strict, words + names)
        if any(is_corrected(word.term) for word in words if not masks[word].any()):
            return None
        masks |= {QueryWord(part): self._mark_word(QueryWord(part)) for word in words for part in word.characters}
        known_words = loosen(words, lambda word: bool(masks[word].any()))
        known_words.sort(key=self._count)
        chosen = known_words[:MAX_CHOSEN]
        counts = sum((masks[word].astype(np.int8) for word in chosen), np.zeros(size, np.int8))
        for count in range(len(chosen), (len(chosen) - 1) // 2, -1):
            if known_words and (mask := counts >= count).any():
                return _ChosenWords(mask, known_words + names)
        return _ChosenWords(np.zeros(size, np.bool_), [])

    def _mark_word(self, word: QueryWord) -> Mask:
        terms, size = self.products.terms, self.products.size
        mask = terms.mark([word.term], size)
        if word.parts:
            mask |= reduce(np.logical_and, (terms.mark([part], size) for part in word.parts))
        return mask

    def _count(self, word: QueryWord) -> int:
        """Count the listed products whose title has a word."""
        parts = min((self._count_term(part) for part in word.parts), default=0)
        return max(self._count_term(word.term), parts)

    def _count_term(self, term: str) -> int:
        return int(np.count_nonzero(self.products.terms.weigh(term)))

    def _match(self, terms: SearchTerms, base: Mask) -> Matching:
        """Find which of the `base` products fit the filters."""
        if np.count_nonzero(base) * _FEW >= self.products.size:
            return Matching(base, self._mark_filters(terms, None))
        few = np.flatnonzero(base)
        return Matching(np.ones(len(few), np.bool_), self._mark_filters(terms, few), few)

    def _mark_filters(self, terms: SearchTerms, few: NDArray[np.int64] | None) -> dict[str, Mask]:
        """Return which of all products, or of `few`, fit each filter, by the field of the filter."""
        products, size = self.products, self.products.size
        mark_values = products.mark_values if few is None else products.open_values(few)
        own = slice(None) if few is None else few
        masks: dict[str, Mask] = {}
        if terms.category_id is not None:
            masks[CATEGORY] = mark_values([f"{CATEGORY}={terms.category_id}"])
        if terms.brands:
            masks[BRAND] = mark_values([f"{BRAND}={brand}" for brand in terms.brands])
        if (price := terms.price) is not None:
            masks[CURRENCY] = mark_values([f"{CURRENCY}={price.currency}"])
            if price.min_minor is not None or price.max_minor is not None:
                max_minor = _MAX_MINOR if price.max_minor is None else price.max_minor
                masks[PRICE] = products.mark_prices(price.min_minor or 0, max_minor, few)
        if terms.is_available:
            masks[AVAILABLE] = mark_bits(b"" if terms.available is None else terms.available.bits, size)[own]
        for key, values in terms.attributes.items():
            masks[key] = mark_values([f"{key}={value}" for value in values])
        for key, (low, high) in terms.numbers.items():
            numbers = products.find_numbers(key).mark(low, high, size)[own]
            masks[key] = masks[key] & numbers if key in masks else numbers
        return masks

    def _rank(
        self, terms: SearchTerms, numbers: NDArray[np.int64], words: Sequence[QueryWord]
    ) -> tuple[NDArray[np.int64], SearchPosition | None]:
        """Return the numbers of a page in their sequence, and the position after it."""
        keys, sign = self._list_keys(terms, numbers, words)
        ranked = keys * sign
        if terms.after is not None:
            after = terms.after.key * sign
            later = (ranked > after) | ((ranked == after) & (numbers < terms.after.product_no))
            keys, ranked, numbers = keys[later], ranked[later], numbers[later]
        count = terms.limit + 1
        if len(numbers) > count:
            near = ranked <= np.partition(ranked, count - 1)[count - 1]
            keys, ranked, numbers = keys[near], ranked[near], numbers[near]
        order = np.lexsort((-numbers, ranked))[:count]
        page = numbers[order[: terms.limit]]
        if len(order) <= terms.limit:
            return page, None
        last = order[terms.limit - 1]
        return page, SearchPosition(MEMORY_INDEX_NAME, float(keys[last]), int(numbers[last]))

    def _list_keys(
        self, terms: SearchTerms, numbers: NDArray[np.int64], words: Sequence[QueryWord]
    ) -> tuple[NDArray[np.float64], int]:
        """Return what products are sorted by, and -1 if the largest come first."""
        match terms.sort:
            case "price_up":
                return self.products.min_minor[numbers].astype(np.float64), 1
            case "price_down":
                return self.products.max_minor[numbers].astype(np.float64), -1
            case "relevance" if words:
                return self._score(words, numbers), -1
        return numbers.astype(np.float64), -1

    def _score(self, words: Sequence[QueryWord], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of products: ranks of `ts_rank`, weighed by the rarity of each word."""
        listed = self.products.listed_count
        scores = np.zeros(len(numbers), np.float64)
        for word in words:
            rarity = round(log2((listed + 1) / (self._count(word) + 1)))
            weight = 1 + min(_MAX_RARITY, max(0, rarity))
            terms = {*word.terms}
            ranks = np.zeros(len(numbers), np.float32)
            for term in sorted(terms):
                ranks += _RANKS[self.products.terms.weigh_in(term, numbers)]
            scores += weight * (ranks / np.float32(len(terms)))
        return scores
