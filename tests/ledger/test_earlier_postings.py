"""Earlier entries get their postings and accounts, and cash that was in no book is posted."""

from __future__ import annotations

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

_BEFORE = next(number for number, file in enumerate(load_migrations()) if "ledger_accounts" in file.name)
_ORDER = "00000000-0000-7000-8000-00000000000"
_ORDERS = f"""
INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, total_minor,
                    ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by)
SELECT ('{_ORDER}' || n)::uuid, 'u', n, decode(repeat('00', 16), 'hex'), 's', 1, 'CNY', 300, '[]', '[]', now(), 0,
       now(), now() + interval '1 hour' FROM generate_series(1, 2) AS n
"""
_SHIPMENTS = f"""
INSERT INTO shipments (shipment_id, order_id, parcel_no, address_no, status, status_seq, warehouse_id, address,
                       weight_g, length_mm, width_mm, height_mm, value_minor, cod_minor, currency, promised_on,
                       planned_at, booked_at, handed_over_at, ended_at, carrier, tracking_no, cod_collected_at)
SELECT ('{_ORDER}' || n)::uuid, ('{_ORDER}' || n)::uuid, 1, 0, 'delivered', 5, 'w', '{{}}', 1, 1, 1, 1, 300, 100,
       'CNY', now(), now(), now(), now(), now(), 'zto', 'ZTO' || n, now() FROM generate_series(1, 2) AS n
"""
_LEDGER = f"""
INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES
    ('capture {_ORDER}1', 'cash', '{_ORDER}1', 100, 'CNY', now()),
    ('capture {_ORDER}1', 'orders', '{_ORDER}1', -100, 'CNY', now()),
    ('gift welcome', 'shop:credit', NULL, 50, 'CNY', now()), ('gift welcome', 'credit:u', NULL, -50, 'CNY', now())
"""


async def test_earlier_entries_get_postings_and_accounts(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first order was captured from `cash`; the cash of the second was collected and in no book."""
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "load_migrations", lambda: every[:_BEFORE])
        await migrate(connection)
    await connection.execute("SET session_replication_role = replica")
    for statement in (_ORDERS, _SHIPMENTS, _LEDGER, "INSERT INTO credit_accounts VALUES ('u', 'CNY', 50)"):
        await connection.execute(statement)
    await connection.execute("RESET session_replication_role")
    await migrate(connection)
    postings = await connection.fetch("SELECT posting, kind FROM postings ORDER BY posting")
    assert [tuple(row) for row in postings] == [
        (f"capture {_ORDER}1", "capture"),
        (f"cash {_ORDER}2", "cash_collected"),
        ("gift welcome", "gift"),
    ]
    entries = await connection.fetch("SELECT account, amount_minor FROM ledger WHERE posting LIKE 'cash %' ORDER BY 1")
    assert [tuple(row) for row in entries] == [("cash:carrier:zto", 100), ("collected", -100)]
    accounts = await connection.fetch(
        "SELECT account, kind, owner FROM accounts WHERE owner IN ('u', 'zto') ORDER BY 1"
    )
    assert [tuple(row) for row in accounts] == [("cash:carrier:zto", "asset", "zto"), ("credit:u", "liability", "u")]
    assert not await connection.fetch(
        "SELECT FROM pg_constraint WHERE conname = 'ledger_account_check' AND NOT convalidated"
    )
    await connection.close()
