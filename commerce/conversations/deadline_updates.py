"""Deadlines of a conversation, computed again with each change that concerns them.

Call inside a transaction that holds the conversation's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from commerce.conversations import clock_store
from commerce.conversations.clock_events import ENDED_STATUSES, StoredEvent, clock_events
from commerce.conversations.deadlines import DeadlineTimes, compute_deadlines
from commerce.conversations.model import ConversationSummary
from commerce.deadline_policies import store as policies
from commerce.deadline_policies.model import DeadlineTerms
from commerce.kernel.postgres import Connection

_WITHOUT_CLOCKS = ("note", "assigned", "changed", "satisfaction", "escalated")


async def follow_event(
    connection: Connection,
    before: ConversationSummary,
    changed: ConversationSummary,
    now: datetime,
    actor: str,
    kind: str,
    details: Mapping[str, Any],
) -> ConversationSummary:
    """Store the clocks after a new event. Returns the conversation with its next deadline.

    A reopened one may be escalated again."""
    if changed.merged_into is not None:
        await clock_store.delete_running_clocks(connection, changed.conversation_id)
        return msgspec.structs.replace(changed, due_at=None, due_kind=None)
    selectors = (before.team_id, before.priority) == (changed.team_id, changed.priority)
    if selectors and kind in _WITHOUT_CLOCKS and "from" not in details:
        return changed
    since = details.get("waiting_since")
    event = StoredEvent(
        at=now,
        actor=actor,
        kind=kind,
        status=details.get("status"),
        from_status=details.get("from"),
        case_status=details.get("case_status"),
        money_state=details.get("money_state"),
        waiting_since=None if since is None else datetime.fromisoformat(since),
        is_answer="is_answer" in details,
    )
    changed = await compute(connection, changed, event)
    is_reopened = before.status in ENDED_STATUSES and changed.status not in ENDED_STATUSES
    return msgspec.structs.replace(changed, escalated_on=None) if is_reopened else changed


async def compute(
    connection: Connection, conversation: ConversationSummary, event: StoredEvent | None = None
) -> ConversationSummary:
    """Compute and store the deadlines by the present policy. Returns the conversation with the next one.

    `event` is one more that is not stored yet."""
    policy = await policies.find_policy(connection, conversation.team_id, conversation.kind, conversation.priority)
    stored = await clock_store.list_clock_events(connection, conversation.conversation_id)
    events = clock_events(
        stored if event is None else [*stored, event],
        has_case=conversation.case_id is not None,
        first_response_at=conversation.first_response_at,
    )
    deadlines = compute_deadlines(events, _times(policy.terms), policy.calendar)
    await clock_store.put_clocks(connection, conversation.conversation_id, deadlines, policy)
    return msgspec.structs.replace(conversation, due_at=deadlines.due_at, due_kind=deadlines.due_kind)


def _times(terms: DeadlineTerms) -> DeadlineTimes:
    seconds = terms.first_response_s, terms.decision_s, terms.money_s
    return DeadlineTimes(*(None if time_s is None else timedelta(seconds=time_s) for time_s in seconds))
