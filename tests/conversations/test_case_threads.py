"""Each case has a conversation, which follows it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from commerce.aftersales.model import OfferInput
from commerce.conversations.errors import CannotMerge, ConversationStatusConflict
from commerce.conversations.support_model import ConversationMerge
from commerce.orders import store as orders
from tests.support.case_shop import CLAIM, STAFF, CaseShop, open_case_shop
from tests.support.conversation_shop import ConversationShop, open_conversation_shop
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


@pytest.fixture
def talks(ship: ShippingShop, tmp_path: Path) -> ConversationShop:
    return open_conversation_shop(ship.shop, tmp_path)


async def test_conversation_follows_whoever_must_act_on_its_case(cases: CaseShop, talks: ConversationShop) -> None:
    case_id = await cases.request(await cases.add_delivered(("a", 1, 0)), text="It does not fit")
    opened = await talks.read(case_id)
    assert (opened.status, opened.kind, opened.case_waits_for) == ("new", "return", "staff")
    assert (opened.unanswered, opened.order_id is not None) == (0, True)
    assert await talks.texts(case_id) == ["It does not fit"]
    await cases.approve(case_id)
    approved = await talks.read(case_id)
    assert (approved.status, approved.amount, approved.currency) == ("waiting_customer", 100, "CNY")
    assert approved.first_response_at is not None
    with pytest.raises(ConversationStatusConflict, match="end the case"):
        await talks.set_status(case_id, "resolved")
    await cases.receive(case_id, (1, 0, 0))
    assert (await talks.read(case_id)).status == "open"
    await cases.act("resolve", case_id)
    assert (await talks.read(case_id)).status == "resolved"
    await cases.work(case_id)
    done = await talks.read(case_id)
    assert (done.status, done.case_waits_for) == ("resolved", "nobody")
    details = [event.details for event in (await talks.service.get(case_id)).events if event.kind == "case"]
    assert [detail["case_status"] for detail in details][-1] == "resolved"
    assert details[-1]["money_state"] == "done"
    await talks.check_records()


async def test_message_of_the_customer_stays_open_until_support_answers(
    cases: CaseShop, talks: ConversationShop
) -> None:
    case_id = await cases.request(await cases.add_delivered(("a", 1, 0)))
    await cases.approve(case_id)
    await talks.write(case_id, "Where shall I send it?")
    assert (await talks.read(case_id)).status == "open"
    await cases.receive(case_id, (1, 0, 0))
    assert (await talks.read(case_id)).unanswered == 1
    await talks.reply(case_id, "Thanks")
    conversation = await talks.read(case_id)
    assert (conversation.status, conversation.unanswered) == ("open", 0)  # staff must decide on the case
    await talks.write(case_id, "And my money?")
    await cases.act("resolve", case_id)
    assert (await talks.read(case_id)).status == "resolved"  # the decision answers


async def test_offer_answers_and_a_reopened_case_reopens(cases: CaseShop, talks: ConversationShop) -> None:
    order_id = await cases.add_delivered(("a", 1, 0))
    case_id = await cases.request(order_id, kind=CLAIM)
    await talks.write(case_id, "Please be quick")
    await cases.actions.offer(case_id, OfferInput(version=1, reason="keep it", amount=40), STAFF)
    assert (await talks.read(case_id)).status == "waiting_customer"
    await cases.actions.answer_offer(case_id, 2, "user", "no", accepts=False)
    await cases.act("decline", case_id)
    assert (await talks.read(case_id)).status == "resolved"
    await cases.act("reopen", case_id)
    reopened = await talks.read(case_id)
    assert (reopened.status, reopened.reopens) == ("open", 1)
    assert "reopened" in await talks.events(case_id)


async def test_case_without_a_conversation_gets_one_with_its_next_change(
    cases: CaseShop, talks: ConversationShop
) -> None:
    case_id = await cases.request(await cases.add_delivered(("a", 1, 0)))
    for table in ("conversation_events", "conversation_messages", "conversations"):
        await talks.fetch_rows(f"DELETE FROM {table} RETURNING 1")
    await cases.approve(case_id)
    assert (await talks.read(case_id)).status == "waiting_customer"
    await talks.check_records()


async def test_conversation_of_a_case_is_only_merged_into(cases: CaseShop, talks: ConversationShop) -> None:
    case_id = await cases.request(await cases.add_delivered(("a", 1, 0)), text="first")
    question = await talks.open_question(text="about my return")
    versions = await talks.version(case_id), await talks.version(question)
    with pytest.raises(CannotMerge, match="of a case"):
        await talks.service.actions.merge(
            case_id, ConversationMerge(version=versions[0], into=question, into_version=versions[1]), "staff sue"
        )
    await talks.service.actions.merge(
        question, ConversationMerge(version=versions[1], into=case_id, into_version=versions[0]), "staff sue"
    )
    assert await talks.texts(case_id) == ["first", "about my return"]
    assert (await talks.read(case_id)).unanswered == 1


async def test_reply_does_not_wait_for_the_order_which_a_change_of_the_case_has_locked(
    cases: CaseShop, talks: ConversationShop
) -> None:
    """The change waits for the conversation next: each would wait for the other."""
    order_id = await cases.add_delivered(("a", 1, 0))
    case_id = await cases.request(order_id)
    async with talks.shop.db.transaction() as connection:
        assert await orders.lock_order(connection, order_id)
        await connection.execute("SELECT FROM cases WHERE case_id = $1 FOR UPDATE", case_id)
        async with asyncio.timeout(20):
            await talks.reply(case_id)
            await talks.write(case_id)
