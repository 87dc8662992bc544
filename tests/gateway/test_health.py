"""Readiness: a gateway that can take orders is ready, also without Postgres; the answer comes in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.proxy import open_postgres_proxy, open_redis_proxy
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers


async def has_database_state(gateway: TestGateway, state: str) -> bool:
    return bool((await gateway.call("GET", "/health/ready", user=None)).body["database"] == state)


@pytest.mark.parametrize("failure", ["gone", "frozen"])
async def test_gateway_without_postgres_is_ready_and_takes_orders(
    make_settings: Callable[..., Settings],
    database_url: str,
    shop: CliServices,
    sale_id: str,
    tmp_path: Path,
    failure: str,
) -> None:
    """A load balancer that drops unready gateways must not end a running sale."""
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    async with (
        open_postgres_proxy(database_url, tmp_path) as (proxy, url),
        open_gateway(make_settings(database_url=url)) as gateway,
    ):
        ready = await gateway.call("GET", "/health/ready", user=None)
        assert (ready.status, ready.body["database"], ready.body["checks"]["postgres"]) == (200, "up", "ok")
        if failure == "gone":
            proxy.cut()
        else:
            proxy.hold.clear()
        await eventually(lambda: has_database_state(gateway, "down"))
        async with asyncio.timeout(1):
            ready = await gateway.call("GET", "/health/ready", user=None)
        assert (ready.status, ready.body["status"]) == (200, "ready")
        assert ready.body["checks"]["redis"] == ready.body["checks"]["process"] == "ok"
        assert ready.body["checks"]["postgres"] != "ok"
        assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202
        proxy.refuse = False
        proxy.hold.set()
        await eventually(lambda: has_database_state(gateway, "up"))


async def test_readiness_with_hanging_redis_answers_within_two_seconds(
    make_settings: Callable[..., Settings], servers: Servers, sale_prefix: str, tmp_path: Path
) -> None:
    async with open_redis_proxy(servers.redis_url, tmp_path) as (proxy, url):
        settings = make_settings(redis_url=url, limits={"redis_call_timeout_ms": 10_000})
        async with open_gateway(settings) as gateway:
            proxy.hold.clear()
            async with asyncio.timeout(3):
                ready = await gateway.call("GET", "/health/ready", user=None)
            assert (ready.status, ready.headers["Retry-After"]) == (503, "1")
            assert ready.body["checks"]["redis"] == "no answer within 2 s"
            proxy.hold.set()


async def test_gateway_stopping_is_not_ready(gateway: TestGateway) -> None:
    gateway.services.stopping.set()
    ready = await gateway.call("GET", "/health/ready", user=None)
    assert (ready.status, ready.body["status"]) == (503, "not_ready")
    assert ready.body["checks"]["process"] == "it is stopping"
