"""Changes of stock while a sale runs: recorded first, applied to Redis once, never below zero."""

from __future__ import annotations

import logging
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import Invalid, KeyReused
from commerce.kernel.failpoints import failpoint
from commerce.kernel.failures import Failures
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.sales import store
from commerce.sales.errors import InvalidSaleState, NoSuchSale, NotEnoughFreeUnits
from commerce.sales.model import SaleState, StockChange, StockChangeInput
from lua import ChangeStockOutcome, SaleKeys, change_stock

_logger = logging.getLogger(__name__)


class StockChanges:
    """Stock changes, recorded in Postgres and applied to the stock in Redis."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, policy: RetryPolicy) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._policy = policy

    async def change(self, sale_id: str, change_id: UUID, change: StockChangeInput, actor: str) -> StockChange:
        """Record a change and apply it. A repeat with the same id returns the same change.

        While Redis is unreachable the change stays `pending` and is applied later. Raises `NotEnoughFreeUnits` if it
        removes more units than are free, `KeyReused` if the id was used for another change.
        """
        if change.delta == 0:
            raise Invalid("cannot change stock by 0 units")
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            sale = await store.lock(connection, sale_id)
            if sale is None or await store.get_item(connection, sale_id, change.sku) is None:
                raise NoSuchSale(f"there is no sale {sale_id!r} that offers {change.sku}")
            if sale.state is SaleState.DRAFT:
                raise InvalidSaleState(f"cannot change stock: {sale_id} was not opened; set the item's units instead")
            await store.insert_change(connection, change_id, sale_id, change, actor, now)
            stored = await store.get_change(connection, change_id)
        assert stored is not None
        if (stored.sale_id, stored.sku, stored.delta) != (sale_id, change.sku, change.delta):
            raise KeyReused(f"the change id {change_id} was used for another change: use a new one")
        failpoint("stock.after_record")
        if stored.status == "pending":
            stored = await self._apply(stored, 1)
        if stored.status == "refused":
            raise NotEnoughFreeUnits(stored.last_error or "too few units are free")
        return stored

    async def list_changes(self, sale_id: str, count: int) -> list[StockChange]:
        """List the latest changes of a sale, newest first."""
        async with self._db.connection() as connection:
            return await store.list_changes(connection, sale_id, count)

    async def apply_due_changes(self) -> int:
        """Apply due changes to Redis. Returns the number of claimed changes.

        Raises `SomeFailed` after all of them: a failed one is claimed again when its lease ends.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.connection() as connection:
            claimed = await store.claim_changes(connection, now, self._policy.lease_s, self._policy.rows_per_claim)
        failures = Failures("apply a stock change", _logger)
        for change, attempts in claimed:
            with failures.catch(change_id=change.change_id, sale_id=change.sale_id):
                await self._apply(change, attempts)
        failures.raise_any()
        return len(claimed)

    async def _apply(self, change: StockChange, attempts: int) -> StockChange:
        keys = SaleKeys(change.sale_id)
        created_ms = to_ms(change.created_at)
        try:
            result = await change_stock(self._redis, keys, change.change_id, created_ms, change.sku, change.delta)
        except (RedisError, OSError) as error:
            return await self._postpone(change, attempts, f"Redis: {error}", park=False)
        failpoint("stock.after_redis")
        now = from_ms(self._clock.now_ms())
        match result.outcome:
            case ChangeStockOutcome.APPLIED | ChangeStockOutcome.ALREADY_APPLIED:
                async with self._db.connection() as connection:
                    await store.mark_change_applied(connection, change.change_id, now, result.epoch, result.number)
            case ChangeStockOutcome.NOT_ENOUGH:
                reason = f"{result.number} units of {change.sku} are free, so {-change.delta} cannot be removed"
                async with self._db.connection() as connection:
                    await store.refuse_change(connection, change.change_id, now, result.epoch, reason)
            case ChangeStockOutcome.NOT_READY:
                return await self._postpone(change, attempts, "the sale is not loaded in Redis", park=False)
            case ChangeStockOutcome.TOO_OLD:
                reason = "too old for Redis to know if it was applied: run `floodgate rebuild` of the sale"
                return await self._postpone(change, attempts, reason, park=True)
        return await self._read(change.change_id)

    async def _postpone(self, change: StockChange, attempts: int, reason: str, *, park: bool) -> StockChange:
        due = from_ms(self._clock.now_ms() + self._policy.delay_ms(attempts))
        async with self._db.connection() as connection:
            await store.postpone_change(connection, change.change_id, due, reason, park)
        return await self._read(change.change_id)

    async def _read(self, change_id: UUID) -> StockChange:
        async with self._db.connection() as connection:
            stored = await store.get_change(connection, change_id)
        assert stored is not None
        return stored
