"""Conversations for customers and staff."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import msgspec

from commerce.conversations import store
from commerce.conversations.bulk_changes import BulkChanges
from commerce.conversations.conversation_policy import ConversationPolicy, UploadPolicy
from commerce.conversations.customer_threads import CustomerThreads
from commerce.conversations.errors import NoSuchConversation
from commerce.conversations.message_files import MessageFiles
from commerce.conversations.model import ENDED, UNENDED, Conversation, ConversationSummary
from commerce.conversations.reply_templates import ReplyTemplates
from commerce.conversations.support_actions import SupportActions
from commerce.conversations.support_model import BulkInput, BulkPreview, QueueFilter
from commerce.conversations.support_teams import SavedViews, SupportTeams
from commerce.conversations.thread_cursors import (
    message_cursor,
    parse_message_cursor,
    parse_queue_cursor,
    queue_cursor,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

_SHOWN_EVENTS = 100


class Conversations:
    """Conversations over Postgres: what staff read, and has what changes them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: ConversationPolicy,
        uploads: UploadPolicy,
        data_dir: Path,
    ) -> None:
        self._db = db
        self._clock = clock
        self.customers = CustomerThreads(db, clock, ids, policy)
        self.actions = SupportActions(db, clock, ids, policy)
        self.bulk = BulkChanges(db, clock, ids, self.actions)
        self.templates = ReplyTemplates(db, clock)
        self.teams = SupportTeams(db, clock)
        self.views = SavedViews(db, clock, ids, policy)
        self.files = MessageFiles(db, clock, ids, policy, uploads, data_dir)

    async def get(self, conversation_id: UUID, cursor: str | None = None, count: int = 100) -> Conversation:
        """Read any conversation with its newest messages before the cursor, and its newest events.

        Raises `NoSuchConversation`."""
        async with self._db.connection() as connection:
            conversation = await store.get(connection, conversation_id)
            if conversation is None:
                raise NoSuchConversation(f"there is no conversation {conversation_id}")
            rows = await store.list_messages(
                *(connection, conversation_id, parse_message_cursor(cursor)), with_internal=True, count=count + 1
            )
            events = await store.list_events(connection, conversation_id, _SHOWN_EVENTS)
        earlier = message_cursor(rows[count - 1]) if len(rows) > count else None
        return Conversation(conversation=conversation, messages=rows[:count][::-1], earlier=earlier, events=events)

    async def list_queue(self, filter_: QueueFilter, cursor: str | None, count: int) -> Page[ConversationSummary]:
        """List conversations by priority, then due time: without a status those that have not ended."""
        now = from_ms(self._clock.now_ms())
        async with self._db.connection() as connection:
            place = parse_queue_cursor(cursor)
            listed = await store.list_queue(connection, with_statuses(filter_), place, now, count + 1)
        return to_page(listed, count, queue_cursor)

    async def list_of_order(self, order_id: UUID, count: int = 100) -> list[ConversationSummary]:
        """List the conversations about an order, oldest first."""
        async with self._db.connection() as connection:
            return await store.list_of_order(connection, order_id, count)

    async def preview_bulk(self, bulk: BulkInput, actor: str) -> BulkPreview:
        """Show what a change of many would change. Raises as `BulkChanges.preview`."""
        return await self.bulk.preview(bulk, with_statuses(bulk.filter), actor)


def with_statuses(filter_: QueueFilter) -> QueueFilter:
    """Return a filter with the statuses that it means: without any, those that have not ended.

    Raises `Invalid` for a tag of ended ones, which no index finds."""
    statuses = list(dict.fromkeys(filter_.statuses)) or list(UNENDED)
    if filter_.tag is not None and filter_.assignee is None and not set(statuses).isdisjoint(ENDED):
        raise Invalid("a tag alone finds only conversations that have not ended: add an assignee")
    return msgspec.structs.replace(filter_, statuses=statuses)


class ConversationGauges:
    """Measures of conversations for the gauges."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def measure(self) -> tuple[dict[str, int], float]:
        """Count conversations that have not ended, by status; measure the age of the oldest unassigned one."""
        async with self._db.connection() as connection:
            counts = await store.count_unended(connection)
            oldest = await store.oldest_unassigned(connection)
        age_s = (from_ms(self._clock.now_ms()) - oldest).total_seconds() if oldest else 0.0
        return {status: counts.get(status, 0) for status in UNENDED}, max(0.0, age_s)
