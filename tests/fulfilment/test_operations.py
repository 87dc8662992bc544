"""What staff do with a parcel, and the lists that say what there is to do."""

from __future__ import annotations

from datetime import time
from uuid import UUID

import pytest

from commerce.kernel.address import Address
from commerce.kernel.errors import Invalid, ProblemError
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from commerce.shipping.model import Appointment, ShipmentStatus, WorklistName
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event

MOVED = Address(**{**ADDRESS, "line": "Elsewhere 1"})
NOBODY = UUID(int=7)


async def test_packing(ship: ShippingShop) -> None:
    desk = ship.fulfilment
    _, [booked] = await ship.add_booked_order()
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    _, [other] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert await ship.list_worklist("to_pack") == {booked.shipment_id, byhand.shipment_id, other.shipment_id}
    for parcel, number, why in (
        (booked, "ANOTHER-1", f"it is booked as {booked.tracking_no}, not as ANOTHER-1"),
        (byhand, None, "say byhand's number"),
    ):
        with pytest.raises(ProblemError, match=why):
            await desk.pack(parcel.shipment_id, number, "dan")
    for number in (None, None, booked.tracking_no):
        file = await desk.pack(booked.shipment_id, number, "dan")
    assert (file.shipment.packed_by, [event.text for event in file.events].count("it is packed")) == ("dan", 1)
    with pytest.raises(InvalidShipmentState, match="not as ANOTHER-1"):
        await desk.pack(booked.shipment_id, "ANOTHER-1", "dan")
    file = await desk.pack(byhand.shipment_id, "BH-0001", "dan")
    assert (file.shipment.status, file.shipment.tracking_no, file.shipment.task) == ("booked", "BH-0001", "follow")
    with pytest.raises(InvalidShipmentState, match="BH-0001 belongs to another shipment"):
        await desk.pack(other.shipment_id, "BH-0001", "dan")
    assert (await ship.get_shipment(other.shipment_id)).booking_id is None
    assert await ship.work_until_idle() == ["subscribed"]
    assert ship.carriers["byhand"].subscribed == ["BH-0001"]
    assert (await ship.get_shipment(byhand.shipment_id)).task == "track"
    assert await ship.list_worklist("to_pack") == {other.shipment_id}
    for name in ("packed", "hold", "let_go", "cancel", "show", "retry"):
        more = {"packed": (None, "dan"), "hold": ("r", "dan"), "cancel": ("r", "dan"), "show": ()}.get(name, ("dan",))
        with pytest.raises(NoSuchShipment):
            await getattr(desk, name)(NOBODY, *more)


async def test_what_must_not_be_packed(ship: ShippingShop) -> None:
    desk = ship.fulfilment
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    [planned] = await ship.list_shipments(order_id)
    with pytest.raises(InvalidShipmentState, match="no carrier is booked for it yet"):
        await desk.pack(planned.shipment_id, "X-0001", "dan")
    await ship.work_until_idle()
    await desk.hold(planned.shipment_id, "asks for the colour", "dan")
    with pytest.raises(InvalidShipmentState, match="held: asks for the colour"):
        await desk.pack(planned.shipment_id, None, "dan")
    await desk.resume(planned.shipment_id, "dan")
    await desk.cancel(planned.shipment_id, "not wanted", "dan")
    with pytest.raises(InvalidShipmentState, match="being cancelled"):
        await desk.pack(planned.shipment_id, None, "dan")
    with pytest.raises(InvalidShipmentState, match="being cancelled"):
        await desk.redirect(planned.shipment_id, MOVED, "moved", "dan")
    assert (await ship.get_shipment(planned.shipment_id)).next_address is None
    await ship.work_until_idle()
    with pytest.raises(InvalidShipmentState, match="it is cancelled"):
        await desk.pack(planned.shipment_id, None, "dan")
    _, [gone] = await ship.add_booked_order()
    await ship.apply_events(gone.shipment_id, tracking_event("picked_up", -1))
    for refused in (
        desk.pack(gone.shipment_id, None, "dan"),
        desk.hold(gone.shipment_id, "r", "dan"),
        desk.cancel(gone.shipment_id, "r", "dan"),
        desk.redirect(gone.shipment_id, MOVED, "r", "dan"),
        desk.retry(gone.shipment_id, "dan"),
    ):
        with pytest.raises(InvalidShipmentState):
            await refused


