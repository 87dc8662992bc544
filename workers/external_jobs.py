"""How a driver works off rows that need somebody outside: many at once, each system within its own limits.

The payment driver and any driver like it give `Doors` their jobs; what differs is where the rows are and what is done
with one of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from commerce.kernel.breaker import CircuitBreaker
from commerce.kernel.clock import Clock
from commerce.kernel.external import ExternalOutcomeUnknown
from config.settings import JobsSettings
from workers import metrics

_logger = logging.getLogger(__name__)
Job = TypeVar("Job")


class ExternalJobQueue(Protocol[Job]):
    """The rows of one driver."""

    async def claim(self, count: int, without: Sequence[str], down: Sequence[str]) -> Sequence[Job]:
        """Due rows, except those for the systems that are busy or down; `down` names the latter alone."""
        ...

    async def work(self, job: Job) -> str:
        """Do one; a word for what became of it. Raises `Unclear` where the other side did not answer."""
        ...


class ExternalJobRunner(Generic[Job]):
    """Limits and breakers by system; `system_of` tells to which a job belongs."""

    def __init__(
        self,
        name: str,
        jobs: ExternalJobQueue[Job],
        system_of: Callable[[Job], str],
        systems: Iterable[str],
        settings: JobsSettings,
        clock: Clock,
    ) -> None:
        self._name = name
        self._jobs = jobs
        self._system_of = system_of
        self._settings = settings
        self._breakers = {
            system: CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
            for system in systems
        }
        self._busy = dict.fromkeys(self._breakers, 0)
        self._under_way: set[asyncio.Task[None]] = set()

    async def start_due_jobs(self) -> int:
        """Claim what is due and there is room for, and begin it; the number of jobs."""
        while (room := self._settings.concurrent_jobs - len(self._under_way)) <= 0:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        free = {system: self._free(system) for system in self._breakers}
        for system, breaker in self._breakers.items():
            metrics.BREAKER_OPEN.labels(self._name, system).set(breaker.is_open)
        # All of a claim may be for one system, so it is no larger than any that may be called has room for.
        open_ = [count for count in free.values() if count > 0]
        claimed = await self._jobs.claim(
            min([room, *open_]),
            [system for system, count in free.items() if count <= 0],
            [system for system, breaker in self._breakers.items() if breaker.is_open],
        )
        for job in claimed:
            system = self._system_of(job)
            if system in self._busy:
                self._busy[system] += 1
            task = asyncio.create_task(self._run_job(job, system))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(claimed)

    def _free(self, system: str) -> int:
        """How many calls to it may be begun now."""
        return min(self._settings.concurrent_jobs_per_system, self._breakers[system].calls_allowed) - self._busy[system]

    async def drain(self) -> None:
        """Wait for what is in hand."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _run_job(self, job: Job, system: str) -> None:
        started, breaker = perf_counter(), self._breakers.get(system)
        try:
            result = await self._jobs.work(job)
            if breaker:
                breaker.record_success()
        except ExternalOutcomeUnknown as error:
            result = "unclear"
            if breaker:
                breaker.record_failure()
            _logger.warning("no clear answer", extra={"driver": self._name, "system": system, "why": str(error)})
        except Exception:
            # Its row is leased: it comes again, by whoever claims it then.
            result = "error"
            _logger.exception("a job failed", extra={"driver": self._name, "system": system})
        finally:
            if system in self._busy:
                self._busy[system] -= 1
        metrics.OUTSIDE_JOBS.labels(self._name, system, result).inc()
        metrics.OUTSIDE_SECONDS.labels(self._name, system).observe(perf_counter() - started)
