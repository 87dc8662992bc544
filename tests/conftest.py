"""Fixtures: servers per session; a database and a prefix of sale ids per test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import uvloop

from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.payments import polling
from config.settings import Settings, load
from ops.services import CliServices, open_cli_services
from tests.support.databases import Databases
from tests.support.gateway import TestGateway, open_gateway
from tests.support.payment_shop import PaymentShop, open_payment_shop
from tests.support.redis_key_leaks import delete_keys
from tests.support.repeated_work import share_repeated_work
from tests.support.servers import Servers, run_servers
from tests.support.shipping_shop import ShippingShop, open_shipping_shop

share_repeated_work()

SECRET = "only for tests, and long enough for HS256"
_TESTS = Path(__file__).parent
_LONGEST_FILES = [
    (_TESTS / file).resolve(strict=True)
    for file in (
        "gateway/test_openapi.py",
        "gateway/test_fast_path_equivalence.py",
        "ops/test_up.py",
        "loadtest/test_scenarios.py",
        "style/test_style.py",
        "promises/test_failovers.py",
        "promises/test_crashes.py",
        "promises/test_aftersales_model.py",
        "promises/test_checkout_crashes.py",
        "ops/test_standard_streams.py",
        "loadtest/test_scenario_runs.py",
        "gateway/test_slow_clients.py",
        "gateway/test_postgres_outages.py",
        "gateway/test_generated_bodies.py",
        "promises/test_payment_crashes.py",
        "promises/test_shipment_crashes.py",
        "promises/test_races.py",
        "promises/test_aftersales_races.py",
        "gateway/test_exchanges_http.py",
        "lua/test_model.py",
        "ops/test_dockerfile.py",
        "ops/test_sandbox_process.py",
        "ops/test_printed_texts.py",
        "gateway/test_bad_input.py",
        "fulfilment/test_documents.py",
        "product_imports/test_product_faults.py",
        "product_imports/test_product_imports_http.py",
    )
]
"""Files that take the longest, longest first.

One that starts last would leave a core idle."""


def _debug_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop, "debug": _debug_loop}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop, as in production, or the event loops that FLOODGATE_TEST_LOOPS lists by name."""
    names = os.environ.get("FLOODGATE_TEST_LOOPS", "uvloop").split(",")
    return {name: LOOPS[name] for name in names}


def pytest_xdist_auto_num_workers() -> int | None:
    """Return three workers for two cores: tests wait for almost half of their time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first. The order within a file and that of all others stay."""
    ranks = {file: rank for rank, file in enumerate(_LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Collect garbage less often, and none of the tests: as the processes of the shop do."""
    tune_garbage_collector()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with run_servers() as servers:
        yield servers


@pytest.fixture
def sale_prefix(servers: Servers) -> Iterator[str]:
    """Prefix of the ids of this test's sales. Fails the test if it leaves any other key in Redis."""
    prefix = f"t{uuid4().hex[:10]}"
    yield prefix
    strays = delete_keys(servers.redis_url, prefix)
    assert not strays, f"stray keys in Redis: {strays}"


@pytest.fixture
def sale_id(sale_prefix: str) -> str:
    return f"{sale_prefix}-sale"


@pytest.fixture(scope="session")
def databases(servers: Servers) -> Databases:
    return Databases(servers)


@pytest.fixture
async def database_url(servers: Servers, databases: Databases) -> AsyncIterator[str]:
    """URL of a migrated database of this test."""
    name = await databases.take()
    yield servers.database_url.format(name)
    await databases.give_back(name)


@pytest.fixture
def make_settings(
    servers: Servers, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Settings]:
    """Factory of settings for the test's servers. Arguments override sections."""
    monkeypatch.setenv("FLOODGATE_DATA_DIR", str(tmp_path))

    def make(**sections: object) -> Settings:
        base: dict[str, object] = {
            "redis_url": servers.redis_url,
            "database_url": database_url,
            "auth": {"keys": [{"kid": "test", "secret": SECRET}]},
            "jobs": {"poll_ms": 20, "backoff_initial_ms": 20},
            "writer": {"read_block_ms": 50, "claim_idle_ms": 300},
            "limits": {"orders_per_user_per_s": 10_000, "orders_per_user_burst": 10_000},
        }
        for name, value in sections.items():
            default = base.get(name)
            base[name] = {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
        return load(**base)

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
async def shop(settings: Settings, sale_prefix: str) -> AsyncIterator[CliServices]:
    async with open_cli_services(settings) as services:
        yield services


@pytest.fixture
async def gateway(settings: Settings, sale_prefix: str) -> AsyncIterator[TestGateway]:
    async with open_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def short_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make payment workers poll pending payments every 50 ms."""
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 50)


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, short_polls: None) -> AsyncIterator[PaymentShop]:
    """A shop with payments. After the test all jobs must end and all records must agree."""
    async with open_payment_shop(shop, sale_id) as payment_shop:
        yield payment_shop
        await payment_shop.wait_until_idle()
        await payment_shop.check_records()


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    """A shop with shipments. After the test units, bookings and histories must agree.

    Leases outlast any test, so that a job is due only if the test makes it due.
    """
    async with open_shipping_shop(shop, settings, lease_s=60) as shipping_shop:
        yield shipping_shop
        await shipping_shop.check_records()
