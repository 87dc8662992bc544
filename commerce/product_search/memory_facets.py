"""Counts of the values that the found products have, each without the filter by its own field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from commerce.product_search.documents import CATEGORY, CURRENCY
from commerce.product_search.facets import AVAILABLE, PRICE, build_facets
from commerce.product_search.memory_postings import Mask
from commerce.product_search.memory_products import MemoryProducts, mark_bits, mark_numbers
from commerce.product_search.model import MAX_FACET_VALUES, MAX_FACETS, Facet, SearchTerms
from commerce.product_search.store import FacetRow

ProductNumbers = NDArray[np.int64]


class Matching:
    """The products that fit a search, and those that would without one of its filters.

    `base` has what its text finds, `filters` what fits each field with a filter. The places of all masks are those of
    `numbers`, or the numbers themselves."""

    def __init__(self, base: Mask, filters: Mapping[str, Mask], numbers: ProductNumbers | None = None) -> None:
        misses = np.zeros(len(base), np.int8)
        for mask in filters.values():
            misses += ~mask
        self._filters = filters
        self._places = np.flatnonzero(base & (misses <= 1))
        self._near = self._places if numbers is None else numbers[self._places]
        self._fits = misses[self._places] == 0
        self.numbers: ProductNumbers = self._near[self._fits]
        """sorted"""

    @property
    def fields(self) -> Collection[str]:
        """The fields with a filter."""
        return self._filters.keys()

    def list_without(self, field: str) -> ProductNumbers:
        """Return the numbers of the products that fit all filters but the one by a field, sorted."""
        mask = self._filters.get(field)
        return self.numbers if mask is None else self._near[self._fits | ~mask[self._places]]


class FacetCounter:
    """Counts over products in memory. `parents` has the parent of each category."""

    def __init__(self, products: MemoryProducts, parents: Mapping[str, str | None]) -> None:
        self._products = products
        self._parents = parents
        self._children: defaultdict[str | None, list[str]] = defaultdict(list)
        for category_id, parent_id in parents.items():
            self._children[parent_id].append(category_id)
        self._kept: dict[str | None, list[FacetRow]] = {}
        self._kept_of = -1

    def count(self, terms: SearchTerms, matching: Matching) -> list[Facet]:
        """Count the values of what a search finds."""
        available = None if terms.available is None else mark_bits(terms.available.bits, self._products.size)
        chosen = [field for field in matching.fields if field != CURRENCY]
        if terms.price is not None and PRICE not in chosen:
            chosen.append(PRICE)
        rows = self._count_rows(terms, matching, chosen)
        numbers = matching.list_without(AVAILABLE)
        if available is not None and len(numbers):
            rows = [*rows, FacetRow(AVAILABLE, "true", int(np.count_nonzero(available[numbers])), None, None)]
        return build_facets(rows, chosen)

    def _count_rows(self, terms: SearchTerms, matching: Matching, chosen: Sequence[str]) -> list[FacetRow]:
        """Return all counts but those of availability.

        Those of a whole category, which are most, are kept until a product changes."""
        is_known = terms.category_id is None or terms.category_id in self._parents
        is_kept = is_known and not terms.text and {*matching.fields} <= {CATEGORY}
        if self._kept_of != self._products.change_no:
            self._kept, self._kept_of = {}, self._products.change_no
        if is_kept and terms.category_id in self._kept:
            return self._kept[terms.category_id]
        parent_id = self._find_parent(terms.category_id)
        rows = [*self._count_frequent(matching.numbers, parent_id, chosen)]
        for field in chosen:
            if field == AVAILABLE:
                continue
            rows += self._count_field(matching.list_without(field), parent_id, field)
        if is_kept:
            self._kept[terms.category_id] = rows
        return rows

    def _find_parent(self, category_id: str | None) -> str | None:
        """Return the category whose children are counted: the chosen one, or its parent."""
        if category_id is None or category_id in self._children:
            return category_id
        return self._parents.get(category_id)

    def _count_frequent(
        self, numbers: ProductNumbers, parent_id: str | None, left_out: Collection[str]
    ) -> Iterator[FacetRow]:
        """Yield the counts of the fields that most products have, but not of some of them."""
        if not len(numbers):
            return
        counts = self._products.count_values(numbers)
        children = self._list_children(parent_id)
        has_categories = bool(counts[children].any())
        if CATEGORY not in left_out:
            yield from self._list_values(CATEGORY, children, counts[children])
        yield from self._list_attributes(counts, MAX_FACETS - has_categories, left_out)
        if PRICE not in left_out:
            yield from self._count_prices(numbers)
        if attribute_ids := [name for name in self._products.number_names if name not in left_out]:
            mask = mark_numbers(numbers, self._products.size)
            for attribute_id in attribute_ids:
                yield from self._count_numbers(attribute_id, mask)

    def _count_field(self, numbers: ProductNumbers, parent_id: str | None, field: str) -> Iterator[FacetRow]:
        """Yield the counts of one field."""
        if not len(numbers):
            return
        if field == PRICE:
            yield from self._count_prices(numbers)
            return
        own = self._list_children(parent_id) if field == CATEGORY else self._products.fields.list_terms(field)
        yield from self._list_values(field, own, self._products.count_terms(numbers, own))
        if field in self._products.number_names:
            yield from self._count_numbers(field, mark_numbers(numbers, self._products.size))

    def _list_children(self, parent_id: str | None) -> NDArray[np.int64]:
        """Return the ids of the filters by the children of a category, or by the roots."""
        ids = self._products.filters.ids
        names = (f"{CATEGORY}={child}" for child in self._children.get(parent_id, ()))
        return np.array([ids[name] for name in names if name in ids], np.int64)

    def _list_attributes(
        self, counts: NDArray[np.int64], max_fields: int, left_out: Collection[str]
    ) -> Iterator[FacetRow]:
        """Yield the counts of brands and of the attributes that most products have."""
        fields = self._products.fields
        term_ids = np.flatnonzero(counts)
        field_ids = fields.of_terms[term_ids]
        max_counts = np.zeros(len(fields.names), np.int64)
        np.maximum.at(max_counts, field_ids, counts[term_ids])
        names = [
            (not fields.names[field_id].startswith("*"), -int(max_counts[field_id]), fields.names[field_id], field_id)
            for field_id in np.flatnonzero(max_counts).tolist()
            if fields.names[field_id] not in (CATEGORY, CURRENCY)
        ]
        for _, _, name, field_id in sorted(names)[:max_fields]:
            if name not in left_out:
                own = term_ids[field_ids == field_id]
                yield from self._list_values(name, own, counts[own])

    def _list_values(self, field: str, term_ids: NDArray[np.int64], counts: NDArray[np.int64]) -> list[FacetRow]:
        """Return the most frequent values of a field."""
        frequent = counts > 0
        if len(counts) > MAX_FACET_VALUES:
            frequent &= counts >= np.partition(counts, -MAX_FACET_VALUES)[-MAX_FACET_VALUES]
        values = self._products.fields.values
        names = (values[term_id] for term_id in term_ids[frequent].tolist())
        pairs = zip((-counts[frequent]).tolist(), names, strict=True)
        return [FacetRow(field, value, -count, None, None) for count, value in sorted(pairs)[:MAX_FACET_VALUES]]

    def _count_prices(self, numbers: ProductNumbers) -> list[FacetRow]:
        codes = self._products.currencies[numbers]
        lows, highs = self._products.min_minor[numbers], self._products.max_minor[numbers]
        rows = []
        for code, count in enumerate(np.bincount(codes).tolist()):
            if count:
                own = codes == code
                low, high = float(lows[own].min()), float(highs[own].max())
                rows.append(FacetRow(PRICE, self._products.currency_names[code], count, low, high))
        return sorted(rows, key=lambda row: (-row.products, row.value))

    def _count_numbers(self, attribute_id: str, mask: Mask) -> Iterator[FacetRow]:
        column = self._products.find_numbers(attribute_id)
        fits = mask[column.products]
        if fits.any():
            low, high = column.lows[fits].min(), column.highs[fits].max()
            yield FacetRow(attribute_id, "", int(np.count_nonzero(fits)), float(low), float(high))
