"""Carts and checkouts are priced as orders: with promotions, freight and fees."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.promotions.model import PercentOff, Promotion, PromotionClass, RepeatedReduction
from gateway.new_customers import NewCustomers
from ops.services import CliServices
from tests.gateway.test_cart_http import CART, patch, put
from tests.gateway.test_checkout_http import check_out, outcomes
from tests.gateway.test_quotes_http import set_terms
from tests.support.coupons import make_coupon
from tests.support.freight import template
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import ADDRESS, make_sale

EVERY_300 = Promotion("every-300", "s", "Every 300 less 50", PromotionClass.ORDER, RepeatedReduction(300, 50))
TENTH = Promotion("tenth", "s", "A tenth off", PromotionClass.ITEM, PercentOff(1_000), frozenset({"b"}))
FIRST = Promotion("first", "s", "For new customers", PromotionClass.ITEM, PercentOff(5_000), new_customers_only=True)


@pytest.fixture
async def sales(shop: CliServices, gateway: TestGateway, sale_prefix: str) -> list[str]:
    """Two sales, with a and b for 100 each; the first has promotions and freight."""
    ids = [f"{sale_prefix}-{number}" for number in range(2)]
    for sale_id in ids:
        await make_sale(shop, sale_id, {"a": (50, 100, None), "b": (50, 100, None)})
    await gateway.services.snapshots.refresh()
    set_terms(gateway, ids[0], EVERY_300, TENTH, freight=template(step_g=500, fee_minor=600, cod_fee_minor=30))
    return ids


async def quote(gateway: TestGateway, user: str = "user", **body: Any) -> GatewayResponse:
    return await gateway.call("POST", f"{CART}/quote", user=user, json=body)


async def test_cart_shows_discounts_and_promotions_in_reach(gateway: TestGateway, sales: list[str]) -> None:
    await put(gateway, sales[0], "b", 2)
    answer = await put(gateway, sales[1], "a", 1)
    first, second = answer.body["sales"]
    assert (first["price"]["subtotal"], first["price"]["discount"], first["price"]["freight"]) == (200, 20, 0)
    assert (first["total"]["amount"], second["total"]["amount"]) == (180, 100)
    assert answer.body["totals"] == [{"amount": 280, "currency": "CNY"}]
    explained = {promotion["promotion_id"]: promotion for promotion in first["promotions"]}
    assert (explained["tenth"]["code"], explained["tenth"]["amount"]) == ("applied", 20)
    assert (explained["every-300"]["missing_amount"], explained["every-300"]["next_amount"]) == (120, 50)
    assert second["promotions"] == []
    answer = await put(gateway, sales[0], "a", 2)
    assert answer.body["sales"][0]["total"]["amount"] == 180 + 200 - 50
    answer = await patch(gateway, sales[0], "a", {"saved": True})
    assert answer.body["sales"][0]["total"]["amount"] == 180


async def test_cart_of_a_guest_has_promotions_for_new_customers(
    gateway: TestGateway, sales: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks the database for the orders of a guest."""
    monkeypatch.setattr(NewCustomers, "is_new", None)
    set_terms(gateway, sales[1], FIRST)
    answer = await put(gateway, sales[1], "a", 1, user=None)
    assert answer.body["totals"] == [{"amount": 50, "currency": "CNY"}]


async def test_checkout_takes_the_quoted_total(gateway: TestGateway, sales: list[str]) -> None:
    await put(gateway, sales[0], "a", 4)
    await put(gateway, sales[1], "b", 1)
    without = await quote(gateway)
    assert [part["is_freight_known"] for part in without.body["quotes"]] == [False, True]
    assert without.body["totals"] == [{"amount": 450, "currency": "CNY"}]
    plan = {"ship_to": [ADDRESS], "sales": [{"sale_id": sales[0], "payments": [{"method": "cod", "amount": 980}]}]}
    quoted = (await quote(gateway, **plan)).body
    assert quoted["quotes"][0]["price"]["cod_fee"] == 30
    assert (quoted["version"], quoted["totals"][0]["amount"]) == (2, 350 + 600 + 30 + 100)
    shown = (await gateway.call("GET", CART)).body["totals"]
    refused = await check_out(gateway, {**plan, "version": 2, "expected_totals": shown})
    assert (refused.status, refused.code) == (409, "cart_changed")
    assert refused.body["quote"]["totals"] == quoted["totals"]
    assert refused.body["cart"]["version"] == 2
    answer = await check_out(gateway, {**plan, "version": 2, "expected_totals": quoted["totals"]})
    assert answer.status == 200, answer.text
    assert [order["total"]["amount"] for order in answer.body["orders"]] == [980, 100]


async def test_promotion_that_ends_before_the_checkout_changes_its_total(
    gateway: TestGateway, sales: list[str]
) -> None:
    await put(gateway, sales[0], "b", 2)
    plan = {"ship_to": [ADDRESS]}
    totals = (await quote(gateway, **plan)).body["totals"]
    set_terms(gateway, sales[0])
    answer = await check_out(gateway, {**plan, "version": 1, "expected_totals": totals})
    assert (answer.status, answer.code) == (409, "cart_changed")
    assert answer.body["quote"]["totals"] == [{"amount": 200, "currency": "CNY"}]


async def test_quote_of_nothing_is_refused(gateway: TestGateway, sales: list[str]) -> None:
    assert (await quote(gateway)).code == "nothing_selected"
    await put(gateway, sales[0], "a", 1)
    assert (await quote(gateway, sales=[{"sale_id": sales[1]}])).body["errors"][0]["pointer"] == "/sales/0/sale_id"
    assert (await gateway.call("POST", f"{CART}/quote", user=None, json={})).status == 401


async def test_coupon_of_a_checkout_is_used_once(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (50, 100, None)})
    await make_coupon(shop, sale_id, "TEN", 1)
    await gateway.services.snapshots.refresh()
    for user in ("ann", "ben"):
        await put(gateway, sale_id, "a", 3, user=user)
    plan = {"ship_to": [ADDRESS], "sales": [{"sale_id": sale_id, "coupons": ["TEN"]}]}
    quoted = (await quote(gateway, user="ann", **plan)).body
    assert 0 < quoted["totals"][0]["amount"] < 300
    body = {**plan, "version": 1, "expected_totals": quoted["totals"]}
    first = await check_out(gateway, body, user="ann")
    assert outcomes(first) == {sale_id: "placed"}
    assert (await check_out(gateway, body, user="ann")).body["orders"] == first.body["orders"]
    answer = await check_out(gateway, body, user="ben")
    assert (outcomes(answer), answer.body["orders"][0]["problem"]["coupon"]) == ({sale_id: "refused"}, "TEN")
    assert answer.body["cart"]["sales"][0]["lines"][0]["quantity"] == 3
