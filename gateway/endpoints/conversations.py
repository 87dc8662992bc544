"""Conversations of customers with support."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from aiohttp import web

from commerce.conversations.customer_threads import EVENTS_PER_READ
from commerce.conversations.message_files import JPEG, FileContent
from commerce.conversations.model import (
    Attachment,
    CustomerConversation,
    CustomerEvent,
    CustomerThread,
    MessageInput,
    Question,
    ReadInput,
    SatisfactionInput,
)
from commerce.conversations.thread_cursors import MessageCursor, TimeCursor
from commerce.kernel.paging import Page
from gateway.endpoints.orders import KEY
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.server_sent_events import EventBatch, last_event_id_parameter, stream_events
from gateway.uploads import read_upload

CONVERSATIONS_PATH = "/v1/conversations"
ATTACHMENTS_PATH = "/v1/attachments"
_MAX_EVENTS = 2**31 - 1
UPLOAD_TYPE = "*/*"
CONVERSATION = Parameter(name="conversation_id", location="path", type=UUID, description="the conversation's id")
ATTACHMENT = Parameter(name="attachment_id", location="path", type=UUID, description="the attachment's id")


async def ask_question(call: Call) -> web.Response:
    """Ask support a question, about one of your orders or about none.

    A repeat with the same Idempotency-Key returns 200 with the conversation.
    """
    key = call.parameters[KEY.name]
    thread, is_new = await call.services.conversations.customers.open_question(call.identity.subject, key, call.body)
    return _thread_response(thread, is_new)


async def list_conversations(call: Call) -> web.Response:
    """List your conversations, newest activity first, with how many messages you have not read."""
    cursor, customers = call.parameters["cursor"], call.services.conversations.customers
    return json_response(await customers.list_of_user(call.identity.subject, cursor, page_size(call)))


async def get_conversation(call: Call) -> web.Response:
    """Read one of your conversations with its newest messages, or those before `cursor`."""
    customers, size = call.services.conversations.customers, page_size(call)
    conversation_id, cursor = call.parameters["conversation_id"], call.parameters["cursor"]
    return json_response(await customers.get(conversation_id, call.identity.subject, cursor, size))


async def write_message(call: Call) -> web.Response:
    """Write a message. The answer has the conversation that got it.

    It is another one if this one was merged, or was closed long ago: then the message opens a new one. A repeat with
    the same Idempotency-Key returns 200.
    """
    conversation_id, key = call.parameters["conversation_id"], call.parameters[KEY.name]
    customers = call.services.conversations.customers
    thread, is_new = await customers.write(conversation_id, call.identity.subject, key, call.body)
    return _thread_response(thread, is_new)


async def read_messages(call: Call) -> web.Response:
    """Say up to which message you have read."""
    body: ReadInput = call.body
    conversation_id, user_id = call.parameters["conversation_id"], call.identity.subject
    await call.services.conversations.customers.mark_read(conversation_id, user_id, body.message_no)
    return web.Response(status=204)


async def rate_conversation(call: Call) -> web.Response:
    """Say how satisfied you are, once, after the conversation was closed."""
    conversation_id, user_id = call.parameters["conversation_id"], call.identity.subject
    await call.services.conversations.customers.rate(conversation_id, user_id, call.body)
    return web.Response(status=204)


async def watch_conversation(call: Call) -> web.StreamResponse:
    """Watch a conversation as server-sent events: `id` counts its changes, `data` is a CustomerEvent.

    To continue, send the last received id as `Last-Event-ID`: later events follow. Numbers that are left out are
    changes that concern only support. 204 means that no event will follow: it was merged.
    """
    customers, user_id = call.services.conversations.customers, call.identity.subject
    conversation_id, position = call.parameters["conversation_id"], 0

    async def fetch(last_seq: int) -> EventBatch[CustomerEvent]:
        nonlocal position
        position = max(position, last_seq)
        events, last_read = await customers.list_events_after(conversation_id, user_id, position)
        more, position = last_read >= position + EVENTS_PER_READ, last_read
        final = not more and (await customers.read(conversation_id, user_id)).merged_into is not None
        return EventBatch(events, final, more)

    return await stream_events(call, "conversation", conversation_id, "change", fetch)


async def upload_attachment(call: Call) -> web.Response:
    """Upload a picture (JPEG, PNG or WebP) or a PDF file, to send it with a message by its id.

    The content decides the type. Pictures are stored as JPEG, without metadata. Anything else is 422
    `not_an_attachment`.
    """
    return await store_upload(call, f"customer {call.identity.subject}", ATTACHMENTS_PATH)


async def read_attachment(call: Call) -> web.Response:
    """Read an attachment of your conversations. PDF files are sent to be stored, not shown."""
    files, attachment_id = call.services.conversations.files, call.parameters["attachment_id"]
    return file_response(await files.read_of_customer(attachment_id, call.identity.subject))


async def store_upload(call: Call, actor: str, path: str) -> web.Response:
    """Read an upload within the limits of pictures of cases, and store it for somebody."""
    services, settings = call.services, call.services.settings.aftersales
    await services.conversations.files.check_upload(actor)
    with services.uploads.take(settings.concurrent_uploads):
        content = await read_upload(call.request, settings.evidence_bytes, settings.evidence_upload_timeout_s)
        attachment = await services.conversations.files.upload(actor, content)
    return json_response(attachment, 201, {"Location": f"{path}/{attachment.attachment_id}"})


def file_response(file: FileContent) -> web.Response:
    """Build the answer of an attachment.

    A browser shows nothing but pictures, and runs nothing that is in them."""
    headers = {
        "Cache-Control": "private, max-age=3600",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if file.media_type != JPEG:
        headers["Content-Disposition"] = 'attachment; filename="attachment.pdf"'
    return web.Response(body=file.content, content_type=file.media_type, headers=headers)


def _thread_response(thread: CustomerThread, is_new: bool) -> web.Response:
    location = f"{CONVERSATIONS_PATH}/{thread.conversation.conversation_id}"
    return json_response(thread, 201 if is_new else 200, {"Location": location})


_operation = partial(Operation, tag="conversations", access="customer")
_PATH = f"{CONVERSATIONS_PATH}/{{conversation_id}}"
_WRITTEN = {201: ("stored", CustomerThread), 200: ("stored by an earlier request with the key", CustomerThread)}

OPERATIONS = [
    _operation(
        method="POST",
        path=CONVERSATIONS_PATH,
        handler=ask_question,
        summary="Ask a question",
        answers=_WRITTEN,
        problems=(404, 409, 429, 503),
        parameters=(KEY,),
        body=Question,
        admit=True,
    ),
    _operation(
        method="GET",
        path=CONVERSATIONS_PATH,
        handler=list_conversations,
        summary="List your conversations",
        answers={200: ("a page of conversations", Page[CustomerConversation])},
        problems=(503,),
        parameters=(cursor_parameter(TimeCursor), LIMIT),
    ),
    _operation(
        method="GET",
        path=_PATH,
        handler=get_conversation,
        summary="Read a conversation",
        answers={200: ("the conversation with a page of messages", CustomerThread)},
        problems=(404, 503),
        parameters=(CONVERSATION, cursor_parameter(MessageCursor), LIMIT),
    ),
    _operation(
        method="POST",
        path=f"{_PATH}/messages",
        handler=write_message,
        summary="Write a message",
        answers=_WRITTEN,
        problems=(404, 409, 429, 503),
        parameters=(CONVERSATION, KEY),
        body=MessageInput,
        admit=True,
    ),
    _operation(
        method="POST",
        path=f"{_PATH}/read",
        handler=read_messages,
        summary="Mark messages as read",
        answers={204: ("noted", None)},
        problems=(404, 503),
        parameters=(CONVERSATION,),
        body=ReadInput,
    ),
    _operation(
        method="POST",
        path=f"{_PATH}/satisfaction",
        handler=rate_conversation,
        summary="Say how satisfied you are",
        answers={204: ("stored", None)},
        problems=(404, 409, 503),
        parameters=(CONVERSATION,),
        body=SatisfactionInput,
    ),
    _operation(
        method="GET",
        path=f"{_PATH}/events",
        handler=watch_conversation,
        summary="Watch a conversation",
        answers={200: ("its changes", None), 204: ("no event will follow", None)},
        problems=(404, 503),
        parameters=(CONVERSATION, last_event_id_parameter(_MAX_EVENTS)),
        content_type="text/event-stream",
    ),
    _operation(
        method="POST",
        path=ATTACHMENTS_PATH,
        handler=upload_attachment,
        summary="Upload an attachment",
        answers={201: ("the stored attachment", Attachment)},
        problems=(408, 409, 413, 415, 422, 503),
        has_upload=True,
        upload_type=UPLOAD_TYPE,
    ),
    _operation(
        method="GET",
        path=f"{ATTACHMENTS_PATH}/{{attachment_id}}",
        handler=read_attachment,
        summary="Read an attachment",
        answers={200: ("the file", None)},
        problems=(404, 503),
        parameters=(ATTACHMENT,),
        content_type="*/*",
    ),
]
