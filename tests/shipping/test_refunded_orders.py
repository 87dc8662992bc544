"""Orders whose money goes back: nothing of them leaves that can still be stopped."""

from __future__ import annotations

import pytest

from commerce.kernel.address import Address
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, FakeCarrier, ShippingShop, refusal, tracking_event


async def test_before_it_is_planned(ship: ShippingShop) -> None:
    order_id = await ship.add_order()
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["stopped"]
    assert await ship.list_shipments(order_id) == []
    assert await ship.order_status(order_id) == "paid"
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    assert await ship.fulfilment.list_unplanned_orders() == []
    # The refund comes to nothing: it is sent after all.
    await ship.fetch_rows("UPDATE refunds SET status = 'failed', ended_at = now() RETURNING 1")
    await ship.fulfilment.retry_planning(order_id)
    assert await ship.work_until_idle() == ["planned", "booked"]
    with pytest.raises(NoSuchShipment):
        await ship.fulfilment.retry_planning(order_id)


async def test_while_it_is_planned(ship: ShippingShop) -> None:
    """Nobody was asked: it is cancelled at once."""
    order_id, other = await ship.add_order(), await ship.add_order()
    assert [await ship.work_on(job) for job in await ship.jobs.claim(100, [], [])] == ["planned", "planned"]
    await ship.refund_all(order_id)
    await ship.refund_all(other)
    for one in (order_id, other):
        words = [await ship.work_on(job) for job in await ship.jobs.claim(100, [], []) if job.order_id == one]
        assert words == ["stopped", "stopped"]
        [parcel] = await ship.list_shipments(one)
        assert (parcel.status, parcel.task, parcel.ended_at is not None) == ("cancelled", None, True)
        with pytest.raises(InvalidShipmentState, match="the order is refunded"):
            await ship.fulfilment.repacking.reship(parcel.shipment_id, "again", "dan")
        await ship.make_all_due()
    assert ship.carriers["cheap"].requests.total() == 0


