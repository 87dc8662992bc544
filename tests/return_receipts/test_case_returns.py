"""Return shipments of cases: who may ask for them, what they hold, and how the case follows."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.aftersales.errors import CaseStatusConflict, CaseVersionConflict, NoSuchCase
from commerce.aftersales.receipt_model import CollectionInput, ReturnOutcomeInput
from commerce.kernel.errors import Invalid
from commerce.return_shipments.errors import InvalidReturnState, NoSuchReturnShipment
from commerce.return_shipments.model import TrackingInput
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate
from tests.support.case_shop import open_case_shop
from tests.support.return_shop import ReturnShop
from tests.support.shipping_shop import tracking_event


async def _collect(returns: ReturnShop, case_id: Any, **fields: Any) -> Any:
    version = (await returns.get_case(case_id)).version
    return await returns.returns.collect(case_id, CollectionInput(version=version, **fields), "staff ann")


async def test_case_follows_collected_shipment_to_the_warehouse(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    details = await _collect(returns, case_id)
    assert details.job_kind == "return_shipment.book"
    await returns.work_until_idle()
    assert await returns.state(case_id) == ("approved", "expected", "carrier")
    tracking_no = (await returns.get(details.shipment.return_shipment_id)).tracking_no or ""
    for status, expected in (
        ("picked_up", ("in_transit", "in_transit", "carrier")),
        ("delivered", ("in_transit", "in_transit", "warehouse")),
    ):
        update = ShipmentUpdate("cheap", tracking_no, [tracking_event(status, -1)])
        await returns.shipping.handle_webhook("cheap", CarrierWebhook(status, [update]), b"{}")
        assert await returns.state(case_id) == expected
    [arrived] = (await returns.returns.list_worklist("arrived", "hz", None, 10)).items
    assert arrived.shipment.case_id == case_id
    assert (await returns.returns.list_worklist("arrived", "sh", None, 10)).items == []


async def test_cancelled_collection_returns_case_to_customer(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    details = await _collect(returns, case_id)
    await returns.work_until_idle()
    await returns.returns.cancel(details.shipment.return_shipment_id, "not at home", "staff ann")
    await returns.work_until_idle()
    assert await returns.state(case_id) == ("approved", "expected", "customer")
    views = await returns.returns.set_tracking(case_id, TrackingInput("byhand", "ZT-1" + "234"), "user")
    assert [(view.booked_by, view.status) for view in views] == [("shop", "cancelled"), ("customer", "booked")]
    assert await returns.state(case_id) == ("in_transit", "in_transit", "carrier")


async def test_part_of_units_is_collected(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 3, 0)))
    details = await _collect(returns, case_id, lines={0: 1}, payer="customer")
    assert (details.shipment.payer, details.shipment.value_minor) == ("customer", 100)
    with pytest.raises(Invalid, match="expects 3 units of line 0, not 4"):
        await _collect(returns, case_id, lines={0: 4})


async def test_units_that_came_are_not_collected_again(returns: ReturnShop) -> None:
    """The next shipment holds what is left, not the full quantity."""
    case_id = await returns.add_case(await returns.deliver_order(("a", 3, 0)))
    await returns.receive(case_id, {0: 2})
    details = await _collect(returns, case_id)
    assert details.shipment.value_minor == 100
    with pytest.raises(Invalid, match="expects 1 units"):
        await _collect(returns, case_id, lines={0: 2})


async def test_customer_sees_own_case_only(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    with pytest.raises(NoSuchCase):
        await returns.returns.set_tracking(case_id, TrackingInput("byhand", "ZT-1234"), "mallory")
    with pytest.raises(NoSuchCase):
        await returns.returns.list_of_customer(case_id, "mallory")
    assert await returns.returns.list_of_customer(case_id, "user") == []


async def test_return_of_case_that_awaits_nothing_is_refused(returns: ReturnShop) -> None:
    requested = await returns.add_case(await returns.deliver_order(("a", 2, 0)), status="requested")
    with pytest.raises(CaseStatusConflict):
        await _collect(returns, requested)
    with pytest.raises(CaseStatusConflict):
        await returns.returns.set_tracking(requested, TrackingInput("byhand", "ZT-1234"), "user")
    with pytest.raises(CaseVersionConflict):
        await returns.returns.collect(requested, CollectionInput(version=7), "staff ann")
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_shipments") == 0


async def test_outcome_set_by_staff_ends_shipment(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.set_tracking(case_id, "village_post", "VP-1234")
    lost = ReturnOutcomeInput(status="lost", reason="the post office says so")
    for _ in range(2):
        await returns.returns.set_outcome(id_, lost, "staff ann")
    assert await returns.list_steps(id_) == ["booked", "picked_up", "lost"]
    with pytest.raises(InvalidReturnState):
        await returns.returns.set_outcome(id_, ReturnOutcomeInput(status="delivered", reason="no"), "staff ann")
    with pytest.raises(NoSuchReturnShipment):
        await returns.returns.set_outcome(case_id, lost, "staff ann")


async def test_shipment_that_nobody_reports_of_is_overdue(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.set_tracking(case_id, "village_post", "VP-1234")
    assert (await returns.returns.count_worklists()).overdue == 0
    await returns.ship.fetch_rows("UPDATE return_shipments SET booked_at = booked_at - interval '8 days'")
    counts = await returns.returns.count_worklists()
    assert (counts.expected, counts.overdue) == (1, 1)
    [overdue] = (await returns.returns.list_worklist("overdue", None, None, 10)).items
    assert overdue.shipment.return_shipment_id == id_


async def test_collection_is_requested_once_and_no_deadline_of_the_customer_passes(returns: ReturnShop) -> None:
    """Two members of staff who have read the same version; then no carrier collects it."""
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    for carrier in returns.ship.carriers.values():
        carrier.collects_returns = False
    collection = CollectionInput(version=1)
    await returns.returns.collect(case_id, collection, "staff ann")
    with pytest.raises(CaseVersionConflict):
        await returns.returns.collect(case_id, collection, "staff bob")
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_shipments") == 1
    assert await returns.state(case_id) == ("approved", "expected", "carrier")
    assert (await returns.returns.count_worklists()).parked == 1
    await open_case_shop(returns.ship).pass_deadline(case_id)
    case = await returns.get_case(case_id)
    assert (case.status, case.is_escalated, case.waits_for) == ("approved", True, "staff")
