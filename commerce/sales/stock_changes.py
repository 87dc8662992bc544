"""Changes of stock while a sale runs: recorded first, applied to Redis once, never below zero."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from commerce.jobs.model import (
    ERROR,
    INTERNAL_SYSTEM,
    Job,
    JobHandler,
    JobResult,
    failed,
    finished,
    parked,
    written,
)
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import Invalid, KeyReused
from commerce.kernel.failpoints import failpoint
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Connection, Database, safe_error_text
from commerce.sales import store
from commerce.sales.errors import InvalidSaleState, NoSuchSale, NotEnoughFreeUnits
from commerce.sales.model import SaleState, StockChange, StockChangeInput
from commerce.warehouse_stock import store as warehouse_stock
from commerce.warehouse_stock.errors import NotEnoughStock
from lua import ChangeStockOutcome, SaleKeys, change_stock

_logger = logging.getLogger(__name__)
STOCK_CHANGES = "stock_changes"
"""queue of changes that are not applied to Redis"""
_APPLY = "stock_change.apply"
_REQUEST_LEASE = timedelta(seconds=5)
"""time for which workers leave a new change to the request that has recorded it"""
_LOADED_MEANWHILE = failed("waiting", "the sale was loaded meanwhile")


class RecordedChange(NamedTuple):
    """A change in Postgres that may not be in Redis yet, and its job, which workers leave to the request."""

    change: StockChange
    job: Job


class StockChanges:
    """Stock changes, recorded in Postgres and applied to the stock in Redis."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, policy: RetryPolicy) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        handler = JobHandler(self._apply_changes, jobs_per_call=policy.rows_per_claim)
        self.jobs = JobQueue(STOCK_CHANGES, {_APPLY: handler}, db, clock, policy)

    async def change(self, sale_id: str, change_id: UUID, change: StockChangeInput, actor: str) -> StockChange:
        """Record a change and apply it. A repeat with the same id returns the same change.

        While Redis is unreachable the change stays `pending` and is applied later. Raises `NotEnoughFreeUnits` if it
        removes more units than are free, `NotEnoughStock` if warehouses have fewer than it adds, `KeyReused` if the id
        was used for another change.
        """
        async with self._db.transaction() as connection:
            sale = await store.lock(connection, sale_id)
            if sale is None or not await store.has_item(connection, sale_id, change.sku):
                raise NoSuchSale(f"there is no sale {sale_id!r} that offers {change.sku}")
            if sale.state is SaleState.DRAFT:
                raise InvalidSaleState(f"cannot change stock: {sale_id} was not opened; set the item's units instead")
            recorded = await self.record(connection, sale_id, change_id, change, actor)
        return await self.apply_recorded(recorded)

    async def record(
        self, connection: Connection, sale_id: str, change_id: UUID, change: StockChangeInput, actor: str
    ) -> RecordedChange:
        """Record a change, and after the commit call `apply_recorded`. Raises `KeyReused` as `change` does.

        Units that are added to an item whose stock warehouses keep are allotted from them: raises `NotEnoughStock`. A
        trigger takes back what an applied change removes.
        Call inside a transaction that holds the lock of the sale, which was opened.
        """
        if change.delta == 0:
            raise Invalid("cannot change stock by 0 units")
        now = from_ms(self._clock.now_ms())
        lease_until = now + _REQUEST_LEASE
        is_new = await store.insert_change(connection, change_id, sale_id, change, actor, now, lease_until)
        stored = await store.get_change(connection, change_id)
        assert stored is not None
        if (stored.sale_id, stored.sku, stored.delta) != (sale_id, change.sku, change.delta):
            raise KeyReused(f"the change id {change_id} was used for another change: use a new one")
        if is_new and change.delta > 0:
            await _allot(connection, stored, now)
        return RecordedChange(stored, Job(STOCK_CHANGES, change_id, _APPLY, INTERNAL_SYSTEM, 1, lease_until))

    async def apply_recorded(self, recorded: RecordedChange) -> StockChange:
        """Apply a change that was recorded and committed. Raises `NotEnoughFreeUnits` as `change` does."""
        stored, job = recorded
        failpoint("stock.after_record")
        if stored.status == "pending":
            await self.jobs.record([job], [await self._apply(stored)])
            async with self._db.connection() as connection:
                read = await store.get_change(connection, stored.change_id)
            assert read is not None
            stored = read
        if stored.status == "refused":
            raise NotEnoughFreeUnits(stored.last_error or "too few units are free")
        return stored

    async def list_changes(self, sale_id: str, count: int) -> list[StockChange]:
        """List the latest changes of a sale, newest first."""
        async with self._db.connection() as connection:
            return await store.list_changes(connection, sale_id, count)

    async def apply_due_changes(self) -> int:
        """Apply due changes to Redis. Returns the number of claimed changes.

        Raises `SomeFailed` after all of them: a failed one is tried again.
        """
        return await self.jobs.work_due()

    async def _apply_changes(self, jobs: Sequence[Job]) -> list[JobResult]:
        async with self._db.connection() as connection:
            changes = await store.get_changes(connection, [job.subject for job in jobs])
        results = []
        for job in jobs:
            change = changes.get(job.subject)
            if change is None or change.status != "pending":
                results.append(finished("unchanged"))
                continue
            try:
                results.append(await self._apply(change))
            except Exception as error:  # noqa: BLE001  # one change must not stop the others
                log_failure(
                    _logger, "cannot apply a stock change", error, change_id=change.change_id, sale_id=change.sale_id
                )
                results.append(failed(ERROR, safe_error_text(error)))
        return results

    async def _apply(self, change: StockChange) -> JobResult:
        keys = SaleKeys(change.sale_id)
        created_ms = to_ms(change.created_at)
        try:
            result = await change_stock(self._redis, keys, change.change_id, created_ms, change.sku, change.delta)
        except (RedisError, OSError) as error:
            return failed("waiting", f"Redis: {error}")
        failpoint("stock.after_redis")
        now = from_ms(self._clock.now_ms())
        match result.outcome:
            case ChangeStockOutcome.APPLIED | ChangeStockOutcome.ALREADY_APPLIED:
                async with self._db.connection() as connection:
                    has_ended = await store.mark_change_applied(
                        connection, change.change_id, now, result.epoch, result.number
                    )
                return written("applied") if has_ended else _LOADED_MEANWHILE
            case ChangeStockOutcome.NOT_ENOUGH:
                reason = f"{result.number} units of {change.sku} are free, so {-change.delta} cannot be removed"
                async with self._db.connection() as connection:
                    has_ended = await store.refuse_change(connection, change.change_id, now, result.epoch, reason)
                return written("refused") if has_ended else _LOADED_MEANWHILE
            case ChangeStockOutcome.NOT_READY:
                return failed("waiting", "the sale is not loaded in Redis")
            case ChangeStockOutcome.TOO_OLD:
                return parked(
                    "parked", "too old for Redis to know if it was applied: run `floodgate rebuild` of the sale"
                )


async def _allot(connection: Connection, change: StockChange, now: datetime) -> None:
    """Allot the units that a change adds, if warehouses keep the item. Raises `NotEnoughStock`."""
    values = change.sale_id, change.sku, change.delta, change.change_id, change.reason, change.actor, now
    if missing := await warehouse_stock.allot_more(connection, *values):
        raise NotEnoughStock(
            f"cannot add {change.delta} units of {change.sku}: warehouses have {change.delta - missing} that no sale "
            "has; receive or count some first"
        )
