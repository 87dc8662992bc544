"""Conversations of cases: opened with the case, and changed with it, in the transaction of the case.

Call inside a transaction that holds the order lock. The conversation has the id of its case.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from commerce.conversations import store
from commerce.conversations.conversation_changes import (
    add_message,
    change_conversation,
    status_of_case,
)
from commerce.conversations.deadline_updates import compute
from commerce.conversations.model import (
    ENDED,
    CaseWaitsFor,
    ConversationKind,
    ConversationStatus,
    ConversationSummary,
    EventKind,
)
from commerce.conversations.store import NewMessage
from commerce.kernel.postgres import Connection
from commerce.text_search.terms import detect_language


class CaseFacts(NamedTuple):
    """The part of a case that its conversation follows. `amount` is what the decided case comes to."""

    case_id: UUID
    order_id: UUID
    user_id: str
    kind: ConversationKind
    subject: str
    text: str
    created_at: datetime
    status: str
    waits_for: CaseWaitsFor
    money_state: str
    is_decided: bool
    amount: int | None
    currency: str


async def open_for_case(connection: Connection, case: CaseFacts, now: datetime, actor: str) -> ConversationSummary:
    """Open the conversation of a case with the customer's text as its first message.

    A repeat changes nothing."""
    status = status_of_case(case.waits_for, is_new=not case.is_decided)
    is_resolved = status == "resolved"
    new = new_conversation(
        case.case_id,
        case.user_id,
        case.created_at,
        status,
        subject=case.subject,
        language=detect_language(case.text) if case.text else "zh",
        order_id=case.order_id,
        case_id=case.case_id,
        kind=case.kind,
        case_waits_for=case.waits_for,
        resolved_at=now if is_resolved else None,
        first_response_at=now if case.is_decided else None,
        **_amount(case),
    )
    is_new = await store.insert(connection, new, actor, {"case_status": case.status})
    conversation = await store.lock(connection, case.case_id)
    assert conversation is not None
    if is_new and case.text.strip():
        message = NewMessage("customer", f"customer {case.user_id}", case.text)
        # The text belongs to the request, which a decision answers.
        conversation = await add_message(connection, conversation, message, now, unanswered=0)
    elif is_new:
        conversation = await compute(connection, conversation)
    return conversation


async def follow_case(connection: Connection, before: CaseFacts, case: CaseFacts, now: datetime, actor: str) -> None:
    """Let the conversation of a case follow a change of it.

    Whoever must act on the case decides the status, unless a message of the customer waits for an answer. What support
    does with the case answers it: a decision, an offer."""
    conversation = await store.lock(connection, case.case_id)
    if conversation is None:  # of a process of the version before
        conversation = await open_for_case(connection, before, now, actor)
    if (before.status, before.waits_for, before.money_state) == (case.status, case.waits_for, case.money_state):
        return
    is_answer = (case.is_decided and not before.is_decided) or (
        before.waits_for == "staff" and case.waits_for != "staff" and not actor.startswith("customer ")
    )
    changes: dict[str, Any] = {"case_waits_for": case.waits_for, **_amount(case)}
    if is_answer:
        changes |= {"unanswered": 0, "first_response_at": conversation.first_response_at or now}
    is_new = conversation.status == "new" and not is_answer
    unanswered = 0 if is_answer else conversation.unanswered
    status = conversation.status
    if case.waits_for != before.waits_for or is_answer:
        status = _next_status(status, status_of_case(case.waits_for, is_new=is_new), unanswered)
    details = {"case_status": case.status, "waits_for": case.waits_for, "money_state": case.money_state}
    if is_answer:
        details["is_answer"] = "true"
    kind: EventKind = "reopened" if conversation.status in ENDED and status not in ENDED else "case"
    await change_conversation(connection, conversation, now, actor, kind, details, status=status, **changes)


def _next_status(present: ConversationStatus, of_case: ConversationStatus, unanswered: int) -> ConversationStatus:
    if of_case == "resolved":
        return present if present == "closed" or unanswered else "resolved"
    return "open" if unanswered and of_case != "new" else of_case


def _amount(case: CaseFacts) -> dict[str, Any]:
    return {"amount": case.amount, "currency": None if case.amount is None else case.currency}


def new_conversation(
    conversation_id: UUID, user_id: str, now: datetime, status: ConversationStatus, **fields: Any
) -> ConversationSummary:
    """Return a conversation to insert, without messages. `fields` are others of `ConversationSummary`."""
    empty: dict[str, Any] = dict.fromkeys(ConversationSummary.__struct_fields__)
    empty |= {"priority": 3, "tags": [], "version": 1, "created_at": now, "active_at": now, "kind": "question"}
    empty |= {"last_message_no": 0, "unanswered": 0, "read_by_customer_no": 0, "reopens": 0}
    return ConversationSummary(
        **(empty | {"conversation_id": conversation_id, "user_id": user_id, "status": status} | fields)
    )
