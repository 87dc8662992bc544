"""Computes deadlines of an older policy again, and escalates late conversations. Several may run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from commerce.conversations import clock_store, store
from commerce.conversations.conversation_changes import change_conversation
from commerce.conversations.deadline_updates import compute
from commerce.conversations.model import ConversationSummary
from commerce.deadline_policies import store as policies
from commerce.deadline_policies.service import DEFAULT_POLICY
from commerce.deadline_policies.store import PolicyInForce
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.working_time.working_calendar import WorkingCalendar

_ROWS_PER_STEP = 100
_DAYS_AHEAD = 30
_ACTOR = "deadline_keeper"


class DeadlineLoad(NamedTuple):
    """Measures of deadlines.

    `overdue` counts conversations by what is due, `outdated` those left to compute after a change of a policy. The
    oldest unanswered one is measured in working time. `uncertain_days` of the next 30 have no known holidays."""

    overdue: dict[str, int]
    unanswered: int
    oldest_unanswered_s: float
    outdated: int
    uncertain_days: int


class DeadlineKeeper:
    """Steps over open conversations. `count_escalation` is called with what is late."""

    def __init__(self, db: Database, clock: Clock, count_escalation: Callable[[str], None] = lambda kind: None) -> None:
        self._db = db
        self._clock = clock
        self._count_escalation = count_escalation

    async def step(self) -> int:
        """Compute some conversations again, and escalate some late ones. Returns how many there were."""
        return await self.compute_outdated() + await self.escalate_late()

    async def compute_outdated(self) -> int:
        """Compute open conversations whose deadlines are of an older generation. Returns how many there were."""
        async with self._db.transaction() as connection:
            generation = await policies.read_generation(connection)
            ids = await clock_store.lock_outdated(connection, generation, _ROWS_PER_STEP)
            for conversation_id in ids:
                conversation = await store.lock(connection, conversation_id)
                assert conversation is not None
                await compute(connection, conversation)
            failpoint("deadlines.before_commit")
        return len(ids)

    async def escalate_late(self) -> int:
        """Escalate late conversations whose calendar is open, each once. Returns how many there were.

        A conversation is late once: one that is reopened may be escalated again."""
        now, count = from_ms(self._clock.now_ms()), 0
        async with self._db.connection() as connection:
            in_force = await policies.list_in_force(connection)
        for policy in in_force:
            if not policy.calendar.is_open(now):
                continue
            async with self._db.transaction() as connection:
                ids = await clock_store.lock_late(connection, policy.policy_id, now, _ROWS_PER_STEP)
                kinds = [await self._escalate(connection, policy, conversation_id, now) for conversation_id in ids]
            for kind in kinds:
                self._count_escalation(kind)
            count += len(kinds)
        return count

    async def _escalate(
        self, connection: Connection, policy: PolicyInForce, conversation_id: Any, now: datetime
    ) -> str:
        conversation = await store.lock(connection, conversation_id)
        assert conversation is not None
        assert conversation.due_kind is not None
        due_kind = conversation.due_kind
        changes = _escalation(conversation, policy)
        details = {"due_kind": due_kind, **changes}
        day = policy.calendar.local_day(now)
        await change_conversation(
            *(connection, conversation, now, _ACTOR, "escalated", details), escalated_on=day, **changes
        )
        return due_kind

    async def measure(self) -> DeadlineLoad:
        """Measure what is late and what is left to compute."""
        now = from_ms(self._clock.now_ms())
        async with self._db.connection() as connection:
            in_force = {policy.policy_id: policy for policy in await policies.list_in_force(connection)}
            oldest = await clock_store.find_oldest_unanswered(connection)
            load = DeadlineLoad(
                overdue=await clock_store.count_overdue(connection, now),
                unanswered=await clock_store.count_unanswered(connection),
                oldest_unanswered_s=0.0,
                outdated=await clock_store.count_outdated(connection, await policies.read_generation(connection)),
                uncertain_days=max(_uncertain_days(policy.calendar, now) for policy in in_force.values()),
            )
        if oldest is None:
            return load
        since, policy_id = oldest
        calendar = in_force.get(policy_id or "", in_force[DEFAULT_POLICY]).calendar
        return load._replace(oldest_unanswered_s=calendar.measure(since, now).total_seconds())


def _uncertain_days(calendar: WorkingCalendar, now: datetime) -> int:
    if calendar.uncertain_from is None:
        return 0
    certain = (calendar.uncertain_from - calendar.local_day(now)).days
    return min(_DAYS_AHEAD, max(0, _DAYS_AHEAD - certain))


def _escalation(conversation: ConversationSummary, policy: PolicyInForce) -> dict[str, Any]:
    """Return the changed fields of a late conversation."""
    changes: dict[str, Any] = {}
    priority, team_id = policy.terms.escalation_priority, policy.terms.escalation_team_id
    if priority is not None and priority < conversation.priority:
        changes["priority"] = priority
    if team_id is not None and team_id != conversation.team_id:
        changes |= {"team_id": team_id, "assignee": None}
    return changes
