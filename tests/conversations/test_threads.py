"""Questions, messages and replies, from the first to the question after satisfaction."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from commerce.conversations.conversation_jobs import ConversationJobs
from commerce.conversations.errors import (
    ConversationVersionConflict,
    NoSuchConversation,
    SatisfactionNotRequested,
    TooManyMessages,
    TooManyQuestions,
)
from commerce.conversations.model import MessageInput, Question, SatisfactionInput
from commerce.conversations.support_model import ConversationMerge, NoteInput, ReplyInput
from commerce.kernel.errors import Invalid, KeyReused
from commerce.kernel.jobs import RetryPolicy
from commerce.orders.errors import NoSuchOrder
from config.conversations import ConversationSettings
from ops.services import CliServices
from tests.support.conversation_shop import ACTOR, STAFF, ConversationShop, open_conversation_shop


async def test_question_and_replies_set_status_and_unread(talks: ConversationShop) -> None:
    question = await talks.open_question(text="物流到哪里了?")
    conversation = await talks.read(question)
    assert (conversation.status, conversation.unanswered, conversation.language) == ("new", 1, "zh")
    await talks.note(question, "ask the carrier")
    assert (await talks.read(question)).first_response_at is None
    await talks.reply(question, "Tomorrow.")
    conversation = await talks.read(question)
    assert (conversation.status, conversation.unanswered) == ("waiting_customer", 0)
    assert conversation.first_response_at is not None
    thread = await talks.service.customers.get(question, "user", None, 10)
    assert [message.text for message in thread.messages] == ["物流到哪里了?", "Tomorrow."]
    assert thread.conversation.unread == 1
    await talks.service.customers.mark_read(question, "user", thread.messages[-1].message_no)
    assert (await talks.service.customers.get(question, "user", None, 10)).conversation.unread == 0
    await talks.write(question, "Thanks")
    assert (await talks.read(question)).status == "open"
    assert await talks.events(question) == ["opened", "customer_message", "note", "reply", "customer_message"]


async def test_note_is_shown_to_no_customer(talks: ConversationShop) -> None:
    question = await talks.open_question()
    await talks.note(question, "he is rude")
    thread = await talks.service.customers.get(question, "user", None, 10)
    events, last_seq = await talks.service.customers.list_events_after(question, "user", 0)
    assert "rude" not in msgspec.json.encode([thread, events]).decode()
    assert ([event.kind for event in events], last_seq) == (["opened", "customer_message"], 3)


async def test_conversation_of_another_customer_does_not_exist(talks: ConversationShop) -> None:
    question = await talks.open_question()
    customers, text = talks.service.customers, MessageInput(text="me too")
    for attempt in (
        customers.get(question, "mallory", None, 10),
        customers.write(question, "mallory", "k", text),
        customers.mark_read(question, "mallory", 1),
        customers.rate(question, "mallory", SatisfactionInput(score=1)),
        customers.list_events_after(question, "mallory", 0),
        customers.write(uuid4(), "user", "k", text),
    ):
        with pytest.raises(NoSuchConversation):
            await attempt
    with pytest.raises(NoSuchOrder):
        await talks.open_question(order_id=uuid4())


async def test_same_key_sends_one_message(talks: ConversationShop) -> None:
    questions = await asyncio.gather(*(talks.open_question(key="k") for _ in range(5)))
    assert len(set(questions)) == 1
    written = await asyncio.gather(*(talks.write(questions[0], key="k-2") for _ in range(5)))
    assert set(written) == set(questions)
    assert len(await talks.texts(questions[0])) == 2
    with pytest.raises(KeyReused):
        await talks.write(questions[0], "another text", key="k-2")
    with pytest.raises(KeyReused):
        await talks.write(await talks.open_question(), key="k-2")
    await talks.open_question("other", key="k")  # keys are of one customer


async def test_reply_to_changed_conversation_is_refused(talks: ConversationShop) -> None:
    question = await talks.open_question()
    version = await talks.version(question)
    await talks.write(question, "Never mind")
    with pytest.raises(ConversationVersionConflict):
        await talks.service.actions.reply(question, ReplyInput(version=version, text="Yes"), STAFF, ACTOR)
    assert await talks.texts(question) == ["Where is it?", "Never mind"]


@pytest.mark.parametrize("text", ["", " \n ", "a\x00b", "a\tb", "\u202a\x9f", "a" * 4_001, "\u3164", "a\u2028b"])
def test_text_with_nothing_to_read_or_control_characters_is_refused(text: str) -> None:
    for model, body in ((MessageInput, {"text": text}), (NoteInput, {"text": text, "version": 1})):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(body, model)


@pytest.mark.parametrize("text", ["a\nb", "?", "👍", "<script>alert(1)</script>", "a" * 4_000, "\n x"])
async def test_text_is_kept_as_it_is(talks: ConversationShop, text: str) -> None:
    question = await talks.open_question(text=msgspec.convert({"text": text}, MessageInput).text)
    assert await talks.texts(question) == [text]


async def test_reply_needs_text_or_template(talks: ConversationShop) -> None:
    question = await talks.open_question()
    with pytest.raises(Invalid):
        await talks.reply(question, None)
    with pytest.raises(Invalid):
        await talks.reply(question, "text", template="both")


async def test_limits_of_customers_hold(shop: CliServices, tmp_path: Path) -> None:
    talks = open_conversation_shop(
        shop, tmp_path, open_questions_per_user=2, unanswered_messages=3, messages_per_conversation=6
    )
    first = await talks.open_question()
    second = await talks.open_question()
    with pytest.raises(TooManyQuestions):
        await talks.open_question()
    await talks.open_question("other")
    await talks.write(first)
    await talks.write(first)
    with pytest.raises(TooManyMessages, match="wait for an answer"):
        await talks.write(first)
    await talks.reply(first)
    await talks.write(first)
    await talks.write(first)
    with pytest.raises(TooManyMessages, match="as long as it can be"):
        await talks.write(first)
    await talks.set_status(second, "resolved")
    await talks.open_question()


async def test_message_reopens_resolved_conversation(talks: ConversationShop) -> None:
    question = await talks.open_question()
    await talks.reply(question, status="resolved")
    resolved = await talks.read(question)
    assert (resolved.status, resolved.resolved_at is not None) == ("resolved", True)
    assert await talks.write(question, "It is not") == question
    reopened = await talks.read(question)
    assert (reopened.status, reopened.reopens, reopened.resolved_at) == ("open", 1, None)
    await talks.set_status(question, "closed")
    await talks.set_status(question, "open")
    assert (await talks.read(question)).reopens == 2
    assert (await talks.events(question))[-2:] == ["closed", "reopened"]


async def test_message_long_after_the_end_opens_a_linked_conversation(talks: ConversationShop) -> None:
    question = await talks.open_question(subject="My box")
    await talks.set_status(question, "closed")
    await talks.fetch_rows("UPDATE conversations SET closed_at = closed_at - interval '15 days' RETURNING 1")
    following = await talks.write(question, "Another thing", key="k")
    assert following != question
    assert await talks.write(question, "Another thing", key="k") == following
    assert await talks.write(question, "And more") == following
    conversation = await talks.read(following)
    assert (conversation.previous_id, conversation.subject, conversation.status) == (question, "My box", "new")
    assert (await talks.read(question)).status == "closed"


async def test_satisfaction_is_requested_once_after_closing(talks: ConversationShop) -> None:
    question, customers = await talks.open_question(), talks.service.customers
    answer = SatisfactionInput(score=5, text="quick")
    await talks.reply(question, status="resolved")
    with pytest.raises(SatisfactionNotRequested):
        await customers.rate(question, "user", answer)
    await talks.set_status(question, "closed")
    assert (await customers.get(question, "user", None, 1)).conversation.wants_satisfaction
    await customers.rate(question, "user", answer)
    await customers.rate(question, "user", answer)
    with pytest.raises(SatisfactionNotRequested):
        await customers.rate(question, "user", SatisfactionInput(score=1))
    await talks.write(question, "one more thing")
    await talks.set_status(question, "closed")
    conversation = await customers.get(question, "user", None, 1)
    assert (conversation.conversation.wants_satisfaction, conversation.conversation.satisfaction) == (False, 5)


async def test_resolved_conversation_is_closed_in_time(talks: ConversationShop, shop: CliServices) -> None:
    jobs = ConversationJobs(
        *(
            shop.db,
            shop.clock,
            ConversationSettings(),
            RetryPolicy(initial_ms=1, max_s=1, lease_s=60, rows_per_claim=100),
            5,
        )
    )

    async def work() -> list[str]:
        await talks.fetch_rows("UPDATE jobs SET due_at = now() - interval '1 second' RETURNING 1")
        groups = await jobs.queue.claim(100, {})
        return [result.word for group in groups for result in await jobs.queue.work(group)]

    waiting, reopened, closed = [await talks.open_question() for _ in range(3)]
    for question in (waiting, reopened, closed):
        await talks.reply(question, status="resolved")
    await talks.write(reopened)
    days = timedelta(days=ConversationSettings().close_after_days)
    await talks.fetch_rows(
        "UPDATE conversations SET resolved_at = resolved_at - $2::interval WHERE conversation_id = $1 RETURNING 1",
        *(closed, days),
    )
    assert sorted(await work()) == ["done", "waiting"]
    statuses = [(await talks.read(question)).status for question in (waiting, reopened, closed)]
    assert statuses == ["resolved", "open", "closed"]
    assert await work() == ["waiting"]


async def test_customer_lists_newest_activity_first(talks: ConversationShop) -> None:
    questions = [await talks.open_question(text=f"question {number}") for number in range(5)]
    await talks.open_question("other")
    await talks.reply(questions[1])
    customers = talks.service.customers
    listed, cursor = [], None
    while True:
        page = await customers.list_of_user("user", cursor, 2)
        listed += [(conversation.conversation_id, conversation.unread) for conversation in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert listed == [(questions[1], 1), (questions[4], 0), (questions[3], 0), (questions[2], 0), (questions[0], 0)]


async def test_pages_of_messages_have_all_of_them_once(talks: ConversationShop) -> None:
    question = await talks.open_question(text="0")
    for number in range(1, 10):
        await (talks.write if number % 3 else talks.reply)(question, str(number))
    texts, cursor = list[str](), None
    while True:
        page = await talks.service.get(question, cursor, 3)
        texts = [message.text for message in page.messages] + texts
        cursor = page.earlier
        if cursor is None:
            break
    assert texts == [str(number) for number in range(10)]


def test_subject_and_score_are_bounded() -> None:
    for body in ({"subject": "a" * 201, "text": "a"}, {"subject": "a\nb", "text": "a"}, {"subject": "", "text": "a"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(body, Question)
    for score in (0, 6, 2.5, "3"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"score": score}, SatisfactionInput)


async def test_message_to_old_conversation_that_has_its_following_one_opens_another(talks: ConversationShop) -> None:
    question = await talks.open_question()
    await talks.set_status(question, "closed")
    await talks.fetch_rows("UPDATE conversations SET closed_at = closed_at - interval '15 days' RETURNING 1")
    following = await talks.write(question, "Another thing")
    await talks.reply(following)
    versions = {"version": await talks.version(following), "into_version": await talks.version(question)}
    await talks.service.actions.merge(following, ConversationMerge(into=question, **versions), ACTOR)
    assert (await talks.read(question)).status == "closed"
    for conversation_id in (question, following):
        latest = await talks.write(conversation_id, "And more")
        assert latest not in (question, following)
    assert (await talks.read(latest)).previous_id == question
    assert await talks.texts(latest) == ["And more"] * 2
