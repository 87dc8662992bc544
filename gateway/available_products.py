"""Products of which open sales have units: read once a second at most, while somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import blake2b

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady, Overloaded
from commerce.kernel.postgres import Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.kernel.tasks import cancel_and_wait
from commerce.product_search import store
from commerce.product_search.model import AvailableProducts, ProductHit
from commerce.sales.model import Sale
from commerce.sales.service import Sales
from gateway.public_pages import PublicPages
from gateway.refreshing_cache import MAX_AGE_S, REFRESH_AGE_S
from gateway.sale_snapshots import SaleSnapshots

_SKUS_PER_READ, _ROWS_PER_QUERY = 1_000, 5_000
_MAX_COUNTED_SKUS = 5_000


class ProductAvailability:
    """Reads the free units of all SKUs in open sales, at most `max_skus`.

    `read` is for filters and counts, `read_hits` for the products that a page shows."""

    def __init__(
        self,
        db: Database,
        sales: Sales,
        snapshots: SaleSnapshots,
        public_pages: PublicPages,
        clock: Clock,
        max_skus: int,
    ) -> None:
        self._db = db
        self._sales = sales
        self._snapshots = snapshots
        self._public_pages = public_pages
        self._clock = clock
        self._max_skus = max_skus
        self._numbers: dict[str, int | None] = {}
        """`product_no` by SKU, None for one without a listed product"""
        self._change_no = 0
        self._available = AvailableProducts("", b"")
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop reading; nobody may ask any more."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)

    async def read(self) -> AvailableProducts:
        """Return the available products, read a second ago at most. Callers share a reading.

        Raises `NotReady` if the stock cannot be read now, `Overloaded` if there are too many SKUs.
        """
        if self._clock.monotonic() - self._read_at >= REFRESH_AGE_S:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
                # If all who wait are cancelled, the error is nobody's and need not be logged.
                self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            try:
                await asyncio.shield(self._reading)
            except REDIS_UNAVAILABLE as error:
                raise NotReady(f"cannot read the stock: {type(error).__name__}; repeat the request") from error
            if self._clock.monotonic() - self._read_at > MAX_AGE_S:
                raise Overloaded("cannot read the stock of all sales in a second; search without this filter")
        return self._available

    async def read_to_count(self) -> AvailableProducts | None:
        """Return the available products if that costs little and can be done now."""
        if sum(len(items) for _, items in self._list_open()) > _MAX_COUNTED_SKUS:
            return None
        try:
            return await self.read()
        except (NotReady, Overloaded):
            return None

    async def read_hits(self, hits: Sequence[ProductHit]) -> Mapping[int, bool]:
        """Tell of products whether they are available, by `product_no`; those of unknown stock are left out."""
        keys = {
            (sale.sale_id, sku): hit.product_no
            for sale, items in self._list_open()
            for hit in hits
            for sku in hit.skus
            if sku in items
        }
        units = await self._public_pages.read_units(keys) if keys else {}
        result = dict.fromkeys((hit.product_no for hit in hits), False)
        unknown = {product_no for key, product_no in keys.items() if units.get(key) is None}
        for key, product_no in keys.items():
            result[product_no] |= (units.get(key) or 0) > 0
        return {no: is_available for no, is_available in result.items() if is_available or no not in unknown}

    def _list_open(self) -> list[tuple[Sale, Mapping[str, object]]]:
        """Return the sales that take orders now, with their items."""
        now = from_ms(self._clock.now_ms())
        snapshots = (self._snapshots.cached(sale_id) for sale_id in self._snapshots.sale_ids())
        return [
            (snapshot.sale, snapshot.items)
            for snapshot in snapshots
            if snapshot is not None and _is_open(snapshot.sale, now)
        ]

    async def _read(self) -> None:
        sales = [(sale.sale_id, list(items)) for sale, items in self._list_open()]
        if sum(len(skus) for _, skus in sales) > self._max_skus:
            raise Overloaded(f"open sales have more than {self._max_skus} items; search without this filter")
        await self._read_numbers({sku for _, skus in sales for sku in skus})
        bits = bytearray(max((number or 0 for number in self._numbers.values()), default=0) // 8 + 1)
        read_at = self._clock.monotonic()
        for sale_id, skus in sales:
            for first in range(0, len(skus), _SKUS_PER_READ):
                part = skus[first : first + _SKUS_PER_READ]
                for (_, sku), units in (await self._sales.read_free_units((sale_id, sku) for sku in part)).items():
                    number = self._numbers.get(sku)
                    if units > 0 and number is not None:
                        bits[number >> 3] |= 1 << (number & 7)
        self._available = AvailableProducts(blake2b(bits, digest_size=8).hexdigest(), bytes(bits))
        self._read_at = read_at

    async def _read_numbers(self, wanted: set[str]) -> None:
        """Bring the numbers of the products up to date: of SKUs that are new here, and of changed products."""
        async with self._db.snapshot() as connection:
            newest = await store.read_change(connection)
            if newest < self._change_no or len(self._numbers) > 2 * len(wanted) + _ROWS_PER_QUERY:
                self._numbers = {}  # another database, or many SKUs whose sales have ended
            after = self._change_no if self._numbers else newest
            while after < newest:
                changes = await store.list_changed(connection, after, _ROWS_PER_QUERY)
                for change in changes:
                    self._numbers |= {sku: change.product_no for sku in change.skus if sku in self._numbers}
                after = changes[-1].change_no if changes else newest
            missing = [sku for sku in wanted if sku not in self._numbers]
            for first in range(0, len(missing), _ROWS_PER_QUERY):
                part = missing[first : first + _ROWS_PER_QUERY]
                numbers = await store.list_numbers(connection, part)
                self._numbers |= {sku: numbers.get(sku) for sku in part}
        self._change_no = newest


def _is_open(sale: Sale, now: datetime) -> bool:
    return sale.state == "open" and sale.opens_at <= now and (sale.closes_at is None or now < sale.closes_at)
