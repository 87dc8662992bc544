"""Jobs that check and apply imports of products, for some seconds at a time."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.catalog.products import PublicationCheck
from commerce.jobs.model import Job, JobHandler, JobResult, finished, postponed
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.product_imports.model import APPLY, CHECK, QUEUE
from commerce.product_imports.service import ProductImports

_TURN_S = 3.0
"""less than the lease of a job: it is due again at once, and other jobs have their turn"""


class ImportJobs:
    """Works on imports. What a killed worker leaves undone, the next one does."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        retries: RetryPolicy,
        max_attempts: int,
        check_publication: PublicationCheck,
    ) -> None:
        self._clock = clock
        self._imports = ProductImports(db, clock, ids, check_publication)
        handler = JobHandler(self._work, max_attempts=max_attempts)
        self.queue = JobQueue(QUEUE, {CHECK: handler, APPLY: handler}, db, clock, retries)

    async def _work(self, jobs: Sequence[Job]) -> list[JobResult]:
        (job,) = jobs
        end = self._clock.monotonic() + _TURN_S
        while await self._imports.work(job.subject):
            if self._clock.monotonic() >= end:
                return [postponed("waiting", from_ms(self._clock.now_ms()))]
        return [finished("done")]
