"""Expires unpaid orders and applies releases of stock and limits to Redis, each once."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import PostgresError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.failures import Failures
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE, Connection, Database
from commerce.orders import store as orders
from commerce.reservations import store
from commerce.reservations.store import ClaimedRelease
from lua import Release, ReleaseOutcome, ReleaseResult, SaleKeys, release

_logger = logging.getLogger(__name__)
_TOO_OLD = "too old for Redis to know if it was applied: run `floodgate rebuild` of the sale"
_REASONS = {ReleaseOutcome.NOT_READY: "the sale is not loaded in Redis", ReleaseOutcome.TOO_OLD: _TOO_OLD}


class Reservations:
    """The two jobs of the release worker."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, policy: RetryPolicy) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._policy = policy
        self._not_cancelled: set[UUID] = set()

    async def expire_unpaid_orders(self) -> int:
        """Cancel orders that were not paid in time. Returns the number of cancelled orders.

        An order that Postgres refuses to cancel is tried again once no other is due. Raises `SomeFailed` after the
        others are cancelled.
        """
        now = from_ms(self._clock.now_ms())
        failures = Failures("cancel an unpaid order", _logger)
        async with self._db.transaction() as connection:
            due = await orders.lock_expired(connection, now, self._policy.rows_per_claim, self._not_cancelled)
            if not due:
                self._not_cancelled.clear()
                return 0
            try:
                async with connection.transaction():
                    cancelled = await self._cancel(connection, due, now)
            except POSTGRES_UNAVAILABLE:
                raise
            except PostgresError:
                cancelled = 0
                for order_id in due:
                    self._not_cancelled.add(order_id)
                    with failures.catch(order_id=order_id):
                        async with connection.transaction():
                            cancelled += await self._cancel(connection, [order_id], now)
                        self._not_cancelled.discard(order_id)
        failures.raise_any()
        return cancelled

    async def _cancel(self, connection: Connection, order_ids: Sequence[UUID], now: datetime) -> int:
        reason = "it was not paid in time"
        return len(await orders.cancel(connection, order_ids, now, "expired", "release_worker", reason))

    async def apply_due_releases(self) -> int:
        """Apply due releases to Redis. Returns the number of claimed releases.

        Raises `SomeFailed` after those of all sales: failed ones are claimed again when their lease ends.
        """
        now = from_ms(self._clock.now_ms())
        async with self._db.connection() as connection:
            claimed = await store.claim(connection, now, self._policy.lease_s, self._policy.rows_per_claim)
        by_sale: dict[str, list[ClaimedRelease]] = defaultdict(list)
        for job in claimed:
            by_sale[job.sale_id].append(job)
        failures = Failures("apply releases", _logger)
        for sale_id, jobs in by_sale.items():
            with failures.catch(sale_id=sale_id):
                await self._apply(sale_id, jobs)
        failures.raise_any()
        return len(claimed)

    async def _apply(self, sale_id: str, jobs: Sequence[ClaimedRelease]) -> None:
        releases = [Release(job.release_id, job.created_ms, job.user_id, job.units) for job in jobs]
        try:
            epoch, results = await release(self._redis, SaleKeys(sale_id), releases)
        except (RedisError, OSError) as error:
            await self._postpone(jobs, f"Redis: {error}", park=False)
            return
        failpoint("release.after_redis")
        by_outcome: dict[ReleaseOutcome, list[tuple[ClaimedRelease, ReleaseResult]]] = defaultdict(list)
        for job, result in zip(jobs, results, strict=True):
            by_outcome[result.outcome].append((job, result))
        applied = [*by_outcome.pop(ReleaseOutcome.APPLIED, []), *by_outcome.pop(ReleaseOutcome.ALREADY_APPLIED, [])]
        if applied:
            now = from_ms(self._clock.now_ms())
            async with self._db.transaction() as connection:
                pairs = [(job.release_id, result.seq) for job, result in applied]
                await store.mark_applied(connection, sale_id, epoch, pairs, now)
        for outcome, remaining in by_outcome.items():
            remaining_jobs = [job for job, _ in remaining]
            await self._postpone(remaining_jobs, _REASONS[outcome], park=outcome is ReleaseOutcome.TOO_OLD)

    async def _postpone(self, jobs: Sequence[ClaimedRelease], reason: str, *, park: bool) -> None:
        """Retry with backoff, or park releases that can never be applied."""
        now_ms = self._clock.now_ms()
        due = [(job.release_id, from_ms(now_ms + self._policy.delay_ms(job.attempts))) for job in jobs]
        async with self._db.connection() as connection:
            await store.postpone(connection, due, reason, park=park)
