"""Reading, cancelling and expiry: an accepted order is always found, and its stock is released once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest

import lua
from commerce.audit import store as audit
from commerce.kernel.clock import from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.orders import store
from commerce.orders.errors import CannotCancel, NoSuchOrder, NotStoredYet
from commerce.orders.model import TRANSITIONS, OrderStatus
from commerce.orders.service import Actor, Orders
from commerce.reservations.service import Reservations
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)
ACTOR = Actor("user", "customer user")


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (20, 50, None)})


@pytest.fixture
def orders(shop: CliServices) -> Orders:
    return Orders(shop.db, shop.redis, shop.clock)


@pytest.fixture
def reservations(shop: CliServices) -> Reservations:
    return Reservations(shop.db, shop.redis, shop.clock, POLICY)


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def place_order(
    shop: CliServices, sale_id: str, keys: SaleKeys, key: str | None = None, user: str = "user"
) -> UUID:
    order = reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, limits={"a": 5}, key=key, user=user)
    await reserve(shop.redis, keys, order)
    return order.order_id


async def test_order_is_found_before_and_after_it_is_stored(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    order_id = await place_order(shop, sale_id, keys, "k")
    accepted = await orders.get(order_id, "user", [sale_id])
    assert (accepted.status, accepted.sale_id, accepted.lines) == (OrderStatus.ACCEPTED, sale_id, None)
    by_key = await orders.find_by_key("user", "k", [sale_id])
    assert by_key is not None
    assert by_key.order_id == order_id
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    stored = await orders.get(order_id, "user", [sale_id])
    assert stored.status is OrderStatus.AWAITING_PAYMENT
    assert stored.lines is not None
    assert [(line.sku, line.quantity) for line in stored.lines] == [("a", 2), ("b", 1)]
    assert await orders.find_by_key("user", "k", [sale_id]) == stored
    assert await orders.find_by_key("user", "k", []) == stored
    assert await orders.find_by_key("user", "other", [sale_id]) is None


async def test_order_is_never_missing_while_writer_stores_it(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    """P2 for a client: every read of an accepted order finds it."""
    reads = 0

    async def poll(order_id: UUID) -> None:
        nonlocal reads
        while (await orders.get(order_id, "user", [sale_id])).status is OrderStatus.ACCEPTED:
            reads += 1

    async with run_workers(settings, "order_writer"):
        for _ in range(20):
            order_ids = [
                order.order_id
                for order in [reservation(shop.ids.new, sale_id, {"b": 1}, user="user") for _ in range(1)]
                if (await reserve(shop.redis, keys, order))[0].entry
            ]
            await asyncio.gather(*(poll(order_id) for order_id in order_ids for _ in range(4)))
    assert reads > 0


async def test_order_of_another_customer_is_not_found(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    with pytest.raises(NoSuchOrder):
        await orders.get(order_id, "somebody", [sale_id])
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    for user, id_ in (("somebody", order_id), ("user", uuid4())):
        with pytest.raises(NoSuchOrder):
            await orders.get(id_, user, [sale_id])
        with pytest.raises(NoSuchOrder):
            await orders.cancel(id_, Actor(user, user), [sale_id], 0)


async def test_order_list_pages_from_newest_to_oldest(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    placed = [reservation(shop.ids.new, sale_id, {"b": 1}, user="user" if n % 3 else "other") for n in range(12)]
    await reserve(shop.redis, keys, *placed)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    listed, cursor = [], None
    while True:
        page = await orders.list_orders("user", cursor, 3)
        listed += [order.order_id for order in page.items]
        if page.next is None:
            break
        cursor = UUID(page.next)
    assert listed == sorted((order.order_id for order in placed if order.user_id == "user"), reverse=True)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_order_list_reads_no_orders_of_other_users(shop: CliServices, mode: str) -> None:
    """The plan uses the index by user, although a hundred other users have twenty thousand later orders."""
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
            "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by) "
            "SELECT lpad(to_hex(n), 32, '0')::uuid, 'user ' || CASE WHEN n < 200 THEN 0 ELSE 1 + n % 100 END, "
            "'key ' || n, decode(repeat('00', 16), 'hex'), 's', 1, 'CNY', 100, '[]', '[]', now(), 0, now(), "
            "now() + interval '1 hour' FROM generate_series(0, 19999) AS n"
        )
        await connection.execute("ANALYZE orders")
        await connection.execute(f"SET plan_cache_mode = {mode}")
        await connection.execute(f"PREPARE list_orders (text, uuid, integer) AS {store.queries.list_orders}")
        for before in (UUID(int=2**128 - 1), UUID(int=150)):
            plan = await connection.fetchval(
                f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE list_orders ('user 0', '{before}', 21)"
            )
            assert "orders_one_key_one_order" in plan
            assert "orders_pkey" not in plan
            assert orjson.loads(plan)[0]["Plan"]["Actual Rows"] == 21
        listed = await store.list_before(connection, "user 0", UUID(int=150), 21)
        assert [order.order_id.int for order in listed] == list(range(149, 128, -1))
        await connection.execute("RESET plan_cache_mode")


async def test_cancel_repeated_releases_stock_once(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders, reservations: Reservations
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    answers = await asyncio.gather(*(orders.cancel(order_id, ACTOR, [sale_id], 0) for _ in range(10)))
    assert {(order.status, order.cancel_reason) for order in answers} == {(OrderStatus.CANCELLED, "by_customer")}
    assert await reservations.apply_due_releases() == 1
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 50, "b": 20}
    assert await lua.read_units_taken(shop.redis, keys) == {}
    events = await orders.list_events(order_id, "user", [sale_id])
    assert [(event.seq, event.status) for event in events] == [
        (0, OrderStatus.ACCEPTED),
        (1, OrderStatus.AWAITING_PAYMENT),
        (2, OrderStatus.CANCELLED),
    ]
    assert (events[2].actor, events[2].reason) == ("customer user", "the customer cancelled it")
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_cancel_is_not_dated_before_an_event_that_it_waited_for(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    """An order that is paid in part has events while it awaits the rest."""
    order_id = await place_order(shop, sale_id, keys)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    async with shop.db.transaction() as connection:
        later = from_ms(shop.clock.now_ms()) + timedelta(seconds=5)
        captured = store.StoryEvent(order_id, "payment", "1.00 CNY was paid", {})
        await store.insert_story_events(connection, [captured], later, "payment_worker")
    await orders.cancel(order_id, ACTOR, [sale_id], 0)
    async with audit.open_order_snapshot(shop.db) as connection:
        assert await audit.list_violations(connection, "broken_histories", [order_id]) == []


async def test_cancel_of_unstored_order_waits_for_writer(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    with pytest.raises(NotStoredYet):
        await orders.cancel(order_id, ACTOR, [sale_id], 0.05)
    cancellation = asyncio.create_task(orders.cancel(order_id, ACTOR, [sale_id], 10))
    async with run_workers(settings, "order_writer"):
        assert (await cancellation).status is OrderStatus.CANCELLED


async def test_cancel_of_paid_order_is_refused(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    async with shop.db.transaction() as connection:
        await connection.execute("UPDATE orders SET status = 'paid' WHERE order_id = $1", order_id)
        await connection.execute(
            "INSERT INTO order_events VALUES ($1, 1, now(), 'awaiting_payment', 'paid', 'test', 'paid')", order_id
        )
    with pytest.raises(CannotCancel):
        await orders.cancel(order_id, ACTOR, [sale_id], 0)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert (audit.total.held, audit.total.sold) == (0, 3)


async def test_unpaid_orders_expire(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders, reservations: Reservations
) -> None:
    order_ids = [await place_order(shop, sale_id, keys, user=f"u{n}") for n in range(5)]
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    assert await reservations.expire_unpaid_orders() == 0
    await expire_all(shop)
    async with run_workers(settings, "release_worker"):
        await eventually(lambda: has_stock(shop, keys, {"a": 50, "b": 20}))
    for number, order_id in enumerate(order_ids):
        order = await orders.get(order_id, f"u{number}", [sale_id])
        assert (order.status, order.cancel_reason) == (OrderStatus.CANCELLED, "expired")
    assert (await shop.audit.audit_sale(sale_id)).clean


async def has_stock(shop: CliServices, keys: SaleKeys, stock: dict[str, int]) -> bool:
    return (await lua.cut(shop.redis, keys)).stock == stock


async def test_expiry_and_cancel_at_once_release_stock_once(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders, reservations: Reservations
) -> None:
    """The first of them decides, and the stock is released once."""
    order_ids = [await place_order(shop, sale_id, keys, user=f"u{n}") for n in range(15)]
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await expire_all(shop)
    await asyncio.gather(
        *(orders.cancel(id_, Actor(f"u{n}", "customer"), [sale_id], 0) for n, id_ in enumerate(order_ids)),
        *(reservations.expire_unpaid_orders() for _ in range(3)),
        *(reservations.apply_due_releases() for _ in range(3)),
    )
    while await reservations.apply_due_releases():
        pass
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 50, "b": 20}
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM order_events") == 15
        assert await connection.fetchval("SELECT count(*) FROM releases WHERE status = 'applied'") == 15
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_release_of_unloaded_sale_waits(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders, reservations: Reservations
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await orders.cancel(order_id, ACTOR, [sale_id], 0)
    meta = await shop.redis.dump(keys.meta)
    await shop.redis.delete(keys.meta)
    assert await reservations.apply_due_releases() == 1
    async with shop.db.connection() as connection:
        row = await connection.fetchrow(
            "SELECT status, attempts, last_error FROM releases JOIN jobs ON subject = release_id"
        )
    assert row is not None
    assert tuple(row) == (
        "pending",
        1,
        "the sale is not loaded in Redis: if it stays so, run `floodgate rebuild` of it",
    )
    await shop.redis.restore(keys.meta, 0, meta)
    async with run_workers(settings, "release_worker"):
        await eventually(lambda: has_stock(shop, keys, {"a": 50, "b": 20}))


async def test_release_too_old_for_redis_is_parked(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, orders: Orders, reservations: Reservations
) -> None:
    order_id = await place_order(shop, sale_id, keys)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await orders.cancel(order_id, ACTOR, [sale_id], 0)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE releases SET created_at = created_at - interval '9 days'")
    await reservations.apply_due_releases()
    assert (await shop.jobs.measure_groups())["releases", "internal", "release.apply"].parked == 1
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 48, "b": 19}


async def test_transitions_match_those_of_database(shop: CliServices) -> None:
    async with shop.db.connection() as connection:
        rows = await connection.fetch("SELECT from_status, to_status FROM order_transitions")
        check = await connection.fetchval(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'orders_status_check'"
        )
    assert {(row[0], row[1]) for row in rows} == TRANSITIONS
    assert all(f"'{status}'" in check for status in OrderStatus if status is not OrderStatus.ACCEPTED)
