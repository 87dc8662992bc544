"""Events of clocks from the stored events of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from commerce.conversations.deadlines import ClockEvent, ClockEventKind

ENDED_STATUSES = ("resolved", "closed")
_DECIDED = ("approved", "declined", "resolved")
_MONEY: Mapping[str, ClockEventKind] = {
    "granted": "money_due",
    "needs_other_way": "money_due",
    "nothing_due": "money_done",
    "done": "money_done",
}
_MESSAGES: Mapping[str, ClockEventKind] = {"customer_message": "customer_message", "reply": "staff_reply"}


class StoredEvent(NamedTuple):
    """An event of a conversation with those of its details that concern clocks."""

    at: datetime
    actor: str
    kind: str
    status: str | None = None
    from_status: str | None = None
    case_status: str | None = None
    money_state: str | None = None
    waiting_since: datetime | None = None
    is_answer: bool = False


def clock_events(
    stored: Sequence[StoredEvent], *, has_case: bool, first_response_at: datetime | None
) -> list[ClockEvent]:
    """Return what happened to the clocks, in order.

    A case from before conversations has an opening that names no status of the case. Its decision is taken from
    `first_response_at`; one that had ended without a decision has no clocks."""
    events: list[ClockEvent] = []
    for event in stored:
        is_earlier_case = event.kind == "opened" and has_case and event.case_status is None
        if not is_earlier_case:
            events += _of_event(event)
        elif first_response_at is not None or event.status not in ENDED_STATUSES:
            events += _of_earlier_case(event, first_response_at)
    return events


def _of_earlier_case(event: StoredEvent, first_response_at: datetime | None) -> Iterator[ClockEvent]:
    yield ClockEvent(event.at, "opened", event.actor)
    if event.status is not None and event.status.startswith("waiting_"):
        yield ClockEvent(event.at, "pause", event.actor)
    if first_response_at is not None:
        yield ClockEvent(first_response_at, "decided", "staff")


def _of_event(event: StoredEvent) -> Iterator[ClockEvent]:
    """Yield the events of clocks: the message or decision, then the change of status that followed."""
    at, actor = event.at, event.actor
    before, after = event.from_status or "", event.status or ""
    if event.kind == "opened":
        yield ClockEvent(at, "opened", actor, event.waiting_since)
    elif before in ENDED_STATUSES and after not in ENDED_STATUSES:
        yield ClockEvent(at, "reopened", actor)
    if event.kind == "merged" and event.waiting_since is not None:
        yield ClockEvent(at, "merged", actor, event.waiting_since)
    if event.kind in _MESSAGES:
        yield ClockEvent(at, _MESSAGES[event.kind], actor)
    if event.is_answer:
        yield ClockEvent(at, "staff_reply", actor)
    if event.case_status in _DECIDED:
        yield ClockEvent(at, "decided", actor)
    if (kind := _MONEY.get(event.money_state or "")) is not None:
        yield ClockEvent(at, kind, actor)
    if (kind := _of_status(before, after)) is not None:
        yield ClockEvent(at, kind, actor)


def _of_status(before: str, after: str) -> ClockEventKind | None:
    if after in ENDED_STATUSES:
        return "resolved" if after == "resolved" else "closed"
    if after.startswith("waiting_"):
        return "pause"
    return "resume" if before.startswith("waiting_") else None
