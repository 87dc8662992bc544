"""Bookings with several carriers: refusals, unavailable systems, wrong tracking numbers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import cast

from commerce.kernel.clock import from_ms
from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, Carrier
from commerce.shipping.shipment_tasks import put_task
from tests.support.fake_carrier import FakeCarrier, refusal
from tests.support.sales import eventually
from tests.support.shipping_shop import SHANGHAI, ShippingShop


async def test_refused_shipment_is_booked_with_next_carrier(ship: ShippingShop) -> None:
    """The next best carrier books it, and the first one gets no further request."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    cheap.next_outcomes = [refusal()]
    order_id = await ship.add_order()
    assert await ship.work_until_idle() == ["planned", "refused", "booked"]
    [shipment] = await ship.list_shipments(order_id)
    assert (shipment.carrier, shipment.refused_by, shipment.status) == ("quick", ["cheap"], "booked")
    assert (cheap.requests.total(), quick.requests.total()) == (1, 1)
    outcomes = await ship.fetch_rows("SELECT carrier, outcome, reason FROM bookings ORDER BY booking_id")
    assert [tuple(row) for row in outcomes] == [
        ("cheap", "refused", "cheap refuses: no_service: not there"),
        ("quick", "booked", None),
    ]


async def test_shipment_refused_by_all_carriers_is_parked(ship: ShippingShop) -> None:
    """The job is parked with all reasons. A retry requests all carriers again."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    quick.next_outcomes, cheap.next_outcomes = [refusal(), refusal()], [refusal(), refusal()]
    order_id = await ship.add_order()
    assert await ship.work_until_idle() == ["planned", "refused", "refused"]
    [shipment] = await ship.list_shipments(order_id)
    job = await ship.get_job(shipment.shipment_id)
    assert (job.parked, shipment.carrier, shipment.booking_id) == (True, None, None)
    assert job.last_error == (
        "no carrier takes it: byhand: does not serve the region; cheap: it refused this shipment; "
        "quick: it refused this shipment"
    )
    assert await ship.list_worklist("parked") == {shipment.shipment_id}
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    await ship.retry(shipment.shipment_id)
    assert await ship.work_until_idle() == ["assigned", "refused", "refused"]
    await ship.retry(shipment.shipment_id)
    assert await ship.work_until_idle() == ["assigned", "booked"]
    assert (cheap.requests.total(), quick.requests.total()) == (3, 2)
    assert len(cheap.requests) == 3, "each request has a booking of its own"


async def test_unavailable_carrier_loses_only_unrequested_shipments(ship: ShippingShop) -> None:
    """A shipment that was not requested yet is reassigned. A requested one waits."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    cheap.next_outcomes = ["lost"]
    requested = await ship.add_order()
    assert [await ship.work_on(job) for job in await ship.claim(1)] == ["planned"]
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    fresh = await ship.add_order()
    await ship.make_all_due()
    ship.unavailable_systems = ["cheap"]
    assert await ship.work_until_idle() == ["planned", "assigned", "booked"]
    [waiting], [reassigned] = await ship.list_shipments(requested), await ship.list_shipments(fresh)
    assert (reassigned.carrier, reassigned.refused_by) == ("quick", [])
    assert (waiting.carrier, waiting.status) == ("cheap", "planned")
    assert not (await ship.get_job(waiting.shipment_id)).parked
    ship.unavailable_systems = []
    await ship.make_all_due()
    assert "booked" in await ship.work_until_idle()
    [waiting] = await ship.list_shipments(requested)
    assert (waiting.carrier, waiting.status) == ("cheap", "booked")
    assert (list(cheap.requests.values()), list(quick.requests.values())) == ([2], [1])


async def test_shipment_waits_if_all_carriers_are_unavailable(ship: ShippingShop) -> None:
    """Shipments wait for the best carrier, and are retried after the backoff only."""
    ship.unavailable_systems = ["cheap", "quick"]
    ship.jobs._shipment_jobs._retry_policy = replace(ship.jobs._shipment_jobs._retry_policy, max_s=60)
    order_id = await ship.add_order()
    assert [await ship.work_on(await ship.claim_one()) for _ in range(2)] == ["planned", "waiting"]
    [shipment] = await ship.list_shipments(order_id)
    job = await ship.get_job(shipment.shipment_id)
    assert (shipment.carrier, job.parked, job.kind, job.system) == ("cheap", False, "shipment.book", "cheap")
    ship.unavailable_systems = []
    assert await ship.work_until_idle() == []
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]


async def test_unavailable_system_does_not_stop_staff_bookings(ship: ShippingShop) -> None:
    """Staff book with a carrier even if its tracking is unavailable."""
    ship.unavailable_systems = ["cheap", "quick", "byhand"]
    _, [shipment] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert (shipment.carrier, await ship.find_task(shipment.shipment_id)) == ("byhand", None)
    assert await ship.list_worklist("to_pack") == {shipment.shipment_id}
    # It is chosen also if the carrier that was assigned before is unavailable.
    await ship.fetch_rows("UPDATE shipments SET carrier = 'cheap' RETURNING 1")
    async with ship.shop.db.connection() as connection:
        now = from_ms(ship.shop.clock.now_ms())
        carrier = cast(Carrier, ship.carriers["cheap"])
        await put_task(connection, shipment.shipment_id, "shipment.book", carrier, now, now)
    ship.unavailable_systems = ["cheap", "byhand"]
    assert await ship.work_until_idle() == ["assigned"]
    assert (await ship.get_shipment(shipment.shipment_id)).carrier == "byhand"


