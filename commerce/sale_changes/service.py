"""Changes sales after their creation, and deletes drafts."""

from __future__ import annotations

from datetime import datetime

from asyncpg import ForeignKeyViolationError
from redis.asyncio import Redis

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.sale_changes import store
from commerce.sale_changes.model import ChangedSale, check_change, list_changes
from commerce.sales import store as sales_store
from commerce.sales.errors import InvalidSaleState, NoSuchItem, NoSuchSale
from commerce.sales.model import Sale, SaleState
from commerce.sales.service import Sales
from commerce.warehouse_stock.store import forget_items
from lua import SaleKeys, forget_room


class SaleChanges:
    """Changes of sales, each in one transaction with its entry in the sale's log."""

    def __init__(self, db: Database, redis: Redis, sales: Sales, clock: Clock) -> None:
        self._db = db
        self._redis = redis
        self._sales = sales
        self._clock = clock

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def change(self, sale_id: str, changes: ChangedSale, actor: str) -> Sale:
        """Change a draft, or the title, the end and the time to pay of an opened sale.

        Redis is the judge of the end: a new one holds from the moment at which it is published. Raises `Invalid` or
        `InvalidSaleState`, which say what to do.
        """
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            changed = changes.apply_to(sale)
            if detail := list_changes(sale, changed):
                check_change(sale, changed, self._now())
                if "currency" in detail:
                    await _check_currency_can_change(connection, sale)
                if sale.state is SaleState.DRAFT and {"opens_at", "closes_at"} & detail.keys():
                    await self._check_room(connection, changed)
                await store.change(connection, changed)
                await sales_store.log(connection, sale_id, self._now(), actor, "change", detail)
        failpoint("sale.after_change")
        await self._sales.sync_to_redis(sale_id)
        return await self._sales.get(sale_id)

    async def _check_room(self, connection: Connection, sale: Sale) -> None:
        """Check that a draft's waiting room has not ended, and that its list closes before the sale opens."""
        room = await store.find_room(connection, sale.sale_id)
        if room is None:
            return
        if room.has_ended:
            raise InvalidSaleState(
                f"cannot change the times of {sale.sale_id}: its waiting room ended with the previous end; delete the "
                "draft and create it again"
            )
        if not room.is_listed and room.list_closes_at > max(sale.opens_at, self._now()):
            raise InvalidSaleState(
                f"cannot open {sale.sale_id} at {sale.opens_at:%Y-%m-%dT%H:%M:%SZ}: the list of its waiting room "
                f"closes at {room.list_closes_at:%Y-%m-%dT%H:%M:%SZ}; first close it earlier with `floodgate room set "
                f"{sale.sale_id} --list-closes-at TIME`"
            )

    async def delete(self, sale_id: str, actor: str) -> None:
        """Delete a draft with its items, promotions, coupons, wait-list and waiting room; its log stays.

        Raises `InvalidSaleState`, which names what is in the way, or `NotReady` if Redis does not delete its room.
        """
        try:
            async with self._db.transaction() as connection:
                sale = await _lock(connection, sale_id)
                if sale.state is not SaleState.DRAFT:
                    raise InvalidSaleState(f"cannot delete {sale_id}: it is {sale.state}; only a draft can be deleted")
                if await store.has_open_room(connection, sale_id):
                    raise InvalidSaleState(
                        f"cannot delete {sale_id}: people may wait in its room; first turn it off with `floodgate room "
                        f"set {sale_id} --off`"
                    )
                await sales_store.log(connection, sale_id, self._now(), actor, "delete", {"title": sale.title})
                await forget_items(connection, sale_id, None, "the draft is deleted", actor, self._now())
                if await store.delete_draft(connection, sale_id):
                    await self._forget_room(sale_id)
        except ForeignKeyViolationError as error:
            raise _still_used(f"cannot delete {sale_id}", error) from None

    async def _forget_room(self, sale_id: str) -> None:
        try:
            await forget_room(self._redis, SaleKeys(sale_id))
        except REDIS_UNAVAILABLE:
            raise NotReady(f"cannot delete {sale_id}: Redis may have its room and does not answer; repeat it") from None

    async def remove_item(self, sale_id: str, sku: str, actor: str) -> None:
        """Remove an item of a draft. Raises `NoSuchItem`, or `InvalidSaleState`, which says what to do."""
        try:
            async with self._db.transaction() as connection:
                sale = await _lock(connection, sale_id)
                item = await sales_store.get_item(connection, sale_id, sku)
                if item is None:
                    raise NoSuchItem(f"{sale_id} does not offer {sku}")
                if sale.state is not SaleState.DRAFT:
                    raise InvalidSaleState(
                        f"cannot remove {sku} of {sale_id}: it was opened; take its free units away with `floodgate "
                        "sale change-stock`"
                    )
                if promotion_id := await store.find_promotion_of_item(connection, sale_id, sku):
                    raise InvalidSaleState(
                        f"cannot remove {sku} of {sale_id}: its promotion {promotion_id} names it; change that first"
                    )
                await sales_store.increase_generation(connection, sale_id)
                await forget_items(connection, sale_id, sku, "the item is removed", actor, self._now())
                await store.delete_item(connection, sale_id, sku)
                detail = {"sku": sku, "price": item.price, "limit": item.limit_per_user, "units": item.initial_units}
                await sales_store.log(connection, sale_id, self._now(), actor, "remove_item", detail)
        except ForeignKeyViolationError as error:
            raise _still_used(f"cannot remove {sku} of {sale_id}", error) from None


async def _lock(connection: Connection, sale_id: str) -> Sale:
    sale = await sales_store.lock(connection, sale_id)
    if sale is None:
        raise NoSuchSale(f"there is no sale {sale_id!r}")
    return sale


async def _check_currency_can_change(connection: Connection, sale: Sale) -> None:
    if priced := await store.find_priced(connection, sale.sale_id):
        raise InvalidSaleState(
            f"cannot change the currency of {sale.sale_id}: its {priced} are in {sale.currency}; remove them first"
        )
    if sale.freight_template is not None:
        raise InvalidSaleState(
            f"cannot change the currency of {sale.sale_id}: its freight template {sale.freight_template} is in "
            f"{sale.currency}; take that away first"
        )


def _still_used(action: str, error: ForeignKeyViolationError) -> InvalidSaleState:
    return InvalidSaleState(f"{action}: rows of {error.table_name} refer to it; remove those first")
