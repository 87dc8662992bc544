"""Expected refusals: rechecked together, never with an answer of the past (P1, P3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from commerce.kernel.clock import from_ms
from commerce.sales.model import StockChangeInput
from commerce.waiting_rooms.errors import NotYourTurn
from config.settings import Settings
from gateway.load_shedding import PrebuiltRefusals
from gateway.room_status import RoomStatus
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.proxy import open_redis_proxy
from tests.support.raw_http import split_replies
from tests.support.sales import eventually, make_sale, order_body
from tests.support.servers import Servers


def count_reserved_orders(gateway: TestGateway) -> int:
    """Count the calls of reserve.lua since the last flush of the metrics."""
    return sum(gateway.services.metrics_buffer.reserve_batch_orders._counts)


def strip(answer: GatewayResponse) -> dict[str, Any]:
    """Return what two refusals have in common."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    del headers["x-request-id"], headers["date"]
    body = {name: value for name, value in answer.body.items() if name != "request_id"}
    assert answer.body["request_id"] == answer.headers["X-Request-Id"]
    assert headers.pop("content-length") == str(len(answer.text.encode()))
    return {"status": answer.status, **headers, **body}


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of the metrics buffer stay."""
    monkeypatch.setattr("gateway.metrics_buffer.MetricsBuffer.flush", lambda self: None)


async def test_sold_out_sku_is_refused_without_reserve_call(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None), "b": (100, 50, None)})
    bought = await gateway.order(order_body(sale_id, ("a", 1)), key="first")
    assert bought.status == 202
    first = await gateway.order(order_body(sale_id, ("b", 1), ("a", 1)))
    calls = count_reserved_orders(gateway)
    answers = await asyncio.gather(*(gateway.order(order_body(sale_id, ("b", 1), ("a", 1))) for _ in range(50)))
    assert [strip(answer) for answer in answers] == [strip(first)] * 50
    assert (first.status, first.code, first.body["sku"]) == (409, "sold_out", "a")
    assert count_reserved_orders(gateway) == calls
    # The other SKU sells, and a repeat of the accepted order gets its answer again.
    assert (await gateway.order(order_body(sale_id, ("b", 1)))).status == 202
    repeat = await gateway.order(order_body(sale_id, ("a", 1)), key="first")
    assert (repeat.status, repeat.body["order_id"]) == (200, bought.body["order_id"])
    reused = await gateway.order(order_body(sale_id, ("a", 2)), key="first")
    assert (reused.status, reused.code) == (422, "key_reused")


async def test_units_that_come_back_are_sold_at_once(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None)})
    body = order_body(sale_id, ("a", 1))
    assert (await gateway.order(body)).status == 202
    for _ in range(3):
        assert [(await gateway.order(body)).code for _ in range(3)] == ["sold_out"] * 3
        await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 1, "found one"), "test")
        two = await gateway.order(order_body(sale_id, ("a", 2)))
        assert (two.status, two.code) == (409, "sold_out")
        assert (await gateway.order(body)).status == 202


async def test_sale_of_one_item_is_refused_before_decoding(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None)})
    body = order_body(sale_id, ("a", 1))
    assert (await gateway.order(body)).status == 202
    first = await gateway.order(body)
    calls = count_reserved_orders(gateway)
    refused = await gateway.order({"sale_id": sale_id, "lines": "not even lines"})
    assert strip(refused) == strip(first)
    assert (refused.code, refused.body["sku"]) == ("sold_out", "a")
    assert count_reserved_orders(gateway) == calls
    await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("a", 1, "found one"), "test")
    assert (await gateway.order({"sale_id": sale_id, "lines": "not even lines"})).status == 422
    assert (await gateway.order(body)).status == 202


@pytest.mark.parametrize("reason", ["sold_out", "not_your_turn"])
async def test_client_that_presses_again_rests_each_time(
    make_settings: Callable[..., Settings],
    shop: CliServices,
    sale_id: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None), "b": (1, 100, None)})
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(RoomStatus, "refresh", AsyncMock())  # one in flight would undo the changes below
    async with open_gateway(make_settings(http={"proxy_networks": []})) as gateway:
        assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202
        if reason == "sold_out":  # the first refusal teaches
            assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 409
        else:
            rooms = gateway.services.room_status
            monkeypatch.setattr(rooms, "check_turn", Mock(side_effect=NotYourTurn("wait", 1, served=0)))
            monkeypatch.setattr(rooms, "guarded", {sale_id: None})
        answered, resting = [], []
        with closing(await connect(gateway)) as client:
            for number in range(4):
                await loop.sock_sendall(client, build_order_request(gateway, sale_id, number, key=f"again-{number}"))
                [answer] = split_replies(await loop.sock_recv(client, 65_536))[0]
                assert reason.encode() in answer.body
                answered.append(loop.time())
                resting.append(gateway.services.resting.count)
    pauses = [later - earlier for earlier, later in pairwise(answered)]
    assert resting == [0, 1, 1, 1]
    assert pauses[0] < 1
    assert all(pause >= 1 for pause in pauses[1:])


async def test_reopened_sale_sells_its_free_units(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    """Orders for an item that is sold out and for another wait for one recheck when the sale opens again."""
    await make_sale(shop, sale_id, {"a": (1, 100, None), "b": (50, 50, None)})
    assert (await gateway.order(order_body(sale_id, ("a", 1)))).status == 202
    assert (await gateway.order(order_body(sale_id, ("a", 1)))).code == "sold_out"
    await shop.sales.pause(sale_id, "test")
    assert (await gateway.order(order_body(sale_id, ("b", 1)))).code == "sale_paused"
    expected = gateway.services.expected_refusals
    sale = expected.find_sale(b'{"sale_id":"%b"' % sale_id.encode())
    assert sale is not None
    await shop.sales.open(sale_id, "test")
    refusals: list[object] = []
    expected.submit(sale, "user", "one", refusals.append)
    expected.submit(sale, "user", "two", refusals.append, "a", 1)

    async def are_answered() -> bool:
        return len(refusals) == 2

    await eventually(are_answered)
    assert refusals[0] is None, "an order of a sale that takes orders goes the ordinary way"
    assert isinstance(refusals[1], PrebuiltRefusals)
    assert refusals[1].code == "sold_out"


async def test_sale_opens_for_customers_refused_before(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(seconds=4)
    await make_sale(shop, sale_id, {"a": (100, 100, None)}, opens_at=opens_at)
    body = order_body(sale_id, ("a", 1))
    await gateway.order(body)  # reads the terms of the sale
    first = await gateway.order(body)
    calls = count_reserved_orders(gateway)
    again = await asyncio.gather(*(gateway.order(body) for _ in range(15)))
    assert [strip(answer) for answer in again] == [strip(first)] * 15
    assert (first.status, first.code) == (403, "sale_not_open")
    assert count_reserved_orders(gateway) == calls

    async def is_accepted() -> bool:
        return (await gateway.order(body)).status == 202

    await eventually(is_accepted)
    assert from_ms(shop.clock.now_ms()) >= opens_at
    assert not gateway.services.expected_refusals.is_active


async def test_paused_and_closed_sale_is_refused_like_the_first_time(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (100, 100, None)})
    body = order_body(sale_id, ("a", 1))
    bought = await gateway.order(body, key="first")
    for change, status, code in (
        (shop.sales.pause, 403, "sale_paused"),
        (shop.sales.open, 202, None),
        (shop.sales.close, 410, "sale_closed"),
    ):
        await change(sale_id, "test")
        answers = [await gateway.order(body) for _ in range(4)]
        assert {answer.status for answer in answers} == {status}
        if code is not None:
            assert strip(answers[0]) == strip(answers[3])
            assert answers[3].code == code
        repeat = await gateway.order(body, key="first")
        assert (repeat.status, repeat.body["order_id"]) == (200, bought.body["order_id"])


async def test_recheck_without_redis_is_answered_as_an_order(
    make_settings: Callable[..., Settings], servers: Servers, tmp_path: Any, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (1, 100, None)})
    body = order_body(sale_id, ("a", 1))
    async with open_redis_proxy(servers.redis_url, tmp_path) as (proxy, url):
        limits = {"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500}
        async with open_gateway(make_settings(redis_url=url, limits=limits)) as gateway:
            assert [(await gateway.order(body)).status for _ in range(3)] == [202, 409, 409]
            proxy.refuse = True
            proxy.cut()
            answers = await asyncio.gather(*(gateway.order(body) for _ in range(20)))
            assert {answer.status for answer in answers} == {503}
            proxy.refuse = False

            async def is_sold_out() -> bool:
                return (await gateway.order(body)).code == "sold_out"

            await eventually(is_sold_out)


@pytest.mark.parametrize("fast_path", [True, False])
async def test_repeat_is_answered_when_the_turn_is_over(
    make_settings: Callable[..., Settings],
    servers: Servers,
    tmp_path: Any,
    shop: CliServices,
    sale_id: str,
    fast_path: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when Redis does not answer: then nobody knows whether it is a repeat (P9)."""
    await make_sale(shop, sale_id, {"a": (10, 100, None)})
    body = order_body(sale_id, ("a", 1))

    def refuse(sale_id: str, user_id: str, ticket: str | bytes | None) -> None:
        raise NotYourTurn("wait for your turn", 1, served=0)

    monkeypatch.setattr(RoomStatus, "refresh", AsyncMock())  # one in flight would undo the changes below
    async with open_redis_proxy(servers.redis_url, tmp_path) as (proxy, url):
        limits = {"order_timeout_ms": 3_000, "redis_call_timeout_ms": 1_500}
        async with open_gateway(make_settings(redis_url=url, limits=limits), fast_path=fast_path) as gateway:
            rooms = gateway.services.room_status
            bought = await gateway.order(body, key="first")
            monkeypatch.setattr(rooms, "check_turn", refuse)
            monkeypatch.setattr(rooms, "guarded", {sale_id: None})
            repeat = await gateway.order(body, key="first")
            assert (repeat.status, repeat.body["order_id"]) == (200, bought.body["order_id"])
            other = await gateway.order(body, key="second")
            assert (other.status, other.code) == (403, "not_your_turn")
            proxy.refuse = True
            proxy.cut()
            unknown = await gateway.order(body, key="first")
            assert (unknown.status, unknown.code) == (503, "not_ready")
