"""P1, P2, P5: dead letters whose units Redis lost take and return them exactly once, whatever fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

import lua
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.clock import DAY_MS, from_ms
from commerce.kernel.errors import Conflict
from commerce.orders import store as orders
from commerce.orders.model import PersistResult
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from commerce.sales.server_adoption import ServerAdoption
from config.settings import Settings
from lua import Entry, ReserveOutcome, SaleKeys
from ops.services import CliServices, open_cli_services
from tests.support.gateway import run_workers
from tests.support.redis_pair import open_redis_pair
from tests.support.sales import eventually, make_sale, reservation, reserve
from workers.order_writer import SaleStreamWriter
from workers.runtime import open_worker_services
from workers.stream_reader import ReadSlots

UNITS, LIMIT = 5, 4


class LostOrder:
    """An order of two units of one customer that Redis lost and that is a dead letter without units."""

    def __init__(self, shop: CliServices, sale_id: str, writer: SaleStreamWriter, redis: Redis) -> None:
        self.shop, self.sale_id, self.keys = shop, sale_id, SaleKeys(sale_id)
        self._writer, self._redis = writer, redis
        self.order = reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": LIMIT})
        self.persist = shop.dead_letters._persist

    async def lose(self) -> None:
        await reserve(self.shop.redis, self.keys, self.order)
        entries = await self._read()
        names = [key async for key in self.shop.redis.scan_iter(self.keys.meta.decode().replace("meta", "*"))]
        await self.shop.redis.delete(*names)
        await self.load()
        await self._writer.write(entries)
        assert (await self.read_letter()).stock_lost

    async def _read(self) -> Sequence[Entry]:
        return await lua.read_new(self._redis, self.keys, "one", 10, 1)

    async def load(self) -> None:
        await load_sale(self.shop.db, self.shop.redis, self.shop.clock, self.sale_id)

    async def unload(self) -> None:
        await lua.unload(self.shop.redis, self.keys, self.shop.clock.now_ms() // DAY_MS)

    async def send_again(self) -> None:
        """Send the order once more under its id, as a gateway does that got no answer."""
        [result] = await reserve(self.shop.redis, self.keys, self.order)
        assert result.outcome is ReserveOutcome.ACCEPTED

    async def write(self) -> None:
        await self._writer.write(await self._read())

    async def read_letter(self) -> DeadLetter:
        return await self.shop.dead_letters.get(self.order.order_id)

    async def retry(self) -> None:
        await self.shop.dead_letters.retry(self.order.order_id, "staff")

    async def discard(self) -> None:
        await self.shop.dead_letters.discard(self.order.order_id, "staff")

    async def fail_retry(self) -> None:
        """Let a retry take the units and fail before it commits."""

        async def fail(*_: Any) -> PersistResult:
            raise ConnectionResetError("Postgres closed the connection")

        self.shop.dead_letters._persist = fail
        with pytest.raises(ConnectionResetError):
            await self.retry()
        self.shop.dead_letters._persist = self.persist

    async def release(self, settings: Settings) -> None:
        """Let the worker apply all releases."""
        async with run_workers(settings, "release_worker"):
            await eventually(self._are_releases_applied)

    async def _are_releases_applied(self) -> bool:
        async with self.shop.db.connection() as connection:
            return not await connection.fetchval("SELECT count(*) FROM releases WHERE status <> 'applied'")

    async def check(self, *, free: int, stored: int, taken: int) -> None:
        """Check the units free, those that count towards the customer's limit, and the audit."""
        assert await lua.read_units_free(self.shop.redis, self.keys, ["a"]) == [free]
        assert (await lua.read_units_taken(self.shop.redis, self.keys)).get(b"user\0a", 0) == taken
        async with self.shop.db.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM orders") == stored
        # An audit counts orders up to the last entry of the stream.
        last = reservation(self.shop.ids.new, self.sale_id, {"a": 1}, user="last", limits={"a": LIMIT})
        await reserve(self.shop.redis, self.keys, last)
        audit = await self.shop.audit.audit_sale(self.sale_id)
        assert (audit.clean, audit.differences) == (True, 0), audit.findings


