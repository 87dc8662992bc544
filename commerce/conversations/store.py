"""Rows of conversations, their messages, attachments and events.

`conversation_changes.py` is the one place that changes a conversation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.conversations.model import (
    Attachment,
    Author,
    ConversationEvent,
    ConversationSummary,
    Message,
)
from commerce.conversations.support_model import QueueFilter, ReplyTemplate
from commerce.kernel.postgres import Connection, note_for_commit
from commerce.kernel.sql import load_queries

_RENAMED = {"amount": "amount_minor"}
_COLUMNS = [_RENAMED.get(field, field) for field in ConversationSummary.__struct_fields__]
_MESSAGE_COLUMNS = [field for field in Message.__struct_fields__ if field != "attachments"]
queries = load_queries(
    __package__,
    conversations=_COLUMNS,
    conversation_messages=_MESSAGE_COLUMNS,
    conversation_attachments=Attachment.__struct_fields__,
    conversation_events=ConversationEvent.__struct_fields__,
    support_teams=("team_id", "name", "changed_at", "actor"),
    reply_templates=ReplyTemplate.__struct_fields__,
    conversation_views=("view_id", "staff", "name", "is_shared", "filter", "changed_at"),
    bulk_previews=("preview_id", "action", "ids", "versions", "created_at", "outcome"),
)
_LATEST = datetime(2999, 1, 1, tzinfo=UTC)
KEY_CONSTRAINT = "conversation_messages_by_key"
TEAM_CONSTRAINT = "conversations_team_id_fkey"


class NewMessage(NamedTuple):
    """A message to insert. A customer's has a key, and the digest of its body."""

    author: Author
    actor: str
    text: str
    is_internal: bool = False
    template_id: str | None = None
    attachments: Sequence[UUID] = ()
    idempotency_key: str | None = None
    body_digest: bytes | None = None


class QueuePlace(NamedTuple):
    """The place of a conversation in the queue, after which a page begins."""

    priority: int
    queue_at: datetime
    conversation_id: UUID


class TimePlace(NamedTuple):
    """A moment and a key within it, before which a page ends."""

    at: datetime
    key: Any


class StoredFile(NamedTuple):
    """The file of an attachment, with the actor who uploaded it.

    If it was sent, `user_id` is the customer of its conversation."""

    uploaded_by: str
    sha256: bytes
    media_type: str
    user_id: str | None
    is_internal: bool


async def get(connection: Connection, conversation_id: UUID) -> ConversationSummary | None:
    row = await connection.fetchrow(queries.get_conversation, conversation_id)
    return _conversation(row) if row else None


async def lock(connection: Connection, conversation_id: UUID) -> ConversationSummary | None:
    """Lock a conversation until the transaction ends, and read it."""
    row = await connection.fetchrow(queries.lock_conversation, conversation_id)
    return _conversation(row) if row else None


async def insert(
    connection: Connection, new: ConversationSummary, actor: str, details: Mapping[str, Any] | None = None
) -> bool:
    """Insert a conversation without messages, and its first event. False if there is one with its id."""
    details = {"status": new.status, **(details or {})}
    version = await connection.fetchval(
        queries.insert_conversation,
        *(new.conversation_id, new.user_id, new.order_id, new.case_id, new.previous_id, new.kind, new.subject),
        *(new.language, new.status, new.case_waits_for, new.amount, new.currency, new.created_at),
        *(new.resolved_at, new.first_response_at, actor, _json(details)),
    )
    note_for_commit(connection, new.conversation_id)
    return version is not None


async def update(
    connection: Connection,
    changed: ConversationSummary,
    now: datetime,
    actor: str,
    kind: str,
    details: Mapping[str, Any],
) -> bool:
    """Store a changed conversation and the event of its version.

    False if the row does not have the version before."""
    version = await connection.fetchval(
        queries.update_conversation,
        *(changed.conversation_id, changed.version - 1, changed.subject, changed.language, changed.status),
        *(changed.case_waits_for, changed.amount, changed.currency, changed.priority, changed.assignee),
        *(changed.team_id, changed.tags, changed.active_at, changed.due_at, changed.due_kind, changed.escalated_on),
        *(changed.last_message_no, changed.unanswered, changed.read_by_customer_no, changed.first_response_at),
        *(changed.resolved_at, changed.closed_at, changed.merged_into, changed.reopens, changed.satisfaction),
        *(changed.satisfaction_text, changed.satisfaction_requested_at, changed.satisfaction_at),
        *(now, actor, kind, _json(details)),
    )
    note_for_commit(connection, changed.conversation_id)
    return version is not None


