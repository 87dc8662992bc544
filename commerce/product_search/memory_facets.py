"""Counts of the values that the found products have, each without the filter by its own field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from commerce.product_search.documents import BRAND, CATEGORY, CURRENCY
from commerce.product_search.facets import AVAILABLE, PRICE, build_facets
from commerce.product_search.memory_postings import Mask
from commerce.product_search.memory_products import MemoryProducts, NumberColumn, mark_bits
from commerce.product_search.model import MAX_FACET_VALUES, MAX_FACETS, Facet, SearchTerms
from commerce.product_search.store import FacetRow


class FacetCounter:
    """Counts over products in memory. `parents` has the parent of each category."""

    def __init__(self, products: MemoryProducts, parents: Mapping[str, str | None]) -> None:
        self._products = products
        self._parents = parents
        self._children: defaultdict[str | None, list[str]] = defaultdict(list)
        for category_id, parent_id in parents.items():
            self._children[parent_id].append(category_id)

    def count(self, terms: SearchTerms, base: Mask, filters: Mapping[str, Mask], matching: Mask) -> list[Facet]:
        """Count the values of a search; `base` has what its text finds, `matching` what fits all filters, too."""
        parent_id = self._find_parent(terms.category_id)
        available = None if terms.available is None else mark_bits(terms.available.bits, self._products.size)
        chosen = [field for field in filters if field != CURRENCY]
        if terms.price is not None and PRICE not in chosen:
            chosen.append(PRICE)
        rows = [row for row in self._count_rows(matching, parent_id, available, None) if row.field not in chosen]
        for field in chosen:
            others = (mask for other, mask in filters.items() if other != field)
            without = reduce(np.logical_and, others, base)
            rows += [row for row in self._count_rows(without, parent_id, available, field) if row.field == field]
        return build_facets(rows, chosen)

    def _find_parent(self, category_id: str | None) -> str | None:
        """Return the category whose children are counted: the chosen one, or its parent."""
        if category_id is None or category_id in self._children:
            return category_id
        return self._parents.get(category_id)

    def _count_rows(
        self, matching: Mask, parent_id: str | None, available: Mask | None, field: str | None
    ) -> Iterable[FacetRow]:
        """Yield the counts of one field, or of those that most products have."""
        numbers = np.flatnonzero(matching)
        if not len(numbers):
            return
        categories = self._count_categories(matching, parent_id) if field in (None, CATEGORY) else []
        yield from categories
        if field is None:
            yield from self._count_filters(matching, MAX_FACETS - bool(categories))
        elif not field.startswith("*") or field == BRAND:
            counts = self._products.count_field(matching, field)
            yield from _list_values(field, ((term.partition("=")[2], count) for term, count in counts.items()))
        if field in (None, PRICE):
            yield from self._count_prices(numbers)
        if field in (None, AVAILABLE) and available is not None:
            yield FacetRow(AVAILABLE, "true", int(np.count_nonzero(available & matching)), None, None)
        for attribute_id in self._products.number_names if field is None else [field]:
            yield from _count_numbers(attribute_id, self._products.find_numbers(attribute_id), matching)

    def _count_categories(self, matching: Mask, parent_id: str | None) -> list[FacetRow]:
        """Return the counts of the children of a category, or of the roots."""
        children = self._children.get(parent_id, ())
        counts = ((child, self._products.count_term(matching, f"{CATEGORY}={child}")) for child in children)
        return _list_values(CATEGORY, counts)

    def _count_filters(self, matching: Mask, max_fields: int) -> Iterable[FacetRow]:
        """Yield the counts of the fields that most products have, without categories."""
        fields, terms = self._products.fields, self._products.filters.terms
        counts = self._products.count_filters(matching)
        term_ids = np.flatnonzero(counts)
        field_ids = fields.of_terms[term_ids]
        max_counts = np.zeros(len(fields.names), np.int64)
        np.maximum.at(max_counts, field_ids[field_ids >= 0], counts[term_ids[field_ids >= 0]])
        names = [
            (not fields.names[field_id].startswith("*"), -int(max_counts[field_id]), fields.names[field_id], field_id)
            for field_id in np.flatnonzero(max_counts).tolist()
            if fields.names[field_id] not in (CATEGORY, CURRENCY)
        ]
        for _, _, name, field_id in sorted(names)[:max_fields]:
            own = term_ids[field_ids == field_id]
            if len(own) > MAX_FACET_VALUES:
                min_count = np.partition(counts[own], -MAX_FACET_VALUES)[-MAX_FACET_VALUES]
                own = own[counts[own] >= min_count]
            values = ((terms[term_id].partition("=")[2], int(counts[term_id])) for term_id in own.tolist())
            yield from _list_values(name, values)

    def _count_prices(self, numbers: NDArray[np.int64]) -> Iterable[FacetRow]:
        currencies = self._products.currencies[numbers]
        rows = []
        for code in np.unique(currencies).tolist():
            own = numbers[currencies == code]
            low, high = self._products.min_minor[own].min(), self._products.max_minor[own].max()
            rows.append(FacetRow(PRICE, self._products.currency_names[code], len(own), float(low), float(high)))
        yield from sorted(rows, key=lambda row: (-row.products, row.value))


def _count_numbers(attribute_id: str, column: NumberColumn, matching: Mask) -> Iterable[FacetRow]:
    fits = matching[column.products]
    if fits.any():
        low, high = column.lows[fits].min(), column.highs[fits].max()
        yield FacetRow(attribute_id, "", int(np.count_nonzero(fits)), float(low), float(high))


def _list_values(field: str, counts: Iterable[tuple[str, int]]) -> list[FacetRow]:
    """Return the most frequent values of a field."""
    rows = [FacetRow(field, value, count, None, None) for value, count in counts if count]
    return sorted(rows, key=lambda row: (-row.products, row.value))[:MAX_FACET_VALUES]
