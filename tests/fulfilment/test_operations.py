"""Work of staff on shipments, and the worklists that say what to do."""

from __future__ import annotations

from datetime import time
from uuid import UUID

import pytest

from commerce.fulfilment.errors import NoSuchWave
from commerce.kernel.address import Address
from commerce.kernel.errors import Invalid, ProblemError
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from commerce.shipping.model import Appointment, Shipment, ShipmentStatus, WorklistName
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event

NEW_ADDRESS = Address(**{**ADDRESS, "line": "Elsewhere 1"})
UNKNOWN_ID = UUID(int=7)


def appointment_of(shipment: Shipment) -> Appointment:
    return Appointment(shipment.deliver_from, shipment.deliver_to, shipment.latitude, shipment.longitude)


async def test_pack_shipment_is_recorded_once_with_its_tracking_no(ship: ShippingShop) -> None:
    fulfilment = ship.fulfilment
    _, [booked] = await ship.add_booked_order()
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    _, [other] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert await ship.list_worklist("to_pack") == {booked.shipment_id, byhand.shipment_id, other.shipment_id}
    for shipment, number, reason in (
        (booked, "ANOTHER-1", f"it is booked as {booked.tracking_no}, not as ANOTHER-1"),
        (byhand, None, "give the number that is on byhand's label"),
    ):
        with pytest.raises(ProblemError, match=reason):
            await fulfilment.pack(shipment.shipment_id, number, "dan")
    for number in (None, None, booked.tracking_no):
        details = await fulfilment.pack(booked.shipment_id, number, "dan")
    assert (details.shipment.packed_by, [event.text for event in details.events].count("it is packed")) == ("dan", 1)
    with pytest.raises(InvalidShipmentState, match="not as ANOTHER-1"):
        await fulfilment.pack(booked.shipment_id, "ANOTHER-1", "dan")
    details = await fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")
    assert (details.shipment.status, details.shipment.tracking_no) == ("booked", "BH-0001")
    assert await ship.find_task(byhand.shipment_id) == "shipment.subscribe"
    with pytest.raises(InvalidShipmentState, match="BH-0001 belongs to another shipment"):
        await fulfilment.pack(other.shipment_id, "BH-0001", "dan")
    for same in ("bh-0001", " BH-00 01", "b h-0 0 0 1 "):
        with pytest.raises(InvalidShipmentState, match="BH-0001 belongs to another shipment"):
            await fulfilment.pack(other.shipment_id, same, "dan")
        assert (await fulfilment.pack(byhand.shipment_id, same, "dan")).shipment.tracking_no == "BH-0001"
    assert (await ship.get_shipment(other.shipment_id)).booking_id is None
    assert await ship.work_until_idle() == ["subscribed"]
    assert ship.carriers["byhand"].subscribed == ["BH-0001"]
    assert await ship.find_task(byhand.shipment_id) == "shipment.track"
    assert await ship.list_worklist("to_pack") == {other.shipment_id}
    for call in (
        fulfilment.pack(UNKNOWN_ID, None, "dan"),
        fulfilment.hold(UNKNOWN_ID, "r", "dan"),
        fulfilment.resume(UNKNOWN_ID, "dan"),
        fulfilment.cancel(UNKNOWN_ID, "r", "dan"),
        fulfilment.get(UNKNOWN_ID),
    ):
        with pytest.raises(NoSuchShipment):
            await call


async def test_pack_refuses_held_or_cancelled_shipment(ship: ShippingShop) -> None:
    fulfilment = ship.fulfilment
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    [planned] = await ship.list_shipments(order_id)
    with pytest.raises(InvalidShipmentState, match="no carrier is booked for it yet"):
        await fulfilment.pack(planned.shipment_id, "X-0001", "dan")
    await ship.work_until_idle()
    await fulfilment.hold(planned.shipment_id, "asks for the colour", "dan")
    with pytest.raises(InvalidShipmentState, match="held: asks for the colour"):
        await fulfilment.pack(planned.shipment_id, None, "dan")
    await fulfilment.resume(planned.shipment_id, "dan")
    await fulfilment.cancel(planned.shipment_id, "not wanted", "dan")
    with pytest.raises(InvalidShipmentState, match="being cancelled"):
        await fulfilment.pack(planned.shipment_id, None, "dan")
    with pytest.raises(InvalidShipmentState, match="being cancelled"):
        await fulfilment.redirect(planned.shipment_id, NEW_ADDRESS, "moved", "dan")
    assert (await ship.get_shipment(planned.shipment_id)).next_address is None
    await ship.work_until_idle()
    with pytest.raises(InvalidShipmentState, match="it is cancelled"):
        await fulfilment.pack(planned.shipment_id, None, "dan")
    _, [gone] = await ship.add_booked_order()
    await ship.apply_events(gone.shipment_id, tracking_event("picked_up", -1))
    for call in (
        fulfilment.pack(gone.shipment_id, None, "dan"),
        fulfilment.hold(gone.shipment_id, "r", "dan"),
        fulfilment.cancel(gone.shipment_id, "r", "dan"),
        fulfilment.redirect(gone.shipment_id, NEW_ADDRESS, "r", "dan"),
    ):
        with pytest.raises(InvalidShipmentState):
            await call


