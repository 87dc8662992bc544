"""Orders whose money goes back: nothing of them leaves that can still be stopped."""

from __future__ import annotations

import pytest

from commerce.kernel.address import Address
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, FakeCarrier, ShippingShop, refusal, tracking_event


async def test_before_it_is_planned(ship: ShippingShop) -> None:
    order_id = await ship.order()
    await ship.refund_all(order_id)
    assert await ship.work() == ["stopped"]
    assert await ship.parcels(order_id) == []
    assert await ship.status(order_id) == "paid"
    await ship.due()
    assert await ship.work() == []
    assert await ship.desk.list_unplanned_orders() == []
    # The refund comes to nothing: it is sent after all.
    await ship.rows("UPDATE refunds SET status = 'failed', ended_at = now() RETURNING 1")
    await ship.desk.retry_planning(order_id)
    assert await ship.work() == ["planned", "booked"]
    with pytest.raises(NoSuchShipment):
        await ship.desk.retry_planning(order_id)


async def test_while_it_is_planned(ship: ShippingShop) -> None:
    """Nobody was asked: it is cancelled at once."""
    order_id, other = await ship.order(), await ship.order()
    assert [await ship.one(job) for job in await ship.jobs.claim(100, [], [])] == ["planned", "planned"]
    await ship.refund_all(order_id)
    await ship.refund_all(other)
    for one in (order_id, other):
        words = [await ship.one(job) for job in await ship.jobs.claim(100, [], []) if job.order_id == one]
        assert words == ["stopped", "stopped"]
        [parcel] = await ship.parcels(one)
        assert (parcel.status, parcel.task, parcel.ended_at is not None) == ("cancelled", None, True)
        with pytest.raises(InvalidShipmentState, match="the order is refunded"):
            await ship.desk.repacking.reship(parcel.shipment_id, "again", "dan")
        await ship.due()
    assert ship.carriers["cheap"].asked.total() == 0


