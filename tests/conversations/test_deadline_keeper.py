"""Deadlines of stored conversations follow events, policies and calendars; late ones are escalated."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from commerce.conversations import deadline_keeper
from commerce.conversations.deadline_keeper import DeadlineKeeper
from commerce.conversations.support_model import ConversationChange, ConversationMerge, ConversationSplit, TeamInput
from commerce.deadline_policies.model import DeadlineTerms
from commerce.deadline_policies.service import DeadlinePolicies
from commerce.kernel.clock import SystemClock, to_ms
from commerce.kernel.ids import IdGenerator
from commerce.working_time.model import CalendarTerms
from commerce.working_time.service import WorkingCalendars
from ops.services import CliServices
from tests.support.case_shop import open_case_shop
from tests.support.conversation_shop import ACTOR, ConversationShop, open_conversation_shop
from tests.support.shipping_shop import ShippingShop

_SHANGHAI = ZoneInfo("Asia/Shanghai")
_ALWAYS = {
    day: ["00:00-24:00"] for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
}


def _at(text: str) -> datetime:
    """A moment such as `11-30 09:15` in 2026; that day is a Monday."""
    return datetime.fromisoformat(f"2026-{text.replace(' ', 'T')}").replace(tzinfo=_SHANGHAI).astimezone(UTC)


class SetClock(SystemClock):
    """A clock that stands where the test sets it."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self._now_ms = to_ms(_at(text))

    def now_ms(self) -> int:
        return self._now_ms


@dataclasses.dataclass
class DeadlineShop:
    """Conversations with a clock that the test sets, and what carries their deadlines on."""

    talks: ConversationShop
    clock: SetClock
    keeper: DeadlineKeeper
    policies: DeadlinePolicies
    calendars: WorkingCalendars

    async def due(self, conversation_id: UUID) -> tuple[datetime | None, str | None]:
        conversation = await self.talks.read(conversation_id)
        return conversation.due_at, conversation.due_kind

    async def runs(self, conversation_id: UUID) -> list[tuple[Any, ...]]:
        """Return kind, run number, minutes of working time, whether it has stopped and whether it was late."""
        rows = await self.talks.fetch_rows(
            "SELECT kind, run_no, worked_s / 60, stopped_at IS NOT NULL, is_late FROM conversation_clocks "
            "WHERE conversation_id = $1 ORDER BY kind, run_no",
            conversation_id,
        )
        return [tuple(row) for row in rows]

    async def set_policy(self, policy_id: str, **terms: Any) -> None:
        await self.policies.put(policy_id, DeadlineTerms(**terms), ACTOR)

    async def follow_policies(self) -> int:
        count = 0
        while computed := await self.keeper.compute_outdated():
            count += computed
        return count


def _open(shop: CliServices, data_dir: Path) -> DeadlineShop:
    clock = SetClock("11-30 09:00")
    shop = dataclasses.replace(shop, clock=clock, ids=IdGenerator(clock))
    return DeadlineShop(
        open_conversation_shop(shop, data_dir),
        clock,
        DeadlineKeeper(shop.db, clock),
        DeadlinePolicies(shop.db, clock),
        WorkingCalendars(shop.db, clock),
    )


@pytest.fixture
async def support(shop: CliServices, tmp_path: Path) -> AsyncIterator[DeadlineShop]:
    opened = _open(shop, tmp_path)
    yield opened
    await opened.talks.check_records()


async def test_deadline_of_a_question_follows_replies_waiting_and_messages(support: DeadlineShop) -> None:
    talks, clock = support.talks, support.clock
    question = await talks.open_question()
    assert await support.due(question) == (_at("11-30 11:00"), "first_response")
    clock.set("11-30 09:30")
    await talks.note(question)
    await talks.write(question)
    assert await support.due(question) == (_at("11-30 11:00"), "first_response")
    clock.set("11-30 10:00")
    await talks.reply(question)  # and waits for the customer
    assert await support.due(question) == (None, None)
    clock.set("12-01 09:00")
    await talks.write(question)
    assert await support.due(question) == (_at("12-02 17:00"), "decision")  # one of 16 hours was used
    await talks.reply(question, status="open")
    assert await support.due(question) == (_at("12-02 17:00"), "decision")
    clock.set("12-01 10:00")
    await talks.set_status(question, "resolved")
    assert await support.due(question) == (None, None)
    assert await support.runs(question) == [
        ("decision", 1, 120, True, False),
        ("first_response", 1, 60, True, False),
    ]


