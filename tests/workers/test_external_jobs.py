"""A driver that calls out: each system has its own places, and one that does not answer is tried one job at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from commerce.kernel.clock import SystemClock
from commerce.kernel.external import ExternalOutcomeUnknown
from config.settings import JobsSettings
from tests.support.sales import eventually
from workers.external_jobs import ExternalJobRunner


class FakeJobQueue:
    """Jobs are the names of their systems; those of a system in `stuck` do not end, those in `silent` get no answer."""

    def __init__(self, *jobs: str) -> None:
        self.due = list(jobs)
        self.stuck: set[str] = set()
        self.silent: set[str] = set()
        self.begun: list[str] = []
        self.go_on = asyncio.Event()

    async def claim(self, count: int, without: Sequence[str], down: Sequence[str]) -> list[str]:
        found = [job for job in self.due if job not in without][:count]
        for job in found:
            self.due.remove(job)
        return found

    async def work(self, job: str) -> str:
        self.begun.append(job)
        if job in self.stuck:
            await self.go_on.wait()
        if job in self.silent:
            raise ExternalOutcomeUnknown("no answer")
        return "done"


def make_runner(queue: FakeJobQueue, **settings: float) -> ExternalJobRunner[str]:
    given = {
        "concurrent_jobs": 6,
        "concurrent_jobs_per_system": 3,
        "breaker_failures": 2,
        "breaker_open_s": 0.05,
        **settings,
    }
    return ExternalJobRunner(
        "test", queue, lambda job: job, ["slow", "quick"], JobsSettings.model_validate(given), SystemClock()
    )


async def run_until_begun(runner: ExternalJobRunner[str], queue: FakeJobQueue, wanted: int) -> None:
    """Until so many jobs were begun."""

    async def look() -> bool:
        await runner.start_due_jobs()
        return len(queue.begun) >= wanted

    await eventually(look)


async def test_a_slow_system_has_its_own_places_and_no_more() -> None:
    queue = FakeJobQueue(*["slow"] * 20, *["quick"] * 20)
    queue.stuck = {"slow"}
    runner = make_runner(queue)
    await run_until_begun(runner, queue, 23)
    for _ in range(5):
        await runner.start_due_jobs()
    assert (queue.begun.count("slow"), queue.begun.count("quick")) == (3, 20)
    queue.go_on.set()
    await run_until_begun(runner, queue, 40)
    await runner.drain()
    assert queue.due == []


async def test_one_that_does_not_answer_is_left_alone_then_tried_with_one_job() -> None:
    queue = FakeJobQueue(*["slow"] * 10)
    queue.silent = {"slow"}
    runner = make_runner(queue, breaker_open_s=30)
    await run_until_begun(runner, queue, 3)
    await runner.drain()
    assert await runner.start_due_jobs() == 0, "it is left alone"
    assert queue.begun.count("slow") == 3
    queue.due += ["quick"] * 4
    await run_until_begun(runner, queue, 7)
    assert queue.begun.count("quick") == 4, "which does not concern others"
    await runner.drain()


async def test_the_trial_holds_nobody_else_up() -> None:
    queue = FakeJobQueue(*["slow"] * 10)
    queue.silent = {"slow"}
    runner = make_runner(queue)
    await run_until_begun(runner, queue, 3)
    await runner.drain()
    queue.stuck = {"slow"}
    await run_until_begun(runner, queue, 4)  # the one that is tried once the breaker lets it
    queue.due += ["quick"] * 9
    assert await runner.start_due_jobs() == 3, "as many as ever"
    assert queue.begun.count("slow") == 4
    queue.silent = set()
    queue.go_on.set()
    await runner.drain()
    await run_until_begun(runner, queue, 19)
    await runner.drain()
