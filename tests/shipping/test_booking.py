"""Who is asked to bring a parcel, and what becomes of a no, of silence and of other people's numbers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.shipping.carrier_port import BookingConfirmation
from commerce.shipping.model import Shipment
from tests.support.sales import eventually
from tests.support.shipping_shop import SHANGHAI, FakeCarrier, ShippingShop, refusal


async def test_refused_by_the_first(ship: ShippingShop) -> None:
    """The next best takes it, and the first is not asked again."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    cheap.next_outcomes = [refusal()]
    order_id = await ship.add_order()
    assert await ship.work_until_idle() == ["planned", "refused", "booked"]
    [parcel] = await ship.list_shipments(order_id)
    assert (parcel.carrier, parcel.refused_by, parcel.status) == ("quick", ["cheap"], "booked")
    assert (cheap.requests.total(), quick.requests.total()) == (1, 1)
    outcomes = await ship.fetch_rows("SELECT carrier, outcome, reason FROM bookings ORDER BY booking_id")
    assert [tuple(row) for row in outcomes] == [
        ("cheap", "refused", "cheap refuses: no_service: not there"),
        ("quick", "booked", None),
    ]


async def test_refused_by_all(ship: ShippingShop) -> None:
    """It is parked with every reason; taken up again, every carrier is asked again."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    quick.next_outcomes, cheap.next_outcomes = [refusal(), refusal()], [refusal(), refusal()]
    order_id = await ship.add_order()
    assert await ship.work_until_idle() == ["planned", "refused", "refused"]
    [parcel] = await ship.list_shipments(order_id)
    assert (parcel.parked, parcel.carrier, parcel.booking_id) == (True, None, None)
    assert parcel.last_error == (
        "no carrier takes it: byhand: does not serve the region; cheap: it refused this shipment; "
        "quick: it refused this shipment"
    )
    assert await ship.list_worklist("parked") == {parcel.shipment_id}
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    await ship.fulfilment.retry(parcel.shipment_id, "dan")
    assert await ship.work_until_idle() == ["refused", "refused"]
    await ship.fulfilment.retry(parcel.shipment_id, "dan")
    assert await ship.work_until_idle() == ["booked"]
    assert (cheap.requests.total(), quick.requests.total()) == (3, 2)
    assert len(cheap.requests) == 3, "each time under another booking"


async def test_one_is_down(ship: ShippingShop) -> None:
    """What it was not asked for yet goes to another; what it was asked for waits, and is booked nowhere else."""
    quick, cheap = ship.carriers["quick"], ship.carriers["cheap"]
    cheap.next_outcomes = ["lost"]
    asked = await ship.add_order()
    job = [await ship.work_on(job) for job in await ship.jobs.claim(1, [], [])]
    assert job == ["planned"]
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    fresh = await ship.add_order()
    await ship.make_all_due()
    ship.unavailable_systems = ["cheap"]
    assert await ship.work_until_idle() == ["planned", "assigned", "booked"]
    [waiting], [gone] = await ship.list_shipments(asked), await ship.list_shipments(fresh)
    assert (gone.carrier, gone.refused_by) == ("quick", [])
    assert (waiting.carrier, waiting.status, waiting.parked) == ("cheap", "planned", False)
    ship.unavailable_systems = []
    await ship.make_all_due()
    assert "booked" in await ship.work_until_idle()
    [waiting] = await ship.list_shipments(asked)
    assert (waiting.carrier, waiting.status) == ("cheap", "booked")
    assert (list(cheap.requests.values()), list(quick.requests.values())) == ([2], [1])


async def test_all_are_down(ship: ShippingShop) -> None:
    """They wait for the best of them, and are not looked at all the time."""
    ship.unavailable_systems = ["cheap", "quick"]
    ship.jobs._shipments._retry_policy = replace(ship.jobs._shipments._retry_policy, max_s=60)
    order_id = await ship.add_order()
    assert [await ship.work_on(await ship.claim_one()) for _ in range(2)] == ["planned", "waiting"]
    [parcel] = await ship.list_shipments(order_id)
    assert (parcel.carrier, parcel.parked, parcel.task) == ("cheap", False, "book")
    assert parcel.last_error == "its carriers do not answer now"
    ship.unavailable_systems = []
    assert await ship.work_until_idle() == []
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["booked"]


async def test_down_matters_only_where_it_must_be_called(ship: ShippingShop) -> None:
    """The desk books a carrier by hand whether or not its news can be had."""
    ship.unavailable_systems = ["cheap", "quick", "byhand"]
    _, [parcel] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert (parcel.carrier, parcel.task, parcel.parked) == ("byhand", None, False)
    assert await ship.list_worklist("to_pack") == {parcel.shipment_id}
    # Nor is it passed over where the one that was chosen before is down.
    await ship.fetch_rows("UPDATE shipments SET carrier = 'cheap', task = 'book' RETURNING 1")
    ship.unavailable_systems = ["cheap", "byhand"]
    assert await ship.work_until_idle() == ["assigned"]
    assert (await ship.get_shipment(parcel.shipment_id)).carrier == "byhand"


async def test_two_drivers_at_the_same_parcel(ship: ShippingShop) -> None:
    """One took it up, was slow, and its lease ran out: one booking, one event."""
    cheap = ship.carriers["cheap"]
    cheap.gate = asyncio.Event()
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    tasks = []
    for number in range(1, 4):
        await ship.make_all_due()
        tasks.append(asyncio.create_task(ship.work_on(await ship.claim_one())))

        async def asked(number: int = number) -> bool:
            return cheap.requests.total() == number

        await eventually(asked)
    cheap.gate.set()
    assert sorted(await asyncio.gather(*tasks)) == ["booked", "unchanged", "unchanged"]
    [parcel] = await ship.list_shipments(order_id)
    assert await ship.list_event_texts(parcel.shipment_id) == [f"cheap takes it as {parcel.tracking_no}"]
    assert len(cheap.requests) == 1


async def test_what_is_claimed(ship: ShippingShop) -> None:
    """Not what is leased, nor of systems that are busy; orders get a part of the room."""
    parcels = [await ship.add_order() for _ in range(5)]
    assert len(await ship.jobs.claim(100, [], [])) == 5
    assert await ship.jobs.claim(100, [], []) == []
    await ship.make_all_due()
    await ship.work_until_idle()
    orders = [await ship.add_order() for _ in range(5)]
    await ship.make_all_due()
    claimed = await ship.jobs.claim(4, [], [])
    assert sorted(isinstance(job, Shipment) for job in claimed) == [False, True, True, True]
    assert [ship.jobs.system_of(job) for job in claimed].count("cheap") == 3
    await ship.make_all_due()
    without = await ship.jobs.claim(100, ["cheap"], [])
    assert {job.order_id for job in without} == set(orders)
    assert await ship.fetch_value("SELECT count(*) FROM shipments") == len(parcels)


class FakeCarelessCarrier(FakeCarrier):
    """It gives everybody the same number."""

    async def book(self, parcel: object) -> BookingConfirmation:
        return BookingConfirmation("SAME-1")


async def test_a_number_that_stands_for_another_parcel(ship: ShippingShop) -> None:
    ship.carriers["cheap"] = ship.jobs._shipments._carriers.by_name["cheap"] = FakeCarelessCarrier("cheap")  # type: ignore[index]
    await ship.add_order(), await ship.add_order()
    assert sorted(await ship.work_until_idle()) == ["booked", "planned", "planned", "tracking_no_conflict"]
    [one] = await ship.list_worklist("parked")
    parcel = await ship.get_shipment(one)
    assert (parcel.last_error, parcel.status) == ("cheap returned the tracking number of another shipment", "planned")
    assert parcel.booking_id is not None, "whoever it stands for, it was asked"


async def test_a_carrier_that_the_shop_works_with_no_more(ship: ShippingShop) -> None:
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    cheap.next_outcomes = ["lost"]
    asked, fresh = await ship.add_order(), await ship.add_order()
    words = [await ship.work_on(job) for job in await ship.jobs.claim(100, [], [])]
    first, second = await ship.list_shipments(asked), await ship.list_shipments(fresh)
    assert words == ["planned", "planned"]
    for job in await ship.jobs.claim(100, [], []):
        if job.order_id == asked:
            assert await ship.work_on(job) == "no_answer"
    await ship.make_all_due()
    del ship.carriers["cheap"]
    assert sorted(await ship.work_until_idle()) == ["assigned", "booked", "refused"]
    lost, moved = await ship.get_shipment(first[0].shipment_id), await ship.get_shipment(second[0].shipment_id)
    assert (lost.parked, lost.last_error) == (True, "cheap refuses: not_offered: the settings do not name it")
    assert (moved.carrier, moved.status, quick.requests.total()) == ("quick", "booked", 1)
    ship.carriers["cheap"] = cheap
    await ship.fulfilment.retry(lost.shipment_id, "dan")
    assert await ship.work_until_idle() == ["booked"]


async def test_its_news_cannot_be_had(ship: ShippingShop) -> None:
    """What is said no to is for a person; silence is borne for a while."""
    _, [parcel] = await ship.add_booked_order()
    cheap = ship.carriers["cheap"]
    cheap.next_outcomes = [ExternalOutcomeUnknown("timed out"), refusal("gone")]
    await ship.make_all_due()
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    parcel = await ship.get_shipment(parcel.shipment_id)
    assert (parcel.attempts, parcel.last_error, parcel.parked) == (1, "timed out", False)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["refused"]
    assert await ship.list_worklist("parked") == {parcel.shipment_id}
    await ship.fulfilment.retry(parcel.shipment_id, "dan")
    assert await ship.work_until_idle() == ["unchanged"]
    parcel = await ship.get_shipment(parcel.shipment_id)
    assert (parcel.attempts, parcel.last_error, parcel.parked, parcel.task) == (0, None, False, "track")