async def test_word_of_thanks_reopens_and_the_record_of_the_resolution_stays(support: DeadlineShop) -> None:
    talks, clock = support.talks, support.clock
    question = await talks.open_question()
    clock.set("11-30 14:00")
    await talks.reply(question, status="resolved")
    before = await support.runs(question)
    assert before == [("decision", 1, 240, True, False), ("first_response", 1, 240, True, True)]
    clock.set("11-30 14:05")
    await talks.write(question, "Thank you!")
    assert await support.due(question) == (_at("11-30 16:05"), "first_response")
    clock.set("11-30 14:10")
    await talks.set_status(question, "resolved")
    assert await support.due(question) == (None, None)
    runs = await support.runs(question)
    assert [run for run in runs if run[1] == 1] == before
    assert [run[2:] for run in runs if run[1] == 2] == [(5, True, False)] * 2


async def test_merge_carries_the_wait_of_an_unanswered_question_over(support: DeadlineShop) -> None:
    talks, clock = support.talks, support.clock
    answered, unanswered = await talks.open_question(), None
    clock.set("11-30 09:30")
    unanswered = await talks.open_question(text="And the other one?")
    clock.set("11-30 10:00")
    await talks.reply(answered, status="open")
    clock.set("11-30 10:30")
    merge = ConversationMerge(
        version=await talks.version(unanswered), into=answered, into_version=await talks.version(answered)
    )
    await talks.service.actions.merge(unanswered, merge, ACTOR)
    assert await support.due(answered) == (_at("11-30 11:30"), "first_response")
    assert await support.due(unanswered) == (None, None)
    assert await support.runs(unanswered) == []
    clock.set("11-30 11:31")
    await talks.reply(answered, status="open")
    assert ("first_response", 2, 121, True, True) in await support.runs(answered)


async def test_split_question_waits_since_its_message(support: DeadlineShop) -> None:
    talks, clock = support.talks, support.clock
    question = await talks.open_question()
    clock.set("11-30 09:30")
    await talks.write(question, "Another thing")
    clock.set("11-30 10:30")
    split = ConversationSplit(version=await talks.version(question), message_nos=[2], subject="Another thing")
    new = await talks.service.actions.split(question, split, ACTOR)
    assert await support.due(new) == (_at("11-30 11:30"), "first_response")
    assert await support.due(question) == (_at("11-30 11:00"), "first_response")


async def test_changed_policy_counts_for_open_conversations_and_pauses_are_kept(support: DeadlineShop) -> None:
    talks, clock = support.talks, support.clock
    waiting, answered, resolved = [await talks.open_question(user) for user in ("u1", "u2", "u3")]
    clock.set("11-30 09:45")
    await talks.reply(answered)
    clock.set("12-01 09:15")
    await talks.write(answered, user="u2")
    await talks.reply(resolved, status="resolved")
    late = await support.runs(resolved)
    assert ("first_response", 1, 495, True, True) in late
    assert await support.follow_policies() == 0

    await support.set_policy("default", first_response_s=3_600, decision_s=7_200)
    assert (await support.keeper.measure()).outdated == 2  # the resolved one is not computed again
    assert await support.follow_policies() == 2
    assert await support.due(waiting) == (_at("11-30 10:00"), "first_response")
    assert await support.due(answered) == (_at("12-01 10:30"), "decision")  # 45 minutes were used before the pause
    await support.set_policy("default", first_response_s=5_184_000)
    await support.follow_policies()
    assert await support.runs(resolved) == late
    assert ("first_response", 1, 45, True, False) in await support.runs(answered)

    terms = msgspec.convert({"hours": _ALWAYS}, CalendarTerms)
    await support.calendars.put("default", terms, ACTOR)
    await support.set_policy("default", first_response_s=3_600)
    await support.follow_policies()
    assert await support.due(waiting) == (_at("11-30 10:00"), "first_response")
    assert (await support.keeper.measure()).outdated == 0


async def test_policy_that_is_more_specific_counts_by_team_kind_and_priority(support: DeadlineShop) -> None:
    talks = support.talks
    await talks.service.teams.put("claims", TeamInput(name="Claims"), ACTOR)
    await support.set_policy("urgent", priority=1, first_response_s=600)
    await support.set_policy("questions", kind="question", first_response_s=1_200)
    await support.set_policy("claims", team_id="claims", first_response_s=1_800)
    question = await talks.open_question()
    assert await support.due(question) == (_at("11-30 09:20"), "first_response")

    async def change(**fields: Any) -> None:
        change = ConversationChange(version=await talks.version(question), **fields)
        await talks.service.actions.change(question, change, ACTOR)

    await change(priority=1)
    assert await support.due(question) == (_at("11-30 09:20"), "first_response")
    await change(team_id="claims")
    assert await support.due(question) == (_at("11-30 09:30"), "first_response")
    await support.set_policy("claims-urgent", team_id="claims", priority=1, first_response_s=300)
    await support.follow_policies()
    assert await support.due(question) == (_at("11-30 09:05"), "first_response")


