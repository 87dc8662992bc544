"""Staff list, retry and cancel jobs: filters, pages, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from commerce.jobs import staff_jobs, store
from commerce.jobs.cancellation import CANCELLABLE_KINDS
from commerce.jobs.errors import JobLeased, JobNotCancellable, JobNotFailed, JobNotParked, NoSuchJob
from commerce.jobs.model import GroupLoad, JobFilter, JobKey, NewJob
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid, ProblemError
from ops.services import CliServices
from tests.support.staff_jobs import LEASE, add_job


async def list_all(shop: CliServices, wanted: JobFilter, size: int = 100) -> list[JobKey]:
    keys: list[JobKey] = []
    cursor: str | None = None
    while True:
        page = await shop.jobs.list_jobs(wanted, cursor, size)
        assert len(page.items) <= size
        keys += [job.key for job in page.items]
        cursor = page.next
        if cursor is None:
            return keys


async def add_all(shop: CliServices) -> dict[str, JobKey]:
    """Add jobs of several queues, kinds and systems in all states."""
    return {
        "waiting": await add_job(shop, "shipments", "shipment.track", "sf_express", due_in_s=900),
        "leased": await add_job(shop, "shipments", "shipment.book", "sf_express", is_leased=True),
        "parked_release": await add_job(
            shop, "releases", "release.apply", "internal", due_in_s=-500, error="too old", is_parked=True
        ),
        "parked_payment": await add_job(shop, error="Alipay: insufficient BALANCE of merchant", is_parked=True),
        "failed": await add_job(shop, due_in_s=60, error="alipay: balance service timed out"),
        "failed_due": await add_job(shop, system="wechatpay", due_in_s=-1, error="no answer"),
        "late": await add_job(shop, due_in_s=-100),
        "due": await add_job(shop),
    }


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_filters_select_jobs_in_pages(shop: CliServices, size: int) -> None:
    jobs = await add_all(shop)
    expected = {
        JobFilter(): ["parked_payment", "parked_release", "late", "due", "failed_due", "leased", "failed", "waiting"],
        JobFilter(state="parked"): ["parked_payment", "parked_release"],
        JobFilter(state="failed"): ["failed", "failed_due"],
        JobFilter(state="due"): ["late", "due", "failed_due"],
        JobFilter(state="leased"): ["leased"],
        JobFilter(state="waiting"): ["failed", "waiting"],
        JobFilter(queue="payments", system="wechatpay"): ["failed_due"],
        JobFilter(queue="payments", state="failed", system="alipay"): ["failed"],
        JobFilter(kind="shipment.track"): ["waiting"],
        JobFilter(queue="releases"): ["parked_release"],
        JobFilter(min_age_s=90): ["parked_release", "late"],
        JobFilter(min_age_s=90, state="due"): ["late"],
        JobFilter(words=("balance",)): ["parked_payment", "failed"],
        JobFilter(words=("BALANCE", "merchant")): ["parked_payment"],
        JobFilter(words=("balance", "nowhere")): [],
        JobFilter(words=("%",)): [],
        JobFilter(words=("old",), queue="payments"): [],
        JobFilter(queue="nobody"): [],
    }
    names = {key: name for name, key in jobs.items()}
    for wanted, selected in expected.items():
        assert [names[key] for key in await list_all(shop, wanted, size)] == selected, wanted


async def test_job_shows_its_state(shop: CliServices) -> None:
    jobs = await add_all(shop)
    shown = {name: await shop.jobs.get(key) for name, key in jobs.items()}
    assert {name: job.state for name, job in shown.items()} == {
        "waiting": "waiting",
        "leased": "leased",
        "parked_release": "parked",
        "parked_payment": "parked",
        "failed": "waiting",
        "failed_due": "due",
        "late": "due",
        "due": "due",
    }
    assert (shown["failed"].attempts, shown["failed"].last_error) == (1, "alipay: balance service timed out")
    with pytest.raises(NoSuchJob):
        await shop.jobs.get(JobKey("payments", jobs["leased"].subject))


async def test_job_put_again_during_its_lease_is_not_leased(shop: CliServices) -> None:
    key = await add_job(shop, is_leased=True)
    now = from_ms(shop.clock.now_ms())
    async with shop.db.connection() as connection:
        job = NewJob(key.subject, "payment.close", "alipay", now + timedelta(seconds=5))
        await store.put(connection, key.queue, [job], now)
    assert (await shop.jobs.get(key)).state == "waiting"


async def test_search_for_words_examines_limited_number_per_page(
    shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staff_jobs, "_EXAMINED", 4)
    keys = [await add_job(shop, error="wanted" if at == 9 else "other", is_parked=True) for at in range(10)]
    wanted = JobFilter(words=("wanted",))
    first = await shop.jobs.list_jobs(wanted, None, 100)
    assert (first.items, first.next is None) == ([], False)
    assert await list_all(shop, wanted) == [keys[9]]
    assert sorted(await list_all(shop, JobFilter(state="parked"))) == sorted(keys)


@pytest.mark.parametrize(
    ("wanted", "cursor"),
    [
        (JobFilter(words=("a",), state="due"), None),
        (JobFilter(min_age_s=1, state="waiting"), None),
        (JobFilter(min_age_s=1, state="leased"), None),
        (JobFilter(), "parked"),
        (JobFilter(), "parked,payments,,,0,no-uuid"),
        (JobFilter(), "parked,payments,,,x,00000000-0000-0000-0000-000000000000"),
        (JobFilter(state="due"), "parked,payments,,,0,00000000-0000-0000-0000-000000000000"),
    ],
)
async def test_contradicting_filter_or_broken_cursor_is_refused(
    shop: CliServices, wanted: JobFilter, cursor: str | None
) -> None:
    with pytest.raises(Invalid):
        await shop.jobs.list_jobs(wanted, cursor, 10)


async def test_retry_makes_failed_jobs_due_and_wakes_their_workers(shop: CliServices) -> None:
    jobs = await add_all(shop)
    woken: list[frozenset[str]] = []
    shop.db.on_commit = lambda queues: woken.append(frozenset(queues))
    missing = JobKey("payments", shop.ids.new())
    changes = await shop.jobs.retry([*jobs.values(), missing, missing], "cli ann")
    retried = {"parked_release", "parked_payment", "failed", "failed_due"}
    assert sorted(changes.changed) == sorted(jobs[name] for name in retried)
    refused = {JobKey(problem.queue, problem.subject): problem.code for problem in changes.refused}
    assert refused == {
        jobs["waiting"]: "job_not_failed",
        jobs["leased"]: "job_leased",
        jobs["late"]: "job_not_failed",
        jobs["due"]: "job_not_failed",
        missing: "not_found",
    }
    assert woken == [{"payments", "releases"}]
    for name in retried:
        job = await shop.jobs.get(jobs[name])
        assert (job.state, job.attempts) == ("due", 0), name
    now = from_ms(shop.clock.now_ms())
    async with shop.db.connection() as connection:
        claimed = await store.claim(connection, "releases", now, now + LEASE, 10, {})
    assert [job.subject for job in claimed] == [jobs["parked_release"].subject]


async def test_failed_job_that_worker_does_is_not_retried(shop: CliServices) -> None:
    """The error is that of the attempt before."""
    key = await add_job(shop, error="no answer", due_in_s=-1)
    now = from_ms(shop.clock.now_ms())
    async with shop.db.connection() as connection:
        assert await store.claim(connection, key.queue, now, now + LEASE, 10, {})
    with pytest.raises(JobLeased):
        await shop.jobs.retry_one(key, "cli ann")
    assert (await shop.jobs.get(key)).attempts == 2


async def test_retry_of_job_that_only_waits_is_refused(shop: CliServices) -> None:
    """A payment is not closed before its time."""
    key = await add_job(shop, kind="payment.close", due_in_s=900)
    before = await shop.jobs.get(key)
    with pytest.raises(JobNotFailed):
        await shop.jobs.retry_one(key, "cli ann")
    assert await shop.jobs.get(key) == before


@pytest.mark.parametrize(
    ("queue", "kind", "remedy"),
    [
        ("releases", "release.apply", "floodgate rebuild"),
        ("stock_changes", "stock_change.apply", "floodgate rebuild"),
        ("payments", "payment.query", "cancel the order"),
        ("refunds", "refund.request", "retry it"),
        ("shipments", "shipment.book", "floodgate shipment cancel"),
        ("fulfilments", "order.plan", "retry it"),
        ("later_module", "later.work", "retry it"),
    ],
)
async def test_job_that_moves_money_or_stock_is_not_cancelled(
    shop: CliServices, queue: str, kind: str, remedy: str
) -> None:
    key = await add_job(shop, queue, kind, "internal", error="no", is_parked=True)
    with pytest.raises(JobNotCancellable, match=remedy):
        await shop.jobs.cancel_one(key, "cli ann")
    changes = await shop.jobs.cancel([key], "cli ann")
    assert (changes.changed, [problem.code for problem in changes.refused]) == ([], ["job_not_cancellable"])
    assert (await shop.jobs.get(key)).can_be_cancelled is False


async def test_parked_poll_is_cancelled_and_running_one_is_not(shop: CliServices) -> None:
    assert "shipment.track" in CANCELLABLE_KINDS
    poll = ("shipments", "shipment.track", "sf_express")
    parked = await add_job(shop, *poll, error="unknown number", is_parked=True)
    waiting = await add_job(shop, *poll, due_in_s=60)
    assert (await shop.jobs.get(parked)).can_be_cancelled
    with pytest.raises(JobNotParked):
        await shop.jobs.cancel_one(waiting, "cli ann")
    assert (await shop.jobs.cancel_one(parked, "cli ann")).last_error == "unknown number"
    with pytest.raises(NoSuchJob):
        await shop.jobs.cancel_one(parked, "cli ann")
    assert await list_all(shop, JobFilter(queue="shipments")) == [waiting]


async def test_changes_at_once_change_each_job_once(shop: CliServices) -> None:
    """Two staff members change the same jobs, in other sequences."""
    keys = [await add_job(shop, error="no", is_parked=True) for _ in range(30)]
    results: list[object] = await asyncio.gather(
        *(shop.jobs.retry(keys if at % 2 else keys[::-1], "cli ann") for at in range(6)), return_exceptions=True
    )
    assert not [result for result in results if isinstance(result, BaseException | ProblemError)]
    assert {job.state for job in [await shop.jobs.get(key) for key in keys]} == {"due"}


async def test_groups_are_measured(shop: CliServices) -> None:
    await add_all(shop)
    loads = await shop.jobs.measure_groups()
    assert {group: (load.parked, load.due) for group, load in loads.items()} == {
        ("payments", "alipay", "payment.query"): (1, 2),
        ("payments", "wechatpay", "payment.query"): (0, 1),
        ("releases", "internal", "release.apply"): (1, 0),
        ("shipments", "sf_express", "shipment.book"): (0, 0),
        ("shipments", "sf_express", "shipment.track"): (0, 0),
    }
    assert loads["releases", "internal", "release.apply"] == GroupLoad(1, 0, None)
