"""Conversations as their customers use them: questions, messages, and what they think of the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError

from commerce.conversations import store
from commerce.conversations.case_threads import new_conversation
from commerce.conversations.conversation_changes import (
    add_message,
    change_conversation,
    lock_conversation,
)
from commerce.conversations.conversation_policy import ConversationPolicy
from commerce.conversations.errors import (
    NoSuchConversation,
    SatisfactionNotRequested,
    TooManyMessages,
    TooManyQuestions,
)
from commerce.conversations.model import (
    ENDED,
    ConversationEvent,
    ConversationSummary,
    CustomerConversation,
    CustomerEvent,
    CustomerMessage,
    CustomerThread,
    Message,
    MessageInput,
    Question,
    SatisfactionInput,
)
from commerce.conversations.store import KEY_CONSTRAINT, NewMessage
from commerce.conversations.thread_cursors import (
    message_cursor,
    parse_message_cursor,
    parse_time_cursor,
    time_cursor,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.text_search.terms import detect_language

EVENTS_PER_READ = 100
_HIDDEN_KINDS = frozenset({"note", "assigned", "changed", "escalated"})


class CustomerThreads:
    """Conversations of customers. Another's is as if there were none."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, policy: ConversationPolicy) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy

    async def open_question(self, user_id: str, key: str, question: Question) -> tuple[CustomerThread, bool]:
        """Open a conversation with a question, once per key. Returns it, and whether it is new.

        Raises `NoSuchOrder` for another's order, `TooManyQuestions`, `KeyReused`, `NoSuchAttachment`."""
        digest = _digest(b"question", question)
        message = MessageInput(text=question.text, attachments=question.attachments)

        async def open_once() -> tuple[UUID, bool]:
            async with self._db.transaction() as connection:
                stored = await _find_by_key(connection, user_id, key, digest)
                if stored is not None:
                    return stored, False
                await self._check_question(connection, user_id, question)
                new = new_conversation(
                    *(self._ids.new(), user_id, self._now(), "new"),
                    subject=question.subject,
                    order_id=question.order_id,
                    language=question.language or detect_language(question.subject + question.text),
                )
                await _open(connection, new, _to_store(user_id, message, key, digest))
                return new.conversation_id, True

        conversation_id, is_new = await _once(open_once)
        return await self.get(conversation_id, user_id, None, 1), is_new

    async def _check_question(self, connection: Connection, user_id: str, question: Question) -> None:
        if question.order_id is not None:
            order = await orders.read_order_header(connection, question.order_id)
            if order is None or order.user_id != user_id:
                raise NoSuchOrder(f"there is no stored order {question.order_id}, or it is not yours")
        limit = self._policy.open_questions_per_user
        if await store.count_open_questions(connection, user_id, limit) >= limit:
            raise TooManyQuestions(f"{limit} of your questions are open: go on with one of them")

    async def write(
        self, conversation_id: UUID, user_id: str, key: str, message: MessageInput
    ) -> tuple[CustomerThread, bool]:
        """Add a message, once per key. Returns the conversation that has it, and whether it is new.

        One that has ended is reopened, or goes on in a new one if it was closed long ago; one that was merged goes on
        where its messages are. Raises `NoSuchConversation`, `TooManyMessages`, `KeyReused`, `NoSuchAttachment`."""
        digest = _digest(conversation_id.bytes, message)

        async def write_once() -> tuple[UUID, bool]:
            async with self._db.transaction() as connection:
                conversation = await self._lock_present(connection, conversation_id, user_id)
                stored = await _find_by_key(connection, user_id, key, digest)
                if stored is not None:
                    return stored, False
                return await self._write(connection, conversation, _to_store(user_id, message, key, digest)), True

        written_to, is_new = await _once(write_once)
        return await self.get(written_to, user_id, None, 1), is_new

    async def _lock_present(self, connection: Connection, conversation_id: UUID, user_id: str) -> ConversationSummary:
        """Lock the conversation that has the messages now."""
        conversation = await self._read(connection, conversation_id, user_id)
        while conversation.merged_into is not None:  # locked only at the end: a merge locks by id
            conversation = await self._read(connection, conversation.merged_into, user_id)
        locked = await lock_conversation(connection, conversation.conversation_id)
        # It may have been merged while this transaction waited for the lock.
        return locked if locked.merged_into is None else await self._lock_present(connection, conversation_id, user_id)

    async def _write(
        self,
        connection: Connection,
        conversation: ConversationSummary,
        message: NewMessage,
        passed: frozenset[UUID] = frozenset(),
    ) -> UUID:
        now = self._now()
        reopened_until = (conversation.closed_at or now) + timedelta(days=self._policy.reopen_within_days)
        if now > reopened_until:
            return await self._go_on(connection, conversation, message, passed | {conversation.conversation_id})
        self._check_room(conversation)
        if conversation.status in ENDED:
            conversation = await change_conversation(
                connection, conversation, now, message.actor, "reopened", status="open"
            )
        status = "new" if conversation.status == "new" else "open"
        await add_message(connection, conversation, message, now, status=status)
        return conversation.conversation_id

    async def _go_on(
        self, connection: Connection, closed: ConversationSummary, message: NewMessage, passed: frozenset[UUID]
    ) -> UUID:
        """Go on with a conversation that was closed long ago in a new one.

        `passed` were closed long ago, too: one that follows may have been merged into one of them."""
        following = await store.find_following(connection, closed.conversation_id)
        if following is not None:
            conversation = await self._lock_present(connection, following, closed.user_id)
            if conversation.conversation_id not in passed:
                return await self._write(connection, conversation, message, passed)
        new = new_conversation(
            *(self._ids.new(), closed.user_id, self._now(), "new"),
            subject=closed.subject,
            order_id=closed.order_id,
            language=closed.language,
            previous_id=closed.conversation_id,
        )
        await _open(connection, new, message)
        return new.conversation_id

    def _check_room(self, conversation: ConversationSummary) -> None:
        if conversation.unanswered >= self._policy.unanswered_messages:
            raise TooManyMessages(f"{conversation.unanswered} of your messages wait for an answer: wait for it")
        if conversation.last_message_no >= self._policy.messages_per_conversation:
            raise TooManyMessages("the conversation is as long as it can be: ask a new question")

    async def list_of_user(self, user_id: str, cursor: str | None, count: int) -> Page[CustomerConversation]:
        """List the conversations of a customer, newest activity first."""
        async with self._db.connection() as connection:
            rows = await store.list_of_user(connection, user_id, parse_time_cursor(cursor), count + 1)
            unread = await store.count_unread(connection, [row.conversation_id for row in rows])
        places = {row.conversation_id: time_cursor(row) for row in rows}
        shown = [_for_customer(row, unread.get(row.conversation_id, 0)) for row in rows]
        return to_page(shown, count, lambda row: places[row.conversation_id])

    async def get(self, conversation_id: UUID, user_id: str, cursor: str | None, count: int) -> CustomerThread:
        """Read a conversation with its newest messages before the cursor. Raises `NoSuchConversation`."""
        async with self._db.connection() as connection:
            conversation = await self._read(connection, conversation_id, user_id)
            unread = await store.count_unread(connection, [conversation_id])
            rows = await store.list_messages(
                *(connection, conversation_id, parse_message_cursor(cursor)), with_internal=False, count=count + 1
            )
        page = [_customer_message(message) for message in reversed(rows[:count])]
        earlier = message_cursor(rows[count - 1]) if len(rows) > count else None
        return CustomerThread(
            conversation=_for_customer(conversation, unread.get(conversation_id, 0)), messages=page, earlier=earlier
        )

    async def read(self, conversation_id: UUID, user_id: str) -> ConversationSummary:
        """Read a conversation without its messages. Raises `NoSuchConversation`."""
        async with self._db.connection() as connection:
            return await self._read(connection, conversation_id, user_id)

    async def _read(self, connection: Connection, conversation_id: UUID, user_id: str) -> ConversationSummary:
        conversation = await store.get(connection, conversation_id)
        if conversation is None or conversation.user_id != user_id:
            raise NoSuchConversation(f"there is no conversation {conversation_id}")
        return conversation

    async def mark_read(self, conversation_id: UUID, user_id: str, message_no: int) -> None:
        """Note the last message that the customer has read. No event; a repeat changes nothing.

        Raises `NoSuchConversation`."""
        async with self._db.transaction() as connection:
            await self._read(connection, conversation_id, user_id)
            await store.mark_read(connection, conversation_id, user_id, message_no)

    async def rate(self, conversation_id: UUID, user_id: str, answer: SatisfactionInput) -> None:
        """Store how satisfied the customer is, once. The same answer again changes nothing.

        Raises `NoSuchConversation`, `SatisfactionNotRequested` if it was not closed yet, or was answered before."""
        async with self._db.transaction() as connection:
            conversation = await lock_conversation(connection, conversation_id)
            if conversation.user_id != user_id:
                raise NoSuchConversation(f"there is no conversation {conversation_id}")
            if (conversation.satisfaction, conversation.satisfaction_text) == (answer.score, answer.text):
                return
            if conversation.satisfaction_requested_at is None or conversation.satisfaction is not None:
                raise SatisfactionNotRequested("you are asked once, when the conversation is closed")
            now = self._now()
            await change_conversation(
                *(connection, conversation, now, f"customer {user_id}", "satisfaction", {"score": answer.score}),
                satisfaction=answer.score,
                satisfaction_text=answer.text,
                satisfaction_at=now,
            )

    async def list_events_after(self, conversation_id: UUID, user_id: str, seq: int) -> tuple[list[CustomerEvent], int]:
        """List the changes after a number that the customer can see, and the last number read.

        Raises `NoSuchConversation`."""
        async with self._db.connection() as connection:
            await self._read(connection, conversation_id, user_id)
            events = await store.list_events_after(connection, conversation_id, seq, EVENTS_PER_READ)
            numbers = [event.details["message_no"] for event in events if "message_no" in event.details]
            messages = await store.get_messages(connection, conversation_id, numbers) if numbers else {}
        last_seq = events[-1].version if events else seq
        return [_customer_event(event, messages) for event in events if event.kind not in _HIDDEN_KINDS], last_seq

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def latest_event_seqs(db: Database, conversation_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the number of the last event of each conversation."""
    async with db.connection() as connection:
        return await store.latest_versions(connection, conversation_ids)


async def _once(attempt: Callable[[], Awaitable[tuple[UUID, bool]]]) -> tuple[UUID, bool]:
    """Run a transaction; again if another request has stored the same key meanwhile, which it finds then."""
    try:
        return await attempt()
    except UniqueViolationError as error:
        if error.constraint_name != KEY_CONSTRAINT:
            raise
        return await attempt()


async def _open(connection: Connection, new: ConversationSummary, message: NewMessage) -> None:
    await store.insert(connection, new, message.actor)
    await add_message(connection, new, message, new.created_at)


async def _find_by_key(connection: Connection, user_id: str, key: str, digest: bytes) -> UUID | None:
    stored = await store.find_message_by_key(connection, f"customer {user_id}", key)
    if stored is not None and stored[1] != digest:
        raise KeyReused("this Idempotency-Key belongs to another message: use a new key")
    return stored[0] if stored else None


def _to_store(user_id: str, message: MessageInput, key: str, digest: bytes) -> NewMessage:
    return NewMessage(
        *("customer", f"customer {user_id}", message.text),
        attachments=message.attachments,
        idempotency_key=key,
        body_digest=digest,
    )


def _digest(subject: bytes, body: msgspec.Struct) -> bytes:
    return sha256(subject + msgspec.json.encode(body, order="deterministic")).digest()


def _for_customer(conversation: ConversationSummary, unread: int) -> CustomerConversation:
    return CustomerConversation(
        conversation_id=conversation.conversation_id,
        order_id=conversation.order_id,
        case_id=conversation.case_id,
        previous_id=conversation.previous_id,
        merged_into=conversation.merged_into,
        subject=conversation.subject,
        language=conversation.language,
        status=conversation.status,
        created_at=conversation.created_at,
        active_at=conversation.active_at,
        unread=unread,
        wants_satisfaction=conversation.satisfaction_requested_at is not None and conversation.satisfaction is None,
        satisfaction=conversation.satisfaction,
    )


def _customer_message(message: Message) -> CustomerMessage:
    return CustomerMessage(
        message_no=message.message_no,
        at=message.at,
        author=message.author,
        text=message.text,
        attachments=message.attachments,
    )


def _customer_event(event: ConversationEvent, messages: Mapping[int, Message]) -> CustomerEvent:
    message = messages.get(event.details.get("message_no", 0))
    return CustomerEvent(
        seq=event.version,
        at=event.at,
        kind=event.kind,
        status=event.details.get("status"),
        message=None if message is None or message.is_internal else _customer_message(message),
    )
