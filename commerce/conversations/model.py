"""Conversations as customers and staff see them, and what they send to change them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from commerce.kernel.money import Minor
from commerce.kernel.types import Name, filled_or_empty_line, message_text

MAX_TEXT = 4_000
MAX_TAGS = 20
MAX_ATTACHMENTS = 5
CONVERSATIONS = "conversations"
"""the queue of jobs of conversations"""

ConversationStatus = Literal[
    "new", "open", "waiting_customer", "waiting_carrier", "waiting_warehouse", "resolved", "closed"
]
"""`new` and `open` ones wait for staff; those of a case wait for whoever the case waits for"""
ENDED = ("resolved", "closed")
UNENDED: tuple[ConversationStatus, ...] = ("new", "open", "waiting_customer", "waiting_carrier", "waiting_warehouse")
ConversationKind = Literal["question", "return", "exchange", "claim", "refund_only"]
CaseWaitsFor = Literal["customer", "staff", "carrier", "warehouse", "provider", "nobody"]
Language = Literal["zh", "en"]
Author = Literal["customer", "staff", "shop"]
EventKind = Literal[
    "opened",
    "customer_message",
    "reply",
    "note",
    "case",
    "assigned",
    "changed",
    "status",
    "reopened",
    "resolved",
    "closed",
    "merged",
    "split",
    "satisfaction",
    "escalated",
]
DueKind = Literal["first_response", "decision", "money"]

MessageText = Annotated[str, message_text(MAX_TEXT)]
ShortText = Annotated[str, filled_or_empty_line(1000)]
Tag = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}\Z", examples=["damaged-box"])]
Tags = Annotated[list[Tag], msgspec.Meta(max_length=MAX_TAGS)]
TeamId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["claims"])]
TemplateId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["sorry-late"])]
StaffName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}\Z", description="the subject of a staff token")
]
Priority = Annotated[int, msgspec.Meta(ge=1, le=4, description="1 urgent, 2 high, 3 normal, 4 low")]
ConversationVersion = Annotated[
    int, msgspec.Meta(ge=1, le=2**31 - 1, description="the conversation's `version` as you last read it")
]
MessageNo = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Attachments = Annotated[list[UUID], msgspec.Meta(max_length=MAX_ATTACHMENTS)]


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A picture or a PDF file of a message; of a picture its size in pixels."""

    attachment_id: UUID
    media_type: str
    size_bytes: int
    width_px: int | None
    height_px: int | None
    created_at: datetime


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message, or an internal note. `text` is plain text: show it as such, never as HTML.

    `moved_from` is the conversation that it was in before a merge or a split."""

    message_no: int
    at: datetime
    author: Author
    actor: str
    is_internal: bool
    text: str
    template_id: str | None
    moved_from: UUID | None
    attachments: list[Attachment] = msgspec.field(default_factory=list)


class CustomerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its customer sees it, without the name of staff."""

    message_no: int
    at: datetime
    author: Author
    text: str
    attachments: list[Attachment]


class ConversationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in a list of staff. `version` counts its changes.

    The conversation of a case has the case's id, and `case_waits_for`. `unanswered` counts the customer's messages
    since the last reply. `previous_id` is the closed one that the customer went on with; the messages of one that is
    merged are in `merged_into`. `due_at` is the next deadline of support, if one runs."""

    conversation_id: UUID
    user_id: str
    order_id: UUID | None
    case_id: UUID | None
    previous_id: UUID | None
    kind: ConversationKind
    subject: str
    language: Language
    status: ConversationStatus
    case_waits_for: CaseWaitsFor | None
    amount: Minor | None
    currency: str | None
    priority: int
    assignee: str | None
    team_id: str | None
    tags: list[str]
    version: int
    created_at: datetime
    active_at: datetime
    due_at: datetime | None
    due_kind: DueKind | None
    escalated_on: date | None
    last_message_no: int
    unanswered: int
    read_by_customer_no: int
    first_response_at: datetime | None
    resolved_at: datetime | None
    closed_at: datetime | None
    merged_into: UUID | None
    reopens: int
    satisfaction: int | None
    satisfaction_text: str | None
    satisfaction_requested_at: datetime | None
    satisfaction_at: datetime | None


class ConversationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a conversation. `details` has what it changed, such as `status`."""

    version: int
    at: datetime
    actor: str
    kind: EventKind
    details: dict[str, Any]


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation for staff: a page of messages in the sequence of their time, and the newest events.

    `earlier` is the cursor of the page of messages before, null at the beginning."""

    conversation: ConversationSummary
    messages: list[Message]
    earlier: str | None
    events: list[ConversationEvent]


class CustomerConversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as its customer sees it. `unread` counts messages of the shop, up to 100.

    `wants_satisfaction` asks for 1 to 5, once."""

    conversation_id: UUID
    order_id: UUID | None
    case_id: UUID | None
    previous_id: UUID | None
    merged_into: UUID | None
    subject: str
    language: Language
    status: ConversationStatus
    created_at: datetime
    active_at: datetime
    unread: int
    wants_satisfaction: bool
    satisfaction: int | None


class CustomerThread(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with a page of its messages; `earlier` is the cursor of the page before."""

    conversation: CustomerConversation
    messages: list[CustomerMessage]
    earlier: str | None


class CustomerEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the customer can see, with the message that it brought, if any."""

    seq: int
    at: datetime
    kind: EventKind
    status: ConversationStatus | None
    message: CustomerMessage | None


# What customers send.


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question, about an order or about none. Without a language the text decides."""

    subject: Name
    text: MessageText
    order_id: UUID | None = None
    language: Language | None = None
    attachments: Attachments = msgspec.field(default_factory=list)


class MessageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message of a customer."""

    text: MessageText
    attachments: Attachments = msgspec.field(default_factory=list)


class ReadInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last message that the customer has read."""

    message_no: MessageNo


class SatisfactionInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer of a customer to a closed conversation: 1 (bad) to 5 (good)."""

    score: Annotated[int, msgspec.Meta(ge=1, le=5)]
    text: ShortText = ""
