"""The order writer with many sales at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve

AT_ONCE, SALES, WAIT_MS = 2, 12, 600


async def _written(redis: Redis, sales: list[SaleKeys]) -> bool:
    return not any(await lua.accepted_counts(redis, sales))


async def test_more_sales_than_reads_at_once(
    shop: CliServices, make_settings: Callable[..., Settings], sale_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They take turns: every sale is read again within the time that one read may wait, on few connections."""
    names = [f"{sale_prefix}-{number}" for number in range(SALES)]
    sales = [await make_sale(shop, name, {"a": (50, 100, None)}) for name in names]
    settings = make_settings(
        limits={"redis_connections": 3},
        writer={"concurrent_reads": AT_ONCE, "read_block_ms": WAIT_MS, "claim_idle_ms": 60_000},
    )
    with caplog.at_level(logging.WARNING):
        async with run_workers(settings, "order_writer"):
            for _ in range(3):
                for name, keys in zip(names, sales, strict=True):
                    await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                await eventually(lambda: _written(shop.redis, sales))
            most = 0
            for name, keys in list(zip(names, sales, strict=True))[::5]:  # now that all of them wait for orders
                begun = asyncio.get_running_loop().time()
                await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                while not await _written(shop.redis, [keys]):
                    most = max(most, (await shop.redis.info("clients"))["blocked_clients"])
                assert asyncio.get_running_loop().time() - begun < 5 * WAIT_MS / 1000
            workers = [one for one in await shop.redis.client_list() if one["name"] == "floodgate-worker"]
    assert 0 < most <= AT_ONCE
    assert len(workers) <= AT_ONCE + 3
    assert caplog.text == ""
