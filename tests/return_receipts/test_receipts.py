"""Receipts: in parts, with surplus, of no case, late, twice, by two members of staff."""

from __future__ import annotations

import asyncio

import pytest

from commerce.aftersales.errors import CaseVersionConflict, NoSuchCase
from commerce.aftersales.receipt_model import MatchInput, ReceiptInput, SendBackInput, SurplusInput, SurplusInstruction
from commerce.kernel.errors import Invalid
from commerce.return_receipts.errors import InvalidReceiptState, NoSuchReceipt
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate
from tests.support.case_shop import open_case_shop
from tests.support.return_shop import ReturnShop
from tests.support.shipping_shop import tracking_event


async def test_units_arrive_in_parts_and_all_are_counted(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 3, 0)))
    await returns.receive(case_id, {0: 1})
    assert await returns.state(case_id) == ("received", "partly_received", "warehouse")
    await returns.receive(case_id, {0: 2})
    assert await returns.state(case_id) == ("received", "received", "warehouse")
    assert [line.received for line in await returns.list_lines(case_id)] == [3]
    receipts = (await returns.returns.get(case_id)).receipts
    assert [receipt.lines for receipt in receipts] == [{0: 1}, {0: 2}]


async def test_more_than_expected_and_other_products_become_surplus(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    other = [SurplusInput(sku="b", quantity=1), SurplusInput(description="a left shoe", quantity=1)]
    result = await returns.receive(case_id, {0: 5}, surplus=other)
    assert result.receipt.lines == {0: 2}
    surplus = {(part.sku, part.description, part.quantity) for part in result.receipt.surplus}
    assert surplus == {("b", "", 1), (None, "a left shoe", 1), ("a", "more than the case expects", 3)}
    assert (await returns.returns.count_worklists()).surplus == 3


async def test_receipt_by_tracking_number_ends_return_shipment(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.set_tracking(case_id, "byhand", "ZT-1234")
    assert await returns.state(case_id) == ("in_transit", "in_transit", "carrier")
    assert await returns.returns.find_case(" zt-1234") == case_id
    version = (await returns.get_case(case_id)).version
    receipt = ReceiptInput(warehouse="hz", tracking_no="zt-1234", version=version, lines={0: 2})
    await returns.receipts.receive(receipt, "staff ann")
    shipment = await returns.get(id_)
    assert (shipment.status, shipment.received_at is not None) == ("delivered", True)
    assert (await returns.list_texts(id_))[-1] == "received at the warehouse"
    assert await returns.find_job(id_) is None
    assert await returns.state(case_id) == ("received", "received", "warehouse")


async def test_receipt_of_shipment_that_was_lost_is_stored(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.set_tracking(case_id, "byhand", "ZT-LOST")
    webhook = CarrierWebhook("w", [ShipmentUpdate("byhand", "ZT-LOST", [tracking_event("lost", -1)])])
    await returns.shipping.handle_webhook("byhand", webhook, b"{}")
    assert await returns.state(case_id) == ("in_transit", "in_transit", "staff")
    assert (await returns.returns.count_worklists()).lost == 1
    await returns.receive(case_id, {0: 2}, tracking_no="ZT-LOST")
    assert (await returns.get(id_)).status == "lost"
    assert (await returns.returns.count_worklists()).lost == 0
    assert await returns.state(case_id) == ("received", "received", "warehouse")


async def test_receipt_of_nobody_waits_and_is_matched_later(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    surplus = [SurplusInput(sku="a", quantity=2), SurplusInput(description="a scarf", quantity=1)]
    receipt = ReceiptInput(warehouse="hz", tracking_no="NOBODY-1", surplus=surplus)
    result = await returns.receipts.receive(receipt, "staff ann")
    assert result.case is None
    assert "no return shipment has the tracking number" in (result.unmatched_because or "")
    assert (await returns.returns.count_worklists()).unmatched == 1
    version = (await returns.get_case(case_id)).version
    match = MatchInput(case_id=case_id, version=version, reason="the customer called")
    matched = await returns.receipts.match(result.receipt.receipt_id, match, "staff ann")
    assert matched.receipt.lines == {0: 2}
    assert await returns.state(case_id) == ("received", "received", "warehouse")
    again = MatchInput(case_id=case_id, version=version + 1, reason="again")
    with pytest.raises(InvalidReceiptState):
        await returns.receipts.match(result.receipt.receipt_id, again, "staff bob")
    [scarf] = (await returns.returns.list_surplus(None, 10)).items
    keep = SurplusInstruction(decision="keep", reason="nobody wants it")
    await returns.receipts.decide(scarf.surplus_id, keep, "staff ann")
    counts = await returns.returns.count_worklists()
    assert (counts.unmatched, counts.surplus) == (0, 0)


async def test_lines_of_unknown_case_are_refused_with_remedy(returns: ReturnShop) -> None:
    for fields, text in (
        ({"tracking_no": "NOBODY-1", "lines": {0: 1}}, "enter the units as `surplus`"),
        ({"lines": {0: 1}}, "give the case or the tracking number"),
        ({"tracking_no": "NOBODY-1"}, "enter the units that have arrived"),
        ({"warehouse": "nowhere", "surplus": [SurplusInput(sku="a", quantity=1)]}, "there is no warehouse"),
        ({"surplus": [SurplusInput(sku="zz", quantity=1)]}, "there is no product zz"),
        ({"surplus": [SurplusInput(quantity=1)]}, "a SKU, or a description"),
    ):
        receipt = ReceiptInput(**{"warehouse": "hz", "tracking_no": None if "lines" in fields else "N-111", **fields})
        with pytest.raises(Invalid, match=text):
            await returns.receipts.receive(receipt, "staff ann")
    unknown = ReceiptInput(warehouse="hz", case_id=returns.ship.shop.ids.new(), version=1, lines={0: 1})
    with pytest.raises(NoSuchCase):
        await returns.receipts.receive(unknown, "staff ann")
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_receipts") == 0


async def test_receipt_with_old_version_or_unknown_line_stores_nothing(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    for receipt, error in (
        (ReceiptInput(warehouse="hz", case_id=case_id, version=9, lines={0: 1}), CaseVersionConflict),
        (ReceiptInput(warehouse="hz", case_id=case_id, version=1, lines={7: 1}), Invalid),
        (ReceiptInput(warehouse="hz", case_id=case_id, lines={0: 1}), Invalid),
    ):
        with pytest.raises(error):
            await returns.receipts.receive(receipt, "staff ann")
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_receipts") == 0


async def test_two_members_of_staff_receive_same_units_once(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    receipt = ReceiptInput(warehouse="hz", case_id=case_id, version=1, lines={0: 2})
    results = await asyncio.gather(
        *(returns.receipts.receive(receipt, "staff ann") for _ in range(3)), return_exceptions=True
    )
    names = sorted(type(result).__name__ for result in results)
    assert names == ["CaseVersionConflict", "CaseVersionConflict", "ReceiptResult"]
    assert [line.received for line in await returns.list_lines(case_id)] == [2]


async def test_receipt_after_end_of_case_is_no_stock(returns: ReturnShop) -> None:
    """The customer was refunded without sending it back; the units arrive all the same."""
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    await returns.ship.fetch_rows(
        "UPDATE cases SET items_back = false, items_state = 'not_expected', kind = 'claim', claim = 'damaged' "
        "WHERE case_id = $1",
        case_id,
    )
    result = await returns.receive(case_id, {0: 2})
    assert (result.receipt.case_id, result.receipt.lines) == (None, {})
    assert [(part.sku, part.quantity) for part in result.receipt.surplus] == [("a", 2)]
    assert "takes no units" in (result.unmatched_because or "")
    assert [line.received for line in await returns.list_lines(case_id)] == [0]
    version = (await returns.get_case(case_id)).version
    match = MatchInput(case_id=case_id, version=version, reason="it is theirs")
    with pytest.raises(InvalidReceiptState, match="takes no units"):
        await returns.receipts.match(result.receipt.receipt_id, match, "staff ann")


async def test_surplus_goes_to_another_case_or_back_to_customer(returns: ReturnShop) -> None:
    """Two returns in one box: the second case's units are in the first one's receipt."""
    first = await returns.add_case(await returns.deliver_order(("a", 1, 0)))
    second = await returns.add_case(await returns.deliver_order(("b", 1, 0)))
    result = await returns.receive(
        first, {0: 1}, surplus=[SurplusInput(sku="b", quantity=1), SurplusInput(sku="c", quantity=1)]
    )
    of_second, stray = sorted(result.receipt.surplus, key=lambda part: part.sku or "")
    version = (await returns.get_case(second)).version
    move = SurplusInstruction(decision="other_case", case_id=second, version=version, reason="same box")
    assert (await returns.receipts.decide(of_second.surplus_id, move, "staff ann")).other_case_id == second
    assert await returns.state(second) == ("received", "received", "warehouse")
    back = SurplusInstruction(decision="send_back", reason="not ours")
    await returns.receipts.decide(stray.surplus_id, back, "staff ann")
    with pytest.raises(InvalidReceiptState, match="decided on already"):
        await returns.receipts.decide(stray.surplus_id, back, "staff bob")
    [send_back] = (await returns.returns.list_send_backs(None, 10)).items
    assert (send_back.surplus_id, send_back.quantity) == (stray.surplus_id, 1)
    sent = SendBackInput(outcome="sent", carrier="sf_express", tracking_no="sf 123456")
    stored = await returns.receipts.end_send_back(send_back.send_back_id, sent, "staff ann")
    assert (stored.tracking_no, stored.ended_by) == ("SF123456", "staff ann")
    assert await returns.receipts.end_send_back(send_back.send_back_id, sent, "staff bob") == stored
    with pytest.raises(InvalidReceiptState):
        await returns.receipts.end_send_back(send_back.send_back_id, SendBackInput(outcome="handed_out"), "staff bob")
    with pytest.raises(Invalid):
        await returns.receipts.end_send_back(send_back.send_back_id, SendBackInput(outcome="sent"), "staff bob")
    with pytest.raises(NoSuchReceipt):
        await returns.receipts.decide(send_back.send_back_id, back, "staff bob")


async def test_shipment_that_arrives_after_the_end_of_its_case_leaves_the_worklists(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    id_ = await returns.set_tracking(case_id, "byhand", "ZT-LATE")
    webhook = CarrierWebhook("w", [ShipmentUpdate("byhand", "ZT-LATE", [tracking_event("delivered", -1)])])
    await returns.shipping.handle_webhook("byhand", webhook, b"{}")
    assert (await returns.returns.count_worklists()).arrived == 1
    await returns.ship.fetch_rows(
        "UPDATE cases SET items_back = false, items_state = 'not_expected', kind = 'refund_only' RETURNING 1"
    )
    result = await returns.receive(case_id, {0: 2}, tracking_no="ZT-LATE")
    assert result.case is None
    assert (await returns.get(id_)).received_at is not None
    counts = await returns.returns.count_worklists()
    assert (counts.arrived, counts.unmatched) == (0, 1)


async def test_box_of_other_products_asks_staff(returns: ReturnShop) -> None:
    """The deadline of unconfirmed returns refunds nothing: what was to come has not come."""
    case_id = await returns.add_case(await returns.deliver_order(("a", 2, 0)))
    await returns.set_tracking(case_id, "byhand", "ZT-BRICK")
    brick = [SurplusInput(description="a brick", quantity=1)]
    await returns.receive(case_id, {}, surplus=brick, tracking_no="ZT-BRICK")
    assert await returns.state(case_id) == ("approved", "expected", "staff")
    cases = open_case_shop(returns.ship, when_unconfirmed="refund")
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    case = await returns.get_case(case_id)
    assert (case.status, case.is_escalated, case.waits_for) == ("approved", True, "staff")
    await returns.receive(case_id, {0: 2})
    assert await returns.state(case_id) == ("received", "received", "warehouse")
