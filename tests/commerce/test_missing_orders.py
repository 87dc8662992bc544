"""Orders that Postgres lost in a restore are listed from what Redis knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from commerce.audit.missing_orders import MissingOrder, MissingOrders
from commerce.kernel.money import Money
from config.settings import Settings
from lua import ReserveOutcome, SaleKeys
from ops.cli import app
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve


async def test_orders_that_postgres_lost_are_listed_with_user_key_and_total(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"A": (100, 500, None)})
    orders = [
        reservation(shop.ids.new, sale_id, {"A": 2}, user=f"user-{n}", key=f"key-{n}", price=500) for n in range(8)
    ]
    results = await reserve(shop.redis, keys, *orders[:6])
    assert {result.outcome for result in results} == {ReserveOutcome.ACCEPTED}
    missing = MissingOrders(shop.db, shop.redis, shop.clock)
    sale = await shop.sales.get(sale_id)
    assert await missing.list_missing(sale) == []  # they are in the stream
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _is_stored(shop, 6))
        await eventually(lambda: _is_acknowledged(shop, keys))
    assert await missing.list_missing(sale) == []

    lost = sorted(order.order_id for order in orders[1:3])  # ids of one millisecond have no order
    async with shop.db.connection() as connection:  # as if a backup without them was restored
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("DELETE FROM orders WHERE order_id = ANY($1)", lost)
        await connection.execute("RESET session_replication_role")
    await reserve(shop.redis, keys, *orders[6:])  # the stream has these
    gone = await missing.list_missing(sale)
    assert [order.order_id for order in gone] == lost
    assert {(order.order_id, order.user_id, order.idempotency_key, order.total) for order in gone} == {
        (orders[1].order_id, "user-1", "key-1", Money(1_000, "CNY")),
        (orders[2].order_id, "user-2", "key-2", Money(1_000, "CNY")),
    }

    env = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database()}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["order", "missing", "--json"], env=env)
    assert result.exit_code == 1, result.output
    assert msgspec.json.decode(result.stdout, type=list[MissingOrder]) == gone


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_comparison_without_redis_gives_no_all_clear(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    await make_sale(shop, sale_id, {"A": (1, 500, None)})
    env = {"REDIS_URL": f"unix://{tmp_path}/nobody", "DATABASE_URL": settings.database()}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["order", "missing", *options], env=env)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert f"cannot list the missing orders: {sale_id} (" in result.stderr


async def _is_stored(shop: CliServices, count: int) -> bool:
    async with shop.db.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM orders") == count)


async def _is_acknowledged(shop: CliServices, keys: SaleKeys) -> bool:
    return bool(await shop.redis.hlen(keys.accepted) == 0)
