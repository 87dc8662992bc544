"""Taking the goods of an expired order again, because it was paid after all: all of them or none, once."""

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
from lua import Reacquire, ReacquireOutcome, SaleKeys, reacquire

ReacquireDecision = Literal["reacquired", "sold_out", "retry"]


class StockReacquisition:
    """The row is the job: a release with its units below zero."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._ids = ids

    async def reacquire(self, order_id: UUID) -> ReacquireDecision:
        """Take them. `retry`: what went back is not applied yet, or Redis cannot say now; ask again."""
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            row = await store.begin_reacquire(connection, self._ids.new(), order_id, now)
        if row is None:
            return "retry"
        if row.status != "pending":
            return "reacquired" if row.status == "applied" else "sold_out"
        try:
            answer = await reacquire(
                self._redis, SaleKeys(row.sale_id), Reacquire(row.release_id, row.created_ms, row.user_id, row.units)
            )
        except REDIS_UNAVAILABLE:
            return "retry"
        failpoint("retake.after_redis")
        if answer.outcome in (ReacquireOutcome.NOT_READY, ReacquireOutcome.TOO_OLD):
            # One that is too old to tell is settled when the sale is loaded anew, which is what `rebuild` does.
            return "retry"
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            if answer.outcome is ReacquireOutcome.REFUSED:
                await store.refuse_retake(connection, row.release_id, now)
                return "sold_out"
            if not await store.mark_applied(connection, row.sale_id, answer.epoch, [(row.release_id, answer.seq)], now):
                return "retry"
        return "reacquired"