async def test_cancelling(ship: ShippingShop) -> None:
    """At once where nobody is asked, else once the carrier says so, or that it is too late; again changes nothing."""
    cheap, desk = ship.carriers["cheap"], ship.fulfilment
    planned, booked, late = await ship.add_order(), await ship.add_order(), await ship.add_order()
    assert [await ship.work_on(job) for job in await ship.jobs.claim(100, [], [])] == ["planned"] * 3
    [one] = await ship.list_shipments(planned)
    for _ in range(2):
        assert (await desk.cancel(one.shipment_id, "not wanted", "dan")).shipment.status == "cancelled"
    assert cheap.requests.total() == 0
    await ship.work_until_idle()
    [two], [three] = await ship.list_shipments(booked), await ship.list_shipments(late)
    assert three.booking_id is not None
    cheap.handed_over = {three.booking_id}
    for parcel in (two, three, three):
        assert (await desk.cancel(parcel.shipment_id, "not wanted", "dan")).shipment.status == "booked"
    assert await ship.list_worklist("to_pack") == set()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "too_late"]
    two, three = await ship.get_shipment(two.shipment_id), await ship.get_shipment(three.shipment_id)
    assert (two.status, two.tracking_no, two.booking_id) == ("cancelled", None, None)
    assert (three.status, three.task, three.after_cancel) == ("booked", "track", None)
    assert (await ship.shipping.get_order_shipments(booked, "user")).unplanned_units == 1
    outcomes = await ship.fetch_rows("SELECT shipment_id, outcome FROM bookings")
    assert dict(map(tuple, outcomes)) == {two.shipment_id: "cancelled", three.shipment_id: "booked"}


async def test_another_address(ship: ShippingShop) -> None:
    """Before anybody is asked at once; a booking is cancelled first, and it is rated and booked anew."""
    cheap, desk = ship.carriers["cheap"], ship.fulfilment
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    [parcel] = await ship.list_shipments(order_id)
    id_ = parcel.shipment_id
    with pytest.raises(Invalid, match="/address"):
        await desk.redirect(id_, Address(**{**ADDRESS, "phone": ""}), "moved", "dan")
    await desk.set_appointment(id_, Appointment(time(9), time(12), 30.1, 120.1), "dan")
    file = await desk.redirect(id_, MOVED, "moved", "dan")
    assert (file.shipment.address, file.shipment.latitude, file.shipment.deliver_from) == (MOVED, None, time(9))
    await ship.work_until_idle()
    first = await ship.get_shipment(id_)
    await desk.pack(id_, None, "dan")
    await desk.redirect(id_, Address(**SHANGHAI), "moved again", "dan")
    await desk.redirect(id_, Address(**ADDRESS), "and back", "dan")
    assert await ship.work_until_idle() == ["replanned", "booked"]
    again = await ship.get_shipment(id_)
    assert again.address == Address(**ADDRESS)
    assert (again.next_address, again.after_cancel, again.packed_at) == (None, None, None)
    assert again.booking_id != first.booking_id
    assert again.tracking_no != first.tracking_no
    assert [one.to.line for one in cheap.booking_requests] == ["Elsewhere 1", ADDRESS["line"]]
    # To where another carrier is cheaper, and the desk books it.
    await desk.redirect(id_, Address(**SHANGHAI), "moved once more", "dan")
    assert await ship.work_until_idle() == ["replanned"]
    third = await ship.get_shipment(id_)
    assert (third.carrier, third.status, third.task, cheap.current_bookings) == ("byhand", "planned", None, set())


