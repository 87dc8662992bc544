"""Pages come from memory and orders in batches: both are new and bounded, and nobody gets another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from redis.exceptions import ResponseError

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import SystemClock
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Connection, Database
from config.settings import Settings
from gateway import order_reads, page_cache
from gateway.cached_content import Content, encode_content
from gateway.order_reads import OrderRead, OrderReads, StoredOrder
from gateway.page_cache import CachedPage, PageCache
from gateway.read_responses import PendingRead, ReadResponder
from gateway.refreshing_cache import RefreshingCache
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway, run_workers
from tests.support.proxy import open_postgres_proxy, open_redis_proxy
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers

ITEMS: dict[str, tuple[int, int, int | None]] = {"a": (50, 100, None), "b": (20, 200, 2)}


async def get(gateway: TestGateway, path: str, **kwargs: Any) -> GatewayResponse:
    return await gateway.call("GET", path, user=None, **kwargs)


async def test_changes_of_sales_stock_and_products_reach_pages(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    sale, offers = f"/v1/sales/{sale_id}", f"/v1/sales/{sale_id}/offers"
    await make_sale(shop, sale_id, ITEMS, opened=False)
    await gateway.services.snapshots.refresh()
    assert (await get(gateway, sale)).status == 404
    assert (await get(gateway, offers)).status == 404

    async def has(path: str, expected: Callable[[Any], object]) -> bool:
        answer = await get(gateway, path)
        return answer.status == 200 and bool(expected(answer.body))

    async def sees(path: str, expected: Callable[[Any], object]) -> None:
        await eventually(lambda: has(path, expected), 5)

    await shop.sales.open(sale_id, "test")
    await sees(sale, lambda body: body["state"] == "open")
    await sees("/v1/sales", lambda body: sale_id in [item["sale_id"] for item in body["items"]])
    first = (await get(gateway, offers)).body
    assert [(offer["sku"], offer["price"], offer["available"]) for offer in first["items"]] == [
        ("a", 100, 50),
        ("b", 200, 20),
    ]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(first["as_of"])).total_seconds()) < 5
    assert (await gateway.order(order_body(sale_id, ("a", 3)))).status == 202
    await sees(offers, lambda body: body["items"][0]["available"] == 47 and body["as_of"] > first["as_of"])
    await shop.sales.change_item(sale_id, "b", 150, None, "test")
    await sees(offers, lambda body: (body["items"][1]["price"], body["items"][1]["limit_per_user"]) == (150, None))
    assert (await get(gateway, "/v1/variants/a")).body["name"] == "thing a"
    await shop.catalog.put("a", VariantInput("another name", 300, "CNY"))
    await sees("/v1/variants/a", lambda body: (body["name"], body["price"]) == ("another name", 300))
    await sees(offers, lambda body: body["items"][0]["name"] == "another name")
    assert (await get(gateway, "/v1/variants/new")).status == 404
    await shop.catalog.put("new", VariantInput("new", 1, "CNY"))
    await sees("/v1/variants/new", lambda body: body["name"] == "new")
    await shop.sales.pause(sale_id, "test")
    await sees(sale, lambda body: body["state"] == "paused")
    await shop.sales.close(sale_id, "test")
    await sees(
        "/v1/sales", lambda body: {item["sale_id"]: item["state"] for item in body["items"]}[sale_id] == "closed"
    )


async def test_offers_are_paged(make_settings: Callable[..., Settings], shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, dict.fromkeys("abcde", (5, 100, None)))
    async with open_gateway(make_settings(limits={"page_items": 2})) as gateway:
        for query in ("", "&limit=1", "&x=1"):  # by the fast path and by aiohttp
            skus, cursor = [], ""
            while cursor is not None:
                parameters = f"{'cursor=' + cursor if cursor else ''}{query}".removeprefix("&")
                answer = await get(gateway, f"/v1/sales/{sale_id}/offers{'?' + parameters if parameters else ''}")
                skus += [offer["sku"] for offer in answer.body["items"]]
                cursor = answer.body["next"]
            assert skus == list("abcde"), query


async def test_many_reads_cause_few_queries(
    shop: CliServices, gateway: TestGateway, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    await gateway.services.snapshots.refresh()
    pages = ["/v1/sales", f"/v1/sales/{sale_id}", f"/v1/sales/{sale_id}/offers", "/v1/variants/a", "/v1/variants/b"]
    for path in pages:
        assert (await get(gateway, path)).status == 200
    borrowed = 0
    connection = Database.connection

    @asynccontextmanager
    async def count_connection(self: Database) -> AsyncIterator[Connection]:
        nonlocal borrowed
        borrowed += 1
        async with connection(self) as borrowed_connection:
            yield borrowed_connection

    async def stock_calls() -> int:
        stats = await shop.redis.info("commandstats")
        return int(stats.get("cmdstat_hmget", {}).get("calls", 0))

    monkeypatch.setattr(Database, "connection", count_connection)
    started, calls = monotonic(), await stock_calls()
    for _ in range(30):
        answers = await asyncio.gather(*(get(gateway, path) for path in pages * 10))
        assert {answer.status for answer in answers} == {200}
    elapsed = monotonic() - started
    assert borrowed <= 3 + 6 * elapsed  # the snapshots twice a second, other polls, and products about once
    assert await stock_calls() - calls <= 2 + 2 * elapsed


async def test_etag_saves_the_body_and_ignores_the_time_of_the_stock(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    await gateway.services.snapshots.refresh()
    order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
    offers = f"/v1/sales/{sale_id}/offers"
    for path in ("/v1/sales", f"/v1/sales/{sale_id}", offers, "/v1/variants/a", f"/v1/orders/{order_id}"):
        first = await gateway.call("GET", path)
        assert first.status == 200
        for sent in (first.headers["ETag"], f'"x", {first.headers["ETag"]}', "*"):
            again = await gateway.call("GET", path, headers={"If-None-Match": sent})
            assert (again.status, again.text, again.headers["ETag"]) == (304, "", first.headers["ETag"])
        assert (await gateway.call("GET", path, headers={"If-None-Match": '"x"'})).status == 200
    assert first.headers["Cache-Control"] == "private, no-cache"
    first = await get(gateway, offers)

    async def is_read_again() -> GatewayResponse | None:
        answer = await get(gateway, offers)
        return answer if answer.body["as_of"] != first.body["as_of"] else None

    later = await eventually(is_read_again)
    assert later is not None
    assert (later.body["items"], later.headers["ETag"]) == (first.body["items"], first.headers["ETag"])


async def test_orders_of_a_batch_reach_their_customers_alone(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (1_000, 100, None)})
    placed = await asyncio.gather(
        *(gateway.order(order_body(sale_id, ("a", 1 + n)), user=f"user-{n % 2}") for n in range(20))
    )
    for number, answer in enumerate(placed):
        for user in ("user-0", "user-1"):
            read = await gateway.call("GET", answer.headers["Location"], user=user)
            assert read.status == (200 if user == f"user-{number % 2}" else 404)
            assert read.status == 404 or (read.body["status"], read.body["sale_id"]) == ("accepted", sale_id)
    async with run_workers(settings, "order_writer"):

        async def are_stored() -> bool:
            paths = [answer.headers["Location"] for answer in placed]
            answers = await asyncio.gather(*(gateway.call("GET", paths[n], user=f"user-{n % 2}") for n in range(20)))
            return {answer.body["status"] for answer in answers} == {"awaiting_payment"}

        await eventually(are_stored)
    ids = [answer.body["order_id"] for answer in placed]
    unknown = str(uuid4())
    for _ in range(2):  # the second time the encoded orders are in memory
        reads = [(order_id, user) for order_id in [*ids, unknown] for user in ("user-0", "user-1")]
        answers = await asyncio.gather(
            *(gateway.call("GET", f"/v1/orders/{order}", user=user) for order, user in reads)
        )
        for (order_id, user), answer in zip(reads, answers, strict=True):
            if order_id != unknown and user == f"user-{ids.index(order_id) % 2}":
                assert (answer.status, answer.body["order_id"]) == (200, order_id)
                assert answer.body["lines"][0]["quantity"] == 1 + ids.index(order_id)
            else:
                assert (answer.status, answer.code) == (404, "not_found")
                assert order_id in answer.body["detail"]
    assert (await gateway.call("POST", f"/v1/orders/{ids[0]}/cancel", user="user-0")).status == 200
    cancelled = await gateway.call("GET", f"/v1/orders/{ids[0]}", user="user-0")
    assert (cancelled.body["status"], cancelled.body["cancel_reason"]) == ("cancelled", "by_customer")
    assert (await gateway.call("GET", f"/v1/orders/{ids[0]}", user=None)).status == 401


async def test_order_is_answered_whatever_redis_says(
    gateway: TestGateway, sale_id: str, shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is no longer durable, or refuses the command, ends no batch without an answer."""
    await make_sale(shop, sale_id, {"a": (10, 100, None)})
    order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
    for error in (NotReady("not durable"), ResponseError("NOPERM")):
        monkeypatch.setattr(type(gateway.services.orders), "find_accepted", AsyncMock(side_effect=error))
        assert (await gateway.call("GET", f"/v1/orders/{order_id}")).status == 200


