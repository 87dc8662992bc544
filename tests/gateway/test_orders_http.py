"""Placing, reading and watching orders over HTTP, as an app does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest

import lua
from commerce.kernel.clock import from_ms
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.due_jobs import count_open
from tests.support.gateway import TestGateway, bearer, open_gateway, run_workers
from tests.support.sales import ADDRESS, eventually, make_sale, order_body


@pytest.fixture
async def keys(shop: CliServices, gateway: TestGateway, sale_id: str) -> SaleKeys:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (20, 255, None)})
    await gateway.services.snapshots.refresh()
    return keys


async def drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def test_order_accepted_is_readable_at_once_and_stored(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    body = order_body(sale_id, ("a", 2), ("b", 1), payments=[{"method": "alipay", "amount": 455}])
    answer = await gateway.order(body)
    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/orders/{answer.body['order_id']}"
    assert answer.headers["X-Request-Id"]
    assert answer.body["total"] == {"amount": 455, "currency": "CNY"}
    assert (answer.body["status"], answer.body["sale_id"], answer.body["durability"]) == ("accepted", sale_id, "fsync")
    assert UUID(answer.body["order_id"]).version == 7
    young = await gateway.call("GET", answer.headers["Location"])
    assert (young.status, young.body["status"]) == (200, "accepted")
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: drained(shop, keys))
    stored = (await gateway.call("GET", answer.headers["Location"])).body
    assert stored["status"] == "awaiting_payment"
    unreduced = {"ship_to": 0, "discount": 0, "shipped": 0, "delivered": 0, "cancelled": 0, "returned": 0}
    assert stored["lines"] == [
        {"line_no": 0, "sku": "a", "quantity": 2, "unit_price": 100, "list_price": 100, "paid": 200, **unreduced},
        {"line_no": 1, "sku": "b", "quantity": 1, "unit_price": 255, "list_price": 255, "paid": 255, **unreduced},
    ]
    assert stored["price"] == {
        "subtotal": 455,
        "discount": 0,
        "freight": 0,
        "cod_fee": 0,
        "discounts": [],
        "freight_by_address": [],
        "coupons": [],
    }
    assert stored["ship_to"] == [ADDRESS]
    assert stored["payments"] == [{"method": "alipay", "amount": 455, "currency": None}]
    assert stored["pay_by"] == answer.body["pay_by"]
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_order_with_split_line_stores_one_entry_per_address(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    body = {
        "sale_id": sale_id,
        "lines": [
            {"sku": "a", "quantity": 1, "ship_to": 1},
            {"sku": "b", "quantity": 5, "ship_to": [{"address": 0, "quantity": 2}, {"address": 2, "quantity": 3}]},
        ],
        "ship_to": [ADDRESS, {**ADDRESS, "city": "Ningbo"}, {**ADDRESS, "name": "李四"}],
        "payments": [{"method": "balance", "amount": 375}, {"method": "wechatpay", "amount": 1000, "currency": "CNY"}],
    }
    answer = await gateway.order(body)
    assert answer.status == 202, answer.text
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: drained(shop, keys))
    stored = (await gateway.call("GET", answer.headers["Location"])).body
    assert [(line["line_no"], line["ship_to"], line["quantity"]) for line in stored["lines"]] == [
        (0, 1, 1),
        (1, 0, 2),
        (1, 2, 3),
    ]
    assert stored["ship_to"][2]["name"] == "李四"


async def test_order_repeat_with_same_content_returns_first_answer(
    gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    body = order_body(sale_id, ("a", 1))
    first = await gateway.order(body, key="k")
    again = await gateway.order(body, key="k")
    assert (first.status, again.status) == (202, 200)
    assert first.body == again.body
    reordered = {name: body[name] for name in reversed(body)}
    spaced = orjson.dumps(reordered, option=orjson.OPT_INDENT_2)
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    other = await gateway.call("POST", "/v1/orders", headers=headers, data=spaced)
    assert (other.status, other.body) == (200, first.body)
    changed = await gateway.order(order_body(sale_id, ("a", 2)), key="k")
    assert (changed.status, changed.code) == (422, "key_reused")
    page = await gateway.call("GET", "/v1/orders", params={"idempotency_key": "k"})
    assert [order["order_id"] for order in page.body["items"]] == [first.body["order_id"]]
    none = await gateway.call("GET", "/v1/orders", params={"idempotency_key": "other"})
    assert none.body == {"items": [], "next": None}


async def test_order_repeat_after_price_change_returns_first_answer(
    shop: CliServices, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    """P3: the answer was lost, the price rose, and the client repeats its request."""
    body = order_body(sale_id, ("a", 1), payments=[{"method": "alipay", "amount": 100}])
    first = await gateway.order(body, key="k")
    await shop.sales.change_item(sale_id, "a", 120, 5, "test")
    await gateway.services.snapshots.refresh()
    again = await gateway.order(body, key="k")
    assert (again.status, again.body) == (200, first.body)
    other = await gateway.order(order_body(sale_id, ("b", 1), payments=[{"method": "alipay", "amount": 1}]), key="k")
    assert other.code == "key_reused"
    fresh = await gateway.order(body)
    assert (fresh.status, fresh.code) == (422, "invalid")


async def test_key_used_in_another_sale_is_refused(
    shop: CliServices, gateway: TestGateway, sale_id: str, sale_prefix: str, keys: SaleKeys
) -> None:
    await make_sale(shop, f"{sale_prefix}-two", {"a": (50, 100, 5)})
    await gateway.services.snapshots.refresh()
    assert (await gateway.order(order_body(sale_id, ("a", 1)), key="k")).status == 202
    other = await gateway.order(order_body(f"{sale_prefix}-two", ("a", 1)), key="k")
    assert (other.status, other.code) == (422, "key_reused")
    assert (await lua.cut(shop.redis, SaleKeys(f"{sale_prefix}-two"))).stock == {"a": 50}


async def test_key_check_skips_sales_that_ended_days_ago(
    shop: CliServices, gateway: TestGateway, sale_id: str, sale_prefix: str, keys: SaleKeys
) -> None:
    """Keys of a sale closed just now still count; a sale that ended days ago costs a batch nothing."""
    day, snapshots = timedelta(days=1), gateway.services.snapshots
    now = from_ms(shop.clock.now_ms())
    just, long_ago, over = (f"{sale_prefix}-{name}" for name in ("just", "long-ago", "over"))
    for name in (just, long_ago, over):
        await make_sale(shop, name, {"a": (50, 100, 5)}, opens_at=now - 9 * day, closes_at=now + day)
    await snapshots.refresh()
    assert (await gateway.order(order_body(just, ("a", 1)), key="k")).status == 202
    await shop.sales.close(just, "test")
    await shop.sales.close(long_ago, "test")
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET closed_at = $2 WHERE sale_id = $1", long_ago, now - 4 * day)
        await connection.execute("UPDATE sales SET closes_at = $2 WHERE sale_id = $1", over, now - 4 * day)
    await snapshots.refresh()
    assert sorted(snapshots.sale_ids()) == sorted(
        (sale_id, just, long_ago, over)
    )  # any of them may still have orders in its stream
    async with shop.redis.monitor() as monitor:
        other = await gateway.order(order_body(sale_id, ("a", 1)), key="k")
        assert (other.status, other.code) == (422, "key_reused")
        await shop.redis.echo("that was all")
        commands = ""
        while "that was all" not in commands:
            commands += str((await monitor.next_command())["command"]) + "\n"
    assert f"{{sale:{just}}}:keys:" in commands
    assert not [name for name in (long_ago, over) if f"{{sale:{name}}}:keys:" in commands]


async def test_key_accepted_by_two_sales_at_once_keeps_one_order(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, sale_prefix: str, keys: SaleKeys
) -> None:
    """One order stays; the other is refused later, and its stock is released."""
    other_keys = await make_sale(shop, f"{sale_prefix}-two", {"a": (50, 100, 5)})
    await gateway.services.snapshots.refresh()
    for number in range(10):
        await asyncio.gather(
            *(
                gateway.order(order_body(name, ("a", 1)), key=f"k{number}", user=f"u{number}")
                for name in (sale_id, f"{sale_prefix}-two")
            )
        )
    async with run_workers(settings, "order_writer", "release_worker"):
        await eventually(lambda: drained(shop, keys))
        await eventually(lambda: drained(shop, other_keys))
        await eventually(lambda: _no_releases(shop))
    async with shop.db.connection() as connection:
        live = await connection.fetch("SELECT idempotency_key FROM orders WHERE status <> 'cancelled'")
    assert sorted(row[0] for row in live) == [f"k{number}" for number in range(10)]
    for name in (sale_id, f"{sale_prefix}-two"):
        audit = await shop.audit.audit_sale(name)
        assert audit.clean, audit.findings


async def _no_releases(shop: CliServices) -> bool:
    return await count_open(shop, "releases") == 0


async def test_order_refusal_has_code_and_reserves_nothing(
    shop: CliServices, gateway: TestGateway, sale_id: str, sale_prefix: str, keys: SaleKeys
) -> None:
    sold_out = await gateway.order(order_body(sale_id, ("b", 21)))
    assert (sold_out.status, sold_out.code, sold_out.body["sku"]) == (409, "sold_out", "b")
    over = await gateway.order(order_body(sale_id, ("a", 6)))
    assert (over.status, over.code, over.body["sku"]) == (409, "over_limit", "a")
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    await make_sale(shop, f"{sale_prefix}-later", {"a": (50, 100, 5)}, opens_at=opens_at)
    await gateway.services.snapshots.refresh()
    early = await gateway.order(order_body(f"{sale_prefix}-later", ("a", 1)))
    assert (early.status, early.code) == (403, "sale_not_open")
    assert datetime.fromisoformat(early.body["opens_at"]) == opens_at.replace(microsecond=0)
    await shop.sales.pause(sale_id, "test")
    paused = await gateway.order(order_body(sale_id, ("a", 1)))
    assert (paused.status, paused.code, paused.headers["Retry-After"]) == (403, "sale_paused", "10")
    await shop.sales.close(sale_id, "test")
    closed = await gateway.order(order_body(sale_id, ("a", 1)))
    assert (closed.status, closed.code) == (410, "sale_closed")
    await shop.redis.delete(keys.meta)
    wiped = await gateway.order(order_body(sale_id, ("a", 1)))
    assert (wiped.status, wiped.code, wiped.headers["Retry-After"]) == (503, "not_ready", "1")
    for answer in (sold_out, over, early, paused, closed, wiped):
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.body["status"] == answer.status
        assert answer.body["request_id"] == answer.headers["X-Request-Id"]
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 50, "b": 20}


async def test_changed_terms_reach_a_gateway_that_gets_no_orders(
    shop: CliServices, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    await shop.sales.change_item(sale_id, "a", 120, 5, "test")
    at_once = await gateway.order(order_body(sale_id, ("a", 1)))
    assert (at_once.status, at_once.body["total"]["amount"]) == (202, 120)
    await shop.sales.change_item(sale_id, "b", 300, None, "test")
    await eventually(lambda: _knows(gateway, sale_id, "b", 300))


async def _knows(gateway: TestGateway, sale_id: str, sku: str, price: int) -> bool:
    return (await gateway.services.snapshots.get(sale_id)).items[sku].price == price


async def test_order_list_pages_newest_first_and_cancel_releases_stock(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    order_ids = [(await gateway.order(order_body(sale_id, ("b", 1)))).body["order_id"] for _ in range(5)]
    async with run_workers(settings, "order_writer", "release_worker"):
        await eventually(lambda: drained(shop, keys))
        first = (await gateway.call("GET", "/v1/orders", params={"limit": 3})).body
        rest = (await gateway.call("GET", "/v1/orders", params={"limit": 3, "cursor": first["next"]})).body
        assert [order["order_id"] for order in first["items"] + rest["items"]] == sorted(order_ids, reverse=True)
        assert rest["next"] is None
        assert (await gateway.call("GET", "/v1/orders", user="other")).body["items"] == []
        foreign = await gateway.call("POST", f"/v1/orders/{order_ids[0]}/cancel", user="other")
        assert (foreign.status, foreign.code) == (404, "not_found")
        gone = await gateway.call("POST", f"/v1/orders/{order_ids[0]}/cancel")
        assert (gone.status, gone.body["status"], gone.body["cancel_reason"]) == (200, "cancelled", "by_customer")
        assert (await gateway.call("POST", f"/v1/orders/{order_ids[0]}/cancel")).body == gone.body
        await eventually(lambda: _free(shop, keys, 16))


async def _free(shop: CliServices, keys: SaleKeys, units: int) -> bool:
    return (await lua.cut(shop.redis, keys)).stock["b"] == units


class OrderEventStream:
    """Reads server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def event(self) -> tuple[int, dict[str, Any]]:
        """Read the next event's id and data. Raises `EOFError` at the end."""
        id_, data = -1, {}
        while True:
            line = (await asyncio.wait_for(self.response.content.readline(), 10)).decode()
            if line.startswith("id: "):
                id_ = int(line[4:])
            elif line.startswith("data: "):
                data = orjson.loads(line[6:])
            elif line == "\n" and data:
                return id_, data
            elif line == "":
                raise EOFError


