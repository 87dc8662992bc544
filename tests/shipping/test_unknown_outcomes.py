"""Bookings of which nobody knows what became: answers that got lost, drivers that died in between."""

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
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import RATES, ShippingShop, open_shipping_shop, refusal


async def shipment_with_unknown_outcome(ship: ShippingShop, *says: Exception | str) -> UUID:
    """A parcel that was asked for as often as there was something to say, and nothing came of it."""
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one(order_id)) == "planned"
    for said in says:
        await ship.make_all_due()
        job = await ship.claim_one(order_id)
        ship.carriers["cheap"].next_outcomes = [said]
        assert await ship.work_on(job) == "no_answer"
    [parcel] = await ship.list_shipments(order_id)
    assert (parcel.status, parcel.attempts) == ("planned", len(says))
    return parcel.shipment_id


async def test_asked_again_under_the_same_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    parcel = await ship.get_shipment(
        await shipment_with_unknown_outcome(
            ship, "lost", ExternalOutcomeUnknown("timed out"), ExternalOutcomeUnknown("502")
        )
    )
    assert (parcel.last_error, parcel.parked) == ("502", False)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]
    assert list(cheap.requests.values()) == [4]
    assert await ship.fetch_value("SELECT count(*) FROM bookings") == 1
    number = await ship.fetch_value("SELECT tracking_no FROM shipments")
    assert [number] == list(cheap.bookings.values())


