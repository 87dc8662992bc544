"""Cases that wait: offers, deadlines, escalations, and money under way."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import pytest

from commerce.aftersales.case_status import change_case, lock_case
from commerce.aftersales.errors import (
    CaseStatusConflict,
)
from commerce.aftersales.model import CaseStatus, OfferInput
from commerce.aftersales.store import UnitCounts, set_unit_counts
from commerce.kernel.errors import Invalid
from tests.support.case_shop import CLAIM, REFUND_ONLY, STAFF, CaseShop, open_case_shop
from tests.support.shipping_shop import ShippingShop, tracking_event


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def test_offer_is_accepted_declined_or_lapses(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    ids = [await cases.request(order_id, 1) for _ in range(3)]
    for case_id in ids:
        with pytest.raises(Invalid, match="were paid"):
            await cases.actions.offer(case_id, OfferInput(version=1, reason="keep it", amount=101), STAFF)
        await cases.actions.offer(case_id, OfferInput(version=1, reason="keep it", amount=40), STAFF)
        assert await cases.state(case_id) == ("requested", "undecided", "customer")
    accepted, declined, lapsed = ids
    await cases.actions.answer_offer(accepted, 2, "user", "fine", accepts=True)
    await cases.actions.answer_offer(declined, 2, "user", "no", accepts=False)
    assert await cases.pass_deadline(lapsed) == ["status_changed"]
    assert await cases.state(accepted) == ("approved", "fixed", "staff")
    assert await cases.state(declined) == await cases.state(lapsed) == ("requested", "undecided", "staff")
    with pytest.raises(CaseStatusConflict):
        await cases.actions.answer_offer(declined, 3, "user", "yes", accepts=True)
    await cases.act("resolve", accepted)
    assert await cases.refunded(order_id) == 40


async def test_deadline_moves_each_case_on(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    undecided, unsent = [await cases.request(order_id, 1) for _ in range(2)]
    assert await cases.work(undecided) == ["unchanged"]
    assert await cases.pass_deadline(undecided) == ["status_changed"]
    case = (await cases.get(undecided)).case
    assert (case.status, case.is_escalated, case.waits_for) == ("requested", True, "staff")
    await cases.approve(unsent)
    assert await cases.pass_deadline(unsent) == ["status_changed"]
    assert await cases.state(unsent) == ("cancelled", "fixed", "nobody")
    assert (await cases.preview(order_id, 2)).is_eligible
    await cases.check_records()


async def test_silence_counts_for_the_customer_where_set(ship: ShippingShop) -> None:
    cases = open_case_shop(ship, when_undecided="approve")
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2, kind=CLAIM)
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    assert await cases.refunded(order_id) == 200


@pytest.mark.parametrize("rule", ["refund", "escalate"])
async def test_shop_that_confirms_nothing_loses_the_products_or_is_reminded(ship: ShippingShop, rule: str) -> None:
    cases = open_case_shop(ship, when_unconfirmed=rule)
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2)
    await cases.approve(case_id)
    await send(cases, case_id)
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    case = await cases.get(case_id)
    if rule == "escalate":
        assert (case.case.status, case.case.is_escalated, case.case.waits_for) == ("in_transit", True, "staff")
    else:
        assert (case.case.status, case.lines[0].received, case.lines[0].damaged) == ("resolved", 2, 2)
        assert await cases.refunded(order_id) == 200
    await cases.check_records()


async def send(cases: CaseShop, case_id: UUID) -> None:
    async with cases.ship.shop.db.transaction() as connection:
        case = (await lock_case(connection, case_id)).case
        assert case.due_at is not None
        await change_case(
            *(connection, case, case.created_at, "carrier", "picked up"),
            status=CaseStatus.IN_TRANSIT,
            items_state="in_transit",
            waits_for="carrier",
            due_at=case.due_at,
        )


async def test_customer_escalates_and_cancels_in_time(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1)
    await cases.act("decline", case_id)
    await cases.actions.escalate(case_id, 2, "user", "it is broken")
    case = (await cases.get(case_id)).case
    assert (case.status, case.is_escalated) == ("requested", True)
    with pytest.raises(CaseStatusConflict, match="escalated already"):
        await cases.actions.escalate(case_id, 3, "user", "again")
    await cases.actions.cancel(case_id, 3, "customer user", "never mind", "user")
    late = await cases.request(order_id, 1)
    await cases.act("decline", late)
    await cases.ship.fetch_rows(
        "UPDATE cases SET ended_at = now() - interval '8 days' WHERE case_id = $1 RETURNING 1", late
    )
    with pytest.raises(CaseStatusConflict, match="too late"):
        await cases.actions.escalate(late, 2, "user", "too late")
    sent = await cases.request(order_id, 1)
    await cases.approve(sent)
    await send(cases, sent)
    with pytest.raises(CaseStatusConflict):
        await cases.actions.cancel(sent, 3, "customer user", "too late", "user")


async def test_refund_that_fails_waits_for_staff(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 1, 0))
    case_id = await cases.request(order_id, kind=REFUND_ONLY)
    await cases.approve(case_id)
    await cases.act("resolve", case_id)
    await cases.ship.fetch_rows("UPDATE refunds SET status = 'failed', way = NULL RETURNING 1")
    assert await cases.work(case_id) == ["status_changed"]
    assert await cases.state(case_id) == ("resolved", "needs_other_way", "staff")
    await cases.ship.fetch_rows("UPDATE refunds SET status = 'pending', ended_at = NULL RETURNING 1")
    assert await cases.work(case_id) == ["status_changed"]
    assert await cases.work(case_id) == ["waiting"]
    assert await cases.state(case_id) == ("resolved", "granted", "provider")
    await cases.ship.fetch_rows("UPDATE refunds SET status = 'done', ended_at = now() RETURNING 1")
    assert await cases.work(case_id) == ["done"]
    assert isinstance((await cases.get(case_id)).case.ended_at, datetime)


class Killed(Exception):
    """A process ends here."""


@pytest.mark.parametrize("module", ["case_requests", "case_actions", "case_deadlines"])
async def test_crash_before_the_commit_leaves_nothing_half_done(
    cases: CaseShop, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 1, kind=REFUND_ONLY)

    def crash(name: str) -> None:
        assert name == "case.before_commit"
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"commerce.aftersales.{module}.failpoint", crash)
        if module == "case_requests":
            with pytest.raises(Killed):
                await cases.request(order_id, 1)
        elif module == "case_actions":
            with pytest.raises(Killed):
                await cases.approve(case_id)
        else:
            assert await cases.pass_deadline(case_id) == ["error"]
    assert await cases.ship.fetch_value("SELECT count(*) FROM cases") == 1
    assert len((await cases.get(case_id)).events) == 1
    await cases.check_records()
    await cases.approve(case_id)
    await cases.act("resolve", case_id)
    assert await cases.work(case_id) == ["done"]
    assert await cases.refunded(order_id) == 100


async def test_units_that_never_came_are_not_refunded_for_those_that_did(ship: ShippingShop) -> None:
    """One of two units was received and nobody has inspected it in time."""
    cases = open_case_shop(ship, when_unconfirmed="refund")
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2)
    await cases.approve(case_id)
    async with ship.shop.db.transaction() as connection:
        case = (await lock_case(connection, case_id)).case
        await set_unit_counts(connection, case_id, [UnitCounts(0, 1)])
        await change_case(
            *(connection, case, case.created_at, STAFF, "received"),
            status=CaseStatus.RECEIVED,
            items_state="partly_received",
            waits_for="warehouse",
        )
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    [line] = (await cases.get(case_id)).lines
    assert (line.received, line.damaged, await cases.refunded(order_id)) == (1, 1, 100)
    assert (await cases.preview(order_id, 1)).is_eligible
    await cases.check_records()


async def test_case_waits_for_the_cash_of_other_shipments(ship: ShippingShop) -> None:
    """Nobody is asked for what only takes time."""
    cases = open_case_shop(ship, when_undecided="approve")
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    lines = (await cases.lines(order_id))[:1]
    case_id = await cases.request(order_id, kind=REFUND_ONLY, lines=lines)
    assert await cases.pass_deadline(case_id) == ["waiting"]
    assert await cases.state(case_id) == ("requested", "undecided", "carrier")
    assert not (await cases.get(case_id)).case.is_escalated
    await ship.apply_events(second.shipment_id, tracking_event("delivered", -8))
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    assert await cases.pass_deadline(case_id) == ["status_changed"]
    assert await cases.refunded(order_id) == 100


async def test_complaint_moves_no_deadline_back(cases: CaseShop) -> None:
    """Of an inspected case the refund is due within the time that the law allows."""
    order_id = await cases.add_delivered()
    case_id = await cases.request(order_id)
    await cases.ship.fetch_rows("UPDATE cases SET due_at = now() + interval '1 hour' RETURNING 1")
    before = (await cases.get(case_id)).case
    await cases.actions.escalate(case_id, before.version, "user", "nobody answers")
    after = (await cases.get(case_id)).case
    assert (after.is_escalated, after.due_at) == (True, before.due_at)
