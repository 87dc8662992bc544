"""Stock of warehouses over the admin API, and sales that are refused because something is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import make_sale
from tests.support.stock_shop import StockShop, open_stock_shop


@pytest.fixture
async def stock_shop(shop: CliServices) -> AsyncIterator[StockShop]:
    async with open_stock_shop(shop) as opened:
        await make_sale(shop, "products", {"a": (0, 100, None)}, opened=False)
        yield opened


async def call(
    gateway: TestGateway, method: str, path: str, role: str = "warehouse", **options: Any
) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin{path}", user="ann", roles=[role], **options)


async def test_stock_is_received_counted_moved_and_listed(gateway: TestGateway, stock_shop: StockShop) -> None:
    body = {"kind": "received", "units": 10, "reason": "delivered", "reference": "delivery 7"}
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        answer = await call(gateway, "POST", "/stock/a/hz/movements", json=body, headers=headers)
        assert (answer.status, answer.body["on_hand"], answer.body["actor"]) == (201, 10, "staff ann")
    answer = await call(gateway, "POST", "/stock/a/hz/counts", json={"units": 8, "reason": "counted"})
    assert (answer.body["on_hand_delta"], answer.body["on_hand"]) == (-2, 8)
    transfer = {"to_warehouse": "sh", "units": 3, "reason": "nearer"}
    answer = await call(gateway, "POST", "/stock/a/hz/transfers", json=transfer)
    assert [movement["on_hand"] for movement in answer.body["items"]] == [5, 3]
    assert (await call(gateway, "PUT", "/stock/a/sh/warning", json={"warn_below": 4})).body["warn_below"] == 4
    listed = await call(gateway, "GET", "/stock?limit=1", role="sales")
    assert [(level["warehouse_id"], level["on_hand"]) for level in listed.body["items"]] == [("hz", 5)]
    rest = await call(gateway, "GET", f"/stock?cursor={listed.body['next']}")
    assert [level["warehouse_id"] for level in rest.body["items"]] == ["sh"]
    low = await call(gateway, "GET", "/stock?low=true")
    assert [level["warehouse_id"] for level in low.body["items"]] == ["sh"]
    page = await call(gateway, "GET", "/stock/a/movements?limit=3")
    assert [movement["kind"] for movement in page.body["items"]] == ["moved", "moved", "counted"]
    page = await call(gateway, "GET", f"/stock/a/movements?cursor={page.body['next']}")
    assert [movement["kind"] for movement in page.body["items"]] == ["received"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/stock/a/hz/movements", {"kind": "received", "units": 0, "reason": "x"}, 422, "invalid"),
        ("/stock/a/hz/movements", {"kind": "received", "units": 10**10, "reason": "x"}, 422, "invalid"),
        ("/stock/a/hz/movements", {"kind": "received", "units": 1, "reason": " "}, 422, "invalid"),
        ("/stock/a/hz/movements", {"kind": "shipped", "units": 1, "reason": "x"}, 422, "invalid"),
        ("/stock/a/hz/movements", {"kind": "received", "units": 1, "reason": "x", "more": 1}, 422, "invalid"),
        ("/stock/a/HZ/movements", {"kind": "received", "units": 1, "reason": "x"}, 422, "invalid"),
        ("/stock/a/nowhere/movements", {"kind": "received", "units": 1, "reason": "x"}, 404, "not_found"),
        ("/stock/none/hz/counts", {"units": 1, "reason": "x"}, 404, "not_found"),
        ("/stock/a/hz/movements", {"kind": "damaged", "units": 6, "reason": "x"}, 409, "not_enough_stock"),
        ("/stock/a/hz/transfers", {"to_warehouse": "hz", "units": 1, "reason": "x"}, 422, "invalid"),
    ],
)
async def test_bad_movement_is_refused(
    gateway: TestGateway, stock_shop: StockShop, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    await stock_shop.receive("a", "hz", 5)
    answer = await call(gateway, "POST", path, json=body)
    assert (answer.status, answer.code) == (status, code)
    assert await stock_shop.level("a", "hz") == (5, 0)


async def test_customers_and_other_roles_change_no_stock(gateway: TestGateway, stock_shop: StockShop) -> None:
    body = {"kind": "received", "units": 1, "reason": "x"}
    assert (await call(gateway, "POST", "/stock/a/hz/movements", role="sales", json=body)).status == 403
    assert (await call(gateway, "GET", "/stock", role="catalog")).status == 403


async def test_incomplete_sale_opens_only_with_a_reason(
    gateway: TestGateway, stock_shop: StockShop, sale_id: str
) -> None:
    await stock_shop.receive("a", "hz", 3)
    await make_sale(stock_shop.shop, sale_id, {"a": (5, 100, None)}, opened=False)
    gaps = await call(gateway, "GET", f"/sales/{sale_id}/gaps", role="sales")
    assert [gap["kind"] for gap in gaps.body["items"] if not gap["is_warning"]] == ["measures", "stock", "rate_table"]
    refused = await call(gateway, "POST", f"/sales/{sale_id}/open", role="sales")
    assert (refused.status, refused.code) == (409, "sale_incomplete")
    assert [gap["skus"] for gap in refused.body["gaps"]] == [["a"], ["a"], []]
    assert (await call(gateway, "POST", f"/sales/{sale_id}/open", role="sales", json={"anyway": " "})).status == 422
    opened = await call(gateway, "POST", f"/sales/{sale_id}/open", role="sales", json={"anyway": "it comes today"})
    assert (opened.status, opened.body["state"]) == (200, "open")
    listed = await call(gateway, "GET", f"/sales/{sale_id}/allotments", role="sales")
    assert [(item["needed"], item["allotted"]) for item in listed.body["items"]] == [(5, 3)]
    change = {"sku": "a", "delta": 1, "reason": "more"}
    headers = {"Idempotency-Key": str(stock_shop.shop.ids.new())}
    answer = await call(gateway, "POST", f"/sales/{sale_id}/stock-changes", role="sales", json=change, headers=headers)
    assert (answer.status, answer.code) == (409, "not_enough_stock")
