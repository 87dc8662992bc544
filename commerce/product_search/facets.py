"""Facets from the counts of values, with their kinds and in their sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from commerce.product_search.documents import BRAND, CATEGORY
from commerce.product_search.model import MAX_FACETS, Facet, FacetCount, FacetKind, NumberRange
from commerce.product_search.store import FacetRow

PRICE, AVAILABLE = "*price", "*available"
_KINDS: dict[str, FacetKind] = {
    CATEGORY: "category",
    BRAND: "brand",
    PRICE: "price",
    AVAILABLE: "available",
}


def build_facets(rows: Iterable[FacetRow], chosen: Collection[str]) -> list[Facet]:
    """Return facets: those with a filter first, then those that most products have."""
    by_field: defaultdict[str, list[FacetRow]] = defaultdict(list)
    for row in rows:
        by_field[row.field].append(row)
    facets = []
    for field, counts in by_field.items():
        first = counts[0]
        kind = _KINDS.get(field) or _guess_kind(first)
        range_ = NumberRange(first.low, first.high) if first.low is not None and len(counts) == 1 else None
        shown = [] if kind == "number" else [FacetCount(row.value, row.products) for row in counts]
        facets.append((field not in chosen, -first.products, Facet(field.removeprefix("*"), kind, shown, range_)))
    facets.sort(key=lambda entry: (entry[0], entry[1], entry[2].field))
    return [facet for _, _, facet in facets[: MAX_FACETS + len(_KINDS)]]


def _guess_kind(row: FacetRow) -> FacetKind:
    if row.low is not None:
        return "number"
    return "boolean" if row.value in ("true", "false") else "choice"
