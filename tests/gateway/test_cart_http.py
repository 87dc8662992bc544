"""The cart over HTTP: lines of several sales, today's prices, warnings, versions and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from commerce.kernel.clock import from_ms
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import eventually, make_sale, order_body

CART = "/v1/cart"


@pytest.fixture
async def sales(shop: CliServices, gateway: TestGateway, sale_prefix: str) -> list[str]:
    """Two open sales, with SKUs a (100 each, limit 5) and b (255 each)."""
    ids = [f"{sale_prefix}-{number}" for number in range(2)]
    for sale_id in ids:
        await make_sale(shop, sale_id, {"a": (50, 100, 5), "b": (3, 255, None)})
    await gateway.services.snapshots.refresh()
    return ids


async def put(gateway: TestGateway, sale_id: str, sku: str, quantity: int, **more: Any) -> GatewayResponse:
    body = {"quantity": quantity, **more.pop("line", {})}
    return await gateway.call("PUT", f"{CART}/lines/{sale_id}/{sku}", json=body, **more)


async def patch(gateway: TestGateway, sale_id: str, sku: str, body: Any, **more: Any) -> GatewayResponse:
    return await gateway.call("PATCH", f"{CART}/lines/{sale_id}/{sku}", json=body, **more)


def quantities(answer: GatewayResponse) -> dict[tuple[str, str], int]:
    return {(sale["sale_id"], line["sku"]): line["quantity"] for sale in answer.body["sales"] for line in sale["lines"]}


def codes(answer: GatewayResponse) -> list[str]:
    return [warning["code"] for warning in answer.body["warnings"]]


async def test_cart_holds_lines_of_several_sales_with_totals(gateway: TestGateway, sales: list[str]) -> None:
    empty = await gateway.call("GET", CART)
    assert (empty.status, empty.body["version"], empty.body["sales"], empty.body["totals"]) == (200, 0, [], [])
    await put(gateway, sales[1], "b", 2)
    await put(gateway, sales[0], "a", 3)
    await put(gateway, sales[0], "b", 1, line={"selected": False})
    answer = await put(gateway, sales[1], "a", 1, line={"saved": True})
    assert quantities(answer) == {(sales[1], "b"): 2, (sales[1], "a"): 1, (sales[0], "a"): 3, (sales[0], "b"): 1}
    assert [sale["total"]["amount"] for sale in answer.body["sales"]] == [510, 300]
    assert answer.body["totals"] == [{"amount": 810, "currency": "CNY"}]
    assert (answer.body["version"], answer.headers["ETag"], answer.body["cart_id"]) == (4, '"4"', None)
    line = answer.body["sales"][1]["lines"][0]
    assert (line["name"], line["price"], line["accepted_price"]) == ("thing a", 100, 100)
    assert (line["available"], line["limit_per_user"]) == (50, 5)
    assert codes(answer) == []
    assert (await gateway.call("GET", CART)).body == answer.body
    assert (await gateway.call("GET", CART, user="ben")).body["sales"] == []


async def test_put_replaces_and_patch_changes(gateway: TestGateway, sales: list[str]) -> None:
    await put(gateway, sales[0], "a", 3, line={"saved": True})
    changed = await patch(gateway, sales[0], "a", {"selected": False})
    [line] = changed.body["sales"][0]["lines"]
    assert (line["quantity"], line["selected"], line["saved"]) == (3, False, True)
    [line] = (await put(gateway, sales[0], "a", 4)).body["sales"][0]["lines"]
    assert (line["quantity"], line["selected"], line["saved"]) == (4, True, False)
    same = await put(gateway, sales[0], "a", 4)
    assert same.body["version"] == 3, "a repeat changes nothing"
    for _ in range(2):
        answer = await gateway.call("DELETE", f"{CART}/lines/{sales[0]}/a")
        assert (answer.status, answer.body["sales"], answer.body["version"]) == (200, [], 4)
    assert (await patch(gateway, sales[0], "a", {"quantity": 1})).code == "not_found"


async def test_change_of_another_version_is_refused_with_the_cart(gateway: TestGateway, sales: list[str]) -> None:
    first = await put(gateway, sales[0], "a", 1, headers={"If-Match": "0"})
    assert first.body["version"] == 1
    assert (await put(gateway, sales[0], "a", 2, headers={"If-Match": '"1"'})).body["version"] == 2
    for answer in (
        await put(gateway, sales[0], "a", 3, headers={"If-Match": "1"}),
        await patch(gateway, sales[0], "a", {"quantity": 3}, headers={"If-Match": "1"}),
        await gateway.call("DELETE", f"{CART}/lines/{sales[0]}/a", headers={"If-Match": "3"}),
    ):
        assert (answer.status, answer.code) == (409, "cart_changed")
        assert answer.body["cart"]["version"] == 2
        assert answer.body["cart"]["sales"][0]["lines"][0]["quantity"] == 2
    absent = await put(gateway, sales[0], "a", 1, user="ben", headers={"If-Match": "1"})
    assert (absent.code, absent.body["cart"]["version"]) == ("cart_changed", 0)
    assert (await put(gateway, sales[0], "a", 1, headers={"If-Match": "x"})).status == 422


async def test_racing_changes_of_a_new_cart_are_all_kept(gateway: TestGateway, sales: list[str]) -> None:
    keys = [(sale_id, sku) for sale_id in sales for sku in "ab"]
    answers = await asyncio.gather(*(put(gateway, sale_id, sku, 1) for sale_id, sku in keys))
    assert [answer.status for answer in answers] == [200] * 4
    assert sorted(answer.body["version"] for answer in answers) == [1, 2, 3, 4]
    assert quantities(await gateway.call("GET", CART)) == dict.fromkeys(keys, 1)
    raced = await asyncio.gather(
        *(put(gateway, sales[0], "a", quantity, headers={"If-Match": "4"}) for quantity in (2, 3, 4))
    )
    assert sorted(answer.status for answer in raced) == [200, 409, 409]


async def test_reading_warns_of_changes_and_changes_nothing(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    await put(gateway, sales[0], "a", 3)
    await put(gateway, sales[0], "b", 3)
    await put(gateway, sales[1], "b", 1)
    await gateway.order(order_body(sales[0], ("b", 2)), user="ben")
    await shop.sales.change_item(sales[0], "a", 120, 2, "test")
    await shop.sales.close(sales[1], "test")
    await gateway.services.snapshots.refresh()

    async def has_warnings() -> bool:
        return len((await gateway.call("GET", CART)).body["warnings"]) == 4

    await eventually(has_warnings)  # stock is up to a second old
    answer = await gateway.call("GET", CART)
    assert answer.body["warnings"] == [
        {"code": "price_changed", "sale_id": sales[0], "sku": "a", "old_price": 100, "new_price": 120},
        {"code": "over_limit", "sale_id": sales[0], "sku": "a", "limit": 2},
        {"code": "too_few_units", "sale_id": sales[0], "sku": "b", "available": 1},
        {"code": "sale_closed", "sale_id": sales[1], "sku": "b"},
    ]
    assert answer.body["totals"][0]["amount"] == 3 * 120 + 3 * 255 + 255
    assert answer.body["version"] == 3
    selected = await patch(gateway, sales[0], "a", {"selected": False})
    assert "price_changed" in codes(selected), "only the customer accepts a price"
    accepted = await patch(gateway, sales[0], "a", {"accept_price": True})
    assert "price_changed" not in codes(accepted)
    assert (await put(gateway, sales[1], "a", 1)).code == "sale_closed"
    assert (await gateway.call("DELETE", f"{CART}/lines/{sales[1]}/b")).status == 200


async def test_line_of_a_sale_that_is_not_open_warns(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    opens_at = from_ms(shop.clock.now_ms()) + timedelta(hours=1)
    await make_sale(shop, sale_id, {"a": (5, 100, None), "b": (0, 100, None)}, opens_at=opens_at)
    await gateway.services.snapshots.refresh()
    assert codes(await put(gateway, sale_id, "a", 1)) == ["sale_not_open"]
    assert codes(await put(gateway, sale_id, "b", 1)) == ["sale_not_open", "sale_not_open", "sold_out"]
    await shop.sales.pause(sale_id, "test")
    await gateway.services.snapshots.refresh()
    assert codes(await gateway.call("GET", CART)) == ["sale_paused", "sale_paused", "sold_out"]


async def test_line_that_is_gone_is_named_and_in_no_total(
    gateway: TestGateway, shop: CliServices, sales: list[str]
) -> None:
    await put(gateway, sales[0], "a", 1)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE cart_lines SET sku = 'x'")
    answer = await gateway.call("GET", CART)
    assert answer.body["warnings"] == [{"code": "gone", "sale_id": sales[0], "sku": "x"}]
    assert answer.body["totals"] == [{"amount": 0, "currency": "CNY"}]
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE cart_lines SET sale_id = 'none'")
    answer = await gateway.call("GET", CART)
    assert (codes(answer), answer.body["totals"], answer.body["sales"][0]["title"]) == (["gone"], [], None)
    assert (await gateway.call("DELETE", f"{CART}/lines/none/x")).body["sales"] == []


async def test_cart_and_line_that_are_too_large_are_refused(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    skus = [f"s{number}" for number in range(12)]
    await make_sale(shop, sale_id, dict.fromkeys(skus, (5, 100, None)))
    async with open_gateway(make_settings(limits={"lines_per_cart": 10, "quantity_per_line": 99})) as gateway:
        answers = await asyncio.gather(*(put(gateway, sale_id, sku, 1) for sku in skus))
        assert sorted(answer.status for answer in answers) == [200] * 10 + [409] * 2
        assert {answer.code for answer in answers if answer.status == 409} == {"cart_full"}
        present = next(sku for sku, answer in zip(skus, answers, strict=True) if answer.status == 200)
        assert (await put(gateway, sale_id, present, 99)).status == 200
        for answer in (
            await put(gateway, sale_id, present, 100),
            await patch(gateway, sale_id, present, {"quantity": 100}),
            await put(gateway, sale_id, present, 0),
        ):
            assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "/quantity")
        assert (await put(gateway, sale_id, "none", 1)).code == "not_found"
        assert (await put(gateway, "none", "a", 1)).code == "not_found"


async def test_changes_over_the_rate_are_refused(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    limits = {"orders_per_user_per_s": 0.001, "orders_per_user_burst": 2}
    async with open_gateway(make_settings(limits=limits)) as gateway:
        assert [(await put(gateway, sale_id, "a", 1)).status for _ in range(3)] == [200, 200, 429]
        assert (await put(gateway, sale_id, "a", 1, user="ben")).status == 200
        assert (await gateway.call("GET", CART)).status == 200
