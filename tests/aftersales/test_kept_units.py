"""Units that were cancelled too late are a return once they are delivered."""

from __future__ import annotations

from uuid import UUID

import pytest

from commerce.audit.order_checks import OrderFindings, check_orders
from commerce.cancellations.model import CancelRequest, UnitsToCancel
from commerce.jobs.model import JobFilter
from commerce.shipping.model import Shipment
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event

_FINDING = "delivered units that were cancelled too late have no cases"


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def cancel(ship: ShippingShop, order_id: UUID, quantity: int | None = None) -> None:
    units = [UnitsToCancel(0, quantity)] if quantity else None
    await ship.cancellations.cancel(CancelRequest(order_id, "customer user", "user", "not wanted", units, None), [], 0)


async def cancel_too_late(
    ship: ShippingShop, *lines: tuple[str, int, int], quantity: int | None = None
) -> tuple[UUID, list[Shipment]]:
    """Add an order whose carrier has collected it, and cancel units of it."""
    order_id, shipments = await ship.add_booked_order(*lines)
    for shipment in shipments:
        assert shipment.booking_id is not None
        ship.carriers["cheap"].handed_over.add(shipment.booking_id)
    await cancel(ship, order_id, quantity)
    await ship.work_until_idle()
    return order_id, shipments


async def work(cases: CaseShop) -> list[str]:
    """Do the due jobs that open cases. Returns their result words."""
    words = list[str]()
    for jobs in await cases.jobs.queue.claim(100, {}):
        words += [result.word for result in await cases.jobs.queue.work(jobs)]
    return words


async def find_breaches(ship: ShippingShop, order_id: UUID) -> set[str]:
    findings = OrderFindings()
    async with ship.shop.db.snapshot() as connection:
        await check_orders(connection, [order_id], findings)
    return {finding.detail for finding in findings.list_findings()} & {_FINDING}


async def repeat(cases: CaseShop, order_id: UUID) -> list[str]:
    """Put the job again that opens cases, and do it."""
    await cases.ship.fetch_rows(
        "INSERT INTO jobs (queue, subject, kind, system, due_at, created_at) "
        "VALUES ('cases', $1, 'case.open', 'internal', now() - interval '1 second', now()) RETURNING 1",
        order_id,
    )
    return await work(cases)


async def test_kept_units_are_a_return_once_delivered(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 3, 0), quantity=2)
    assert await work(cases) == ["unchanged"]
    assert await find_breaches(ship, order_id) == set()
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    listed = (await ship.shop.jobs.list_jobs(JobFilter(order_id=order_id, queue="cases"), None, 9)).items
    assert [(job.kind, job.subject, job.order_id) for job in listed] == [("case.open", order_id, order_id)]
    assert await find_breaches(ship, order_id) == set()
    assert await work(cases) == ["opened"]

    [summary] = await cases.cases.list_of_order(order_id)
    assert (summary.kind, summary.status, summary.reason, summary.freight_payer, summary.waits_for) == (
        *("return", "approved", "undelivered", "shop", "customer"),
    )
    assert (summary.amount, summary.fee, summary.user_id) == (2 * PRICE, 0, "user")
    [line] = (await cases.get(summary.case_id)).lines
    assert (line.shipment_id, line.quantity) == (shipment.shipment_id, 2)
    assert await cases.story(order_id) == [
        "return requested: it could not be stopped on its way",
        "the return is approved: it could not be stopped on its way",
    ]
    assert await repeat(cases, order_id) == ["unchanged"]
    assert len(await cases.cases.list_of_order(order_id)) == 1
    assert await cases.refunded(order_id) == 0
    assert await find_breaches(ship, order_id) == set()
    await cases.check_records()
    await ship.check_records()


