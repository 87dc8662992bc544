"""Changes of many conversations: a preview first, then exactly what it has shown.

Each conversation is changed in a transaction of its own, if it still has the version that the preview saw; one that
cannot be changed is listed, and the others have their turn.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec import UNSET

from commerce.conversations import store, support_store
from commerce.conversations.errors import NoSuchPreview, PreviewMismatch, TooManyToChange
from commerce.conversations.support_actions import SupportActions
from commerce.conversations.support_model import (
    MAX_BULK,
    MAX_SAMPLE,
    AssignInput,
    BulkAction,
    BulkInput,
    BulkOutcome,
    BulkPreview,
    BulkRefusal,
    ConversationChange,
    QueueFilter,
    ReplyInput,
    StatusInput,
)
from commerce.conversations.thread_cursors import parse_queue_cursor
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid, OutcomeUnknown, ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE, Database

_logger = logging.getLogger(__name__)
_VALID_FOR = timedelta(minutes=15)
_KEPT_FOR = timedelta(days=1)
_DELETED_AT_ONCE = 100
_ACTIONS = [name for name in BulkAction.__struct_fields__ if name != "reason"]


class BulkChanges:
    """Shows and applies changes of many conversations.

    A preview belongs to the actor who has requested it."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, actions: SupportActions) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._actions = actions

    async def preview(self, bulk: BulkInput, filter_: QueueFilter, actor: str) -> BulkPreview:
        """Show what a change would change, and keep it for a quarter of an hour. `filter_` names its statuses.

        Raises `Invalid` unless there is one action, `TooManyToChange` for a filter that finds too many."""
        members = [name for name in _ACTIONS if getattr(bulk.action, name) is not UNSET]
        if len(members) != 1:
            raise Invalid.at("/action", f"send exactly one of {', '.join(_ACTIONS)}")
        now, preview_id = from_ms(self._clock.now_ms()), self._ids.new()
        async with self._db.transaction() as connection:
            listed = await store.list_queue(connection, filter_, parse_queue_cursor(None), now, MAX_BULK + 1)
            if len(listed) > MAX_BULK:
                raise TooManyToChange(f"the filter finds more than {MAX_BULK} conversations: narrow it")
            versions = [(conversation.conversation_id, conversation.version) for conversation in listed]
            await support_store.delete_previews(connection, now - _KEPT_FOR, _DELETED_AT_ONCE)
            await support_store.insert_preview(connection, preview_id, actor, bulk.action, versions, now)
        return BulkPreview(preview_id=preview_id, count=len(listed), sample=listed[:MAX_SAMPLE])

    async def apply(self, preview_id: UUID, count: int, staff: str, actor: str) -> BulkOutcome:
        """Change the conversations of a preview. A repeat returns the outcome and changes nothing more.

        Raises `NoSuchPreview`, also for one that is too old, and `PreviewMismatch` for another count than it has
        shown, or while it is being applied."""
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            preview = await support_store.get_preview(connection, preview_id, actor)
            if preview is None or (preview.outcome is None and now > preview.created_at + _VALID_FOR):
                raise NoSuchPreview(f"there is no preview {preview_id} that can be applied: ask for a new one")
            if len(preview.conversations) != count:
                raise PreviewMismatch(f"the preview has shown {len(preview.conversations)} conversations, not {count}")
            if preview.outcome is not None:
                return preview.outcome
            if not await support_store.begin_preview(connection, preview_id, now):
                raise PreviewMismatch("the preview is being applied, or its process ended: ask for a new one")
        changed, refused = 0, []
        for conversation_id, version in preview.conversations:
            try:
                await self._change(conversation_id, version, preview.action, staff, actor)
                changed += 1
            except ProblemError as error:
                refused.append(BulkRefusal(conversation_id=conversation_id, code=error.code, detail=error.detail))
            except POSTGRES_UNAVAILABLE as error:  # such as a deadlock: the others have their turn
                log_failure(_logger, "cannot change a conversation of many", error)
                detail = "whether it was changed is not known: read it, and repeat what is missing"
                refused.append(BulkRefusal(conversation_id=conversation_id, code=OutcomeUnknown.code, detail=detail))
        outcome = BulkOutcome(changed=changed, refused=refused)
        async with self._db.connection() as connection:
            await support_store.end_preview(connection, preview_id, outcome)
        return outcome

    async def _change(self, id_: UUID, version: int, action: BulkAction, staff: str, actor: str) -> None:
        if action.assignee is not UNSET:
            await self._actions.assign(id_, AssignInput(version=version, assignee=action.assignee), actor)
        elif action.status is not UNSET:
            step = StatusInput(version=version, status=action.status, reason=action.reason)
            await self._actions.set_status(id_, step, actor)
        elif action.reply is not UNSET:
            await self._actions.reply(id_, ReplyInput(version=version, text=action.reply), staff, actor)
        elif action.template is not UNSET:
            await self._actions.reply(id_, ReplyInput(version=version, template=action.template), staff, actor)
        elif action.add_tag is not UNSET or action.remove_tag is not UNSET:
            await self._actions.change_tag(id_, version, action.add_tag or None, action.remove_tag or None, actor)
        else:
            fields: dict[str, Any] = {"team_id": action.team_id, "priority": action.priority}
            await self._actions.change(id_, ConversationChange(version=version, **fields), actor)