async def test_pages_in_memory_outlive_redis_and_postgres(
    make_settings: Callable[..., Settings],
    servers: Servers,
    database_url: str,
    shop: CliServices,
    sale_id: str,
    tmp_path: Path,
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    order_path = f"/v1/orders/{uuid4()}"
    pages = ["/v1/sales", f"/v1/sales/{sale_id}", f"/v1/sales/{sale_id}/offers", "/v1/variants/a"]
    async with (
        open_redis_proxy(servers.redis_url, tmp_path) as (redis, redis_url),
        open_postgres_proxy(database_url, tmp_path) as (postgres, url),
        open_gateway(
            make_settings(redis_url=redis_url, database_url=url, limits={"database_timeout_s": 0.5})
        ) as gateway,
    ):

        async def read_offers() -> tuple[bool, list[object]]:
            body = (await get(gateway, pages[2])).body
            return body["as_of"] is None, [offer["available"] for offer in body["items"]]

        for path in pages:
            assert (await get(gateway, path)).status == 200
        redis.cut()
        assert await eventually(_becomes(read_offers, (True, [None, None])), 5)
        redis.refuse = False
        assert await eventually(_becomes(read_offers, (False, [50, 20])), 10)
        redis.hold.clear()  # it hangs
        assert await eventually(_becomes(read_offers, (True, [None, None])), 5)
        async with asyncio.timeout(1):
            assert await read_offers() == (True, [None, None])
        redis.hold.set()
        assert await eventually(_becomes(read_offers, (False, [50, 20])), 10)
        postgres.cut()
        until = monotonic() + 2.5  # longer than anything stays new
        while monotonic() < until:
            answers = await asyncio.gather(*(get(gateway, path) for path in pages))
            assert [answer.status for answer in answers] == [200] * 4
            assert answers[2].body["items"][0]["available"] == 50
        for path in ("/v1/variants/unknown", order_path):
            answer = await gateway.call("GET", path)
            assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "not_ready", "1")
        postgres.refuse = False
        await shop.catalog.put("a", VariantInput("after the outage", 300, "CNY"))

        async def name() -> str:
            return str((await get(gateway, "/v1/variants/a")).body["name"])

        assert await eventually(_becomes(name, "after the outage"), 10)
        assert (await gateway.call("GET", order_path)).status == 404


