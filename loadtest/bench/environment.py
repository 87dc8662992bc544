"""Environment of the benchmarks: own servers with production settings, and a shop with one sale.

Redis syncs every write, Postgres every commit.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import cast

import orjson

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import DAY_MS, SystemClock, from_ms
from commerce.kernel.migrations import migrate
from commerce.kernel.postgres import connect
from commerce.sales.model import ItemInput, SaleInput
from config.settings import Durability, Settings, load
from gateway.auth import sign_token
from lua import SaleKeys
from ops.local import embedded_servers
from ops.local.subprocesses import ProcessSpec, RunningProcess, start_process
from ops.services import CliServices, open_cli_services

SALE_ID = "bench"
NO_LIMITS_OF_CLIENTS = {
    "FLOODGATE_LIMITS__ORDERS_PER_USER_PER_S": "100000",
    "FLOODGATE_LIMITS__ORDERS_PER_USER_BURST": "100000",
    "FLOODGATE_LIMITS__CONNECTIONS": "100000",
    "FLOODGATE_LIMITS__CONNECTIONS_PER_ADDRESS": "100000",
    "FLOODGATE_LIMITS__ORDERS_PER_ADDRESS_PER_S": "10000000",
    "FLOODGATE_LIMITS__ORDERS_PER_ADDRESS_BURST": "10000000",
    "FLOODGATE_HTTP__PROXY_NETWORKS": "[]",  # refused clients rest; those of a proxy would not
}
"""settings by which one machine may send the orders of a whole country, as clients of its own"""
SKU_PREFIX, PRICE = "BENCH-", 255
UNITS = 1_000_000_000
_USERS = 10_000
_PRODUCTS_PER_CALL = 1_000


@dataclass(frozen=True, slots=True)
class BenchEnvironment:
    """Running servers, settings for them, and a shop with one sale that does not sell out, or with more.

    Each order of a load takes `units_per_order` units.
    """

    home: Path
    settings: Settings
    redis_pid: int
    postgres_pid: int
    shop: CliServices
    skus: int
    units_per_order: int = 1
    sale_ids: tuple[str, ...] = (SALE_ID,)

    @property
    def tokens(self) -> Path:
        """file with a header line per user: a token"""
        return self.home / "tokens"

    @property
    def names(self) -> Path:
        """file with a header line per user: a bare name, for peers that check no tokens"""
        return self.home / "names"

    @property
    def order(self) -> Path:
        """file with an order as JSON, with @ for the number of the SKU"""
        return self.home / "order.json"

    def load_arguments(self, users: Path, pause_ms: float = 0) -> tuple[str | float | Path, ...]:
        """Return the arguments of `load.lua` for one run."""
        return users, self.order, self.skus, secrets.token_hex(4), pause_ms

    async def count_sold(self) -> int:
        """Return the number of orders taken so far, in all sales."""
        free = [int(units) for sale_id in self.sale_ids for units in await self.read_stock(sale_id)]
        return (len(free) * UNITS - sum(free)) // self.units_per_order

    async def read_stock(self, sale_id: str) -> list[bytes]:
        """Return the free units of each SKU of a sale."""
        return await cast(Awaitable[list[bytes]], self.shop.redis.hvals(SaleKeys(sale_id).stock.decode()))

    async def sweep(self) -> None:
        """Delete orders and keys, so that each run begins with the same Redis. The stock stays as it is."""
        redis, today = self.shop.redis, self.shop.clock.now_ms() // DAY_MS
        for keys in map(SaleKeys, self.sale_ids):
            await redis.xtrim(keys.orders, maxlen=0, approximate=False)  # keeps the consumer group
            await redis.delete(keys.accepted, keys.buyers, *(keys.keys(today + offset) for offset in (-1, 0, 1)))

    async def run_module(
        self, name: str, *module: str, port: int = 0, env: Mapping[str, str] | None = None
    ) -> RunningProcess:
        """Start a Python module as a process, and wait until it listens on the port unless that is 0."""
        return await self.run_program(name, sys.executable, "-m", *module, port=port, env=env)

    async def run_program(
        self, name: str, *argv: str, port: int, env: Mapping[str, str] | None = None
    ) -> RunningProcess:
        """Start a program, and wait until it listens on the port unless that is 0."""

        async def check_ready() -> None:
            if port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()

        variables = {**list_variables(self.settings, self.home), **(env or {})}
        return await start_process(
            ProcessSpec(name, argv, self.home / f"{name}.log", env=variables, check_ready=check_ready)
        )


@asynccontextmanager
async def open_environment(skus: int = 1, durability: Durability = "fsync") -> AsyncIterator[BenchEnvironment]:
    """Open an environment whose sale has so many SKUs; with durability `memory` Redis keeps no file."""
    home = Path(tempfile.mkdtemp(prefix="fg-bench-"))
    home.chmod(0o755)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        redis, postgres = embedded_servers.prepare_redis_server(home), embedded_servers.prepare_postgres_server(home)
        running = [await start_process(server.spec) for server in (redis, postgres)]
        for process in running:
            stack.push_async_callback(process.stop)
        connection = await connect(postgres.url, name="bench", timeout_s=60)
        await migrate(connection)
        await connection.close()
        settings = load(
            data_dir=home,
            redis_url=redis.url,
            database_url=postgres.url,
            auth={"keys": [{"kid": "bench", "secret": secrets.token_hex(32)}]},
            durability=durability,
        )
        shop = await stack.enter_async_context(open_cli_services(settings))
        if durability == "memory":
            await shop.redis.config_set("appendonly", "no")
        environment = BenchEnvironment(home, settings, running[0].pid, running[1].pid, shop, skus)
        await open_sale(environment)
        yield environment


async def open_sale(environment: BenchEnvironment) -> None:
    """Open the sale of an environment, and write the files from which orders are made."""
    shop = environment.shop
    names = [f"{SKU_PREFIX}{number}" for number in range(environment.skus)]
    for first in range(0, len(names), _PRODUCTS_PER_CALL):
        products = [
            (sku, VariantInput("A thing to buy", PRICE, "CNY")) for sku in names[first : first + _PRODUCTS_PER_CALL]
        ]
        await shop.catalog.put_many(products)
    await create_sale(environment, SALE_ID, UNITS)
    _write_load_files(environment)


async def create_sale(environment: BenchEnvironment, sale_id: str, units: int) -> None:
    """Open a sale of all SKUs, with so many units of each."""
    shop = environment.shop
    opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
    sale = SaleInput(sale_id, "The benchmark", "CNY", opens_at, pay_within_s=86_400)
    items = [
        (f"{SKU_PREFIX}{number}", ItemInput(limit_per_user=1_000_000, units=units))
        for number in range(environment.skus)
    ]
    await shop.sales.create(sale, items, "bench")
    await shop.sales.open(sale_id, "bench")


def list_variables(settings: Settings, home: Path) -> dict[str, str]:
    """Return the environment variables of a process, with multiprocess metrics as in production."""
    keys = [{"kid": key.kid, "secret": key.secret.get_secret_value()} for key in settings.auth.keys]
    return {
        "REDIS_URL": settings.redis(),
        "DATABASE_URL": settings.database(),
        "FLOODGATE_DATA_DIR": str(home),
        "FLOODGATE_METRICS_DIR": str(home / "metrics"),
        "FLOODGATE_DURABILITY": settings.durability,
        "FLOODGATE_AUTH__KEYS": orjson.dumps(keys).decode(),
        "FLOODGATE_LIMITS__BACKLOG_ORDERS": "10000000",
        **NO_LIMITS_OF_CLIENTS,
    }


def find_free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


ADDRESS = {
    "name": "Zhang San",
    "phone": "13800000000",
    "country": "CN",
    "province": "Zhejiang",
    "city": "Hangzhou",
    "district": "Xihu",
    "line": "Wenyi West Road 969",
    "postcode": "310000",
}


def _write_load_files(environment: BenchEnvironment) -> None:
    """Write the files that wrk reads: a header line for each of 10,000 users, and an order."""
    clock = SystemClock()
    tokens = [
        sign_token(environment.settings.auth, clock, f"user-{user}", "floodgate", (), 86_400) for user in range(_USERS)
    ]
    environment.tokens.write_text("".join(f"Authorization: Bearer {token}\n" for token in tokens))
    environment.names.write_text("".join(f"X-User: user-{user}\n" for user in range(_USERS)))
    environment.order.write_bytes(encode_order(SALE_ID))


def encode_order(sale_id: str) -> bytes:
    """Encode an order of one unit, with @ for the number of the SKU."""
    order = {
        "sale_id": sale_id,
        "lines": [{"sku": f"{SKU_PREFIX}@", "quantity": 1}],
        "ship_to": [ADDRESS],
        "payments": [{"method": "alipay", "amount": PRICE}],
    }
    return orjson.dumps(order)
