"""P1, P2, P9: what a gateway answers while its Redis is replaced by another server."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import lua
from commerce.sales import store
from commerce.sales.loading import load_sale
from commerce.sales.model import StockChangeInput
from commerce.sales.server_adoption import ServerAdoption
from config.settings import Settings
from lua import EntryId
from ops.services import CliServices, open_cli_services
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, run_workers
from tests.support.processes import run_processes, wait_for_exit
from tests.support.redis_pair import RedisPair, open_redis_pair
from tests.support.sales import eventually, make_sale, order_body, reservation, reserve

LIMITS = {"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500}  # a busy machine answers within them
ITEMS = {"a": (100, 100, None)}


@pytest.fixture
async def pair() -> AsyncIterator[RedisPair]:
    async with open_redis_pair() as pair:
        yield pair


@pytest.fixture
def pair_settings(make_settings: Callable[..., Settings], pair: RedisPair) -> Settings:
    return make_settings(redis_url=pair.url, limits=LIMITS)


@pytest.fixture
async def pair_shop(pair_settings: Settings) -> AsyncIterator[CliServices]:
    async with open_cli_services(pair_settings) as shop:
        yield shop


async def order(gateway: TestGateway, sale_id: str, key: str | None = None) -> GatewayResponse:
    return await gateway.order(order_body(sale_id, ("a", 1)), key=key)


async def wait_for_acceptance(gateway: TestGateway, sale_id: str) -> None:
    async def is_accepted() -> bool:
        return (await order(gateway, sale_id)).status == 202

    await eventually(is_accepted)


async def test_replicas_of_another_server_confirm_no_order(
    make_settings: Callable[..., Settings], pair: RedisPair, sale_id: str, tmp_path: Path
) -> None:
    """The replica of the first server is frozen; another master, with a replica, is at its address."""
    settings = make_settings(redis_url=pair.url, limits=LIMITS, durability="replicated", replicas=1)
    async with open_redis_pair() as other, open_cli_services(settings) as shop, open_gateway(settings) as gateway:
        await make_sale(shop, sale_id, ITEMS)
        await gateway.services.snapshots.refresh()
        assert (await order(gateway, sale_id)).status == 202
        pair.replica.process.process.send_signal(signal.SIGSTOP)
        pair.proxy.target = other.master.url.removeprefix("unix://")
        await gateway.services.redis.connection_pool.disconnect()  # the link stays with the first server
        answer = await order(gateway, sale_id)
        pair.replica.process.process.send_signal(signal.SIGCONT)
        assert (answer.status, answer.code) == (503, "outcome_unknown")


@pytest.mark.parametrize("lag", ["orders", "changes", "load"])
async def test_server_that_is_behind_takes_no_orders_until_rebuild(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str, lag: str
) -> None:
    """The new server lacks an order that a gateway has seen, a stock change, or the latest load."""
    keys = await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    async with open_gateway(pair_settings) as gateway:
        match lag:
            case "orders":
                assert (await order(gateway, sale_id)).status == 202
            case "changes":
                await pair_shop.stock.change(
                    sale_id, pair_shop.ids.new(), StockChangeInput("a", 5, "more arrived"), "test"
                )
            case "load":
                await load_sale(pair_shop.db, pair_shop.redis, pair_shop.clock, sale_id)
        pair.switch(close=True)

        async def is_refused() -> bool:
            return sale_id in gateway.services.adoption.behind

        await eventually(is_refused)
        answer = await order(gateway, sale_id)
        assert (answer.status, answer.code) == (503, "not_ready")
        ready = await gateway.call("GET", "/health/ready", user=None)
        assert ready.status == 503
        assert f"Redis is behind what was seen of {sale_id}" in ready.body["checks"]["redis"]
        await pair_shop.redis.connection_pool.disconnect()
        await load_sale(pair_shop.db, pair_shop.redis, pair_shop.clock, sale_id)
        await wait_for_acceptance(gateway, sale_id)
    audit = await pair_shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings
    assert (await lua.read_position(pair_shop.redis, keys)).last_entry > EntryId(0, 1)


async def wait_until_behind(gateway: TestGateway, sale_id: str) -> None:
    async def is_behind() -> bool:
        return sale_id in gateway.services.adoption.behind

    await eventually(is_behind)


async def test_replay_hides_no_newer_order_from_the_comparison(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    """A replay has an older entry than the order that the new server lacks."""
    await make_sale(pair_shop, sale_id, ITEMS)
    async with open_gateway(pair_settings) as gateway:
        assert (await order(gateway, sale_id, key="first")).status == 202
        await pair.master.wait_for_replica()
        await pair.detach_replica()
        assert (await order(gateway, sale_id, key="second")).status == 202
        assert (await order(gateway, sale_id, key="first")).status == 200
        pair.switch(close=True)
        await wait_until_behind(gateway, sale_id)
        assert (await order(gateway, sale_id)).code == "not_ready"


async def test_due_load_on_server_that_is_behind_waits_for_staff(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    """The load is due, as after a first limit without Redis. Only staff may drop the missing orders."""
    await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    async with open_gateway(pair_settings) as gateway:
        assert (await order(gateway, sale_id)).status == 202
        async with pair_shop.db.connection() as connection:
            await store.begin_load(connection, sale_id)
        pair.switch(close=True)
        async with run_workers(pair_settings, "sale_sync"):
            await wait_until_behind(gateway, sale_id)
            await pair_shop.redis.connection_pool.disconnect()
            assert not await pair_shop.sales.sync_to_redis(sale_id)
            assert (await order(gateway, sale_id)).code == "not_ready"
            await load_sale(pair_shop.db, pair_shop.redis, pair_shop.clock, sale_id)
            await wait_for_acceptance(gateway, sale_id)


async def test_process_with_failed_report_adopts_nothing(
    pair: RedisPair, pair_shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    [result] = await reserve(pair_shop.redis, keys, reservation(pair_shop.ids.new, sale_id, {"a": 1}))
    assert result.entry is not None
    pair.switch(close=True)
    await pair_shop.redis.connection_pool.disconnect()
    adoption = ServerAdoption(pair_shop.db, pair_shop.redis, pair_shop.clock)

    async def fail(*_: object) -> None:
        raise OSError("Postgres restarts")

    with monkeypatch.context() as patch:
        patch.setattr(store, "raise_observed_entry", fail)
        assert await adoption.adopt_sales([sale_id], {sale_id: result.entry}) == 1
    assert adoption.behind == {}
    assert await adoption.adopt_sales([sale_id], {sale_id: result.entry}) == 1
    assert adoption.behind.keys() == {sale_id}


async def test_worker_waits_for_reports_of_idle_gateways(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    """The gateway has no order on its way, so it does not meet the new server at once."""
    await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    async with open_gateway(pair_settings) as gateway:
        assert (await order(gateway, sale_id)).status == 202
        pair.switch(close=True)
        await pair_shop.redis.connection_pool.disconnect()
        adoption = ServerAdoption(pair_shop.db, pair_shop.redis, pair_shop.clock)
        assert await adoption.adopt_sales([sale_id], {}) == 1
        assert adoption.behind.keys() == {sale_id}


async def test_server_that_takes_no_writes_raises_no_epoch(
    pair: RedisPair, pair_shop: CliServices, sale_id: str
) -> None:
    """A promoted server without replicas refuses writes; the adoption waits, and no load becomes due."""
    await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    pair.switch(close=True)
    await pair_shop.redis.connection_pool.disconnect()
    adoption = ServerAdoption(pair_shop.db, pair_shop.redis, pair_shop.clock)
    before = await pair_shop.sales.get(sale_id)
    async with pair.master.client() as redis:
        await redis.config_set("maxmemory", 1)
        assert await adoption.adopt_sales([sale_id], {}) == 1
        await redis.config_set("maxmemory", 0)
    assert (await pair_shop.sales.get(sale_id)).epoch == before.epoch
    assert await adoption.adopt_sales([sale_id], {}) == 0


async def test_closed_sale_that_is_behind_keeps_no_gateway_from_its_orders(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    closed = f"{sale_id}-closed"
    for name in (sale_id, closed):
        await make_sale(pair_shop, name, ITEMS)
    await pair.master.wait_for_replica()
    await pair.detach_replica()
    async with open_gateway(pair_settings) as gateway:
        await pair_shop.stock.change(closed, pair_shop.ids.new(), StockChangeInput("a", 5, "more arrived"), "test")
        await pair_shop.sales.close(closed, "test")
        pair.switch(close=True)
        await wait_until_behind(gateway, closed)
        await wait_for_acceptance(gateway, sale_id)
        assert (await gateway.call("GET", "/health/ready", user=None)).status == 200


async def test_server_that_has_everything_is_adopted(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    await make_sale(pair_shop, sale_id, ITEMS)
    epoch = (await pair_shop.sales.get(sale_id)).epoch
    async with open_gateway(pair_settings) as gateway:
        first = await order(gateway, sale_id, key="first")
        await pair.master.wait_for_replica()
        await pair.detach_replica()
        pair.switch(close=True)
        await wait_for_acceptance(gateway, sale_id)
        repeated = await order(gateway, sale_id, key="first")
    assert (repeated.status, repeated.body["order_id"]) == (200, first.body["order_id"])
    sale = await pair_shop.sales.get(sale_id)
    assert (sale.epoch, sale.loaded_epoch) == (epoch + 1, epoch + 1)


async def test_master_that_became_a_replica_is_left(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    """The old master keeps its connections; its scripts could answer `sold_out` from an old copy."""
    await make_sale(pair_shop, sale_id, ITEMS)
    async with open_gateway(pair_settings) as gateway:
        assert (await order(gateway, sale_id)).status == 202
        await pair.hand_over()
        await wait_for_acceptance(gateway, sale_id)
    async with pair.master.client() as redis:
        assert (await redis.info("replication"))["role"] == "master"
    audit = await pair_shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings


async def test_pool_leaves_master_that_became_a_replica(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str
) -> None:
    """A process that only reads gets no READONLY, and must not read from the old server for ever."""
    await make_sale(pair_shop, sale_id, ITEMS)
    await pair.hand_over()
    async with pair.master.client() as redis:
        await redis.set("marker", 1)
        await pair_shop.redis.get("marker")

        async def reads_from_master() -> bool:
            info = await pair_shop.redis.info("replication")
            return bool(info["role"] == "master")

        await eventually(reads_from_master)
        await redis.delete("marker")


async def test_gateway_killed_during_adoption_leaves_a_load_to_others(
    pair: RedisPair, pair_settings: Settings, pair_shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    """The epoch was raised, and the new server does not have it: a load is due."""
    await make_sale(pair_shop, sale_id, ITEMS)
    await pair.master.wait_for_replica()
    async with run_processes(pair_settings, tmp_path) as processes:
        killed = await processes.gateway(crash_at="adopt.after_begin")
        await pair.detach_replica()
        pair.switch(close=True)
        assert await wait_for_exit(killed) == -9
    assert [sale.sale_id for sale in await pair_shop.sales.list_out_of_sync()] == [sale_id]
    await pair_shop.redis.connection_pool.disconnect()
    adoption = ServerAdoption(pair_shop.db, pair_shop.redis, pair_shop.clock)
    assert await adoption.adopt_sales([sale_id], {}) == 1
    assert await pair_shop.sales.sync_to_redis(sale_id)
    audit = await pair_shop.audit.audit_sale(sale_id)
    assert (audit.clean, audit.differences) == (True, 0), audit.findings
