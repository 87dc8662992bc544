"""Quotes have the price of an order and its obstacles, and reserve nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

import lua
from commerce.kernel.clock import from_ms
from commerce.orders import store as orders
from commerce.promotions.evaluation import compile_promotions
from commerce.promotions.model import PercentOff, Promotion, PromotionClass, PromotionInput, RepeatedReduction
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.freight import template
from tests.support.gateway import GatewayResponse, TestGateway, run_workers
from tests.support.sales import ADDRESS, eventually, make_sale, order_body

ADDRESS_TEXTS = {name: value for name, value in ADDRESS.items() if name != "postcode"}
EVERY_300 = Promotion("every-300", "s", "Every 300 less 50", PromotionClass.ORDER, RepeatedReduction(30_000, 5_000, 3))
FIRST_ORDER = PromotionInput(
    "first-order", "10% off your first order", PromotionClass.ITEM, PercentOff(1_000), new_customers_only=True
)


@pytest.fixture
async def keys(shop: CliServices, gateway: TestGateway, sale_id: str) -> SaleKeys:
    keys = await make_sale(shop, sale_id, {"a": (5, 9_900, 3), "b": (20, 3_333, None)})
    await gateway.services.snapshots.refresh()
    return keys


def set_terms(gateway: TestGateway, sale_id: str, *promotions: Promotion, **more: Any) -> None:
    """Give the sale in the gateway's memory promotions and freight."""
    snapshot = gateway.services.snapshots.find(sale_id)
    snapshot.promotions = compile_promotions(promotions, snapshot.items) if promotions else None
    snapshot.freight = more.get("freight")


async def quote(gateway: TestGateway, body: dict[str, Any], **more: Any) -> GatewayResponse:
    return await gateway.call("POST", "/v1/orders/quote", json=body, **more)


async def is_stored(shop: CliServices, order_id: UUID) -> bool:
    async with shop.db.connection() as connection:
        return bool(await orders.find_existing(connection, [order_id]))


@pytest.mark.usefixtures("keys")
async def test_quoted_price_is_that_of_the_stored_order(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    freight = template(step_g=500, fee_minor=600, free_from_minor=40_000, cod_fee_minor=500)
    set_terms(gateway, sale_id, EVERY_300, freight=freight)
    body = order_body(sale_id, ("a", 3), ("b", 1))
    quoted = (await quote(gateway, body)).body
    assert quoted["total"] == {"amount": 3 * 9_900 + 3_333 - 5_000 + 600, "currency": "CNY"}
    assert quoted["price"]["freight_by_address"] == [{"ship_to": 0, "amount": 600}]
    total = quoted["total"]["amount"]
    refused = await gateway.order({**body, "payments": [{"method": "balance", "amount": total - 600}]})
    assert refused.status == 422
    placed = await gateway.order({**body, "payments": [{"method": "balance", "amount": total}]})
    assert (placed.status, placed.body["total"]["amount"]) == (202, total)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_stored(shop, UUID(placed.body["order_id"])))
    stored = (await gateway.call("GET", placed.headers["Location"])).body
    assert stored["price"] == quoted["price"]
    assert stored["lines"] == [
        {
            **{name: value for name, value in line.items() if name not in ("available", "allowed")},
            **dict.fromkeys(("shipped", "delivered", "cancelled", "returned"), 0),
        }
        for line in quoted["lines"]
    ]
    events = (await shop.orders.get_details(UUID(stored["order_id"]), [sale_id])).events
    assert [event.price is None for event in events] == [True, False]
    assert msgspec.to_builtins(events[1].price) == stored["price"]
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


@pytest.mark.usefixtures("keys")
async def test_quote_explains_promotions_in_reach(gateway: TestGateway, sale_id: str) -> None:
    set_terms(gateway, sale_id, EVERY_300)
    [explanation] = (await quote(gateway, order_body(sale_id, ("a", 3)))).body["promotions"]
    assert explanation["code"] == "below_threshold"
    assert explanation["message"] == "3.00 CNY more and 50.00 CNY come off"
    [explanation] = (await quote(gateway, order_body(sale_id, ("a", 3), ("b", 1)))).body["promotions"]
    assert (explanation["promotion_id"], explanation["code"]) == ("every-300", "applied")


