"""Readiness agrees with what an order gets, in each state of real servers, and costs little."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from config.settings import Settings
from gateway import dependency_checks
from ops.local import embedded_servers
from ops.local.subprocesses import start_process
from ops.services import CliServices, open_cli_services
from tests.support.gateway import TestGateway, open_gateway
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers

SALE = "readiness"


@dataclass(frozen=True)
class RedisState:
    """A state in which Redis refuses every write, how to leave it, and what readiness says of it."""

    enter: Callable[[Redis, Path], Awaitable[object]]
    leave: Callable[[Redis, Path], Awaitable[object]]
    reason: str


async def _fail_snapshot(redis: Redis, home: Path) -> None:
    (home / "dump.rdb" / "in-the-way").mkdir(parents=True)
    await redis.config_set("save", "900 1")
    await redis.bgsave()

    async def has_failed() -> bool:
        info = await redis.info("persistence")
        return bool(info["rdb_last_bgsave_status"] == "err")

    await eventually(has_failed)


async def _succeed_snapshot(redis: Redis, home: Path) -> None:
    (home / "dump.rdb" / "in-the-way").rmdir()
    (home / "dump.rdb").rmdir()
    await redis.bgsave()


STATES = {
    "failed snapshot": RedisState(_fail_snapshot, _succeed_snapshot, "the disk"),
    "no memory": RedisState(
        lambda redis, _: redis.config_set("maxmemory", 1), lambda redis, _: redis.config_set("maxmemory", 0), "memory"
    ),
    "replicas missing": RedisState(
        lambda redis, _: redis.config_set("min-replicas-to-write", 1),
        lambda redis, _: redis.config_set("min-replicas-to-write", 0),
        "min-replicas-to-write",
    ),
    "replica": RedisState(
        lambda redis, _: redis.replicaof("127.0.0.1", "1"), lambda redis, _: redis.replicaof("NO", "ONE"), "replica"
    ),
    "no permission": RedisState(
        lambda redis, _: redis.acl_setuser("default", enabled=True, nopass=True, categories=["-@write"]),
        lambda redis, _: redis.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], keys=["*"]),
        "can't run this command",
    ),
}


@pytest.fixture
def socket_home() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="fg-") as home:
        yield Path(home)


@asynccontextmanager
async def open_shop_on_own_redis(
    make_settings: Callable[..., Settings], home: Path
) -> AsyncIterator[tuple[TestGateway, Redis]]:
    """Open a gateway with an open sale on a Redis of its own; yields it with a client of that Redis."""
    server = embedded_servers.prepare_redis_server(home)
    process = await start_process(server.spec)
    try:
        settings = make_settings(redis_url=server.url)
        async with Redis.from_url(server.url) as redis, open_cli_services(settings) as shop:
            await make_sale(shop, SALE, {"a": (100, 100, None)})
            async with open_gateway(settings) as gateway:
                yield gateway, redis
    finally:
        await process.stop()


async def test_readiness_agrees_with_orders_in_each_state_of_redis(
    make_settings: Callable[..., Settings], socket_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Redis refuses all orders, the gateway is not ready and says why, until Redis takes them again."""
    monkeypatch.setattr(dependency_checks, "_MAX_AGE_S", 0.05)
    async with open_shop_on_own_redis(make_settings, socket_home) as (gateway, redis):
        version = (await redis.info("server"))["redis_version"]
        for name, state in STATES.items():
            if name == "replicas missing" and version.startswith("6."):
                continue  # Redis 6 accepts the writes of scripts in this state, so orders too
            await state.enter(redis, socket_home / "redis")
            await eventually(lambda: _is_ready(gateway, False))
            ready = await gateway.call("GET", "/health/ready", user=None)
            assert state.reason in ready.body["checks"]["redis"], (name, ready.body)
            assert (await gateway.order(order_body(SALE, ("a", 1)))).status == 503, name
            await state.leave(redis, socket_home / "redis")
            await eventually(lambda: _is_ready(gateway, True))
            assert (await gateway.order(order_body(SALE, ("a", 1)))).status == 202, name
        strays = [key async for key in redis.scan_iter() if not key.startswith(f"{{sale:{SALE}}}".encode())]
        assert strays == []