async def test_cancel_shipment_ends_at_once_or_after_carrier_answers(ship: ShippingShop) -> None:
    """A shipment without a booking is cancelled at once, another when its carrier has answered."""
    cheap, fulfilment = ship.carriers["cheap"], ship.fulfilment
    planned, booked, late = await ship.add_order(), await ship.add_order(), await ship.add_order()
    assert [await ship.work_on(job) for job in await ship.claim()] == ["planned"] * 3
    [first] = await ship.list_shipments(planned)
    for _ in range(2):
        assert (await fulfilment.cancel(first.shipment_id, "not wanted", "dan")).shipment.status == "cancelled"
    assert cheap.requests.total() == 0
    await ship.work_until_idle()
    [two], [three] = await ship.list_shipments(booked), await ship.list_shipments(late)
    assert three.booking_id is not None
    cheap.handed_over = {three.booking_id}
    for shipment in (two, three, three):
        assert (await fulfilment.cancel(shipment.shipment_id, "not wanted", "dan")).shipment.status == "booked"
    assert await ship.list_worklist("to_pack") == set()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "too_late"]
    two, three = await ship.get_shipment(two.shipment_id), await ship.get_shipment(three.shipment_id)
    assert (two.status, two.tracking_no, two.booking_id) == ("cancelled", None, None)
    assert (three.status, three.after_cancel) == ("booked", None)
    assert await ship.find_task(three.shipment_id) == "shipment.track"
    assert (await ship.shipping.get_order_shipments(booked, "user")).unplanned_units == 1
    outcomes = await ship.fetch_rows("SELECT shipment_id, outcome FROM bookings")
    assert dict(map(tuple, outcomes)) == {two.shipment_id: "cancelled", three.shipment_id: "booked"}


async def test_redirect_shipment_cancels_booking_and_chooses_carrier_again(ship: ShippingShop) -> None:
    """Without a booking the address changes at once. A booking is cancelled first and then made again."""
    cheap, fulfilment = ship.carriers["cheap"], ship.fulfilment
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    [shipment] = await ship.list_shipments(order_id)
    id_ = shipment.shipment_id
    with pytest.raises(Invalid, match="/address"):
        await fulfilment.redirect(id_, Address(**{**ADDRESS, "phone": ""}), "moved", "dan")
    await fulfilment.set_appointment(id_, Appointment(time(9), time(12), 30.1, 120.1), "dan")
    details = await fulfilment.redirect(id_, NEW_ADDRESS, "moved", "dan")
    assert (details.shipment.address, details.shipment.latitude, details.shipment.deliver_from) == (
        NEW_ADDRESS,
        None,
        time(9),
    )
    await ship.work_until_idle()
    first = await ship.get_shipment(id_)
    await fulfilment.pack(id_, None, "dan")
    await fulfilment.redirect(id_, Address(**SHANGHAI), "moved again", "dan")
    await fulfilment.redirect(id_, Address(**ADDRESS), "and back", "dan")
    assert await ship.work_until_idle() == ["replanned", "booked"]
    again = await ship.get_shipment(id_)
    assert again.address == Address(**ADDRESS)
    assert (again.next_address, again.after_cancel, again.packed_at) == (None, None, None)
    assert again.booking_id != first.booking_id
    assert again.tracking_no != first.tracking_no
    assert [request.recipient.line for request in cheap.booking_requests] == ["Elsewhere 1", ADDRESS["line"]]
    # At the next address another carrier is cheaper, worklist staff book.
    await fulfilment.redirect(id_, Address(**SHANGHAI), "moved once more", "dan")
    assert await ship.work_until_idle() == ["replanned"]
    third = await ship.get_shipment(id_)
    assert (third.carrier, third.status, cheap.current_bookings) == ("byhand", "planned", set())
    assert await ship.find_task(id_) is None


