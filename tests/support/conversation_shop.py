"""Conversations over a shop, and short forms of what customers and staff do in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from commerce.conversations.model import ConversationSummary, MessageInput, Question
from commerce.conversations.service import Conversations
from commerce.conversations.support_model import NoteInput, ReplyInput, StatusInput
from config.aftersales import AftersalesSettings
from config.conversations import ConversationSettings
from ops.services import CliServices

STAFF, ACTOR = "sue", "staff sue"


@dataclass
class ConversationShop:
    """Conversations of customers with staff."""

    shop: CliServices
    service: Conversations

    async def open_question(self, user: str = "user", text: str = "Where is it?", key: str = "", **fields: Any) -> UUID:
        """Ask a question. Returns the id of its conversation."""
        question = Question(subject=fields.pop("subject", "My order"), text=text, **fields)
        thread, _ = await self.service.customers.open_question(user, key or str(self.shop.ids.new()), question)
        return thread.conversation.conversation_id

    async def write(self, conversation_id: UUID, text: str = "And now?", user: str = "user", key: str = "") -> UUID:
        """Write a message as the customer. Returns the conversation that has it."""
        key = key or str(self.shop.ids.new())
        thread, _ = await self.service.customers.write(conversation_id, user, key, MessageInput(text=text))
        return thread.conversation.conversation_id

    async def read(self, conversation_id: UUID) -> ConversationSummary:
        return (await self.service.get(conversation_id)).conversation

    async def version(self, conversation_id: UUID) -> int:
        return (await self.read(conversation_id)).version

    async def reply(self, conversation_id: UUID, text: str | None = "It is on its way.", **fields: Any) -> None:
        """Reply as staff who have just read the conversation."""
        reply = ReplyInput(version=await self.version(conversation_id), text=text, **fields)
        await self.service.actions.reply(conversation_id, reply, STAFF, ACTOR)

    async def note(self, conversation_id: UUID, text: str = "A note") -> None:
        note = NoteInput(version=await self.version(conversation_id), text=text)
        await self.service.actions.note(conversation_id, note, ACTOR)

    async def set_status(self, conversation_id: UUID, status: Any, reason: str = "done") -> None:
        step = StatusInput(version=await self.version(conversation_id), status=status, reason=reason)
        await self.service.actions.set_status(conversation_id, step, ACTOR)

    async def texts(self, conversation_id: UUID) -> list[str]:
        """Return the texts of a conversation, notes too, in the sequence of their time."""
        return [message.text for message in (await self.service.get(conversation_id)).messages]

    async def events(self, conversation_id: UUID) -> list[str]:
        return [event.kind for event in (await self.service.get(conversation_id)).events]

    async def fetch_rows(self, query: str, *args: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return await connection.fetch(query, *args)

    async def check_records(self) -> None:
        """Check that each version has its event, and that numbers of messages have no gap."""
        for query in (_WITHOUT_EVENT, _BROKEN_NUMBERS):
            assert [tuple(row) for row in await self.fetch_rows(query)] == []


_WITHOUT_EVENT = """
SELECT conversation_id, version FROM conversations
WHERE version <> (SELECT count(*) FROM conversation_events AS event
                  WHERE event.conversation_id = conversations.conversation_id)
"""
_BROKEN_NUMBERS = """
SELECT conversation_id, last_message_no FROM conversations
WHERE last_message_no < coalesce((SELECT max(message_no) FROM conversation_messages AS message
                                  WHERE message.conversation_id = conversations.conversation_id), 0)
"""


def open_conversation_shop(shop: CliServices, data_dir: Path, **settings: Any) -> ConversationShop:
    """Open conversations with these settings of the section `conversations`."""
    policy = ConversationSettings(**settings)
    service = Conversations(shop.db, shop.clock, shop.ids, policy, AftersalesSettings(), data_dir)
    return ConversationShop(shop, service)
