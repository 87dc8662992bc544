"""Runs jobs that call external systems: many at once, with limits per system.

The payment worker and the fulfilment worker each give their queue to an `ExternalJobRunner`. A queue defines where the
rows are and how one of them is processed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from commerce.kernel.circuit_breaker import CircuitBreaker
from commerce.kernel.clock import Clock
from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.kernel.outages import log_failure
from config.settings import JobsSettings
from workers import metrics

_logger = logging.getLogger(__name__)
Job = TypeVar("Job")
INTERNAL_SYSTEM = "internal"
"""system of jobs that call no external system; it has no limits"""


class ExternalJobQueue(Protocol[Job]):
    """The job rows of a worker."""

    async def claim(
        self, count: int, excluded_systems: Sequence[str], unavailable_systems: Sequence[str]
    ) -> Sequence[Job]:
        """Claim due rows, without those of the excluded systems.

        These are busy or unavailable; `unavailable_systems` are those whose circuit breaker is open."""
        ...

    async def work(self, job: Job) -> str:
        """Do a job and return its result word.

        Raises `ExternalOutcomeUnknown` if its system gave no answer, or one that cannot be trusted."""
        ...


class ExternalJobRunner(Generic[Job]):
    """Runs claimed jobs concurrently, with a bulkhead and a circuit breaker per external system.

    `system_of` maps a job to the system it calls. At most `jobs.concurrent_jobs` run at once, and at most
    `jobs.concurrent_jobs_per_system` of one system. A system whose breaker is open gets no jobs."""

    def __init__(
        self,
        worker_name: str,
        queue: ExternalJobQueue[Job],
        system_of: Callable[[Job], str],
        systems: Iterable[str],
        settings: JobsSettings,
        clock: Clock,
    ) -> None:
        self._worker_name = worker_name
        self._queue = queue
        self._system_of = system_of
        self._settings = settings
        self._breakers = {
            system: CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
            for system in systems
        }
        self._running_by_system = dict.fromkeys(self._breakers, 0)
        self._running: set[asyncio.Task[None]] = set()

    async def start_due_jobs(self) -> int:
        """Claim as many due jobs as the limits allow, start them, and return their number."""
        while (free := self._settings.concurrent_jobs - len(self._running)) <= 0:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        free_by_system = {system: self._free(system) for system in self._breakers}
        for system, breaker in self._breakers.items():
            metrics.BREAKER_OPEN.labels(self._worker_name, system).set(breaker.is_open)
        # All claimed jobs may be of one system, so no more are claimed than any available system has room for.
        limits = [count for count in free_by_system.values() if count > 0]
        jobs = await self._queue.claim(
            min([free, *limits]),
            [system for system, count in free_by_system.items() if count <= 0],
            [system for system, breaker in self._breakers.items() if breaker.is_open],
        )
        for job in jobs:
            system = self._system_of(job)
            if system in self._running_by_system:
                self._running_by_system[system] += 1
            task = asyncio.create_task(self._run_job(job, system))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(jobs)

    def _free(self, system: str) -> int:
        """Return how many jobs of a system may be started now."""
        allowed = min(self._settings.concurrent_jobs_per_system, self._breakers[system].calls_allowed)
        return allowed - self._running_by_system[system]

    async def drain(self) -> None:
        """Wait until all running jobs have ended."""
        while self._running:
            await asyncio.wait(self._running)

    async def _run_job(self, job: Job, system: str) -> None:
        """Do a job and count its result: `no_answer` also stands for an answer that cannot be trusted."""
        started, breaker = perf_counter(), self._breakers.get(system)
        try:
            result = await self._queue.work(job)
            if breaker:
                breaker.record_success()
        except ExternalOutcomeUnknown as error:
            result = "no_answer"
            if breaker:
                breaker.record_failure()
            _logger.warning(
                "external system gave no answer, or one that cannot be trusted",
                extra={"worker": self._worker_name, "system": system, "reason": str(error)},
            )
        except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
            # The row is leased: when the lease ends, a worker claims it again.
            result = "error"
            log_failure(_logger, "a job failed", error, worker=self._worker_name, system=system)
        finally:
            if system in self._running_by_system:
                self._running_by_system[system] -= 1
        metrics.EXTERNAL_JOBS.labels(self._worker_name, system, result).inc()
        metrics.EXTERNAL_JOB_SECONDS.labels(self._worker_name, system).observe(perf_counter() - started)
