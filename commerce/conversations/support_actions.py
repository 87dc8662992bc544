"""Actions of staff on conversations: each locks the conversation and checks the version that was read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import ForeignKeyViolationError
from msgspec import UNSET

from commerce.conversations import clock_store, store, support_store
from commerce.conversations.case_threads import new_conversation
from commerce.conversations.conversation_changes import (
    add_message,
    change_conversation,
    is_case_open,
    lock_conversation,
    status_of_case,
)
from commerce.conversations.conversation_policy import ConversationPolicy
from commerce.conversations.errors import CannotMerge, ConversationStatusConflict, NoSuchTeam
from commerce.conversations.model import ENDED, MAX_TAGS, ConversationStatus, ConversationSummary, EventKind
from commerce.conversations.reply_templates import render_template
from commerce.conversations.store import TEAM_CONSTRAINT, NewMessage
from commerce.conversations.support_model import (
    AssignInput,
    ConversationChange,
    ConversationMerge,
    ConversationSplit,
    NoteInput,
    ReplyInput,
    StatusInput,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database

_TAKERS = 64
"""people who may take from one team at the same moment, before one of them has to look once more"""
_TAKE_ATTEMPTS = 5
_ENDING: dict[str, EventKind] = {"resolved": "resolved", "closed": "closed"}


class SupportActions:
    """Changes of conversations by staff.

    All raise `NoSuchConversation`, `ConversationVersionConflict` if the conversation has another version than the
    caller has read, `ConversationMerged`, and `ConversationStatusConflict` if its status does not allow the action.
    `staff` is the subject of a token, `actor` the name in records."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, policy: ConversationPolicy) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy

    @asynccontextmanager
    async def _locked(
        self, conversation_id: UUID, version: int
    ) -> AsyncIterator[tuple[Connection, ConversationSummary, datetime]]:
        async with self._db.transaction() as connection:
            conversation = await lock_conversation(connection, conversation_id, version)
            yield connection, conversation, from_ms(self._clock.now_ms())

    async def reply(self, conversation_id: UUID, reply: ReplyInput, staff: str, actor: str) -> None:
        """Reply to the customer. Raises as `render_template`, `NoSuchAttachment`."""
        if (reply.text is None) == (reply.template is None):
            raise Invalid.at("/text", "send either text or template")
        async with self._locked(conversation_id, reply.version) as (connection, conversation, now):
            text = reply.text or await render_template(
                connection, reply.template or "", conversation, staff, reply.values
            )
            message = NewMessage(*("staff", actor, text), template_id=reply.template, attachments=reply.attachments)
            status = reply.status or _status_after_reply(conversation)
            if status in ENDED:
                _check_may_end(conversation, status)
            present = conversation
            if present.status in ENDED and status not in ENDED:
                present = await change_conversation(connection, present, now, actor, "reopened", status="open")
            await add_message(connection, present, message, now, status=status)

    async def note(self, conversation_id: UUID, note: NoteInput, actor: str) -> None:
        """Add an internal note. It stops no deadline. Raises `NoSuchAttachment`."""
        async with self._locked(conversation_id, note.version) as (connection, conversation, now):
            message = NewMessage("staff", actor, note.text, is_internal=True, attachments=note.attachments)
            await add_message(connection, conversation, message, now)

    async def assign(self, conversation_id: UUID, assignment: AssignInput, actor: str) -> None:
        """Assign a conversation to a staff member, or release it. A repeat changes nothing."""
        async with self._locked(conversation_id, assignment.version) as (connection, conversation, now):
            if conversation.assignee == assignment.assignee:
                return
            details = {"assignee": assignment.assignee}
            status = "open" if conversation.status == "new" and assignment.assignee else conversation.status
            await change_conversation(
                *(connection, conversation, now, actor, "assigned", details),
                assignee=assignment.assignee,
                status=status,
            )

    async def take(self, team_id: str | None, staff: str, actor: str) -> UUID | None:
        """Assign the next conversation that waits for staff and that nobody has. None if there is none.

        It is of the team, or of any team of the staff member and of none. No two people get the same one."""
        async with self._db.connection() as connection:
            teams = [team_id] if team_id else ["", *await support_store.list_teams_of_member(connection, staff)]
            for _ in range(_TAKE_ATTEMPTS):
                now = from_ms(self._clock.now_ms())
                taken = await store.take_next(connection, teams, _TAKERS, staff, now, actor)
                if taken is not None or not await store.has_unassigned(connection, teams):
                    return taken
        return None

    async def change(self, conversation_id: UUID, change: ConversationChange, actor: str) -> None:
        """Change team, priority, tags, subject or language. A repeat changes nothing. Raises `NoSuchTeam`."""
        names = ("team_id", "priority", "tags", "subject", "language")
        wanted = {name: getattr(change, name) for name in names if getattr(change, name) is not UNSET}
        if "tags" in wanted:
            wanted["tags"] = sorted(set(wanted["tags"]))
        async with self._locked(conversation_id, change.version) as (connection, conversation, now):
            changed = {name: value for name, value in wanted.items() if value != getattr(conversation, name)}
            if changed:
                await _change_known_team(connection, conversation, now, actor, changed)

    async def change_tag(
        self, conversation_id: UUID, version: int, added: str | None, removed: str | None, actor: str
    ) -> None:
        """Add a tag, or remove one. A repeat changes nothing. Raises `Invalid` for too many tags."""
        async with self._locked(conversation_id, version) as (connection, conversation, now):
            tags = sorted(({*conversation.tags} | {added} if added else {*conversation.tags}) - {removed or ""})
            if len(tags) > MAX_TAGS:
                raise Invalid(f"cannot add the tag: a conversation has at most {MAX_TAGS}; remove one")
            if tags != conversation.tags:
                await change_conversation(connection, conversation, now, actor, "changed", {"tags": tags}, tags=tags)

    async def set_status(self, conversation_id: UUID, step: StatusInput, actor: str) -> None:
        """Set the status: resolve, close, reopen, or say for whom it waits. A repeat changes nothing."""
        async with self._locked(conversation_id, step.version) as (connection, conversation, now):
            if conversation.status == step.status:
                return
            if step.status in ENDED:
                _check_may_end(conversation, step.status)
            kind = _ENDING.get(step.status, "reopened" if conversation.status in ENDED else "status")
            if kind == "reopened" and step.status != "open":
                raise ConversationStatusConflict("cannot let it wait: it has ended; reopen it first")
            answered: dict[str, Any] = {} if step.status == "open" else {"unanswered": 0}
            await change_conversation(
                *(connection, conversation, now, actor, kind, {"reason": step.reason}),
                status=step.status,
                **answered,
            )

    async def merge(self, conversation_id: UUID, merge: ConversationMerge, actor: str) -> None:
        """Move all messages to another conversation of the customer, which this one points to from then on.

        What waits in it for support waits there. Raises `CannotMerge` for one of a case, which is only merged into,
        for one of another customer, and if the other becomes too long."""
        if merge.into == conversation_id:
            raise CannotMerge("cannot merge a conversation into itself")
        async with self._db.transaction() as connection:
            versions = {conversation_id: merge.version, merge.into: merge.into_version}
            locked = {id_: await lock_conversation(connection, id_, versions[id_]) for id_ in sorted(versions)}
            source, target, now = locked[conversation_id], locked[merge.into], from_ms(self._clock.now_ms())
            _check_merge(source, target, self._policy.messages_per_conversation)
            last_no = target.last_message_no
            since = await clock_store.get_waiting_since(connection, conversation_id)
            waiting = {} if since is None else {"waiting_since": since.isoformat()}
            moved = await store.move_messages(connection, source.conversation_id, target.conversation_id, last_no)
            await store.redirect_merged(connection, source.conversation_id, target.conversation_id)
            both_read = all(each.read_by_customer_no >= each.last_message_no for each in (source, target))
            await change_conversation(
                *(connection, source, now, actor, "merged", {"into": str(merge.into)}),
                status="closed",
                merged_into=merge.into,
                last_message_no=0,
                read_by_customer_no=0,
            )
            unanswered = target.unanswered + source.unanswered
            status: ConversationStatus = target.status
            if (source.unanswered or source.status == "open") and status != "new":
                status = "open"
            responses = [at for at in (source.first_response_at, target.first_response_at) if at is not None]
            await change_conversation(
                *(
                    connection,
                    target,
                    now,
                    actor,
                    "merged",
                    {"merged": str(conversation_id), "messages": moved, **waiting},
                ),
                last_message_no=last_no + moved,
                read_by_customer_no=last_no + moved if both_read else target.read_by_customer_no,
                unanswered=unanswered,
                status=status,
                first_response_at=min(responses, default=None),
                active_at=max(source.active_at, target.active_at),
                tags=sorted({*source.tags, *target.tags})[:MAX_TAGS],
                priority=min(source.priority, target.priority),
            )

    async def split(self, conversation_id: UUID, split: ConversationSplit, actor: str) -> UUID:
        """Move messages into a new conversation of the customer. Returns its id.

        Raises `Invalid` for numbers that it does not have."""
        async with self._locked(conversation_id, split.version) as (connection, source, now):
            numbers = sorted(set(split.message_nos))
            messages = await store.get_messages(connection, conversation_id, numbers)
            if missing := sorted(set(numbers) - messages.keys()):
                raise Invalid.at("/message_nos", f"the conversation has no message {missing[0]}")
            new = new_conversation(
                *(self._ids.new(), source.user_id, now, "open"),
                subject=split.subject,
                order_id=source.order_id,
                language=source.language,
            )
            latest = await store.list_latest_of_customer(connection, conversation_id, source.unanswered)
            unanswered = [messages[number].at for number in latest if number in messages]
            waiting = {"waiting_since": min(unanswered).isoformat()} if unanswered else {}
            await store.insert(connection, new, actor, {"split_from": str(conversation_id), **waiting})
            moved = await store.move_messages(connection, conversation_id, new.conversation_id, 0, numbers)
            await change_conversation(
                *(connection, source, now, actor, "split", {"to": str(new.conversation_id), "message_nos": numbers}),
                unanswered=source.unanswered - len(unanswered),
            )
            await change_conversation(
                *(connection, new, now, actor, "split", {"from_id": str(conversation_id), "messages": moved}),
                last_message_no=moved,
                read_by_customer_no=moved if source.read_by_customer_no >= source.last_message_no else 0,
                unanswered=len(unanswered),
                team_id=source.team_id,
                priority=source.priority,
            )
        return new.conversation_id