async def test_late_conversation_is_escalated_once_by_day_zammad_4432(support: DeadlineShop) -> None:
    talks, clock, keeper = support.talks, support.clock, support.keeper
    await talks.service.teams.put("leads", TeamInput(name="Leads"), ACTOR)
    times = {"first_response_s": 7_200, "decision_s": 57_600}
    await support.set_policy("default", escalation_priority=1, escalation_team_id="leads", **times)
    clock.set("11-30 17:00")
    questions = [await talks.open_question(f"u{number}") for number in range(3)]
    clock.set("12-01 09:30")
    await talks.reply(questions[0])  # in time
    for moment in ("12-01 10:00", "12-01 12:30", "12-02 00:00", "12-02 08:59"):  # not late; lunch; midnight; closed
        clock.set(moment)
        assert await keeper.escalate_late() == 0
    clock.set("12-02 09:00")
    counts = await asyncio.gather(*(keeper.escalate_late() for _ in range(3)))
    assert sum(counts) == 2
    assert await keeper.escalate_late() == 0
    for question in questions[1:]:
        late = await talks.read(question)
        assert (late.priority, late.team_id, late.escalated_on) == (1, "leads", date(2026, 12, 2))
        assert (await talks.events(question)).count("escalated") == 1
    in_time = await talks.read(questions[0])
    assert (in_time.priority, in_time.escalated_on) == (3, None)

    # Answered and reopened, it may be late again.
    await talks.reply(questions[1], status="resolved")
    await talks.write(questions[1], user="u1")
    assert (await talks.read(questions[1])).escalated_on is None
    clock.set("12-02 11:01")
    assert await keeper.escalate_late() == 1
    thread, _ = await talks.service.customers.list_events_after(questions[1], "u1", 0)
    assert "escalated" not in [event.kind for event in thread]


async def test_paused_conversation_is_not_escalated(support: DeadlineShop) -> None:
    question = await support.talks.open_question()
    support.clock.set("12-02 10:00")
    await support.talks.reply(question)  # late, and now the customer must act
    support.clock.set("12-03 10:00")
    assert await support.keeper.escalate_late() == 0
    assert (await support.talks.read(question)).escalated_on is None


async def test_crash_in_a_step_leaves_deadlines_to_the_next(
    support: DeadlineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = await support.talks.open_question()
    await support.set_policy("default", first_response_s=3_600)

    def crash(name: str) -> None:
        assert name == "deadlines.before_commit"
        raise RuntimeError(name)

    with monkeypatch.context() as patched:
        patched.setattr(deadline_keeper, "failpoint", crash)
        with pytest.raises(RuntimeError, match="before_commit"):
            await support.keeper.step()
    assert await support.due(question) == (_at("11-30 11:00"), "first_response")
    assert await support.keeper.step() == 1
    assert await support.due(question) == (_at("11-30 10:00"), "first_response")


async def test_measures_count_overdue_and_the_longest_wait_in_working_time(support: DeadlineShop) -> None:
    assert (await support.keeper.measure()).oldest_unanswered_s == 0
    await support.talks.open_question("u1")
    support.clock.set("11-30 17:00")
    await support.talks.open_question("u2")
    support.clock.set("12-01 09:30")
    load = await support.keeper.measure()
    assert (load.overdue, load.unanswered, load.outdated) == ({"first_response": 1}, 2, 0)
    assert load.oldest_unanswered_s == 8.5 * 3_600
    support.clock.set("12-22 09:30")
    calendar = await support.calendars.get("default")
    assert calendar.uncertain_from is not None
    certain_days = (calendar.uncertain_from - date(2026, 12, 22)).days
    assert (await support.keeper.measure()).uncertain_days == min(30, max(0, 30 - certain_days))


async def test_deadlines_of_a_case_follow_decision_and_money(ship: ShippingShop, tmp_path: Path) -> None:
    support = _open(ship.shop, tmp_path)
    case_shop = open_case_shop(dataclasses.replace(ship, shop=support.talks.shop))
    order_id = await case_shop.add_delivered(("a", 2, 0))
    case_id = await case_shop.request(order_id, 1)
    assert await support.due(case_id) == (_at("11-30 11:00"), "first_response")
    support.clock.set("11-30 10:00")
    await case_shop.approve(case_id)  # the customer must send it
    assert await support.due(case_id) == (None, None)
    support.clock.set("12-02 10:00")
    await case_shop.receive(case_id, (1, 0, 0))
    await case_shop.act("resolve", case_id)
    assert await support.due(case_id) == (_at("12-07 10:00"), "money")
    support.clock.set("12-02 11:00")
    await case_shop.work(case_id)
    assert await support.due(case_id) == (None, None)
    assert await support.runs(case_id) == [
        ("decision", 1, 60, True, False),
        ("first_response", 1, 60, True, False),
        ("money", 1, 60, True, False),
    ]
    declined = await case_shop.request(order_id, 1)
    support.clock.set("12-02 15:00")
    await case_shop.act("decline", declined)
    assert await support.due(declined) == (None, None)
    await case_shop.act("reopen", declined)
    assert await support.due(declined) == (_at("12-02 17:00"), "first_response")
