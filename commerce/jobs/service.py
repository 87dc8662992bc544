"""A queue of jobs with its handlers: claims, work, and results that are written together."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from time import perf_counter

from commerce.jobs import store
from commerce.jobs.model import ERROR, NO_ANSWER, Job, JobHandler, JobResult, delayed, failed
from commerce.jobs.store import Postponement
from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalDelay, ExternalOutcomeUnknown
from commerce.kernel.failures import Failures
from commerce.kernel.jobs import RateLimiter, RetryPolicy
from commerce.kernel.outages import explain_defect, is_outage, log_failure
from commerce.kernel.postgres import Database

_logger = logging.getLogger(__name__)
_Result = tuple[Job, JobResult, JobHandler]
_LONGEST_BACKOFF = 30
"""attempts after which the backoff grows no more"""
_UNKNOWN_KIND_ATTEMPTS = 12
"""five minutes and more: during a rolling restart a newer worker claims the job meanwhile"""
ResultCounter = Callable[[Sequence[Job], Sequence[str], float], None]
"""is called with jobs of one kind and system, their result words and how many seconds they took"""


class JobQueue:
    """The jobs of one queue. `handlers` maps each kind to what does it; a job of another kind fails.

    `limiter` limits how many jobs are claimed per second. `count_results` is called after each call of a handler."""

    def __init__(
        self,
        queue: str,
        handlers: Mapping[str, JobHandler],
        db: Database,
        clock: Clock,
        policy: RetryPolicy,
        limiter: RateLimiter | None = None,
    ) -> None:
        self.name = queue
        self._handlers = handlers
        self._db = db
        self._clock = clock
        self._policy = policy
        self._limiter = limiter
        self.count_results: ResultCounter = lambda jobs, words, duration_s: None
        self._results: Batcher[_Result, None] = Batcher(self._write_results)

    async def claim(self, count: int, room: Mapping[str, int]) -> list[list[Job]]:
        """Claim up to `count` due jobs, at most `room[system]` of a system.

        Returns groups, each for one call of its handler."""
        if self._limiter is not None:
            count = min(count, self._limiter.available())
        now = from_ms(self._clock.now_ms())
        # Claims of the same millisecond differ: attempts and the end of the lease name a claim.
        lease_until = now + timedelta(seconds=self._policy.lease_s, microseconds=int(self._policy.random() * 1000))
        async with self._db.connection() as connection:
            jobs = await store.claim(connection, self.name, now, lease_until, count, room)
        if self._limiter is not None:
            self._limiter.consume(len(jobs))
        groups: dict[tuple[str, str], list[Job]] = defaultdict(list)
        for job in jobs:
            groups[job.kind, job.system].append(job)
        return [
            group[at : at + size]
            for (kind, _), group in groups.items()
            for size in (self._handlers[kind].jobs_per_call if kind in self._handlers else len(group),)
            for at in range(0, len(group), size)
        ]

    async def work(self, jobs: Sequence[Job]) -> list[JobResult]:
        """Do claimed jobs of one kind and system, and write their results together with those of other calls.

        Raises the handler's error only in an outage of Postgres or Redis: the jobs are claimed again after their
        lease, and that is no attempt."""
        handler = self._handlers.get(jobs[0].kind) or JobHandler(_refuse, max_attempts=_UNKNOWN_KIND_ATTEMPTS)
        words, started = [ERROR] * len(jobs), perf_counter()
        try:
            results = await self._call(handler, jobs)
            await self._record(jobs, results, handler)
            words = [result.word for result in results]
        finally:
            self.count_results(jobs, words, perf_counter() - started)
        return list(results)

    async def _call(self, handler: JobHandler, jobs: Sequence[Job]) -> Sequence[JobResult]:
        try:
            return await handler.work(jobs)
        except ExternalDelay as error:
            return [delayed("waiting", str(error)) for _ in jobs]
        except ExternalOutcomeUnknown as error:
            return [failed(NO_ANSWER, str(error)) for _ in jobs]
        except Exception as error:
            if is_outage(error):
                raise
            if len(jobs) > 1:  # one of them must not park the others
                return [result for job in jobs for result in await self._call(handler, [job])]
            log_failure(_logger, "a job failed", error, queue=self.name, kind=jobs[0].kind, subject=jobs[0].subject)
            return [failed(ERROR, explain_defect(error))]

    async def record(self, jobs: Sequence[Job], results: Sequence[JobResult]) -> None:
        """Write the results of jobs of one kind that the caller has done without `work`."""
        await self._record(jobs, results, self._handlers[jobs[0].kind])

    async def work_due(self) -> int:
        """Claim due jobs and do them, one call after another. Returns their number.

        Raises `SomeFailed` after all calls if some ended in an error."""
        groups = await self.claim(self._policy.rows_per_claim, {})
        failures = Failures(f"do jobs of {self.name}", _logger)
        for jobs in groups:
            results: list[JobResult] = []
            with failures.catch(subject=jobs[0].subject, jobs=len(jobs)):
                results = await self.work(jobs)
            for job, result in zip(jobs, results, strict=False):
                if result.word == ERROR:
                    failures.add(f"{job.subject} ({result.error})")
        failures.raise_any()
        return sum(map(len, groups))

    async def _record(self, jobs: Sequence[Job], results: Sequence[JobResult], handler: JobHandler) -> None:
        """Write the results that handlers have not written; concurrent ones share statements."""
        await asyncio.gather(
            *(
                self._results.add((job, result, handler))
                for job, result in zip(jobs, results, strict=True)
                if result.step != "written"
            )
        )

    async def _write_results(self, results: Sequence[_Result]) -> list[None]:
        finished = [job for job, result, _ in results if result.step == "finish"]
        postponements = [
            self._postponement(job, result, handler) for job, result, handler in results if result.step != "finish"
        ]
        async with self._db.connection() as connection:
            if finished:
                await store.finish(connection, finished)
            await store.postpone(connection, self.name, postponements)
        return [None] * len(results)

    def _postponement(self, job: Job, result: JobResult, handler: JobHandler) -> Postponement:
        now_ms = self._clock.now_ms()
        if result.step == "postpone" and result.due_at is not None:
            return Postponement(job, result.due_at, result.kind)
        if result.step == "delay":
            due_at = result.due_at or from_ms(now_ms + self._policy.delay_ms(_LONGEST_BACKOFF))
            return Postponement(job, due_at, None, result.error, starts_over=True)
        is_given_up = handler.max_attempts is not None and job.attempts >= handler.max_attempts
        retry_at = from_ms(now_ms + self._policy.delay_ms(job.attempts))
        if result.due_at is not None:
            retry_at = max(retry_at, result.due_at)
        return Postponement(job, retry_at, None, result.error, is_given_up or result.step == "park")


async def _refuse(jobs: Sequence[Job]) -> list[JobResult]:
    return [failed("unknown_kind", f"a worker does not know {job.kind}: start workers of this version") for job in jobs]
