"""Migration 0008 on a filled database: today's stores read every renamed column and word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from commerce.fulfilment import store as fulfilment_store
from commerce.kernel import migrations
from commerce.kernel.migrations import load_migrations, migrate
from commerce.payments import store as payment_store
from commerce.shipping import shipment_tasks
from commerce.shipping import store as shipping_store
from tests.ops.test_migrations import empty_url

__all__ = ["empty_url"]

ORDER, PAYMENTS, REFUND = UUID(int=1), [UUID(int=10 + number) for number in range(5)], UUID(int=20)
SHIPMENTS, BOOKINGS = [UUID(int=30 + number) for number in range(2)], [UUID(int=40 + number) for number in range(4)]
ROUTE, WAVE, RELEASE, REACQUIRE, CHANGE = (UUID(int=50 + number) for number in range(5))

ADDRESS = '{"name": "Zhang San", "phone": "13800000000", "country": "CN", "city": "Shanghai", "line": "Road 5"}'

# Rows as version 0007 writes them, with every word that 0008 changes.
FILL = f"""
INSERT INTO products VALUES ('A', 'A thing', 100, 'CNY', now(), now());
INSERT INTO sales (sale_id, title, currency, state, opens_at, pay_within_s, epoch, created_at)
VALUES ('a', 'A sale', 'CNY', 'open', now(), 900, 1, now());
INSERT INTO sale_items VALUES ('a', 'A', 100, NULL, NULL, 10, 1);
INSERT INTO stock_changes (change_id, sale_id, sku, delta, reason, actor, status, due_at, created_at, settled_at,
                           epoch, seq)
VALUES ('{CHANGE}', 'a', 'A', 5, 'more', 'staff', 'applied', now(), now(), '2026-11-11', 1, 1);
INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, total_minor,
                    ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by)
VALUES ('{ORDER}', 'alice', 'k', repeat('x', 16)::bytea, 'a', 1, 'CNY', 500, '[{{}}]', '[]', '2026-11-11', 0, now(),
        '2026-11-12');
INSERT INTO order_lines VALUES ('{ORDER}', 0, 0, 'A', 5, 100);
INSERT INTO order_events VALUES
    ('{ORDER}', 1, now(), 'awaiting_payment', 'cancelled', 'release_driver', 'expired'),
    ('{ORDER}', 2, now(), 'cancelled', 'paid', 'payment_driver', 'all of it is paid'),
    ('{ORDER}', 3, now(), 'paid', 'fulfilling', 'shipment_driver', 'planned');
UPDATE orders SET status = 'cancelled', cancelled_at = now(), cancel_reason = 'expired';
UPDATE orders SET status = 'paid', cancelled_at = NULL, cancel_reason = NULL;
UPDATE orders SET status = 'fulfilling';
INSERT INTO payments (payment_id, order_id, user_id, round, part, method, scene, amount_minor, currency, created_at,
                      expires_at, task, due_at)
SELECT id, '{ORDER}', 'alice', 1, number - 1, 'alipay', 'qr', 100, 'CNY', now(), now(), task, now()
FROM unnest(ARRAY['{"','".join(map(str, PAYMENTS))}']::uuid[], ARRAY['create', 'query', 'close', 'late', 'settle'])
    WITH ORDINALITY AS rows (id, task, number);
INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, asked,
                     created_at, due_at)
