"""Terms of product searches, and the answers of an index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SearchSort = Literal["relevance", "price_up", "price_down", "newest"]
FacetKind = Literal["category", "brand", "price", "available", "choice", "boolean", "number"]
MAX_TEXT_CHARS, MAX_FILTERS, MAX_HITS, MAX_SUGGESTIONS = 200, 20, 100, 20
MAX_FACETS, MAX_FACET_VALUES = 30, 50
MAX_TOTAL = 10_000
"""Most hits that an index counts: it says that there are more."""


class NumberRange(NamedTuple):
    """Numbers from `min` to `max`, both included; None is no limit."""

    min: float | None
    max: float | None


class PriceRange(NamedTuple):
    """Products with a variant that has a list price in this range; minor units, both ends included."""

    currency: str
    min_minor: int | None
    max_minor: int | None


class AvailableProducts(NamedTuple):
    """The products with units left in an open sale, when a gateway last read them: at most a second ago.

    `bits` has a bit per `product_no`, as `get_bit` of Postgres counts them: `bits[no // 8] >> (no % 8) & 1`. Products
    beyond its end are not available. Two with equal `version` of one gateway are equal; an index keeps none longer than
    the search that brings it.
    """

    version: str
    bits: bytes

    def has(self, product_no: int) -> bool:
        """Tell whether a product is available."""
        place = product_no >> 3
        return place < len(self.bits) and bool(self.bits[place] >> (product_no & 7) & 1)


class SearchPosition(NamedTuple):
    """The place of a hit in the list of a search, after which the next page begins.

    `key` is what the list is sorted by: score, lowest price, highest price, or the number itself for the newest. Scores
    compare only within one index, named `index_name`.
    """

    index_name: str
    key: float
    product_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchTerms:
    """A search. All filters must fit; of `brands`, and of the values of one attribute, one is enough.

    `text` is as the customer typed it and may be empty; it is sought in the texts of all languages. `attributes` has
    ids of choices, or `true` and `false`, by attribute; `numbers` ranges by attribute. `is_available` is the filter by
    `available`, without which it needs no `available`. An empty `text` with the sort `relevance` is sorted as `newest`.
    Equal hits are sorted by `product_no`, the newest first.
    """

    text: str = ""
    category_id: str | None = None
    """with its descendants"""
    price: PriceRange | None = None
    attributes: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, NumberRange] = field(default_factory=dict)
    brands: list[str] = field(default_factory=list)
    is_available: bool = False
    available: AvailableProducts | None = None
    sort: SearchSort = "relevance"
    after: SearchPosition | None = None
    limit: int = 20
    with_facets: bool = False


class ProductHit(NamedTuple):
    """A product that was found, with what a list shows of it. `skus` are those of its variants."""

    product_no: int
    product_id: str
    skus: list[str]
    names: dict[str, str]
    category_id: str | None
    brand: str | None
    min_minor: int
    max_minor: int
    currency: str


class FacetCount(NamedTuple):
    """A value of a facet and the number of products that would be found with it."""

    value: str
    products: int


class Facet(NamedTuple):
    """Counts of one property of the products found.

    They leave out the filter by this property itself, so that they say what another choice would find. `field` is an
    attribute's id for the kinds `choice`, `boolean` and `number`, else the kind. `counts` has the most frequent values
    first, at most `MAX_FACET_VALUES`; for `category` these are the children of the chosen category, or of its parent
    if it has none, or the roots. `range` has the smallest and the largest value of `number` and `price`; counts of
    `price` are by currency, and with more than one currency there is no range.
    """

    field: str
    kind: FacetKind
    counts: list[FacetCount]
    range: NumberRange | None = None


class SearchPage(NamedTuple):
    """A page of hits.

    `total` counts all pages, up to `MAX_TOTAL`; `is_total_capped` says that there may be more.
    `corrected_text` is what was sought instead, if a typed word is in no product and others are near it.
    """

    hits: list[ProductHit]
    total: int
    is_total_capped: bool
    facets: list[Facet]
    next: SearchPosition | None
    corrected_text: str | None


class Suggestion(NamedTuple):
    """A completion of what a customer types: the name of a product or of a category, and which one it is."""

    kind: Literal["product", "category"]
    id: str
    text: str