async def take_next(
    connection: Connection, teams: Sequence[str], candidates: int, staff: str, now: datetime, actor: str
) -> UUID | None:
    """Assign the next conversation of these teams to a staff member.

    None if others have taken all candidates."""
    conversation_id: UUID | None = await connection.fetchval(
        queries.take_next, teams, candidates, staff, now, actor, _json({"assignee": staff, "status": "open"})
    )
    if conversation_id is not None:
        note_for_commit(connection, conversation_id)
    return conversation_id


async def has_unassigned(connection: Connection, teams: Sequence[str]) -> bool:
    return bool(await connection.fetchval(queries.has_unassigned, teams))


async def list_queue(
    connection: Connection, filter_: QueueFilter, after: QueuePlace, now: datetime, count: int
) -> list[ConversationSummary]:
    """List conversations of a filter by priority and due time, after a place.

    The filter names at least one status."""
    due_before = now if filter_.is_overdue else None
    shared = (list(filter_.statuses), *after, due_before, filter_.kind, filter_.is_unassigned, count)
    if filter_.assignee is not None:
        rows = await connection.fetch(
            queries.list_queue_of_assignee, *shared, filter_.assignee, filter_.team_id, filter_.tag
        )
    elif filter_.tag is not None:
        rows = await connection.fetch(queries.list_queue_of_tag, *shared, filter_.tag, filter_.team_id)
    elif filter_.team_id is not None:
        rows = await connection.fetch(queries.list_queue_of_team, *shared, filter_.team_id)
    else:
        rows = await connection.fetch(queries.list_queue, *shared)
    return [_conversation(row) for row in rows]


async def list_of_user(
    connection: Connection, user_id: str, before: TimePlace, count: int
) -> list[ConversationSummary]:
    """List conversations of a customer, newest activity first."""
    return [_conversation(row) for row in await connection.fetch(queries.list_of_user, user_id, *before, count)]


async def list_of_order(connection: Connection, order_id: UUID, count: int) -> list[ConversationSummary]:
    """List conversations about an order, oldest first."""
    return [_conversation(row) for row in await connection.fetch(queries.list_of_order, order_id, count)]


async def count_open_questions(connection: Connection, user_id: str, count: int) -> int:
    return int(await connection.fetchval(queries.count_open_questions, user_id, count))


