"""Input of staff to change conversations, their queue, teams, templates and saved views."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from commerce.conversations.model import (
    Attachments,
    ConversationKind,
    ConversationStatus,
    ConversationSummary,
    ConversationVersion,
    Language,
    MessageNo,
    MessageText,
    Priority,
    StaffName,
    Tag,
    Tags,
    TeamId,
    TemplateId,
)
from commerce.kernel.types import Name, Reason, filled_or_empty_line

MAX_MOVED = 200
MAX_SAMPLE = 20
MAX_BULK = 500

PlaceholderName = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}\Z")]
ReplyStatus = Literal["open", "waiting_customer", "waiting_carrier", "waiting_warehouse", "resolved"]


class ReplyInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reply to the customer: either `text`, or `template` with `values` for placeholders of its own.

    Left out, `status` becomes `waiting_customer`, or what the conversation's case waits for."""

    version: ConversationVersion
    text: MessageText | None = None
    template: TemplateId | None = None
    values: Annotated[dict[PlaceholderName, Annotated[str, filled_or_empty_line(200)]], msgspec.Meta(max_length=20)] = (
        msgspec.field(default_factory=dict)
    )
    attachments: Attachments = msgspec.field(default_factory=list)
    status: ReplyStatus | None = None


class NoteInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An internal note, which no customer reads."""

    version: ConversationVersion
    text: MessageText
    attachments: Attachments = msgspec.field(default_factory=list)


class AssignInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new assignee; null releases the conversation."""

    version: ConversationVersion
    assignee: StaffName | None


class ConversationChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changed properties; an absent member leaves its value."""

    version: ConversationVersion
    team_id: TeamId | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    subject: Name | UnsetType = UNSET
    language: Language | UnsetType = UNSET


class StatusInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new status with its reason. `open` reopens one that is resolved or closed."""

    version: ConversationVersion
    status: Literal["open", "waiting_customer", "waiting_carrier", "waiting_warehouse", "resolved", "closed"]
    reason: Reason


class TakeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Take the next conversation of this team; without one that of your teams, or of none."""

    team_id: TeamId | None = None


class ConversationMerge(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The conversation of the same customer that gets the messages of this one."""

    version: ConversationVersion
    into: UUID
    into_version: ConversationVersion


class ConversationSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Messages that become a conversation of their own."""

    version: ConversationVersion
    message_nos: Annotated[list[MessageNo], msgspec.Meta(min_length=1, max_length=MAX_MOVED)]
    subject: Name


# The queue, its views, and changes of many.


class QueueFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Conversations of a queue: those that fit all members. Without a status all that have not ended."""

    statuses: Annotated[list[ConversationStatus], msgspec.Meta(max_length=7)] = msgspec.field(default_factory=list)
    team_id: TeamId | None = None
    assignee: StaffName | None = None
    is_unassigned: bool = False
    tag: Tag | None = None
    kind: ConversationKind | None = None
    is_overdue: bool = False


class ViewInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A filter to save, for oneself or shared with all staff."""

    name: Name
    filter: QueueFilter
    is_shared: bool = False


class SavedView(msgspec.Struct, frozen=True, kw_only=True):
    """A saved filter of the queue, and the staff member who may change it."""

    view_id: UUID
    staff: str
    name: str
    is_shared: bool
    filter: QueueFilter
    changed_at: datetime


class BulkAction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The action on each of many conversations: exactly one of the members but `reason`."""

    assignee: StaffName | UnsetType | None = UNSET
    team_id: TeamId | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    add_tag: Tag | UnsetType = UNSET
    remove_tag: Tag | UnsetType = UNSET
    status: Literal["open", "resolved", "closed"] | UnsetType = UNSET
    reply: MessageText | UnsetType = UNSET
    template: TemplateId | UnsetType = UNSET
    reason: Reason = "changed with others"


class BulkInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change of all conversations of a filter."""

    filter: QueueFilter
    action: BulkAction


class BulkPreview(msgspec.Struct, frozen=True, kw_only=True):
    """The conversations that a change would change.

    Apply it with its id and count: nothing else is changed then."""

    preview_id: UUID
    count: int
    sample: list[ConversationSummary]


class BulkApply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The count that the preview has shown."""

    count: Annotated[int, msgspec.Meta(ge=0, le=MAX_BULK)]


class BulkRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that was left as it was, with the code and text of the problem."""

    conversation_id: UUID
    code: str
    detail: str


class BulkOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a change of many. Those refused were most often changed by others meanwhile."""

    changed: int
    refused: list[BulkRefusal]


# Teams and templates.


class TeamInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A team and its members, which replace those of before."""

    name: Name
    members: Annotated[list[StaffName], msgspec.Meta(max_length=1_000)] = msgspec.field(default_factory=list)


class SupportTeam(msgspec.Struct, frozen=True, kw_only=True):
    """A team of support."""

    team_id: str
    name: str
    members: list[str]
    changed_at: datetime
    actor: str


class TemplateInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The text of a reply with placeholders such as `{order_id}`, in one or both languages."""

    title: Name
    text: MessageText


class ReplyTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A stored template of a reply in a language."""

    template_id: str
    language: Language
    title: str
    text: str
    version: int
    changed_at: datetime
    actor: str


class RenderedReply(msgspec.Struct, frozen=True):
    """The text of a template for a conversation."""

    text: str
