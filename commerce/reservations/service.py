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

from commerce.jobs.model import ERROR, Job, JobHandler, JobResult, failed, finished, parked, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.failures import Failures
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE, Connection, Database, safe_error_text
from commerce.orders import store as orders
from commerce.reservations import store
from commerce.reservations.store import PendingRelease
from lua import Release, ReleaseOutcome, SaleKeys, release

_logger = logging.getLogger(__name__)
RELEASES = "releases"
"""queue of releases that are not applied to Redis"""
_TOO_OLD = "too old for Redis to know if it was applied: run `floodgate rebuild` of the sale"
_NOT_LOADED = "the sale is not loaded in Redis: if it stays so, run `floodgate rebuild` of it"
_RESULTS = {
    ReleaseOutcome.NOT_READY: failed("waiting", _NOT_LOADED),
    ReleaseOutcome.TOO_OLD: parked("parked", _TOO_OLD),
}
"""results of releases that Redis did not apply"""
_ALREADY_APPLIED = finished("unchanged")


class Reservations:
    """The two jobs of the release worker."""

    def __init__(self, db: Database, redis: Redis, clock: Clock, policy: RetryPolicy) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._policy = policy
        self._not_cancelled: set[UUID] = set()
        handler = JobHandler(self._apply_releases, jobs_per_call=policy.rows_per_claim)
        self.jobs = JobQueue(RELEASES, {"release.apply": handler}, db, clock, policy)

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

        Raises `SomeFailed` after those of all sales: failed ones are tried again.
        """
        return await self.jobs.work_due()

    async def _apply_releases(self, jobs: Sequence[Job]) -> list[JobResult]:
        async with self._db.connection() as connection:
            pending = await store.get_pending(connection, [job.subject for job in jobs])
        by_sale: dict[str, list[PendingRelease]] = defaultdict(list)
        for item in pending:
            by_sale[item.sale_id].append(item)
        results: dict[UUID, JobResult] = {}
        for sale_id, releases in by_sale.items():
            try:
                results |= await self._apply(sale_id, releases)
            except Exception as error:  # noqa: BLE001  # one sale must not stop the others
                log_failure(_logger, "cannot apply releases", error, sale_id=sale_id)
                result = failed(ERROR, f"{sale_id}: {safe_error_text(error)}")
                results |= dict.fromkeys((item.release_id for item in releases), result)
        return [results.get(job.subject, _ALREADY_APPLIED) for job in jobs]

    async def _apply(self, sale_id: str, pending: Sequence[PendingRelease]) -> dict[UUID, JobResult]:
        """Apply releases of one sale. Returns the results by release id."""
        releases = [
            Release(item.release_id, item.created_ms, item.user_id, item.units, item.written_off) for item in pending
        ]
        ids = [item.release_id for item in pending]
        try:
            epoch, answers = await release(self._redis, SaleKeys(sale_id), releases)
        except (RedisError, OSError) as error:
            return dict.fromkeys(ids, failed("waiting", f"Redis: {error}"))
        failpoint("release.after_redis")
        outcomes = list(zip(ids, answers, strict=True))
        results = {id_: _RESULTS[answer.outcome] for id_, answer in outcomes if answer.outcome in _RESULTS}
        applied = [(id_, answer.seq) for id_, answer in outcomes if id_ not in results]
        if applied:
            now = from_ms(self._clock.now_ms())
            async with self._db.transaction() as connection:
                is_marked = await store.mark_applied(connection, sale_id, epoch, applied, now)
            result = written("applied") if is_marked else failed("waiting", "the sale was loaded meanwhile")
            results |= dict.fromkeys((id_ for id_, _ in applied), result)
        return results
