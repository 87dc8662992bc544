"""Robots of support: customers, agents, a warehouse, and the workers, on a simulated clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from commerce.aftersales.errors import CaseStatusConflict, CaseVersionConflict, NotReturnable
from commerce.conversations.conversation_jobs import ConversationJobs
from commerce.conversations.deadline_keeper import DeadlineKeeper
from commerce.conversations.errors import (
    CannotMerge,
    ConversationMerged,
    ConversationStatusConflict,
    ConversationVersionConflict,
)
from commerce.conversations.model import ConversationSummary
from commerce.conversations.support_model import (
    AssignInput,
    ConversationChange,
    ConversationMerge,
    ConversationSplit,
    NoteInput,
    QueueFilter,
    ReplyInput,
    StatusInput,
)
from commerce.kernel.clock import SystemClock, from_ms, to_ms
from tests.support.case_shop import CLAIM, REFUND_ONLY, RETURN
from tests.support.conversation_shop import ConversationShop
from tests.support.rule_shop import RuleShop

CASES_PER_ORDER = 5
_KINDS = (RETURN, RETURN, CLAIM, REFUND_ONLY)
_REASONS = ("changed_my_mind", "style")
_OVERTAKEN = (
    CaseStatusConflict,
    CaseVersionConflict,
    ConversationMerged,
    ConversationStatusConflict,
    ConversationVersionConflict,
    CannotMerge,
    NotReturnable,
)
"""refusals of somebody who was overtaken, or may not do this now"""


class DrillClock(SystemClock):
    """A simulated clock. Each reading takes a millisecond, so that no two events have the same time."""

    def __init__(self, start: datetime) -> None:
        self._now_ms = to_ms(start)

    def now_ms(self) -> int:
        self._now_ms += 1
        return self._now_ms

    def turn(self, by: timedelta) -> None:
        self._now_ms += by // timedelta(milliseconds=1)


@dataclass
class SupportRobots:
    """Everybody who works on cases, and a record of who has which conversation."""

    talks: ConversationShop
    rules: RuleShop
    keeper: DeadlineKeeper
    closing: ConversationJobs
    clock: DrillClock
    rng: Random
    holders: dict[UUID, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)

    # Customers.

    async def request_case(self, order_id: UUID, user: str) -> None:
        """Request a case of a unit that was delivered some days ago."""
        delivered_at = from_ms(self.clock.now_ms()) - timedelta(days=self.rng.uniform(0.1, 5))
        await self.talks.fetch_rows(
            "UPDATE shipments SET ended_at = $2 WHERE order_id = $1 RETURNING 1", order_id, delivered_at
        )
        kind = self.rng.choice(_KINDS)
        await self.rules.cases.request(
            *(order_id, 1), user=user, kind=kind, reason=self.rng.choice(_REASONS), text="坏了，请帮我看看"
        )
        self.done["requested"] += 1

    async def open_question(self, user: str) -> None:
        await self.talks.open_question(user, self.rng.choice(("Where is my money?", "钱什么时候到？")))
        self.done["asked"] += 1

    async def answer_some(self, count: int) -> None:
        """Have some customers answer, thank, and go on with what was resolved, declined or closed."""
        rows = await self.talks.fetch_rows(
            "SELECT conversation_id, user_id, status, case_id FROM conversations "
            "WHERE status IN ('waiting_customer', 'resolved', 'closed') AND merged_into IS NULL "
            "ORDER BY md5(conversation_id::text || $1) LIMIT $2",
            *(str(self.rng.random()), count),
        )
        await asyncio.gather(
            *(self._answer(row["conversation_id"], row["user_id"], row["status"], row["case_id"]) for row in rows)
        )

    async def _answer(self, conversation_id: UUID, user: str, status: str, case_id: UUID | None) -> None:
        with_case = case_id is not None and self.rng.random() < 0.3
        try:
            if with_case and case_id is not None:
                case = (await self.rules.cases.get(case_id)).case
                actions = self.rules.cases.actions
                if case.status == "declined":
                    await actions.escalate(case_id, case.version, user, "I do not agree")
                    self.done["reopened case"] += 1
                elif case.status == "requested":
                    await actions.cancel(case_id, case.version, f"customer {user}", "never mind", user)
                    self.done["cancelled case"] += 1
                return
            text = "Here is what you asked for" if status == "waiting_customer" else "Thank you!"
            await self.talks.write(conversation_id, text, user)
            self.done["answered" if status == "waiting_customer" else "thanked"] += 1
        except _OVERTAKEN:
            self.done["customer overtaken"] += 1

    # The warehouse.

    async def receive_some(self, count: int) -> None:
        """Receive and inspect some returns."""
        rows = await self.talks.fetch_rows(
            "SELECT case_id FROM cases WHERE status = 'approved' AND items_back AND waits_for = 'customer' "
            "ORDER BY md5(case_id::text || $1) LIMIT $2",
            *(str(self.rng.random()), count),
        )
        for row in rows:
            await self.rules.cases.receive(row["case_id"], self.rng.choice(((1, 0, 0), (0, 1, 0), (0, 0, 1))))
            self.done["received"] += 1

    # Agents.

    async def work_as(self, agent: str) -> bool:
        """Work on what the agent has already, or on the next one. Tells whether there was anything."""
        assigned = await self.talks.service.list_queue(QueueFilter(assignee=agent, statuses=["new", "open"]), None, 5)
        if assigned.items:
            conversation_id = assigned.items[0].conversation_id
            assert self.holders.get(conversation_id) == agent, (conversation_id, agent)
        else:
            taken = await self.talks.service.actions.take(None, agent, f"staff {agent}")
            if taken is None:
                return False
            assert taken not in self.holders, f"{agent} takes {taken}, which {self.holders[taken]} has"
            self.holders[taken] = agent
            self.done["taken"] += 1
            conversation_id = taken
        try:
            await self._handle(conversation_id, agent)
        except _OVERTAKEN:
            self.done["agent overtaken"] += 1
        return True

    async def _handle(self, conversation_id: UUID, agent: str) -> None:
        actor = f"staff {agent}"
        conversation = (await self.talks.service.get(conversation_id)).conversation
        assert conversation.assignee == agent
        if self.rng.random() < 0.2:
            note = NoteInput(version=conversation.version, text="checked it")
            await self.talks.service.actions.note(conversation_id, note, actor)
            conversation = await self.talks.read(conversation_id)
            self.done["noted"] += 1
        if conversation.case_id is not None and conversation.case_waits_for == "staff":
            await self._decide(conversation, agent)
        else:
            await self._reply(conversation, agent)

    async def _decide(self, conversation: ConversationSummary, agent: str) -> None:
        cases, case_id = self.rules.cases, conversation.conversation_id
        case = (await cases.get(case_id)).case
        chance = self.rng.random()
        if case.status != "requested":
            await cases.act("resolve", case_id, actor=f"staff {agent}")
            self.done["resolved case"] += 1
        elif chance < 0.15:
            reply = ReplyInput(version=conversation.version, text="Please tell us more", status="waiting_customer")
            await self.talks.service.actions.reply(conversation.conversation_id, reply, agent, f"staff {agent}")
            self.done["asked customer"] += 1
        elif chance < 0.4:
            await cases.act("decline", case_id, actor=f"staff {agent}")
            self.done["declined"] += 1
        else:
            await cases.approve(case_id)
            self.done["approved"] += 1

    async def _reply(self, conversation: ConversationSummary, agent: str) -> None:
        """Answer a question: mostly by a reply, at times after tidying up."""
        actions, actor, chance = self.talks.service.actions, f"staff {agent}", self.rng.random()
        conversation_id, version = conversation.conversation_id, conversation.version
        if chance < 0.08:
            change = ConversationChange(version=version, tags=["money"], priority=self.rng.randint(1, 4))
            await actions.change(conversation_id, change, actor)
            self.done["changed"] += 1
        elif chance < 0.12:
            await actions.assign(conversation_id, AssignInput(version=version, assignee=None), actor)
            del self.holders[conversation_id]
            self.done["released"] += 1
        elif chance < 0.25 and conversation.case_id is None and await self._merge(conversation, agent):
            self.done["merged"] += 1
        elif chance < 0.32 and await self._split(conversation, agent):
            self.done["split"] += 1
        elif chance < 0.4 and conversation.case_waits_for in (None, "nobody", "provider"):
            step = StatusInput(version=version, status="resolved", reason="nothing is left to do")
            await actions.set_status(conversation_id, step, actor)
            self.done["resolved"] += 1
        else:
            statuses = ("resolved", "waiting_customer", "waiting_carrier", "open")
            is_case_open = conversation.case_waits_for not in (None, "nobody", "provider")
            status = None if is_case_open else self.rng.choice(statuses)
            reply = ReplyInput(version=version, text="It is on its way.", status=status)
            await actions.reply(conversation_id, reply, agent, actor)
            self.done["replied"] += 1

    async def _merge(self, conversation: ConversationSummary, agent: str) -> bool:
        """Merge a question into another conversation of its customer, if there is one."""
        rows = await self.talks.fetch_rows(
            "SELECT conversation_id, version FROM conversations WHERE user_id = $1 AND conversation_id <> $2 "
            "AND merged_into IS NULL ORDER BY created_at DESC LIMIT 1",
            *(conversation.user_id, conversation.conversation_id),
        )
        for row in rows:
            merge = ConversationMerge(
                version=conversation.version, into=row["conversation_id"], into_version=row["version"]
            )
            await self.talks.service.actions.merge(conversation.conversation_id, merge, f"staff {agent}")
        return bool(rows)

    async def _split(self, conversation: ConversationSummary, agent: str) -> bool:
        """Make the last of several messages of the customer a conversation of its own."""
        messages = (await self.talks.service.get(conversation.conversation_id)).messages
        numbers = [message.message_no for message in messages if message.author == "customer"]
        if len(numbers) < 2:
            return False
        split = ConversationSplit(version=conversation.version, message_nos=numbers[-1:], subject="Another question")
        await self.talks.service.actions.split(conversation.conversation_id, split, f"staff {agent}")
        return True

    async def resume_waiting(self) -> None:
        """Go on with some of what waits for a carrier, as whoever has it."""
        waiting = await self.talks.service.list_queue(QueueFilter(statuses=["waiting_carrier"]), None, 20)
        for conversation in waiting.items:
            if conversation.case_waits_for in (None, "nobody", "provider") and self.rng.random() < 0.3:
                step = StatusInput(version=conversation.version, status="open", reason="the carrier has answered")
                await self.talks.service.actions.set_status(
                    conversation.conversation_id, step, f"staff {conversation.assignee}"
                )
                self.done["carrier answered"] += 1

    # Workers.

    async def run_workers(self) -> None:
        """Do what is due: rules, deadlines of cases, money, closing, escalation."""
        for queue in (self.rules.jobs.queue, self.rules.cases.jobs.queue, self.closing.queue):
            while claimed := await queue.claim(100, {}):
                for jobs in claimed:
                    self.done.update(f"{queue.name}: {result.word}" for result in await queue.work(jobs))
        while await self.keeper.step():
            pass