@pytest.fixture
async def lost(shop: CliServices, settings: Settings, sale_id: str) -> AsyncIterator[LostOrder]:
    await make_sale(shop, sale_id, {"a": (UNITS, 100, LIMIT)})
    async with open_worker_services(settings, "one") as services:
        writer = SaleStreamWriter(services, sale_id, ReadSlots(settings.writer))
        lost = LostOrder(shop, sale_id, writer, services.redis)
        await lost.lose()
        yield lost


async def test_retried_order_that_is_cancelled_releases_its_units(lost: LostOrder, settings: Settings) -> None:
    await lost.retry()
    assert await lua.read_units_free(lost.shop.redis, lost.keys, ["a"]) == [UNITS - 2]
    now = from_ms(lost.shop.clock.now_ms())
    async with lost.shop.db.transaction() as connection:
        assert await orders.cancel(connection, [lost.order.order_id], now, "expired", "test", "not paid in time")
    await lost.release(settings)
    await lost.check(free=UNITS, stored=1, taken=0)


@pytest.mark.parametrize(
    ("steps", "is_stored"),
    [
        ("retry", True),
        ("fail_retry retry", True),
        ("load retry", True),
        ("discard", False),
        ("load discard", False),
        ("discard load", False),
    ],
)
async def test_retry_that_failed_takes_or_returns_units_once(
    lost: LostOrder, settings: Settings, steps: str, is_stored: bool
) -> None:
    await lost.fail_retry()
    assert await lua.read_units_free(lost.shop.redis, lost.keys, ["a"]) == [UNITS - 2]
    for step in steps.split():
        await getattr(lost, step)()
    await lost.release(settings)
    await lost.check(free=UNITS - 2 * is_stored, stored=int(is_stored), taken=2 * is_stored)


@pytest.mark.parametrize("has_redis", [True, False])
async def test_letter_of_failed_retry_waits_until_redis_answers(
    lost: LostOrder, settings: Settings, has_redis: bool
) -> None:
    await lost.fail_retry()
    redis = lost.shop.redis
    if has_redis:
        await lost.unload()
    else:
        lost.shop.dead_letters._redis = Redis.from_url("unix:///no/redis")
    for action in (lost.retry, lost.discard):
        with pytest.raises(Conflict, match="is not loaded" if has_redis else "Redis does not answer"):
            await action()
    assert (await lost.read_letter()).status == "held"
    lost.shop.dead_letters._redis = redis
    if has_redis:
        await lost.load()
    await lost.discard()
    await lost.release(settings)
    await lost.check(free=UNITS, stored=0, taken=0)


@pytest.mark.parametrize("user", ["other", "user"])
async def test_refused_retry_succeeds_once_there_are_units(lost: LostOrder, user: str) -> None:
    """Refused are units that are sold, and units beyond the customer's limit."""
    other = reservation(lost.shop.ids.new, lost.sale_id, {"a": LIMIT}, user=user, limits={"a": LIMIT})
    await reserve(lost.shop.redis, lost.keys, other)
    await lost.shop.stock.change(
        lost.sale_id, lost.shop.ids.new(), StockChangeInput("a", 10 if user == "user" else 1, "more"), "test"
    )
    if user == "user":
        with pytest.raises(Conflict, match="reached the limit; retry after stock was added"):
            await lost.retry()
        await lost.shop.sales.change_item(lost.sale_id, "a", 100, LIMIT + 2, "test")
    else:
        await lost.shop.stock.change(lost.sale_id, lost.shop.ids.new(), StockChangeInput("a", -1, "broken"), "test")
        for _ in range(2):
            with pytest.raises(Conflict, match="they are sold"):
                await lost.retry()
        await lost.shop.stock.change(lost.sale_id, lost.shop.ids.new(), StockChangeInput("a", 10, "more"), "test")
    await lost.retry()
    free = UNITS - LIMIT - 2 + 10
    await lost.check(free=free, stored=1, taken=LIMIT + 2 if user == "user" else 2)