async def test_hold_shipment_during_booking_stops_until_resumed(ship: ShippingShop) -> None:
    """A booking in progress is recorded; after that nothing is done with the shipment except to cancel it."""
    cheap, fulfilment = ship.carriers["cheap"], ship.fulfilment
    order_id, booking = await ship.start_booking("cheap")
    [shipment] = await ship.list_shipments(order_id)
    await fulfilment.hold(shipment.shipment_id, "asks for the colour", "dan")
    cheap.gate.set()
    assert await booking == "booked"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["held"]
    assert await ship.list_worklist("on_hold") == {shipment.shipment_id}
    assert await ship.list_worklist("to_pack") == set()
    for _ in range(2):
        await fulfilment.resume(shipment.shipment_id, "dan")
    assert (await ship.list_event_texts(shipment.shipment_id)).count("resumed") == 1
    assert await ship.work_until_idle() == ["unchanged"]
    await fulfilment.hold(shipment.shipment_id, "again", "dan")
    await fulfilment.cancel(shipment.shipment_id, "not wanted", "dan")
    assert await ship.work_until_idle() == ["cancelled"]
    assert await ship.list_worklist("on_hold") == set()
    # Held before the request: none is sent.
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    job = await ship.claim_one()
    [shipment] = await ship.list_shipments(order_id)
    await fulfilment.hold(shipment.shipment_id, "wait", "dan")
    assert await ship.work_on(job) == "held"
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["held"]
    await fulfilment.resume(shipment.shipment_id, "dan")
    assert await ship.work_until_idle() == ["booked"]


async def test_worklists_hold_only_their_shipments_and_count_them(ship: ShippingShop) -> None:
    """Each worklist has its shipments and no others, and is counted as long as it is."""
    shipment_ids = [(await ship.add_booked_order())[1][0].shipment_id for _ in range(9)]
    fresh, held, overdue, stalled, unscanned, lost, returned, anomalous, delivered = shipment_ids
    await ship.fulfilment.hold(held, "wait", "dan")
    for shipment_id, events in (
        (stalled, [tracking_event("in_transit", -60 * 24 * 3)]),
        (lost, [tracking_event("lost", -60 * 24 * 3)]),
        (returned, [tracking_event("returned_to_sender", -9)]),
        (
            anomalous,
            [tracking_event("picked_up", -9), tracking_event(None, -8, code="Z9", text="zapped", is_unknown_code=True)],
        ),
        (delivered, [tracking_event("delivered", -60 * 24 * 9)]),
    ):
        await ship.apply_events(shipment_id, *events)
    old = "booked_at = booked_at - interval '2 days'"
    for shipment_id, change in (
        (overdue, "promised_on = promised_on - 30"),
        (lost, "promised_on = promised_on - 30"),
        (delivered, f"promised_on = promised_on - 30, {old}"),
        (unscanned, f"{old}, last_event_at = now() - interval '3 days'"),
        # An earlier booking had events; the current one was made just now.
        (fresh, "last_event_at = now() - interval '3 days'"),
    ):
        await ship.fetch_rows(f"UPDATE shipments SET {change} WHERE shipment_id = $1 RETURNING 1", shipment_id)
    assert {worklist: await ship.list_worklist(worklist) for worklist in WORKLISTS} == {
        "to_pack": {fresh, overdue, unscanned},
        "parked": set(),
        "on_hold": {held},
        "overdue": {overdue},
        "stalled": {stalled},
        "no_first_scan": {unscanned},
        "undelivered": {lost, returned},
        "anomalies": {anomalous},
        "all": set(shipment_ids),
    }
    reasons = {
        worklist: (await ship.fulfilment.list_worklist(worklist, None, None, 1)).items[0].reason
        for worklist in ("on_hold", "undelivered", "anomalies")
    }
    assert reasons == {"on_hold": "wait", "undelivered": "lost", "anomalies": "zapped"}
    listed, after = [], None
    while True:
        page = await ship.fulfilment.list_worklist("all", "hz", after, 4)
        listed += [item.shipment.shipment_id for item in page.items]
        if page.next is None:
            break
        after = UUID(page.next)
    assert listed == shipment_ids
    assert (await ship.fulfilment.list_worklist("all", "sh", None, 4)).items == []