async def test_quote_reserves_nothing_and_names_obstacles(
    shop: CliServices, gateway: TestGateway, sale_id: str, keys: SaleKeys
) -> None:
    quoted = (await quote(gateway, order_body(sale_id, ("a", 4), ("b", 21)))).body
    assert quoted["obstacles"] == ["sold_out", "over_limit"]
    assert [(line["available"], line["allowed"]) for line in quoted["lines"]] == [(5, 3), (20, None)]
    assert (await gateway.order(order_body(sale_id, ("a", 2)))).status == 202
    quoted = (await quote(gateway, order_body(sale_id, ("a", 1)))).body
    assert (quoted["obstacles"], quoted["is_reserved"]) == ([], False)
    assert [(line["available"], line["allowed"]) for line in quoted["lines"]] == [(3, 1)]
    assert (await lua.cut(shop.redis, keys)).stock == {"a": 3, "b": 20}
    await shop.sales.pause(sale_id, "test")
    await gateway.services.snapshots.refresh()
    assert (await quote(gateway, order_body(sale_id, ("a", 1)))).body["obstacles"] == ["sale_paused"]


async def test_quote_before_the_sale_opens_is_priced(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opens_at=from_ms(shop.clock.now_ms()) + timedelta(hours=1))
    await gateway.services.snapshots.refresh()
    quoted = (await quote(gateway, order_body(sale_id, ("a", 1)))).body
    assert (quoted["obstacles"], quoted["total"]["amount"]) == (["sale_not_open"], 100)


@pytest.mark.usefixtures("keys")
async def test_quote_without_address_leaves_freight_open(gateway: TestGateway, sale_id: str) -> None:
    body = {name: value for name, value in order_body(sale_id, ("a", 1)).items() if name != "ship_to"}
    assert (await quote(gateway, body)).body["is_freight_known"] is True, "the sale has no freight"
    set_terms(gateway, sale_id, freight=template(step_g=500, fee_minor=600))
    quoted = (await quote(gateway, body)).body
    assert (quoted["is_freight_known"], quoted["price"]["freight"]) == (False, 0)
    answer = await quote(gateway, {**body, "lines": [{"sku": "a", "quantity": 1, "ship_to": 1}]})
    assert answer.status == 422


@pytest.mark.usefixtures("keys")
async def test_first_order_alone_has_the_discount_of_new_customers(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    await shop.promotions.create(sale_id, FIRST_ORDER, "test")
    await gateway.services.snapshots.refresh()
    first = await gateway.order(order_body(sale_id, ("b", 1)))
    assert (first.status, first.body["total"]["amount"]) == (202, 3_000)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_stored(shop, UUID(first.body["order_id"])))
    stored = (await gateway.call("GET", first.headers["Location"])).body
    assert (stored["price"]["discount"], stored["price"]["coupons"]) == (333, [])
    second = await gateway.order(order_body(sale_id, ("b", 1)))
    assert second.body["total"]["amount"] == 3_333
    third = await gateway.order(order_body(sale_id, ("b", 1)))  # priced from memory by now
    assert third.body["total"]["amount"] == 3_333
    other = await gateway.order(order_body(sale_id, ("b", 1)), user="other")
    assert other.body["total"]["amount"] == 3_000


@pytest.mark.parametrize("name", ADDRESS_TEXTS)
@pytest.mark.parametrize("blank", ["　", "\u200b", "  "], ids=["ideographic", "zero-width", "spaces"])
@pytest.mark.usefixtures("keys")
async def test_quote_with_a_blank_part_of_the_address_is_refused(
    gateway: TestGateway, sale_id: str, name: str, blank: str
) -> None:
    body = order_body(sale_id, ("a", 1))
    body["ship_to"] = [{**ADDRESS, name: blank}]
    answer = await quote(gateway, body)
    if name in ("province", "district"):  # optional, and blanks are as good as nothing
        assert answer.status in (200, 422)
    else:
        assert answer.status == 422


@pytest.mark.usefixtures("keys")
async def test_quote_of_an_unknown_sale_or_item_is_refused(gateway: TestGateway, sale_id: str) -> None:
    assert (await quote(gateway, order_body("unknown", ("a", 1)))).status == 404
    answer = await quote(gateway, order_body(sale_id, ("c", 1)))
    assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "/lines/0/sku")
    assert (await quote(gateway, order_body(sale_id, ("a", 1)), user=None)).status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
async def test_path_of_quotes_reads_no_order(gateway: TestGateway, method: str) -> None:
    answer = await gateway.call(method, "/v1/orders/quote")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
