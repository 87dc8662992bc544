"""Refunded orders: shipments that can still be stopped are cancelled, and the order with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commerce.fulfilment.errors import NotToBePlanned
from commerce.kernel.address import Address
from commerce.shipping.errors import InvalidShipmentState
from tests.support.fake_carrier import FakeCarrier, refusal
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event


async def test_order_refunded_before_planning_is_cancelled(ship: ShippingShop) -> None:
    """The stock returns, and a refund that fails later does not bring the order back."""
    order_id = await ship.add_order()
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["stopped", "cancelled"]
    assert await ship.list_shipments(order_id) == []
    assert await ship.order_status(order_id) == "cancelled"
    assert await ship.fetch_value("SELECT cancel_reason FROM orders WHERE order_id = $1", order_id) == "refunded"
    assert await ship.fetch_value("SELECT units FROM releases WHERE release_id = $1", order_id) == '{"a": 1}'
    await ship.make_all_due()
    assert await ship.work_until_idle() == []
    assert await ship.fulfilment.list_unplanned_orders() == []
    await ship.fetch_rows("UPDATE refunds SET status = 'failed', ended_at = now() RETURNING 1")
    with pytest.raises(NotToBePlanned):
        await ship.fulfilment.replan(order_id)


async def test_order_refunded_after_planning_is_cancelled_without_calls(ship: ShippingShop) -> None:
    """No carrier was requested, so the shipment is cancelled at once."""
    order_id, other = await ship.add_order(), await ship.add_order()
    assert [await ship.work_on(job) for job in await ship.claim()] == ["planned", "planned"]
    await ship.refund_all(order_id)
    await ship.refund_all(other)
    for refunded_id in (order_id, other):
        [shipment] = await ship.list_shipments(refunded_id)
        subjects = (refunded_id, shipment.shipment_id)
        results = [await ship.work_on(job) for job in await ship.claim() if job.subject in subjects]
        assert sorted(results) == ["cancelled", "stopped"]
        [shipment] = await ship.list_shipments(refunded_id)
        assert (shipment.status, shipment.ended_at is not None) == ("cancelled", True)
        assert await ship.find_task(shipment.shipment_id) is None
        with pytest.raises(InvalidShipmentState, match="the order is refunded"):
            await ship.fulfilment.repacking.reship(shipment.shipment_id, "again", "dan")
        assert await ship.order_status(refunded_id) == "cancelled"
        await ship.make_all_due()
    assert ship.carriers["cheap"].requests.total() == 0


async def test_refund_cancels_shipments_that_wait_for_anything(ship: ShippingShop) -> None:
    """On hold, parked, to be packed, or waiting for an unavailable carrier: all are cancelled.

    No worklist shows them any more."""
    _, [held] = await ship.add_booked_order()
    await ship.fulfilment.hold(held.shipment_id, "the customer calls back", "dan")
    ship.carriers["cheap"].next_outcomes, ship.carriers["quick"].next_outcomes = [refusal()], [refusal()]
    _, [parked] = await ship.add_booked_order()
    assert (await ship.get_job(parked.shipment_id)).parked
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    ship.jobs._shipment_jobs._retry_policy = replace(ship.jobs._shipment_jobs._retry_policy, max_s=60)
    ship.unavailable_systems = ["cheap", "quick"]
    _, [waiting] = await ship.add_booked_order()
    assert (waiting.status, waiting.booking_id) == ("planned", None)
    ship.unavailable_systems = []
    shipments = (held, parked, byhand, waiting)
    assert await ship.list_worklist("to_pack") == {byhand.shipment_id}
    for shipment in shipments:
        await ship.refund_all(shipment.order_id)
    assert (await ship.work_until_idle()).count("cancelled") == 1 + len(shipments), "one booking, and all orders"
    assert [(await ship.get_shipment(shipment.shipment_id)).status for shipment in shipments] == ["cancelled"] * 4
    assert [await ship.list_worklist(name) for name in ("to_pack", "parked", "on_hold")] == [set(), set(), set()]
    assert ship.carriers["cheap"].current_bookings == set()
    await ship.check_records()
    with pytest.raises(InvalidShipmentState, match="it is cancelled"):
        await ship.fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_refunded_shipment_cannot_be_packed(ship: ShippingShop) -> None:
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    await ship.refund_all(byhand.order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")


async def test_refund_during_redirect_cancels_shipment(ship: ShippingShop) -> None:
    """The booking is cancelled for a new address, and no new booking follows."""
    order_id, [shipment] = await ship.add_booked_order()
    await ship.fulfilment.redirect(shipment.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["replanned", "cancelled"]
    assert (await ship.get_shipment(shipment.shipment_id)).status == "cancelled"
    assert ship.carriers["cheap"].current_bookings == set()


async def test_refund_during_booking_cancels_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    order_id, booking = await ship.start_booking("cheap")
    await ship.refund_all(order_id)
    cheap.gate.set()
    assert await booking == "booked"
    assert await ship.work_until_idle() == ["cancelled", "cancelled"]
    assert cheap.current_bookings == set()


async def test_refund_after_unknown_outcome_cancels_booking(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    cheap.next_outcomes = ["lost"]
    order_id = await ship.add_order()
    assert await ship.work_on(await ship.claim_one()) == "planned"
    assert await ship.work_on(await ship.claim_one()) == "no_answer"
    await ship.refund_all(order_id)
    await ship.make_all_due()
    assert set(await ship.work_until_idle()) == {"stopped", "cancelled"}
    assert (cheap.requests.total(), cheap.current_bookings) == (1, set())
    [shipment] = await ship.list_shipments(order_id)
    assert shipment.status == "cancelled"


@pytest.mark.parametrize("is_external", [True, False])
async def test_refund_cancels_booked_shipment_before_hand_over_only(ship: ShippingShop, is_external: bool) -> None:
    """Carriers without calls cancel as well: a driver must not load the shipment."""
    cheap: FakeCarrier = ship.carriers["cheap"]
    cheap.is_external = is_external
    order_id, [shipment] = await ship.add_booked_order()
    await ship.refund_all(order_id)
    with pytest.raises(InvalidShipmentState, match="the order is refunded"):
        await ship.fulfilment.pack(shipment.shipment_id, None, "dan")
    assert await ship.work_until_idle() == ["advanced", "cancelled", "cancelled"]
    assert cheap.current_bookings == set()
    # A shipment that was handed over continues.
    order_id, [picked_up] = await ship.add_booked_order()
    await ship.apply_events(picked_up.shipment_id, tracking_event("picked_up", -1))
    await ship.refund_all(order_id)
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["unchanged"]
    assert (await ship.get_shipment(picked_up.shipment_id)).status == "picked_up"


async def test_refund_after_unreported_pick_up_retries_cancellation(ship: ShippingShop) -> None:
    """Too late to cancel: cancellation is retried at each poll until the pick-up is reported."""
    cheap = ship.carriers["cheap"]
    order_id, [shipment] = await ship.add_booked_order()
    cheap.handed_over = set(cheap.bookings)
    await ship.refund_all(order_id)
    assert await ship.work_until_idle() == ["advanced", "too_late", "advanced"]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["stopped", "too_late"]
    assert shipment.tracking_no is not None
    cheap.tracking[shipment.tracking_no] = [tracking_event("picked_up", -1)]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["status_changed"]
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["unchanged"]


async def test_partial_refund_and_old_plan_do_not_stop_order(ship: ShippingShop) -> None:
    """Refunds of a part or of an earlier plan, and cash that is still due, do not stop an order."""
    partial, replanned, cash = (
        await ship.add_order(("a", 3, 0)),
        await ship.add_order(),
        await ship.add_order(("a", 3, 0), cod=200),
    )
    await ship.refund_all(cash)
    await ship.fetch_rows("UPDATE payments SET plan_revision = 2 WHERE order_id = $1 RETURNING 1", replanned)
    await ship.fetch_rows(_INSERT_EARLIER_PAYMENTS, replanned)
    for order_id, amount_minor in ((partial, 299), (replanned, 100)):
        await ship.fetch_rows(_INSERT_REFUND, order_id, amount_minor, 1)
    assert sorted(await ship.work_until_idle()) == [*["booked"] * 3, *["planned"] * 3]
    # With the last minor unit the order is refunded in full.
    await ship.fetch_rows(_INSERT_REFUND, partial, 1, 1)
    await ship.make_all_due()
    assert sorted(await ship.work_until_idle()) == ["cancelled", "cancelled", "stopped", "unchanged", "unchanged"]
    [shipment] = await ship.list_shipments(partial)
    assert shipment.status == "cancelled"
    # A failed refund does not count.
    failed = await ship.add_order()
    await ship.refund_all(failed)
    await ship.fetch_rows(
        "UPDATE refunds SET status = 'failed', ended_at = now() WHERE order_id = $1 RETURNING 1", failed
    )
    assert await ship.work_until_idle() == ["planned", "booked"]


_INSERT_EARLIER_PAYMENTS = """
INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, currency,
                      status, created_at, expires_at, captured_at)
SELECT gen_random_uuid(), order_id, user_id, 1, tender_no, method, flow, amount_minor, currency, status, created_at,
       expires_at, captured_at
FROM payments WHERE order_id = $1 RETURNING 1
"""
_INSERT_REFUND = """
WITH inserted AS (
    INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, created_at)
    SELECT gen_random_uuid(), payment_id, order_id, gen_random_uuid()::text, $2, currency, 'r', 'test',
           date_trunc('milliseconds', now())
    FROM payments WHERE order_id = $1 AND plan_revision = $3 RETURNING refund_id
)
INSERT INTO jobs (subject, queue, kind, system, due_at, created_at)
SELECT refund_id, 'refunds', 'refund.request', 'internal', now() + interval '1 day', now() FROM inserted RETURNING 1
"""