async def test_discard_after_refused_retry_returns_nothing(lost: LostOrder, settings: Settings) -> None:
    other = reservation(lost.shop.ids.new, lost.sale_id, {"a": LIMIT}, user="other", limits={"a": LIMIT})
    await reserve(lost.shop.redis, lost.keys, other)
    with pytest.raises(Conflict, match="they are sold"):
        await lost.retry()
    await lost.discard()
    await lost.release(settings)
    await lost.check(free=UNITS - LIMIT, stored=0, taken=0)


async def test_retry_that_is_too_old_begins_again(lost: LostOrder) -> None:
    await lost.fail_retry()
    async with lost.shop.db.connection() as connection:
        await connection.execute("UPDATE dead_letters SET retry_at = retry_at - $1::interval", timedelta(days=9))
    with pytest.raises(Conflict, match="too long ago"):
        await lost.retry()
    await lost.retry()
    await lost.load()
    await lost.check(free=UNITS - 2, stored=1, taken=2)


@pytest.mark.parametrize("has_retry", [False, True])
@pytest.mark.parametrize("is_loaded", [False, True])
async def test_order_sent_again_under_its_id_is_counted_by_a_load(
    lost: LostOrder, has_retry: bool, is_loaded: bool
) -> None:
    """A gateway without an answer sends the order again, and the new load accepts it."""
    if has_retry:
        await lost.fail_retry()
    await lost.send_again()
    if is_loaded:
        await lost.load()
        assert await lua.read_units_free(lost.shop.redis, lost.keys, ["a"]) == [UNITS - 2]
    await lost.write()
    with pytest.raises(Conflict, match="stored after all"):
        await lost.discard()
    await lost.retry()
    assert (await lost.read_letter()).status == "retried"
    await lost.check(free=UNITS - 2, stored=1, taken=2)


async def test_order_sent_again_after_its_discard_is_counted_by_a_load(lost: LostOrder, settings: Settings) -> None:
    await lost.fail_retry()
    await lost.discard()
    await lost.send_again()
    await lost.load()
    await lost.release(settings)
    await lost.write()
    await lost.check(free=UNITS - 2, stored=1, taken=2)


async def test_order_stored_during_a_retry_takes_units_once(lost: LostOrder) -> None:
    await lost.send_again()

    async def write_first(*arguments: Any) -> PersistResult:
        await lost.write()
        return await lost.persist(*arguments)  # type: ignore[return-value]

    lost.shop.dead_letters._persist = write_first
    with pytest.raises(Conflict, match="stored meanwhile"):
        await lost.retry()
    await lost.retry()
    await lost.check(free=UNITS - 2, stored=1, taken=2)


@pytest.mark.parametrize("action", ["retry", "fail_retry discard"])
async def test_server_that_lacks_reacquired_units_is_behind(make_settings: Any, sale_id: str, action: str) -> None:
    async with open_redis_pair() as pair:
        settings = make_settings(redis_url=pair.url, limits={"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500})
        async with open_cli_services(settings) as shop, open_worker_services(settings, "one") as services:
            await make_sale(shop, sale_id, {"a": (UNITS, 100, LIMIT)})
            writer = SaleStreamWriter(services, sale_id, ReadSlots(settings.writer))
            lost = LostOrder(shop, sale_id, writer, services.redis)
            await lost.lose()
            await reserve(shop.redis, lost.keys, reservation(shop.ids.new, sale_id, {"a": 1}, user="last"))
            await pair.master.wait_for_replica()
            await pair.detach_replica()
            for step in action.split():
                await getattr(lost, step)()
            pair.switch(close=True)
            await shop.redis.connection_pool.disconnect()
            adoption = ServerAdoption(shop.db, shop.redis, shop.clock)
            assert await adoption.adopt_sales([sale_id], {}) == 1
            assert sale_id in adoption.behind
            [result] = await reserve(shop.redis, lost.keys, lost.order)
            assert result.outcome is ReserveOutcome.NOT_READY
