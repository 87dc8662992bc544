"""Bookings with an unknown outcome: lost replies, and workers that were killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from commerce.kernel.address import Address
from commerce.kernel.external import ExternalOutcomeUnknown
from config.settings import Settings
from ops.services import CliServices
from tests.support.fake_carrier import refusal
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import RATES, ShippingShop, open_shipping_shop


async def shipment_with_unknown_outcome(ship: ShippingShop, *outcomes: Exception | str) -> UUID:
    """Request a shipment once per outcome, all of which leave it unknown. Returns its id."""
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    for outcome in outcomes:
        await ship.make_all_due()
        job = await ship.claim_one(order_id)
        ship.carriers["cheap"].next_outcomes = [outcome]
        assert await ship.work_on(job) == "no_answer"
    [shipment] = await ship.list_shipments(order_id)
    assert (shipment.status, (await ship.get_job(shipment.shipment_id)).attempts) == ("planned", len(outcomes))
    return shipment.shipment_id


async def test_unknown_outcome_is_requested_again_under_same_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    shipment_id = await shipment_with_unknown_outcome(
        ship, "lost", ExternalOutcomeUnknown("timed out"), ExternalOutcomeUnknown("502")
    )
    job = await ship.get_job(shipment_id)
    assert (job.last_error, job.parked) == ("502", False)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]
    assert list(cheap.requests.values()) == [4]
    assert await ship.fetch_value("SELECT count(*) FROM bookings") == 1
    number = await ship.fetch_value("SELECT tracking_no FROM shipments")
    assert [number] == list(cheap.bookings.values())


async def test_parked_unknown_outcome_keeps_its_carrier(ship: ShippingShop) -> None:
    """The booking of a parked job may exist, so no other carrier is ever requested."""
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    shipment_id = await shipment_with_unknown_outcome(ship, "lost", *[ExternalOutcomeUnknown("timed out")] * 4)
    assert await ship.list_worklist("parked") == {shipment_id}
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    cheap.next_outcomes = [ExternalOutcomeUnknown("timed out")]
    await ship.retry(shipment_id)
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    assert not (await ship.get_job(shipment_id)).parked, "a retry has all attempts again"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]
    assert (len(cheap.requests), quick.requests.total()) == (1, 0)
    # Once the carrier refuses, another one is requested, and the first booking has ended.
    other = await ship.get_shipment(await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out")))
    await ship.make_all_due()
    job = await ship.claim_one(other.order_id)
    cheap.next_outcomes = [refusal()]
    assert await ship.work_on(job) == "refused"
    await ship.work_until_idle()
    assert quick.requests.total() == 1


async def test_absent_booking_is_final_after_lease_only(ship: ShippingShop) -> None:
    """Absence at the carrier counts only once no earlier request can still arrive there."""
    cheap = ship.carriers["cheap"]
    shipment_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.fulfilment.cancel(shipment_id, "not wanted", "dan")
    assert (await ship.get_shipment(shipment_id)).status == "planned"
    for _ in range(2):
        await ship.make_all_due()
        assert await ship.work_on(await ship.claim_one()) == "no_answer"
    assert "may receive it yet" in str((await ship.get_job(shipment_id)).last_error)
    await ship.expire_booking_requests()
    assert await ship.work_until_idle() == ["cancelled"]
    shipment = await ship.get_shipment(shipment_id)
    assert (shipment.status, shipment.booking_id, await ship.find_task(shipment_id)) == ("cancelled", None, None)
    assert (cheap.cancel_calls, cheap.bookings) == (3, {})


async def test_absence_is_judged_by_latest_request(ship: ShippingShop) -> None:
    """The latest request counts: it may still be on its way."""
    cheap = ship.carriers["cheap"]
    shipment_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.expire_booking_requests()
    cheap.gate = asyncio.Event()
    booking = asyncio.create_task(ship.work_on(await ship.claim_one()))

    async def is_booked() -> bool:
        return bool(cheap.bookings)

    await eventually(is_booked)
    late = dict(cheap.bookings)
    cheap.bookings.clear()  # as if the request had not arrived
    await ship.fulfilment.cancel(shipment_id, "not wanted", "dan")
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    cheap.bookings |= late
    cheap.gate.set()
    assert await booking == "booked"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["cancelled"]
    assert cheap.current_bookings == set()


async def test_cancel_too_late_finds_tracking_no_of_unknown_booking(ship: ShippingShop) -> None:
    """The carrier has the shipment: its number is looked up, and it is tracked until delivery."""
    cheap = ship.carriers["cheap"]
    shipment_id = await shipment_with_unknown_outcome(ship, "lost")
    cheap.handed_over = set(cheap.bookings)
    await ship.fulfilment.cancel(shipment_id, "not wanted", "dan")
    assert await ship.work_until_idle() == ["too_late"]
    shipment = await ship.get_shipment(shipment_id)
    assert [shipment.tracking_no] == list(cheap.bookings.values())
    assert (shipment.status, shipment.after_cancel) == ("booked", None)
    assert await ship.find_task(shipment_id) == "shipment.track"
    assert (await ship.list_event_texts(shipment_id))[-1] == "too late to cancel: cheap has collected it"
    # Likewise if the carrier does not return the number at first.
    other = await shipment_with_unknown_outcome(ship, "lost")
    bookings = dict(cheap.bookings)
    cheap.bookings |= dict.fromkeys(bookings.keys() - cheap.handed_over, "")
    cheap.handed_over = set(bookings)
    await ship.fulfilment.cancel(other, "not wanted", "dan")
    assert await ship.work_on(await ship.claim_one((await ship.get_shipment(other)).order_id)) == "no_answer"
    cheap.bookings = bookings
    await ship.make_all_due()
    assert "too_late" in await ship.work_until_idle()
    assert (await ship.get_shipment(other)).tracking_no in bookings.values()
    # After the refund, cancellation is retried at each poll.
    await ship.refund_all((await ship.get_shipment(other)).order_id)
    assert await ship.work_until_idle() == [], "the carrier has said no"
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["stopped", "too_late", "unchanged"]
    cheap.handed_over = set()
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "cancelled", "stopped", "unchanged"]


async def test_redirect_during_unknown_outcome_makes_new_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    shipment_id = await shipment_with_unknown_outcome(ship, "lost")
    moved = Address(**{**ADDRESS, "line": "Elsewhere 1"})
    details = await ship.fulfilment.redirect(shipment_id, moved, "moved", "dan")
    assert (details.shipment.address.line, details.shipment.next_address) == (ADDRESS["line"], moved)
    assert await ship.work_until_idle() == ["replanned", "booked"]
    assert [request.recipient.line for request in cheap.booking_requests] == [ADDRESS["line"], "Elsewhere 1"]
    assert (len(cheap.bookings), len(cheap.current_bookings)) == (2, 1)
    # If the carrier refuses in the end, there is no booking to cancel.
    other = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.make_all_due()
    cheap.next_outcomes, cheap.gate = [refusal()], asyncio.Event()
    booking = asyncio.create_task(ship.work_on(await ship.claim_one((await ship.get_shipment(other)).order_id)))

    async def is_requested() -> bool:
        return not cheap.next_outcomes

    await eventually(is_requested)
    await ship.fulfilment.redirect(other, moved, "moved", "dan")
    cheap.gate.set()
    assert await booking == "replanned"
    assert await ship.work_until_idle() == ["booked"]
    shipment = await ship.get_shipment(other)
    assert (shipment.address, shipment.next_address) == (moved, None)
    assert await ship.find_task(other) == "shipment.track"


OWN_FLEET_RATES = RATES.splitlines(keepends=True)[0] + "own_fleet,CN,0,30000,10.00,CNY,1,yes\n"


@pytest.fixture
async def processes(settings: Settings, tmp_path: Path) -> AsyncIterator[Processes]:
    """Processes with leases of one second."""
    jobs = settings.jobs.model_copy(update={"lease_s": 1})
    shipping = settings.shipping.model_copy(update={"own_fleet": True})
    async with run_processes(settings.model_copy(update={"jobs": jobs, "shipping": shipping}), tmp_path) as processes:
        yield processes


async def test_worker_killed_during_set_of_bookings_repeats_all_requests(
    shop: CliServices, settings: Settings, processes: Processes
) -> None:
    """Killed when carriers have booked some of the shipments: all requests are stored, and no answer is."""
    async with open_shipping_shop(shop, settings, rates=OWN_FLEET_RATES) as ship:
        for number in range(5):
            await ship.add_order(user=f"u{number}")
        assert await wait_for_exit(await processes.worker("fulfilment_worker", crash_at="shipment.after_book:3")) == -9
        before = await ship.fetch_rows("SELECT booking_id, outcome, xmin::text FROM bookings")
        assert (len(before), {row["outcome"] for row in before}) == (5, {"requested"})
        assert len({row["xmin"] for row in before}) == 1
        await processes.worker("fulfilment_worker")

        async def are_booked() -> bool:
            return bool(await ship.fetch_value("SELECT count(*) = 5 FROM shipments WHERE status = 'booked'"))

        await eventually(are_booked)
        after = await ship.fetch_rows("SELECT booking_id, outcome FROM bookings")
        assert {row["booking_id"] for row in after} == {row["booking_id"] for row in before}
        assert {row["outcome"] for row in after} == {"booked"}
        await ship.check_records()


async def test_worker_killed_after_call_continues_same_booking(
    shop: CliServices, settings: Settings, processes: Processes
) -> None:
    """Killed after booking, and again after cancelling: the next worker repeats the call."""
    async with open_shipping_shop(shop, settings, rates=OWN_FLEET_RATES) as ship:
        await ship.add_order()
        assert await wait_for_exit(await processes.worker("fulfilment_worker", crash_at="shipment.after_book")) == -9
        [row] = await ship.fetch_rows("SELECT shipment_id, status, booking_id FROM shipments")
        shipment_id = row["shipment_id"]
        assert (row["status"], await ship.fetch_value("SELECT outcome FROM bookings")) == ("planned", "requested")
        worker = await processes.worker("fulfilment_worker", crash_at="shipment.after_cancel")

        async def shipment_is(status: str) -> bool:
            return (await ship.get_shipment(shipment_id)).status == status

        await eventually(lambda: shipment_is("booked"))
        assert (await ship.get_shipment(shipment_id)).booking_id == row["booking_id"]
        await ship.fulfilment.cancel(shipment_id, "not wanted", "dan")
        assert await wait_for_exit(worker) == -9
        assert await ship.fetch_value("SELECT outcome FROM bookings") == "booked"
        await processes.worker("fulfilment_worker")
        await eventually(lambda: shipment_is("cancelled"))
        assert await ship.fetch_value("SELECT count(*) FROM bookings") == 1
        await ship.check_records()
