"""P1 to P5: another server replaces Redis while customers order.

Gateways and workers are real processes. FLOODGATE_DRILL_RUNS repeats each drill with other random numbers.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from redis.exceptions import RedisError

import lua
from commerce.kernel.errors import ProblemError
from commerce.sales import store
from commerce.sales.loading import load_sale
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices, open_cli_services
from tests.support.customer_crowd import CustomerCrowd
from tests.support.processes import Processes, run_processes
from tests.support.redis_pair import RedisPair, open_redis_pair
from tests.support.sales import eventually, make_sale

UNITS, ORDERS, CLIENTS = 900, 1_000, 24
LIMIT = 3
_PATIENCE = 5_000  # attempts of a customer: a slow machine takes long to start a server again
LIMITS = {"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500, "orders_per_user_per_s": 10_000}
WORKERS = ("order_writer", "release_worker", "sale_sync")
pytestmark = pytest.mark.drill


@dataclass
class FailoverShop:
    """A shop on a pair of Redis servers, and a crowd that orders."""

    shop: CliServices
    pair: RedisPair
    sale_id: str
    crowd: CustomerCrowd

    @property
    def keys(self) -> SaleKeys:
        return SaleKeys(self.sale_id)

    async def wait_for_orders(self, count: int) -> None:
        async def are_promised() -> bool:
            return len(self.crowd.promised) >= count

        await eventually(are_promised, 60)

    async def rebuild(self) -> None:
        """Load the sale again, as `floodgate rebuild` does, as soon as Redis can be reached."""

        async def is_rebuilt() -> bool:
            try:
                await load_sale(self.shop.db, self.shop.redis, self.shop.clock, self.sale_id)
            except (ProblemError, RedisError, OSError):  # the new server does not answer yet, or is loaded already
                return False
            return True

        await eventually(is_rebuilt, 30)

    async def rebuild_if_behind(self) -> None:
        """Wait until the sale is adopted. If the writer stored what the new server lacks, load the sale again."""

        async def is_decided() -> bool:
            try:
                [load] = await lua.read_load_states(self.shop.redis, [self.keys])
                if load.is_adopted:
                    return True
                position = await lua.read_position(self.shop.redis, self.keys)
                async with self.shop.db.connection() as connection:
                    required = await store.read_required_position(connection, self.sale_id, load.counted_epoch)
            except (RedisError, OSError):
                return False
            if position.is_behind(required):
                await self.rebuild()
                return True
            return False

        await eventually(is_decided, 30)

    async def has_stored_orders(self) -> bool:
        async with self.shop.db.connection() as connection:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM orders)"))

    async def is_written(self) -> bool:
        return (await lua.read_backlog(self.shop.redis, self.keys)).orders == 0

    async def count_lost(self) -> int:
        """Count promised orders that are neither in Postgres nor dead letters."""
        async with self.shop.db.connection() as connection:
            rows = await connection.fetch("SELECT order_id FROM orders UNION ALL SELECT order_id FROM dead_letters")
        return len(self.crowd.promised.keys() - {row["order_id"] for row in rows})

    async def check_stock(self) -> None:
        """P1, P4: the audit finds nothing, and Postgres has no more units than there were."""
        audit = await self.shop.audit.audit_sale(self.sale_id)
        assert (audit.clean, audit.differences) == (True, 0), audit.findings
        async with self.shop.db.connection() as connection:
            sold = await connection.fetchval("SELECT coalesce(sum(quantity), 0) FROM order_lines")
            max_units = await connection.fetchval(
                "SELECT max(units) FROM (SELECT sum(quantity) AS units FROM orders JOIN order_lines USING (order_id) "
                "GROUP BY user_id) AS users"
            )
        assert sold <= UNITS
        assert max_units <= LIMIT


def orders() -> Callable[[], tuple[str, str, Mapping[str, int]] | None]:
    number = 0

    def next_order() -> tuple[str, str, Mapping[str, int]] | None:
        nonlocal number
        number += 1
        return None if number > ORDERS else (f"u{random.randrange(ORDERS)}", f"key-{number}", {"phone": 1})

    return next_order


@pytest.fixture(params=range(int(os.environ.get("FLOODGATE_DRILL_RUNS", "1"))))
def run(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
async def pair(run: int) -> AsyncIterator[RedisPair]:
    random.seed(run)
    async with open_redis_pair() as pair:
        yield pair


async def drill(
    settings: Settings,
    pair: RedisPair,
    home: Path,
    sale_id: str,
    replace: Callable[[FailoverShop, Processes], Awaitable[None]],
) -> FailoverShop:
    """Let a crowd order, call `replace` in the midst of it, and wait until all orders are written."""
    async with open_cli_services(settings) as shop, run_processes(settings, home) as processes:
        await make_sale(shop, sale_id, {"phone": (UNITS, 100, LIMIT)})
        await processes.gateway()
        await processes.gateway()
        await processes.worker(*WORKERS)
        crowd = CustomerCrowd(settings, processes.base, sale_id, max_attempts=_PATIENCE)
        failover = FailoverShop(shop, pair, sale_id, crowd)
        async with aiohttp.ClientSession() as client:
            await crowd.order(client, "first", "first", {"phone": 1})
        await eventually(failover.has_stored_orders, 60)  # a worker that is starting ends if Redis is gone
        ordering = asyncio.create_task(failover.crowd.run(CLIENTS, orders(), repeat_share=0.1))
        await failover.wait_for_orders(random.randrange(50, 400))
        await replace(failover, processes)
        await asyncio.wait_for(ordering, 120)
        await shop.redis.connection_pool.disconnect()
        await eventually(failover.is_written, 30)
        await failover.check_stock()
        assert failover.crowd.answers["gave up"] == 0
        print(dict(failover.crowd.answers), "lost", await failover.count_lost())
        return failover


async def is_behind(processes: Processes) -> bool:
    """Tell whether a gateway reports that its Redis is behind."""
    async with aiohttp.ClientSession() as client, client.get(f"{processes.base}/health/ready") as answer:
        return "Redis is behind" in (await answer.json())["checks"]["redis"]


async def test_replicated_orders_survive_the_loss_of_the_master(
    make_settings: Callable[..., Settings], pair: RedisPair, sale_id: str, tmp_path: Path
) -> None:
    """Durability `replicated`: what was promised is on the replica. A third server becomes its replica."""
    settings = make_settings(redis_url=pair.url, limits=LIMITS, durability="replicated", replicas=1)
    async with open_redis_pair() as spare:

        async def replace(failover: FailoverShop, _: Processes) -> None:
            await pair.master.process.kill()
            await pair.detach_replica()
            async with spare.master.client() as redis:
                await redis.replicaof("127.0.0.1", pair.replica.port)
            pair.switch(close=True)
            await pair.master.wait_for_replica()
            await failover.rebuild_if_behind()

        failover = await drill(settings, pair, tmp_path, sale_id, replace)
        async with open_cli_services(settings) as shop:
            failover.shop = shop
            assert await failover.count_lost() == 0


async def test_rebuild_while_writers_hold_orders_sells_nothing_twice(
    make_settings: Callable[..., Settings], pair: RedisPair, sale_id: str, tmp_path: Path
) -> None:
    """Postgres commits nothing while Redis is wiped and the sale is loaded again."""
    settings = make_settings(redis_url=pair.url, limits=LIMITS)

    async def replace(failover: FailoverShop, _: Processes) -> None:
        async with failover.shop.db.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
            await failover.wait_for_orders(len(failover.crowd.promised) + 50)
            await pair.detach_replica()
            await pair.master.restart(wiped=True)
            await failover.rebuild()

    await drill(settings, pair, tmp_path, sale_id, replace)


async def test_lagging_replica_sells_nothing_before_a_rebuild(
    make_settings: Callable[..., Settings], pair: RedisPair, sale_id: str, tmp_path: Path
) -> None:
    settings = make_settings(redis_url=pair.url, limits=LIMITS)

    async def replace(failover: FailoverShop, processes: Processes) -> None:
        await pair.detach_replica()
        await failover.wait_for_orders(len(failover.crowd.promised) + 50)
        await pair.master.process.kill()
        pair.switch(close=True)
        await eventually(partial(is_behind, processes), 30)
        async with pair.master.client() as redis:
            [load] = await lua.read_load_states(redis, [failover.keys])
        assert not load.is_adopted
        await failover.rebuild()

    await drill(settings, pair, tmp_path, sale_id, replace)


async def test_handed_over_master_is_left_and_loses_nothing(
    make_settings: Callable[..., Settings], pair: RedisPair, sale_id: str, tmp_path: Path
) -> None:
    """The old master lives on as a replica and keeps its connections."""
    settings = make_settings(redis_url=pair.url, limits=LIMITS)

    async def replace(failover: FailoverShop, _: Processes) -> None:
        await pair.hand_over()
        await failover.rebuild_if_behind()

    failover = await drill(settings, pair, tmp_path, sale_id, replace)
    async with open_cli_services(settings) as shop:
        failover.shop = shop
        assert await failover.count_lost() == 0
