"""The audit reports each kind of violation, and none while orders are processed correctly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

import lua
from commerce.audit.model import SaleAudit
from commerce.audit.service import Audit
from commerce.kernel.clock import SystemClock
from commerce.kernel.jobs import RetryPolicy
from commerce.reservations.service import Reservations
from commerce.sales.errors import InvalidSaleState
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import EntryId, Release, SaleKeys
from lua.keys import GROUP
from ops.services import CliServices
from tests.support.due_jobs import count_open
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def broken_promises(shop: CliServices, sale_id: str) -> set[str]:
    return {finding.promise for finding in (await shop.audit.audit_sale(sale_id)).findings}


@pytest.fixture
async def keys(shop: CliServices, settings: Settings, sale_id: str) -> SaleKeys:
    """A sale with four stored orders, one of them released, and two in the stream."""
    keys = await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (20, 50, None)})
    orders = [reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, user=f"u{n}", limits={"a": 5}) for n in range(4)]
    await reserve(shop.redis, keys, *orders)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() - interval '1 second' "
            "WHERE order_id = $1",
            orders[0].order_id,
        )
    releases = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    assert (await releases.expire_unpaid_orders(), await releases.apply_due_releases()) == (1, 1)
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 10, "more"), "test")
    await reserve(
        shop.redis, keys, *(reservation(shop.ids.new, sale_id, {"a": 1}, user="w", limits={"a": 5}) for _ in range(2))
    )
    return keys


async def test_audit_of_consistent_sale_is_clean(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    units = {row.sku: (row.initial, row.available, row.held, row.sold, row.in_stream) for row in audit.rows}
    assert units == {"a": (50, 42, 6, 0, 2), "b": (30, 27, 3, 0, 0)}
    assert audit.orders == 6
    assert (audit.total.initial, audit.total.difference, audit.differences) == (80, 0, 0)


Violate = Callable[[CliServices, SaleKeys], Awaitable[object]]


async def _execute(shop: CliServices, *statements: str) -> None:
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")  # triggers would refuse it
        for statement in statements:
            await connection.execute(statement)


async def _delete_consumer_with_entry(shop: CliServices, keys: SaleKeys) -> None:
    assert await lua.read_new(shop.redis, keys, "deleted", 1, 100)
    await shop.redis.xgroup_delconsumer(keys.orders, GROUP, "deleted")


VIOLATIONS: dict[str, tuple[str, Violate]] = {
    "a unit was sold twice": ("P1", lambda shop, keys: shop.redis.hincrby(keys.stock.decode(), "a", 1)),
    "a unit was lost": ("P1", lambda shop, keys: shop.redis.hincrby(keys.stock.decode(), "b", -1)),
    "stock below zero": ("P1", lambda shop, keys: shop.redis.hset(keys.stock.decode(), "a", -1)),
    "Redis lost the sale": ("P1", lambda shop, keys: shop.redis.delete(keys.meta)),
    "an order left the stream unwritten": ("P2", lambda shop, keys: shop.redis.delete(keys.orders)),
    "the consumer of an entry was deleted": ("P2", _delete_consumer_with_entry),
    "a stored order was deleted": (
        "P1",
        lambda shop, keys: _execute(
            shop,
            "DELETE FROM order_lines WHERE order_id = (SELECT max(order_id::text)::uuid FROM orders)",
            "DELETE FROM orders WHERE order_id = (SELECT max(order_id::text)::uuid FROM orders)",
        ),
    ),
    "an order lost its lines": (
        "P2",
        lambda shop, keys: _execute(
            shop, "DELETE FROM order_lines WHERE order_id = (SELECT max(order_id::text)::uuid FROM orders)"
        ),
    ),
    "a total was changed": (
        "P2",
        lambda shop, keys: _execute(shop, "UPDATE orders SET total_minor = total_minor + 1"),
    ),
    "the discount of a line was changed": (
        "P2",
        lambda shop, keys: _execute(
            shop, "UPDATE order_lines SET discount_minor = 1", "UPDATE orders SET total_minor = total_minor - 2"
        ),
    ),
    "a discount belongs to no promotion": (
        "P2",
        lambda shop, keys: _execute(shop, "UPDATE orders SET discount_minor = 1, freight_minor = 0"),
    ),
    "the discount of a promotion was changed": (
        "P2",
        lambda shop, keys: _execute(
            shop,
            "INSERT INTO order_discounts (order_id, discount_no, promotion_id, label, amount_minor) "
            "SELECT order_id, 0, 'p', 'A promotion', 1 FROM orders LIMIT 1",
        ),
    ),
    "the freight of an address was changed": (
        "P2",
        lambda shop, keys: _execute(
            shop,
            "INSERT INTO order_freight (order_id, address_no, amount_minor) SELECT order_id, 0, 1 FROM orders LIMIT 1",
        ),
    ),
    "two orders have one key": (
        "P3",
        lambda shop, keys: _execute(
            shop,
            "ALTER TABLE orders DROP CONSTRAINT orders_one_key_one_order",
            "UPDATE orders SET user_id = 'u1', idempotency_key = 'k'",
        ),
    ),
    "a user has more than the limit": (
        "P4",
        lambda shop, keys: _execute(shop, "UPDATE order_lines SET quantity = 6 WHERE sku = 'a'"),
    ),
    "Redis forgot what a user bought": ("P4", lambda shop, keys: shop.redis.hdel(keys.buyers.decode(), "u1\0a")),
    "the stock of a cancelled order is not released": ("P5", lambda shop, keys: _execute(shop, "DELETE FROM releases")),
    "the stock of a live order is released": (
        "P5",
        lambda shop, keys: _execute(
            shop,
            "INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at) "
            "SELECT order_id, sale_id, user_id, '{\"a\": 2, \"b\": 1}', 'by mistake', now() FROM orders "
            "WHERE status <> 'cancelled' LIMIT 1",
        ),
    ),
    "other units are released": (
        "P5",
        lambda shop, keys: _execute(shop, 'UPDATE releases SET units = \'{"a": 3, "b": 1}\''),
    ),
    "the job of a release was deleted": (
        "P5",
        lambda shop, keys: _execute(
            shop, "UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL"
        ),
    ),
    "the job of a stock change was deleted": (
        "P1",
        lambda shop, keys: _execute(
            shop, "UPDATE stock_changes SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL"
        ),
    ),
    "a status without an event": (
        "P8",
        lambda shop, keys: _execute(
            shop, "UPDATE orders SET status = 'paid', status_seq = 1 WHERE status <> 'cancelled'"
        ),
    ),
    "an event was deleted": ("P8", lambda shop, keys: _execute(shop, "DELETE FROM order_events")),
    "a history with a forbidden change": (
        "P8",
        lambda shop, keys: _execute(
            shop,
            "UPDATE order_events SET to_status = 'shipped'",
            "UPDATE orders SET status = 'shipped', cancelled_at = NULL, cancel_reason = NULL "
            "WHERE status = 'cancelled'",
        ),
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_audit_with_violation_reports_promise(shop: CliServices, sale_id: str, keys: SaleKeys, name: str) -> None:
    promise, violate = VIOLATIONS[name]
    await violate(shop, keys)
    assert promise in await broken_promises(shop, sale_id)


async def test_audit_with_unrecorded_release_reports_p1(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await lua.release(shop.redis, keys, [Release(uuid4(), shop.clock.now_ms(), "u1", {"a": 2})])
    assert "P1" in await broken_promises(shop, sale_id)


async def test_audit_with_unmarked_release_is_clean(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """The worker died before it marked the release. That is no difference: the units are in the stock."""
    await expire_all(shop)
    releases = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    await releases.expire_unpaid_orders()
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT release_id, created_at, user_id FROM releases WHERE status = 'pending'")
    released = rows[0]
    created_ms = round(released["created_at"].timestamp() * 1000)
    await lua.release(
        shop.redis, keys, [Release(released["release_id"], created_ms, released["user_id"], {"a": 2, "b": 1})]
    )
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    await releases.apply_due_releases()
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert audit.total.held == 0


async def test_audit_with_unreadable_orders_adds_notes(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    await shop.redis.xadd(keys.orders, {uuid4().bytes: b"\xc1 not an order", b"short": b""})
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean
    assert audit.notes == ["2 orders in the stream cannot be read, so their units are unknown"]
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
        await eventually(lambda: has_dead_letters(shop, 2))
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert audit.notes == ["2 dead letters cannot be read, so their units are unknown"]


async def has_dead_letters(shop: CliServices, count: int) -> bool:
    return await shop.audit.count_dead_letters() == count


async def test_audit_of_empty_sale_is_clean_and_of_draft_is_refused(shop: CliServices, sale_prefix: str) -> None:
    await make_sale(shop, f"{sale_prefix}-empty", {"a": (5, 100, None)})
    assert (await shop.audit.audit_sale(f"{sale_prefix}-empty")).clean
    await make_sale(shop, f"{sale_prefix}-draft", {"a": (5, 100, None)}, opened=False)
    with pytest.raises(InvalidSaleState):
        await shop.audit.audit_sale(f"{sale_prefix}-draft")


async def test_audits_during_orders_and_releases_are_clean(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """Audits run while orders are placed, stored, expired and released, and stock is added."""
    keys = await make_sale(shop, sale_id, {"a": (2_000, 100, 5), "b": (500, 50, None)})
    stop = asyncio.Event()
    turns = asyncio.Semaphore(80)  # orders per audit, which takes the longer the more there are
    audits: list[SaleAudit] = []

    async def buy(customer_no: int) -> None:
        for order_no in range(10_000):
            if stop.is_set():
                return
            user = f"u{customer_no}-{order_no // 3}"
            batch = [reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, user=user, limits={"a": 5})]
            await reserve(shop.redis, keys, *batch)
            await turns.acquire()

    async def add_stock() -> None:
        while not stop.is_set():
            await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 7, "more"), "test")

    async def expire() -> None:
        while not stop.is_set():
            await expire_half(shop)
            await asyncio.sleep(0.01)

    async with run_workers(settings, "order_writer", "release_worker"):
        tasks = [asyncio.create_task(work) for work in (*(buy(number) for number in range(4)), add_stock(), expire())]
        for _ in range(25):
            audits.append(await shop.audit.audit_sale(sale_id))
            for _ in range(80):
                turns.release()
        stop.set()
        await asyncio.gather(*tasks)
        await eventually(lambda: is_drained(shop, keys))
        await eventually(lambda: has_no_pending_releases(shop))
    audits.append(await shop.audit.audit_sale(sale_id))
    assert [audit.findings for audit in audits if not audit.clean] == []
    assert len({audit.orders for audit in audits}) > 10
    assert any(audit.total.in_stream for audit in audits)


async def expire_half(shop: CliServices) -> None:
    """Expire half of the orders. Only `pay_by` changes, because the cut depends on `accepted_at`."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET pay_by = accepted_at + interval '1 millisecond' "
            "WHERE status = 'awaiting_payment' AND get_byte(body_digest, 0) = 100 AND random() < 0.5"
        )