VALUES ('{REFUND}', '{PAYMENTS[0]}', '{ORDER}', 'whole', 1, 'CNY', 'late', 'payment_driver', true, now(), now());
INSERT INTO payment_notices (method, notice_id, payment_id, received_at, result, body)
SELECT 'alipay', result, '{PAYMENTS[0]}', now(), result, ''
FROM unnest(ARRAY['known', 'noted', 'disagreement', 'captured']) AS rows (result);
INSERT INTO carrier_notices (system, notice_id, received_at, result, body)
SELECT 'sf_express', result, now(), result, ''
FROM unnest(ARRAY['known', 'noted', 'moved', 'unknown_number']) AS rows (result);
INSERT INTO releases (release_id, sale_id, user_id, units, reason, status, due_at, created_at, settled_at, epoch, seq)
VALUES ('{RELEASE}', 'a', 'alice', '{{"A": 5}}', 'expired', 'applied', now(), now(), '2026-11-12', 1, 2);
INSERT INTO releases (release_id, sale_id, user_id, units, reason, due_at, created_at, retakes)
VALUES ('{REACQUIRE}', 'a', 'alice', '{{"A": -5}}', 'paid late', now(), now(), '{ORDER}');
INSERT INTO warehouses VALUES ('sh', 'Shanghai', '{{}}', 31, 121);
INSERT INTO goods VALUES ('A', 'sh', '1', 1, 1, 1, 1);
UPDATE fulfilments SET news = 7, status = 'planned', planned_at = now();
INSERT INTO line_goods (order_id, line_no, address_no, ordered, planned) VALUES ('{ORDER}', 0, 0, 5, 5);
INSERT INTO waves VALUES ('{WAVE}', 'sh', '2026-11-11', 'staff');
INSERT INTO shipments (shipment_id, order_id, address_no, parcel_no, warehouse_id, address, weight_g, length_mm,
                       width_mm, height_mm, value_minor, currency, promised_on, planned_at, due_at, task, then_, choice,
                       tried, last_news_at, settled_at, settled_note)
SELECT id, '{ORDER}', 0, number, 'sh', '{ADDRESS}', 1, 1, 1, 1, 1, 'CNY', '2026-11-12', now(), now(), task, then_,
       choice, ARRAY['slow'], '2026-11-11', '2026-11-13', 'paid for'
FROM unnest(ARRAY['{"','".join(map(str, SHIPMENTS))}']::uuid[], ARRAY['follow', 'cancel'], ARRAY[NULL, 'planned'],
            ARRAY[NULL, '{{"kept": true, "carrier": "quick", "considered": [
                {{"carrier": "quick", "verdict": "chosen"}}, {{"carrier": "dear", "verdict": "passed_over"}},
                {{"carrier": "slow", "verdict": "left_out"}}]}}']::jsonb[])
    WITH ORDINALITY AS rows (id, task, then_, choice, number);
INSERT INTO bookings (booking_id, shipment_id, carrier, outcome, tracking_no, why, asked_at, ended_at) VALUES
    ('{BOOKINGS[0]}', '{SHIPMENTS[0]}', 'quick', 'asked', NULL, NULL, now(), NULL),
    ('{BOOKINGS[1]}', '{SHIPMENTS[1]}', 'quick', 'refused', NULL, 'too far', now(), now());
INSERT INTO shipment_events (order_id, seq, shipment_id, at, received_at, source, actor, code, unknown, contradicts,
                             text)
SELECT '{ORDER}', number, '{SHIPMENTS[0]}', now(), now(), source,
       CASE source WHEN 'driver' THEN 'shipment_driver' ELSE 'somebody' END, '9', number = 1, number = 2, 'text'
FROM unnest(ARRAY['driver', 'staff', 'push', 'query', 'van']) WITH ORDINALITY AS rows (source, number);
INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to)
VALUES ('V1', 'sh', 1, '08:00', '18:00');
INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, status, distance_m, start_at, end_at, planned_at, left_at)
VALUES ('{ROUTE}', '2026-11-11', 'V1', 'sh', 'left', 1, now(), now(), now(), '2026-11-11');
"""


@pytest.fixture
async def migrated(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A database that was filled at version 0007 and is now at the latest."""
    connection = await asyncpg.connect(empty_url)
    every = load_migrations()
    monkeypatch.setattr(migrations, "load_migrations", lambda: every[:7])
    await migrate(connection)
    await connection.execute(f"BEGIN; {FILL} COMMIT;")
    monkeypatch.setattr(migrations, "load_migrations", lambda: every)
    await migrate(connection)
    yield connection
    await connection.close()


