"""A Redis master, its replica and a forwarder in front of them, for failovers."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from ops.local.embedded_servers import prepare_redis_server
from ops.local.subprocesses import RunningProcess, start_process
from tests.support.processes import free_port
from tests.support.proxy import Proxy, open_redis_proxy
from tests.support.sales import eventually
from tests.support.servers import make_server_home


@dataclass
class RedisServer:
    """A running Redis that replicas can reach at `port`."""

    url: str
    port: int
    process: RunningProcess
    home: Path = field(repr=False)

    def client(self) -> Redis:
        return Redis.from_url(self.url)

    async def wait_for_replica(self) -> None:
        """Wait until one replica has everything that this master has written."""

        async def is_replicated() -> bool:
            async with self.client() as redis:
                info = await redis.info("replication")
            states = [value for name, value in info.items() if name.startswith("slave")]
            offsets = [int(state["offset"]) for state in states if state["state"] == "online"]
            return max(offsets, default=-1) >= int(info["master_repl_offset"])

        await eventually(is_replicated)

    async def restart(self, *, wiped: bool = False) -> None:
        """Kill the server and start it again, without its files if `wiped`."""
        await self.process.kill()
        if wiped:
            for path in self.home.rglob("*"):
                if path.is_file() and path.suffix in (".aof", ".rdb", ".manifest"):
                    path.unlink()
        self.process = await start_process(self.process.spec)


@dataclass
class RedisPair:
    """Clients reach `master` through the forwarder at `url`."""

    master: RedisServer
    replica: RedisServer
    proxy: Proxy
    url: str

    async def detach_replica(self) -> None:
        """Let the replica stay behind from now on."""
        async with self.replica.client() as redis:
            await redis.replicaof("NO", "ONE")

    def switch(self, *, close: bool) -> None:
        """Lead new connections to the other server. The open ones are closed, or stay with the old one."""
        self.master, self.replica = self.replica, self.master
        self.proxy.target = self.master.url.removeprefix("unix://")
        if close:
            self.proxy.cut()
            self.proxy.refuse = False

    async def hand_over(self) -> None:
        """Make the replica the master as `FAILOVER` does: the old master lives on as its replica."""
        async with self.master.client() as redis:
            await redis.execute_command("FAILOVER", "TIMEOUT", 10_000)
        self.switch(close=False)

        async def is_over() -> bool:
            async with self.master.client() as redis:
                return bool((await redis.info("replication"))["role"] == "master")

        await eventually(is_over)


@asynccontextmanager
async def open_redis_pair() -> AsyncIterator[RedisPair]:
    """Run two servers as `floodgate up` does, the second one as a replica of the first."""
    home = make_server_home()
    servers: list[RedisServer] = []
    try:
        for name in ("one", "two"):
            servers.append(await _start_server(home / name))
        async with servers[1].client() as redis:
            await redis.replicaof("127.0.0.1", servers[0].port)
        await servers[0].wait_for_replica()
        async with open_redis_proxy(servers[0].url, home) as (proxy, url):
            yield RedisPair(servers[0], servers[1], proxy, url)
    finally:
        await asyncio.gather(*(server.process.stop() for server in servers))
        shutil.rmtree(home, ignore_errors=True)


async def _start_server(home: Path) -> RedisServer:
    home.mkdir()
    server, port = prepare_redis_server(home), free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
    process = await start_process(dataclasses.replace(server.spec, argv=[*server.spec.argv, *options]))
    return RedisServer(server.url, port, process, home)
