"""Jobs are found by their order; what staff do with those of shipments is in the shipments' events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from commerce.audit import store as audit_store
from commerce.jobs.model import JobFilter, JobKey
from config.settings import Settings
from ops.services import CliServices
from tests.support.fake_carrier import refusal
from tests.support.shipping_shop import ShippingShop, open_shipping_shop
from tests.support.staff_jobs import add_job


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings) as opened:
        yield opened


async def list_subjects(ship: ShippingShop, size: int = 100, **wanted: object) -> list[UUID]:
    subjects: list[UUID] = []
    cursor = None
    while True:
        page = await ship.shop.jobs.list_jobs(JobFilter(**wanted), cursor, size)  # type: ignore[arg-type]
        assert len(page.items) <= size
        subjects += [job.subject for job in page.items]
        cursor = page.next
        if cursor is None:
            return subjects


async def park_poll(ship: ShippingShop) -> tuple[UUID, UUID]:
    """Add an order whose shipment's poll is parked. Returns its id and the shipment's."""
    order_id, [shipment] = await ship.add_booked_order()
    ship.carriers["cheap"].next_outcomes = [refusal("gone")]
    await ship.make_all_due()
    await ship.work_until_idle()
    return order_id, shipment.shipment_id


async def test_jobs_of_order_are_found_by_it(ship: ShippingShop) -> None:
    order_id, shipment_id = await park_poll(ship)
    payment_id = await ship.fetch_value("SELECT payment_id FROM payments WHERE order_id = $1", order_id)
    await ship.refund_all(order_id)
    refund_id = await ship.fetch_value("SELECT refund_id FROM refunds WHERE order_id = $1", order_id)
    for queue, subject in (("payments", payment_id), ("refunds", refund_id), ("releases", order_id)):
        await add_job(ship.shop, queue, "test.call", "alipay", subject=subject)
    await add_job(ship.shop, error="of nobody", is_parked=True)
    jobs = {
        ("cancellations", order_id),
        ("payments", payment_id),
        ("refunds", refund_id),
        ("releases", order_id),
        ("shipments", shipment_id),
    }
    page = await ship.shop.jobs.list_jobs(JobFilter(order_id=order_id), None, 100)
    assert {(job.queue, job.subject) for job in page.items} == jobs
    for queue, subject in jobs:
        assert (await ship.shop.jobs.get(JobKey(queue, subject))).order_id == order_id
    listed = await ship.shop.jobs.list_jobs(JobFilter(), None, 100)
    assert [job.order_id for job in listed.items].count(None) == 1
    assert sorted(await list_subjects(ship, 2, order_id=order_id)) == sorted(subject for _, subject in jobs)
    assert await list_subjects(ship, order_id=order_id, state="parked") == [shipment_id]
    assert await list_subjects(ship, order_id=order_id, words=("GONE",)) == [shipment_id]
    assert await list_subjects(ship, order_id=order_id, words=("gone", "nobody")) == []
    assert await list_subjects(ship, order_id=order_id, state="failed") == []
    assert await list_subjects(ship, order_id=order_id, queue="refunds") == [refund_id]
    assert await list_subjects(ship, order_id=order_id, min_age_s=3600) == []
    assert await list_subjects(ship, order_id=ship.shop.ids.new()) == []


async def test_change_of_job_by_staff_is_event_of_its_shipment(ship: ShippingShop) -> None:
    (_, retried), (cancelled_order, cancelled) = await park_poll(ship), await park_poll(ship)
    keys = {shipment_id: JobKey("shipments", shipment_id) for shipment_id in (retried, cancelled)}
    changes = await ship.shop.jobs.retry([keys[retried], JobKey("shipments", ship.shop.ids.new())], "staff ann")
    assert changes.changed == [keys[retried]]
    await ship.shop.jobs.cancel_one(keys[cancelled], "staff ben")
    query = "SELECT actor, text FROM shipment_events WHERE shipment_id = $1 AND source = 'staff'"
    events = {id_: [tuple(row) for row in await ship.fetch_rows(query, id_)] for id_ in keys}
    assert events == {
        retried: [("staff ann", "retried")],
        cancelled: [("staff ben", "it is no longer polled")],
    }
    async with audit_store.open_order_snapshot(ship.shop.db) as connection:
        violations = await audit_store.list_violations(connection, "shipments_without_job", [cancelled_order])
    assert violations == [], "staff have cancelled the poll"
    await ship.check_records()
