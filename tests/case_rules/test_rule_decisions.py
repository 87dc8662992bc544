"""Rules decide cases, and a person who decides as well."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from commerce.aftersales.errors import CaseStatusConflict, CaseVersionConflict
from commerce.aftersales.model import ApprovalInput, CaseLineInput, ClaimKind, OfferInput
from commerce.case_rules.model import DeliveryReport
from commerce.shipping.carrier_port import TrackingEvent
from tests.support.case_shop import CLAIM, REFUND_ONLY, RETURN, STAFF
from tests.support.rule_shop import (
    APPROVE,
    BY_HAND,
    DECLINE,
    EVIDENCE,
    WITHOUT_RETURN,
    RuleShop,
    open_rule_shop,
    rule,
)
from tests.support.shipping_shop import ShippingShop, tracking_event


@pytest.fixture
def rules(ship: ShippingShop) -> RuleShop:
    return open_rule_shop(ship)


async def test_request_without_rules_waits_for_staff_and_its_inputs_are_stored(
    rules: RuleShop, ship: ShippingShop
) -> None:
    case_id = await rules.cases.request(await rules.cases.add_delivered(("a", 2, 0)), 1)
    assert await rules.work() == ["no_rules"]
    assert await rules.work() == []
    assert (await rules.cases.get(case_id)).case.version == 1
    assert await ship.fetch_value("SELECT count(*) FROM case_inputs WHERE case_id = $1", case_id) == 1
    assert await rules.decisions(case_id) == []


async def test_first_matching_row_decides_with_its_reason(rules: RuleShop) -> None:
    version = await rules.use(
        rule(DECLINE, "we cannot take it back", kinds=[RETURN], reasons=["style"]),
        rule(APPROVE, "send it back", kinds=[RETURN], max_amount={"CNY": 150}),
        rule(WITHOUT_RETURN, "keep it", kinds=[RETURN], max_amount={"CNY": 300}),
    )
    order_id = await rules.cases.add_delivered(("a", 9, 0))
    declined = await rules.cases.request(order_id, 1, reason="style")
    approved = await rules.cases.request(order_id, 1)
    refunded = await rules.cases.request(order_id, 3)
    left = await rules.cases.request(order_id, 4)
    assert sorted(await rules.work()) == ["approve", "by_hand", "decline", "refund_without_return"]
    assert await rules.cases.state(declined) == ("declined", "undecided", "nobody")
    assert await rules.cases.state(approved) == ("approved", "fixed", "customer")
    assert await rules.cases.state(refunded) == ("resolved", "granted", "provider")
    assert await rules.cases.state(left) == ("requested", "undecided", "staff")
    assert await rules.cases.refunded(order_id) == 300
    for case_id, number, amount in ((declined, 1, None), (approved, 2, 100), (refunded, 3, 300), (left, 4, None)):
        [decision] = await rules.decisions(case_id)
        case = await rules.cases.get(case_id)
        assert (decision.rule_set_version, decision.rule_no, decision.amount) == (version, number, amount)
        assert (decision.case_version, decision.overturned_at) == (case.case.version, None)
        if decision.outcome is not BY_HAND:
            assert {event.actor for event in case.events[1:]} == {f"rule {number} of set {version}"}
            assert decision.reasons == [case.events[-1].reason]
    assert any("we cannot take it back" in text for text in await rules.cases.story(order_id))
    await rules.cases.check_records()


async def test_inputs_are_those_of_the_request(rules: RuleShop) -> None:
    await rules.use(rule(WITHOUT_RETURN, "keep it", kinds=[REFUND_ONLY]))
    order_id = await rules.cases.add_delivered(("a", 8, 0), days_ago=3)
    first = await rules.cases.request(order_id, 2, kind=REFUND_ONLY)
    await rules.work()
    second = await rules.cases.request(order_id, 3)
    await rules.work()
    early, late = await rules.inputs(first), await rules.inputs(second)
    assert (early.cases, early.refunded, early.returned_share, early.is_first_order) == (0, {}, 0, True)
    assert (late.cases, late.refunded, late.returned_share) == (1, {"CNY": 200}, 2_500)
    assert (late.kind, late.amount, late.days, late.skus, late.sale_id) == (RETURN, 300, 3, ["a"], "sale")
    assert (late.carrier, late.is_delivery_proven, late.has_evidence) == ([DeliveryReport.DELIVERED], True, False)
    other = await rules.cases.add_delivered(("a", 1, 0))
    third = await rules.cases.request(other, 1)
    await rules.work()
    assert not (await rules.inputs(third)).is_first_order


async def test_lost_units_are_judged_by_the_shipments_that_have_them(rules: RuleShop) -> None:
    await rules.use(rule(APPROVE, "it is lost", claims=[ClaimKind.LOST], carrier=[DeliveryReport.LOST]))
    case_id = await request_lost(rules, tracking_event("lost", 1))
    assert await rules.work() == ["approve"]
    assert (await rules.inputs(case_id)).carrier == [DeliveryReport.LOST]
    assert (await rules.cases.get(case_id)).case.status == "resolved"


async def request_lost(rules: RuleShop, *events: TrackingEvent) -> UUID:
    order_id, [shipment] = await rules.cases.ship.add_booked_order(("a", 2, 0))
    await rules.cases.ship.apply_events(shipment.shipment_id, tracking_event("picked_up"), *events)
    await rules.cases.ship.fetch_rows(
        "UPDATE shipments SET promised_on = promised_on - 30 WHERE order_id = $1 RETURNING 1", order_id
    )
    lost = [CaseLineInput(line_no=0, quantity=2)]
    return await rules.cases.request(order_id, lines=lost, kind=CLAIM, claim=ClaimKind.LOST, reason="not_received")


async def test_evidence_is_requested_once_then_a_person_decides(rules: RuleShop, ship: ShippingShop) -> None:
    await rules.use(rule(EVIDENCE, "show what is broken", kinds=[CLAIM]))
    order_id = await rules.cases.add_delivered(("a", 3, 0))
    case_id = await rules.cases.request(order_id, 1, kind=CLAIM)
    assert await rules.work() == ["ask_for_evidence"]
    assert await rules.cases.state(case_id) == ("requested", "undecided", "customer")
    assert any("show what is broken" in text for text in await rules.cases.story(order_id))
    await add_picture(rules, ship, case_id)
    assert await rules.cases.state(case_id) == ("requested", "undecided", "staff")
    assert await rules.work() == ["by_hand"]
    decisions = await rules.decisions(case_id)
    assert [decision.inputs.has_evidence for decision in decisions] == [False, True]
    assert "once already" in decisions[1].reasons[-1]
    await add_picture(rules, ship, case_id)
    assert await rules.work() == []
    await rules.cases.check_records()


async def test_evidence_that_comes_is_judged_by_the_rules(rules: RuleShop, ship: ShippingShop) -> None:
    await rules.use(
        rule(WITHOUT_RETURN, "we are sorry", kinds=[CLAIM], has_evidence=True),
        rule(EVIDENCE, "show what is broken", kinds=[CLAIM]),
    )
    order_id = await rules.cases.add_delivered(("a", 3, 0))
    case_id = await rules.cases.request(order_id, 1, kind=CLAIM)
    await rules.work()
    await add_picture(rules, ship, case_id)
    assert await rules.work() == ["refund_without_return"]
    assert await rules.cases.refunded(order_id) == 100


async def test_evidence_that_never_comes_leaves_the_case_to_staff(rules: RuleShop, ship: ShippingShop) -> None:
    await rules.use(rule(EVIDENCE, "show what is broken", kinds=[CLAIM]))
    case_id = await rules.cases.request(await rules.cases.add_delivered(("a", 1, 0)), 1, kind=CLAIM)
    await rules.work()
    assert await rules.cases.pass_deadline(case_id) == ["status_changed"]
    case = await rules.cases.get(case_id)
    assert (case.case.waits_for, case.events[-1].reason) == ("staff", "the customer has not added the evidence in time")
    await add_picture(rules, ship, case_id)
    assert await rules.work() == []


async def add_picture(rules: RuleShop, ship: ShippingShop, case_id: UUID) -> None:
    case = (await rules.cases.get(case_id)).case
    evidence_id = ship.shop.ids.new()
    await ship.fetch_rows(
        "INSERT INTO case_evidence (evidence_id, order_id, user_id, sha256, media_type, size_bytes, width_px, "
        "height_px, created_at) VALUES ($1, $2, 'user', sha256($3), 'image/png', 9, 9, 9, now()) RETURNING 1",
        *(evidence_id, case.order_id, evidence_id.bytes),
    )
    await rules.cases.actions.add_evidence(case.case_id, case.version, "user", [evidence_id])


@pytest.mark.parametrize("act", ["approve", "offer", "decline", "cancel"])
async def test_person_decides_before_rules_and_wins(rules: RuleShop, act: str) -> None:
    await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    case_id = await rules.cases.request(await rules.cases.add_delivered(("a", 1, 0)), 1)
    if act == "offer":
        await rules.cases.actions.offer(case_id, OfferInput(version=1, reason="keep it", amount=10), STAFF)
    elif act == "cancel":
        await rules.cases.actions.cancel(case_id, 1, "customer user", "never mind", "user")
    elif act == "approve":
        await rules.cases.approve(case_id, items_back=False)
    else:
        await rules.cases.act(act, case_id)
    before = await rules.cases.get(case_id)
    assert await rules.work() == ["unchanged"]
    assert await rules.cases.get(case_id) == before
    assert await rules.decisions(case_id) == []


async def test_race_of_rule_and_person_has_one_winner(rules: RuleShop) -> None:
    await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    case_ids = await rules.request_many(4, 3)
    decline = rules.cases.actions.decline
    claimed = await rules.jobs.queue.claim(100, {})
    results = await asyncio.gather(
        *(decline(case_id, 1, STAFF, "no") for case_id in case_ids[:6]),
        *(rules.jobs.queue.work(jobs) for jobs in claimed),
        *(decline(case_id, 1, STAFF, "no") for case_id in case_ids[6:]),
        return_exceptions=True,
    )
    for result in results:
        assert not isinstance(result, BaseException) or isinstance(result, CaseVersionConflict | CaseStatusConflict)
    for case_id in case_ids:
        case, decisions = await rules.cases.get(case_id), await rules.decisions(case_id)
        assert case.case.version == 2
        assert case.case.status == ("approved" if decisions else "declined")
    await rules.cases.check_records()


async def test_outcome_that_cannot_be_done_is_left_to_a_person_with_the_reason(
    rules: RuleShop, ship: ShippingShop
) -> None:
    await rules.use(rule(WITHOUT_RETURN, "it is lost", kinds=[CLAIM]), budget=(1_000, 5))
    case_id = await request_lost(rules)
    assert await rules.work() == ["by_hand"]
    [decision] = await rules.decisions(case_id)
    assert decision.inputs.carrier == [DeliveryReport.UNDER_WAY]
    assert decision.reasons[0] == "it is lost"
    assert "a shipment has 2 units" in decision.reasons[1]
    assert await ship.fetch_value("SELECT coalesce(sum(cases), 0) FROM case_rule_spending") == 0
    assert (await rules.cases.get(case_id)).case.version == 1


async def test_decision_that_a_person_changes_is_recorded_as_overturned(rules: RuleShop) -> None:
    await rules.use(
        rule(DECLINE, "no", reasons=["style"]), rule(APPROVE, "send it back", kinds=[RETURN]), budget=(9_999, 9)
    )
    reopened, escalated, upheld = await rules.request_many(1, 3, reason="style")
    cancelled, withdrawn, kept = await rules.request_many(1, 3)
    assert len(await rules.work()) == 6
    await rules.cases.act("reopen", reopened)
    for case_id in (escalated, upheld):
        await rules.cases.actions.escalate(case_id, 2, "user", "it is broken")
    assert await rules.outcomes([reopened, escalated, upheld]) == ["decline"] * 3
    await rules.cases.approve(escalated)
    await rules.cases.act("decline", upheld)
    await rules.cases.actions.cancel(cancelled, 2, STAFF, "it was a fraud", None)
    await rules.cases.actions.cancel(withdrawn, 2, "customer user", "never mind", "user")
    await rules.cases.receive(kept, (1, 0, 0))
    await rules.cases.act("resolve", kept)
    overturned = {
        case_id
        for case_id in (reopened, escalated, upheld, cancelled, withdrawn, kept)
        if (await rules.decisions(case_id))[0].overturned_by
    }
    assert overturned == {reopened, escalated, cancelled}
    assert await rules.work() == []


async def test_approval_of_staff_does_not_wait_for_rules(rules: RuleShop) -> None:
    """Cases that staff open are decided by staff."""
    await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    order_id = await rules.cases.add_delivered(("a", 1, 0))
    case_id = await rules.cases.create_staff_case(order_id, "k", await rules.cases.input(order_id, 1))
    assert await rules.work() == []
    await rules.cases.actions.approve(case_id, ApprovalInput(version=1, reason="yes"), STAFF)
