"""Answers of product searches, in the language of the customer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from commerce.product_search.model import FacetKind


class FoundProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product that was found, with its lowest and highest list price in minor units.

    `is_available` says that an open sale has units of one of its variants, at most a second ago; null if the stock
    cannot be read now."""

    product_id: str
    name: str
    language: str
    category_id: str | None
    brand: str | None
    min_price: int
    max_price: int
    currency: str
    is_available: bool | None


class FacetValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value to filter by, with the number of products that a search with it instead would find."""

    value: str
    name: str
    products: int
    is_chosen: bool


class SearchFacet(msgspec.Struct, frozen=True, kw_only=True):
    """A property to filter by, with counts. `kind` says if it is an attribute.

    `min` and `max` are those of numbers and prices, in `unit` or minor units."""

    field: str
    kind: FacetKind
    name: str
    unit: str | None
    values: list[FacetValue]
    min: float | None
    max: float | None


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search. `total` is that of all pages; if `is_total_capped` there may be more.

    `corrected_text` is what was sought instead of what was typed, else null. `facets` is empty unless asked for."""

    items: Sequence[FoundProduct]
    next: str | None
    total: int
    is_total_capped: bool
    corrected_text: str | None
    facets: list[SearchFacet]


class SearchSuggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion: the name of a product or of a category. `kind` says which, `id` names it."""

    kind: str
    id: str
    text: str