async def test_held_while_it_is_booked(ship: ShippingShop) -> None:
    """What is asked already is noted; then nothing more is done, except to cancel it."""
    cheap, desk = ship.carriers["cheap"], ship.fulfilment
    order_id, booking = await ship.start_booking("cheap")
    [parcel] = await ship.list_shipments(order_id)
    await desk.hold(parcel.shipment_id, "asks for the colour", "dan")
    cheap.gate.set()
    assert await booking == "booked"
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    assert await ship.list_worklist("on_hold") == {parcel.shipment_id}
    assert await ship.list_worklist("to_pack") == set()
    for _ in range(2):
        await desk.resume(parcel.shipment_id, "dan")
    assert (await ship.list_event_texts(parcel.shipment_id)).count("let go") == 1
    assert await ship.work_until_idle() == ["unchanged"]
    await desk.hold(parcel.shipment_id, "again", "dan")
    await desk.cancel(parcel.shipment_id, "not wanted", "dan")
    assert await ship.work_until_idle() == ["cancelled"]
    assert await ship.list_worklist("on_hold") == set()
    # Held before anybody is asked: nobody is.
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    job = await ship.claim_one()
    [parcel] = await ship.list_shipments(order_id)
    await desk.hold(parcel.shipment_id, "wait", "dan")
    assert await ship.work_on(job) == "unchanged"
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    await desk.resume(parcel.shipment_id, "dan")
    assert await ship.work_until_idle() == ["booked"]


async def test_lists(ship: ShippingShop) -> None:
    """Each shows what it is for and nothing else, and counts as many."""
    parcels = [(await ship.add_booked_order())[1][0].shipment_id for _ in range(9)]
    fresh, held, late, stuck, silent, lost, back, odd, done = parcels
    await ship.fulfilment.hold(held, "wait", "dan")
    for id_, said in (
        (stuck, [tracking_event("in_transit", -60 * 24 * 3)]),
        (lost, [tracking_event("lost", -60 * 24 * 3)]),
        (back, [tracking_event("returned_to_sender", -9)]),
        (odd, [tracking_event("picked_up", -9), tracking_event(None, -8, code="Z9", text="zapped", unknown=True)]),
        (done, [tracking_event("delivered", -60 * 24 * 9)]),
    ):
        await ship.apply_events(id_, *said)
    old = "booked_at = booked_at - interval '2 days'"
    for id_, change in (
        (late, "promised_on = promised_on - 30"),
        (lost, "promised_on = promised_on - 30"),
        (done, f"promised_on = promised_on - 30, {old}"),
        (silent, f"{old}, last_news_at = now() - interval '3 days'"),
        # Of an earlier booking there was news; this one was made just now.
        (fresh, "last_news_at = now() - interval '3 days'"),
    ):
        await ship.fetch_rows(f"UPDATE shipments SET {change} WHERE shipment_id = $1 RETURNING 1", id_)
    assert {which: await ship.list_worklist(which) for which in LISTS} == {
        "to_pack": {fresh, late, silent},
        "parked": set(),
        "on_hold": {held},
        "overdue": {late},
        "stalled": {stuck},
        "no_first_scan": {silent},
        "undelivered": {lost, back},
        "anomalies": {odd},
        "all": set(parcels),
    }
    why = {
        which: (await ship.fulfilment.list_worklist(which, None, None, 1)).items[0].reason
        for which in ("on_hold", "undelivered", "anomalies")
    }
    assert why == {"on_hold": "wait", "undelivered": "lost", "anomalies": "zapped"}
    seen, after = [], None
    while True:
        page = await ship.fulfilment.list_worklist("all", "hz", after, 4)
        seen += [item.shipment.shipment_id for item in page.items]
        if page.next is None:
            break
        after = UUID(page.next)
    assert seen == parcels
    assert (await ship.fulfilment.list_worklist("all", "sh", None, 4)).items == []


LISTS: tuple[WorklistName, ...] = (
    "to_pack",
    "parked",
    "on_hold",
    "overdue",
    "stalled",
    "no_first_scan",
    "undelivered",
    "anomalies",
    "all",
)


