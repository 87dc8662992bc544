"""P1 to P5 for coupons: none is used twice, and each comes back once, with the units of its order."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from random import Random
from uuid import UUID

import msgspec
import pytest

import lua
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from commerce.orders.service import Actor
from commerce.reservations.reacquisition import StockReacquisition
from commerce.sales.loading import load_sale
from commerce.wait_lists.model import WaitListSettings
from config.settings import Settings
from gateway.services import GatewayServices, open_gateway_services
from lua import Reservation, ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.coupons import make_coupon
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

CODE, SKU = "TEN", "coupon:TEN"
ORDER, LIMITS = {"a": 1, SKU: 1}, {SKU: 1}
_IN_FLIGHT = 1_000


async def open_sale(shop: CliServices, sale_id: str, coupons: int, units: int = 100) -> SaleKeys:
    keys = await make_sale(shop, sale_id, {"a": (units, 100, None)})
    await make_coupon(shop, sale_id, CODE, coupons)
    return keys


def order_of(shop: CliServices, sale_id: str, user: str, key: str | None = None) -> Reservation:
    return reservation(shop.ids.new, sale_id, ORDER, user=user, key=key, limits=LIMITS)


async def check_audit(shop: CliServices, sale_id: str) -> dict[str, tuple[int, int, int]]:
    """Check that the audit is clean. Returns (initial, available, held) by SKU."""
    audit = await shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings
    return {row.sku: (row.initial, row.available, row.held) for row in audit.rows}


async def write_orders(shop: CliServices, settings: Settings, keys: SaleKeys) -> None:
    """Let the writer take all orders from the stream."""

    async def is_drained() -> bool:
        return (await lua.read_backlog(shop.redis, keys)).orders == 0

    async with run_workers(settings, "order_writer"):
        await eventually(is_drained)


async def release_orders(shop: CliServices, settings: Settings) -> None:
    """Let the worker apply all releases."""

    async def are_applied() -> bool:
        async with shop.db.connection() as connection:
            return not await connection.fetchval("SELECT count(*) FROM releases WHERE status <> 'applied'")

    async with run_workers(settings, "release_worker"):
        await eventually(are_applied)


async def read_units(shop: CliServices, keys: SaleKeys) -> tuple[dict[str, int], dict[bytes, int]]:
    """Return the free units, and those that users have taken."""
    return await lua.read_stock(shop.redis, keys), await lua.read_units_taken(shop.redis, keys)


class Race:
    """Customers who use one coupon at the same time, over two gateways.

    A fifth of the requests are repeats.
    """

    def __init__(self, shop: CliServices, sale_id: str, gateways: list[GatewayServices]) -> None:
        self.shop, self.sale_id, self.gateways = shop, sale_id, gateways
        self.outcomes: Counter[ReserveOutcome] = Counter()
        self.accepted: dict[tuple[str, str], set[UUID]] = {}
        self._rng = Random("coupons")
        self._in_flight = asyncio.Semaphore(_IN_FLIGHT)

    async def run(self, requests: int, users: int) -> None:
        sent: list[tuple[str, str]] = []
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                repeats = sent and self._rng.random() < 0.2
                sent.append(self._rng.choice(sent) if repeats else (f"u{self._rng.randrange(users)}", f"key-{number}"))
                await self._in_flight.acquire()
                group.create_task(self._place(*sent[-1]))

    async def _place(self, user: str, key: str) -> None:
        order = order_of(self.shop, self.sale_id, user, key)
        try:
            result = await self._rng.choice(self.gateways).intake.place(self.sale_id, order)
        finally:
            self._in_flight.release()
        self.outcomes[result.outcome] += 1
        if result.outcome is ReserveOutcome.ACCEPTED:
            self.accepted.setdefault((user, key), set()).add(order.order_id)
        elif result.outcome is ReserveOutcome.REPLAYED:
            assert result.record is not None
            self.accepted.setdefault((user, key), set()).add(result.record.order_id)
        else:
            assert result.sku == SKU


async def test_coupons_for_many_customers_are_used_once(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """1,000 coupons, one per customer; 20,000 requests of 5,000 customers: 1,000 customers use one."""
    keys = await open_sale(shop, sale_id, 1_000, units=100_000)
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_gateway_services(settings)) for _ in range(2)]
        race = Race(shop, sale_id, gateways)
        await race.run(20_000, 5_000)
    expected = {
        ReserveOutcome.ACCEPTED,
        ReserveOutcome.REPLAYED,
        ReserveOutcome.SOLD_OUT,
        ReserveOutcome.OVER_LIMIT,
    }
    assert (set(race.outcomes), race.outcomes[ReserveOutcome.ACCEPTED]) == (expected, 1_000)
    assert {len(orders) for orders in race.accepted.values()} == {1}
    assert (len(race.accepted), len({user for user, _ in race.accepted})) == (1_000, 1_000)
    await write_orders(shop, settings, keys)
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM order_coupons JOIN orders USING (order_id)") == 1_000
    assert (await check_audit(shop, sale_id))[SKU] == (1_000, 0, 1_000)
    [coupon] = await shop.coupons.list_coupons(sale_id)
    assert (coupon.used, coupon.left) == (1_000, 0)


async def test_coupon_without_units_of_products_is_not_used(shop: CliServices, sale_id: str) -> None:
    """All or none: neither a coupon without the product nor a product without the coupon is taken."""
    keys = await open_sale(shop, sale_id, 2, units=1)
    orders = [reservation(shop.ids.new, sale_id, {"a": 2, SKU: 1}, user="ann", limits=LIMITS)]
    orders += [order_of(shop, sale_id, user) for user in ("ben", "cat")]
    results = await reserve(shop.redis, keys, *orders)
    assert [(result.outcome.name, result.sku) for result in results] == [
        ("SOLD_OUT", "a"),
        ("ACCEPTED", ""),
        ("SOLD_OUT", "a"),
    ]
    assert await read_units(shop, keys) == ({"a": 0, SKU: 1}, {b"ben\0" + SKU.encode(): 1})


async def test_cancelled_and_expired_orders_return_coupons_once(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await open_sale(shop, sale_id, 2)
    orders = [order_of(shop, sale_id, user) for user in ("ann", "ben")]
    await reserve(shop.redis, keys, *orders)
    await write_orders(shop, settings, keys)
    assert (await check_audit(shop, sale_id))[SKU] == (2, 0, 2)
    for _ in range(2):  # a repeat changes nothing
        await shop.orders.cancel(orders[0].order_id, Actor("ann", "ann"), [sale_id], 0)
    await expire_all(shop)
    await release_orders(shop, settings)
    assert await read_units(shop, keys) == ({"a": 100, SKU: 2}, {})
    async with shop.db.connection() as connection:
        units = await connection.fetch("SELECT units FROM releases")
        await connection.execute(
            "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at) "
            "SELECT release_id, 'releases', 'release.apply', 'internal', created_at, created_at FROM releases"
        )
        await connection.execute("UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL")
    assert [msgspec.json.decode(row["units"]) for row in units] == [ORDER, ORDER]
    await release_orders(shop, settings)  # as after a death between Redis and Postgres
    assert await read_units(shop, keys) == ({"a": 100, SKU: 2}, {})
    [again] = await reserve(shop.redis, keys, order_of(shop, sale_id, "ann"))
    assert again.outcome is ReserveOutcome.ACCEPTED
    assert (await check_audit(shop, sale_id))[SKU] == (2, 1, 0)


async def test_rebuild_counts_stored_streamed_and_released_coupons(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await open_sale(shop, sale_id, 10)
    stored = [order_of(shop, sale_id, user) for user in ("ann", "ben", "cat")]
    await reserve(shop.redis, keys, *stored)
    await write_orders(shop, settings, keys)
    await shop.orders.cancel(stored[0].order_id, Actor("ann", "ann"), [sale_id], 0)
    await release_orders(shop, settings)
    await reserve(shop.redis, keys, order_of(shop, sale_id, "dan"))
    before = await read_units(shop, keys)
    assert before[0] == {"a": 97, SKU: 7}
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert await read_units(shop, keys) == before
    results = await reserve(shop.redis, keys, *(order_of(shop, sale_id, user) for user in ("ann", "ben", "dan")))
    assert [result.outcome.name for result in results] == ["ACCEPTED", "OVER_LIMIT", "OVER_LIMIT"]
    await check_audit(shop, sale_id)


@pytest.mark.parametrize("decision", ["discard", "retry"])
async def test_dead_letter_holds_its_coupon(shop: CliServices, settings: Settings, sale_id: str, decision: str) -> None:
    """Until staff decide, the coupon is used; a discarded letter returns it, a retried one keeps it."""
    keys = await open_sale(shop, sale_id, 2)
    bad, good = order_of(shop, sale_id, "ann"), order_of(shop, sale_id, "ben")
    accepted = msgspec.structs.replace(decode_accepted(bad.payload), currency="yuan")
    bad = msgspec.structs.replace(bad, payload=encode_accepted(accepted))
    await reserve(shop.redis, keys, bad, good)
    await write_orders(shop, settings, keys)
    assert (await shop.dead_letters.get(bad.order_id)).units == ORDER
    assert (await check_audit(shop, sale_id))[SKU] == (2, 0, 2)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await lua.read_stock(shop.redis, keys))[SKU] == 0
    if decision == "discard":
        await shop.dead_letters.discard(bad.order_id, "test")
        await release_orders(shop, settings)
        assert (await check_audit(shop, sale_id))[SKU] == (2, 1, 1)
    else:
        async with shop.db.connection() as connection:
            await connection.execute("ALTER TABLE orders DROP CONSTRAINT orders_currency_check")
        await shop.dead_letters.retry(bad.order_id, "test")
        async with shop.db.connection() as connection:
            codes = await connection.fetch("SELECT code FROM order_coupons WHERE order_id = $1", bad.order_id)
        assert [row["code"] for row in codes] == [CODE]
        assert (await check_audit(shop, sale_id))[SKU] == (2, 0, 2)


async def test_audit_finds_coupons_used_too_often(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """The audit finds a coupon too many in Redis, and one too many of a customer."""
    keys = await open_sale(shop, sale_id, 5)
    await reserve(shop.redis, keys, *(order_of(shop, sale_id, user) for user in ("ann", "ben")))
    await write_orders(shop, settings, keys)
    await check_audit(shop, sale_id)
    await shop.redis.hincrby(keys.stock, SKU, 1)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE orders SET user_id = 'ann'")
    audit = await shop.audit.audit_sale(sale_id)
    assert {finding.promise for finding in audit.findings} == {"P1", "P4"}
    assert f"{SKU}: -1" in str(audit.findings)
    assert f"ann {SKU}: 2" in str(audit.findings)


async def test_order_with_used_key_returns_its_coupon(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """The writer refuses an order whose key belongs to another sale, and releases both of its units."""
    other_id = f"{sale_id}-2"
    other_keys = await make_sale(shop, other_id, {"b": (5, 100, None)})
    await reserve(shop.redis, other_keys, reservation(shop.ids.new, other_id, {"b": 1}, user="ann", key="key"))
    await write_orders(shop, settings, other_keys)
    keys = await open_sale(shop, sale_id, 1)
    await reserve(shop.redis, keys, order_of(shop, sale_id, "ann", "key"))
    await write_orders(shop, settings, keys)
    await release_orders(shop, settings)
    assert await read_units(shop, keys) == ({"a": 100, SKU: 1}, {})
    await check_audit(shop, sale_id)


async def test_wait_list_puts_returned_coupons_on_sale(shop: CliServices, settings: Settings, sale_id: str) -> None:
    """Nobody waits for a coupon, so what a sale with a wait-list holds back is free again soon."""
    keys = await open_sale(shop, sale_id, 1)
    await shop.wait_lists.put(sale_id, WaitListSettings("on"), "test")
    order = order_of(shop, sale_id, "ann")
    await reserve(shop.redis, keys, order)
    await write_orders(shop, settings, keys)
    await shop.orders.cancel(order.order_id, Actor("ann", "ann"), [sale_id], 0)
    await release_orders(shop, settings)
    assert (await read_units(shop, keys))[0] == {"a": 99, SKU: 0}

    async def is_free() -> bool:
        return (await read_units(shop, keys))[0] == {"a": 100, SKU: 1}

    async with run_workers(settings, "wait_list_keeper"):
        await eventually(is_free)
    await check_audit(shop, sale_id)


@pytest.mark.parametrize(("is_left", "decision"), [(True, "reacquired"), (False, "refused")])
async def test_late_payment_reacquires_products_and_coupon_or_none(
    shop: CliServices, settings: Settings, sale_id: str, is_left: bool, decision: str
) -> None:
    keys = await open_sale(shop, sale_id, 1)
    order = order_of(shop, sale_id, "ann")
    await reserve(shop.redis, keys, order)
    await write_orders(shop, settings, keys)
    await shop.orders.cancel(order.order_id, Actor("ann", "ann"), [sale_id], 0)
    await release_orders(shop, settings)
    if not is_left:
        await reserve(shop.redis, keys, order_of(shop, sale_id, "ben"))
    reacquisition = StockReacquisition(shop.db, shop.redis, shop.clock, shop.ids)
    for _ in range(2):
        assert await reacquisition.reacquire(order.order_id) == decision
    assert (await read_units(shop, keys))[0] == {"a": 99, SKU: 0}