async def test_whoever_it_waits_for(ship: ShippingShop) -> None:
    """A person who holds it, a person who has to help, a carrier that is down, the desk: none of it leaves, all at
    once, and no list of the desk shows it any more."""
    _, [held] = await ship.add_booked_order()
    await ship.fulfilment.hold(held.shipment_id, "the customer calls back", "dan")
    ship.carriers["cheap"].next_outcomes, ship.carriers["quick"].next_outcomes = [refusal()], [refusal()]
    _, [parked] = await ship.add_booked_order()
    assert parked.parked
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    ship.unavailable_systems = ["cheap", "quick"]
    _, [waiting] = await ship.add_booked_order()
    assert (waiting.status, waiting.booking_id) == ("planned", None)
    ship.unavailable_systems = []
    parcels = (held, parked, byhand, waiting)
    assert await ship.list_worklist("to_pack") == {byhand.shipment_id}
    for parcel in parcels:
        await ship.refund_all(parcel.order_id)
    assert (await ship.work_until_idle()).count("cancelled") == 1
    assert [(await ship.get_shipment(parcel.shipment_id)).status for parcel in parcels] == ["cancelled"] * 4
    assert [await ship.list_worklist(which) for which in ("to_pack", "parked", "on_hold")] == [set(), set(), set()]
    assert ship.carriers["cheap"].current_bookings == set()
    await ship.check_records()
    with pytest.raises(InvalidShipmentState, match="it is cancelled"):
        await ship.fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_before_the_driver_has_seen_it(ship: ShippingShop) -> None:
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    await ship.refund_all(byhand.order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_while_it_gets_another_address(ship: ShippingShop) -> None:
    """The booking is being cancelled for a new one: there is no new one."""
    order_id, [parcel] = await ship.add_booked_order()
    await ship.fulfilment.redirect(parcel.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["replanned", "stopped"]
    assert (await ship.get_shipment(parcel.shipment_id)).status == "cancelled"
    assert ship.carriers["cheap"].current_bookings == set()


async def test_in_the_middle_of_a_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    order_id, booking = await ship.start_booking("cheap")
    await ship.refund_all(order_id)
    cheap.gate.set()
    assert await booking == "booked"
    assert sorted(await ship.work_until_idle()) == ["cancelled", "stopped"]
    assert cheap.current_bookings == set()


async def test_unclear_and_then_stopped(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    cheap.next_outcomes = ["lost"]
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    await ship.refund_all(order_id)
    await ship.make_all_due()
    assert set(await ship.work_until_idle()) == {"stopped", "cancelled"}
    assert (cheap.requests.total(), cheap.current_bookings) == (1, set())
    [parcel] = await ship.list_shipments(order_id)
    assert parcel.status == "cancelled"


@pytest.mark.parametrize("calls", [True, False])
async def test_booked_and_not_handed_over(ship: ShippingShop, calls: bool) -> None:
    """Also where nobody outside is called: a van must not take it."""
    cheap: FakeCarrier = ship.carriers["cheap"]
    cheap.is_external = calls
    order_id, [parcel] = await ship.add_booked_order()
    await ship.refund_all(order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.fulfilment.pack(parcel.shipment_id, None, "dan")
    assert await ship.work_until_idle() == ["stopped", "cancelled"]
    assert cheap.current_bookings == set()
    # Handed over, it goes its way.
    order_id, [gone] = await ship.add_booked_order()
    await ship.apply_events(gone.shipment_id, tracking_event("picked_up", -1))
    await ship.refund_all(order_id)
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["unchanged", "stopped"]
    assert (await ship.get_shipment(gone.shipment_id)).status == "picked_up"


async def test_the_courier_has_it_and_has_not_said_so(ship: ShippingShop) -> None:
    """It is too late: it is tried again now and then, not all the time, till the news comes."""
    cheap = ship.carriers["cheap"]
    order_id, [parcel] = await ship.add_booked_order()
    cheap.handed_over = set(cheap.bookings)
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["stopped", "too_late"]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["stopped", "too_late"]
    assert parcel.tracking_no is not None
    cheap.tracking[parcel.tracking_no] = [tracking_event("picked_up", -1)]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["status_changed"]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["unchanged"]


async def test_what_does_not_stop_an_order(ship: ShippingShop) -> None:
    """A part that goes back, an earlier way to pay that was given up, and cash that is still to come."""
    some, other, cash = (
        await ship.add_order(("a", 3, 0)),
        await ship.add_order(),
        await ship.add_order(("a", 3, 0), cod=200),
    )
    await ship.refund_all(cash)
    await ship.fetch_rows("UPDATE payments SET plan_revision = 2 WHERE order_id = $1 RETURNING 1", other)
    await ship.fetch_rows(_GIVEN_UP, other)
    for order_id, share in ((some, 299), (other, 100)):
        await ship.fetch_rows(_REFUND, order_id, share, 1)
    assert sorted(await ship.work_until_idle()) == [*["booked"] * 3, *["planned"] * 3]
    # The rest of it as well: now it is all.
    await ship.fetch_rows(_REFUND, some, 1, 1)
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "unchanged", "unchanged", "stopped", "stopped"]
    [parcel] = await ship.list_shipments(some)
    assert parcel.status == "cancelled"
    # What failed has not gone back.
    failed = await ship.add_order()
    await ship.refund_all(failed)
    await ship.fetch_rows(
        "UPDATE refunds SET status = 'failed', ended_at = now() WHERE order_id = $1 RETURNING 1", failed
    )
    assert await ship.work_until_idle() == ["planned", "booked"]


_GIVEN_UP = """
INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, currency, status,
                      created_at, expires_at, captured_at, due_at)
SELECT gen_random_uuid(), order_id, user_id, 1, tender_no, method, flow, amount_minor, currency, status, created_at,
       expires_at, captured_at, due_at
FROM payments WHERE order_id = $1 RETURNING 1
"""
_REFUND = """
INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, created_at,
                     due_at)
SELECT gen_random_uuid(), payment_id, order_id, gen_random_uuid()::text, $2, currency, 'r', 'test', now(),
       now() + interval '1 day'
FROM payments WHERE order_id = $1 AND plan_revision = $3 RETURNING 1
"""
