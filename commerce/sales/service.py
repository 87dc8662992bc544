"""Creates sales, changes their state and terms, and reads them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType
from redis.asyncio import Redis

from commerce.freight.service import Freight
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.money import MoneyError, check_price, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.promotions.service import read_compiled
from commerce.sales import store
from commerce.sales.errors import InvalidSaleState, LoadInProgress, NoSuchItem, NoSuchSale, ServerBehind
from commerce.sales.loading import load_sale, terms_of
from commerce.sales.model import ItemInput, PublicSale, Sale, SaleInput, SaleItem, SaleSnapshot, SaleState
from commerce.warehouse_stock import store as warehouse_stock
from lua import PublishOutcome, SaleKeys, publish, read_units_free

_ITEMS_PER_QUERY = 2_000
_MAX_SALES_OF_PRODUCT = 20
_SALES_PER_QUERY = 500
_ALLOWED_FROM = {
    SaleState.OPEN: (SaleState.DRAFT, SaleState.PAUSED),
    SaleState.PAUSED: (SaleState.OPEN,),
    SaleState.CLOSED: (SaleState.OPEN, SaleState.PAUSED),
}


class Sales:
    """Sales over Postgres, which is authoritative, and Redis, which receives loads and published terms.

    A change is committed first and then published. If publishing fails, `published_generation` and `loaded_epoch` show
    it, and `sync_to_redis` repeats it.
    """

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._freight = Freight(db)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def create(self, sale: SaleInput, items: Sequence[tuple[str, ItemInput]], actor: str) -> Sale:
        """Create a draft with its items in one transaction.

        Raises `Invalid` if the terms make no sense, `Conflict` if the id is taken.
        """
        try:
            minor_digits(sale.currency)
        except MoneyError as error:
            raise Invalid(str(error)) from None
        if sale.closes_at is not None and sale.closes_at <= sale.opens_at:
            raise Invalid("closes_at must be after opens_at")
        async with self._db.transaction() as connection:
            if not await store.insert(connection, sale, self._now()):
                raise Conflict(f"cannot create the sale: {sale.sale_id!r} exists already")
            await self._put_items(connection, sale.sale_id, sale.currency, items, 1, actor)
            await store.log(connection, sale.sale_id, self._now(), actor, "create", {"items": len(items)})
        return await self.get(sale.sale_id)

    async def put_items(self, sale_id: str, items: Sequence[tuple[str, ItemInput]], actor: str) -> None:
        """Set terms of items.

        A sale that was opened accepts only new items with 0 units; stock changes add units. Raises `InvalidSaleState`
        if the sale is closed or has an item already.
        """
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            if sale.state is SaleState.CLOSED:
                raise InvalidSaleState(f"cannot set items: {sale_id} is closed")
            if sale.state is not SaleState.DRAFT:
                await _check_items_are_new(connection, sale_id, items)
            generation = await store.increase_generation(connection, sale_id)
            await self._put_items(connection, sale_id, sale.currency, items, generation, actor)
            skus = [sku for sku, _ in items]
            await store.log(connection, sale_id, self._now(), actor, "items", {"skus": skus[:100], "count": len(skus)})
        await self.sync_to_redis(sale_id)

    async def _put_items(
        self,
        connection: Connection,
        sale_id: str,
        currency: str,
        items: Sequence[tuple[str, ItemInput]],
        generation: int,
        actor: str,
    ) -> None:
        skus = [sku for sku, _ in items]
        if len(set(skus)) != len(skus):
            raise Invalid("a SKU occurs twice")
        list_prices = await store.read_list_prices(connection, skus)
        if missing := [sku for sku in skus if sku not in list_prices]:
            raise Invalid(f"no such product: {', '.join(missing[:10])}", skus=missing[:100])
        if hidden := [sku for sku in skus if list_prices[sku].product_status != "on_sale"]:
            statuses = ", ".join(f"{sku} is {list_prices[sku].product_status}" for sku in hidden[:10])
            raise Invalid(f"not on sale: {statuses}; publish their products first", skus=hidden[:100])
        if mismatched := [sku for sku in skus if list_prices[sku].currency != currency]:
            raise Invalid(f"not priced in {currency}: {', '.join(mismatched[:10])}", skus=mismatched[:100])
        if free := [sku for sku, item in items if item.price is None and list_prices[sku].amount == 0]:
            raise Invalid(
                f"the list price is 0: {', '.join(free[:10])}; give a price, and give products away by a promotion",
                skus=free[:100],
            )
        await store.put_items(connection, sale_id, items, generation)
        units = {sku: item.units for sku, item in items}
        await warehouse_stock.allot_items(connection, sale_id, units, actor, self._now())

    async def change_item(
        self,
        sale_id: str,
        sku: str,
        price: int | UnsetType,
        limit: int | UnsetType | None,
        actor: str,
        units: int | UnsetType = UNSET,
    ) -> SaleItem:
        """Set the price and the limit of an item; None removes the limit, UNSET leaves a value unchanged.

        `units` is the stock at opening, of a draft. Once Redis has the new terms, no order is accepted on the old ones.
        Raises `Invalid` if the price is 0, `InvalidSaleState` if `units` are given and the sale was opened.
        """
        if price is not UNSET:
            try:
                check_price(price)
            except MoneyError as error:
                raise Invalid(str(error)) from None
        if price is UNSET and limit is UNSET and units is UNSET:
            return await self.get_item(sale_id, sku)
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            item = await store.get_item(connection, sale_id, sku)
            if item is None:
                raise NoSuchItem(f"{sale_id} does not offer {sku}")
            price = item.price if price is UNSET else price
            limit = item.limit_per_user if limit is UNSET else limit
            units = item.initial_units if units is UNSET else units
            if units != item.initial_units and sale.state is not SaleState.DRAFT:
                raise InvalidSaleState(f"cannot set units of {sku}: {sale_id} was opened; change its stock instead")
            generation = await store.increase_generation(connection, sale_id)
            await store.change_item(connection, sale_id, sku, price, limit, generation, units)
            if sale.state is SaleState.DRAFT:
                await warehouse_stock.allot_items(connection, sale_id, {sku: units}, actor, self._now())
            if item.limit_per_user is None and limit is not None:
                # Redis counts units per user only for SKUs with a limit. A load computes the counts from the orders,
                # and until it has, a sale whose epoch was raised cannot be published.
                await store.begin_load(connection, sale_id)
            detail = {"sku": sku, "price": [item.price, price], "limit": [item.limit_per_user, limit], "units": units}
            await store.log(connection, sale_id, self._now(), actor, "terms", detail)
        failpoint("sale.after_terms")
        await self.sync_to_redis(sale_id)
        return await self.get_item(sale_id, sku)

    async def open(self, sale_id: str, actor: str) -> Sale:
        """Load a draft or resume a paused sale. Redis accepts orders from `opens_at` by its own clock."""
        return await self._change_state(sale_id, SaleState.OPEN, actor)

    async def pause(self, sale_id: str, actor: str) -> Sale:
        """Refuse orders until the sale is opened again."""
        return await self._change_state(sale_id, SaleState.PAUSED, actor)

    async def close(self, sale_id: str, actor: str) -> Sale:
        """End a sale permanently."""
        return await self._change_state(sale_id, SaleState.CLOSED, actor)

    async def _change_state(self, sale_id: str, state: SaleState, actor: str) -> Sale:
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            if sale.state is not state:  # a repeated command changes nothing
                if sale.state not in _ALLOWED_FROM[state]:
                    raise InvalidSaleState(f"cannot set {sale_id} to {state}: it is {sale.state}")
                if state is SaleState.OPEN:
                    await self._check_can_open(connection, sale)
                if sale.state is SaleState.DRAFT:
                    await warehouse_stock.allot_all_items(connection, sale_id, actor, self._now())
                await store.set_state(connection, sale_id, state)
                await store.log(connection, sale_id, self._now(), actor, state, {"from": sale.state})
        failpoint("sale.after_commit")
        await self.sync_to_redis(sale_id)
        return await self.get(sale_id)

    async def _check_can_open(self, connection: Connection, sale: Sale) -> None:
        if sale.closes_at is not None and sale.closes_at <= self._now():
            raise InvalidSaleState(
                f"cannot open {sale.sale_id}: it was to close at {sale.closes_at:%Y-%m-%d %H:%M:%S} UTC, which is past"
            )
        if not await store.list_items(connection, sale.sale_id, "", 1):
            raise InvalidSaleState(f"cannot open {sale.sale_id}: it has no items; add items first")

    async def sync_to_redis(self, sale_id: str) -> bool:
        """Load the sale into Redis or publish its terms, if that is due.

        Returns False if it could not be done now; the sale then stays out of sync and is retried later.
        """
        sale = await self.get(sale_id)
        if sale.epoch == 0:
            return True
        try:
            if sale.loaded_epoch < sale.epoch:
                await load_sale(self._db, self._redis, self._clock, sale_id, if_complete=True)
            elif sale.published_generation < sale.generation:
                outcome = await publish(self._redis, SaleKeys(sale_id), terms_of(sale))
                if outcome is PublishOutcome.NOT_READY:
                    return False  # Redis lost the sale: staff decide about `rebuild`
                async with self._db.connection() as connection:
                    await store.mark_published(connection, sale)
        except (*REDIS_UNAVAILABLE, LoadInProgress, ServerBehind):
            return False
        return True

    async def list_out_of_sync(self) -> list[Sale]:
        """List sales with a load or terms that Redis does not have."""
        async with self._db.connection() as connection:
            return await store.list_out_of_sync(connection)

    async def get(self, sale_id: str) -> Sale:
        """Read a sale. Raises `NoSuchSale`."""
        async with self._db.connection() as connection:
            sale = await store.get(connection, sale_id)
        if sale is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return sale

    async def list_sales(self, after: str | None, size: int, drafts: bool = False) -> Page[Sale]:
        """List sales ordered by id, with `drafts` also those that were never opened."""
        async with self._db.connection() as connection:
            sales = await store.list_after(connection, after or "", size + 1, drafts)
        return to_page(sales, size, lambda sale: sale.sale_id)

    async def list_opened(self) -> list[Sale]:
        """List all sales that were ever opened, including closed ones."""
        sales: list[Sale] = []
        after: str | None = None
        while True:
            page = await self.list_sales(after, _SALES_PER_QUERY)
            sales += page.items
            after = page.next
            if after is None:
                return sales

    async def list_open_of_product(self, product_id: str) -> list[str]:
        """List open and paused sales that sell a variant of a product, at most 20."""
        async with self._db.connection() as connection:
            return await store.list_open_of_product(connection, product_id, _MAX_SALES_OF_PRODUCT)

    async def get_item(self, sale_id: str, sku: str) -> SaleItem:
        """Read an item. Raises `NoSuchItem`."""
        async with self._db.connection() as connection:
            item = await store.get_item(connection, sale_id, sku)
        if item is None:
            raise NoSuchItem(f"{sale_id} does not offer {sku}")
        return item

    async def list_items(self, sale_id: str, after: str | None, size: int) -> Page[SaleItem]:
        """List the items of any sale ordered by SKU."""
        async with self._db.connection() as connection:
            items = await store.list_items(connection, sale_id, after or "", size + 1)
        return to_page(items, size, lambda item: item.sku)

    async def read_free_units(self, items: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Read the free units of items (sale id, SKU) from Redis, in one call per sale.

        An item that is not loaded is left out. Raises an error of `REDIS_UNAVAILABLE` if Redis does not answer.
        """
        skus: dict[str, list[str]] = defaultdict(list)
        for sale_id, sku in items:
            skus[sale_id].append(sku)
        free = await asyncio.gather(
            *(read_units_free(self._redis, SaleKeys(sale_id), skus_of_sale) for sale_id, skus_of_sale in skus.items())
        )
        return {
            (sale_id, sku): units
            for (sale_id, skus_of_sale), units_of_sale in zip(skus.items(), free, strict=True)
            for sku, units in zip(skus_of_sale, units_of_sale, strict=True)
            if units is not None
        }

    async def read_snapshot(self, sale: Sale, previous: SaleSnapshot | None) -> SaleSnapshot:
        """Read the terms that a gateway prices orders with. With `previous`, only changed items are read."""
        # The dictionary is copied, because orders are priced from the previous snapshot meanwhile.
        items = dict(previous.items) if previous else {}
        since, after = (previous.sale.generation if previous else 0), ""
        async with self._db.connection() as connection:
            while part := await store.list_changed_items(connection, sale.sale_id, since, after, _ITEMS_PER_QUERY):
                items.update(part)
                after = part[-1][0]
            coupons = await store.list_changed_coupons(connection, sale.sale_id, since)
            promotions = await read_compiled(
                connection, sale.sale_id, items, previous.promotions if previous else None, since
            )
        name = sale.freight_template
        return SaleSnapshot(
            sale,
            items,
            {**previous.coupons, **coupons} if previous else coupons,
            freight=await self._freight.compile(name) if name is not None else None,
            promotions=promotions,
        )

    async def _lock(self, connection: Connection, sale_id: str) -> Sale:
        sale = await store.lock(connection, sale_id)
        if sale is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return sale


async def _check_items_are_new(connection: Connection, sale_id: str, items: Sequence[tuple[str, ItemInput]]) -> None:
    for sku, item in items:
        if item.units:
            raise InvalidSaleState(
                f"cannot add {sku} with units: {sale_id} was opened; add it with 0 units, then change its stock"
            )
        if await store.get_item(connection, sale_id, sku):
            raise InvalidSaleState(
                f"cannot replace {sku}: {sale_id} was opened and offers it; change its terms instead"
            )


def to_public_sale(sale: Sale) -> PublicSale:
    """Return the public part of a sale."""
    return PublicSale(sale.sale_id, sale.title, sale.currency, sale.state, sale.opens_at, sale.closes_at)
