"""Jobs of orders whose cancellations go on, or of which units wait for a decision."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.cancellations.progress import CancellationProgress, UndeliveredPolicy
from commerce.jobs.model import Job, JobHandler, JobResult, delayed, finished, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.orders import store as orders
from commerce.orders.model import ADVANCE_CANCELLATIONS, CANCELLATIONS
from commerce.payments.errors import RefundExceedsCaptured
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.policy import ShippingPolicy


class CancellationJobs:
    """The queue `cancellations`. A job that fails `max_attempts` times is parked."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        retry_policy: RetryPolicy,
        max_attempts: int,
        carriers: CarrierRegistry,
        shipping: ShippingPolicy,
        undelivered: UndeliveredPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._progress = CancellationProgress(ids, carriers, shipping, undelivered)
        handlers = {ADVANCE_CANCELLATIONS: JobHandler(self._advance, max_attempts=max_attempts)}
        self.queue = JobQueue(CANCELLATIONS, handlers, db, clock, retry_policy)

    async def _advance(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        [job] = jobs
        try:
            async with self._db.transaction() as connection:
                order = await orders.lock_order(connection, job.subject)
                if order is None:
                    return [finished("unchanged")]
                word = await self._progress.advance(connection, order, from_ms(self._clock.now_ms()))
                failpoint("cancellation.before_commit")
        except RefundExceedsCaptured as error:  # other shipments are still to bring the cash
            return [delayed("waiting", str(error))]
        failpoint("cancellation.after_commit")
        return [written(word)]
