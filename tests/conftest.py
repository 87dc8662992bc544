"""Fixtures: servers for the session, a database and a prefix for sales for each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import uvloop

from commerce.payments import payment_jobs
from config.settings import Settings, load
from ops.services import CliServices, open_cli_services
from tests.support.gateway import TestGateway, open_gateway
from tests.support.payment_shop import PaymentShop, open_payment_shop
from tests.support.redis_key_leaks import sweep
from tests.support.servers import TEMPLATE, Servers, run_servers
from tests.support.shipping_shop import ShippingShop, open_shipping_shop

SECRET = "only for tests, and long enough for HS256"


def _debug_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop, "debug": _debug_loop}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in production; FLOODGATE_TEST_LOOPS=uvloop,asyncio,debug runs the suite on others too."""
    wanted = os.environ.get("FLOODGATE_TEST_LOOPS", "uvloop").split(",")
    return {name: LOOPS[name] for name in wanted}


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with run_servers() as found:
        yield found


@pytest.fixture
def sale_prefix(servers: Servers) -> Iterator[str]:
    """Sales of this test begin with it. Whatever else is in Redis after the test, the test made by mistake."""
    prefix = f"t{uuid4().hex[:10]}"
    yield prefix
    strays = sweep(servers.redis_url, prefix)
    assert not strays, f"stray keys in Redis: {strays}"


@pytest.fixture
def sale_id(sale_prefix: str) -> str:
    return f"{sale_prefix}-sale"


@pytest.fixture
async def database_url(servers: Servers) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(servers.database_url.format("postgres"))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield servers.database_url.format(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
def make_settings(
    servers: Servers, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Settings for the test's servers; arguments change parts of them."""
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))

    def make(**parts: object) -> Settings:
        base: dict[str, object] = {
            "redis_url": servers.redis_url,
            "database_url": database_url,
            "auth": {"keys": [{"kid": "test", "secret": SECRET}]},
            "jobs": {"poll_ms": 20, "backoff_initial_ms": 20},
            "writer": {"read_block_ms": 50, "claim_idle_ms": 300},
            "limits": {"orders_per_user_per_s": 10_000, "orders_per_user_burst": 10_000},
        }
        for name, value in parts.items():
            before = base.get(name)
            base[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        return load(**base)

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
async def shop(settings: Settings, sale_prefix: str) -> AsyncIterator[CliServices]:
    async with open_cli_services(settings) as found:
        yield found


@pytest.fixture
async def gateway(settings: Settings, sale_prefix: str) -> AsyncIterator[TestGateway]:
    async with open_gateway(settings) as found:
        yield found


@pytest.fixture
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The payment driver looks soon whether somebody has paid."""
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 50)


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, short_polls: None) -> AsyncIterator[PaymentShop]:
    """A shop that is paid; after the test nothing is left to be done, and the books agree."""
    async with open_payment_shop(shop, sale_id) as found:
        yield found
        await found.quiet()
        await found.check()


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    """A shop with shipments; after the test units, bookings and histories must agree.

    A lease outlasts any test: what is to be due or over, a test makes so.
    """
    async with open_shipping_shop(shop, settings, lease_s=60) as found:
        yield found
        await found.check_records()
