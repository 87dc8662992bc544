"""Payments over HTTP: refusals, staff operations and retries."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.payments.model import TenderInput
from gateway.endpoints import payments
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, run_workers
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually, order_body

pytestmark = pytest.mark.usefixtures("short_polls")


async def start(pay: PaymentShop, order_id: UUID, *parts: Any, user: str = "user") -> GatewayResponse:
    path = f"/v1/orders/{order_id}/payments"
    return await pay.gateway.call("POST", path, user=user, json={"payments": list(parts)})


def part(method: str, amount: int = 100, **more: Any) -> dict[str, Any]:
    return {"method": method, "amount": amount, **more}


INVALID_TENDERS: list[tuple[list[Any], str | None, str]] = [
    ([part("alipay", 99)], "/payments", "add up to 99"),
    ([part("alipay", 60), part("cod", 60)], "/payments", "add up to 120"),
    ([part("alipay", flow="jsapi")], "/payments/0/flow", "alipay has page, mobile_page, app, qr"),
    ([part("cod", 1), part("wechatpay", 99, flow="page")], "/payments/1/flow", "wechatpay has qr, jsapi"),
    ([part("wechatpay", flow="mobile_page", payer_ip="::ffff:999.1.1.1")], "/payments/0/payer_ip", "IPv4 or IPv6"),
    ([part("alipay", flow="page", return_url="https://shop.example/x")], "/payments/0/return_url", "leave it out"),
    ([part("alipay", flow="page", return_url="half a page")], None, "return_url"),
    ([part("wechatpay", flow="jsapi")], "/payments/0/payer", "the customer's id"),
    ([], None, "the order has no payment plan"),
    ([part("alipay", 0)], None, "amount"),
    ([part("alipay", -100), part("alipay", 200)], None, "amount"),
    ([part("gold")], None, "method"),
    ([part("alipay", payer="zhang san")], None, "payer"),
    ([part("alipay", currency="GBP")], None, "unknown field"),
    ([part("alipay", 10)] * 9, None, "length"),
]
"""Sent payments, the pointer of the error if there is one, and a part of its text."""


async def test_start_payments_with_invalid_tenders_is_refused(pay: PaymentShop) -> None:
    order_id = await pay.add_order()
    for sent, pointer, text in INVALID_TENDERS:
        answer = await start(pay, order_id, *sent)
        assert (answer.status, answer.code) == (422, "invalid"), (sent, answer.text)
        assert text in answer.text, sent
        if pointer:
            assert [error["pointer"] for error in answer.body["errors"]] == [pointer], sent
    assert await pay.fetch_value("SELECT count(*) FROM payments") == 0


async def test_start_payments_of_unpayable_order_is_refused(pay: PaymentShop) -> None:
    """Another customer's order is not found; a paid or cancelled one is refused; no payment is started."""
    paid, _ = await pay.add_paid_order(("alipay", 100))
    cancelled = await pay.add_order()
    await pay.gateway.call("POST", f"/v1/orders/{cancelled}/cancel")
    waiting = await pay.add_order()
    for order_id, user, status, code in (
        (waiting, "somebody", 404, "not_found"),
        (uuid4(), "user", 404, "not_found"),
        (paid, "user", 409, "not_payable"),
        (cancelled, "user", 409, "not_payable"),
    ):
        answer = await start(pay, order_id, part("wechatpay"), user=user)
        assert (answer.status, answer.code) == (status, code), answer.text
    shown = await pay.gateway.call("GET", f"/v1/orders/{paid}/payments", user="somebody")
    assert (shown.status, shown.code) == (404, "not_found")
    assert (await pay.gateway.call("GET", f"/v1/orders/{paid}/payments", user=None)).status == 401
    assert await pay.fetch_value("SELECT count(*) FROM payments") == 1


