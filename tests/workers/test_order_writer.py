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

CONCURRENT_READS, SALES, BLOCK_MS = 2, 12, 600


async def _are_written(redis: Redis, sales: list[SaleKeys]) -> bool:
    return not any(await lua.read_accepted_counts(redis, sales))


async def test_writer_with_more_sales_than_read_slots_reads_each_in_time(
    shop: CliServices, make_settings: Callable[..., Settings], sale_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads share the slots: each sale is read within the block time, on few connections."""
    names = [f"{sale_prefix}-{number}" for number in range(SALES)]
    sales = [await make_sale(shop, name, {"a": (50, 100, None)}) for name in names]
    settings = make_settings(
        limits={"redis_connections": 3},
        writer={"concurrent_reads": CONCURRENT_READS, "read_block_ms": BLOCK_MS, "claim_idle_ms": 60_000},
    )
    with caplog.at_level(logging.WARNING):
        async with run_workers(settings, "order_writer"):
            for _ in range(3):
                for name, keys in zip(names, sales, strict=True):
                    await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                await eventually(lambda: _are_written(shop.redis, sales))
            max_blocked = 0
            for name, keys in list(zip(names, sales, strict=True))[::5]:  # now that all of them wait for orders
                started = asyncio.get_running_loop().time()
                await reserve(shop.redis, keys, reservation(shop.ids.new, name, {"a": 1}))
                while not await _are_written(shop.redis, [keys]):
                    max_blocked = max(max_blocked, (await shop.redis.info("clients"))["blocked_clients"])
                assert asyncio.get_running_loop().time() - started < 5 * BLOCK_MS / 1000
            worker_clients = [
                client for client in await shop.redis.client_list() if client["name"] == "floodgate-worker"
            ]
    assert 0 < max_blocked <= CONCURRENT_READS
    assert len(worker_clients) <= CONCURRENT_READS + 3
    assert caplog.text == ""
