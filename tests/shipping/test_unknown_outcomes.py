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
    order_id = await ship.order()
    assert await ship.one(await ship.claimed(order_id)) == "planned"
    for said in says:
        await ship.due()
        job = await ship.claimed(order_id)
        ship.carriers["cheap"].says = [said]
        assert await ship.one(job) == "unclear"
    [parcel] = await ship.parcels(order_id)
    assert (parcel.status, parcel.attempts) == ("planned", len(says))
    return parcel.shipment_id


async def test_asked_again_under_the_same_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    parcel = await ship.parcel(
        await shipment_with_unknown_outcome(
            ship, "lost", ExternalOutcomeUnknown("timed out"), ExternalOutcomeUnknown("502")
        )
    )
    assert (parcel.last_error, parcel.parked) == ("502", False)
    await ship.due()
    assert await ship.work() == ["booked"]
    assert list(cheap.asked.values()) == [4]
    assert await ship.value("SELECT count(*) FROM bookings") == 1
    number = await ship.value("SELECT tracking_no FROM shipments")
    assert [number] == list(cheap.known.values())


async def test_given_up_and_taken_up_again(ship: ShippingShop) -> None:
    """After many tries a person looks at it; the booking may stand, so nobody else is asked, then or later."""
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost", *[ExternalOutcomeUnknown("timed out")] * 4)
    assert await ship.on("parked") == {parcel_id}
    await ship.due()
    assert await ship.work() == []
    cheap.says = [ExternalOutcomeUnknown("timed out")]
    await ship.desk.retry(parcel_id, "dan")
    assert await ship.one(await ship.claimed()) == "unclear"
    assert not (await ship.parcel(parcel_id)).parked, "it is tried as often as before"
    await ship.due()
    assert await ship.work() == ["booked"]
    assert (len(cheap.asked), quick.asked.total()) == (1, 0)
    # Refused at last, another is asked, and the first booking is over.
    other = await ship.parcel(await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out")))
    await ship.due()
    job = await ship.claimed(other.order_id)
    cheap.says = [refusal()]
    assert await ship.one(job) == "refused"
    await ship.work()
    assert quick.asked.total() == 1


async def test_a_booking_that_is_not_there_yet(ship: ShippingShop) -> None:
    """Cancelled while it is asked for: that the carrier does not know it is believed once nothing can be under way."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.desk.cancel(parcel_id, "not wanted", "dan")
    assert (await ship.parcel(parcel_id)).status == "planned"
    for _ in range(2):
        await ship.due()
        assert await ship.one(await ship.claimed()) == "unclear"
    assert "may receive it yet" in str((await ship.parcel(parcel_id)).last_error)
    await ship.lease_over()
    assert await ship.work() == ["cancelled"]
    parcel = await ship.parcel(parcel_id)
    assert (parcel.status, parcel.booking_id, parcel.task) == ("cancelled", None, None)
    assert (cheap.cancels, cheap.known) == (3, {})


async def test_asked_again_long_after_the_first_time(ship: ShippingShop) -> None:
    """What counts is when it was asked last: that call may be on its way."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.lease_over()
    cheap.waits = asyncio.Event()
    asking = asyncio.create_task(ship.one(await ship.claimed()))

    async def asked() -> bool:
        return bool(cheap.known)

    await eventually(asked)
    late = dict(cheap.known)
    cheap.known.clear()  # as if the call had not got there
    await ship.desk.cancel(parcel_id, "not wanted", "dan")
    assert await ship.one(await ship.claimed()) == "unclear"
    cheap.known |= late
    cheap.waits.set()
    assert await asking == "booked"
    await ship.due()
    assert await ship.work() == ["cancelled"]
    assert cheap.standing == set()


async def test_too_late_to_cancel_what_was_not_known_to_be_booked(ship: ShippingShop) -> None:
    """The carrier has the parcel: its number is found out, and it is followed to the door."""
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost")
    cheap.handed_over = set(cheap.known)
    await ship.desk.cancel(parcel_id, "not wanted", "dan")
    assert await ship.work() == ["too_late"]
    parcel = await ship.parcel(parcel_id)
    assert [parcel.tracking_no] == list(cheap.known.values())
    assert (parcel.status, parcel.task, parcel.after_cancel) == ("booked", "track", None)
    assert (await ship.told(parcel_id))[-1] == "too late to cancel: cheap has collected it"
    # The same where the carrier does not say the number.
    other = await shipment_with_unknown_outcome(ship, "lost")
    known = dict(cheap.known)
    cheap.known |= dict.fromkeys(known.keys() - cheap.handed_over, "")
    cheap.handed_over = set(known)
    await ship.desk.cancel(other, "not wanted", "dan")
    assert await ship.one(await ship.claimed((await ship.parcel(other)).order_id)) == "unclear"
    cheap.known = known
    await ship.due()
    assert "too_late" in await ship.work()
    assert (await ship.parcel(other)).tracking_no in known.values()
    # Nobody may have it any more, so it is tried again, though not all the time.
    await ship.refund_all((await ship.parcel(other)).order_id)
    assert await ship.work() == ["stopped", "too_late"]
    await ship.due()
    assert sorted(await ship.work()) == ["unchanged", "stopped", "too_late"]
    cheap.handed_over = set()
    await ship.due()
    assert sorted(await ship.work()) == ["cancelled", "unchanged", "stopped"]


async def test_another_address_while_it_is_unclear(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    parcel_id = await shipment_with_unknown_outcome(ship, "lost")
    moved = Address(**{**ADDRESS, "line": "Elsewhere 1"})
    file = await ship.desk.redirect(parcel_id, moved, "moved", "dan")
    assert (file.shipment.address.line, file.shipment.next_address) == (ADDRESS["line"], moved)
    assert await ship.work() == ["replanned", "booked"]
    assert [parcel.to.line for parcel in cheap.parcels] == [ADDRESS["line"], "Elsewhere 1"]
    assert (len(cheap.known), len(cheap.standing)) == (2, 1)
    # Refused in the end instead: there is nothing to cancel.
    other = await shipment_with_unknown_outcome(ship, ExternalOutcomeUnknown("timed out"))
    await ship.due()
    cheap.says, cheap.waits = [refusal()], asyncio.Event()
    asking = asyncio.create_task(ship.one(await ship.claimed((await ship.parcel(other)).order_id)))

    async def asked() -> bool:
        return not cheap.says

    await eventually(asked)
    await ship.desk.redirect(other, moved, "moved", "dan")
    cheap.waits.set()
    assert await asking == "replanned"
    assert await ship.work() == ["booked"]
    parcel = await ship.parcel(other)
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
        await ship.order()
        assert await wait_for_exit(await processes.worker("fulfilment_worker", crash_at="shipment.after_book")) == -9
        [row] = await ship.rows("SELECT shipment_id, status, booking_id FROM shipments")
        parcel_id = row["shipment_id"]
        assert (row["status"], await ship.value("SELECT outcome FROM bookings")) == ("planned", "asked")
        dying = await processes.worker("fulfilment_worker", crash_at="shipment.after_cancel")

        async def parcel_is(status: str) -> bool:
            return (await ship.parcel(parcel_id)).status == status

        await eventually(lambda: parcel_is("booked"))
        assert (await ship.parcel(parcel_id)).booking_id == row["booking_id"]
        await ship.desk.cancel(parcel_id, "not wanted", "dan")
        assert await wait_for_exit(dying) == -9
        assert await ship.value("SELECT outcome FROM bookings") == "booked"
        await processes.worker("fulfilment_worker")
        await eventually(lambda: parcel_is("cancelled"))
        assert await ship.value("SELECT count(*) FROM bookings") == 1
        await ship.check()
