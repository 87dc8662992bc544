"""Servers are checked for the durability of the settings, at start and on every new connection."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

import lua
from commerce.kernel.connection_shares import undivided
from commerce.kernel.errors import NotDurable, NotReady
from commerce.kernel.postgres import open_database
from commerce.kernel.redis_client import check_redis, open_redis
from config.settings import Settings
from ops.local.embedded_servers import prepare_postgres_server, prepare_redis_server
from ops.local.subprocesses import RunningProcess, start_process
from ops.services import open_cli_services
from tests.support.connections import held_connection
from tests.support.gateway import open_gateway
from tests.support.processes import free_port
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import make_server_home
from workers.runtime import open_worker_services


@pytest.fixture
async def start_redis() -> AsyncIterator[Callable[..., object]]:
    """Return a function that starts a Redis with other options and returns its URL and process."""
    running: list[RunningProcess] = []
    homes: list[tempfile.TemporaryDirectory[str]] = []

    async def run(*options: str) -> tuple[str, RunningProcess]:
        homes.append(tempfile.TemporaryDirectory(prefix="fg-"))
        server = prepare_redis_server(Path(homes[-1].name))
        spec = dataclasses.replace(server.spec, argv=[*server.spec.argv, *options])
        running.append(await start_process(spec))
        return server.url, running[-1]

    yield run
    await asyncio.gather(*(process.stop() for process in running))
    for home in homes:
        home.cleanup()


def client(url: str) -> Redis:
    return open_redis(url, timeout_ms=500, connections=2, name="test")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--appendonly", "no"), "append-only file"),
        (("--appendfsync", "everysec"), "before the command is on the disk"),
        (("--no-appendfsync-on-rewrite", "yes"), "stops syncing during a rewrite"),
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "may evict"),
    ],
)
async def test_redis_with_weaker_settings_is_refused(start_redis, options: tuple[str, ...], text: str) -> None:  # type: ignore[no-untyped-def]
    url, _ = await start_redis(*options)
    async with client(url) as redis:
        with pytest.raises(NotDurable, match=text):
            await check_redis(redis, "fsync", 1)
        if "evict" not in text:
            await check_redis(redis, "memory", 1)


async def test_gateway_on_weaker_redis_does_not_start(start_redis, make_settings: Callable[..., Settings]) -> None:  # type: ignore[no-untyped-def]
    url, _ = await start_redis("--appendfsync", "everysec")
    with pytest.raises(NotDurable, match="set appendfsync to always"):
        async with open_gateway(make_settings(redis_url=url)):
            pytest.fail("it started")


async def test_postgres_with_asynchronous_commit_is_refused(
    make_settings: Callable[..., Settings], database_url: str, sale_prefix: str
) -> None:
    """No worker and no gateway starts, and later connections are checked, too."""
    settings = make_settings()
    name = urlsplit(database_url).path.removeprefix("/")
    other = await asyncpg.connect(database_url)
    async with open_worker_services(settings, "before") as early:
        await other.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        async with held_connection(early.db):  # one from before it was set
            with pytest.raises(NotDurable, match="a commit returns before it is on the disk"):
                async with early.db.connection():
                    pytest.fail("a new one was used")
        for opened in (open_worker_services(settings, "test"), open_gateway(settings)):
            with pytest.raises(NotDurable, match=r"set synchronous_commit to on; off comes from: database\)$"):
                async with opened:
                    pytest.fail("it started")
        async with open_worker_services(make_settings(durability="memory"), "test"):
            pass
        for enough in ("local", "remote_write", "on"):
            await other.execute(f"ALTER DATABASE {name} SET synchronous_commit = {enough}")
            async with held_connection(early.db), early.db.connection(), open_worker_services(settings, "test"):
                pass
    await other.close()


async def test_postgres_without_fsync_is_refused() -> None:
    home = make_server_home()
    server = prepare_postgres_server(home)
    spec = dataclasses.replace(server.spec, argv=[*server.spec.argv, "-c", "fsync=off"])
    running = await start_process(spec)
    try:
        with pytest.raises(NotDurable, match="set fsync to on; off comes from: command line"):
            await open_database(server.url, name="test", shares=undivided(1), timeout_s=5, required_durability="fsync")
    finally:
        await running.stop()
        shutil.rmtree(home)


async def test_unreachable_or_closed_redis_is_refused(start_redis) -> None:  # type: ignore[no-untyped-def]
    async with client("unix:///tmp/nobody-is-here.sock") as redis:
        with pytest.raises(NotReady, match="cannot reach Redis"):
            await check_redis(redis, "fsync", 1)
    url, _ = await start_redis()
    async with client(url) as redis:
        await redis.execute_command("ACL", "SETUSER", "shop", "on", ">secret", "~*", "+@all", "-config")
    async with client(url.replace("unix://", "unix://shop:secret@")) as redis:
        with pytest.raises(NotDurable, match="CONFIG GET"):
            await check_redis(redis, "fsync", 1)


async def test_replicated_order_waits_for_its_replica(  # type: ignore[no-untyped-def]
    start_redis, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    """With durability 'replicated' a 202 waits for the replica; without it the outcome is unknown."""
    port = free_port()
    url, _ = await start_redis("--port", str(port), "--bind", "127.0.0.1")
    async with client(url) as redis:
        with pytest.raises(NotDurable, match="0 of 1 replicas"):
            await check_redis(redis, "replicated", 1)
    replica_url, replica = await start_redis("--replicaof", "127.0.0.1", str(port))
    async with client(url) as master:
        await eventually(lambda: _replicates(master))
        await check_redis(master, "replicated", 1)
        await master.config_set("appendonly", "no")  # the promise is memory, on as many servers
        await check_redis(master, "replicated", 1)
        await master.config_set("appendonly", "yes")
    async with client(replica_url) as behind:
        with pytest.raises(NotDurable, match="it is a replica"):
            await check_redis(behind, "memory", 1)
    settings = make_settings(redis_url=url, durability="replicated", limits={"redis_call_timeout_ms": 2_000})
    async with open_cli_services(settings) as shop, open_gateway(settings) as gateway:
        keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
        await gateway.services.snapshots.refresh()
        answer = await gateway.order(order_body(sale_id, ("a", 1)))
        assert answer.status == 202, answer.text
        assert answer.body["durability"] == "replicated"
        replica.process.send_signal(signal.SIGSTOP)
        try:
            unclear = await gateway.order(order_body(sale_id, ("a", 1)), key="k")
            assert (unclear.status, unclear.code) == (503, "outcome_unknown")
        finally:
            replica.process.send_signal(signal.SIGCONT)
        await eventually(lambda: _confirmed(gateway, sale_id))
        assert (await lua.cut(shop.redis, keys)).stock == {"a": 3}


async def _replicates(master: Redis) -> bool:
    return (await master.info("replication")).get("slave0", {}).get("state") == "online"


async def _confirmed(gateway, sale_id: str) -> bool:  # type: ignore[no-untyped-def]
    return (await gateway.order(order_body(sale_id, ("a", 1)), key="k")).status == 200


async def test_redis_restarted_with_weaker_settings_gets_no_orders(  # type: ignore[no-untyped-def]
    start_redis, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    """Redis is killed and restarted with weaker options: orders are refused, not risked."""
    url, running = await start_redis()
    settings = make_settings(redis_url=url, limits={"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500})
    async with open_cli_services(settings) as shop, open_gateway(settings) as gateway:
        await make_sale(shop, sale_id, {"a": (5, 100, None)})
        await gateway.services.snapshots.refresh()
        assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202
        await running.kill()
        spec = dataclasses.replace(running.spec, argv=[*running.spec.argv, "--appendfsync", "no"])
        restarted = await start_process(spec)
        try:
            await gateway.order(order_body(sale_id, ("a", 1)), key="k")
            answer = await gateway.order(order_body(sale_id, ("a", 1)), key="k")
            assert (answer.status, answer.code) == (503, "not_ready")
            async with client(url) as redis:
                await redis.config_set("appendfsync", "always")

            async def is_accepted() -> bool:
                return (await gateway.order(order_body(sale_id, ("a", 1)), key="k")).status == 202

            await eventually(is_accepted)  # once the gateway has adopted the sale on the new process
        finally:
            await restarted.stop()
