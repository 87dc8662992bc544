"""Reacquires the stock of an expired order that was paid late: all of it or nothing, once."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from redis.asyncio import Redis

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.reservations import store
from lua import ReacquireOutcome, Reacquisition, SaleKeys, reacquire

ReacquireDecision = Literal["reacquired", "refused", "retry"]


class StockReacquisition:
    """Reacquires stock; the job is a row of `releases` with negative units."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ids = ids

    async def reacquire(self, order_id: UUID) -> ReacquireDecision:
        """Reacquire the stock and the limit of an order.

        Returns `refused` if the stock or the customer's limit does not allow it, and `retry` while its release is not
        applied or Redis cannot decide. A repeat returns the same decision.
        """
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            job = await store.begin_reacquire(connection, self._ids.new(), order_id, now)
        if job is None:
            return "retry"
        if job.status != "pending":
            return "reacquired" if job.status == "applied" else "refused"
        try:
            answer = await reacquire(
                self._redis,
                SaleKeys(job.sale_id),
                Reacquisition(job.release_id, job.created_ms, job.user_id, job.units, job.sale_epoch),
            )
        except REDIS_UNAVAILABLE:
            return "retry"
        failpoint("reacquire.after_redis")
        if answer.outcome in (ReacquireOutcome.NOT_READY, ReacquireOutcome.TOO_OLD):
            # A job that is too old for Redis to decide ends when the sale is loaded again, which `rebuild` does.
            return "retry"
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            if answer.outcome is ReacquireOutcome.REFUSED:
                is_refused = await store.refuse_reacquire(connection, job.sale_id, answer.epoch, job.release_id, now)
                return "refused" if is_refused else "retry"
            applied = [(job.release_id, answer.seq)]
            is_applied = await store.mark_applied(connection, job.sale_id, answer.epoch, applied, now)
        return "reacquired" if is_applied else "retry"
