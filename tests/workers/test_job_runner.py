"""Running jobs: slots per system, turns of queues, and trials of a system that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from commerce.jobs.model import ERROR, NO_ANSWER, Job, JobResult, failed, finished
from commerce.kernel.clock import SystemClock
from config.settings import JobsSettings
from tests.support.sales import eventually
from workers.job_runner import JobRunner
from workers.loop import run_steps


class FakeJobQueue:
    """A queue whose jobs are named by their systems.

    Jobs of systems in `stuck` do not end until `finish` is set; those of systems in `unanswered` get no answer, and
    those of `defective` ones fail for a defect of our own."""

    def __init__(self, *systems: str, name: str = "fake") -> None:
        self.name = name
        self.due = list(systems)
        self.stuck: set[str] = set()
        self.unanswered: set[str] = set()
        self.defective: set[str] = set()
        self.started: list[str] = []
        self.finish = asyncio.Event()
        self.during_claim: Callable[[], Awaitable[None]] | None = None

    async def claim(self, count: int, room: Mapping[str, int]) -> list[list[Job]]:
        if self.during_claim:
            await self.during_claim()
        left, claimed = dict(room), []
        for system in self.due:
            if len(claimed) < count and left.setdefault(system, count) > 0:
                left[system] -= 1
                claimed.append(system)
        for system in claimed:
            self.due.remove(system)
        return [[Job(self.name, uuid4(), "call", system, 1, datetime.now(UTC))] for system in claimed]

    async def work(self, jobs: Sequence[Job]) -> list[JobResult]:
        system = jobs[0].system
        self.started.append(system)
        if system in self.stuck:
            await self.finish.wait()
        if system in self.defective:
            return [failed(ERROR, "Defect: a defect")]
        return [failed(NO_ANSWER, "no answer") if system in self.unanswered else finished("done")]


def make_runner(
    *queues: FakeJobQueue,
    due: asyncio.Event | None = None,
    wake_ups: Mapping[str, asyncio.Event] | None = None,
    **settings: float,
) -> JobRunner:
    values = {
        "concurrent_jobs": 6,
        "concurrent_jobs_per_system": 3,
        "breaker_failures": 2,
        "breaker_open_s": 0.05,
        **settings,
    }
    return JobRunner(
        "test",
        queues,  # type: ignore[arg-type]  # fakes
        ["slow", "quick"],
        JobsSettings.model_validate(values),
        SystemClock(),
        due or asyncio.Event(),
        wake_ups,
    )


async def test_all_due_jobs_are_claimed_once_until_more_are_due() -> None:
    queue, due, stop, claims = FakeJobQueue("quick", "quick"), asyncio.Event(), asyncio.Event(), []

    async def count() -> None:
        claims.append(len(queue.due))

    queue.during_claim = count
    runner = make_runner(queue, due=due)
    loop = asyncio.create_task(run_steps("test", runner.start_due_jobs, stop, 30, due, runner.may_have_more))
    for started, system in ((2, "slow"), (3, "quick")):
        await eventually(lambda started=started: _has_started(queue, started))
        queue.due.append(system)
        due.set()
    await eventually(lambda: _has_started(queue, 4))
    stop.set()
    await loop
    assert claims == [2, 1, 1]


async def test_queue_without_wake_up_is_left_alone_until_the_next_poll() -> None:
    busy, idle = FakeJobQueue("quick", name="busy"), FakeJobQueue(name="idle")
    claims: list[str] = []
    for queue in (busy, idle):

        async def count(name: str = queue.name) -> None:
            claims.append(name)

        queue.during_claim = count
    wake_ups = {queue.name: asyncio.Event() for queue in (busy, idle)}
    runner = make_runner(busy, idle, wake_ups=wake_ups, poll_ms=600_000)
    await runner.start_due_jobs()
    assert sorted(claims) == ["busy", "idle"]
    busy.due.append("quick")
    wake_ups["busy"].set()
    assert await runner.start_due_jobs() == 1
    assert await runner.start_due_jobs() == 0
    assert claims[2:] == ["busy"]
    await runner.drain()
    runner = make_runner(busy, idle, wake_ups=wake_ups, poll_ms=10)
    idle.due.append("quick")
    await runner.start_due_jobs()
    idle.due.append("slow")  # its wake-up is lost
    await run_until_started(runner, idle, 2)


async def test_queue_with_jobs_left_is_claimed_without_wake_up() -> None:
    queue = FakeJobQueue("slow", "slow", "slow", "slow")
    runner = make_runner(queue, wake_ups={queue.name: asyncio.Event()}, poll_ms=600_000)
    await run_until_started(runner, queue, 4)


async def _has_started(queue: FakeJobQueue, count: int) -> bool:
    return len(queue.started) >= count


async def run_until_started(runner: JobRunner, queue: FakeJobQueue, wanted: int) -> None:
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


async def test_full_queue_leaves_slots_to_another() -> None:
    rush, refunds = FakeJobQueue(*["slow"] * 50), FakeJobQueue(*["slow"] * 5, name="refunds")
    rush.stuck = refunds.stuck = {"slow"}
    runner = make_runner(rush, refunds)
    await run_until_started(runner, refunds, 1)
    rush.finish.set()
    refunds.finish.set()
    await run_until_started(runner, refunds, 5)
    assert len(rush.started) < 15
    rush.due.clear()
    await runner.drain()


async def test_slot_that_becomes_free_is_used_at_once() -> None:
    queue, due = FakeJobQueue(*["slow"] * 4), asyncio.Event()
    queue.stuck = {"slow"}
    runner = make_runner(queue, due=due)
    assert await runner.start_due_jobs() == 3
    assert await runner.start_due_jobs() == 0
    assert not due.is_set()
    queue.finish.set()
    await asyncio.wait_for(due.wait(), 20)
    assert await runner.start_due_jobs() == 1
    await runner.drain()


async def test_slot_that_becomes_free_during_a_claim_is_used_at_once() -> None:
    queue, due = FakeJobQueue(*["slow"] * 4), asyncio.Event()
    queue.stuck = {"slow"}
    runner = make_runner(queue, due=due)
    assert await runner.start_due_jobs() == 3

    async def end_all() -> None:
        queue.finish.set()
        await runner.drain()

    queue.during_claim = end_all
    assert await runner.start_due_jobs() == 0
    assert due.is_set()


async def test_system_without_answers_opens_breaker_and_gets_no_jobs() -> None:
    queue = FakeJobQueue(*["slow"] * 10)
    queue.unanswered = {"slow"}
    runner = make_runner(queue, breaker_open_s=30)
    await run_until_started(runner, queue, 3)
    await runner.drain()
    assert await runner.start_due_jobs() == 0, "the breaker is open"
    assert runner.unavailable_systems == {"slow"}
    assert queue.started.count("slow") == 3
    queue.due += ["quick"] * 4
    await run_until_started(runner, queue, 7)
    assert queue.started.count("quick") == 4, "other systems are not affected"
    await runner.drain()


async def test_defect_neither_opens_nor_closes_breaker() -> None:
    queue = FakeJobQueue(*["quick"] * 6, "slow")
    queue.defective = {"quick"}
    runner = make_runner(queue, breaker_open_s=30)
    await run_until_started(runner, queue, 7)
    await runner.drain()
    assert not runner.unavailable_systems
    for _ in range(2):
        for kind in (queue.unanswered, queue.defective):
            kind.add("slow")
            queue.due.append("slow")
            await runner.start_due_jobs()
            await runner.drain()
        queue.defective.discard("slow")
    assert runner.unavailable_systems == {"slow"}, "two calls without an answer, and a defect between them"


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