async def has_no_pending_releases(shop: CliServices) -> bool:
    return await count_open(shop, "releases") == 0


async def test_audit_during_load_starts_again(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """The epoch changes during the audit, which therefore starts again."""
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET epoch = epoch + 1 WHERE sale_id = $1", sale_id)
    audit_task = asyncio.create_task(shop.audit.audit_sale(sale_id))
    await asyncio.sleep(0.05)
    assert await shop.sales.sync_to_redis(sale_id)
    audit = await audit_task
    assert audit.clean, audit.findings
    assert (await lua.cut(shop.redis, keys)).last_entry > EntryId(0, 0)


class SteppedClock(SystemClock):
    """A clock whose monotonic time advances by a second whenever it is read."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def monotonic(self) -> float:
        self.at_s += 1
        return self.at_s


async def test_audits_of_a_round_add_up_a_long_ledger_once(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """Adding it up takes a second by this clock, so the findings hold for ten more."""
    clock = SteppedClock()
    audit = Audit(shop.db, shop.redis, clock)
    assert (await audit.audit_sale(sale_id)).clean
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO credit_accounts (user_id, currency, balance_minor) VALUES ('u', 'CNY', 1)"
        )
    clock.at_s = 110
    assert (await audit.audit_sale(sale_id)).clean
    clock.at_s = 113
    assert [finding.detail for finding in (await audit.audit_sale(sale_id)).findings] == ["the ledger does not add up"]
