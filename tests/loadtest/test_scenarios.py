"""Scenarios of locust: no violations in a correct shop, and each lie of a lying shop is reported."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

import lua
from config.settings import Settings
from loadtest.scenarios.order_generator import DEMO_SALE, DEMO_SKU
from lua import SaleKeys
from ops.local import demo_sales
from ops.services import CliServices
from tests.support.locust_runs import check_clean, key_environment, run_locust
from tests.support.processes import run_processes
from tests.support.sales import CURRENCY, eventually, make_sale

OFFERS: dict[str, tuple[int, int, int | None]] = {
    "phone": (1_000, 399_900, 1),
    "buds": (1_000, 29_900, 2),
    "tea": (5_000, 16_800, None),
    "rice": (5_000, 5_990, None),
    "lamp": (5_000, 8_900, None),
    "cable": (5_000, 990, 10),
}


async def wait_until_stored(shop: CliServices, sale_id: str) -> int:
    """Wait until all orders are stored, audit the sale, and return the number of orders."""

    async def is_drained() -> bool:
        return (await lua.read_backlog(shop.redis, SaleKeys(sale_id))).orders == 0

    await eventually(is_drained)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    async with shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM orders"))


async def test_spike_sells_every_unit_once(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, tmp_path: Path
) -> None:
    """80 customers, 30 units, one per customer; the gateway allows one order per user in two seconds."""
    await make_sale(shop, sale_id, {"phone": (30, 399_900, 1)})
    settings = make_settings(limits={"orders_per_user_per_s": 0.5, "orders_per_user_burst": 1})
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        await started.worker("order_writer")
        result = await run_locust(
            "midnight_spike",
            started.base,
            tmp_path,
            started.environment(),
            *("--sale", sale_id, "--sku", "phone"),
            users=80,
        )
        check_clean(result)
        assert await wait_until_stored(shop, sale_id) == 30
    assert "units promised in all: 30 (phone 30)" in result.output
    # Without --run-time the run ends when the last customer has left.
    assert result.requests["POST /v1/orders"] + result.requests.get("POST /v1/orders (replayed)", 0) >= 30
    assert result.requests["POST /v1/orders (sold_out)"] >= 50
    assert result.requests["POST /v1/orders (too_many_requests)"] > 0


async def test_steady_trade_finds_no_violation(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, OFFERS)
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        await started.worker("order_writer", "release_worker")
        options = ("--sale", sale_id, "--think-s", "0.3", "-t", "5s")
        result = await run_locust("steady_trade", started.base, tmp_path, started.environment(), *options, users=30)
        check_clean(result)
        assert await wait_until_stored(shop, sale_id) >= result.requests["POST /v1/orders"] > 50
    assert result.requests["GET /v1/orders/{id}"] > 0
    assert result.requests["POST /v1/orders/{id}/cancel"] > 0


async def test_browsing_finds_no_violation(shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path) -> None:
    await make_sale(shop, sale_id, OFFERS)
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        await started.worker("order_writer")
        options = ("--sale", sale_id, "--think-s", "0.3", "-t", "5s")
        result = await run_locust(
            "browse_order_poll", started.base, tmp_path, started.environment(), *options, users=20
        )
        check_clean(result)
        assert await wait_until_stored(shop, sale_id) >= result.requests["POST /v1/orders"] > 30
    assert result.requests["GET /v1/variants (not changed)"] > 0
    assert result.requests["WAIT until it is stored"] > 30
    assert result.requests["GET /v1/orders?idempotency_key"] > 60
    assert result.requests["GET /v1/orders"] > 30


async def test_shop_without_writer_is_reported(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Without a writer every order is found, but none is stored."""
    await make_sale(shop, sale_id, OFFERS)
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        options = ("--sale", sale_id, "--think-s", "0.3", "--stored-within-s", "1", "-t", "4s")
        result = await run_locust(
            "browse_order_poll", started.base, tmp_path, started.environment(), *options, users=10
        )
    assert result.status == 1
    assert "broken promise: an order was not stored in time" in result.output
    assert result.failures.pop("WAIT until it is stored") > 0
    assert sum(result.failures.values()) == 0, result.output


