"""Actions of payments: flows on phones, dead codes, other payers, return URLs, texts of providers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest

from commerce.payments.providers.alipay import Alipay
from commerce.payments.providers.wechatpay import WeChatPay
from ops.sandbox.payment_store import SimulatedTrade
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop

_SHOP = {
    "shop_name": "Tea House",
    "return_urls": ("https://shop.example/orders/{order_id}", "http://m.example:81/"),
}


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, short_polls: None) -> AsyncIterator[PaymentShop]:
    settings = shop.settings.model_copy(
        update={
            "payments": shop.settings.payments.model_copy(update=_SHOP),
            "http": shop.settings.http.model_copy(update={"proxy_networks": ()}),
        }
    )
    async with open_payment_shop(replace(shop, settings=settings), sale_id) as payment_shop:
        yield payment_shop
        await payment_shop.wait_until_idle()
        await payment_shop.check_records()


async def start(pay: PaymentShop, order_id: UUID, method: str, user: str = "user", **fields: Any) -> dict[str, Any]:
    """Start one payment and return it once the provider was called."""
    body = {"payments": [{"method": method, "amount": 100, **fields}]}
    answer = await pay.gateway.call("POST", f"/v1/orders/{order_id}/payments", user=user, json=body)
    assert answer.status == 200, answer.text
    [current] = [payment for payment in answer.body["payments"] if payment["current"]]
    assert current["action"] is not None, answer.text
    return dict(current)


def find_trade(pay: PaymentShop, payment: dict[str, Any]) -> SimulatedTrade:
    trade = pay.payment_store.find_trade(payment["method"], UUID(payment["payment_id"]).hex)
    assert trade is not None
    return trade


async def kill_code(pay: PaymentShop, payment: dict[str, Any]) -> None:
    """Have the code of a payment be dead at the provider and in our records."""
    pay.payment_store.open_trade(replace(find_trade(pay, payment), code_expires_ms=0))
    await pay.fetch_rows(
        "UPDATE payments SET action = jsonb_set(action, '{expires_at}', to_jsonb(now() - interval '1 second')) "
        "WHERE payment_id = $1",
        UUID(payment["payment_id"]),
    )


async def request_again(pay: PaymentShop, payment: dict[str, Any], subject: str | None = None) -> None:
    """Have the payment worker request a payment again, with another subject if one is given."""
    await pay.fetch_rows(
        "WITH changed AS (UPDATE payments SET action = NULL, subject = coalesce($2, subject) WHERE payment_id = $1) "
        "UPDATE jobs SET kind = 'payment.create', due_at = now() WHERE jobs.subject = $1 AND kind = 'payment.query'",
        *(UUID(payment["payment_id"]), subject),
    )


async def pay_order(pay: PaymentShop, order_id: UUID, payment: dict[str, Any]) -> None:
    pay.pay_at_provider(payment["method"], payment["payment_id"])
    await pay.wait_for_order(order_id, "paid")


MORTAL_ACTIONS: list[tuple[str, dict[str, str]]] = [
    ("wechatpay", {"flow": "qr"}),
    ("wechatpay", {"flow": "jsapi", "payer": "openid-1"}),
    ("wechatpay", {"flow": "app"}),
    ("wechatpay", {"flow": "mobile_page", "payer_ip": "203.0.113.7"}),
    ("alipay", {"flow": "qr"}),
]


async def test_dead_code_is_not_shown_and_a_repeat_renews_it(pay: PaymentShop) -> None:
    for number, (method, fields) in enumerate(MORTAL_ACTIONS):
        user = f"user-{number}"
        order_id = await pay.add_order(user=user)
        first = await start(pay, order_id, method, user, **fields)
        assert await start(pay, order_id, method, user, **fields) == first, "a living code is handed out again"
        await kill_code(pay, first)
        assert [payment["action"] for payment in await pay.list_payments(order_id, user)] == [None]
        second = await start(pay, order_id, method, user, **fields)
        assert (second["payment_id"], second["status"]) == (first["payment_id"], "pending")
        assert datetime.fromisoformat(second["action"]["expires_at"]) > datetime.now(UTC)
        await pay_order(pay, order_id, second)


OTHER_PAYERS = [
    ("jsapi", "payer", ("openid-1", "openid-2")),
    ("mobile_page", "payer_ip", ("203.0.113.7", "2001:db8::7")),
]


async def test_another_payer_gets_a_payment_of_their_own(pay: PaymentShop) -> None:
    for flow, field, values in OTHER_PAYERS:
        order_id = await pay.add_order(user=flow)
        first = await start(pay, order_id, "wechatpay", flow, flow=flow, **{field: values[0]})
        second = await start(pay, order_id, "wechatpay", flow, flow=flow, **{field: values[1]})
        assert second["payment_id"] != first["payment_id"]
        assert second["action"] != first["action"]
        await pay.wait_for_payment(first["payment_id"], "closed")
        if flow == "jsapi":
            assert [find_trade(pay, payment).payer for payment in (first, second)] == list(values)
        await pay_order(pay, order_id, second)


def shown_return_url(payment: dict[str, Any]) -> str | None:
    query = dict(parse_qsl(urlsplit(payment["action"]["url"]).query))
    return query.get("return_url", query.get("redirect_url"))


FOREIGN_PAGES = [
    "https://evil.example/",
    "https://shop.example.evil.example/",
    "https://shop.example@evil.example/",
    "https://evil.example\\@shop.example/",
    "https://shop.example:8443/",
    "http://shop.example/",
    "javascript:alert(1)//https://shop.example/",
    "//shop.example/",
    "https://[shop.example/",
    "https://shop.example:port/",
]


async def test_page_of_provider_leads_back_to_the_shop_only(pay: PaymentShop) -> None:
    for method, flow in (("alipay", "page"), ("alipay", "mobile_page"), ("wechatpay", "mobile_page")):
        user = f"{method}-{flow}"
        order_id = await pay.add_order(user=user)
        first = await start(pay, order_id, method, user, flow=flow)
        assert shown_return_url(first) == f"https://shop.example/orders/{order_id}"
        other = "http://m.example:81/done?order=7"
        second = await start(pay, order_id, method, user, flow=flow, return_url=other)
        assert (second["payment_id"], shown_return_url(second)) == (first["payment_id"], other)
        assert shown_return_url(await start(pay, order_id, method, user, flow=flow)) == other, "left out: as it was"
    # Without `payer_ip` the payer is the sender of the request.
    assert await pay.fetch_value("SELECT payer_ip FROM payments WHERE order_id = $1", order_id) == "127.0.0.1"
    order_id = await pay.add_order()
    for url in FOREIGN_PAGES:
        body = {"payments": [{"method": "alipay", "amount": 100, "flow": "page", "return_url": url}]}
        answer = await pay.gateway.call("POST", f"/v1/orders/{order_id}/payments", json=body)
        assert (answer.status, answer.code) == (422, "invalid"), answer.text
        assert answer.body["errors"][0]["pointer"] == "/payments/0/return_url"


async def test_page_for_payer_behind_a_proxy_needs_their_address(shop: CliServices, sale_id: str) -> None:
    """The sender is then the proxy, from whose address the customer does not open the page."""
    async with open_payment_shop(shop, sale_id) as pay:
        order_id = await pay.add_order()
        tender = {"method": "wechatpay", "amount": 100, "flow": "mobile_page"}
        path = f"/v1/orders/{order_id}/payments"
        answer = await pay.gateway.call("POST", path, json={"payments": [tender]})
        assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "/payments/0/payer_ip"), answer.text
        await start(pay, order_id, "wechatpay", flow="mobile_page", payer_ip="203.0.113.7")


LIFETIMES = {"alipay": Alipay.max_lifetime, "wechatpay": WeChatPay.max_lifetime}


async def test_bill_names_product_and_payment_ends_within_bounds(pay: PaymentShop) -> None:
    order_id = await pay.add_order(("a", 2), ("b", 1))
    total = (await pay.gateway.call("GET", f"/v1/orders/{order_id}")).body["total"]["amount"]
    [payment] = await pay.start_payments(order_id, ("wechatpay", total))
    assert find_trade(pay, payment).subject == "Tea House: thing a ×2 (+1)"
    for method, max_lifetime in LIFETIMES.items():
        order_id = await pay.add_order(user=f"slow-{method}")
        await pay.fetch_rows("UPDATE orders SET pay_by = now() + interval '60 days' WHERE order_id = $1", order_id)
        payment = await start(pay, order_id, method, f"slow-{method}")
        expires_at = datetime.fromisoformat(payment["expires_at"])
        assert timedelta(0) <= datetime.now(UTC) + max_lifetime - expires_at < timedelta(minutes=1)
        assert find_trade(pay, payment).expires_ms == int(expires_at.timestamp()) * 1_000

        order_id = await pay.add_order(user=f"quick-{method}")
        await pay.fetch_rows("UPDATE orders SET pay_by = now() + interval '30 seconds' WHERE order_id = $1", order_id)
        payment = await start(pay, order_id, method, f"quick-{method}")
        trade = find_trade(pay, payment)
        assert 60_000 <= trade.expires_ms - trade.created_ms <= 91_000
        await pay_order(pay, order_id, payment)


async def test_payment_requested_again_is_captured_or_refused_in_our_words(pay: PaymentShop) -> None:
    """A refusal at renewal: the customer has paid already, or the provider says why in words for staff."""
    order_id = await pay.add_order(user="quick")
    payment = await start(pay, order_id, "wechatpay", "quick")
    pay.set_faults(dropped_share=1)
    pay.pay_at_provider("wechatpay", payment["payment_id"])
    await request_again(pay, payment)
    await pay.wait_for_order(order_id, "paid")

    order_id = await pay.add_order()
    payment = await start(pay, order_id, "wechatpay", flow="jsapi", payer="openid-1")
    await request_again(pay, payment, "another product")
    await pay.wait_for_payment(payment["payment_id"], "failed")
    [shown] = await pay.list_payments(order_id)
    reason = "wechatpay did not accept the payment: start the payments again, or choose another method"
    assert (shown["reason"], shown["provider_error"]) == (reason, None)
    [for_staff] = (await pay.call_as_staff("GET", f"/orders/{order_id}/payments"))["payments"]
    assert for_staff["provider_error"].startswith("OUT_TRADE_NO_USED: ")
