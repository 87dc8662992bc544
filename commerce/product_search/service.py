"""Searches of products for customers: pages with cursors, and names in their language."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from commerce.kernel.languages import choose_language, choose_text
from commerce.kernel.postgres import Database
from commerce.product_search import store
from commerce.product_search.answers import (
    FacetValue,
    FoundProduct,
    SearchAnswer,
    SearchFacet,
    SearchSuggestion,
)
from commerce.product_search.cursors import decode_cursor, encode_cursor
from commerce.product_search.model import Facet, ProductHit, SearchTerms
from commerce.product_search.product_index_port import ProductIndex
from commerce.product_search.store import FacetNames

ReadAvailability = Callable[[Sequence[ProductHit]], Awaitable[Mapping[int, bool]]]
"""returns by `product_no` if hits are available, without those that cannot be read now"""


class ProductSearch:
    """Searches of customers over an index."""

    def __init__(self, db: Database, index: ProductIndex, read_availability: ReadAvailability) -> None:
        self._db = db
        self._index = index
        self._read_availability = read_availability

    async def search(self, terms: SearchTerms, cursor: str | None, wanted: Sequence[str]) -> SearchAnswer:
        """Find products, with names in the best language for a reader who wants these.

        Raises `CursorOutdated`, `Overloaded` or `NotReady`.
        """
        if cursor is not None:
            terms = replace(terms, after=decode_cursor(terms, cursor))
        page = await self._index.search(terms)
        available = await self._read_availability(page.hits)
        return SearchAnswer(
            items=[_show(hit, available.get(hit.product_no), wanted) for hit in page.hits],
            next=None if page.next is None else encode_cursor(terms, page.next),
            total=page.total,
            is_total_capped=page.is_total_capped,
            corrected_text=page.corrected_text,
            facets=await self._name_facets(page.facets, terms, wanted) if page.facets else [],
        )

    async def suggest(self, text: str, wanted: Sequence[str], limit: int) -> list[SearchSuggestion]:
        """Complete what a customer types. Raises `Overloaded` or `NotReady`."""
        suggestions = await self._index.suggest(text, wanted[0] if wanted else "en", limit)
        return [SearchSuggestion(kind=kind, id=id_, text=name) for kind, id_, name in suggestions]

    async def _name_facets(
        self, facets: Sequence[Facet], terms: SearchTerms, wanted: Sequence[str]
    ) -> list[SearchFacet]:
        """Return facets with their names in the best language."""
        values = {kind: _list_values(facets, kind) for kind in ("category", "choice")}
        attributes = [facet.field for facet in facets if facet.kind in ("choice", "boolean", "number")]
        async with self._db.connection() as connection:
            names = await store.read_names(connection, values["category"], attributes, values["choice"])
        return [_show_facet(facet, names, terms, wanted) for facet in facets]


def _list_values(facets: Iterable[Facet], kind: str) -> list[str]:
    return [count.value for facet in facets if facet.kind == kind for count in facet.counts]


def _show(hit: ProductHit, is_available: bool | None, wanted: Sequence[str]) -> FoundProduct:
    language = choose_language(hit.names, wanted)
    return FoundProduct(
        product_id=hit.product_id,
        name=hit.names[language],
        language=language,
        category_id=hit.category_id,
        brand=hit.brand,
        min_price=hit.min_minor,
        max_price=hit.max_minor,
        currency=hit.currency,
        is_available=is_available,
    )


def _show_facet(facet: Facet, names: FacetNames, terms: SearchTerms, wanted: Sequence[str]) -> SearchFacet:
    is_attribute = facet.kind in ("choice", "boolean", "number")
    value_names = {"category": names.categories, "choice": names.choices}.get(facet.kind, {})
    chosen = _list_chosen(facet, terms)
    return SearchFacet(
        field=facet.field,
        kind=facet.kind,
        name=choose_text(names.attributes.get(facet.field, {}), wanted, facet.field) if is_attribute else facet.field,
        unit=names.units.get(facet.field) if is_attribute else None,
        values=[
            FacetValue(
                value=value,
                name=choose_text(value_names.get(value, {}), wanted, value),
                products=products,
                is_chosen=value in chosen,
            )
            for value, products in facet.counts
        ],
        min=None if facet.range is None else facet.range.min,
        max=None if facet.range is None else facet.range.max,
    )


def _list_chosen(facet: Facet, terms: SearchTerms) -> Sequence[str]:
    match facet.kind:
        case "category":
            return [terms.category_id] if terms.category_id is not None else []
        case "brand":
            return terms.brands
        case "price":
            return [terms.price.currency] if terms.price is not None else []
        case "available":
            return ["true"] if terms.is_available else []
        case _:
            return terms.attributes.get(facet.field, [])
