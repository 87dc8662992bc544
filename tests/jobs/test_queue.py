"""The table of jobs: one per subject, fair claims, and results that only the holder of a claim writes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from unittest.mock import Mock
from uuid import UUID

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from commerce.jobs import store
from commerce.jobs.model import (
    ERROR,
    Job,
    JobHandler,
    JobKey,
    JobResult,
    NewJob,
    failed,
    finished,
    parked,
    postponed,
    written,
)
from commerce.jobs.service import JobQueue
from commerce.jobs.store import Postponement
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady, SomeFailed
from commerce.kernel.external import DelayReason, ExternalDelay, ExternalOutcomeUnknown
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection
from ops.services import CliServices
from tests.support.sales import eventually

POLICY = RetryPolicy(initial_ms=1000, max_s=60, lease_s=30, rows_per_claim=100)
POLICY_AT_ONCE = replace(POLICY, initial_ms=0)


def now_of(shop: CliServices) -> datetime:
    return from_ms(shop.clock.now_ms())


async def put(
    shop: CliServices, kind: str = "test.call", system: str = "internal", count: int = 1, late_s: float = 1
) -> list[UUID]:
    """Put jobs that have been due for `late_s` seconds."""
    now = now_of(shop)
    jobs = [NewJob(shop.ids.new(), kind, system, now - timedelta(seconds=late_s)) for _ in range(count)]
    async with shop.db.connection() as connection:
        await store.put(connection, "test", jobs, now)
    return [job.subject for job in jobs]


async def claim(
    shop: CliServices, count: int = 100, room: dict[str, int] | None = None, lease_s: float = 30
) -> list[Job]:
    now = now_of(shop)
    async with shop.db.connection() as connection:
        return await store.claim(connection, "test", now, now + timedelta(seconds=lease_s), count, room or {})


async def read(connection: Connection) -> list[tuple[object, ...]]:
    rows = await connection.fetch("SELECT kind, attempts, parked, last_error FROM jobs ORDER BY kind")
    return [tuple(row) for row in rows]


async def test_flood_of_one_kind_does_not_delay_another(shop: CliServices) -> None:
    await put(shop, "test.poll", "slow", 50, late_s=60)
    await put(shop, "test.book", "slow", 3, late_s=1)
    await put(shop, "test.call", "quick", 3, late_s=1)
    kinds = Counter(job.kind for job in await claim(shop, 9))
    assert kinds == {"test.poll": 3, "test.book": 3, "test.call": 3}


async def test_claim_leaves_systems_without_room(shop: CliServices) -> None:
    await put(shop, "test.poll", "full", 5)
    await put(shop, "test.poll", "slow", 5)
    await put(shop, "test.book", "slow", 5)
    await put(shop, "test.call", "internal", 5)
    claimed = Counter((job.system, job.kind) for job in await claim(shop, 100, {"full": 0, "slow": 4}))
    assert claimed == {("slow", "test.poll"): 2, ("slow", "test.book"): 2, ("internal", "test.call"): 5}


async def test_claims_at_once_take_each_job_once(shop: CliServices) -> None:
    subjects = await put(shop, count=60)
    claims = await asyncio.gather(*(claim(shop, 20) for _ in range(4)))
    taken = [job.subject for jobs in claims for job in jobs]
    taken += [job.subject for job in await claim(shop)]  # what one of them had locked while another looked
    assert sorted(taken) == sorted(subjects)
    assert await claim(shop) == []


async def test_late_worker_changes_nothing(shop: CliServices) -> None:
    """Another worker has claimed the job after the lease, or it was put again."""
    await put(shop)
    [late] = await claim(shop, lease_s=-1)
    [current] = await claim(shop)
    async with shop.db.connection() as connection:
        assert await store.finish(connection, [late]) == set()
        assert await store.postpone(connection, "test", [Postponement(late, now_of(shop), error="late")]) == set()
        await store.put(
            connection, "test", [NewJob(late.subject, "test.close", "internal", now_of(shop))], now_of(shop)
        )
        assert await store.finish(connection, [current]) == set()
        assert await read(connection) == [("test.close", 0, False, None)]
    [again] = await claim(shop)
    async with shop.db.connection() as connection:
        assert await store.finish(connection, [again]) == {late.subject}


async def test_results_of_handler_are_written(shop: CliServices) -> None:
    soon = now_of(shop) + timedelta(seconds=1)
    answers = {
        "test.1": finished("done"),
        "test.2": postponed("waiting", soon, "test.8"),
        "test.3": failed("waiting", "not yet"),
        "test.4": parked("refused", "never"),
        "test.5": written("captured"),
    }

    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        return [answers[job.kind] for job in jobs]

    async def be_silent(jobs: Sequence[Job]) -> list[JobResult]:
        raise ExternalOutcomeUnknown("no answer came")

    handlers = {kind: JobHandler(work) for kind in answers} | {"test.6": JobHandler(be_silent, max_attempts=1)}
    for kind in (*handlers, "test.7"):
        await put(shop, kind)
    assert await JobQueue("test", handlers, shop.db, shop.clock, POLICY).work_due() == 7
    async with shop.db.connection() as connection:
        assert await read(connection) == [
            ("test.3", 1, False, "not yet"),
            ("test.4", 1, True, "never"),
            ("test.5", 1, False, None),
            ("test.6", 1, True, "no answer came"),
            ("test.7", 1, False, "a worker does not know test.7: start workers of this version"),
            ("test.8", 0, False, None),
        ]
        assert await store.count_parked(connection) == {("test", "internal", f"test.{at}"): 1 for at in (4, 6)}
        assert await store.count_jobs(connection, "test") == 4
        assert (await store.measure_due(connection))[-1][2:] == ("test.8", soon)
        assert len(await store.retry(connection, "test", [shop.ids.new()], now_of(shop))) == 0


async def test_job_that_its_system_delays_is_never_parked(shop: CliServices) -> None:
    """The attempts start over each time, and the reason can be found."""

    async def call(jobs: Sequence[Job]) -> list[JobResult]:
        if delays:
            raise ExternalDelay("NOT_ENOUGH", delays.pop(), "top it up")
        raise ExternalOutcomeUnknown("no answer came")

    delays: list[DelayReason] = ["merchant_balance"] * 4
    queue = JobQueue("test", {"test.call": JobHandler(call, max_attempts=2)}, shop.db, shop.clock, POLICY_AT_ONCE)
    await put(shop)
    while delays:
        assert await queue.work_due() == 1
        async with shop.db.connection() as connection:
            assert await read(connection) == [("test.call", 0, False, "NOT_ENOUGH: top it up")]
            await connection.execute("UPDATE jobs SET due_at = now() - interval '1 second'")
    assert await queue.work_due() == 1
    async with shop.db.connection() as connection:
        assert await read(connection) == [("test.call", 1, False, "no answer came")]


class Defect(Exception):
    """An error that nobody has foreseen; what it says must not be shown."""


async def test_defect_counts_as_attempt_and_parks_its_job(shop: CliServices, caplog: pytest.LogCaptureFixture) -> None:
    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        raise Defect("the key is sesame")

    queue = JobQueue("test", {"test.call": JobHandler(work, max_attempts=2)}, shop.db, shop.clock, POLICY_AT_ONCE)
    [subject] = await put(shop)
    text = "Defect: a defect of the program; the worker's log has the traceback"
    for is_parked in (False, True):
        with pytest.raises(SomeFailed, match="Defect"):
            await queue.work_due()
        job = await shop.jobs.get(JobKey("test", subject))
        assert (job.state == "parked", job.last_error) == (is_parked, text)
    assert await queue.work_due() == 0
    assert "sesame" in caplog.text


async def test_defect_of_one_job_leaves_those_of_the_same_call(shop: CliServices) -> None:
    subjects = sorted(await put(shop, count=3))
    words: list[str] = []

    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        if any(job.subject == subjects[1] for job in jobs):
            raise Defect
        return [finished("done")] * len(jobs)

    queue = JobQueue("test", {"test.call": JobHandler(work, 10, 3)}, shop.db, shop.clock, POLICY)
    queue.count_results = lambda jobs, results, duration_s: words.extend(results)
    with pytest.raises(SomeFailed):
        await queue.work_due()
    async with shop.db.connection() as connection:
        assert [job.subject for job in await store.find(connection, "test", subjects)] == [subjects[1]]
    assert sorted(words) == ["done", "done", ERROR]


@pytest.mark.parametrize(
    "outage",
    [
        ConnectionRefusedError("Postgres"),
        asyncpg.AdminShutdownError("bye"),
        RedisConnectionError("Redis"),
        NotReady("no"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_outage_is_no_attempt_of_the_job(shop: CliServices, outage: Exception) -> None:
    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        raise outage

    policy = replace(POLICY, lease_s=-1)
    queue = JobQueue("test", {"test.call": JobHandler(work, max_attempts=2)}, shop.db, shop.clock, policy)
    await put(shop)
    for _ in range(4):
        with pytest.raises(SomeFailed):
            await queue.work_due()
    async with shop.db.connection() as connection:
        assert await read(connection) == [("test.call", 1, False, None)]


async def test_missing_file_is_a_defect_and_no_outage(shop: CliServices) -> None:
    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        raise FileNotFoundError(2, "No such file", "/etc/key.pem")

    await put(shop)
    with pytest.raises(SomeFailed):
        await JobQueue("test", {"test.call": JobHandler(work, 1, 1)}, shop.db, shop.clock, POLICY).work_due()
    async with shop.db.connection() as connection:
        [(_, _, is_parked, error)] = await read(connection)
    assert (is_parked, error.partition(":")[0]) == (True, "FileNotFoundError")


async def test_results_of_one_turn_are_written_together(shop: CliServices, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        return [finished("done")] * len(jobs)

    sizes: list[int] = []
    finish = store.finish

    async def count(connection: Connection, jobs: Sequence[Job]) -> set[UUID]:
        sizes.append(len(jobs))
        return await finish(connection, jobs)

    monkeypatch.setattr(store, "finish", count)
    queue = JobQueue("test", {"test.call": JobHandler(work)}, shop.db, shop.clock, POLICY)
    await put(shop, count=30)
    await asyncio.gather(*(queue.work(jobs) for jobs in await queue.claim(100, {})))
    assert sizes == [30]


async def finish_all(jobs: Sequence[Job]) -> list[JobResult]:
    return [finished("done")] * len(jobs)


async def test_job_of_newer_version_waits_for_newer_worker(shop: CliServices) -> None:
    policy = replace(POLICY, initial_ms=0)
    old = JobQueue("test", {"test.call": JobHandler(finish_all)}, shop.db, shop.clock, policy)
    new = JobQueue("test", {"test.new": JobHandler(finish_all)}, shop.db, shop.clock, policy)
    await put(shop, "test.new")
    assert await old.work_due() == 1
    assert await new.work_due() == 1
    async with shop.db.connection() as connection:
        assert await read(connection) == []


async def test_job_that_no_worker_knows_is_parked_in_the_end(shop: CliServices) -> None:
    queue = JobQueue("test", {}, shop.db, shop.clock, replace(POLICY, initial_ms=0))
    await put(shop, "test.gone")
    while await queue.work_due():
        pass
    async with shop.db.connection() as connection:
        assert await store.count_parked(connection) == {("test", "internal", "test.gone"): 1}


async def test_claim_of_job_put_again_in_the_same_millisecond_is_another(shop: CliServices) -> None:
    chances = iter((0.1, 0.9))
    clock = Mock(now_ms=Mock(return_value=shop.clock.now_ms()))
    policy = replace(POLICY, random=lambda: next(chances))
    queue = JobQueue("test", {"test.call": JobHandler(finish_all)}, shop.db, clock, policy)
    [subject] = await put(shop)
    [late] = await queue.claim(1, {})
    async with shop.db.connection() as connection:
        now = from_ms(clock.now_ms())
        await store.put(connection, "test", [NewJob(subject, "test.call", "internal", now)], now)
    [current] = await queue.claim(1, {})
    async with shop.db.connection() as connection:
        assert await store.finish(connection, late) == set()
        assert await store.finish(connection, current) == {subject}


async def test_error_that_postgres_refuses_keeps_no_other_result_back(shop: CliServices) -> None:
    async def work(jobs: Sequence[Job]) -> list[JobResult]:
        return [failed("refused", error) for _, error in zip(jobs, ("not now", "a \0 b", "half \ud800"), strict=True)]

    await put(shop, count=3)
    assert await JobQueue("test", {"test.call": JobHandler(work, 3)}, shop.db, shop.clock, POLICY).work_due() == 3
    async with shop.db.connection() as connection:
        assert {row[3] for row in await read(connection)} == {"not now", "a   b", "half ?"}
        job = NewJob(shop.ids.new(), "test.parked", "internal", now_of(shop))
        await store.put_parked(connection, "test", job, "no \0 carrier", now_of(shop))
        assert (await read(connection))[-1][3] == "no   carrier"


async def test_statements_with_the_same_jobs_do_not_wait_for_each_other(shop: CliServices) -> None:
    """One has the first job, another wants both in reverse sequence, then the one wants the second."""
    first, second = sorted(await put(shop, count=2))
    now = now_of(shop)
    jobs = {id_: NewJob(id_, "test.call", "internal", now) for id_ in (first, second)}

    async def put_both() -> None:
        async with shop.db.transaction() as connection:
            await store.put(connection, "test", [jobs[second], jobs[first]], now)

    async with shop.db.transaction() as connection:
        await store.put(connection, "test", [jobs[first]], now)
        other = asyncio.create_task(put_both())
        await eventually(lambda: _is_waiting(connection))
        await store.put(connection, "test", [jobs[second]], now)
    await other


async def _is_waiting(connection: Connection) -> bool:
    """Tell whether another transaction waits for that of the connection."""
    return bool(
        await connection.fetchval(
            "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::text::xid"
        )
    )
