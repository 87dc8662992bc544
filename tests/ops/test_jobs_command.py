"""`floodgate jobs` as operators use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commerce.jobs.model import JobKey
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.staff_jobs import add_job


@pytest.fixture
def floodgate(settings: Settings, sale_prefix: str, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def add_parked(shop: CliServices, count: int, error: str = "no answer") -> list[JobKey]:
    return [await add_job(shop, error=error, is_parked=True) for _ in range(count)]


async def test_jobs_are_listed_and_shown(floodgate: Command, shop: CliServices) -> None:
    assert await floodgate("jobs", "list") == (0, "no job fits\n")
    [key] = await add_parked(shop, 1, "refused: bad key")
    await add_job(shop, "shipments", "shipment.book", "sf_express")
    status, output = await floodgate("jobs", "list")
    assert status == 0
    assert [word for word in (str(key.subject), "refused: bad key", "shipment.book", "due") if word not in output] == []
    status, output = await floodgate("jobs", "list", "--state", "parked", "--error", "KEY bad", "--json")
    assert [(job["subject"], job["state"]) for job in json.loads(output)] == [(str(key.subject), "parked")]
    status, output = await floodgate("jobs", "list", "--top", 1)
    assert "there are more; --top shows more than 1" in output
    status, output = await floodgate("jobs", "show", "payments", key.subject)
    assert (status, "refused: bad key" in output) == (0, True)
    status, output = await floodgate("jobs", "show", "payments", key.subject, "--json")
    assert json.loads(output)["can_be_cancelled"] is False


async def test_one_job_is_retried(floodgate: Command, shop: CliServices) -> None:
    [key] = await add_parked(shop, 1)
    assert await floodgate("jobs", "retry", "payments", key.subject) == (
        0,
        f"payment.query of {key.subject} is due again\n",
    )
    assert (await shop.jobs.get(key)).state == "due"


async def test_all_that_fit_are_retried_after_preview(
    floodgate: Command, shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.commands.jobs._PAGE_SIZE", 3)
    keys, [other] = await add_parked(shop, 7), await add_parked(shop, 1, "refused")
    status, output = await floodgate("jobs", "retry", "--error", "no answer")
    assert (status, "7 payment.query (alipay)" in output) == (1, True)  # nobody has confirmed it
    assert {(await shop.jobs.get(key)).state for key in keys} == {"parked"}
    status, output = await floodgate("jobs", "retry", "--error", "no answer", "--top", 5, "--yes")
    assert (status, "5 jobs changed, 0 refused" in output, "there are more" in output) == (0, True, True)
    status, output = await floodgate("jobs", "retry", "--error", "no answer", "--yes", "--json")
    assert (status, len(json.loads(output)["changed"])) == (0, 2)
    assert {(await shop.jobs.get(key)).state for key in keys} == {"due"}
    assert (await shop.jobs.get(other)).state == "parked"
    status, output = await floodgate("jobs", "retry", "--queue", "nobody")
    assert (status, output) == (0, "0 jobs changed, 0 refused\n")


async def test_cancel_drops_polls_and_refuses_payments(floodgate: Command, shop: CliServices) -> None:
    [payment] = await add_parked(shop, 1)
    polls = [
        await add_job(shop, "shipments", "shipment.track", "sf_express", error="gone", is_parked=True) for _ in range(3)
    ]
    status, output = await floodgate("jobs", "cancel", "payments", payment.subject, "--yes")
    assert (status, "its customer may have paid" in output) == (1, True)
    assert (await floodgate("jobs", "cancel", "shipments", polls[0].subject))[0] == 1  # nobody has confirmed it
    status, output = await floodgate("jobs", "cancel", "shipments", polls[0].subject, "--yes")
    assert (status, output) == (0, f"shipment.track of {polls[0].subject} is cancelled\n")
    status, output = await floodgate("jobs", "cancel", "--yes")
    assert (status, "2 jobs changed, 1 refused" in output, "its customer may have paid" in output) == (0, True, True)
    assert json.loads((await floodgate("jobs", "list", "--json"))[1])[0]["subject"] == str(payment.subject)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("list", "--state", "lost"), "--state: choose one of parked, failed, due, leased, waiting"),
        (("list", "--state", "due", "--error", "x"), "only parked and failed jobs have errors"),
        (("retry", "payments"), "give QUEUE and ID"),
        (("cancel", "payments", "--yes"), "give QUEUE and ID"),
        (("show", "payments", "00000000-0000-0000-0000-000000000000"), "there is no job"),
        (("retry", "payments", "00000000-0000-0000-0000-000000000000"), "there is no job"),
    ],
)
async def test_bad_arguments_are_explained(floodgate: Command, words: tuple[str, ...], reason: str) -> None:
    status, output = await floodgate("jobs", *words)
    assert (status, reason in output) == (1, True), output
