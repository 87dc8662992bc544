"""Shipments that end without a delivery: refused, undeliverable or lost. Every order ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from commerce.cancellations.errors import NotUndelivered
from commerce.cancellations.model import CancelRequest, UnitsToCancel
from config.aftersales import AftersalesSettings
from tests.cancellations.test_cancellations import cancel, list_releases, read_order, statuses, sum_refunds
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event
from tests.support.staff_refunds import refund_as_staff


async def list_payments(ship: ShippingShop, order_id: object) -> list[tuple[str, str, int]]:
    query = (
        "SELECT method, status, payments.captured_minor AS captured FROM payments "
        "WHERE order_id = $1 ORDER BY tender_no"
    )
    return [tuple(row) for row in await ship.fetch_rows(query, order_id)]


async def test_refused_cash_shipment_cancels_its_order_and_returns_the_stock(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0), cod=200)
    await ship.apply_events(shipment.shipment_id, tracking_event("returned_to_sender", -1))
    assert await ship.work_until_idle() == ["cancelled"]
    assert await read_order(ship, order_id) == ("cancelled", "delivery_refused")
    assert await list_releases(ship, order_id) == [({"a": 2}, {})]
    assert await list_payments(ship, order_id) == [("cod", "closed", 0)]
    assert await sum_refunds(ship, order_id) == 0
    assert await ship.list_worklist("undelivered") == set()


async def test_lost_cash_shipment_is_written_off_and_nothing_is_due(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0), cod=150)
    await ship.apply_events(shipment.shipment_id, tracking_event("lost", -1))
    assert await ship.work_until_idle() == ["cancelled"]
    assert await read_order(ship, order_id) == ("cancelled", "lost")
    assert await list_releases(ship, order_id) == [({"a": 2}, {"a": 2})], "the limit returns, the stock does not"
    assert await list_payments(ship, order_id) == [("balance", "captured", 50), ("cod", "closed", 0)]
    assert await sum_refunds(ship, order_id) == 50


async def test_cash_of_delivered_shipment_is_captured_once_the_other_is_refused(ship: ShippingShop) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await ship.apply_events(second.shipment_id, tracking_event("returned_to_sender", -5))
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("delivered", None)
    assert await list_payments(ship, order_id) == [("cod", "captured", first.cod_minor)]
    assert sum(await list_released(ship, order_id)) == 3 - first.value_minor // PRICE
    await ship.make_all_due()
    assert "completed" in await ship.work_until_idle()


async def list_released(ship: ShippingShop, order_id: object) -> list[int]:
    return [count for units, _ in await list_releases(ship, order_id) for count in units.values()]  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["lost", "returned_to_sender"])
async def test_prepaid_shipment_waits_for_staff_and_is_refunded_by_its_deadline(ship: ShippingShop, end: str) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event(end, -1))
    assert await ship.work_until_idle() == []
    assert await ship.list_worklist("undelivered") == {shipment.shipment_id}
    due_at = await ship.fetch_value("SELECT due_at FROM jobs WHERE queue = 'cancellations' AND subject = $1", order_id)
    wait_s = (due_at - await ship.fetch_value("SELECT now()")).total_seconds()
    assert 0 < AftersalesSettings().undelivered_refund_after_s - wait_s < 60
    await ship.make_all_due()
    assert await ship.work_until_idle() == [], "asked too early"
    await ship.fetch_rows("UPDATE shipment_events SET received_at = received_at - $1::interval", timedelta(days=4))
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["cancelled"]
    assert await read_order(ship, order_id) == ("cancelled", "lost" if end == "lost" else "undeliverable")
    assert await sum_refunds(ship, order_id) == 2 * PRICE
    assert await list_releases(ship, order_id) == [({"a": 2}, {"a": 2} if end == "lost" else {})]
    assert await ship.list_worklist("undelivered") == set()


async def test_staff_send_lost_shipment_again_or_refund_it(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0))
    with pytest.raises(NotUndelivered, match="it is booked"):
        await ship.cancellations.refund_shipment(shipment.shipment_id, "gone", "staff dan")
    await ship.apply_events(shipment.shipment_id, tracking_event("lost", -9))
    again = await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    with pytest.raises(NotUndelivered, match="none of its units wait"):
        await ship.cancellations.refund_shipment(shipment.shipment_id, "gone", "staff dan")
    await ship.work_until_idle()
    await ship.apply_events(again, tracking_event("returned_to_sender", -5))
    cancellation = await ship.cancellations.refund_shipment(again, "moved away", "staff dan")
    assert (cancellation.status, cancellation.cause) == ("done", "undeliverable")
    assert await read_order(ship, order_id) == ("cancelled", "undeliverable")
    assert await list_releases(ship, order_id) == [({"a": 2}, {})]
    assert await ship.work_until_idle() == []


async def test_customer_cancels_part_of_lost_shipment_and_staff_send_the_rest(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 3, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event("lost", -9))
    await cancel(ship, order_id, (0, 1))
    assert await list_releases(ship, order_id) == [({"a": 1}, {"a": 1})]
    again = await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    [line] = (await ship.fulfilment.get(again)).lines
    assert (line.quantity, (await ship.get_shipment(again)).value_minor) == (2, 2 * PRICE)
    await ship.work_until_idle()
    await ship.apply_events(again, tracking_event("delivered", -1))
    assert await read_order(ship, order_id) == ("delivered", None)


async def test_returned_shipment_is_written_off_if_the_policy_says_so(ship: ShippingShop) -> None:
    progress = ship.cancellation_jobs._progress
    progress._undelivered = AftersalesSettings(returned_shipments="write_off")
    order_id, [shipment] = await ship.add_booked_order(cod=100)
    await ship.apply_events(shipment.shipment_id, tracking_event("returned_to_sender", -1))
    await ship.work_until_idle()
    assert await list_releases(ship, order_id) == [({"a": 1}, {"a": 1})]


async def test_shipment_stopped_by_staff_waits_on_a_worklist_until_it_is_decided(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0))
    await ship.fulfilment.cancel(shipment.shipment_id, "damaged in the warehouse", "dan")
    await ship.work_until_idle()
    assert await ship.list_worklist("undelivered") == {shipment.shipment_id}
    assert await statuses(ship, order_id) == ["cancelled"], "it is not sent again unasked"
    assert (await ship.cancellations.refund_shipment(shipment.shipment_id, "sold out", "staff dan")).cause == "by_staff"
    assert await read_order(ship, order_id) == ("cancelled", "by_staff")


async def test_shipment_that_left_before_it_could_be_stopped_is_refunded_once_it_is_back(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 1, 0))
    await cancel(ship, order_id)
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -9))
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("shipped", None)
    await ship.apply_events(shipment.shipment_id, tracking_event("returned_to_sender", -1))
    assert await ship.work_until_idle() == ["cancelled"], "nobody has to ask again"
    assert await read_order(ship, order_id) == ("cancelled", "undeliverable")
    assert await sum_refunds(ship, order_id) == PRICE


async def test_lost_shipment_of_refunded_order_ends_it_at_once(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 1, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -9))
    await ship.refund_all(order_id)
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("shipped", None)
    await ship.apply_events(shipment.shipment_id, tracking_event("lost", -1))
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("cancelled", "refunded")
    assert await sum_refunds(ship, order_id) == PRICE
    assert await list_releases(ship, order_id) == [({"a": 1}, {"a": 1})]


async def test_shipment_refunded_by_amount_is_not_refunded_again(
    ship: ShippingShop,
) -> None:
    """One shipment is delivered; the other was cancelled and its amount refunded, without naming units."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await ship.fulfilment.cancel(second.shipment_id, "sold out", "dan")
    await ship.work_until_idle()
    await refund_as_staff(ship.shop, order_id, amount=second.value_minor, reason="sold out")
    await ship.cancellations.refund_shipment(second.shipment_id, "sold out", "staff sam")
    assert await read_order(ship, order_id) == ("delivered", None)
    assert await sum_refunds(ship, order_id) == second.value_minor
    await ship.make_all_due()
    assert "completed" in await ship.work_until_idle()