async def test_start_payments_waits_for_order_to_be_stored(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request waits for the order; if that takes too long, the answer asks for a repeat."""
    monkeypatch.setattr(payments, "STORE_WAIT_S", 0.2)
    async with open_payment_shop(shop, sale_id, "payment_worker") as pay:
        placed = await pay.gateway.order(order_body(sale_id, ("a", 1)))
        order_id = UUID(placed.body["order_id"])
        early = await start(pay, order_id, part("alipay"))
        assert (early.status, early.code) == (409, "not_stored_yet")
        assert "Retry-After" in early.headers
        monkeypatch.undo()
        async with run_workers(pay.settings, "order_writer"):
            answer = await start(pay, order_id, part("alipay"))
        assert answer.status == 200
        assert answer.body["payments"][0]["action"]["kind"] == "qr"


async def test_customer_reads_actions_captures_and_refunds(pay: PaymentShop) -> None:
    """The answer shows the action, then the captured amount, then the refunds with their reason."""
    order_id = await pay.add_order()
    begun = await start(pay, order_id, part("alipay", 40, flow="page"), part("wechatpay", 60))
    first, second = begun.body["payments"]
    assert begun.body["total"] == {"amount": 100, "currency": "CNY"}
    assert (begun.body["net_captured"], first["action"]["kind"], second["action"]["kind"]) == (0, "redirect", "qr")
    async with pay.gateway.client.get(first["action"]["url"], allow_redirects=False) as opened:
        assert opened.status == 302
    pay.pay_at_provider("alipay", first["payment_id"])
    pay.pay_at_provider("wechatpay", second["payment_id"])
    await pay.wait_for_order(order_id, "paid")
    refunds = f"/orders/{order_id}/refunds"
    await pay.call_as_staff(
        "POST", refunds, json={"idempotency_key": "k", "amount": 70, "reason": "the lid was broken"}
    )
    await pay.wait_until_idle()
    answer = await pay.gateway.call("GET", f"/v1/orders/{order_id}/payments")
    assert answer.body["net_captured"] == 30
    refunded = [
        (payment["refunded"], [refund["reason"] for refund in payment["refunds"]])
        for payment in answer.body["payments"]
    ]
    assert refunded == [(28, ["the lid was broken"]), (42, ["the lid was broken"])]
    assert {payment["action"] for payment in answer.body["payments"]} == {None}
    shown_to_staff = await pay.call_as_staff("GET", f"/orders/{order_id}/payments")
    for refund in [refund for payment in shown_to_staff["payments"] for refund in payment["refunds"]]:
        assert refund.pop("attempt_no") == 1
        assert refund.pop("provider_refund_id", "") is not None
    assert shown_to_staff == answer.body


async def test_staff_refund_cash_and_credit_within_rules(pay: PaymentShop) -> None:
    """Refunds stay within the captured amount; store credit is granted once per key."""
    order_id, [payment] = await pay.add_paid_order(("alipay", 100))
    path = f"/v1/admin/orders/{order_id}/refunds"
    for role in ([], ["catalog"]):
        answer = await pay.gateway.call("POST", path, roles=role, json={"idempotency_key": "k", "reason": "x"})
        assert answer.status in (401, 403), answer.text
    for refund, status, code in (
        ({"idempotency_key": "k", "amount": 101, "reason": "x"}, 409, "refund_exceeds_captured"),
        ({"idempotency_key": "k", "amount": 0, "reason": "x"}, 422, "invalid"),
        ({"idempotency_key": "", "reason": "x"}, 422, "invalid"),
    ):
        answer = await pay.gateway.call("POST", path, user="sam", roles=["support"], json=refund)
        assert (answer.status, answer.code) == (status, code), answer.text
    for id_, status, code in ((payment["payment_id"], 409, "not_collectable"), (uuid4(), 404, "not_found")):
        answer = await pay.gateway.call(
            "POST", f"/v1/admin/payments/{id_}/cash-collected", user="sam", roles=["support"]
        )
        assert (answer.status, answer.code) == (status, code)
    grant = {"idempotency_key": "sorry", "amount": 50, "currency": "CNY"}
    for _ in range(2):
        credit = await pay.call_as_staff("POST", "/store-credit/user", json=grant)
        assert credit == {"user_id": "user", "balances": [{"amount": 50, "currency": "CNY"}]}
    other = await pay.gateway.call("POST", "/v1/admin/store-credit/other", user="sam", roles=["support"], json=grant)
    assert (other.status, other.code) == (422, "key_reused")
    assert (await pay.gateway.call("GET", "/v1/store-credit")).body == credit
    assert await pay.fetch_value("SELECT actor FROM refunds") is None


@pytest.mark.parametrize("currency", ["ZZZ", "XXX", "XTS", "XAU", "cny", "CNY ", "C\u200bNY", ""])
async def test_unknown_currency_is_refused_everywhere(pay: PaymentShop, currency: str) -> None:
    product = {"name": "Tea", "price": 100, "currency": currency}
    sale = {"sale_id": "tea", "title": "Tea", "currency": currency, "opens_at": "2031-01-01T00:00:00Z"}
    grant = {"idempotency_key": "sorry", "amount": 50, "currency": currency}
    for method, path, body in (
        ("PUT", "/v1/admin/variants/tea", product),
        ("POST", "/v1/admin/sales", {"sale": sale}),
        ("POST", "/v1/admin/store-credit/user", grant),
    ):
        answer = await pay.gateway.call(method, path, user="sam", roles=["operator"], json=body)
        assert (answer.status, answer.code) == (422, "invalid"), (path, answer.text)
    assert (await pay.gateway.call("GET", "/v1/store-credit")).body == {"user_id": "user", "balances": []}


async def test_parked_payment_and_refund_are_listed_and_retried(shop: CliServices, sale_id: str) -> None:
    """A payment and a refund are parked while the provider is unavailable."""
    change = with_job_settings(max_attempts=3, backoff_max_s=0.03, breaker_failures=1_000)
    async with open_payment_shop(shop, sale_id, change=change) as pay:
        paid, [payment] = await pay.add_paid_order(("alipay", 100))
        pay.set_faults(down=True)
        order_id = await pay.add_order()
        begun = await pay.gateway.services.payments.start(order_id, "user", [TenderInput("wechatpay", 100)])
        await pay.call_as_staff("POST", f"/orders/{paid}/refunds", json={"idempotency_key": "k", "reason": "broken"})

        async def list_parked() -> dict[str, dict[str, Any]]:
            page = await pay.call_as_staff("GET", "/jobs?state=parked")
            return {job["queue"]: job for job in page["items"]}

        async def parked(count: int) -> bool:
            return len(await list_parked()) == count

        await eventually(lambda: parked(2))
        listed = await list_parked()
        assert listed["payments"]["subject"] == str(begun.payments[0].payment_id)
        assert (listed["payments"]["kind"], listed["payments"]["attempts"]) == ("payment.create", 3)
        assert (listed["payments"]["order_id"], listed["refunds"]["order_id"]) == (str(order_id), str(paid))
        assert all(job["last_error"] for job in listed.values())
        pay.set_faults()
        # The first retry succeeds; a second one finds no parked job.
        for job in listed.values():
            await pay.call_as_staff("POST", f"/jobs/{job['queue']}/{job['subject']}/retry")
        await eventually(lambda: parked(0))
        await pay.wait_until_idle()
        again = await pay.gateway.call(
            "POST", f"/v1/admin/jobs/refunds/{listed['refunds']['subject']}/retry", user="sam", roles=["support"]
        )
        assert (again.status, again.code) == (404, "not_found")
        pay.pay_at_provider("wechatpay", listed["payments"]["subject"])
        await pay.wait_for_order(order_id, "paid")
        assert pay.payment_store.sum_refunds("alipay", UUID(payment["payment_id"]).hex) == 100
        await pay.check_records()


async def test_new_payment_plan_unparks_the_replaced_payment(shop: CliServices, sale_id: str) -> None:
    """Otherwise the order could neither be paid nor expire."""
    change = with_job_settings(max_attempts=2, backoff_max_s=0.03, breaker_failures=1_000)
    async with open_payment_shop(shop, sale_id, change=change) as pay:
        order_id = await pay.add_order()
        pay.sandbox.set_faults("alipay", pay.sandbox.faults.get("alipay").__class__(down=True))
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])

        async def parked() -> bool:
            return bool(await pay.fetch_value("SELECT parked FROM jobs"))

        await eventually(parked)
        pay.set_faults()
        [payment] = await pay.start_payments(order_id, ("wechatpay", 100))
        assert await pay.fetch_value("SELECT bool_or(parked) FROM jobs") is False
        pay.pay_at_provider("wechatpay", payment["payment_id"])
        await pay.wait_for_order(order_id, "paid")
