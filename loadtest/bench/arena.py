"""Servers of the benchmark's own, with the settings of production: Redis syncs every write, Postgres every commit."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import orjson

from commerce.catalog.model import ProductInput
from commerce.kernel.clock import SystemClock, from_ms
from commerce.kernel.database import connect
from commerce.kernel.migrations import migrate
from commerce.sales.model import ItemInput, SaleInput
from config.settings import Settings, load
from gateway.auth import sign
from ops import embedded
from ops.commands.common import Shop, open_shop
from ops.programs import Program, Running, start

SALE_ID = "bench"
SKU = "BENCH-1"
_PRICE = 255
_UNITS = 1_000_000_000
_USERS = 10_000


@dataclass(frozen=True, slots=True)
class Arena:
    """Running servers, settings for them, and a shop with one sale of plenty."""

    home: Path
    settings: Settings
    redis: Running
    postgres: Running
    shop: Shop

    async def run(self, name: str, *module: str, port: int = 0, env: Mapping[str, str] | None = None) -> Running:
        """Start a process of ours and wait until it listens on the port, if it has one."""

        async def ready() -> None:
            if port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()

        program = Program(
            name,
            [sys.executable, "-m", *module],
            self.home / f"{name}.log",
            env={**environment(self.settings, self.home), **(env or {})},
            ready=ready,
        )
        return await start(program)


@asynccontextmanager
async def arena(**changes: object) -> AsyncIterator[Arena]:
    """`changes` go into the settings."""
    home = Path(tempfile.mkdtemp(prefix="fg-bench-"))
    home.chmod(0o755)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        redis, postgres = embedded.redis_server(home), embedded.postgres_server(home)
        running = [await start(server.program) for server in (redis, postgres)]
        for one in running:
            stack.push_async_callback(one.stop)
        connection = await connect(postgres.url, name="bench", timeout_s=60)
        await migrate(connection)
        await connection.close()
        settings = load(
            data_dir=home,
            redis_url=redis.url,
            database_url=postgres.url,
            auth={"keys": [{"kid": "bench", "secret": secrets.token_hex(32)}]},
            **changes,
        )
        shop = await stack.enter_async_context(open_shop(settings))
        await shop.catalog.put_many([(SKU, ProductInput("A thing to buy", _PRICE, "CNY"))])
        opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
        sale = SaleInput(SALE_ID, "The benchmark", "CNY", opens_at, pay_within_s=86_400)
        await shop.sales.create(sale, [(SKU, ItemInput(limit=1_000_000, units=_UNITS))], "bench")
        await shop.sales.open(SALE_ID, "bench")
        yield Arena(home, settings, running[0], running[1], shop)


def environment(settings: Settings, home: Path) -> dict[str, str]:
    """The settings for a process, with metrics shared over processes as in production."""
    keys = [{"kid": key.kid, "secret": key.secret.get_secret_value()} for key in settings.auth.keys]
    return {
        "REDIS_URL": settings.redis(),
        "DATABASE_URL": settings.database(),
        "FLOODGATE_DATA_DIR": str(home),
        "FLOODGATE_METRICS_DIR": str(home / "metrics"),
        "FLOODGATE_DURABILITY": settings.durability,
        "FLOODGATE_AUTH__KEYS": orjson.dumps(keys).decode(),
        "FLOODGATE_LIMITS__ORDERS_PER_USER_PER_S": "100000",
        "FLOODGATE_LIMITS__ORDERS_PER_USER_BURST": "100000",
    }


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_ADDRESS = {
    "name": "Zhang San",
    "phone": "13800000000",
    "country": "CN",
    "province": "Zhejiang",
    "city": "Hangzhou",
    "district": "Xihu",
    "line": "Wenyi West Road 969",
    "postcode": "310000",
}


def order_requests(settings: Settings) -> Iterator[bytes]:
    """Orders as bytes without end: 10,000 users in turn, each order under a key of its own."""
    clock = SystemClock()
    body = orjson.dumps(
        {
            "sale_id": SALE_ID,
            "lines": [{"sku": SKU, "quantity": 2}],
            "ship_to": [_ADDRESS],
            "payments": [{"method": "alipay", "amount": 2 * _PRICE}],
        }
    )
    heads = [
        (
            "POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {sign(settings.auth, clock, f'user-{user}', 'floodgate', (), 86_400)}\r\n"
            f"Content-Length: {len(body)}\r\nIdempotency-Key: {secrets.token_hex(4)}-"
        ).encode()
        for user in range(_USERS)
    ]
    for number in count():
        yield heads[number % _USERS] + str(number).encode() + b"\r\n\r\n" + body


def hello_requests() -> Iterator[bytes]:
    """Hello without end."""
    while True:
        yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