async def count_unread(connection: Connection, conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Count the unread messages of each of these conversations, up to 100."""
    rows = await connection.fetch(queries.count_unread, conversation_ids)
    return {row["conversation_id"]: row["unread"] for row in rows}


async def find_following(connection: Connection, conversation_id: UUID) -> UUID | None:
    following: UUID | None = await connection.fetchval(queries.find_following, conversation_id)
    return following


async def insert_message(
    connection: Connection, conversation_id: UUID, message_no: int, message: NewMessage, now: datetime
) -> None:
    """Insert a message. Raises `UniqueViolationError` if its key is used."""
    await connection.execute(
        queries.insert_message,
        *(conversation_id, message_no, now, message.author, message.actor, message.is_internal, message.text),
        *(message.template_id, message.idempotency_key, message.body_digest),
    )


async def find_message_by_key(connection: Connection, actor: str, key: str) -> tuple[UUID, bytes] | None:
    """Return the conversation of the message that was sent with this key, and the digest of its body."""
    row = await connection.fetchrow(queries.find_message_by_key, actor, key)
    return (row["conversation_id"], row["body_digest"]) if row else None


async def list_messages(
    connection: Connection, conversation_id: UUID, before: TimePlace | None, *, with_internal: bool, count: int
) -> list[Message]:
    """List the newest messages before a place, newest first, with their attachments."""
    place = before or TimePlace(_LATEST, 0)
    rows = await connection.fetch(queries.list_messages, conversation_id, *place, with_internal, count)
    return await _with_attachments(connection, conversation_id, rows)


async def get_messages(connection: Connection, conversation_id: UUID, message_nos: Sequence[int]) -> dict[int, Message]:
    """Read messages of a conversation by number; those that were moved are missing."""
    rows = await connection.fetch(queries.get_messages, conversation_id, message_nos)
    messages = await _with_attachments(connection, conversation_id, rows)
    return {message.message_no: message for message in messages}


async def _with_attachments(connection: Connection, conversation_id: UUID, rows: Sequence[Any]) -> list[Message]:
    attachments: dict[int, list[Attachment]] = defaultdict(list)
    if rows:
        numbers = [row["message_no"] for row in rows]
        for row in await connection.fetch(queries.list_attachments, conversation_id, numbers):
            fields = {field: row[field] for field in Attachment.__struct_fields__}
            attachments[row["message_no"]].append(Attachment(**fields))
    return [
        Message(**{field: row[field] for field in _MESSAGE_COLUMNS}, attachments=attachments[row["message_no"]])
        for row in rows
    ]


async def list_latest_of_customer(connection: Connection, conversation_id: UUID, count: int) -> list[int]:
    """List the numbers of the last messages that the customer has written, the latest first."""
    return [
        row["message_no"] for row in await connection.fetch(queries.list_latest_of_customer, conversation_id, count)
    ]


async def move_messages(
    connection: Connection, from_id: UUID, to_id: UUID, last_no: int, message_nos: Sequence[int] | None = None
) -> int:
    """Move messages to another conversation, behind its last number. Returns how many; None moves all."""
    return len(await connection.fetch(queries.move_messages, from_id, to_id, last_no, message_nos))


async def redirect_merged(connection: Connection, from_id: UUID, to_id: UUID) -> None:
    """Let conversations that were merged into one point to another."""
    await connection.execute(queries.redirect_merged, from_id, to_id)


async def list_events(connection: Connection, conversation_id: UUID, count: int) -> list[ConversationEvent]:
    """List the newest events, oldest first."""
    rows = await connection.fetch(queries.list_events, conversation_id, count)
    return [_event(row) for row in reversed(rows)]


async def list_events_after(
    connection: Connection, conversation_id: UUID, version: int, count: int
) -> list[ConversationEvent]:
    """List the events after a version, oldest first."""
    rows = await connection.fetch(queries.list_events_after, conversation_id, version, count)
    return [_event(row) for row in rows]


async def latest_versions(connection: Connection, conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    rows = await connection.fetch(queries.latest_versions, conversation_ids)
    return {row["conversation_id"]: row["version"] for row in rows}


async def mark_read(connection: Connection, conversation_id: UUID, user_id: str, message_no: int) -> None:
    """Note the last message that a customer has read; never an earlier one."""
    await connection.execute(queries.mark_read, conversation_id, user_id, message_no)


# Attachments.


async def insert_attachment(connection: Connection, attachment: Attachment, actor: str, sha256: bytes) -> None:
    """Insert an attachment whose file is stored."""
    await connection.execute(
        queries.insert_attachment,
        *(attachment.attachment_id, actor, sha256, attachment.media_type, attachment.size_bytes),
        *(attachment.width_px, attachment.height_px, attachment.created_at),
    )


async def count_unsent(connection: Connection, actor: str) -> int:
    """Count the attachments that somebody uploaded and has not sent."""
    return int(await connection.fetchval(queries.count_unsent, actor))


async def send_attachments(
    connection: Connection, conversation_id: UUID, message_no: int, attachment_ids: Sequence[UUID], actor: str
) -> int:
    """Attach unsent files of somebody to a message. Returns how many of them there are."""
    rows = await connection.fetch(queries.send_attachments, conversation_id, message_no, attachment_ids, actor)
    return len(rows)


async def find_attachment_file(connection: Connection, attachment_id: UUID) -> StoredFile | None:
    row = await connection.fetchrow(queries.find_attachment_file, attachment_id)
    return StoredFile(*row) if row else None


async def delete_unused_attachments(connection: Connection, before: datetime, count: int) -> list[bytes]:
    """Delete the oldest attachments that were not sent. Returns the digests of their files."""
    return [row["sha256"] for row in await connection.fetch(queries.delete_unused_attachments, before, count)]


async def list_unused_files(connection: Connection, sha256s: Sequence[bytes]) -> list[bytes]:
    """Return those of the files that no attachment has."""
    return [row["sha256"] for row in await connection.fetch(queries.list_unused_files, sha256s)]


# Gauges.


async def count_unended(connection: Connection) -> dict[str, int]:
    """Count the conversations that have not ended, by status."""
    return {row["status"]: row["conversations"] for row in await connection.fetch(queries.count_unended)}


async def oldest_unassigned(connection: Connection) -> datetime | None:
    """Return when the oldest conversation was opened that waits for staff and that nobody has."""
    oldest: datetime | None = await connection.fetchval(queries.oldest_unassigned)
    return oldest


async def list_attachment_files(connection: Connection, after: bytes, count: int) -> list[bytes]:
    """List the digests of attachments' files that follow one, in their order."""
    return [row["sha256"] for row in await connection.fetch(queries.list_attachment_files, after, count)]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _conversation(row: Any) -> ConversationSummary:
    values = {field: row[_RENAMED.get(field, field)] for field in ConversationSummary.__struct_fields__}
    return ConversationSummary(**values)


def _event(row: Any) -> ConversationEvent:
    values = {field: row[field] for field in ConversationEvent.__struct_fields__}
    values["details"] = msgspec.json.decode(values["details"])
    return ConversationEvent(**values)
