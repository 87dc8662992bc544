"""Making sales and steering them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType
from redis.asyncio import Redis

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.money import MoneyError, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sales import store
from commerce.sales.errors import InvalidSaleState, LoadInProgress, NoSuchSale
from commerce.sales.loading import load_sale, terms
from commerce.sales.model import ItemInput, Offer, PublicSale, Sale, SaleInput, SaleItem, SaleSnapshot, SaleState
from lua import PublishOutcome, SaleKeys, publish, units_free

_SNAPSHOT_PART = 2_000
_PAGE = 500
_FROM = {
    SaleState.OPEN: (SaleState.DRAFT, SaleState.PAUSED),
    SaleState.PAUSED: (SaleState.OPEN,),
    SaleState.CLOSED: (SaleState.OPEN, SaleState.PAUSED),
}


class Sales:
    """Sales over Postgres, which decides, and Redis, which is told.

    A change is committed first and published then. If the second step fails the row says so
    (`published_generation`, `loaded_epoch`), and `finish` takes it up again.
    """

    def __init__(self, db: Database, redis: Redis, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def create(self, sale: SaleInput, items: Sequence[tuple[str, ItemInput]], actor: str) -> Sale:
        """Make a draft with its items: all of it or nothing."""
        try:
            minor_digits(sale.currency)
        except MoneyError as error:
            raise Invalid(str(error)) from None
        if sale.closes_at is not None and sale.closes_at <= sale.opens_at:
            raise Invalid("closes_at is not after opens_at")
        async with self._db.transaction() as connection:
            if not await store.insert(connection, sale, self._now()):
                raise Conflict(f"there is a sale {sale.sale_id!r} already")
            await self._put(connection, sale.sale_id, sale.currency, items, 1)
            await store.log(connection, sale.sale_id, self._now(), actor, "create", {"items": len(items)})
        return await self.get(sale.sale_id)

    async def put_items(self, sale_id: str, items: Sequence[tuple[str, ItemInput]], actor: str) -> None:
        """Set terms of items: of any in a draft; once it is open of new ones, whose units come by a stock change."""
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            if sale.state is SaleState.CLOSED:
                raise InvalidSaleState(f"{sale_id} is closed")
            if sale.state is not SaleState.DRAFT:
                await _only_new(connection, sale_id, items)
            generation = await store.next_generation(connection, sale_id)
            await self._put(connection, sale_id, sale.currency, items, generation)
            skus = [sku for sku, _ in items]
            await store.log(connection, sale_id, self._now(), actor, "items", {"skus": skus[:100], "count": len(skus)})
        await self.sync_to_redis(sale_id)

    async def _put(
        self,
        connection: Connection,
        sale_id: str,
        currency: str,
        items: Sequence[tuple[str, ItemInput]],
        generation: int,
    ) -> None:
        skus = [sku for sku, _ in items]
        if len(set(skus)) != len(skus):
            raise Invalid("an SKU is given twice")
        known = await store.currencies(connection, skus)
        if missing := [sku for sku in skus if sku not in known]:
            raise Invalid(f"no such product: {', '.join(missing[:10])}", skus=missing[:100])
        if other := [sku for sku in skus if known[sku] != currency]:
            raise Invalid(f"not priced in {currency}: {', '.join(other[:10])}", skus=other[:100])
        await store.put_items(connection, sale_id, items, generation)

    async def change_item(
        self, sale_id: str, sku: str, price: int | UnsetType, limit: int | UnsetType | None, actor: str
    ) -> SaleItem:
        """Set an item's price and limit, None for no limit; what is UNSET stays as it is.

        From the moment Redis knows, no order is accepted on the old terms.
        """
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            item = await store.get_item(connection, sale_id, sku)
            if item is None:
                raise NoSuchSale(f"{sale_id} does not offer {sku}")
            price = item.price if price is UNSET else price
            limit = item.limit_per_user if limit is UNSET else limit
            generation = await store.next_generation(connection, sale_id)
            await store.change_item(connection, sale_id, sku, price, limit, generation)
            detail = {"sku": sku, "price": [item.price, price], "limit": [item.limit_per_user, limit]}
            await store.log(connection, sale_id, self._now(), actor, "terms", detail)
        if sale.loaded and item.limit_per_user is None and limit is not None:
            # Units without a limit are not counted by user, so the counts must come from the orders.
            await load_sale(self._db, self._redis, self._clock, sale_id)
        else:
            await self.sync_to_redis(sale_id)
        return await self.get_item(sale_id, sku)

    async def open(self, sale_id: str, actor: str) -> Sale:
        """Arm a draft, or go on with a paused sale. Orders are taken from `opens_at` by Redis's clock."""
        return await self._change_state(sale_id, SaleState.OPEN, actor)

    async def pause(self, sale_id: str, actor: str) -> Sale:
        """Take no orders for a while."""
        return await self._change_state(sale_id, SaleState.PAUSED, actor)

    async def close(self, sale_id: str, actor: str) -> Sale:
        """End a sale for good."""
        return await self._change_state(sale_id, SaleState.CLOSED, actor)

    async def _change_state(self, sale_id: str, state: SaleState, actor: str) -> Sale:
        async with self._db.transaction() as connection:
            sale = await self._lock(connection, sale_id)
            if sale.state is not state:  # a repeated command changes nothing
                if sale.state not in _FROM[state]:
                    raise InvalidSaleState(f"{sale_id} is {sale.state}, so it cannot become {state}")
                if state is SaleState.OPEN:
                    await self._check_can_open(connection, sale)
                await store.set_state(connection, sale_id, state)
                await store.log(connection, sale_id, self._now(), actor, state, {"from": sale.state})
        failpoint("sale.after_commit")
        await self.sync_to_redis(sale_id)
        return await self.get(sale_id)

    async def _check_can_open(self, connection: Connection, sale: Sale) -> None:
        if sale.closes_at is not None and sale.closes_at <= self._now():
            raise InvalidSaleState(
                f"{sale.sale_id} was to close at {sale.closes_at:%Y-%m-%d %H:%M:%S} UTC, which is past"
            )
        if not await store.list_items(connection, sale.sale_id, "", 1):
            raise InvalidSaleState(f"{sale.sale_id} offers nothing yet: give it items first")

    async def sync_to_redis(self, sale_id: str) -> bool:
        """Do what is left to do in Redis; False if Redis cannot be reached now, in which case it is done later."""
        sale = await self.get(sale_id)
        if sale.epoch == 0:
            return True
        try:
            if sale.loaded_epoch < sale.epoch:
                await load_sale(self._db, self._redis, self._clock, sale_id)
            elif sale.published_generation < sale.generation:
                outcome = await publish(self._redis, SaleKeys(sale_id), terms(sale))
                if outcome is PublishOutcome.NOT_READY:
                    return False  # Redis lost the sale: an operator decides about `rebuild`
                async with self._db.connection() as connection:
                    await store.mark_published(connection, sale)
        except (*REDIS_UNAVAILABLE, LoadInProgress):
            return False
        return True

    async def list_out_of_sync(self) -> list[Sale]:
        """Sales of which Redis does not know the latest."""
        async with self._db.connection() as connection:
            return await store.unfinished(connection)

    async def get(self, sale_id: str) -> Sale:
        async with self._db.connection() as connection:
            sale = await store.get(connection, sale_id)
        if sale is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return sale

    async def list_sales(self, after: str | None, size: int, drafts: bool = False) -> Page[Sale]:
        async with self._db.connection() as connection:
            found = await store.list_after(connection, after or "", size + 1, drafts)
        return to_page(found, size, lambda sale: sale.sale_id)

    async def list_opened(self) -> list[Sale]:
        """Every sale that was opened, closed ones too."""
        found: list[Sale] = []
        after: str | None = None
        while True:
            part = await self.list_sales(after, _PAGE)
            found += part.items
            after = part.next
            if after is None:
                return found

    async def get_item(self, sale_id: str, sku: str) -> SaleItem:
        async with self._db.connection() as connection:
            item = await store.get_item(connection, sale_id, sku)
        if item is None:
            raise NoSuchSale(f"{sale_id} does not offer {sku}")
        return item

    async def list_items(self, sale_id: str, after: str | None, size: int) -> Page[SaleItem]:
        """The items of any sale in the order of their SKUs."""
        async with self._db.connection() as connection:
            found = await store.list_items(connection, sale_id, after or "", size + 1)
        return to_page(found, size, lambda item: item.sku)

    async def list_offers(self, sale_id: str, after: str | None, size: int) -> Page[Offer]:
        """The items of a sale as shoppers see them, with what is free at this moment."""
        sale = await self.get_public(sale_id)
        found = await self.list_items(sale_id, after, size)
        try:
            free = await units_free(self._redis, SaleKeys(sale_id), [item.sku for item in found.items])
        except REDIS_UNAVAILABLE:
            free = [None] * len(found.items)
        offers = [
            Offer(item.sku, item.name, item.price, sale.currency, item.limit_per_user, units)
            for item, units in zip(found.items, free, strict=True)
        ]
        return Page(offers, found.next)

    async def get_public(self, sale_id: str) -> PublicSale:
        """A sale that is not a draft."""
        sale = await self.get(sale_id)
        if sale.state is SaleState.DRAFT:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return to_public_sale(sale)

    async def read_snapshot(self, sale: Sale, known: SaleSnapshot | None) -> SaleSnapshot:
        """What a gateway prices with. With a `known` older one only the difference is read."""
        # The known dictionary is copied: orders being priced from it must not see half a change.
        items = dict(known.items) if known else {}
        since, after = (known.sale.generation if known else 0), ""
        async with self._db.connection() as connection:
            while part := await store.changed_items(connection, sale.sale_id, since, after, _SNAPSHOT_PART):
                items.update((sku, (price, limit)) for sku, price, limit in part)
                after = part[-1][0]
        return SaleSnapshot(sale, items)

    async def _lock(self, connection: Connection, sale_id: str) -> Sale:
        sale = await store.lock(connection, sale_id)
        if sale is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return sale


async def _only_new(connection: Connection, sale_id: str, items: Sequence[tuple[str, ItemInput]]) -> None:
    for sku, item in items:
        if item.units:
            raise InvalidSaleState(f"{sale_id} was opened: {sku} comes in with 0 units, then change its stock")
        if await store.get_item(connection, sale_id, sku):
            raise InvalidSaleState(f"{sale_id} was opened and offers {sku}: change its terms instead")


def to_public_sale(sale: Sale) -> PublicSale:
    """What of a sale a shopper may see."""
    return PublicSale(sale.sale_id, sale.title, sale.currency, sale.state, sale.opens_at, sale.closes_at)
