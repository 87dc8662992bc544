"""Cursors of pages: places in time and in the queue, which stay valid when rows change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from commerce.conversations.model import ConversationSummary, Message
from commerce.conversations.store import QueuePlace, TimePlace

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
MessageCursor = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,16}\.[0-9]{1,9}\Z")]
TimeCursor = Annotated[str, msgspec.Meta(pattern=rf"^[0-9]{{1,16}}\.{_UUID}\Z")]
QueueCursor = Annotated[str, msgspec.Meta(pattern=rf"^[1-4]\.[0-9]{{1,16}}\.{_UUID}\Z")]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_LAST = TimePlace(datetime(2999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))
_FIRST = QueuePlace(0, _EPOCH, UUID(int=0))


def message_cursor(message: Message) -> str:
    """Return the cursor of the page of messages before this one."""
    return f"{_us(message.at)}.{message.message_no}"


def parse_message_cursor(cursor: str | None) -> TimePlace | None:
    """Return the place of a `MessageCursor`."""
    if cursor is None:
        return None
    at, number = cursor.split(".")
    return TimePlace(_moment(at), int(number))


def time_cursor(conversation: ConversationSummary) -> str:
    """Return the cursor of the page after this conversation, by activity."""
    return f"{_us(conversation.active_at)}.{conversation.conversation_id}"


def parse_time_cursor(cursor: str | None) -> TimePlace:
    """Return the place of a `TimeCursor`; the newest without one."""
    if cursor is None:
        return _LAST
    at, conversation_id = cursor.split(".")
    return TimePlace(_moment(at), UUID(conversation_id))


def queue_cursor(conversation: ConversationSummary) -> str:
    """Return the cursor of the page after this conversation, in the queue."""
    queue_at = conversation.due_at or conversation.created_at
    return f"{conversation.priority}.{_us(queue_at)}.{conversation.conversation_id}"


def parse_queue_cursor(cursor: str | None) -> QueuePlace:
    """Return the place of a `QueueCursor`; the first without one."""
    if cursor is None:
        return _FIRST
    priority, at, conversation_id = cursor.split(".")
    return QueuePlace(int(priority), _moment(at), UUID(conversation_id))


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // _US


def _moment(text: str) -> datetime:
    return _EPOCH + int(text) * _US