async def _change_known_team(
    connection: Connection, conversation: ConversationSummary, now: datetime, actor: str, changed: dict[str, Any]
) -> None:
    try:
        async with connection.transaction():
            await change_conversation(connection, conversation, now, actor, "changed", changed, **changed)
    except ForeignKeyViolationError as error:
        if error.constraint_name != TEAM_CONSTRAINT:
            raise
        raise NoSuchTeam(f"there is no team {changed['team_id']}") from None


def _status_after_reply(conversation: ConversationSummary) -> ConversationStatus:
    """Return the status after a reply that names none: the customer's turn, or what the case waits for."""
    if conversation.status in ENDED:
        return conversation.status
    if is_case_open(conversation):
        assert conversation.case_waits_for is not None
        return status_of_case(conversation.case_waits_for)
    return "waiting_customer"


def _check_may_end(conversation: ConversationSummary, status: ConversationStatus) -> None:
    if conversation.status == "closed" and status == "resolved":
        raise ConversationStatusConflict("cannot resolve the conversation: it is closed; reopen it first")
    if is_case_open(conversation):
        raise ConversationStatusConflict(
            f"cannot end the conversation: its case waits for {conversation.case_waits_for}; end the case"
        )


def _check_merge(source: ConversationSummary, target: ConversationSummary, max_messages: int) -> None:
    if source.user_id != target.user_id:
        raise CannotMerge("cannot merge conversations of two customers")
    if source.case_id is not None:
        raise CannotMerge("cannot merge the conversation of a case into another one: merge the other one into it")
    if source.last_message_no + target.last_message_no > max_messages:
        raise CannotMerge(f"cannot merge them: together they have more than {max_messages} messages")
