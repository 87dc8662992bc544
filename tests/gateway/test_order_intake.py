"""The hot path: batches, and outcomes while Redis is slow, cut off or gone (P2, P3, P9)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import lua
from commerce.kernel.clock import DAY_MS
from commerce.sales.loading import load_sale
from config.settings import Settings
from lua import ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.proxy import Proxy, open_redis_proxy
from tests.support.sales import eventually, make_sale, order_body, reservation, reserve
from tests.support.servers import Servers

LIMITS = {"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_000}  # a busy machine answers within them


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (100_000, 255, None)})


@pytest.fixture
async def proxy(servers: Servers, tmp_path: Path, shop: CliServices) -> AsyncIterator[tuple[Proxy, str]]:
    async with open_redis_proxy(servers.redis_url, tmp_path) as redis_proxy:
        yield redis_proxy


@pytest.fixture
async def gateway(
    make_settings: Callable[..., Settings], proxy: tuple[Proxy, str], keys: SaleKeys
) -> AsyncIterator[TestGateway]:
    """A gateway that reaches Redis through the proxy."""
    async with open_gateway(make_settings(redis_url=proxy[1], limits=LIMITS)) as test_gateway:
        yield test_gateway


async def count_taken_units(shop: CliServices, keys: SaleKeys) -> int:
    return 100_000 - (await lua.cut(shop.redis, keys)).stock["b"]


async def test_concurrent_orders_share_reserve_calls(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    before = proxy[0].calls
    answers = await asyncio.gather(*(gateway.order(order_body(sale_id, ("b", 1))) for _ in range(200)))
    assert {answer.status for answer in answers} == {202}
    assert proxy[0].calls - before < 100
    assert await count_taken_units(shop, keys) == 200


async def test_batch_never_exceeds_limits(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    settings = make_settings(limits={"batch_orders": 4, "concurrent_reserve_calls": 1, "order_wait_target_ms": 5_000})
    async with open_gateway(settings) as gateway:
        answers = await asyncio.gather(*(gateway.order(order_body(sale_id, ("b", 1))) for _ in range(60)))
        assert {answer.status for answer in answers} == {202}
    sizes = [len(entry.orders) async for entry in lua.iter_stream(shop.redis, keys)]
    assert max(sizes) <= 4
    assert sum(sizes) == 60


async def test_order_in_batch_succeeds_or_fails_alone(gateway: TestGateway, sale_id: str, keys: SaleKeys) -> None:
    bodies = [order_body(sale_id, ("a", 5)), order_body(sale_id, ("a", 6)), order_body(sale_id, ("b", 1))] * 4
    answers = await asyncio.gather(*(gateway.order(body, user=f"u{n}") for n, body in enumerate(bodies)))
    assert Counter(answer.status for answer in answers) == {202: 8, 409: 4}


async def test_reply_lost_once_is_resolved_by_repeat(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """Redis accepted the orders and the connection broke: the repeated batch gets the same orders."""
    proxy[0].lose_replies = 1
    answers = await asyncio.gather(*(gateway.order(order_body(sale_id, ("b", 1))) for _ in range(20)))
    assert proxy[0].lost == 1
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["order_id"] for answer in answers}) == 20
    assert await count_taken_units(shop, keys) == 20


async def test_replies_lost_until_deadline_answer_outcome_unknown(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """Redis accepted the order and is unreachable since: 503, and a repeat with the key finds it (P9, P3)."""
    proxy[0].lose_replies = 1_000_000
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "outcome_unknown", "1")
    assert await count_taken_units(shop, keys) == 1
    proxy[0].lose_replies = 0
    again = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert again.status == 200
    assert await count_taken_units(shop, keys) == 1


async def test_reply_lost_then_redis_refusal_answers_outcome_unknown(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """The order was accepted and the reply lost; that Redis now refuses commands does not undo it."""

    async def forbid() -> None:
        await shop.redis.execute_command("ACL", "SETUSER", "default", "-eval", "-evalsha")

    proxy[0].lose_replies, proxy[0].when_lost = 1, forbid
    try:
        answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
        assert (answer.status, answer.code) == (503, "outcome_unknown")
    finally:
        await shop.redis.execute_command("ACL", "SETUSER", "default", "+@all")
    assert (await gateway.order(order_body(sale_id, ("b", 1)), key="k")).status == 200
    assert await count_taken_units(shop, keys) == 1


async def test_reply_lost_then_sale_not_loaded_answers_outcome_unknown(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """P9: the order was accepted; a server that does not have the sale cannot know that nothing was taken."""

    async def unload() -> None:
        await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)

    proxy[0].lose_replies, proxy[0].when_lost = 1, unload
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert (answer.status, answer.code) == (503, "outcome_unknown")
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert (await gateway.order(order_body(sale_id, ("b", 1)), key="k")).status == 200
    assert await count_taken_units(shop, keys) == 1


async def test_reply_lost_then_sale_loaded_again_finds_the_order(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    loads: list[asyncio.Task[object]] = []

    async def load() -> None:
        await lua.unload(shop.redis, keys, shop.clock.now_ms() // DAY_MS)
        loads.append(asyncio.create_task(load_sale(shop.db, shop.redis, shop.clock, sale_id)))

    proxy[0].lose_replies, proxy[0].when_lost = 1, load
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert answer.status == 202
    assert await count_taken_units(shop, keys) == 1


async def test_reply_lost_then_key_used_in_another_sale_finds_the_order(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """The key was free when the order was sent, so its use elsewhere meanwhile does not undo it."""
    other_keys = await make_sale(shop, f"{sale_id}-other", {"c": (5, 100, None)})
    await gateway.services.snapshots.refresh()

    async def use_key() -> None:
        other = reservation(shop.ids.new, f"{sale_id}-other", {"c": 1}, key="k")
        [result] = await reserve(shop.redis, other_keys, other)
        assert result.outcome is ReserveOutcome.ACCEPTED

    proxy[0].lose_replies, proxy[0].when_lost = 1, use_key
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert answer.status == 202
    assert await count_taken_units(shop, keys) == 1


async def test_redis_hanging_answers_outcome_unknown(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    proxy[0].hold.clear()
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert (answer.status, answer.code) == (503, "outcome_unknown")
    proxy[0].hold.set()
    again = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert again.status in (200, 202)
    assert await count_taken_units(shop, keys) == 1


async def test_redis_gone_answers_not_ready_and_recovers(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """Once Redis is known to be gone, no order is sent, so the answer is not_ready."""
    proxy[0].cut()
    await gateway.order(order_body(sale_id, ("b", 1)))
    answer = await gateway.order(order_body(sale_id, ("b", 1)), key="k")
    assert (answer.status, answer.code) == (503, "not_ready")
    assert await count_taken_units(shop, keys) == 0
    ready = await gateway.call("GET", "/health/ready", user=None)
    assert (ready.status, ready.body["status"]) == (503, "not_ready")
    proxy[0].refuse = False
    assert (await gateway.order(order_body(sale_id, ("b", 1)), key="k")).status == 202

    async def is_ready() -> bool:
        return (await gateway.call("GET", "/health/ready", user=None)).status == 200

    await eventually(is_ready)  # an answer about readiness may be a second old


async def test_redis_briefly_gone_accepts_all_orders(
    shop: CliServices, gateway: TestGateway, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    proxy[0].cut()
    ordering = [asyncio.create_task(gateway.order(order_body(sale_id, ("b", 1)))) for _ in range(10)]
    await asyncio.sleep(0.2)
    proxy[0].refuse = False
    assert {answer.status for answer in await asyncio.gather(*ordering)} == {202}
    assert await count_taken_units(shop, keys) == 10


async def test_orders_that_would_wait_too_long_are_refused_at_once(
    make_settings: Callable[..., Settings], shop: CliServices, proxy: tuple[Proxy, str], sale_id: str, keys: SaleKeys
) -> None:
    """P10: admitted orders are served; the others are refused at once and take no stock."""
    limits = LIMITS | {
        "order_wait_target_ms": 5,
        "batch_orders": 5,
        "concurrent_reserve_calls": 1,
        "redis_call_timeout_ms": 5_000,
    }
    settings = make_settings(redis_url=proxy[1], limits=limits | {"order_timeout_ms": 5_000})
    async with open_gateway(settings) as gateway:
        admission, loop = gateway.services.admission, asyncio.get_running_loop()
        proxy[0].hold.clear()
        first = [asyncio.create_task(gateway.order(order_body(sale_id, ("b", 1))))]
        await eventually(lambda: _is_at_least(1, lambda: len(gateway.services.intake._calls)))
        first += [asyncio.create_task(gateway.order(order_body(sale_id, ("b", 1)))) for _ in range(5)]
        await eventually(lambda: _is_at_least(1, lambda: admission.pressure(loop.time())))
        refused = await asyncio.gather(*(gateway.order(order_body(sale_id, ("b", 1))) for _ in range(20)))
        assert {(answer.status, answer.code) for answer in refused} == {(503, "overloaded")}
        assert {answer.headers["Retry-After"] for answer in refused} <= {"1", "2"}
        proxy[0].hold.set()
        assert {answer.status for answer in await asyncio.gather(*first)} == {202}
    assert await count_taken_units(shop, keys) == 6


async def _is_at_least(count: float, read: Callable[[], float]) -> bool:
    return read() >= count


async def test_backlog_over_limit_refuses_new_orders(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    async with open_gateway(make_settings(limits={"backlog_orders": 3})) as gateway:
        for _ in range(3):
            assert (await gateway.order(order_body(sale_id, ("b", 1)))).status == 202
        await eventually(lambda: _is_at_least(3, lambda: gateway.services.admission.backlog))
        answer = await gateway.order(order_body(sale_id, ("b", 1)))
        assert (answer.status, answer.code) == (503, "overloaded")
    assert await count_taken_units(shop, keys) == 3


async def test_user_over_rate_limit_gets_429(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, keys: SaleKeys
) -> None:
    limits = {"orders_per_user_per_s": 0.001, "orders_per_user_burst": 3}
    async with open_gateway(make_settings(limits=limits)) as gateway:
        answers = [await gateway.order(order_body(sale_id, ("b", 1))) for _ in range(4)]
        assert [answer.status for answer in answers] == [202, 202, 202, 429]
        assert answers[3].code == "too_many_requests"
        assert 990 <= int(answers[3].headers["Retry-After"]) <= 1_500
        assert (await gateway.order(order_body(sale_id, ("b", 1)), user="other")).status == 202
