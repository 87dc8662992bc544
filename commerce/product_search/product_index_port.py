"""The port of indexes of products: what finds products implements it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from commerce.product_search.model import SearchPage, SearchTerms, Suggestion


class ProductIndex(Protocol):
    """An index of the products on sale.

    It may be a few seconds behind the catalog, but availability is only that of `SearchTerms.available`. The rows that
    it is made of are those of `product_search`, which number the products. Methods raise `Overloaded` or `NotReady`
    if the index cannot answer now, and nothing else for any text.
    """

    async def search(self, terms: SearchTerms) -> SearchPage:
        """Find products. Raises `CursorOutdated` if `after` is a place in the scores of another index."""
        ...

    async def suggest(self, text: str, language: str, limit: int) -> Sequence[Suggestion]:
        """Complete the beginning of a name, of products and of categories, best first.

        Names of all languages are completed, those in `language` first.
        """
        ...
