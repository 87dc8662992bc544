"""Runs the jobs of queues: many at once, with limits per external system."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from commerce.jobs.model import ERROR, NO_ANSWER, Job
from commerce.jobs.service import JobQueue
from commerce.kernel.circuit_breaker import CircuitBreaker
from commerce.kernel.clock import Clock
from commerce.kernel.outages import log_failure
from config.settings import JobsSettings
from workers import metrics

_logger = logging.getLogger(__name__)


class JobRunner:
    """Runs claimed jobs concurrently, with a bulkhead and a circuit breaker per external system.

    At most `jobs.concurrent_jobs` run at once, and at most `jobs.concurrent_jobs_per_system` of one of `systems`. One
    whose breaker is open gets no jobs. `due` is set when there may be jobs for which there was no room before.

    `wake_ups` has events of queues, set when they get due jobs. A queue with one is claimed when it is set, when there
    was no room for all its jobs, and half a poll interval after its last claim."""

    def __init__(
        self,
        worker_name: str,
        queues: Sequence[JobQueue],
        systems: Iterable[str],
        settings: JobsSettings,
        clock: Clock,
        due: asyncio.Event,
        wake_ups: Mapping[str, asyncio.Event] | None = None,
    ) -> None:
        self._worker_name = worker_name
        self._queues = list(queues)
        for queue in queues:
            queue.count_results = metrics.count_results
        self._settings = settings
        self._breakers = {
            system: CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
            for system in systems
        }
        self._running_by_system = dict.fromkeys(self._breakers, 0)
        self._running_jobs = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._due = due
        self._wake_ups = wake_ups or {}
        self._clock = clock
        self._claimed_at: dict[str, float] = {}
        """by queue: when a claim left nothing"""
        self._was_full = False

    @property
    def unavailable_systems(self) -> frozenset[str]:
        """The systems whose circuit breaker is open."""
        return frozenset(system for system, breaker in self._breakers.items() if breaker.is_open)

    def may_have_more(self) -> bool:
        """Tell if the last claims left jobs that are due, for lack of room."""
        return self._was_full

    async def start_due_jobs(self) -> int:
        """Claim as many due jobs as the limits allow, start them, and return their number.

        The queues share what is free, and take turns at what cannot be shared."""
        while self._settings.concurrent_jobs - self._running_jobs <= 0:
            await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
        for system, breaker in self._breakers.items():
            metrics.BREAKER_OPEN.labels(self._worker_name, system).set(breaker.is_open)
        self._was_full = False
        started = 0
        queues = [queue for queue in self._queues if self._may_have_jobs(queue)]
        for place, queue in enumerate(queues):
            started += await self._start_jobs_of(queue, len(queues) - place)
        self._queues.append(self._queues.pop(0))
        return started

    def _may_have_jobs(self, queue: JobQueue) -> bool:
        wake_up = self._wake_ups.get(queue.name)
        if wake_up is None or wake_up.is_set() or queue.name not in self._claimed_at:
            return True
        return self._clock.monotonic() - self._claimed_at[queue.name] >= self._settings.poll_ms / 2000

    async def _start_jobs_of(self, queue: JobQueue, sharers: int) -> int:
        """Start due jobs of a queue that shares what is free with others, `sharers` with itself."""
        free = -(-(self._settings.concurrent_jobs - self._running_jobs) // sharers)
        room = {system: -(-self._free(system) // sharers) for system in self._breakers}
        if free <= 0:
            self._was_full = True
            return 0
        if queue.name in self._wake_ups:
            self._wake_ups[queue.name].clear()
        self._claimed_at.pop(queue.name, None)
        was_full, self._was_full = self._was_full, True  # also if a job ends while others are claimed
        calls = await queue.claim(free, room)
        started = sum(map(len, calls))
        for jobs in calls:
            room[jobs[0].system] = room.get(jobs[0].system, free) - len(jobs)
            task = asyncio.create_task(self._run_jobs(queue, jobs))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            self._count(jobs, 1)
        is_full = started >= free or any(count <= 0 for count in room.values())
        if not is_full:
            self._claimed_at[queue.name] = self._clock.monotonic()
        self._was_full = was_full or is_full
        return started

    def _free(self, system: str) -> int:
        """Return how many jobs of a system may be started now."""
        allowed = min(self._settings.concurrent_jobs_per_system, self._breakers[system].calls_allowed)
        return max(0, allowed - self._running_by_system[system])

    def _count(self, jobs: Sequence[Job], sign: int) -> None:
        self._running_jobs += sign * len(jobs)
        if jobs[0].system in self._running_by_system:
            self._running_by_system[jobs[0].system] += sign * len(jobs)

    async def drain(self) -> None:
        """Wait until all running jobs have ended."""
        while self._calls:
            await asyncio.wait(self._calls)

    async def _run_jobs(self, queue: JobQueue, jobs: Sequence[Job]) -> None:
        """Do jobs of one kind."""
        system = jobs[0].system
        breaker = self._breakers.get(system)
        try:
            results = await queue.work(jobs)
            is_unanswered = any(result.word == NO_ANSWER for result in results)
            if is_unanswered:
                _logger.warning(
                    "external system gave no answer, or one that cannot be trusted",
                    extra={"worker": self._worker_name, "system": system, "reason": results[0].error},
                )
            is_defective = any(result.word == ERROR for result in results)  # which says nothing about the system
            if breaker and not is_defective:
                (breaker.record_failure if is_unanswered else breaker.record_success)()
        except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
            # An outage, or the results could not be written. When the lease ends, a worker claims the jobs again.
            log_failure(_logger, "cannot do jobs now", error, worker=self._worker_name, system=system)
        finally:
            self._count(jobs, -1)
            if self._was_full:
                self._due.set()
