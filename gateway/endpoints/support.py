"""Staff operations on conversations: the queue, replies, and changes of one or many."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.conversations.model import (
    Attachment,
    Conversation,
    ConversationKind,
    ConversationStatus,
    ConversationSummary,
    StaffName,
    Tag,
    TeamId,
    TemplateId,
)
from commerce.conversations.support_model import (
    AssignInput,
    BulkApply,
    BulkInput,
    BulkOutcome,
    BulkPreview,
    ConversationChange,
    ConversationMerge,
    ConversationSplit,
    NoteInput,
    QueueFilter,
    RenderedReply,
    ReplyInput,
    StatusInput,
    TakeInput,
)
from commerce.conversations.thread_cursors import MessageCursor, QueueCursor
from commerce.kernel.paging import Page
from gateway.auth import Role
from gateway.endpoints.conversations import ATTACHMENT, CONVERSATION, UPLOAD_TYPE, file_response, store_upload
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Handler, Operation, Parameter, json_response

SUPPORT_READ: Role = "support_read"
SUPPORT_ANSWER: Role = "support_answer"
"""roles that read conversations, and that answer in them"""
_PATH = "/v1/admin/conversations"
_ONE_PATH = f"{_PATH}/{{conversation_id}}"
_ATTACHMENTS_PATH = "/v1/admin/attachments"
_FILTERS = {
    "team_id": (TeamId, "only of this team"),
    "assignee": (StaffName, "only of this staff member"),
    "tag": (Tag, "only with this tag"),
    "kind": (ConversationKind, "only questions, or conversations of cases of this kind"),
    "is_unassigned": (bool, "only those that nobody has"),
    "is_overdue": (bool, "only those past `due_at`"),
}
_VIEW = Parameter(
    name="view_id", location="query", type=UUID, description="a saved view; other filters replace its own"
)
_STATUS = Parameter(
    name="status",
    location="query",
    type=ConversationStatus,
    description="only with this status; left out: all that have not ended",
)
_TEMPLATE = Parameter(name="template_id", location="path", type=TemplateId, description="the template's id")
_PREVIEW = Parameter(name="preview_id", location="path", type=UUID, description="the preview's id")


async def list_support_queue(call: Call) -> web.Response:
    """List conversations by priority, then due time."""
    conversations, parameters = call.services.conversations, call.parameters
    filter_ = QueueFilter()
    if parameters["view_id"] is not None:
        filter_ = (await conversations.views.get(parameters["view_id"], call.identity.subject)).filter
    fields = {name: parameters[name] for name in _FILTERS if parameters[name] is not None}
    if parameters["status"] is not None:
        fields["statuses"] = [parameters["status"]]
    filter_ = msgspec.structs.replace(filter_, **fields)
    return json_response(await conversations.list_queue(filter_, parameters["cursor"], page_size(call)))


async def show_conversation(call: Call) -> web.Response:
    """Read any conversation with its newest messages, or those before `cursor`, notes, and newest events."""
    conversation_id, cursor = call.parameters["conversation_id"], call.parameters["cursor"]
    return json_response(await call.services.conversations.get(conversation_id, cursor, page_size(call)))


async def take_conversation(call: Call) -> web.Response:
    """Take the next conversation that waits for staff and that nobody has: no two people get the same one.

    204 means that there is none.
    """
    body: TakeInput | None = call.body
    team_id = body.team_id if body is not None else None
    conversations, staff = call.services.conversations, call.identity.subject
    taken = await conversations.actions.take(team_id, staff, call.staff_actor)
    return web.Response(status=204) if taken is None else json_response(await conversations.get(taken))


async def reply_in_conversation(call: Call) -> web.Response:
    """Reply to the customer with a text or a template."""
    actions, conversation_id = call.services.conversations.actions, call.parameters["conversation_id"]
    await actions.reply(conversation_id, call.body, call.identity.subject, call.staff_actor)
    return await _answer(call)


async def note_in_conversation(call: Call) -> web.Response:
    """Add an internal note, which no customer reads and which stops no deadline."""
    return await _act(call, "note")


async def assign_conversation(call: Call) -> web.Response:
    """Assign a conversation to a staff member, or release it with null."""
    return await _act(call, "assign")


async def change_conversation(call: Call) -> web.Response:
    """Change team, priority, tags, subject or language."""
    return await _act(call, "change")


async def set_conversation_status(call: Call) -> web.Response:
    """Resolve, close or reopen a conversation, or say for whom it waits."""
    return await _act(call, "set_status")


async def merge_conversation(call: Call) -> web.Response:
    """Move all messages to another conversation of the same customer.

    This one points to it from then on. The conversation of a case is only merged into.
    """
    return await _act(call, "merge")


async def split_conversation(call: Call) -> web.Response:
    """Move messages into a new conversation, which is the answer."""
    conversations, conversation_id = call.services.conversations, call.parameters["conversation_id"]
    new_id = await conversations.actions.split(conversation_id, call.body, call.staff_actor)
    return json_response(await conversations.get(new_id), 201, {"Location": f"{_PATH}/{new_id}"})


async def render_reply(call: Call) -> web.Response:
    """Show the text of a template for a conversation. Nothing is sent."""
    templates, conversation_id = call.services.conversations.templates, call.parameters["conversation_id"]
    template_id, staff = call.parameters["template_id"], call.identity.subject
    return json_response(await templates.render(template_id, conversation_id, staff))


async def preview_bulk_change(call: Call) -> web.Response:
    """Show what a change of all conversations of a filter would change.

    Nothing is changed before it is applied.
    """
    return json_response(await call.services.conversations.preview_bulk(call.body, call.staff_actor))


async def apply_bulk_change(call: Call) -> web.Response:
    """Change the conversations that a preview has shown, each if nobody has changed it since.

    Those that cannot be changed are listed. A repeat returns the outcome.
    """
    body: BulkApply = call.body
    bulk, preview_id = call.services.conversations.bulk, call.parameters["preview_id"]
    return json_response(await bulk.apply(preview_id, body.count, call.identity.subject, call.staff_actor))


async def upload_staff_attachment(call: Call) -> web.Response:
    """Upload a picture or a PDF file, and send its id with a reply or a note."""
    return await store_upload(call, call.staff_actor, _ATTACHMENTS_PATH)


async def show_attachment(call: Call) -> web.Response:
    """Read any attachment."""
    files = call.services.conversations.files
    return file_response(await files.read_of_staff(call.parameters["attachment_id"]))


async def _act(call: Call, action: str) -> web.Response:
    act = getattr(call.services.conversations.actions, action)
    await act(call.parameters["conversation_id"], call.body, call.staff_actor)
    return await _answer(call)


async def _answer(call: Call) -> web.Response:
    return json_response(await call.services.conversations.get(call.parameters["conversation_id"]))


_read = partial(Operation, tag="staff: conversations", access=SUPPORT_READ, method="GET")
_write = partial(Operation, tag="staff: conversations", access=SUPPORT_ANSWER, method="POST")


def _change(action: str, handler: Handler, summary: str, body: type[msgspec.Struct]) -> Operation:
    return _write(
        is_one_transaction=True,
        path=f"{_ONE_PATH}/{action}",
        handler=handler,
        summary=summary,
        answers={200: ("the conversation", Conversation)},
        problems=(404, 409, 503),
        parameters=(CONVERSATION,),
        body=body,
    )


ADMIN = [
    _read(
        path=_PATH,
        handler=list_support_queue,
        summary="List the queue of support",
        answers={200: ("a page of conversations", Page[ConversationSummary])},
        problems=(404, 503),
        parameters=(
            _VIEW,
            _STATUS,
            *(
                Parameter(name=name, location="query", type=type_, description=description)
                for name, (type_, description) in _FILTERS.items()
            ),
            cursor_parameter(QueueCursor),
            LIMIT,
        ),
    ),
    _read(
        path=_ONE_PATH,
        handler=show_conversation,
        summary="Read any conversation",
        answers={200: ("the conversation", Conversation)},
        problems=(404, 503),
        parameters=(CONVERSATION, cursor_parameter(MessageCursor), LIMIT),
    ),
    _write(
        is_one_transaction=True,
        path=f"{_PATH}/take",
        handler=take_conversation,
        summary="Take the next conversation",
        answers={200: ("the conversation, which is yours now", Conversation), 204: ("none waits", None)},
        problems=(503,),
        body=TakeInput,
        is_body_optional=True,
    ),
    _change("reply", reply_in_conversation, "Reply to the customer", ReplyInput),
    _change("note", note_in_conversation, "Add a note", NoteInput),
    _change("assign", assign_conversation, "Assign or release a conversation", AssignInput),
    _change("change", change_conversation, "Change a conversation", ConversationChange),
    _change("status", set_conversation_status, "Set the status of a conversation", StatusInput),
    _change("merge", merge_conversation, "Merge a conversation into another one", ConversationMerge),
    _write(
        is_one_transaction=True,
        path=f"{_ONE_PATH}/split",
        handler=split_conversation,
        summary="Split a conversation",
        answers={201: ("the new conversation", Conversation)},
        problems=(404, 409, 503),
        parameters=(CONVERSATION,),
        body=ConversationSplit,
    ),
    _read(
        path=f"{_ONE_PATH}/replies/{{template_id}}",
        handler=render_reply,
        summary="Show a filled template",
        answers={200: ("its text", RenderedReply)},
        problems=(404, 409, 503),
        parameters=(CONVERSATION, _TEMPLATE),
    ),
    _write(
        is_one_transaction=True,
        path=f"{_PATH}/bulk",
        handler=preview_bulk_change,
        summary="Preview a change of many conversations",
        answers={200: ("what it would change", BulkPreview)},
        problems=(409, 503),
        body=BulkInput,
    ),
    _write(
        path=f"{_PATH}/bulk/{{preview_id}}/apply",
        handler=apply_bulk_change,
        summary="Apply a change of many conversations",
        answers={200: ("what was changed, and what was not", BulkOutcome)},
        problems=(404, 409, 503),
        parameters=(_PREVIEW,),
        body=BulkApply,
    ),
    _write(
        path=_ATTACHMENTS_PATH,
        handler=upload_staff_attachment,
        summary="Upload an attachment of a reply",
        answers={201: ("the stored attachment", Attachment)},
        problems=(408, 409, 413, 415, 422, 503),
        has_upload=True,
        upload_type=UPLOAD_TYPE,
    ),
    _read(
        path=f"{_ATTACHMENTS_PATH}/{{attachment_id}}",
        handler=show_attachment,
        summary="Read any attachment",
        answers={200: ("the file", None)},
        problems=(404, 503),
        parameters=(ATTACHMENT,),
        content_type="*/*",
    ),
]
