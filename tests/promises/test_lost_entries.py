"""P1, P2: orders that a writer holds and that Redis lost, when the sale is loaded again meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

import lua
from commerce.kernel.errors import Conflict
from commerce.sales import store
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import Entry, ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.sales import eventually, make_sale, reservation, reserve
from workers.order_writer import SaleStreamWriter
from workers.runtime import WorkerServices, open_worker_services
from workers.stream_reader import ReadSlots

UNITS = 5


@dataclass
class HoldingWriter:
    """A writer that holds entries of three orders."""

    services: WorkerServices
    writer: SaleStreamWriter
    keys: SaleKeys
    entries: list[Entry]


@pytest.fixture
async def holding(shop: CliServices, settings: Settings, sale_id: str) -> AsyncIterator[HoldingWriter]:
    keys = await make_sale(shop, sale_id, {"a": (UNITS, 100, None)})
    async with open_worker_services(settings, "one") as services:
        writer = SaleStreamWriter(services, sale_id, ReadSlots(settings.writer))
        await buy(shop, keys, sale_id, 3)
        entries = await lua.read_new(services.redis, keys, services.instance, 10, 1_000)
        yield HoldingWriter(services, writer, keys, entries)


async def buy(shop: CliServices, keys: SaleKeys, sale_id: str, orders: int) -> list[ReserveOutcome]:
    results = [
        await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, user=f"u{number}"))
        for number in range(orders)
    ]
    return [result.outcome for [result] in results]


async def wipe(shop: CliServices, keys: SaleKeys) -> None:
    names = [key async for key in shop.redis.scan_iter(keys.meta.decode().replace("meta", "*"))]
    await shop.redis.delete(*names)


async def count_orders(shop: CliServices) -> tuple[int, int]:
    """Return the numbers of stored orders and of dead letters."""
    async with shop.db.connection() as connection:
        return (
            await connection.fetchval("SELECT count(*) FROM orders"),
            await connection.fetchval("SELECT count(*) FROM dead_letters WHERE stock_lost AND status = 'held'"),
        )


async def store_all(shop: CliServices, holding: HoldingWriter) -> None:
    """Store the entries that the writer holds, and whatever is in the stream."""
    await holding.writer.write(holding.entries)
    while entries := await lua.read_new(shop.redis, holding.keys, holding.services.instance, 100, 1):
        await holding.writer.write(entries)


async def check_audit(shop: CliServices, sale_id: str) -> None:
    audit = await shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings


async def test_orders_that_redis_lost_are_kept_but_not_sold_twice(
    shop: CliServices, holding: HoldingWriter, sale_id: str
) -> None:
    await wipe(shop, holding.keys)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    outcomes = await buy(shop, holding.keys, sale_id, UNITS + 1)
    assert outcomes == [ReserveOutcome.ACCEPTED] * UNITS + [ReserveOutcome.SOLD_OUT]
    await store_all(shop, holding)
    assert await count_orders(shop) == (UNITS, 3)
    await check_audit(shop, sale_id)
    letters = (await shop.dead_letters.list_letters(None, 10)).items
    assert {letter.stock_lost for letter in letters} == {True}
    with pytest.raises(Conflict, match="they are sold"):
        await shop.dead_letters.retry(letters[0].order_id, "staff")
    await shop.dead_letters.discard(letters[0].order_id, "staff")
    await check_audit(shop, sale_id)


async def test_retry_of_order_that_redis_lost_takes_its_units_once(
    shop: CliServices, holding: HoldingWriter, sale_id: str
) -> None:
    await wipe(shop, holding.keys)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    await store_all(shop, holding)
    letters = (await shop.dead_letters.list_letters(None, 10)).items
    for letter in letters:
        await shop.dead_letters.retry(letter.order_id, "staff")
    assert await count_orders(shop) == (3, 0)
    assert await lua.read_units_free(shop.redis, holding.keys, ["a"]) == [UNITS - 3]
    await buy(shop, holding.keys, sale_id, 1)  # an audit counts orders up to the last entry of the stream
    await check_audit(shop, sale_id)


async def test_orders_still_in_stream_are_stored_after_a_load(
    shop: CliServices, holding: HoldingWriter, sale_id: str
) -> None:
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    await store_all(shop, holding)
    assert await count_orders(shop) == (3, 0)
    assert await lua.read_units_free(shop.redis, holding.keys, ["a"]) == [UNITS - 3]
    await check_audit(shop, sale_id)


async def test_orders_in_hand_wait_until_a_load_is_over(
    shop: CliServices, holding: HoldingWriter, sale_id: str
) -> None:
    await wipe(shop, holding.keys)
    async with shop.db.connection() as connection:
        await store.begin_load(connection, sale_id)
    writing = asyncio.create_task(holding.writer.write(holding.entries))

    async def was_refused() -> bool:
        return bool(holding.writer._retries)

    await eventually(was_refused)
    assert await count_orders(shop) == (0, 0)
    assert not await shop.sales.sync_to_redis(sale_id)  # nobody but staff loads a Redis that lacks orders
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    await asyncio.wait_for(writing, 10)
    assert await count_orders(shop) == (0, 3)
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 1, "more"), "test")
    await check_audit(shop, sale_id)


async def test_orders_of_wiped_redis_are_stored_before_a_load(
    shop: CliServices, holding: HoldingWriter, sale_id: str
) -> None:
    """Nothing was counted without them yet: the load finds them in Postgres."""
    await wipe(shop, holding.keys)
    await holding.writer.write(holding.entries)
    assert await count_orders(shop) == (3, 0)
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert await lua.read_units_free(shop.redis, holding.keys, ["a"]) == [UNITS - 3]
    await check_audit(shop, sale_id)