async def test_preview_withholds_earlier_refunds_of_staff(ship: ShippingShop) -> None:
    order_id, _ = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    await refund_as_staff(ship.shop, order_id, amount=50, reason="a dent")
    request = CancelRequest(order_id, "staff sam", None, "sold out", [UnitsToCancel(0, 1)])
    preview = await ship.cancellations.preview(request)
    await ship.cancellations.cancel(request, [], 0)
    await ship.work_until_idle()
    assert preview.refund is not None
    assert (preview.refund.amount, await sum_refunds(ship, order_id)) == (PRICE - 50, PRICE)


@pytest.mark.parametrize("user", ["user", None])
async def test_confirmed_cash_order_is_cancelled_by_customer_or_staff(ship: ShippingShop, user: str | None) -> None:
    order_id = await ship.add_order(("a", 2, 0), cod=200)
    assert await read_order(ship, order_id) == ("confirmed", None)
    await ship.cancellations.cancel(CancelRequest(order_id, user or "staff sam", user, "not wanted"), [], 0)
    assert await read_order(ship, order_id) == ("cancelled", "by_customer" if user else "by_staff")
    assert await list_releases(ship, order_id) == [({"a": 2}, {})]
    assert await list_payments(ship, order_id) == [("cod", "closed", 0)]
