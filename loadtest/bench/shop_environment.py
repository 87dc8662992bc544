"""The shop as `make run` starts it, with the sale of the benchmarks."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from config.settings import load, local_file, servers_file
from loadtest.bench.environment import NO_LIMITS_OF_CLIENTS, BenchEnvironment, find_free_port, open_sale
from loadtest.bench.machine import list_children
from ops.local.subprocesses import ProcessSpec, start_process
from ops.services import open_cli_services

_START_TIMEOUT_S = 120.0
_WAIT_UNTIL_READY_S = 5.0
_ROLES = {
    "gateway": b"-m\0gateway\0",
    "writer": b"workers\0order_writer\0",
    "payments": b"workers\0payment_worker\0",
    "fulfilment": b"workers\0fulfilment_worker\0",
    "maintenance": b"workers\0release_worker\0",
    "sandbox": b"-m\0ops.sandbox\0",
    "redis": b"-server",  # redis-server or valkey-server
    "postgres": b"postgres\0-D\0",
}


@dataclass(frozen=True, slots=True)
class BenchedShop:
    """A running shop: `pids` by role, the addresses of its gateways, of their metrics and of its sandbox."""

    environment: BenchEnvironment
    url: str
    admin_url: str
    sandbox_url: str
    pids: Mapping[str, list[int]]


@asynccontextmanager
async def open_shop(limits: Mapping[str, str] = NO_LIMITS_OF_CLIENTS) -> AsyncIterator[BenchedShop]:
    """Run `floodgate up` with two gateways, and open the sale.

    All settings are the defaults, but for the `limits`, which are variables of the environment.
    """
    home = Path(tempfile.mkdtemp(prefix="fg-rush-"))
    home.chmod(0o755)
    port, admin_port, sandbox_port = find_free_port(), find_free_port(), find_free_port()
    url, admin_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"

    async def check_ready() -> None:
        timeout = aiohttp.ClientTimeout(total=_WAIT_UNTIL_READY_S)
        # Once all have started, `floodgate up` prints how to place an order.
        if "Ctrl-C stops" not in log.read_text():
            raise ConnectionError("floodgate up is still starting")
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(f"{url}/health/ready") as response:
            response.raise_for_status()

    log = home / "up.out"
    settings = {
        "FLOODGATE_DATA_DIR": str(home),
        "FLOODGATE_HTTP__PORT": str(port),
        "FLOODGATE_HTTP__ADMIN_PORT": str(admin_port),
        "FLOODGATE_SANDBOX__PORT": str(sandbox_port),
        "FLOODGATE_HTTP__PROCESSES": "2",
        **limits,
    }
    program = str(Path(sys.executable).with_name("floodgate"))
    spec = ProcessSpec(
        *("shop", (program, "up", "--no-demo"), log),
        env=settings,
        stop_timeout_s=60,
        check_ready=check_ready,
        ready_timeout_s=_START_TIMEOUT_S,
    )
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        running = await start_process(spec)
        stack.push_async_callback(running.stop)
        servers = tomllib.loads(servers_file(home).read_text())
        keys = tomllib.loads(local_file(home).read_text())["auth"]
        shop_settings = load(
            data_dir=home, redis_url=servers["redis_url"], database_url=servers["database_url"], auth=keys
        )
        shop = await stack.enter_async_context(open_cli_services(shop_settings))
        pids = {role: _find_pids(running.pid, command) for role, command in _ROLES.items()}
        environment = BenchEnvironment(home, shop_settings, pids["redis"][0], pids["postgres"][0], shop, 1)
        await open_sale(environment)
        yield BenchedShop(environment, url, admin_url, f"http://127.0.0.1:{sandbox_port}", pids)


def _find_pids(parent: int, command: bytes) -> list[int]:
    return [pid for pid in list_children(parent) if command in Path(f"/proc/{pid}/cmdline").read_bytes()]
