"""The services of categories: those of readers, from memory, and those of staff."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated

import msgspec

from commerce.catalog.product_store import move_products
from commerce.categories.category_pages import (
    ROOTS,
    AttributePage,
    CategoryPage,
    CategoryPages,
    PublicCategory,
    localise_category,
    localise_children,
)
from commerce.categories.errors import NoSuchCategory
from commerce.categories.service import Categories
from commerce.kernel.clock import Clock
from commerce.kernel.paging import Page
from commerce.kernel.postgres import Database
from gateway.cached_content import Content, encode_content
from gateway.refreshing_cache import RefreshingCache

CACHE_CONTROL = "public, max-age=60"
_MAX_CATEGORIES, _MAX_ATTRIBUTES = 20_000, 5_000
ChildCursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9} [a-z0-9-]{1,64}\Z", description="`next` of a page")]


class CategoryServices:
    """`changes` is for staff. The rest reads categories as customers see them, at most about a second old."""

    __slots__ = ("_attributes", "_pages", "changes")

    def __init__(self, db: Database, clock: Clock) -> None:
        self.changes = Categories(db, clock, move_products)
        pages = CategoryPages(db)
        self._pages: RefreshingCache[str, CategoryPage] = RefreshingCache(pages.refresh, clock, _MAX_CATEGORIES)
        self._attributes: RefreshingCache[str, AttributePage] = RefreshingCache(
            pages.refresh_attributes, clock, _MAX_ATTRIBUTES
        )

    async def close(self) -> None:
        await self._pages.close()
        await self._attributes.close()

    async def list_children(
        self, parent_id: str | None, after: str | None, size: int, wanted: Sequence[str]
    ) -> Content:
        """List the active children of a category, or the roots, in the languages that a reader wants.

        Raises `NoSuchCategory`.
        """
        page = await self._read_page(parent_id or ROOTS)
        keys = [(child.position, child.category_id) for child in page.children]
        start = 0
        if after is not None:
            position, _, category_id = after.partition(" ")
            start = bisect_right(keys, (int(position), category_id))
        shown = page.children[start : start + size]
        last = f"{shown[-1].position} {shown[-1].category_id}" if start + size < len(keys) else None
        return encode_content(Page[PublicCategory](localise_children(page, shown, wanted), last), CACHE_CONTROL)

    async def get(self, category_id: str, wanted: Sequence[str]) -> Content:
        """Read a category with its path and attributes. Raises `NoSuchCategory`."""
        page = await self._read_page(category_id)
        entries = await self._attributes.get_many(rule.attribute_id for rule in page.rules)
        attributes = {key: entry.value.attribute for key, entry in entries.items() if entry.value is not None}
        return encode_content(localise_category(page, attributes, wanted), CACHE_CONTROL)

    async def _read_page(self, key: str) -> CategoryPage:
        page = (await self._pages.get_many([key]))[key].value
        if page is None:
            raise NoSuchCategory(f"there is no category {key!r}")
        return page
