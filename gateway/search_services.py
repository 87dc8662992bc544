"""The search of products: the index that the settings choose, and how many searches run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

from commerce.kernel.clock import Clock
from commerce.kernel.errors import Overloaded
from commerce.kernel.postgres import Database
from commerce.product_search.index_client import RemoteProductIndex, SearchedBy
from commerce.product_search.postgres_index import PostgresProductIndex
from commerce.product_search.product_index_port import ProductIndex
from commerce.product_search.service import ProductSearch
from commerce.sales.service import Sales
from config.catalog import CatalogSettings
from gateway import metrics
from gateway.admission import Admission
from gateway.available_products import ProductAvailability
from gateway.public_pages import PublicPages
from gateway.sale_snapshots import SaleSnapshots


class SearchServices:
    """`products` searches, `availability` knows what open sales have units of.

    Searches take turns in `open_turn`, and stand back while orders wait: they must not slow any."""

    __slots__ = ("_admission", "_index", "_policy", "_slots", "_waiting", "availability", "products")

    def __init__(
        self,
        policy: CatalogSettings,
        db: Database,
        clock: Clock,
        sales: Sales,
        snapshots: SaleSnapshots,
        public_pages: PublicPages,
        admission: Admission,
        index_socket: Path,
    ) -> None:
        self._policy = policy
        self._admission = admission
        self._slots = asyncio.Semaphore(policy.concurrent_searches)
        self._waiting = 0
        self._index = _build_index(policy, db, index_socket)
        self.availability = ProductAvailability(db, sales, snapshots, public_pages, clock, policy.tracked_skus)
        self.products = ProductSearch(db, self._index, self.availability.read_hits)

    async def close(self) -> None:
        """Stop reading the stock; nobody may search any more."""
        if isinstance(self._index, RemoteProductIndex):
            self._index.close()
        await self.availability.close()

    @asynccontextmanager
    async def open_turn(self) -> AsyncIterator[None]:
        """Wait for a turn. Raises `Overloaded` if too many wait, or if orders do."""
        if self._admission.pressure(perf_counter()) > 0:
            raise Overloaded("this gateway has too many orders to search for products now; repeat the request")
        if self._waiting >= self._policy.waiting_searches:
            raise Overloaded("too many searches wait at this gateway; repeat the request")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._policy.search_wait_ms / 1000):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded("the search has waited too long for others; repeat the request") from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()


def _build_index(policy: CatalogSettings, db: Database, index_socket: Path) -> ProductIndex:
    """Return the index that the settings name."""
    postgres = PostgresProductIndex(db, policy.search_timeout_ms)
    if policy.search == "postgres":
        return postgres

    def note(searched_by: SearchedBy) -> None:
        metrics.PRODUCT_SEARCHES.labels(searched_by).inc()

    return RemoteProductIndex(index_socket, postgres, policy.index_timeout_ms, note)
