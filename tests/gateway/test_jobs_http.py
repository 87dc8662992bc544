"""Jobs over the admin API: lists with filters, retries, cancellations, and bad input."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.staff_jobs import add_job

NIL = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def gateway(make_settings: Callable[..., Settings], shop: CliServices) -> AsyncIterator[TestGateway]:
    async with open_gateway(make_settings()) as gateway:
        yield gateway


async def call(gateway: TestGateway, method: str, path: str, role: str = "support", **kwargs: Any) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin/jobs{path}", user="ann", roles=[role], **kwargs)


async def test_jobs_are_listed_in_pages_and_read(shop: CliServices, gateway: TestGateway) -> None:
    keys = [await add_job(shop, error=f"refused {at}", is_parked=True) for at in range(3)]
    await add_job(shop, "shipments", "shipment.book", "sf_express")
    first = await call(gateway, "GET", "?queue=payments&state=parked&limit=2")
    assert [job["subject"] for job in first.body["items"]] == [str(key.subject) for key in keys[:2]]
    rest = await call(gateway, "GET", "", params={"queue": "payments", "state": "parked", "cursor": first.body["next"]})
    assert ([job["last_error"] for job in rest.body["items"]], rest.body["next"]) == (["refused 2"], None)
    matching = await call(gateway, "GET", "", params={"error": "1 REFUSED"})
    assert [job["subject"] for job in matching.body["items"]] == [str(keys[1].subject)]
    everything = await call(gateway, "GET", "?limit=1", role="warehouse")
    kinds = [job["kind"] for job in everything.body["items"]]
    while everything.body["next"]:
        everything = await call(gateway, "GET", "", params={"limit": "1", "cursor": everything.body["next"]})
        kinds += [job["kind"] for job in everything.body["items"]]
    assert kinds == ["payment.query"] * 3 + ["shipment.book"]
    job = (await call(gateway, "GET", f"/payments/{keys[0].subject}")).body
    assert (job["state"], job["kind"], job["system"], job["can_be_cancelled"]) == (
        "parked",
        "payment.query",
        "alipay",
        False,
    )


async def test_retry_with_key_is_done_once(shop: CliServices, gateway: TestGateway) -> None:
    key = await add_job(shop, error="refused", is_parked=True)
    path, headers = f"/payments/{key.subject}/retry", {"Idempotency-Key": "again"}
    first = await call(gateway, "POST", path, headers=headers)
    assert (first.status, first.body["state"], first.body["attempts"]) == (200, "due", 0)
    async with shop.db.connection() as connection:
        await connection.execute("DELETE FROM jobs")  # a worker has done it
    assert (await call(gateway, "POST", path, headers=headers)).text == first.text
    assert (await call(gateway, "POST", path)).code == "not_found"
    assert (await call(gateway, "POST", f"/payments/{NIL}/retry", headers=headers)).code == "key_reused"


async def test_cancel_needs_a_kind_that_allows_it(shop: CliServices, gateway: TestGateway) -> None:
    refund = await add_job(shop, "refunds", "refund.request", error="refused", is_parked=True)
    poll = await add_job(shop, "shipments", "shipment.track", "sf_express", error="gone", is_parked=True)
    waiting = await add_job(shop, "shipments", "shipment.track", "sf_express", due_in_s=60)
    refused = await call(gateway, "POST", f"/refunds/{refund.subject}/cancel")
    assert (refused.status, refused.code) == (409, "job_not_cancellable")
    assert "fix the cause and retry it" in refused.body["detail"]
    assert (await call(gateway, "POST", f"/shipments/{waiting.subject}/cancel")).code == "job_not_parked"
    assert (await call(gateway, "POST", f"/shipments/{waiting.subject}/retry")).code == "job_not_failed"
    cancelled = await call(gateway, "POST", f"/shipments/{poll.subject}/cancel")
    assert (cancelled.status, cancelled.body["last_error"]) == (200, "gone")
    assert (await call(gateway, "GET", f"/shipments/{poll.subject}")).status == 404


async def test_many_jobs_are_changed_at_once(shop: CliServices, gateway: TestGateway) -> None:
    keys = [await add_job(shop, error="refused", is_parked=True) for _ in range(3)]
    poll = await add_job(shop, "shipments", "shipment.track", "sf_express", error="gone", is_parked=True)
    selection = [{"queue": key.queue, "subject": str(key.subject)} for key in (*keys, poll)]
    cancelled = (await call(gateway, "POST", "/cancel", json={"jobs": selection})).body
    assert cancelled["changed"] == [selection[3]]
    assert {problem["code"] for problem in cancelled["refused"]} == {"job_not_cancellable"}
    retried = (await call(gateway, "POST", "/retry", json={"jobs": selection})).body
    assert (len(retried["changed"]), [problem["code"] for problem in retried["refused"]]) == (3, ["not_found"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "?state=lost", None, 422),
        ("GET", "?state=due&error=x", None, 422),
        ("GET", "?state=waiting&min_age_s=5", None, 422),
        ("GET", "?min_age_s=-1", None, 422),
        ("GET", "?queue=%00", None, 422),
        ("GET", "?error=%00", None, 422),
        ("GET", "?kind=a&kind=b", None, 400),
        ("GET", "?cursor=parked", None, 422),
        ("GET", "?order_id=7", None, 422),
        ("GET", f"?order_id={NIL}", None, 200),
        ("GET", f"?state=due&cursor=parked,payments,,,0,{NIL}", None, 422),
        ("GET", f"?cursor=due,payments,alipay,a.b,{'9' * 17},{NIL}", None, 200),
        ("GET", "/payments/no-uuid", None, 422),
        ("GET", f"/Payments!/{NIL}", None, 422),
        ("GET", f"/payments/{NIL}", None, 404),
        ("POST", "/retry", {"jobs": []}, 422),
        ("POST", "/retry", {"jobs": [{"queue": "a\0b", "subject": NIL}]}, 422),
        ("POST", "/retry", {"jobs": [{"queue": "a", "subject": NIL, "x": 1}]}, 422),
        ("POST", "/cancel", {"jobs": [{"queue": "a", "subject": NIL}] * 1_001}, 422),
    ],
)
async def test_bad_input_is_refused(
    gateway: TestGateway, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answer = await call(gateway, method, path, **({} if body is None else {"json": body}))
    assert answer.status == status, answer.text


async def test_changes_need_the_role(shop: CliServices, gateway: TestGateway) -> None:
    """Warehouse staff may retry the jobs of shipments and orders to plan, and no others, in bulk either."""
    payment = await add_job(shop, error="refused", is_parked=True)
    shipment = await add_job(shop, "shipments", "shipment.track", "sf_express", error="refused", is_parked=True)
    paths = {job: f"/{job.queue}/{job.subject}" for job in (payment, shipment)}
    bulk = {job: {"jobs": [{"queue": job.queue, "subject": str(job.subject)}]} for job in (payment, shipment)}
    both = {"jobs": [*bulk[shipment]["jobs"], *bulk[payment]["jobs"]]}
    refused = [
        ("warehouse", f"{paths[payment]}/retry", None),
        ("warehouse", "/retry", bulk[payment]),
        ("warehouse", "/retry", both),
        *(("warehouse", f"{path}/cancel", None) for path in paths.values()),
        ("warehouse", "/cancel", bulk[shipment]),
        *(("sales", f"{path}/{change}", None) for path in paths.values() for change in ("retry", "cancel")),
        *(("sales", path, bulk[shipment]) for path in ("/retry", "/cancel")),
    ]
    for role, path, body in refused:
        answer = await call(gateway, "POST", path, role=role, **({} if body is None else {"json": body}))
        assert (answer.status, answer.code) == (403, "forbidden"), (role, path)
    assert [(await shop.jobs.get(job)).state for job in paths] == ["parked", "parked"]
    assert (await call(gateway, "POST", f"{paths[shipment]}/retry", role="warehouse")).status == 200
    order = await add_job(shop, "fulfilments", "order.plan", "internal", error="unknown weight", is_parked=True)
    jobs = {"jobs": [{"queue": order.queue, "subject": str(order.subject)}]}
    retried = await call(gateway, "POST", "/retry", role="warehouse", json=jobs)
    assert retried.body["changed"] == jobs["jobs"]
    assert (await call(gateway, "GET", "", role="catalog")).status == 403
