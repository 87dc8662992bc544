"""Typical values of the statements of conversations, and of reports on support."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID


def values_of_conversations(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of the queue of support and of pages of a customer's conversations."""
    first, last = UUID(int=0), UUID(int=2**128 - 1)
    start: dict[int, object] = {2: 0, 3: now - timedelta(days=900), 4: first, 5: None, 6: None, 7: False, 8: 50}
    queue = start | {1: ["new", "open"]}
    return {
        "conversations.list_queue": queue,
        "conversations.list_queue_of_team": queue | {9: "team-1"},
        "conversations.list_queue_of_assignee": queue | {9: "staff-1", 10: None, 11: None},
        "conversations.list_queue_of_tag": queue | {9: "fire", 10: None},
        "conversations.take_next": {1: ["", "team-1"], 2: 64},
        "conversations.list_of_user": {2: now, 3: last, 4: 50},
        "conversations.list_messages": {2: now, 3: 9, 4: True, 5: 50},
        "conversations.list_teams": {1: None, 2: ""},
        "conversations.list_templates": {1: None, 2: "", 3: ""},
        "conversations.list_views": {2: first},
    }


def values_of_support(now: datetime) -> dict[str, dict[int, object]]:
    """Return values of reports on a day, and of steps over open conversations."""
    first_id, last_id = (UUID(int=(int(at.timestamp() * 1_000) << 80)) for at in (now - timedelta(days=1), now))
    day: dict[int, object] = {1: now - timedelta(days=1), 2: now, 3: "team"}
    cases: dict[int, object] = {1: first_id, 2: last_id}
    return {
        "support_figures.measure_clocks": day,
        "support_figures.measure_backlog": {1: "team"},
        "support_figures.count_decisions": {1: now - timedelta(days=1), 2: now, 3: 1000},
        "support_figures.measure_satisfaction": day,
        "support_figures.count_returned_reasons": cases,
        "support_figures.count_returned_skus": cases | {3: now - timedelta(days=1), 4: now},
        "support_figures.count_returned_carriers": cases | {3: now - timedelta(days=1), 4: now},
        "conversations.lock_outdated": {1: 1},
        "conversations.lock_late": {1: "default", 2: now},
    }