@asynccontextmanager
async def run_lying_shop(lie: str) -> AsyncIterator[str]:
    """Run a minimal shop that is correct except for one lie; yields its URL."""
    bodies: dict[str, bytes] = {}
    tag = {"ETag": '"one"', "X-Request-Id": "r"}

    async def sale(request: web.Request) -> web.Response:
        times = {"opens_at": "2026-01-01T00:00:00Z", "closes_at": None}
        body = {"sale_id": "s", "title": "A sale", "currency": CURRENCY, "state": "open", **times}
        return web.json_response(body, headers=tag)

    async def offers(request: web.Request) -> web.Response:
        limit = 1 if lie == "limit" else None
        offer = {
            "sku": "phone",
            "name": "Phone",
            "price": 100,
            "currency": CURRENCY,
            "limit_per_user": limit,
            "available": None,
        }
        return web.json_response({"items": [offer], "next": None}, headers=tag)

    async def order(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if lie == "retry_after":
            problem = {"type": "t", "title": "t", "status": 429, "code": "too_many_requests", "detail": "d"}
            body = orjson.dumps({**problem, "request_id": "r"})
            return web.Response(
                status=429, body=body, content_type="application/problem+json", headers={"X-Request-Id": "r"}
            )
        number = f"{len(bodies):012}"
        replayed = key in bodies
        cut = lie == "lost" and not replayed and len(bodies) % 5 == 0
        placed: dict[str, Any] = {
            "order_id": f"01890000-0000-7000-8000-{number}",
            "status": "accepted",
            "sale_id": "s",
            "total": {"amount": 101 if lie == "total" else 100, "currency": CURRENCY},
            "pay_by": "2100-01-01T00:00:00Z",
            "durability": "fsync",
        }
        body = orjson.dumps(placed)
        body = bodies.setdefault(key, body) if lie != "replay" else body
        bodies[key] = body
        if cut:
            assert request.transport is not None
            request.transport.abort()
        location = f"/v1/orders/{orjson.loads(body)['order_id']}"
        headers = {"Location": location, "X-Request-Id": "r"}
        status = 200 if replayed else 202
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    async def own_orders(request: web.Request) -> web.Response:
        return web.json_response({"items": [], "next": None}, headers=tag)

    app = web.Application()
    app.router.add_get("/v1/orders", own_orders)
    app.router.add_get("/v1/sales/s", sale)
    app.router.add_get("/v1/sales/s/offers", offers)
    app.router.add_post("/v1/orders", order)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("lie", "text"),
    [
        ("none", None),
        ("total", "the total is not what the offers say"),
        ("replay", "a repeat has another body"),
        ("limit", "more than the limit was promised to one customer"),
        ("retry_after", "429 too_many_requests without Retry-After"),
    ],
)
async def test_lie_of_a_shop_is_reported(lie: str, text: str | None, tmp_path: Path) -> None:
    env = key_environment(tmp_path)
    options = ("--sale", "s", "--sku", "phone", "-t", "3s")
    async with run_lying_shop(lie) as base:
        result = await run_locust("midnight_spike", base, tmp_path, env, *options, users=40)
    if text is None:
        check_clean(result)
        assert result.requests["POST /v1/orders (replayed)"] > 0
    else:
        assert result.status == 1
        assert f"broken promise: {text}" in result.output
        assert sum(result.failures.values()) > 0


async def test_lost_answer_is_no_violation(tmp_path: Path) -> None:
    """The connection breaks after every fifth order: the same key is sent again, and a replay is correct."""
    env = key_environment(tmp_path)
    options = ("--sale", "s", "--sku", "phone", "-t", "3s", "--exit-code-on-error", "0")
    async with run_lying_shop("lost") as base:
        result = await run_locust("midnight_spike", base, tmp_path, env, *options, users=40)
    assert result.status == 0
    assert "broken promise" not in result.output
    assert result.failures.pop("POST /v1/orders") > 0
    assert result.requests["POST /v1/orders (replayed)"] > 0


def test_scenario_defaults_exist_in_the_demo() -> None:
    assert demo_sales.SALE_ID == DEMO_SALE
    assert DEMO_SKU in [product[0] for product in demo_sales.PRODUCTS]