WORKLISTS: tuple[WorklistName, ...] = (
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


async def test_waves_take_oldest_shipments_once_and_list_units_by_shelf(ship: ShippingShop) -> None:
    """Waves take the oldest first, each shipment once. Units of shipments cancelled later are not picked."""
    orders = [(await ship.add_booked_order(("a", 1, 0), ("b", units, 0)))[1] for units in (1, 2, 1)]
    expected = [shipment.shipment_id for shipments in orders for shipment in shipments]
    await ship.add_booked_order(("c", 1, 0))
    wave = await ship.fulfilment.create_wave("hz", 2, "dan")
    assert len(wave.shipments) == 2
    second_wave = await ship.fulfilment.create_wave("hz", 50, "dan")
    assert not set(wave.shipments) & set(second_wave.shipments)
    all_shipments = [*wave.shipments, *second_wave.shipments]
    assert all_shipments == sorted(expected)
    picks = [pick for each in (wave, second_wave) for pick in each.picks]
    assert sum(pick.quantity for pick in picks if pick.sku == "a") == 3
    assert sum(pick.quantity for pick in picks if pick.sku == "b") == 4
    assert all(pick.quantity == sum(pick.shipments.values()) for pick in picks)
    assert [pick.shelf for pick in wave.picks] == sorted(pick.shelf for pick in wave.picks)
    with pytest.raises(InvalidShipmentState, match="all shipments to pack there are in waves already"):
        await ship.fulfilment.create_wave("hz", 50, "dan")
    with pytest.raises(Invalid, match="no warehouse moon"):
        await ship.fulfilment.create_wave("moon", 50, "dan")
    with pytest.raises(NoSuchWave):
        await ship.fulfilment.get_wave(UNKNOWN_ID)
    assert await ship.fetch_value("SELECT count(*) FROM waves") == 2
    await ship.fulfilment.cancel(wave.shipments[0], "not wanted", "dan")
    await ship.work_until_idle()
    again = await ship.fulfilment.get_wave(wave.wave_id)
    assert again.shipments == wave.shipments
    assert {number for pick in again.picks for number in pick.shipments} == {2}


async def test_appointment_incomplete_or_too_late_is_refused(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order()
    id_, whole = shipment.shipment_id, Appointment(time(9), time(12), 30.1, 120.1)
    for incomplete in (
        Appointment(deliver_from=time(9)),
        Appointment(deliver_to=time(9)),
        Appointment(latitude=30.0),
        Appointment(time(9), time(12), longitude=120.1),
        Appointment(time(9), time(9)),
        Appointment(time(12), time(9)),
    ):
        with pytest.raises(Invalid, match=r"both ends|must be after"):
            await ship.fulfilment.set_appointment(id_, incomplete, "dan")
    shipment = (await ship.fulfilment.set_appointment(id_, whole, "dan")).shipment
    assert appointment_of(shipment) == whole
    shipment = (await ship.fulfilment.set_appointment(id_, Appointment(), "dan")).shipment
    assert appointment_of(shipment) == Appointment()
    await ship.apply_events(id_, tracking_event("delivered", -1))
    with pytest.raises(InvalidShipmentState, match="it is delivered"):
        await ship.fulfilment.set_appointment(id_, whole, "dan")


async def test_set_outcome_ends_shipment_once(ship: ShippingShop) -> None:
    order_id, [lost] = await ship.add_booked_order()
    details = await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.LOST, "the carrier admits it", "dan")
    assert (details.shipment.status, details.events[-1].text, details.events[-1].source) == (
        *("lost", "the carrier admits it", "staff"),
    )
    assert await ship.list_worklist("undelivered") == {lost.shipment_id}
    again = await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.LOST, "again", "dan")
    assert len(again.events) == len(details.events)
    with pytest.raises(InvalidShipmentState, match="it is lost"):
        await ship.fulfilment.set_outcome(lost.shipment_id, ShipmentStatus.DELIVERED, "after all", "dan")
    replaced = await ship.fulfilment.repacking.reship(lost.shipment_id, "lost", "dan")
    with pytest.raises(InvalidShipmentState, match="it is planned"):
        await ship.fulfilment.set_outcome(replaced, ShipmentStatus.DELIVERED, "too early", "dan")
    await ship.work_until_idle()
    await ship.fulfilment.set_outcome(replaced, ShipmentStatus.DELIVERED, "the customer says so", "dan")
    assert await ship.order_status(order_id) == "delivered"
