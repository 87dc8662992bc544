"""Payments of orders: methods, several tenders, replaced payments, providers that do not answer."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from commerce.payments import polling
from commerce.payments.errors import NotPayable
from commerce.payments.model import TenderInput
from commerce.payments.provider_port import PaymentFlow
from ops.sandbox.server import PROVIDERS
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually

pytestmark = pytest.mark.usefixtures("short_polls")


async def start_with_tender(pay: PaymentShop, order_id: UUID, user: str, tender: TenderInput) -> dict[str, Any]:
    """Start one tender and return its payment once the provider was called."""
    await pay.gateway.services.payments.start(order_id, user, [tender])

    async def requested() -> dict[str, Any] | None:
        [current] = await pay.list_payments(order_id, user)
        return current if current["action"] else None

    payment = await eventually(requested)
    assert payment is not None
    return payment


FLOWS: list[tuple[Any, PaymentFlow, str]] = [
    ("alipay", "qr", "qr"),
    ("alipay", "page", "redirect"),
    ("alipay", "app", "app"),
    ("wechatpay", "qr", "qr"),
    ("wechatpay", "jsapi", "jsapi"),
]


async def test_payment_in_each_flow_pays_order(pay: PaymentShop) -> None:
    """Covers each flow of each provider."""
    for method, flow, kind in FLOWS:
        await _pay_at_provider(pay, method, flow, kind)


async def _pay_at_provider(pay: PaymentShop, method: Any, flow: PaymentFlow, kind: str) -> None:
    user = f"{method}-{flow}"
    order_id = await pay.add_order(user=user)
    payer = "openid-7" if flow == "jsapi" else None
    payment = await start_with_tender(pay, order_id, user, TenderInput(method, 100, flow, payer))
    action = payment["action"]
    assert (action["kind"], payment["status"], payment["amount"]["amount"]) == (kind, "pending", 100)
    if kind in ("redirect", "app"):  # the customer's browser or app creates it at the provider
        gateway = pay.settings.payments.alipay
        assert gateway is not None
        url = action["url"] or f"{gateway.gateway_url}?{action['parameters']['order_string']}"
        async with pay.gateway.client.get(url, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
    pay.pay_at_provider(method, payment["payment_id"])
    await pay.wait_for_order(order_id, "paid")
    [paid] = await pay.list_payments(order_id, user)
    assert (paid["status"], paid["action"], paid["refunded"]) == ("captured", None, 0)
    lines = await pay.fetch_rows(
        "SELECT account, amount_minor FROM ledger WHERE order_id = $1 ORDER BY account", order_id
    )
    assert [tuple(line) for line in lines] == [("orders", -100), (f"provider:{method}", 100)]
    events = await pay.fetch_rows("SELECT to_status, actor, reason FROM order_events WHERE order_id = $1", order_id)
    assert [tuple(event) for event in events] == [("paid", "payment_worker", "all of it is paid")]


async def test_store_credit_pays_order_while_it_lasts(pay: PaymentShop) -> None:
    await pay.grant_credit(130)
    order_id, [payment] = await pay.add_order_with_payments(("balance", 100))
    assert (payment["status"], await pay.get_credit()) == ("captured", 30)
    await pay.wait_for_order(order_id, "paid")
    other, [refused] = await pay.add_order_with_payments(("balance", 100))
    assert (refused["status"], refused["reason"]) == ("failed", "there is not enough store credit")
    assert await pay.get_credit() == 30
    await pay.wait_for_order(other, "awaiting_payment")


async def test_cash_on_delivery_confirms_order(pay: PaymentShop) -> None:
    """The order is confirmed, not paid; cash is posted to the ledger when it is collected."""
    order_id, [payment] = await pay.add_order_with_payments(("cod", 100))
    assert payment["status"] == "authorised"
    await pay.wait_for_order(order_id, "confirmed")
    assert await pay.fetch_value("SELECT count(*) FROM ledger") == 0
    await pay.call_as_staff("POST", f"/payments/{payment['payment_id']}/cash-collected")
    assert await pay.fetch_value("SELECT amount_minor FROM ledger WHERE account = 'cash:shop'") == 100


@pytest.mark.parametrize(
    ("internal", "external", "status"), [("balance", "alipay", "paid"), ("cod", "wechatpay", "confirmed")]
)
async def test_order_with_two_tenders_is_paid_once_both_are(
    pay: PaymentShop, internal: str, external: str, status: str
) -> None:
    """Each tender alone leaves the order waiting for payment."""
    await pay.grant_credit(500)
    order_id, payments = await pay.add_order_with_payments((internal, 30), (external, 70))
    assert [payment["status"] for payment in payments] == [
        "captured" if internal == "balance" else "authorised",
        "pending",
    ]
    assert await pay.fetch_value("SELECT status FROM orders") == "awaiting_payment"
    pay.pay_at_provider(external, payments[1]["payment_id"])
    await pay.wait_for_order(order_id, status)
    assert await pay.get_credit() == (470 if internal == "balance" else 500)


async def test_payments_without_tenders_follow_order_plan(pay: PaymentShop) -> None:
    plan = [{"method": "alipay", "amount": 40}, {"method": "wechatpay", "amount": 60}]
    order_id = await pay.add_order(payments=plan)
    payments = await pay.start_payments(order_id)
    assert [(payment["method"], payment["amount"]["amount"]) for payment in payments] == [
        ("alipay", 40),
        ("wechatpay", 60),
    ]
    for payment in payments:
        pay.pay_at_provider(payment["method"], payment["payment_id"])
    await pay.wait_for_order(order_id, "paid")


async def test_failed_tender_refunds_the_others(pay: PaymentShop) -> None:
    """The refunds are automatic, and the customer pays with other tenders while there is time."""
    await pay.grant_credit(20)
    order_id, payments = await pay.add_order_with_payments(("balance", 20), ("alipay", 30), ("wechatpay", 50))
    pay.pay_at_provider("alipay", payments[1]["payment_id"])
    await pay.wait_for_payment(payments[1]["payment_id"], "captured")
    pay.payment_store.close_trade("wechatpay", UUID(payments[2]["payment_id"]).hex)  # the customer refuses
    await pay.wait_for_payment(payments[2]["payment_id"], "closed")
    await pay.wait_until_idle()
    balance, alipay, wechatpay = await pay.list_payments(order_id)
    assert [payment["refunded"] for payment in (balance, alipay, wechatpay)] == [20, 30, 0]
    assert [payment["reason"] for payment in alipay["refunds"]] == ["another part of the order was not paid"]
    assert await pay.get_credit() == 20
    [repeated] = await pay.start_payments(order_id, ("alipay", 100))
    pay.pay_at_provider("alipay", repeated["payment_id"])
    await pay.wait_for_order(order_id, "paid")


async def test_closed_tender_paid_late_is_refunded(pay: PaymentShop) -> None:
    """One tender is captured while the other is being refunded: together they pay for nothing."""
    order_id, [first, second] = await pay.add_order_with_payments(("alipay", 40), ("wechatpay", 60))
    pay.pay_at_provider("alipay", first["payment_id"])
    await pay.wait_for_payment(first["payment_id"], "captured")
    pay.payment_store.close_trade("wechatpay", UUID(second["payment_id"]).hex)
    await pay.wait_for_payment(second["payment_id"], "closed")
    await pay.wait_until_idle()
    pay.pay_at_provider("wechatpay", second["payment_id"], too_late=True)
    await pay.wait_for_payment(second["payment_id"], "captured")
    await pay.wait_until_idle()
    assert await pay.fetch_value("SELECT status FROM orders") == "awaiting_payment"
    assert [payment["refunded"] for payment in await pay.list_payments(order_id)] == [40, 60]


async def test_insufficient_credit_closes_other_tender_at_provider(pay: PaymentShop) -> None:
    order_id, [_, alipay] = await pay.add_order_with_payments(("balance", 30), ("alipay", 70))
    await pay.wait_for_payment(alipay["payment_id"], "closed")
    await pay.wait_until_idle()
    assert pay.find_trade_state("alipay", alipay["payment_id"]) in ("closed", None)
    await pay.wait_for_order(order_id, "awaiting_payment")


async def test_replaced_payment_paid_late_is_refunded(pay: PaymentShop) -> None:
    """The first payment is closed at its provider; if it is captured all the same, it is refunded."""
    order_id, [first] = await pay.add_order_with_payments(("alipay", 100))
    [second] = await pay.start_payments(order_id, ("wechatpay", 100))
    await pay.wait_for_payment(first["payment_id"], "closed")
    assert pay.find_trade_state("alipay", first["payment_id"]) == "closed"
    pay.pay_at_provider("wechatpay", second["payment_id"])
    await pay.wait_for_order(order_id, "paid")
    pay.pay_at_provider("alipay", first["payment_id"], too_late=True)
    await pay.wait_for_payment(first["payment_id"], "captured")
    await pay.wait_until_idle()
    old, new = await pay.list_payments(order_id)
    assert (old["current"], old["refunded"], new["current"], new["refunded"]) == (False, 100, True, 0)
    assert [refund["reason"] for refund in old["refunds"]] == ["it was replaced by another"]


async def test_replaced_store_credit_is_available_to_new_tenders(pay: PaymentShop) -> None:
    """The store credit of the replaced payment is refunded before the new one takes it."""
    await pay.grant_credit(60)
    order_id, [_, alipay] = await pay.add_order_with_payments(("balance", 60), ("alipay", 40))
    balance, wechatpay = await pay.start_payments(order_id, ("balance", 60), ("wechatpay", 40))
    assert balance["status"] == "captured", balance["reason"]
    pay.pay_at_provider("wechatpay", wechatpay["payment_id"])
    await pay.wait_for_order(order_id, "paid")
    await pay.wait_for_payment(alipay["payment_id"], "closed")
    assert await pay.get_credit() == 0


async def test_repeated_start_changes_nothing(pay: PaymentShop) -> None:
    order_id = await pay.add_order()
    parts = [TenderInput("alipay", 40), TenderInput("wechatpay", 60)]
    answers = await asyncio.gather(*(pay.gateway.services.payments.start(order_id, "user", parts) for _ in range(20)))
    assert len({tuple(payment.payment_id for payment in answer.payments) for answer in answers}) == 1
    payments = await pay.start_payments(order_id, ("alipay", 40), ("wechatpay", 60))
    for payment in payments:
        pay.pay_at_provider(payment["method"], payment["payment_id"])
    await pay.wait_for_order(order_id, "paid")
    repeated = await pay.start_payments(order_id, ("alipay", 40), ("wechatpay", 60))
    assert [payment["payment_id"] for payment in repeated] == [payment["payment_id"] for payment in payments]
    with pytest.raises(NotPayable):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
    assert await pay.fetch_value("SELECT count(*) FROM payments") == 2


async def test_polling_without_webhooks_pays_and_refunds(pay: PaymentShop) -> None:
    pay.set_faults(dropped_share=1)
    order_id, _ = await pay.add_paid_order(("alipay", 40), ("wechatpay", 60))
    await pay.call_as_staff("POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "reason": "broken"})
    await pay.wait_until_idle()
    assert [payment["refunded"] for payment in await pay.list_payments(order_id)] == [40, 60]
    assert await pay.fetch_value("SELECT count(*) FROM payment_webhooks") == 0


def count_polls() -> float:
    """Return how many polls of both providers have found nothing new, or found a capture."""
    return sum(
        REGISTRY.get_sample_value(
            "floodgate_jobs_total",
            {"queue": "payments", "kind": "payment.query", "system": system, "result": result},
        )
        or 0
        for system in ("alipay", "wechatpay")
        for result in ("waiting", "captured", "unchanged")
    )


async def test_webhooks_without_polling_pay_order(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 30_000)
    polls = count_polls()
    await pay.add_paid_order(("alipay", 40), ("wechatpay", 60))
    results = await pay.fetch_rows("SELECT method, result FROM payment_webhooks ORDER BY method")
    assert [tuple(row) for row in results] == [("alipay", "captured"), ("wechatpay", "captured")]
    assert count_polls() == polls, "the worker polled the provider"


@pytest.mark.parametrize("method", PROVIDERS)
async def test_payment_paid_before_create_response_is_captured(shop: CliServices, sale_id: str, method: str) -> None:
    """The response is lost, the customer pays, and the provider refuses to create it again: it is paid."""
    async with open_payment_shop(shop, sale_id, change=with_job_settings(call_timeout_s=0.4)) as pay:
        order_id = await pay.add_order()
        pay.set_faults(approve="auto", pay_after_ms=0, dropped_share=1, slow_share=1, slow_ms=700)
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput(method, 100)])  # type: ignore[arg-type]

        async def charged() -> bool:
            return bool(pay.payment_store.totals(method)["captured"])

        await eventually(charged)
        assert await pay.fetch_value("SELECT kind FROM jobs") == "payment.create"
        pay.set_faults(dropped_share=1)
        await pay.wait_for_order(order_id, "paid")
        await pay.wait_until_idle()
        await pay.check_records()


async def test_unavailable_provider_opens_breaker_and_recovers(shop: CliServices, sale_id: str) -> None:
    """The breaker opens and the other provider works; no job is lost or parked, and all continue later."""
    change = with_job_settings(breaker_failures=5, breaker_open_s=0.5, max_attempts=30, backoff_max_s=0.1)
    async with open_payment_shop(shop, sale_id, change=change) as pay:
        pay.set_faults()
        pay.sandbox.set_faults("alipay", pay.sandbox.faults.get("alipay").__class__(down=True, webhook_delay_ms=0))
        orders = [await pay.add_order(user=f"u{n}") for n in range(8)]
        start = pay.gateway.services.payments.start
        await asyncio.gather(*(start(id_, f"u{n}", [TenderInput("alipay", 100)]) for n, id_ in enumerate(orders)))

        async def is_breaker_open() -> bool:
            return REGISTRY.get_sample_value("floodgate_breaker_open", labels) == 1

        async def attempts_from(count: int = 0) -> int:
            attempts = int(await pay.fetch_value("SELECT sum(attempts) FROM jobs WHERE system = 'alipay'"))
            return attempts if attempts >= count else 0

        labels = {"worker": "payment_worker", "system": "alipay"}
        await eventually(is_breaker_open)
        before, clock = await attempts_from(), pay.shop.clock
        since = clock.monotonic()
        await eventually(lambda: attempts_from(before + 3))
        assert clock.monotonic() - since > 0.8, "the provider is called more than once in half a second"
        await pay.add_paid_order(("wechatpay", 100), user="somebody")
        pay.set_faults(approve="auto", pay_after_ms=0)
        for order_id in orders:
            await pay.wait_for_order(order_id, "paid")
        assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE parked") == 0
        await pay.wait_until_idle()
        await pay.check_records()