async def test_waves(ship: ShippingShop) -> None:
    """The oldest first, each parcel in one wave; units by shelf; what is cancelled since stays on its shelf."""
    made = [(await ship.add_booked_order(("a", 1, 0), ("b", units, 0)))[1] for units in (1, 2, 1)]
    expected = [one.shipment_id for parcels in made for one in parcels]
    await ship.add_booked_order(("c", 1, 0))
    wave = await ship.fulfilment.create_wave("hz", 2, "dan")
    assert len(wave.shipments) == 2
    rest = await ship.fulfilment.create_wave("hz", 50, "dan")
    assert not set(wave.shipments) & set(rest.shipments)
    every = [*wave.shipments, *rest.shipments]
    assert every == sorted(expected)
    picks = [pick for one in (wave, rest) for pick in one.picks]
    assert sum(pick.quantity for pick in picks if pick.sku == "a") == 3
    assert sum(pick.quantity for pick in picks if pick.sku == "b") == 4
    assert all(pick.quantity == sum(pick.shipments.values()) for pick in picks)
    assert [pick.shelf for pick in wave.picks] == sorted(pick.shelf for pick in wave.picks)
    with pytest.raises(InvalidShipmentState, match="nothing is to be packed"):
        await ship.fulfilment.create_wave("hz", 50, "dan")
    with pytest.raises(Invalid, match="no warehouse moon"):
        await ship.fulfilment.create_wave("moon", 50, "dan")
    with pytest.raises(NoSuchShipment):
        await ship.fulfilment.get_wave(NOBODY)
    assert await ship.fetch_value("SELECT count(*) FROM waves") == 2
    await ship.fulfilment.cancel(wave.shipments[0], "not wanted", "dan")
    await ship.work_until_idle()
    again = await ship.fulfilment.get_wave(wave.wave_id)
    assert again.shipments == wave.shipments
    assert {number for pick in again.picks for number in pick.shipments} == {2}


async def test_appointments(ship: ShippingShop) -> None:
    _, [parcel] = await ship.add_booked_order()
    id_, whole = parcel.shipment_id, Appointment(time(9), time(12), 30.1, 120.1)
    for wanted in (
        Appointment(deliver_from=time(9)),
        Appointment(deliver_to=time(9)),
        Appointment(latitude=30.0),
        Appointment(time(9), time(12), longitude=120.1),
        Appointment(time(9), time(9)),
        Appointment(time(12), time(9)),
    ):
        with pytest.raises(Invalid, match=r"both ends|ends before it begins"):
            await ship.fulfilment.set_appointment(id_, wanted, "dan")
    made = (await ship.fulfilment.set_appointment(id_, whole, "dan")).shipment
    assert Appointment(made.deliver_from, made.deliver_to, made.latitude, made.longitude) == whole
    made = (await ship.fulfilment.set_appointment(id_, Appointment(), "dan")).shipment
    assert Appointment(made.deliver_from, made.deliver_to, made.latitude, made.longitude) == Appointment()
    await ship.apply_events(id_, tracking_event("delivered", -1))
    with pytest.raises(InvalidShipmentState, match="it is delivered"):
        await ship.fulfilment.set_appointment(id_, whole, "dan")


async def test_staff_say_how_a_parcel_ended(ship: ShippingShop) -> None:
    order_id, [lost] = await ship.add_booked_order()
    file = await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.LOST, "the carrier owns to it", "dan")
    assert (file.shipment.status, file.events[-1].text, file.events[-1].source) == (
        *("lost", "the carrier owns to it", "staff"),
    )
    assert await ship.list_worklist("undelivered") == {lost.shipment_id}
    again = await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.LOST, "again", "dan")
    assert len(again.events) == len(file.events)
    with pytest.raises(InvalidShipmentState, match="it is lost"):
        await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.DELIVERED, "after all", "dan")
    replaced = await ship.fulfilment.repacking.reship(lost.shipment_id, "lost", "dan")
    with pytest.raises(InvalidShipmentState, match="it is planned"):
        await ship.fulfilment.set_outcome(replaced, ShipmentStatus.DELIVERED, "too early", "dan")
    await ship.work_until_idle()
    await ship.fulfilment.set_outcome(replaced, ShipmentStatus.DELIVERED, "the customer says so", "dan")
    assert await ship.order_status(order_id) == "delivered"
