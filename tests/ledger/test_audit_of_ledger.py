"""The audit finds each fault in the ledger that somebody who disables triggers can plant."""

from __future__ import annotations

import pytest

from commerce.audit import store
from commerce.audit.order_checks import ORDER_CHECKS
from tests.support.shipping_shop import ShippingShop, tracking_event

P6 = [name for promise, name, _ in ORDER_CHECKS if promise == "P6"]
FAULTS = {
    "a capture of cash on the account of a provider": (
        "captures_on_other_accounts",
        "UPDATE ledger SET account = 'provider:alipay' WHERE posting LIKE 'capture %' AND account = 'collected'",
    ),
    "a refund from the account of a provider that never had it": (
        "captures_on_other_accounts",
        "WITH refunded AS (INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, "
        "reason, actor, created_at, status, ended_at, way) SELECT gen_random_uuid(), payment_id, order_id, 'x', 5, "
        "'CNY', 'x', 'x', now(), 'done', now(), 'store_credit' FROM payments RETURNING *) INSERT INTO ledger (posting, "
        "account, order_id, amount_minor, currency, at) SELECT 'refund ' || refund_id, 'provider:alipay', order_id, "
        "-5, 'CNY', now() FROM refunded",
    ),
    "an entry without posting": ("orphan_postings", "DELETE FROM postings WHERE kind = 'capture'"),
    "a posting of a capture without payment": (
        "orphan_postings",
        "WITH added AS (INSERT INTO postings (posting, kind, order_id, at) SELECT 'capture ' || gen_random_uuid(), "
        "'capture', order_id, now() FROM orders RETURNING *) INSERT INTO ledger (posting, account, order_id, "
        "amount_minor, currency, at) SELECT posting, account, order_id, amount, 'CNY', at FROM added, "
        "(VALUES ('provider:alipay', 5), ('orders', -5)) AS entries (account, amount)",
    ),
    "a refund without its row": (
        "orphan_postings",
        "INSERT INTO postings (posting, kind, order_id, at) SELECT 'refund ' || order_id, 'refund', order_id, now() "
        "FROM orders",
    ),
    "cash of a shipment that was not delivered": (
        "orphan_postings",
        "UPDATE shipments SET cod_collected_at = NULL",
    ),
    "a delivered shipment whose cash is in no book": (
        "cash_and_shipments",
        "DELETE FROM ledger WHERE posting LIKE 'cash %'",
    ),
    "cash of another amount": ("cash_and_shipments", "UPDATE shipments SET cod_minor = cod_minor + 1"),
    "collected cash that is not captured": (
        "uncaptured_cash",
        "DELETE FROM ledger WHERE posting LIKE 'capture %'",
    ),
    "captured cash that nobody collected": (
        "uncaptured_cash",
        "DELETE FROM ledger WHERE posting LIKE 'cash %'",
    ),
    "freight that is refunded twice": (
        "freight_refunded_again",
        "INSERT INTO refund_grants (grant_id, order_id, kind, amount_minor, freight_minor, currency, strategy, reason, "
        "actor, created_at) SELECT gen_random_uuid(), order_id, 'staff', 1, 1, 'CNY', 'ratio', 'late', 'x', now() "
        "FROM orders",
    ),
    "a grant whose money did not move": (
        "grants_and_money",
        "INSERT INTO refund_grants (grant_id, order_id, kind, amount_minor, currency, strategy, reason, actor, "
        "created_at) SELECT gen_random_uuid(), order_id, 'staff', 1, 'CNY', 'ratio', 'late', 'x', now() FROM orders",
    ),
    "a posting that does not add up": (
        "unbalanced_postings",
        "UPDATE ledger SET amount_minor = amount_minor + 1 WHERE account LIKE 'cash:%'",
    ),
    "more captured than the ledger has": (
        "payments_and_ledger",
        "UPDATE payments SET uncollected_minor = uncollected_minor + 1 WHERE method = 'cod'",
    ),
}


async def list_found(ship: ShippingShop) -> set[str]:
    ids = [row["order_id"] for row in await ship.fetch_rows("SELECT order_id FROM orders")]
    async with store.open_order_snapshot(ship.shop.db) as connection:
        return {name for name in P6 if await store.list_violations(connection, name, ids)}


async def test_audit_finds_each_planted_fault(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order(("a", 3, 0), cod=300)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await list_found(ship) == set()
    tables = ("postings", "ledger", "shipments", "payments", "refunds", "refund_grants")
    async with ship.shop.db.connection() as connection:
        for table in tables:
            await connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
        await connection.execute("SET session_replication_role = replica")
        for fault, (check, statement) in FAULTS.items():
            await connection.execute(statement)
            violated = await list_found(ship)
            assert check in violated, (fault, violated)
            for table in tables:
                await connection.execute(f"DELETE FROM {table} WHERE true")
                overriding = " OVERRIDING SYSTEM VALUE" if table == "ledger" else ""
                await connection.execute(f"INSERT INTO {table}{overriding} SELECT * FROM kept_{table}")
            assert await list_found(ship) == set(), fault
        await connection.execute("RESET session_replication_role")


@pytest.mark.parametrize("is_first", [True, False])
async def test_cash_that_waits_for_other_shipments_is_no_fault(ship: ShippingShop, is_first: bool) -> None:
    _, shipments = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(shipments[0 if is_first else 1].shipment_id, tracking_event("delivered", -1))
    assert await list_found(ship) == set()
