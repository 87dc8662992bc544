"""The queue of staff: its sequence, its filters, taking the next one, merging and splitting."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from commerce.conversations.errors import (
    CannotMerge,
    ConversationMerged,
    ConversationStatusConflict,
    ConversationVersionConflict,
    NoSuchTeam,
)
from commerce.conversations.support_model import (
    AssignInput,
    ConversationChange,
    ConversationMerge,
    ConversationSplit,
    QueueFilter,
    TeamInput,
)
from commerce.kernel.errors import Conflict, Invalid
from tests.support.conversation_shop import ACTOR, STAFF, ConversationShop


async def _change(talks: ConversationShop, conversation_id: UUID, **fields: Any) -> None:
    change = ConversationChange(version=await talks.version(conversation_id), **fields)
    await talks.service.actions.change(conversation_id, change, ACTOR)


async def _assign(talks: ConversationShop, conversation_id: UUID, assignee: str | None) -> None:
    assignment = AssignInput(version=await talks.version(conversation_id), assignee=assignee)
    await talks.service.actions.assign(conversation_id, assignment, ACTOR)


async def _list(talks: ConversationShop, size: int = 2, **fields: Any) -> list[UUID]:
    listed, cursor = [], None
    while True:
        page = await talks.service.list_queue(QueueFilter(**fields), cursor, size)
        listed += [conversation.conversation_id for conversation in page.items]
        cursor = page.next
        if cursor is None:
            return listed


async def test_queue_is_by_priority_and_due_time_with_every_filter(talks: ConversationShop) -> None:
    await talks.service.teams.put("claims", TeamInput(name="Claims", members=["sue"]), ACTOR)
    a, b, c, d, e = [await talks.open_question(text=f"question {number}") for number in range(5)]
    await _change(talks, b, priority=1, tags=["fire", "box"])
    await _change(talks, c, team_id="claims", tags=["box"])
    await _assign(talks, d, "sue")
    await talks.set_status(e, "resolved")
    await talks.fetch_rows(
        "UPDATE conversations SET due_at = now() - interval '1 day', due_kind = 'decision' "
        "WHERE conversation_id = $1 RETURNING 1",
        d,
    )
    assert await _list(talks) == [b, d, a, c]
    assert await _list(talks, statuses=["new"]) == [b, a, c]
    assert await _list(talks, statuses=["resolved", "closed"]) == [e]
    assert await _list(talks, team_id="claims") == [c]
    assert await _list(talks, assignee="sue") == [d]
    assert await _list(talks, assignee="sue", tag="box") == []
    assert await _list(talks, is_unassigned=True) == [b, a, c]
    assert await _list(talks, tag="box") == [b, c]
    assert await _list(talks, tag="box", team_id="claims") == [c]
    with pytest.raises(Invalid, match="not ended"):
        await _list(talks, statuses=["closed"], tag="box")
    assert await _list(talks, statuses=["closed"], tag="box", assignee="sue") == []
    assert await _list(talks, kind="return") == []
    assert await _list(talks, kind="question", size=1) == [b, d, a, c]
    assert await _list(talks, is_overdue=True) == [d]


async def test_twenty_takers_never_get_the_same_conversation(talks: ConversationShop) -> None:
    questions = [await talks.open_question(f"user-{number}") for number in range(50)]
    taken: list[UUID] = []

    async def work(staff: str) -> None:
        while (conversation_id := await talks.service.actions.take(None, staff, f"staff {staff}")) is not None:
            taken.append(conversation_id)

    await asyncio.gather(*(work(f"agent-{number}") for number in range(20)))
    assert sorted(taken) == sorted(questions)
    rows = await talks.fetch_rows("SELECT count(*) FROM conversation_events WHERE kind = 'assigned'")
    assert rows[0]["count"] == 50
    assert await talks.service.actions.take(None, STAFF, ACTOR) is None


async def test_take_gives_the_first_of_ones_teams(talks: ConversationShop) -> None:
    for team, members in (("claims", ["sue"]), ("vip", ["max"])):
        await talks.service.teams.put(team, TeamInput(name=team, members=members), ACTOR)
    first, second, third = [await talks.open_question(text=f"question {number}") for number in range(3)]
    await _change(talks, first, team_id="vip", priority=1)
    await _change(talks, third, team_id="claims", priority=2)
    take = talks.service.actions.take
    assert await take(None, "sue", ACTOR) == third
    assert await take(None, "sue", ACTOR) == second
    assert await take(None, "sue", ACTOR) is None
    assert await take("vip", "sue", ACTOR) == first
    assert (await talks.read(first)).status == "open"
    await _assign(talks, first, None)
    assert await take(None, "max", ACTOR) == first
    with pytest.raises(Conflict, match="has conversations"):
        await talks.service.teams.delete("vip")
    with pytest.raises(NoSuchTeam):
        await _change(talks, first, team_id="none")
    with pytest.raises(NoSuchTeam):
        await talks.service.teams.delete("none")


async def _merge(talks: ConversationShop, source: UUID, target: UUID) -> None:
    versions = await talks.version(source), await talks.version(target)
    merge = ConversationMerge(version=versions[0], into=target, into_version=versions[1])
    await talks.service.actions.merge(source, merge, ACTOR)


async def test_merged_messages_are_read_in_the_sequence_of_their_time(talks: ConversationShop) -> None:
    target = await talks.open_question(text="1")
    source = await talks.open_question(text="2")
    await talks.write(target, "3")
    await talks.note(source, "4")
    await _merge(talks, source, target)
    assert await talks.texts(target) == ["1", "2", "3", "4"]
    assert await talks.texts(source) == []
    merged = await talks.read(source)
    assert (merged.status, merged.merged_into, merged.satisfaction_requested_at) == ("closed", target, None)
    assert (await talks.read(target)).unanswered == 3
    assert await talks.write(source, "5") == target
    with pytest.raises(ConversationMerged):
        await talks.reply(source)
    last = await talks.open_question(text="6")
    await _merge(talks, target, last)
    assert (await talks.read(source)).merged_into == last
    assert await talks.write(source, "7") == last
    assert await talks.texts(last) == ["1", "2", "3", "4", "5", "6", "7"]
    page = await talks.service.customers.list_of_user("user", None, 10)
    assert [conversation.conversation_id for conversation in page.items] == [last]


async def test_merge_of_two_customers_or_into_itself_is_refused(talks: ConversationShop) -> None:
    own, others = await talks.open_question(), await talks.open_question("other")
    with pytest.raises(CannotMerge):
        await _merge(talks, own, others)
    with pytest.raises(CannotMerge):
        await _merge(talks, own, own)
    stale = ConversationMerge(version=1, into=others, into_version=await talks.version(others))
    with pytest.raises(ConversationVersionConflict):
        await talks.service.actions.merge(own, stale, ACTOR)


async def test_split_moves_messages_to_a_new_conversation(talks: ConversationShop) -> None:
    source = await talks.open_question(text="the box")
    await talks.write(source, "and the bill")
    await talks.reply(source, "which bill?")
    await talks.write(source, "of May")
    split = ConversationSplit(version=await talks.version(source), message_nos=[2, 4], subject="The bill")
    new = await talks.service.actions.split(source, split, ACTOR)
    assert await talks.texts(source) == ["the box", "which bill?"]
    assert await talks.texts(new) == ["and the bill", "of May"]
    assert (await talks.read(new)).unanswered == 1
    assert await talks.write(new, "please") == new
    await talks.write(source, "thanks")
    missing = ConversationSplit(version=await talks.version(source), message_nos=[2], subject="The bill")
    with pytest.raises(Invalid, match="no message 2"):
        await talks.service.actions.split(source, missing, ACTOR)


async def test_split_of_answered_messages_leaves_the_unanswered_ones_waiting(talks: ConversationShop) -> None:
    source = await talks.open_question(text="the box")
    await talks.reply(source, "which box?")
    await talks.write(source, "of May")
    split = ConversationSplit(version=await talks.version(source), message_nos=[1], subject="The box")
    new = await talks.service.actions.split(source, split, ACTOR)
    assert (await talks.read(source)).unanswered == 1
    [opened, *_] = (await talks.service.get(new)).events
    assert ((await talks.read(new)).unanswered, "waiting_since" in opened.details) == (0, False)


@pytest.mark.parametrize("ended", ["resolved", "closed"])
async def test_open_conversation_that_is_merged_into_an_ended_one_stays_open(
    talks: ConversationShop, ended: str
) -> None:
    target, source = await talks.open_question(text="1"), await talks.open_question(text="2")
    await talks.set_status(target, ended)
    await talks.reply(source, "We look into it", status="open")
    await _merge(talks, source, target)
    merged = await talks.read(target)
    assert (merged.status, merged.unanswered, merged.reopens) == ("open", 0, 1)


async def test_closed_conversation_is_not_resolved_before_it_is_reopened(talks: ConversationShop) -> None:
    question = await talks.open_question()
    await talks.set_status(question, "closed")
    with pytest.raises(ConversationStatusConflict, match="reopen it first"):
        await talks.set_status(question, "resolved")
    with pytest.raises(ConversationStatusConflict, match="reopen it first"):
        await talks.reply(question, status="resolved")
    await talks.reply(question, "One more thing")
    assert (await talks.read(question)).status == "closed"
