"""Counts of the values that the found products have, each without the filter by its own field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from commerce.product_search.documents import CATEGORY, CURRENCY
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

    def count(self, terms: SearchTerms, base: Mask, filters: Mapping[str, Mask], found: Mask) -> list[Facet]:
        """Count the values of a search; `base` has what its text finds, `found` what fits all filters, too."""
        parent_id = self._find_parent(terms.category_id)
        available = None if terms.available is None else mark_bits(terms.available.bits, self._products.size)
        chosen = [field for field in filters if field != CURRENCY]
        if terms.price is not None and PRICE not in chosen:
            chosen.append(PRICE)
        rows = [row for row in self._count_rows(found, parent_id, available, None) if row.field not in chosen]
        for field in chosen:
            others = (mask for other, mask in filters.items() if other != field)
            without = reduce(np.logical_and, others, base)
            rows += [row for row in self._count_rows(without, parent_id, available, field) if row.field == field]
        return build_facets(rows, chosen)

    def _find_parent(self, category_id: str | None) -> str | None:
        """Return the category whose children are counted: the chosen one, or the one above if it has no children."""
        if category_id is None or category_id in self._parents.values():
            return category_id
        return self._parents.get(category_id)

    def _count_rows(
        self, found: Mask, parent_id: str | None, available: Mask | None, field: str | None
    ) -> Iterable[FacetRow]:
        """Yield the counts of one field, or of those that most products have; the fields with a star are extra."""
        numbers = np.flatnonzero(found)
        if not len(numbers):
            return
        if field != PRICE and field != AVAILABLE:
            yield from self._count_filters(numbers, parent_id, field)
        if field in (None, PRICE):
            yield from self._count_prices(numbers)
        if field in (None, AVAILABLE) and available is not None:
            yield FacetRow(AVAILABLE, "true", int(np.count_nonzero(available & found)), None, None)
        for attribute_id in self._products.number_names if field is None else [field]:
            yield from _count_numbers(attribute_id, self._products.find_numbers(attribute_id), found)

    def _count_filters(
        self, numbers: NDArray[np.int64], parent_id: str | None, field: str | None
    ) -> Iterable[FacetRow]:
        counts = self._products.count_filters(numbers)
        by_field: defaultdict[str, list[FacetRow]] = defaultdict(list)
        for term_id in np.flatnonzero(counts).tolist():
            name, separator, value = self._products.filters.terms[term_id].partition("=")
            if not separator or name == CURRENCY or (field is not None and name != field):
                continue
            if name == CATEGORY and (value not in self._parents or self._parents[value] != parent_id):
                continue
            by_field[name].append(FacetRow(name, value, int(counts[term_id]), None, None))
        ranked = [sorted(rows, key=lambda row: (-row.products, row.value)) for rows in by_field.values()]
        ranked.sort(key=lambda rows: (not rows[0].field.startswith("*"), -rows[0].products, rows[0].field))
        for rows in ranked[:MAX_FACETS]:
            yield from rows[:MAX_FACET_VALUES]

    def _count_prices(self, numbers: NDArray[np.int64]) -> Iterable[FacetRow]:
        currencies = self._products.currencies[numbers]
        rows = []
        for code in np.unique(currencies).tolist():
            own = numbers[currencies == code]
            low, high = self._products.min_minor[own].min(), self._products.max_minor[own].max()
            rows.append(FacetRow(PRICE, self._products.currency_names[code], len(own), float(low), float(high)))
        yield from sorted(rows, key=lambda row: (-row.products, row.value))


def _count_numbers(attribute_id: str, column: NumberColumn, found: Mask) -> Iterable[FacetRow]:
    fits = found[column.products]
    if fits.any():
        low, high = column.lows[fits].min(), column.highs[fits].max()
        yield FacetRow(attribute_id, "", int(np.count_nonzero(fits)), float(low), float(high))