async def test_whoever_it_waits_for(ship: ShippingShop) -> None:
    """A person who holds it, a person who has to help, a carrier that is down, the desk: none of it leaves, all at
    once, and no list of the desk shows it any more."""
    _, [held] = await ship.sent()
    await ship.desk.hold(held.shipment_id, "the customer calls back", "dan")
    ship.carriers["cheap"].says, ship.carriers["quick"].says = [refusal()], [refusal()]
    _, [parked] = await ship.sent()
    assert parked.parked
    _, [byhand] = await ship.sent(ship_to=[SHANGHAI])
    ship.down = ["cheap", "quick"]
    _, [waiting] = await ship.sent()
    assert (waiting.status, waiting.booking_id) == ("planned", None)
    ship.down = []
    parcels = (held, parked, byhand, waiting)
    assert await ship.on("to_pack") == {byhand.shipment_id}
    for parcel in parcels:
        await ship.refund_all(parcel.order_id)
    assert (await ship.work()).count("cancelled") == 1
    assert [(await ship.parcel(parcel.shipment_id)).status for parcel in parcels] == ["cancelled"] * 4
    assert [await ship.on(which) for which in ("to_pack", "parked", "on_hold")] == [set(), set(), set()]
    assert ship.carriers["cheap"].standing == set()
    await ship.check()
    with pytest.raises(InvalidShipmentState, match="it is cancelled"):
        await ship.desk.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_before_the_driver_has_seen_it(ship: ShippingShop) -> None:
    _, [byhand] = await ship.sent(ship_to=[SHANGHAI])
    await ship.refund_all(byhand.order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.desk.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_while_it_gets_another_address(ship: ShippingShop) -> None:
    """The booking is being cancelled for a new one: there is no new one."""
    order_id, [parcel] = await ship.sent()
    await ship.desk.redirect(parcel.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    await ship.refund_all(order_id)
    assert await ship.work() == ["replanned", "stopped"]
    assert (await ship.parcel(parcel.shipment_id)).status == "cancelled"
    assert ship.carriers["cheap"].standing == set()


async def test_in_the_middle_of_a_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    order_id, booking = await ship.booking("cheap")
    await ship.refund_all(order_id)
    cheap.waits.set()
    assert await booking == "booked"
    assert sorted(await ship.work()) == ["cancelled", "stopped"]
    assert cheap.standing == set()


async def test_unclear_and_then_stopped(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    cheap.says = ["lost"]
    order_id = await ship.order()
    assert await ship.one(await ship.claimed()) == "planned"
    assert await ship.one(await ship.claimed()) == "unclear"
    await ship.refund_all(order_id)
    await ship.due()
    assert set(await ship.work()) == {"stopped", "cancelled"}
    assert (cheap.asked.total(), cheap.standing) == (1, set())
    [parcel] = await ship.parcels(order_id)
    assert parcel.status == "cancelled"


@pytest.mark.parametrize("calls", [True, False])
async def test_booked_and_not_handed_over(ship: ShippingShop, calls: bool) -> None:
    """Also where nobody outside is called: a van must not take it."""
    cheap: FakeCarrier = ship.carriers["cheap"]
    cheap.is_external = calls
    order_id, [parcel] = await ship.sent()
    await ship.refund_all(order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.desk.pack(parcel.shipment_id, None, "dan")
    assert await ship.work() == ["stopped", "cancelled"]
    assert cheap.standing == set()
    # Handed over, it goes its way.
    order_id, [gone] = await ship.sent()
    await ship.hear(gone.shipment_id, tracking_event("picked_up", -1))
    await ship.refund_all(order_id)
    await ship.due()
    assert sorted(await ship.work()) == ["unchanged", "stopped"]
    assert (await ship.parcel(gone.shipment_id)).status == "picked_up"


async def test_the_courier_has_it_and_has_not_said_so(ship: ShippingShop) -> None:
    """It is too late: it is tried again now and then, not all the time, till the news comes."""
    cheap = ship.carriers["cheap"]
    order_id, [parcel] = await ship.sent()
    cheap.handed_over = set(cheap.known)
    await ship.refund_all(order_id)
    assert await ship.work() == ["stopped", "too_late"]
    await ship.due()
    assert await ship.work() == ["stopped", "too_late"]
    assert parcel.tracking_no is not None
    cheap.tells[parcel.tracking_no] = [tracking_event("picked_up", -1)]
    await ship.due()
    assert await ship.work() == ["status_changed"]
    await ship.due()
    assert await ship.work() == ["unchanged"]


async def test_what_does_not_stop_an_order(ship: ShippingShop) -> None:
    """A part that goes back, an earlier way to pay that was given up, and cash that is still to come."""
    some, other, cash = await ship.order(("a", 3, 0)), await ship.order(), await ship.order(("a", 3, 0), cod=200)
    await ship.refund_all(cash)
    await ship.rows("UPDATE payments SET plan_revision = 2 WHERE order_id = $1 RETURNING 1", other)
    await ship.rows(_GIVEN_UP, other)
    for order_id, share in ((some, 299), (other, 100)):
        await ship.rows(_REFUND, order_id, share, 1)
    assert sorted(await ship.work()) == [*["booked"] * 3, *["planned"] * 3]
    # The rest of it as well: now it is all.
    await ship.rows(_REFUND, some, 1, 1)
    await ship.due()
    assert sorted(await ship.work()) == ["cancelled", "unchanged", "unchanged", "stopped", "stopped"]
    [parcel] = await ship.parcels(some)
    assert parcel.status == "cancelled"
    # What failed has not gone back.
    failed = await ship.order()
    await ship.refund_all(failed)
    await ship.rows("UPDATE refunds SET status = 'failed', ended_at = now() WHERE order_id = $1 RETURNING 1", failed)
    assert await ship.work() == ["planned", "booked"]


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
