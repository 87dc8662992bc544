"""Headers that every response has: of the fast path, aiohttp, streams, errors before any handler."""

from __future__ import annotations

import pytest

from ops.services import CliServices
from tests.support.gateway import TestGateway, bearer
from tests.support.sales import make_sale, order_body

REQUESTS = {
    "found": ("GET", "/v1/sales", {}, 200),
    "docs": ("GET", "/docs", {}, 200),
    "metrics": ("GET", "/metrics", {}, 200),
    "not found": ("GET", "/nowhere", {}, 404),
    "wrong method": ("PUT", "/v1/orders", {}, 405),
    "unmet": ("GET", "/v1/sales", {"Expect": "the-impossible"}, 417),
    "unmet docs": ("GET", "/docs", {"Expect": "the-impossible"}, 417),
    "refused": ("GET", "/v1/orders", {}, 401),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_answer_has_server_and_request_id(gateway: TestGateway, name: str) -> None:
    method, path, headers, status = REQUESTS[name]
    answer = await gateway.call(method, path, user=None, headers={**headers, "X-Request-Id": "mine"})
    assert (answer.status, answer.headers["Server"]) == (status, "floodgate")
    assert answer.headers["X-Request-Id"] == "mine"
    if status >= 400:
        assert answer.body["request_id"] == "mine"
    assert len(answer.headers.getall("Server")) == len(answer.headers.getall("X-Request-Id")) == 1


async def test_event_stream_has_server_and_request_id(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    placed = await gateway.order(order_body(sale_id, ("a", 1)))
    url = f"{gateway.base}/v1/orders/{placed.body['order_id']}/events"
    async with gateway.client.get(url, headers={**bearer(gateway.settings), "X-Request-Id": "mine"}) as stream:
        assert (stream.status, stream.headers["Server"], stream.headers["X-Request-Id"]) == (200, "floodgate", "mine")
    assert placed.headers["Server"] == "floodgate"