async def test_workers_on_one_shipment_book_it_once(ship: ShippingShop) -> None:
    """Three workers claim one shipment, since leases end during the call: one booking, one event."""
    cheap = ship.carriers["cheap"]
    cheap.gate = asyncio.Event()
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    tasks = []
    for number in range(1, 4):
        await ship.make_all_due()
        tasks.append(asyncio.create_task(ship.work_on(await ship.claim_one())))

        async def is_requested(number: int = number) -> bool:
            return cheap.requests.total() == number

        await eventually(is_requested)
    cheap.gate.set()
    assert sorted(await asyncio.gather(*tasks)) == ["booked", "unchanged", "unchanged"]
    [shipment] = await ship.list_shipments(order_id)
    assert await ship.list_event_texts(shipment.shipment_id) == [f"cheap takes it as {shipment.tracking_no}"]
    assert len(cheap.requests) == 1


async def test_claim_skips_leased_jobs_and_excluded_systems(ship: ShippingShop) -> None:
    """Leased jobs and jobs of systems without room are not claimed."""
    planned_orders = [await ship.add_order() for _ in range(5)]
    assert len(await ship.claim()) == 5
    assert await ship.claim() == []
    await ship.make_all_due()
    await ship.work_until_idle()
    orders = [await ship.add_order() for _ in range(5)]
    await ship.make_all_due()
    assert Counter(job.system for job in await ship.claim(4)) == {"cheap": 4, "internal": 4}
    await ship.make_all_due()
    ship.unavailable_systems = ["cheap"]
    assert {job.subject for job in await ship.claim()} == set(orders)
    assert await ship.fetch_value("SELECT count(*) FROM shipments") == len(planned_orders)


class FakeCarelessCarrier(FakeCarrier):
    """Returns the same number for every booking."""

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        return BookingConfirmation("SAME-1")


async def test_tracking_no_of_another_shipment_parks_job(ship: ShippingShop) -> None:
    ship.carriers["cheap"] = ship.jobs._shipment_jobs._carriers.by_name["cheap"] = FakeCarelessCarrier("cheap")  # type: ignore[index]
    await ship.add_order(), await ship.add_order()
    assert sorted(await ship.work_until_idle()) == ["booked", "planned", "planned", "tracking_no_conflict"]
    [shipment_id] = await ship.list_worklist("parked")
    shipment = await ship.get_shipment(shipment_id)
    assert ((await ship.get_job(shipment_id)).last_error, shipment.status) == (
        "cheap returned the tracking number of another shipment",
        "planned",
    )
    assert shipment.booking_id is not None, "the carrier was requested, so the booking stays"


async def test_removed_carrier_parks_requested_shipments_only(ship: ShippingShop) -> None:
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    cheap.next_outcomes = ["lost"]
    requested, fresh = await ship.add_order(), await ship.add_order()
    results = [await ship.work_on(job) for job in await ship.claim()]
    first, second = await ship.list_shipments(requested), await ship.list_shipments(fresh)
    assert results == ["planned", "planned"]
    for job in await ship.claim():
        if job.subject == first[0].shipment_id:
            assert await ship.work_on(job) == "no_answer"
    await ship.make_all_due()
    del ship.carriers["cheap"]
    assert sorted(await ship.work_until_idle()) == ["assigned", "booked", "refused"]
    lost, moved = await ship.get_shipment(first[0].shipment_id), await ship.get_shipment(second[0].shipment_id)
    job = await ship.get_job(lost.shipment_id)
    assert (job.parked, job.last_error) == (True, "cheap refuses: not_offered: the settings do not name it")
    assert (moved.carrier, moved.status, quick.requests.total()) == ("quick", "booked", 1)
    ship.carriers["cheap"] = cheap
    await ship.retry(lost.shipment_id)
    assert await ship.work_until_idle() == ["booked"]


async def test_failed_poll_is_retried_and_refused_poll_is_parked(ship: ShippingShop) -> None:
    """A poll without an answer is retried; a refused one is parked for staff."""
    _, [shipment] = await ship.add_booked_order()
    cheap = ship.carriers["cheap"]
    cheap.next_outcomes = [ExternalOutcomeUnknown("timed out"), refusal("gone")]
    await ship.make_all_due()
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    job = await ship.get_job(shipment.shipment_id)
    assert (job.attempts, job.last_error, job.parked) == (1, "timed out", False)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["refused"]
    assert await ship.list_worklist("parked") == {shipment.shipment_id}
    await ship.retry(shipment.shipment_id)
    assert await ship.work_until_idle() == ["unchanged"]
    job = await ship.get_job(shipment.shipment_id)
    assert (job.attempts, job.last_error, job.parked, job.kind) == (0, None, False, "shipment.track")
