"""Tracking events of returns from polls and webhooks, and numbers of customers' own."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.return_shipments.errors import InvalidReturnState, TrackingNoTaken
from commerce.return_shipments.model import ReturnStatus
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from tests.support.return_shop import ReturnShop
from tests.support.shipping_shop import tracking_event


async def _book(returns: ReturnShop) -> tuple[UUID, str]:
    """Book a return shipment with the carrier `cheap`. Returns its id and its number."""
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    await returns.work_until_idle()
    tracking_no = (await returns.get(id_)).tracking_no
    assert tracking_no is not None
    return id_, tracking_no


def _webhook(webhook_id: str, tracking_no: str, *events: TrackingEvent, carrier: str = "cheap") -> CarrierWebhook:
    return CarrierWebhook(webhook_id, [ShipmentUpdate(carrier, tracking_no, list(events))])


async def test_polls_bring_return_to_warehouse_and_fill_skipped_steps(returns: ReturnShop) -> None:
    id_, tracking_no = await _book(returns)
    tracking = returns.ship.carriers["cheap"].tracking
    tracking[tracking_no] = [tracking_event("picked_up", -60), tracking_event("out_for_delivery", -5)]
    await returns.ship.make_all_due()
    assert await returns.work_until_idle() == ["status_changed"]
    tracking[tracking_no].append(tracking_event("delivered", -1))
    await returns.ship.make_all_due()
    assert await returns.work_until_idle() == ["status_changed"]
    assert await returns.list_steps(id_) == ["booked", "picked_up", "in_transit", "delivered"]
    assert await returns.find_job(id_) is None
    assert [status for _, status in returns.steps] == ["booked", "in_transit", "delivered"]


async def test_webhook_of_return_advances_it_once_however_often_it_comes(returns: ReturnShop) -> None:
    id_, tracking_no = await _book(returns)
    webhook = _webhook("w1", tracking_no.lower(), tracking_event("picked_up", -9))
    results = await asyncio.gather(*(returns.shipping.handle_webhook("cheap", webhook, b"{}") for _ in range(3)))
    words = [result.result for result in results]
    assert words.count("status_changed") == 1
    assert set(words) <= {"status_changed", "duplicate", "unchanged"}  # unchanged: it waited for the first one
    again = _webhook("w2", tracking_no, *webhook.updates[0].events)
    assert (await returns.shipping.handle_webhook("cheap", again, b"{}")).result == "unchanged"
    assert await returns.list_steps(id_) == ["booked", "picked_up"]


async def test_webhook_about_shipment_and_return_applies_both(returns: ReturnShop) -> None:
    id_, tracking_no = await _book(returns)
    _, [shipment] = await returns.ship.add_booked_order(("a", 1, 0))
    assert shipment.tracking_no is not None
    updates = [
        ShipmentUpdate("cheap", number, [tracking_event("picked_up", -9)])
        for number in (tracking_no, shipment.tracking_no)
    ]
    result = await returns.shipping.handle_webhook("cheap", CarrierWebhook("w", updates), b"{}")
    assert result.result == "status_changed"
    assert (await returns.get(id_)).status == "picked_up"
    assert (await returns.ship.get_shipment(shipment.shipment_id)).status == "picked_up"


async def test_number_of_neither_kind_of_shipment_is_unknown(returns: ReturnShop) -> None:
    await _book(returns)
    webhook = _webhook("w", "nobody-123", tracking_event("picked_up"))
    assert (await returns.shipping.handle_webhook("cheap", webhook, b"{}")).result == "unknown_tracking_no"


async def test_late_events_and_second_ends_change_nothing(returns: ReturnShop) -> None:
    id_, tracking_no = await _book(returns)
    late = _webhook("late", tracking_no, tracking_event("picked_up", -60))
    lost = _webhook("lost", tracking_no, tracking_event("lost", -30))
    late_end = _webhook("found", tracking_no, tracking_event("delivered", -1))
    for webhook in (lost, late, late_end):
        await returns.shipping.handle_webhook("cheap", webhook, b"{}")
    assert await returns.list_steps(id_) == ["booked", "picked_up", "lost"]
    query = "SELECT code FROM return_shipment_events WHERE contradicts_history"
    assert [row["code"] for row in await returns.ship.fetch_rows(query)] == ["delivered"]


async def test_return_that_carrier_brings_back_to_customer_is_cancelled(returns: ReturnShop) -> None:
    id_, tracking_no = await _book(returns)
    event = tracking_event("returned_to_sender", -1)
    await returns.shipping.handle_webhook("cheap", _webhook("w", tracking_no, event), b"{}")
    assert await returns.list_steps(id_) == ["booked", "picked_up", "cancelled"]
    assert returns.steps[-1] == (id_, ReturnStatus.CANCELLED)


async def test_own_number_is_subscribed_and_tracked(returns: ReturnShop) -> None:
    byhand = returns.ship.carriers["byhand"]
    case_id = await returns.add_case(await returns.deliver_order())
    id_ = await returns.set_tracking(case_id, "byhand", " zt 4711 0815 ")
    assert await returns.work_until_idle() == ["subscribed"]
    assert byhand.subscribed == ["ZT47110815"]
    webhook = _webhook("w", "zt47110815", tracking_event("delivered", -1), carrier="byhand")
    assert (await returns.shipping.handle_webhook("byhand", webhook, b"{}")).result == "status_changed"
    shipment = await returns.get(id_)
    assert (shipment.status, shipment.booked_by, shipment.booking_id) == ("delivered", "customer", None)
    assert [status for _, status in returns.steps] == ["booked", "delivered"]


async def test_own_number_of_unknown_carrier_is_kept_and_not_followed(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order())
    id_ = await returns.set_tracking(case_id, "village_post", "VP-1234")
    assert ((await returns.get(id_)).status, await returns.find_job(id_)) == ("booked", None)


async def test_own_number_is_corrected_until_shipment_is_received(returns: ReturnShop) -> None:
    """The wrong number belonged to a stranger's shipment, which was delivered."""
    case_id = await returns.add_case(await returns.deliver_order())
    wrong = await returns.set_tracking(case_id, "byhand", "zt-wrong")
    assert await returns.set_tracking(case_id, "byhand", "ZT-WRONG") == wrong
    webhook = _webhook("w", "zt-wrong", tracking_event("delivered", -1), carrier="byhand")
    await returns.shipping.handle_webhook("byhand", webhook, b"{}")
    right = await returns.set_tracking(case_id, "byhand", "zt-right")
    assert ((await returns.get(wrong)).status, (await returns.get(right)).status) == ("cancelled", "booked")
    assert returns.steps[-2:] == [(wrong, ReturnStatus.CANCELLED), (right, ReturnStatus.BOOKED)]
    late = _webhook("w2", "zt-wrong", tracking_event("lost", 1), carrier="byhand")
    assert (await returns.shipping.handle_webhook("byhand", late, b"{}")).result == "recorded"


