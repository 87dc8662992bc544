"""Cases: requests, decisions, money and deadlines over real orders."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.aftersales.errors import (
    CaseStatusConflict,
    CaseVersionConflict,
    NoSuchCase,
    NotReturnable,
    StillUnderWay,
    TooManyCases,
)
from commerce.aftersales.model import ApprovalInput, CaseLineInput, ClaimKind, OfferInput
from commerce.kernel.errors import Invalid, KeyReused
from commerce.orders.errors import NoSuchOrder
from commerce.refunds.errors import UnitsRefunded
from commerce.refunds.model import RefundInput, RefundLineInput
from commerce.refunds.staff_refunds import StaffRefunds
from tests.support.case_shop import CLAIM, EXCHANGE, REFUND_ONLY, RETURN, STAFF, CaseShop, open_case_shop
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def codes(cases: CaseShop, order_id: UUID, *quantities: int, **fields: Any) -> list[str]:
    return [obstacle.code for obstacle in (await cases.preview(order_id, *quantities, **fields)).obstacles]


async def test_return_goes_through_all_steps_and_its_money_comes_back(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    preview = await cases.preview(order_id, 2)
    assert (preview.is_eligible, preview.total, preview.freight_payer) == (True, 200, "customer")
    assert await cases.ship.fetch_rows("SELECT FROM cases") == []
    case_id = await cases.request(order_id, 2)
    assert await cases.state(case_id) == ("requested", "undecided", "staff")
    await cases.approve(case_id)
    assert await cases.state(case_id) == ("approved", "fixed", "customer")
    await cases.receive(case_id, (1, 1, 0))
    await cases.act("resolve", case_id)
    assert await cases.state(case_id) == ("resolved", "granted", "provider")
    assert await cases.refunded(order_id) == 200
    assert await cases.work(case_id) == ["done"]
    assert await cases.state(case_id) == ("resolved", "done", "nobody")
    assert [event.to_status for event in (await cases.get(case_id)).events] == [
        *(None, "approved", "received", "inspected", "resolved", None)
    ]
    assert [text.partition(":")[0] for text in await cases.story(order_id)] == [
        *("return requested", "the return is approved", "the return is received", "the return is inspected"),
        "the return is resolved",
    ]
    await cases.check_records()


async def test_rejected_and_missing_units_are_not_refunded(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    case_id = await cases.request(order_id, 3)
    await cases.approve(case_id)
    await cases.receive(case_id, (1, 0, 1))
    await cases.act("resolve", case_id)
    assert await cases.refunded(order_id) == 100
    # The unit that was never sent back may be returned later, the rejected one may not.
    assert await codes(cases, order_id, 2) == ["too_many_units"]
    assert (await cases.preview(order_id, 1)).is_eligible


async def test_units_are_in_one_case_over_all_kinds(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    first = await cases.request(order_id, 2)
    for kind in (RETURN, CLAIM, REFUND_ONLY):
        with pytest.raises(NotReturnable, match="1 units are left of this line"):
            await cases.request(order_id, 2, kind=kind)
    second = await cases.request(order_id, 1, kind=CLAIM)
    with pytest.raises(NotReturnable, match="no unit is left"):
        await cases.request(order_id, 1)
    await cases.act("decline", first)
    await cases.request(order_id, 2, kind=REFUND_ONLY)
    with pytest.raises(NotReturnable):
        await cases.act("reopen", first)
    await cases.act("decline", second)
    await cases.act("reopen", second)
    await cases.check_records()


async def test_case_with_granted_money_is_not_reopened_and_names_the_refund(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1, kind=CLAIM, reason="damaged_or_defective")
    await cases.approve(case_id, amount=10)
    await cases.act("resolve", case_id)
    with pytest.raises(CaseStatusConflict, match=f"/v1/admin/orders/{order_id}/refunds"):
        await cases.act("reopen", case_id)
    await cases.check_records()


async def test_racing_requests_take_each_unit_once(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 4, 0), ("c", 3, 0))
    await cases.ship.fetch_rows("UPDATE return_policies SET max_cases_per_sku = 100 RETURNING 1")
    requests = [
        await cases.input(order_id, *counts, kind=kind)
        for counts in ((1, 0), (0, 1), (2, 1), (1, 1))
        for kind in (RETURN, CLAIM, REFUND_ONLY)
    ]
    results = await asyncio.gather(
        *(
            cases.requests.request(order_id, "user", f"key-{number}", requests[number % len(requests)])
            for number in range(40)
        ),
        return_exceptions=True,
    )
    assert {type(result) for result in results} <= {tuple, NotReturnable}, results
    await cases.check_records()
    units = await cases.ship.fetch_rows(
        "SELECT sum(quantity) AS units FROM case_lines GROUP BY line_no ORDER BY line_no"
    )
    assert [row["units"] for row in units] == [4, 3]


async def test_repeat_with_the_key_is_the_same_case(cases: CaseShop) -> None:
    order_id, other = await cases.add_delivered(("a", 2, 0)), await cases.add_delivered(("a", 2, 0))
    ids = await asyncio.gather(*(cases.request(order_id, 1, key="k") for _ in range(3)))
    assert len(set(ids)) == 1
    with pytest.raises(KeyReused):
        await cases.request(order_id, 2, key="k")
    with pytest.raises(KeyReused):
        await cases.request(other, 1, key="k")
    assert await cases.ship.fetch_value("SELECT count(*) FROM cases") == 1


async def test_key_that_races_with_another_order_makes_one_case(cases: CaseShop) -> None:
    ids = [await cases.add_delivered() for _ in range(2)]
    results = await asyncio.gather(*(cases.request(order_id, key="k") for order_id in ids), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["KeyReused", "UUID"]


async def test_request_that_cannot_be_is_refused_with_all_obstacles(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    undelivered, [shipment] = await cases.ship.add_booked_order(("a", 2, 0))
    with pytest.raises(NoSuchOrder):
        await cases.request(order_id, 1, user="mallory")
    with pytest.raises(NoSuchOrder):
        await cases.preview(uuid4(), lines=[CaseLineInput(line_no=0, quantity=1)])
    assert await codes(cases, undelivered, 1) == ["not_delivered"]
    foreign = [CaseLineInput(shipment_id=shipment.shipment_id, line_no=0, quantity=1)]
    assert await codes(cases, order_id, lines=foreign) == ["not_delivered"]
    assert await codes(cases, order_id, 3) == ["too_many_units"]
    assert await codes(cases, order_id, 1, kind=EXCHANGE) == ["wanted_sku_missing"]
    [line] = await cases.lines(order_id, 1)
    wanted = CaseLineInput(shipment_id=line.shipment_id, line_no=0, quantity=1, wanted_sku="b")
    assert await codes(cases, order_id, lines=[wanted], kind=EXCHANGE) == ["not_sold"]
    assert await codes(cases, order_id, lines=[wanted]) == ["wrong_kind"]
    assert "repeated_line" in await codes(cases, order_id, lines=[line, line])
    assert await codes(cases, order_id, 1, reason="boredom", evidence=[uuid4()]) == [
        "unknown_reason",
        "no_such_picture",
    ]
    assert await codes(cases, order_id, 1, claim=ClaimKind.WRONG, items_back=True) == ["wrong_kind", "wrong_kind"]
    assert await codes(cases, order_id, 1, kind=CLAIM, claim=ClaimKind.LOST) == ["wrong_shipment"]
    with pytest.raises(NotReturnable, match="and 1 more") as refused:
        await cases.request(order_id, 3, reason="boredom")
    assert [obstacle["pointer"] for obstacle in refused.value.extra["obstacles"]] == ["/reason", "/lines/0/quantity"]
    with pytest.raises(Invalid, match="at most 50 lines"):
        await cases.preview(order_id, lines=[line] * 51)


async def test_right_ends_by_days_of_each_shipment(cases: CaseShop) -> None:
    """Seven days count from the midnight after the delivery, whatever the status of the order says."""
    in_time, late = await cases.add_delivered(days_ago=6.99), await cases.add_delivered(days_ago=8)
    assert await codes(cases, in_time) == []
    assert await codes(cases, late) == ["deadline_passed"]
    assert await codes(cases, late, kind=CLAIM) == []
    assert await codes(cases, await cases.add_delivered(days_ago=16), kind=CLAIM) == ["deadline_passed"]
    staff_case = await cases.create_staff_case(late, "k", await cases.input(late))
    assert staff_case == await cases.create_staff_case(late, "k", await cases.input(late))


async def test_staff_case_takes_no_unit_twice(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    await cases.request(order_id, 1)
    with pytest.raises(NotReturnable):
        await cases.create_staff_case(order_id, "k", await cases.input(order_id, 2))


async def test_case_of_another_customer_is_not_there(cases: CaseShop) -> None:
    case_id = await cases.request(await cases.add_delivered())
    with pytest.raises(NoSuchCase):
        await cases.cases.get(case_id, "mallory")
    with pytest.raises(NoSuchCase):
        await cases.actions.cancel(case_id, 1, "customer mallory", "mine", "mallory")
    with pytest.raises(NoSuchCase):
        await cases.actions.approve(uuid4(), approval(1), STAFF)


def approval(version: int, **fields: Any) -> ApprovalInput:
    return ApprovalInput(version=version, reason="so", **fields)


async def test_decision_on_an_old_version_is_refused(cases: CaseShop) -> None:
    case_id = await cases.request(await cases.add_delivered())
    results = await asyncio.gather(
        cases.actions.approve(case_id, approval(1), STAFF),
        cases.actions.decline(case_id, 1, "staff tom", "no"),
        return_exceptions=True,
    )
    [error] = [result for result in results if result is not None]
    assert isinstance(error, CaseVersionConflict)
    assert error.extra == {"version": 2}
    assert len((await cases.get(case_id)).events) == 2
    with pytest.raises(CaseStatusConflict):
        await cases.actions.decline(case_id, 2, STAFF, "no")


async def test_amounts_are_never_above_the_price_paid(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0), ("b", 1, 0))
    case_id = await cases.request(order_id, 2, 1)
    for fields in ({"amount": 301}, {"lines": {0: 201}}, {"lines": {7: 1}}, {"fee": 301}, {"freight": 1}):
        with pytest.raises((Invalid, Exception)) as refused:
            await cases.actions.approve(case_id, approval(1, **fields), STAFF)
        assert refused.value.status in (409, 422), fields  # type: ignore[attr-defined]
    with pytest.raises(Invalid, match="fee"):
        await cases.actions.approve(case_id, approval(1, amount=100, fee=101), STAFF)
    await cases.approve(case_id, amount=100)
    assert [line.amount for line in (await cases.get(case_id)).lines] == [66, 34]
    await cases.receive(case_id, (2, 0, 0), (1, 0, 0))
    await cases.act("resolve", case_id)
    assert await cases.refunded(order_id) == 100


async def test_refund_that_overtakes_a_case_leaves_nothing_to_grant(cases: CaseShop) -> None:
    """Staff refund the whole order while a case is open: nothing is refunded twice."""
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1, kind=REFUND_ONLY)
    await cases.approve(case_id)
    await cases.ship.refund_all(order_id)
    await cases.act("resolve", case_id)
    assert await cases.refunded(order_id) == 200
    case = (await cases.get(case_id)).case
    assert (case.money_state, case.fee) == ("done", 100)


async def test_units_refunded_without_a_case_cannot_be_returned(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1, kind=REFUND_ONLY)
    await cases.approve(case_id)
    await cases.ship.fetch_rows(
        "WITH inserted AS (INSERT INTO refund_grants VALUES (gen_random_uuid(), $1, 'staff', NULL, 200, 0, 0, 'CNY', "
        "'ratio', 'r', 'staff', now()) RETURNING grant_id) INSERT INTO refund_grant_lines "
        "SELECT grant_id, $1, 0, 0, 0, 2, 200 FROM inserted RETURNING 1",
        order_id,
    )
    assert await codes(cases, order_id, 1) == ["too_many_units"]
    with pytest.raises(UnitsRefunded):
        await cases.act("resolve", case_id)
    # Its deadline hands it to staff with the reason, instead of a parked job.
    assert await cases.pass_deadline(case_id) == ["refused"]
    assert await cases.state(case_id) == ("approved", "fixed", "staff")
    assert "2 of 2 are refunded" in (await cases.get(case_id)).events[-1].reason


async def test_claim_without_items_back_is_resolved_at_once(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1, kind=CLAIM)
    assert (await cases.get(case_id)).case.freight_payer == "shop"
    await cases.approve(case_id)
    assert await cases.state(case_id) == ("approved", "fixed", "staff")
    await cases.act("resolve", case_id)
    assert await cases.refunded(order_id) == 100


async def test_staff_may_let_the_customer_keep_a_return(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 1, 0))
    case_id = await cases.request(order_id)
    await cases.approve(case_id, items_back=False, amount=30)
    case = (await cases.get(case_id)).case
    assert (case.kind, case.items_back, case.items_state) == (REFUND_ONLY, False, "not_expected")
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    assert await cases.refunded(order_id) == 30
    assert await cases.work(case_id) == ["done"]


async def test_lost_units_are_claimed_without_a_shipment(cases: CaseShop) -> None:
    order_id, [shipment] = await cases.ship.add_booked_order(("a", 2, 0))
    lost = [CaseLineInput(line_no=0, quantity=2)]
    fields = {"kind": CLAIM, "claim": ClaimKind.LOST, "lines": lost, "reason": "not_received"}
    assert await codes(cases, order_id, **fields) == ["not_delivered"]  # it is not late
    await cases.ship.apply_events(shipment.shipment_id, tracking_event("picked_up"), tracking_event("lost", 1))
    preview = await cases.preview(order_id, **fields)  # type: ignore[arg-type]
    assert (preview.is_eligible, preview.total, preview.items_back) == (True, 200, False)
    case_id = await cases.request(order_id, **fields)  # type: ignore[arg-type]
    assert await codes(cases, order_id, **fields) == ["too_many_units"]
    with pytest.raises(Invalid, match="refunded whole"):
        await cases.approve(case_id, amount=1)
    with pytest.raises(Invalid, match="refunded whole"):
        await cases.actions.offer(case_id, OfferInput(version=1, reason="less", amount=1), STAFF)
    await cases.approve(case_id)
    await cases.act("resolve", case_id)
    assert await cases.state(case_id) == ("resolved", "fixed", "provider")
    assert await cases.work(case_id) == ["waiting"]
    await cases.ship.work_until_idle()
    assert [await cases.work(case_id) for _ in range(2)] == [["status_changed"], ["done"]]
    case = await cases.get(case_id)
    assert (case.case.amount, case.lines[0].amount, await cases.refunded(order_id)) == (200, 200, 200)
    assert await cases.ship.order_status(order_id) == "cancelled"
    await cases.check_records()


async def test_lost_units_are_refunded_once_whoever_cancels_them(cases: CaseShop) -> None:
    """The units of a claim are cancelled by the shop itself before staff decide on it."""
    order_id, [shipment] = await cases.ship.add_booked_order(("a", 2, 0))
    await cases.ship.apply_events(shipment.shipment_id, tracking_event("picked_up"), tracking_event("lost", 1))
    lost = [CaseLineInput(line_no=0, quantity=2)]
    case_id = await cases.request(order_id, lines=lost, kind=CLAIM, claim=ClaimKind.LOST, reason="not_received")
    await cases.approve(case_id)
    await cases.ship.cancellations.refund_shipment(shipment.shipment_id, "it is lost", STAFF)
    await cases.ship.work_until_idle()
    assert await cases.refunded(order_id) == 200
    await cases.act("resolve", case_id)
    assert await cases.state(case_id) == ("resolved", "nothing_due", "nobody")
    assert await cases.refunded(order_id) == 200


async def test_late_shipment_decides_about_a_claim_of_its_units(cases: CaseShop) -> None:
    order_id, [shipment] = await cases.ship.add_booked_order(("a", 2, 0))
    await cases.ship.apply_events(shipment.shipment_id, tracking_event("picked_up"))
    await cases.ship.fetch_rows("UPDATE shipments SET promised_on = current_date - 2 RETURNING 1")
    lost = [CaseLineInput(line_no=0, quantity=2)]
    case_id = await cases.request(order_id, lines=lost, kind=CLAIM, claim=ClaimKind.LOST, reason="not_received")
    await cases.approve(case_id)
    with pytest.raises(StillUnderWay, match="record its outcome"):
        await cases.act("resolve", case_id)
    assert await cases.pass_deadline(case_id) == ["refused"]
    await cases.ship.apply_events(shipment.shipment_id, tracking_event("delivered", 1))
    await cases.actions.cancel(case_id, (await cases.get(case_id)).case.version, STAFF, "it has arrived", None)
    assert (await cases.preview(order_id, 2)).is_eligible


async def test_order_has_a_limit_of_open_cases_and_of_requests_for_a_product(ship: ShippingShop) -> None:
    cases = open_case_shop(ship, open_cases_per_order=2)
    order_id = await cases.add_delivered(("a", 9, 0))
    ids = [await cases.request(order_id, 1) for _ in range(2)]
    with pytest.raises(TooManyCases):
        await cases.request(order_id, 1)
    for _ in range(3):
        await cases.act("decline", ids.pop())
        ids.append(await cases.request(order_id, 1))
    await cases.act("decline", ids.pop())
    assert await codes(cases, order_id, 1) == ["too_many_cases"]


async def test_inspected_units_that_staff_refunded_meanwhile_bring_no_money_again(cases: CaseShop) -> None:
    """Such a case cannot be cancelled any more, so it must be resolved."""
    order_id = await cases.add_delivered(("a", 3, 0))
    case_id = await cases.request(order_id, 2)
    await cases.approve(case_id)
    await cases.receive(case_id, (2, 0, 0))
    shop = cases.ship.shop
    wanted = RefundInput(idempotency_key="k", reason="sorry", lines=[RefundLineInput(line_no=0, quantity=2)])
    await StaffRefunds(shop.db, shop.clock, shop.ids).refund(order_id, wanted, "staff sam")
    await cases.act("resolve", case_id)
    assert (await cases.state(case_id))[0] == "resolved"
    assert await cases.refunded(order_id) == 3 * PRICE


async def test_units_that_never_came_are_not_to_be_returned(cases: CaseShop) -> None:
    order_id = await cases.add_delivered()
    case_id = await cases.request(order_id, kind=CLAIM, claim=ClaimKind.MISSING)
    with pytest.raises(Invalid, match="never came"):
        await cases.approve(case_id, items_back=True)
    offer = OfferInput(version=1, reason="as a return", amount=1, kind=RETURN, items_back=True)
    with pytest.raises(Invalid, match="never came"):
        await cases.actions.offer(case_id, offer, STAFF)