def _becomes(read: Callable[[], Any], expected: object) -> Callable[[], Any]:
    async def check() -> bool:
        return bool(await read() == expected)

    return check


async def test_memory_of_pages_is_bounded(gateway: TestGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "_MAX_BYTES", 4_500)
    services = gateway.services
    responder = ReadResponder(services.response_heads, services.metrics_buffer, services.public_pages.visits)
    cache = PageCache(services.snapshots, responder, services.metrics_buffer, services.clock)
    responses: list[bytes] = []
    loads: list[bytes] = []

    async def answer(target: bytes) -> None:
        async def load() -> Content:
            loads.append(target)
            return encode_content([target.decode()], "public")

        page = cache.find(target) or cache.add(target, CachedPage("/x", load, follows_sales=False))
        cache.answer(target, page, PendingRead("/x", "/x", None, "id", responses.append, 0))
        await eventually(_becomes(_async(lambda: bool(responses)), True))
        assert responses.pop().endswith(b'["%b"]' % target)

    for number in range(10):
        await answer(b"%d" % number)
        assert cache.bytes <= 4_500
    await answer(b"9")
    await answer(b"0")
    assert loads == [*(b"%d" % number for number in range(10)), b"0"]  # the oldest is gone, the newest is not


async def test_memory_of_orders_is_bounded(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_sale(shop, sale_id, {"a": (10, 100, None)})
    monkeypatch.setattr(order_reads, "_MAX_BYTES", 3_000)
    placed = [(await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"] for _ in range(5)]
    reads = OrderReads(gateway.services.orders, gateway.services.snapshots, gateway.services.metrics_buffer)
    results: dict[str, OrderRead] = {}

    async def are_read() -> bool:
        results.clear()
        for order_id in placed:
            reads.submit(order_id, partial(results.__setitem__, order_id))
        await eventually(_becomes(_async(lambda: len(results)), 5))
        return all(isinstance(result, StoredOrder) for result in results.values())

    async with run_workers(settings, "order_writer"):
        await eventually(are_read)
    assert await are_read()
    assert 0 < len(reads) < len(placed)


class _Clock(SystemClock):
    now = 0.0

    def monotonic(self) -> float:
        return self.now


async def test_cache_reads_in_batches_bounds_both_kinds_and_keeps_the_last_value() -> None:
    clock, batches, failure = _Clock(), [], None

    async def read(previous: Mapping[str, str | None]) -> dict[str, str]:
        if failure is not None:
            raise failure
        batches.append(dict(previous))
        return {key: f"{key} at {clock.now}" for key in previous if not key.startswith("absent")}

    cache: RefreshingCache[str, str] = RefreshingCache(read, clock, 3)
    first, second = await asyncio.gather(cache.get_many(["a", "b"]), cache.get_many(["b", "absent"]))
    assert batches == [{"a": None, "b": None, "absent": None}]
    assert (first["a"].value, second["absent"].value) == ("a at 0.0", None)
    assert (await cache.get_many(["a", "absent"]))["a"].value == "a at 0.0"
    clock.now = 1.0
    assert (await cache.get_many(["b"]))["b"].value == "b at 1.0"
    assert batches[1:] == [{"b": "b at 0.0", "a": "a at 0.0", "absent": None}]  # those in use come along
    clock.now = 2.0
    failure = ConnectionError("gone")
    assert (await cache.get_many(["b"]))["b"].value == "b at 1.0"
    with pytest.raises(ConnectionError):
        await cache.get_many(["b", "new"])
    failure = None
    for number in range(1_500):
        await cache.get_many([f"absent-{number}"])
    assert len(cache) <= 3 + 1_000
    await cache.get_many(["c", "d", "e", "f"])
    clock.now, batches[:] = 2.1, []
    await cache.get_many(["f"])
    await cache.get_many(["a"])
    assert batches == [{"a": None}]


def _async(read: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def call() -> Any:
        return read()

    return call