async def test_words_in_rows_after_migration_are_the_new_ones(
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    async def column(sql: str) -> list[object]:
        return [row[0] for row in await migrated.fetch(sql)]

    assert await column("SELECT kind FROM jobs JOIN payments ON payment_id = jobs.subject ORDER BY tender_no") == [
        f"payment.{task}" for task in ("create", "query", "close", "recover_order", "update_order")
    ]
    assert await column("SELECT kind FROM jobs JOIN refunds ON refund_id = jobs.subject") == ["refund.request"]
    assert await column("SELECT actor FROM order_events ORDER BY seq") == [
        *("release_worker", "payment_worker", "fulfilment_worker")
    ]
    assert await column("SELECT actor FROM refunds WHERE requested") == ["payment_worker"]
    assert await column("SELECT result FROM payment_webhooks ORDER BY webhook_id") == [
        *("captured", "mismatch", "unchanged", "recorded")
    ]
    assert await column("SELECT result FROM carrier_webhooks ORDER BY webhook_id") == [
        *("unchanged", "status_changed", "recorded", "unknown_tracking_no")
    ]
    assert await column("SELECT outcome FROM bookings ORDER BY booking_id") == ["requested", "refused"]
    assert await column("SELECT source FROM shipment_events ORDER BY seq") == [
        *("system", "staff", "webhook", "query", "fleet")
    ]
    assert await column("SELECT actor FROM shipment_events WHERE source = 'system'") == ["fulfilment_worker"]
    assert await column("SELECT seq FROM shipment_events WHERE is_unknown_code OR contradicts_history ORDER BY 1") == [
        1,
        2,
    ]
    assert await column("SELECT status FROM routes WHERE departed_at IS NOT NULL") == ["departed"]
    assert await column(
        "SELECT ended_at IS NOT NULL FROM stock_changes UNION ALL SELECT ended_at IS NOT NULL FROM releases "
        "WHERE reacquires IS NULL"
    ) == [True, True]
    assert await column("SELECT planned FROM fulfilment_lines") == [5]
    assert await column("SELECT event_seq FROM fulfilments") == [7]


async def test_stores_after_migration_read_every_renamed_row(
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    payments = await payment_store.list_payments(migrated, ORDER)
    assert [(payment.plan_revision, payment.tender_no, payment.flow) for payment in payments] == [
        (1, number, "qr") for number in range(5)
    ]
    assert [refund.requested for refund in await payment_store.list_refunds(migrated, ORDER)] == [True]
    subscribed, cancelled = await shipping_store.list_shipments(migrated, ORDER)
    job = await shipment_tasks.get_job(migrated, subscribed.shipment_id)
    assert job is not None
    assert (job.kind, subscribed.after_cancel, subscribed.carrier_choice) == ("shipment.subscribe", None, None)
    assert (cancelled.after_cancel, cancelled.refused_by, cancelled.resolution) == ("planned", ["slow"], "paid for")
    assert cancelled.last_event_at == datetime(2026, 11, 11, tzinfo=UTC)
    assert cancelled.carrier_choice is not None
    assert cancelled.carrier_choice["on_time"]
    assert [candidate["verdict"] for candidate in cancelled.carrier_choice["candidates"]] == [
        "chosen",
        "not_chosen",
        "excluded",
    ]
    wave = await fulfilment_store.get_wave(migrated, WAVE)
    assert wave is not None
    assert wave.created_at == datetime(2026, 11, 11, tzinfo=UTC)


async def test_second_current_booking_after_migration_is_refused_by_database(
    migrated: asyncpg.Connection[asyncpg.Record],
) -> None:
    with pytest.raises(asyncpg.UniqueViolationError, match="bookings_one_current"):
        await migrated.execute(
            "INSERT INTO bookings (booking_id, shipment_id, carrier, requested_at) VALUES ($1, $2, 'slow', now())",
            BOOKINGS[2],
            SHIPMENTS[0],
        )