async def _watch(
    gateway: TestGateway, stack: AsyncExitStack, order_id: str, last: int | None = None
) -> OrderEventStream:
    headers = bearer(gateway.settings) | ({"Last-Event-ID": str(last)} if last is not None else {})
    url = f"{gateway.base}/v1/orders/{order_id}/events"
    response = await stack.enter_async_context(gateway.client.get(url, headers=headers))
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    return OrderEventStream(response)


async def test_order_stream_continues_after_last_event_id_and_ends(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
    async with AsyncExitStack() as stack:
        stream = await _watch(gateway, stack, order_id)
        id_, data = await stream.event()
        assert (id_, data["status"]) == (0, "accepted")
        async with run_workers(settings, "order_writer"):
            id_, data = await stream.event()
            assert (id_, data["status"]) == (1, "awaiting_payment")
        late = await _watch(gateway, stack, order_id, last=0)
        assert (await late.event())[0] == 1
        await gateway.call("POST", f"/v1/orders/{order_id}/cancel")
        for watcher in (stream, late):
            id_, data = await watcher.event()
            assert (id_, data["status"], data["reason"]) == (2, "cancelled", "the customer cancelled it")
            with pytest.raises(EOFError):
                await watcher.event()
    over = await gateway.call("GET", f"/v1/orders/{order_id}/events", headers={"Last-Event-ID": "2"})
    assert over.status == 204
    foreign = await gateway.call("GET", f"/v1/orders/{order_id}/events", user="other")
    assert foreign.status == 404


def dispatch(lines: list[str]) -> list[dict[str, str]]:
    """Dispatch the events of a stream as httpx-sse 0.4 does: an empty line after any id is an event."""
    events: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            fields[name] = value.removeprefix(" ")
        elif not line and fields:
            events.append(fields)
            fields = {"id": fields["id"]} if "id" in fields else {}
    return events


async def test_heartbeats_of_a_stream_are_no_events(
    gateway: TestGateway, sale_id: str, keys: SaleKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients differ in what an empty line after a comment means; browsers learn when to connect again."""
    monkeypatch.setattr("gateway.server_sent_events._HEARTBEAT_S", 0.02)
    order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
    async with AsyncExitStack() as stack:
        stream = await _watch(gateway, stack, order_id)
        lines: list[str] = []
        while sum(line.startswith(":") for line in lines) < 3:
            lines.append((await asyncio.wait_for(stream.response.content.readline(), 10)).decode().rstrip("\n"))
    [event] = dispatch(lines)
    assert (event["id"], event["event"], event["retry"]) == ("0", "status", "2000")


async def test_order_stream_over_limit_is_overloaded(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, 5)})
    async with (
        open_gateway(make_settings(limits={"concurrent_event_streams": 1})) as gateway,
        AsyncExitStack() as stack,
    ):
        order_id = (await gateway.order(order_body(sale_id, ("a", 1)))).body["order_id"]
        await _watch(gateway, stack, order_id)
        second = await gateway.call("GET", f"/v1/orders/{order_id}/events")
        assert (second.status, second.code) == (503, "overloaded")


async def test_catalog_answers_carry_etag_and_unknown_is_not_found(
    gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    sales = await gateway.call("GET", "/v1/sales", user=None)
    assert sale_id in [sale["sale_id"] for sale in sales.body["items"]]
    sale = await gateway.call("GET", f"/v1/sales/{sale_id}", user=None)
    assert (sale.body["state"], sale.body["currency"]) == ("open", "CNY")
    offers = await gateway.call("GET", f"/v1/sales/{sale_id}/offers", user=None)
    assert [(offer["sku"], offer["available"]) for offer in offers.body["items"]] == [("a", 50), ("b", 20)]
    product = await gateway.call("GET", "/v1/variants/a", user=None)
    assert product.body["price"] == 100
    for path in ("/v1/variants", "/v1/variants/a", f"/v1/sales/{sale_id}"):
        first = await gateway.call("GET", path, user=None)
        again = await gateway.call("GET", path, user=None, headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.text) == (304, "")
    assert (await gateway.call("GET", "/v1/variants/none", user=None)).status == 404
    assert (await gateway.call("GET", "/v1/sales/none", user=None)).status == 404
