"""Stored events of conversations, as the clocks see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from commerce.conversations.clock_events import StoredEvent, clock_events

_START = datetime(2026, 11, 30, 1, 0, tzinfo=UTC)


def _kinds(*stored: StoredEvent, has_case: bool = False, first_response_at: datetime | None = None) -> list[str]:
    events = clock_events(stored, has_case=has_case, first_response_at=first_response_at)
    return [event.kind for event in events]


def _event(kind: str, before: str | None = None, after: str | None = None, **details: str) -> StoredEvent:
    return StoredEvent(_START, "staff anna", kind, after, before, **details)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "kinds"),
    [
        (_event("note"), []),
        (_event("changed"), []),
        (_event("assigned", "new", "open"), []),
        (_event("reply", "open", "waiting_customer"), ["staff_reply", "pause"]),
        (_event("reply", "open", "resolved"), ["staff_reply", "resolved"]),
        (_event("customer_message", "waiting_customer", "open"), ["customer_message", "resume"]),
        (_event("customer_message", "resolved", "open"), ["reopened", "customer_message"]),
        (_event("status", "waiting_carrier", "waiting_warehouse"), ["pause"]),
        (_event("closed", "resolved", "closed"), ["closed"]),
        (_event("case", "new", "waiting_customer", case_status="approved", money_state="fixed"), ["decided", "pause"]),
        (
            _event("case", "open", "resolved", case_status="resolved", money_state="granted"),
            ["decided", "money_due", "resolved"],
        ),
        (_event("case", case_status="resolved", money_state="needs_other_way"), ["decided", "money_due"]),
        (_event("case", case_status="resolved", money_state="done"), ["decided", "money_done"]),
        (_event("reopened", "resolved", "open", case_status="requested", money_state="undecided"), ["reopened"]),
        (_event("case", case_status="cancelled", money_state="undecided"), []),
        (_event("merged"), []),
    ],
)
def test_event_becomes_events_of_clocks(event: StoredEvent, kinds: list[str]) -> None:
    opened = StoredEvent(_START, "customer u", "opened", "new")
    assert _kinds(opened, event) == ["opened", *kinds]


def test_offer_answers_without_deciding() -> None:
    offer = _event("case", "open", "waiting_customer", case_status="requested")._replace(is_answer=True)
    assert _kinds(offer) == ["staff_reply", "pause"]


def test_case_from_before_conversations_keeps_its_decision() -> None:
    decided_at = _START + timedelta(hours=3)
    opened = StoredEvent(_START, "customer u", "opened", "waiting_customer")
    events = clock_events([opened], has_case=True, first_response_at=decided_at)
    assert [(event.kind, event.at) for event in events] == [
        ("opened", _START),
        ("pause", _START),
        ("decided", decided_at),
    ]
    assert _kinds(opened, has_case=True) == ["opened", "pause"]


def test_case_that_ended_undecided_before_conversations_has_no_clocks() -> None:
    assert _kinds(StoredEvent(_START, "customer u", "opened", "closed"), has_case=True) == []