async def test_each_shipment_has_its_case_when_it_is_delivered(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [first, second] = await cancel_too_late(ship, ("a", 1, 0), ("c", 2, 0))
    await work(cases)
    for shipment in (second, first):
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
        assert await work(cases) == ["opened"]
    opened = await cases.cases.list_of_order(order_id)
    lines = [line for case in opened for line in (await cases.get(case.case_id)).lines]
    assert [line.shipment_id for line in lines] == [second.shipment_id, first.shipment_id]
    assert sum(line.quantity for line in lines) == 3
    await cases.check_records()


async def test_shipment_that_comes_back_needs_no_case(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 2, 0))
    await work(cases)
    await ship.apply_events(
        shipment.shipment_id, tracking_event("picked_up", -2), tracking_event("returned_to_sender", -1)
    )
    await ship.work_until_idle()
    assert await ship.order_status(order_id) == "cancelled"
    assert await cases.refunded(order_id) == 2 * PRICE
    assert await work(cases) == []
    assert await repeat(cases, order_id) == ["unchanged"]
    assert await cases.cases.list_of_order(order_id) == []
    assert await find_breaches(ship, order_id) == set()


async def test_units_that_the_customer_returns_already_have_no_second_case(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 2, 0))
    await work(cases)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    await cases.request(order_id, 1)
    assert await work(cases) == ["opened"]
    opened = await cases.cases.list_of_order(order_id)
    assert [(await cases.get(case.case_id)).lines[0].quantity for case in opened] == [1, 1]
    await cases.check_records()


async def test_units_collected_before_they_could_be_stopped(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0))
    await cancel(ship, order_id, 1)
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -2))
    await ship.work_until_idle()
    assert await work(cases) == ["unchanged"]
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await work(cases) == ["opened"]
    [case] = await cases.cases.list_of_order(order_id)
    assert (await cases.get(case.case_id)).lines[0].quantity == 1


async def test_delivery_that_nobody_wanted_to_stop_opens_nothing(cases: CaseShop) -> None:
    await cases.add_delivered(("a", 1, 0))
    assert await work(cases) == []


async def test_crash_before_the_commit_opens_one_case(cases: CaseShop, monkeypatch: pytest.MonkeyPatch) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 1, 0))
    await work(cases)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))

    def crash(name: str) -> None:
        raise RuntimeError(name)

    with monkeypatch.context() as patch:
        patch.setattr("commerce.aftersales.kept_units.failpoint", crash)
        assert await work(cases) == ["error"]
    assert await cases.cases.list_of_order(order_id) == []
    await ship.make_all_due()
    assert await work(cases) == ["opened"]
    assert len(await cases.cases.list_of_order(order_id)) == 1


async def test_case_that_cannot_be_opened_is_tried_again(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 3, 0), quantity=1)
    await work(cases)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    full = open_case_shop(ship, open_cases_per_order=1)
    case_id = await cases.request(order_id, 1)
    assert await work(full) == ["refused"]
    await cases.act("decline", case_id)
    await ship.make_all_due()
    assert await work(full) == ["opened"]


async def test_audit_finds_delivered_units_that_nobody_asks_back(cases: CaseShop) -> None:
    ship = cases.ship
    order_id, [shipment] = await cancel_too_late(ship, ("a", 1, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    await ship.fetch_rows("DELETE FROM jobs WHERE queue = 'cases' RETURNING 1")
    assert await find_breaches(ship, order_id) == {_FINDING}


async def test_shipment_of_many_lines_is_returned_whole(cases: CaseShop) -> None:
    """More lines than a customer may name in one request."""
    small = "UPDATE variants SET weight_g = 1, length_mm = 1, width_mm = 1, height_mm = 1 RETURNING 1"
    await cases.ship.fetch_rows(small)
    order_id, [shipment] = await cancel_too_late(cases.ship, *[("a", 1, 0)] * 101)
    await cases.ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await work(cases) == ["opened"]
    [case] = await cases.cases.list_of_order(order_id)
    assert len((await cases.get(case.case_id)).lines) == 101
    assert await find_breaches(cases.ship, order_id) == set()