async def test_number_of_another_shipment_is_refused(returns: ReturnShop) -> None:
    """Neither a shipment's number nor that of another return, and nothing is stored."""
    order_id = await returns.deliver_order()
    [shipment] = await returns.ship.list_shipments(order_id)
    first = await returns.add_case(order_id, {0: 1})
    second = await returns.add_case(await returns.deliver_order(user="other"), user="other")
    assert shipment.tracking_no is not None
    with pytest.raises(TrackingNoTaken):
        await returns.set_tracking(first, "cheap", shipment.tracking_no)
    await returns.set_tracking(first, "byhand", "ZT-0001")
    with pytest.raises(TrackingNoTaken):
        await returns.set_tracking(second, "byhand", "zt-0001")
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_shipments") == 1


async def test_two_customers_with_same_number_race_for_it(returns: ReturnShop) -> None:
    users = ("u1", "u2", "u3")
    cases = [await returns.add_case(await returns.deliver_order(user=user), user=user) for user in users]
    results = await asyncio.gather(
        *(returns.set_tracking(case_id, "byhand", "ZT-RACE") for case_id in cases), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["TrackingNoTaken", "TrackingNoTaken", "UUID"]


async def test_own_number_while_carrier_is_booked_is_refused(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order())
    await returns.request(case_id)
    with pytest.raises(InvalidReturnState, match="cancel that booking first"):
        await returns.set_tracking(case_id, "byhand", "ZT-0001")


async def test_numbers_of_a_case_are_bounded(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order())
    for number in range(20):
        last = await returns.set_tracking(case_id, "byhand", f"ZT-{number:04}")
    with pytest.raises(InvalidReturnState, match="contact the shop"):
        await returns.set_tracking(case_id, "byhand", "ZT-MORE")
    assert await returns.set_tracking(case_id, "byhand", "ZT-0019") == last
    assert (await returns.get(last)).status == "booked"
