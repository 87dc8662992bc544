"""The one place that changes a conversation, and what must follow from it.

Call inside a transaction that holds the conversation's lock. Each change has an event with the next version, wakes the
streams of its customer, and puts or removes the job that closes a resolved conversation in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from commerce.conversations import store
from commerce.conversations.deadline_updates import follow_event
from commerce.conversations.errors import (
    ConversationMerged,
    ConversationVersionConflict,
    NoSuchAttachment,
    NoSuchConversation,
)
from commerce.conversations.model import (
    CONVERSATIONS,
    ENDED,
    CaseWaitsFor,
    ConversationStatus,
    ConversationSummary,
    EventKind,
)
from commerce.conversations.store import NewMessage
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.postgres import Connection

ConversationTask = Literal["conversation.close"]
_CLOSE: ConversationTask = "conversation.close"
_EVENT_KINDS: Mapping[str, EventKind] = {"customer": "customer_message", "staff": "reply", "shop": "reply"}
_CASE_STATUSES: Mapping[CaseWaitsFor, ConversationStatus] = {
    "customer": "waiting_customer",
    "carrier": "waiting_carrier",
    "warehouse": "waiting_warehouse",
    "provider": "resolved",
    "nobody": "resolved",
    "staff": "open",
}


async def lock_conversation(
    connection: Connection, conversation_id: UUID, version: int | None = None
) -> ConversationSummary:
    """Lock and read a conversation; with `version` as staff who have read that one.

    Raises `NoSuchConversation`, `ConversationVersionConflict`, and `ConversationMerged` if staff would change one whose
    messages are elsewhere."""
    conversation = await store.lock(connection, conversation_id)
    if conversation is None:
        raise NoSuchConversation(f"there is no conversation {conversation_id}")
    if version is not None:
        if conversation.merged_into is not None:
            into = conversation.merged_into
            raise ConversationMerged(f"cannot change it: its messages are in {into}", merged_into=str(into))
        check_read_version(conversation, version)
    return conversation


def check_read_version(conversation: ConversationSummary, version: int) -> None:
    """Raise `ConversationVersionConflict` if the conversation has another version."""
    if conversation.version != version:
        raise ConversationVersionConflict(
            f"cannot change the conversation: it has version {conversation.version}, and you have read version "
            f"{version}; read it again",
            version=conversation.version,
        )


async def change_conversation(
    connection: Connection,
    conversation: ConversationSummary,
    now: datetime,
    actor: str,
    kind: EventKind,
    details: Mapping[str, Any] | None = None,
    **changes: Any,
) -> ConversationSummary:
    """Store changed fields of a conversation with its event. Returns the changed conversation.

    `changes` are fields of `ConversationSummary`. Times of its end, reopens and the question after satisfaction follow
    from the status, deadlines from the events. Raises `ConversationVersionConflict` if the row has changed."""
    changed = msgspec.structs.replace(conversation, version=conversation.version + 1, **changes)
    event = dict(details or {})
    if changed.status != conversation.status:
        event |= {"status": changed.status, "from": conversation.status}
        changed = _follow_status(conversation, changed, now)
    changed = await follow_event(connection, conversation, changed, now, actor, kind, event)
    if not await store.update(connection, changed, now, actor, kind, event):
        raise ConversationVersionConflict("cannot change the conversation: somebody else has; read it again")
    if (changed.status == "resolved") != (conversation.status == "resolved"):
        await _put_close_job(connection, changed, now)
    return changed


def _follow_status(before: ConversationSummary, changed: ConversationSummary, now: datetime) -> ConversationSummary:
    """Return a conversation with the times that its new status needs."""
    if changed.status in ENDED:
        is_closed = changed.status == "closed"
        is_requested_now = is_closed and changed.merged_into is None and before.satisfaction_requested_at is None
        return msgspec.structs.replace(
            changed,
            unanswered=0,
            resolved_at=before.resolved_at or now,
            closed_at=now if is_closed else None,
            satisfaction_requested_at=now if is_requested_now else before.satisfaction_requested_at,
            active_at=now,
        )
    was_ended = before.status in ENDED
    return msgspec.structs.replace(
        changed, resolved_at=None, closed_at=None, reopens=before.reopens + (1 if was_ended else 0)
    )


async def _put_close_job(connection: Connection, conversation: ConversationSummary, now: datetime) -> None:
    """Put the job that closes a resolved conversation, or remove it.

    The job itself waits as long as the settings say."""
    if conversation.status == "resolved":
        job = NewJob(conversation.conversation_id, _CLOSE, INTERNAL_SYSTEM, now)
        await jobs.put(connection, CONVERSATIONS, [job], now)
    else:
        await jobs.remove(connection, CONVERSATIONS, [conversation.conversation_id])


async def add_message(
    connection: Connection,
    conversation: ConversationSummary,
    message: NewMessage,
    now: datetime,
    details: Mapping[str, Any] | None = None,
    **changes: Any,
) -> ConversationSummary:
    """Add a message or a note with its attachments. Returns the changed conversation.

    A reply answers the customer's messages. Raises `NoSuchAttachment` for files that are not the author's, or were
    sent before, and `UniqueViolationError` if the message's key is used."""
    number = conversation.last_message_no + 1
    await store.insert_message(connection, conversation.conversation_id, number, message, now)
    if message.attachments:
        wanted = set(message.attachments)
        sent = await store.send_attachments(
            connection, conversation.conversation_id, number, sorted(wanted), message.actor
        )
        if sent < len(wanted):
            raise NoSuchAttachment("an attachment is not yours, or was sent before: upload it again")
    kind: EventKind = "note" if message.is_internal else _EVENT_KINDS[message.author]
    fields: dict[str, Any] = {"last_message_no": number}
    if message.author == "customer":
        fields |= {"active_at": now, "unanswered": conversation.unanswered + 1}
    elif not message.is_internal:
        first_at = conversation.first_response_at or now
        fields |= {"active_at": now, "unanswered": 0, "first_response_at": first_at}
    event = {"message_no": number, **(details or {})}
    return await change_conversation(connection, conversation, now, message.actor, kind, event, **(fields | changes))


def status_of_case(waits_for: CaseWaitsFor, *, is_new: bool = False) -> ConversationStatus:
    """Return the status that a case requires of its conversation; `is_new`: nobody has responded yet."""
    return "new" if waits_for == "staff" and is_new else _CASE_STATUSES[waits_for]


def is_case_open(conversation: ConversationSummary) -> bool:
    """Tell whether the conversation has a case on which somebody must act."""
    return conversation.case_waits_for not in (None, "provider", "nobody")
