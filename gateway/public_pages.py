"""Public pages from memory: sales and offers from the snapshots, variants and stock from caches.

A price, a sale's state or a variant is at most about a second old, and stock a second at most: `as_of` says when it
was read. While Postgres is unavailable the last content is used, however old; stock that cannot be read is null.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

from commerce.catalog.errors import NoSuchProduct, NoSuchVariant
from commerce.catalog.model import VersionedProduct, VersionedVariant
from commerce.catalog.products import Products, to_public
from commerce.catalog.service import Catalog
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.connection_shares import use_share
from commerce.kernel.errors import NotReady, Overloaded
from commerce.kernel.paging import Page
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.pictures.model import ProductPicture
from commerce.pictures.shown_pictures import ShownPictures
from commerce.sales.model import Offer, OfferPage, PublicSale, SaleSnapshot
from commerce.sales.service import Sales, to_public_sale
from gateway.cached_content import Content, encode_content
from gateway.pictured_products import add_pictures
from gateway.refreshing_cache import MAX_AGE_S, CacheEntry, RefreshingCache
from gateway.sale_snapshots import SaleSnapshots
from gateway.visit_counts import VisitCounts

VARIANT_CACHE_CONTROL, SALE_CACHE_CONTROL = "public, max-age=5", "public, max-age=1"
_MAX_VARIANTS, _MAX_STOCKS, _MAX_PRODUCTS, _MAX_COVERS = 20_000, 50_000, 2_000, 10_000
_MAX_COVER_WAIT_S = 1.0


class PublicPages:
    """The content of sales, offers, variants and products, and the pictures of these.

    Postgres and Redis are asked in batches, about once a second, never per request.
    """

    def __init__(
        self,
        snapshots: SaleSnapshots,
        sales: Sales,
        catalog: Catalog,
        products: Products,
        pictures: ShownPictures,
        clock: Clock,
    ) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self.visits = VisitCounts()
        self._variants: RefreshingCache[str, VersionedVariant] = RefreshingCache(catalog.refresh, clock, _MAX_VARIANTS)
        self._products: RefreshingCache[str, VersionedProduct] = RefreshingCache(products.refresh, clock, _MAX_PRODUCTS)
        # Pictures change without a new version of their product.
        self._pictures: RefreshingCache[str, list[ProductPicture]] = RefreshingCache(
            pictures.read, clock, _MAX_PRODUCTS
        )
        self._covers: RefreshingCache[str, list[ProductPicture]] = RefreshingCache(
            pictures.read_covers, clock, _MAX_COVERS
        )
        self._stock: RefreshingCache[tuple[str, str], int] = RefreshingCache(sales.read_free_units, clock, _MAX_STOCKS)

    async def close(self) -> None:
        await self._variants.close()
        await self._products.close()
        await self._pictures.close()
        await self._covers.close()
        await self._stock.close()

    async def list_sales(self, after: str | None, size: int) -> Content:
        """List the sales that were opened, ordered by id."""
        ids, next_id = _slice(self._snapshots.sorted_ids(), after, size)
        sales = [to_public_sale(self._snapshots.find(sale_id).sale) for sale_id in ids]
        return encode_content(Page[PublicSale](sales, next_id), SALE_CACHE_CONTROL)

    async def get_sale(self, sale_id: str) -> Content:
        """Read a sale that was opened. Raises `NoSuchSale`, or `NotReady` if it could not be read so far."""
        return encode_content(to_public_sale(self._snapshots.find(sale_id).sale), SALE_CACHE_CONTROL)

    async def list_offers(self, sale_id: str, after: str | None, size: int) -> Content:
        """List the items of a sale ordered by SKU, with their free units. Raises as `get_sale` does.

        The ETag follows everything but `as_of`.
        """
        skus, next_sku = _slice(self._snapshots.sorted_skus(self._snapshots.find(sale_id)), after, size)
        variants = await self._variants.get_many(skus)
        stock = await self._read_stock(sale_id, skus)
        # Not before the waits: an answer has the newest terms.
        offers = _build_offers(self._snapshots.find(sale_id), skus, variants, stock)
        as_of = from_ms(min(entry.read_ms for entry in stock.values())) if stock else None
        read_at = [entry.read_at for entry in variants.values()] + [entry.read_at for entry in stock.values()]
        return encode_content(
            OfferPage(offers, next_sku, as_of),
            SALE_CACHE_CONTROL,
            read_at=min(read_at, default=self._clock.monotonic()),
            same_content=(offers, next_sku),
        )

    async def read_units(self, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int | None]:
        """Read the free units of SKUs of several sales, None where they cannot be read now."""
        try:
            entries = await self._stock.get_many(keys)
        except (*REDIS_UNAVAILABLE, NotReady, Overloaded):
            return {}
        oldest = self._clock.monotonic() - MAX_AGE_S
        return {key: entry.value if entry.read_at >= oldest else None for key, entry in entries.items()}

    async def read_names(self, skus: Iterable[str]) -> dict[str, str]:
        """Read the names of variants."""
        entries = await self._variants.get_many(skus)
        return {sku: entry.value.variant.name for sku, entry in entries.items() if entry.value is not None}

    async def read_covers(self, product_ids: Sequence[str]) -> Mapping[str, Sequence[ProductPicture]]:
        """Read the covers of products that exist, each an empty list if there is none.

        While Postgres is unavailable or slow, those in memory are returned and the others left out.
        """
        try:
            with use_share("customers"):  # a search may start the reading, and all wait for it
                async with asyncio.timeout(_MAX_COVER_WAIT_S):
                    entries = await self._covers.get_many(product_ids)
        except POSTGRES_UNAVAILABLE_OR_BUSY:
            entries = self._covers.find_many(product_ids)
        return {product_id: entry.value or () for product_id, entry in entries.items()}

    def is_page_start(self, sale_id: str, cursor: str | None, size: int) -> bool:
        """Tell whether a client gets to this cursor who reads all pages of this size from the first."""
        if cursor is None:
            return True
        skus = self._snapshots.sorted_skus(self._snapshots.find(sale_id))
        index = bisect_left(skus, cursor)
        return index < len(skus) and skus[index] == cursor and (index + 1) % size == 0

    async def _read_stock(self, sale_id: str, skus: list[str]) -> dict[str, CacheEntry[int]]:
        """Read the free units of a sale's SKUs, nothing if they cannot be read now."""
        try:
            entries = await self._stock.get_many((sale_id, sku) for sku in skus)
        except (*REDIS_UNAVAILABLE, NotReady):  # NotReady: a new connection leads to a server that is not durable
            return {}
        oldest = self._clock.monotonic() - MAX_AGE_S
        if any(entry.read_at < oldest for entry in entries.values()):
            return {}
        return {sku: entry for (_, sku), entry in entries.items()}

    async def get_variant(self, sku: str) -> Content:
        """Read a variant with its list price, if its product is on sale. Raises `NoSuchVariant`."""
        entry = (await self._variants.get_many([sku]))[sku]
        if entry.value is None or not entry.value.is_public:
            raise NoSuchVariant(f"no variant has the SKU {sku!r}")
        return encode_content(entry.value.variant, VARIANT_CACHE_CONTROL, read_at=entry.read_at)

    async def get_product(self, product_id: str, wanted: Sequence[str]) -> tuple[str, Content]:
        """Read a product on sale with its pictures; its language, the best there is, is returned too.

        Raises `NoSuchProduct`. It counts as a view of each of its variants."""
        entry = (await self._products.get_many([product_id]))[product_id]
        if entry.value is None or entry.value.product.status != "on_sale":
            raise NoSuchProduct(f"there is no product {product_id!r}")
        product = to_public(entry.value.product, wanted)
        for variant in product.variants:
            self.visits.note_variant(variant.sku)
        shown = (await self._pictures.get_many([product_id]))[product_id]
        content = encode_content(
            add_pictures(product, shown.value or (), wanted),
            VARIANT_CACHE_CONTROL,
            read_at=min(entry.read_at, shown.read_at),
        )
        return product.language, content


def _slice(keys: list[str], after: str | None, size: int) -> tuple[list[str], str | None]:
    """Return the sorted keys of a page, and the last of them if more follow."""
    start = 0 if after is None else bisect_right(keys, after)
    page = keys[start : start + size]
    return page, page[-1] if start + size < len(keys) else None


def _build_offers(
    snapshot: SaleSnapshot,
    skus: list[str],
    variants: dict[str, CacheEntry[VersionedVariant]],
    stock: dict[str, CacheEntry[int]],
) -> list[Offer]:
    offers = []
    for sku in skus:
        variant = variants[sku].value
        if variant is None:
            continue  # it was deleted by hand
        terms, currency = snapshot.items[sku], snapshot.sale.currency
        units = stock[sku].value if sku in stock else None
        offers.append(Offer(sku, variant.variant.name, terms.price, currency, terms.limit or None, units))
    return offers