async def test_readiness_with_redis_gone_shows_no_address_and_logs_it(
    make_settings: Callable[..., Settings], socket_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may ask. The log has the address, once per change."""
    async with open_shop_on_own_redis(make_settings, socket_home) as (gateway, redis):
        await eventually(lambda: _is_ready(gateway, True))
        await redis.shutdown(nosave=True)
        await eventually(lambda: _is_ready(gateway, False))
        for _ in range(3):
            ready = await gateway.call("GET", "/health/ready", user=None)
            assert str(socket_home) not in ready.text
            assert "cannot reach Redis: " in ready.body["checks"]["redis"]
        changes = [record for record in caplog.records if record.message == "the state of Redis has changed"]
        assert [str(socket_home) in getattr(record, "details", "") for record in changes] == [True]


async def _is_ready(gateway: TestGateway, expected: bool) -> bool:
    ready = await gateway.call("GET", "/health/ready", user=None)
    return (ready.status == 200) is expected


async def test_crowd_of_probes_costs_redis_one_check_a_second(
    make_settings: Callable[..., Settings], socket_home: Path
) -> None:
    async with open_shop_on_own_redis(make_settings, socket_home) as (gateway, redis):
        await redis.config_resetstat()
        started = asyncio.get_running_loop().time()
        for _ in range(5):
            answers = await asyncio.gather(*(gateway.call("GET", "/health/ready", user=None) for _ in range(40)))
            assert {answer.status for answer in answers} == {200}
        seconds = asyncio.get_running_loop().time() - started
        stats = await redis.info("commandstats")
        calls = sum(stats[name]["calls"] for name in stats if name.startswith(("cmdstat_info", "cmdstat_config")))
        assert 2 <= calls <= 10 * (seconds + 1), stats


@pytest.mark.parametrize(
    ("statement", "undo", "state", "reason"),
    [
        (
            "ROLE {name} SET default_transaction_read_only = on",
            "ROLE {name} RESET ALL",
            "read_only",
            "read-only",
        ),
        ("ROLE {name} NOLOGIN", "ROLE {name} LOGIN", "down", "cannot log in"),
        (
            "DATABASE {name} ALLOW_CONNECTIONS false",
            "DATABASE {name} ALLOW_CONNECTIONS true",
            "down",
            "cannot log in",
        ),
    ],
    ids=["read-only", "user without log-in", "database without log-in"],
)
async def test_readiness_with_refusing_postgres_shows_it_and_orders_go_on(
    make_settings: Callable[..., Settings],
    servers: Servers,
    database_url: str,
    shop: CliServices,
    sale_id: str,
    statement: str,
    undo: str,
    state: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Open connections work on, so only a new one shows what awaits the process."""
    monkeypatch.setattr(dependency_checks, "_DATABASE_INTERVAL_S", 0.05)
    monkeypatch.setattr(dependency_checks, "_DATABASE_TIMEOUT_S", 20.0)  # a busy machine is no refusal
    monkeypatch.setattr(dependency_checks, "_REDIS_TIMEOUT_S", 20.0)
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    role = f"gateway_{uuid4().hex[:8]}"
    name = urlsplit(database_url).path[1:] if "DATABASE" in statement else role
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    await admin.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")
    try:
        async with open_gateway(make_settings(database_url=re.sub(r"//\w+@", f"//{role}@", database_url))) as gateway:

            async def shows(expected: str) -> bool:
                ready = await gateway.call("GET", "/health/ready", user=None)
                assert (ready.status, ready.body["checks"]["redis"]) == (200, "ok")
                return bool(ready.body["database"] == expected)

            assert await shows("up")
            await admin.execute(f"ALTER {statement.format(name=name)}")
            await eventually(lambda: shows(state))
            checks = (await gateway.call("GET", "/health/ready", user=None)).body["checks"]
            assert reason in checks["postgres"]
            assert role not in checks["postgres"]
            assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202
            await admin.execute(f"ALTER {undo.format(name=name)}")
            await eventually(lambda: shows("up"))
    finally:
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()
