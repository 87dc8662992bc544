"""List prices of variants: their history, and prices that are planned for a time.

Prices of sales are their own: a sale takes the list price over when staff set its item.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.catalog import price_store, store
from commerce.catalog.errors import NoSuchPlannedPrice, NoSuchVariant, PlanEnded
from commerce.catalog.model import MAX_PLANNED_PRICES, PlannedPrice, PlanStatus, PriceChange, PriceInput, Variant
from commerce.jobs import store as job_store
from commerce.jobs.model import INTERNAL_SYSTEM, Job, JobHandler, JobResult, NewJob, finished, postponed, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

PLANNED_PRICES = "planned_prices"
"""queue of prices that are to be set at a time"""
_SET = "planned_price.set"
ACTOR = "sale_sync"
_LAST_NO = 2**63 - 1
_LAST_ID = UUID(int=2**128 - 1)


class Prices:
    """Changes of list prices by staff, over Postgres."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def set_price(self, sku: str, price: PriceInput, actor: str) -> Variant | PlannedPrice:
        """Set a list price now, or plan it for `starts_at` in the place of one that is planned for then.

        A repeat changes nothing. Returns the variant, or the plan. Raises `NoSuchVariant`, `Invalid` if the time is
        past or the currency another, `Conflict` if too many prices are planned.
        """
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            locked = await price_store.lock_price(connection, sku)
            if locked is None:
                raise NoSuchVariant(f"no variant has the SKU {sku!r}")
            if price.currency != locked.currency:
                raise Invalid(
                    f"cannot set the price of {sku}: it is priced in {locked.currency}, not {price.currency}; "
                    "another currency takes a change of the variant itself"
                )
            if price.starts_at is not None:
                return await self._plan(connection, sku, price, price.starts_at, actor, now)
            await apply_due_plans(connection, [sku], now)
            locked = await price_store.lock_price(connection, sku)
            if locked is not None and locked.price != price.price:
                await price_store.set_price(connection, sku, price.price, now)
                new = {sku: (price.price, price.currency)}
                await price_store.add_price_changes(connection, new, actor, price.reason, now)
            variant = await store.get(connection, sku)
        assert variant is not None
        return variant

    async def _plan(
        self, connection: Connection, sku: str, price: PriceInput, starts_at: datetime, actor: str, now: datetime
    ) -> PlannedPrice:
        if starts_at <= now:
            raise Invalid(
                f"cannot plan a price of {sku} for {starts_at.isoformat()}: that time is past; leave starts_at out to "
                "set the price now"
            )
        planned = await price_store.find_planned(connection, sku, starts_at)
        if planned is not None:
            if planned.price == price.price:
                return planned
            await _end_plan(connection, planned, "replaced", now, actor, price.reason)
        elif len(await price_store.list_planned(connection, sku)) >= MAX_PLANNED_PRICES:
            raise Conflict(f"{sku} has {MAX_PLANNED_PRICES} planned prices; cancel one of them first")
        plan_id = self._ids.new()
        await price_store.insert_plan(connection, plan_id, sku, price, actor, now)
        await job_store.put(connection, PLANNED_PRICES, [NewJob(plan_id, _SET, INTERNAL_SYSTEM, starts_at)], now)
        plan = await price_store.get_plan(connection, plan_id)
        assert plan is not None
        return plan

    async def cancel_plan(self, plan_id: UUID, reason: str, actor: str) -> PlannedPrice:
        """Cancel a planned price. A repeat changes nothing. Raises `NoSuchPlannedPrice` or `PlanEnded`."""
        async with self._db.transaction() as connection:
            plan = await price_store.get_plan(connection, plan_id)
            if plan is None:
                raise NoSuchPlannedPrice(f"there is no planned price {plan_id}")
            await price_store.lock_price(connection, plan.sku)
            plan = await price_store.get_plan(connection, plan_id)
            assert plan is not None
            if plan.status == "planned":
                now = from_ms(self._clock.now_ms())
                await _end_plan(connection, plan, "cancelled", now, actor, reason)
                plan = await price_store.get_plan(connection, plan_id)
                assert plan is not None
            elif plan.status != "cancelled":
                raise PlanEnded(f"cannot cancel the price of {plan.sku}: it is {plan.status} since {plan.ended_at}")
        return plan

    async def list_changes(self, sku: str, before: int | None, size: int) -> Page[PriceChange]:
        """List the prices that a variant has had, newest first. Raises `NoSuchVariant`."""
        async with self._db.snapshot() as connection:
            await _check_exists(connection, sku)
            changes = await price_store.list_price_changes(connection, sku, before or _LAST_NO, size + 1)
        return to_page(changes, size, lambda change: str(change.change_no))

    async def list_plans(self, sku: str, before: UUID | None, size: int) -> Page[PlannedPrice]:
        """List the prices that were planned for a variant, the last one that was entered first."""
        async with self._db.snapshot() as connection:
            await _check_exists(connection, sku)
            plans = await price_store.list_plans(connection, sku, before or _LAST_ID, size + 1)
        return to_page(plans, size, lambda plan: str(plan.plan_id))


class PriceJobs:
    """The queue `planned_prices`. A job that fails `max_attempts` times is parked."""

    def __init__(self, db: Database, clock: Clock, policy: RetryPolicy, max_attempts: int) -> None:
        self._db = db
        self._clock = clock
        handlers = {_SET: JobHandler(self._set, max_attempts=max_attempts)}
        self.queue = JobQueue(PLANNED_PRICES, handlers, db, clock, policy)

    async def _set(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        """Set the price of a plan whose time has come, after earlier ones of its variant."""
        [job] = jobs
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            plan = await price_store.get_plan(connection, job.subject)
            if plan is None or plan.status != "planned":
                return [finished("unchanged")]
            if now < plan.starts_at:
                return [postponed("waiting", plan.starts_at)]
            await price_store.lock_price(connection, plan.sku)
            await apply_due_plans(connection, [plan.sku], now)
            failpoint("price.before_commit")
        failpoint("price.after_commit")
        return [written("done")]


async def apply_due_plans(connection: Connection, skus: Sequence[str], now: datetime) -> None:
    """Set prices whose time has come, in the sequence of their times, and finish their jobs.

    Call inside a transaction that holds the locks of the variants. Whoever changes a price calls it first: a price
    that a worker has not set yet is older than that change.
    """
    for plan in await price_store.list_due_plans(connection, skus, now):
        locked = await price_store.lock_price(connection, plan.sku)
        if locked is None or locked.currency != plan.currency:
            currency = "no currency" if locked is None else locked.currency
            await _end_plan(connection, plan, "cancelled", now, ACTOR, f"the variant is priced in {currency} by now")
            continue
        await price_store.set_price(connection, plan.sku, plan.price, now)
        await price_store.add_planned_change(connection, plan.plan_id, now)
        await _end_plan(connection, plan, "applied", now, ACTOR, None)


async def _end_plan(
    connection: Connection,
    plan: PlannedPrice,
    status: PlanStatus,
    now: datetime,
    actor: str,
    reason: str | None,
) -> None:
    await price_store.end_plan(connection, plan.plan_id, status, now, actor, reason)
    await job_store.remove(connection, PLANNED_PRICES, [plan.plan_id])


async def _check_exists(connection: Connection, sku: str) -> None:
    if await store.get(connection, sku) is None:
        raise NoSuchVariant(f"no variant has the SKU {sku!r}")
