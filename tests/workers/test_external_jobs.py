"""Jobs of external systems: slots per system, and trials of a system that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from commerce.kernel.clock import SystemClock
from commerce.kernel.external import ExternalOutcomeUnknown
from config.settings import JobsSettings
from tests.support.sales import eventually
from workers.external_jobs import ExternalJobRunner


class FakeJobQueue:
    """A queue whose jobs are the names of their systems.

    Jobs of systems in `stuck` do not end until `finish` is set; those of systems in `unanswered` get no answer."""

    def __init__(self, *jobs: str) -> None:
        self.due = list(jobs)
        self.stuck: set[str] = set()
        self.unanswered: set[str] = set()
        self.started: list[str] = []
        self.finish = asyncio.Event()

    async def claim(self, count: int, excluded_systems: Sequence[str], unavailable_systems: Sequence[str]) -> list[str]:
        jobs = [job for job in self.due if job not in excluded_systems][:count]
        for job in jobs:
            self.due.remove(job)
        return jobs

    async def work(self, job: str) -> str:
        self.started.append(job)
        if job in self.stuck:
            await self.finish.wait()
        if job in self.unanswered:
            raise ExternalOutcomeUnknown("no answer")
        return "done"


def make_runner(queue: FakeJobQueue, **settings: float) -> ExternalJobRunner[str]:
    values = {
        "concurrent_jobs": 6,
        "concurrent_jobs_per_system": 3,
        "breaker_failures": 2,
        "breaker_open_s": 0.05,
        **settings,
    }
    return ExternalJobRunner(
        "test", queue, lambda job: job, ["slow", "quick"], JobsSettings.model_validate(values), SystemClock()
    )


async def run_until_started(runner: ExternalJobRunner[str], queue: FakeJobQueue, wanted: int) -> None:
    """Start due jobs until `wanted` jobs were started."""

    async def is_reached() -> bool:
        await runner.start_due_jobs()
        return len(queue.started) >= wanted

    await eventually(is_reached)


async def test_slow_system_uses_only_its_own_slots() -> None:
    queue = FakeJobQueue(*["slow"] * 20, *["quick"] * 20)
    queue.stuck = {"slow"}
    runner = make_runner(queue)
    await run_until_started(runner, queue, 23)
    for _ in range(5):
        await runner.start_due_jobs()
    assert (queue.started.count("slow"), queue.started.count("quick")) == (3, 20)
    queue.finish.set()
    await run_until_started(runner, queue, 40)
    await runner.drain()
    assert queue.due == []


async def test_system_without_answers_opens_breaker_and_gets_no_jobs() -> None:
    queue = FakeJobQueue(*["slow"] * 10)
    queue.unanswered = {"slow"}
    runner = make_runner(queue, breaker_open_s=30)
    await run_until_started(runner, queue, 3)
    await runner.drain()
    assert await runner.start_due_jobs() == 0, "the breaker is open"
    assert queue.started.count("slow") == 3
    queue.due += ["quick"] * 4
    await run_until_started(runner, queue, 7)
    assert queue.started.count("quick") == 4, "other systems are not affected"
    await runner.drain()


async def test_trial_job_does_not_delay_other_systems() -> None:
    queue = FakeJobQueue(*["slow"] * 10)
    queue.unanswered = {"slow"}
    runner = make_runner(queue)
    await run_until_started(runner, queue, 3)
    await runner.drain()
    queue.stuck = {"slow"}
    await run_until_started(runner, queue, 4)  # the trial job
    queue.due += ["quick"] * 9
    assert await runner.start_due_jobs() == 3, "the other system has all its slots"
    assert queue.started.count("slow") == 4
    queue.unanswered = set()
    queue.finish.set()
    await runner.drain()
    await run_until_started(runner, queue, 19)
    await runner.drain()
