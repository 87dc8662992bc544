"""The migration that moves what is to be done with shipments and orders into jobs."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

_BEFORE = next(number for number, file in enumerate(load_migrations()) if "shipment_jobs" in file.name)
_SHIPMENTS = (
    # carrier, booking, status, task, after_cancel, parked → kind, system
    (None, False, "planned", "book", None, True, "shipment.assign", "internal"),
    ("sf_express", False, "planned", "book", None, False, "shipment.book", "sf_express"),
    ("own_fleet", False, "planned", "book", None, False, "shipment.book", "internal"),
    ("sf_express", True, "planned", "book", None, True, "shipment.book", "sf_express"),
    ("sf_express", True, "booked", "cancel", "cancelled", False, "shipment.cancel", "sf_express"),
    ("zto", True, "booked", "subscribe", None, False, "shipment.subscribe", "kuaidi100"),
    ("zto", True, "booked", "track", None, True, "shipment.track", "kuaidi100"),
    ("zto", False, "planned", None, None, False, None, None),
)
_FULFILMENTS = (
    # status, due, parked → kind
    ("pending", True, False, "order.plan"),
    ("pending", False, True, "order.plan"),
    ("pending", False, False, None),
    ("planned", True, False, None),
    ("planned", False, False, None),
    ("delivered", True, False, "order.complete"),
    ("done", False, False, None),
)


async def _insert_order(connection: asyncpg.Connection, order_id: UUID, status: str, due: bool, parked: bool) -> None:
    await connection.execute(
        "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
        "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) "
        "VALUES ($1, 'u', $2, $3, 's', 1, 'CNY', 1, '[]', '[]', now(), 0, now(), now() + interval '1 hour')",
        *(order_id, str(order_id), b"d" * 16),
    )
    await connection.execute(
        "INSERT INTO fulfilments (order_id, status, paid_at, planned_at, delivered_at, due_at, parked, last_error, "
        "attempts) VALUES ($1, $2, now(), CASE WHEN $2 <> 'pending' THEN now() END, "
        "CASE WHEN $2 IN ('delivered', 'done') THEN now() END, CASE WHEN $3 THEN now() END, $4, 'late', 2)",
        *(order_id, status, due, parked),
    )


async def test_open_shipments_and_orders_become_jobs(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:_BEFORE])
    await migrate(connection)
    await connection.execute(
        "INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, epoch, created_at) "
        "VALUES ('s', 'A sale', 'CNY', 'open', now(), 900, 1, now());"
        "INSERT INTO warehouses VALUES ('w', 'A warehouse', '{}', 30, 120)"
    )
    for number, (status, due, parked, _) in enumerate(_FULFILMENTS):
        await _insert_order(connection, UUID(int=number), status, due, parked)
    await connection.execute("SET session_replication_role = replica")  # without bookings
    for number, (carrier, is_requested, status, task, after_cancel, parked, *_) in enumerate(_SHIPMENTS, 100):
        await connection.execute(
            "INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, status, "
            "weight_g, length_mm, width_mm, height_mm, value_minor, currency, carrier, promised_on, booking_id, "
            "tracking_no, planned_at, booked_at, task, after_cancel, due_at, attempts, parked, last_error) "
            "VALUES ($1, $2, 0, $3, 'w', '{}', $4, 1, 1, 1, 1, 1, 'CNY', $5, now(), CASE WHEN $6 THEN $1::uuid END, "
            "CASE WHEN $4 = 'booked' THEN 'NO-1' END, now(), CASE WHEN $4 = 'booked' THEN now() END, $7, $8, now(), 3, "
            "$9, 'late')",
            *(UUID(int=number), UUID(int=3), number, status, carrier, is_requested, task, after_cancel, parked),
        )
    await connection.execute("RESET session_replication_role")
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)

    query = "SELECT subject, kind, system, attempts, parked, last_error FROM jobs WHERE queue = $1 ORDER BY subject"
    rows = await connection.fetch(query, "fulfilments")
    assert [tuple(row) for row in rows] == [
        (UUID(int=number), kind, "internal", 2, parked, "late")
        for number, (_, _, parked, kind) in enumerate(_FULFILMENTS)
        if kind
    ]
    rows = await connection.fetch(query, "shipments")
    assert [tuple(row) for row in rows] == [
        (UUID(int=number), kind, system, 3, parked, "late")
        for number, (*_, parked, kind, system) in enumerate(_SHIPMENTS, 100)
        if kind
    ]
    await connection.close()