async def test_given_up_and_taken_up_again(ship: ShippingShop) -> None:
    """After many tries a person looks at it; the booking may stand, so nobody else is asked, then or later."""
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost", *[ExternalOutcomeUnknown("timed out")] * 4)
    assert await ship.list_worklist("parked") == {parcel_id}
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    cheap.next_outcomes = [ExternalOutcomeUnknown("timed out")]
    await ship.fulfilment.retry(parcel_id, "dan")
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    assert not (await ship.get_shipment(parcel_id)).parked, "it is tried as often as before"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]
    assert (len(cheap.requests), quick.requests.total()) == (1, 0)
    # Refused at last, another is asked, and the first booking is over.
    other = await ship.get_shipment(await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out")))
    await ship.make_all_due()
    job = await ship.claim_one(other.order_id)
    cheap.next_outcomes = [refusal()]
    assert await ship.work_on(job) == "refused"
    await ship.work_until_idle()
    assert quick.requests.total() == 1


async def test_a_booking_that_is_not_there_yet(ship: ShippingShop) -> None:
    """Cancelled while it is asked for: that the carrier does not know it is believed once nothing can be under way."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.fulfilment.cancel(parcel_id, "not wanted", "dan")
    assert (await ship.get_shipment(parcel_id)).status == "planned"
    for _ in range(2):
        await ship.make_all_due()
        assert await ship.work_on(await ship.claim_one()) == "no_answer"
    assert "may receive it yet" in str((await ship.get_shipment(parcel_id)).last_error)
    await ship.expire_booking_requests()
    assert await ship.work_until_idle() == ["cancelled"]
    parcel = await ship.get_shipment(parcel_id)
    assert (parcel.status, parcel.booking_id, parcel.task) == ("cancelled", None, None)
    assert (cheap.cancel_calls, cheap.bookings) == (3, {})


async def test_asked_again_long_after_the_first_time(ship: ShippingShop) -> None:
    """What counts is when it was asked last: that call may be on its way."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.expire_booking_requests()
    cheap.gate = asyncio.Event()
    asking = asyncio.create_task(ship.work_on(await ship.claim_one()))

    async def asked() -> bool:
        return bool(cheap.bookings)

    await eventually(asked)
    late = dict(cheap.bookings)
    cheap.bookings.clear()  # as if the call had not got there
    await ship.fulfilment.cancel(parcel_id, "not wanted", "dan")
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    cheap.bookings |= late
    cheap.gate.set()
    assert await asking == "booked"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["cancelled"]
    assert cheap.current_bookings == set()


async def test_too_late_to_cancel_what_was_not_known_to_be_booked(ship: ShippingShop) -> None:
    """The carrier has the parcel: its number is found out, and it is followed to the door."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost")
    cheap.handed_over = set(cheap.bookings)
    await ship.fulfilment.cancel(parcel_id, "not wanted", "dan")
    assert await ship.work_until_idle() == ["too_late"]
    parcel = await ship.get_shipment(parcel_id)
    assert [parcel.tracking_no] == list(cheap.bookings.values())
    assert (parcel.status, parcel.task, parcel.after_cancel) == ("booked", "track", None)
    assert (await ship.list_event_texts(parcel_id))[-1] == "too late to cancel: cheap has collected it"
    # The same where the carrier does not say the number.
    other = await shipment_with_unknown_outcome(ship, "lost")
    known = dict(cheap.bookings)
    cheap.bookings |= dict.fromkeys(known.keys() - cheap.handed_over, "")
    cheap.handed_over = set(known)
    await ship.fulfilment.cancel(other, "not wanted", "dan")
    assert await ship.work_on(await ship.claim_one((await ship.get_shipment(other)).order_id)) == "no_answer"
    cheap.bookings = known
    await ship.make_all_due()
    assert "too_late" in await ship.work_until_idle()
    assert (await ship.get_shipment(other)).tracking_no in known.values()
    # Nobody may have it any more, so it is tried again, though not all the time.
    await ship.refund_all((await ship.get_shipment(other)).order_id)
    assert await ship.work_until_idle() == ["stopped", "too_late"]
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["unchanged", "stopped", "too_late"]
    cheap.handed_over = set()
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "unchanged", "stopped"]


async def test_another_address_while_it_is_unclear(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost")
    moved = Address(**{**ADDRESS, "line": "Elsewhere 1"})
    file = await ship.fulfilment.redirect(parcel_id, moved, "moved", "dan")
    assert (file.shipment.address.line, file.shipment.next_address) == (ADDRESS["line"], moved)
    assert await ship.work_until_idle() == ["replanned", "booked"]
    assert [parcel.recipient.line for parcel in cheap.booking_requests] == [ADDRESS["line"], "Elsewhere 1"]
    assert (len(cheap.bookings), len(cheap.current_bookings)) == (2, 1)
    # Refused in the end instead: there is nothing to cancel.
    other = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.make_all_due()
    cheap.next_outcomes, cheap.gate = [refusal()], asyncio.Event()
    asking = asyncio.create_task(ship.work_on(await ship.claim_one((await ship.get_shipment(other)).order_id)))

    async def asked() -> bool:
        return not cheap.next_outcomes

    await eventually(asked)
    await ship.fulfilment.redirect(other, moved, "moved", "dan")
    cheap.gate.set()
    assert await asking == "replanned"
    assert await ship.work_until_idle() == ["booked"]
    parcel = await ship.get_shipment(other)
    assert (parcel.address, parcel.next_address, parcel.task) == (moved, None, "track")


OWN = RATES.splitlines(keepends=True)[0] + "own_fleet,CN,0,30000,10.00,CNY,1,yes\n"


@pytest.fixture
async def processes(settings: Settings, tmp_path: Path) -> AsyncIterator[Processes]:
    """A dead one's jobs are free after a second."""
    quick = settings.jobs.model_copy(update={"lease_s": 1})
    own = settings.shipping.model_copy(update={"own_fleet": True})
    async with run_processes(settings.model_copy(update={"jobs": quick, "shipping": own}), tmp_path) as found:
        yield found


async def test_a_driver_dies_between_the_carrier_and_the_row(
    shop: CliServices, settings: Settings, processes: Processes
) -> None:
    """Booked and not noted, cancelled and not noted: whoever comes next asks again under the same booking."""
    async with open_shipping_shop(shop, settings, rates=OWN) as ship:
        await ship.add_order()
        assert await wait_for_exit(await processes.worker("fulfilment_worker", crash_at="shipment.after_book")) == -9
        [row] = await ship.fetch_rows("SELECT shipment_id, status, booking_id FROM shipments")
        parcel_id = row["shipment_id"]
        assert (row["status"], await ship.fetch_value("SELECT outcome FROM bookings")) == ("planned", "requested")
        dying = await processes.worker("fulfilment_worker", crash_at="shipment.after_cancel")

        async def parcel_is(status: str) -> bool:
            return (await ship.get_shipment(parcel_id)).status == status

        await eventually(lambda: parcel_is("booked"))
        assert (await ship.get_shipment(parcel_id)).booking_id == row["booking_id"]
        await ship.fulfilment.cancel(parcel_id, "not wanted", "dan")
        assert await wait_for_exit(dying) == -9
        assert await ship.fetch_value("SELECT outcome FROM bookings") == "booked"
        await processes.worker("fulfilment_worker")
        await eventually(lambda: parcel_is("cancelled"))
        assert await ship.fetch_value("SELECT count(*) FROM bookings") == 1
        await ship.check_records()
