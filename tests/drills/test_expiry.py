"""Ten thousand unpaid orders that expire in the same second have their stock back within five."""

from __future__ import annotations

import time

import pytest

import lua
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve

pytestmark = [pytest.mark.drill]
ORDERS, BATCH = 10_000, 500
MAX_S = 5.0


async def test_orders_that_expire_at_once_have_their_stock_back_soon(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (ORDERS, 100, 5), "b": (ORDERS, 100, None)})
    async with run_workers(settings, "order_writer"):
        for first in range(0, ORDERS, BATCH):
            orders = [
                reservation(shop.ids.new, sale_id, {"a": 1, "b": 1}, user=f"u{number}", limits={"a": 5})
                for number in range(first, first + BATCH)
            ]
            await reserve(shop.redis, keys, *orders)

        async def is_stored() -> bool:
            return (await lua.read_backlog(shop.redis, keys)).orders == 0

        await eventually(is_stored)
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 0, "b": 0}
    await expire_all(shop)

    async def is_back() -> bool:
        return (await lua.cut(shop.redis, keys)).stock == {"a": ORDERS, "b": ORDERS}

    started = time.monotonic()
    async with run_workers(settings, "release_worker"):
        await eventually(is_back)
        took_s = time.monotonic() - started
    assert took_s <= MAX_S
    assert (await shop.audit.audit_sale(sale_id)).clean
