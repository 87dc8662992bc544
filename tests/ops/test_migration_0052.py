"""The migration that opens conversations of the cases from before."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

_BEFORE = next(number for number, file in enumerate(load_migrations()) if file.name == "conversations")
_CASES = (
    # status, waits for, decided, ended, text → status of the conversation, messages
    ("requested", "staff", False, False, "too small", "new", 1),
    ("approved", "customer", True, False, "", "waiting_customer", 0),
    ("in_transit", "carrier", True, False, "", "waiting_carrier", 0),
    ("received", "warehouse", True, False, "", "waiting_warehouse", 0),
    ("inspected", "staff", True, False, "", "open", 0),
    ("resolved", "provider", True, False, "", "resolved", 0),
    ("declined", "nobody", True, True, "太小了", "closed", 1),
)


async def test_cases_from_before_get_conversations(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:_BEFORE])
    await migrate(connection)
    await connection.execute("SET session_replication_role = replica")  # without orders
    for number, (status, waits_for, is_decided, has_ended, text, *_) in enumerate(_CASES):
        await connection.execute(
            "INSERT INTO cases (case_id, order_id, user_id, kind, items_back, status, items_state, money_state, "
            "is_opened, reason_code, customer_text, policy, freight_payer, currency, amount_minor, freight_minor, "
            "fee_minor, waits_for, due_at, idempotency_key, body_digest, created_by, created_at, decided_at, ended_at, "
            "grant_id) VALUES ($1::uuid, $1::uuid, 'u', 'return', true, $2, 'expected', "
            "CASE WHEN $2 = 'resolved' THEN 'granted' ELSE 'undecided' END, "
            "false, 'size', $6, '{}', 'shop', 'CNY', 100, 10, 5, "
            "$3, "
            "CASE WHEN NOT $5 THEN now() END, $7, sha256(''), 'customer u', now() - interval '2 days', "
            "CASE WHEN $4 THEN now() - interval '1 day' END, CASE WHEN $5 THEN now() END, "
            "CASE WHEN $2 = 'resolved' THEN $1::uuid END)",
            *(UUID(int=number), status, waits_for, is_decided, has_ended, text, str(number)),
        )
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)
    rows = await connection.fetch(
        "SELECT status, last_message_no, language, case_waits_for, amount_minor, first_response_at IS NOT NULL AS "
        "answered, (SELECT count(*) FROM conversation_events AS event "
        "WHERE event.conversation_id = conversations.conversation_id) AS events, "
        "(SELECT count(*) FROM conversation_messages AS message "
        "WHERE message.conversation_id = conversations.conversation_id) AS messages "
        "FROM conversations ORDER BY conversation_id"
    )
    for row, (_, waits_for, is_decided, _, text, status, messages) in zip(rows, _CASES, strict=True):
        assert (row["status"], row["last_message_no"], row["messages"]) == (status, messages, messages)
        assert (row["case_waits_for"], row["amount_minor"], row["answered"]) == (waits_for, 105, is_decided)
        assert (row["events"], row["language"]) == (1, "en" if text == "too small" else "zh")
    await connection.close()
