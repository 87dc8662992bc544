"""Payment webhooks: authentic ones are stored once; those that contradict our records are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from prometheus_client import REGISTRY

from commerce.kernel.clock import SystemClock
from commerce.payments import polling
from commerce.payments.providers.alipay import wire
from ops.sandbox.payment_store import DuePaymentWebhook, SimulatedTrade
from ops.sandbox.protocol import SignedWebhook
from ops.sandbox.server import PROVIDERS, provider_protocols
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, provider_keys
from tests.support.sales import eventually

NO = {"alipay": (200, "fail"), "wechatpay": (400, '{"code":"FAIL","message":"not stored, send it again"}')}
YES = {"alipay": (200, "success"), "wechatpay": (204, "")}


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PaymentShop]:
    """Open a shop that receives only the test's webhooks: the sandbox sends none."""
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 30_000)
    async with open_payment_shop(shop, sale_id) as payment_shop:
        payment_shop.set_faults(dropped_share=1)
        yield payment_shop


def counted(method: str, result: str) -> float:
    labels = {"provider": method, "result": result}
    return REGISTRY.get_sample_value("floodgate_payment_webhooks_total", labels) or 0


async def state(pay: PaymentShop) -> list[Any]:
    """Read everything that a payment webhook could change."""
    query = """SELECT (SELECT jsonb_agg(orders ORDER BY order_id) FROM orders)::text,
        (SELECT jsonb_agg(payments ORDER BY payment_id) FROM payments)::text,
        (SELECT jsonb_agg(refunds) FROM refunds)::text,
        (SELECT jsonb_agg(to_jsonb(jobs) - 'due_at' - 'attempts' ORDER BY subject) FROM jobs)::text,
        (SELECT count(*) FROM ledger)"""
    return [tuple(row) for row in await pay.fetch_rows(query)]


def altered_callback(
    pay: PaymentShop, method: str, payment_id: str, change: Callable[[SimulatedTrade], SimulatedTrade], webhook_id: str
) -> SignedWebhook:
    """Build a webhook that the provider signed, about a trade that `change` altered."""
    trade = pay.payment_store.find_trade(method, payment_id.replace("-", ""))
    assert trade is not None
    due_webhook = DuePaymentWebhook(webhook_id, method, trade.out_no, None, None, 0)
    return pay.sandbox.protocols[method].build_webhook(due_webhook, change(trade), None)


async def refused(pay: PaymentShop, method: str, callback: SignedWebhook, result: str) -> None:
    before, count = await state(pay), counted(method, result)
    assert await pay.send_webhook(method, callback) == NO[method]
    assert await state(pay) == before
    assert counted(method, result) == count + 1


@pytest.mark.parametrize("method", PROVIDERS)
async def test_payment_webhook_contradicting_records_is_refused_and_stored(pay: PaymentShop, method: str) -> None:
    """Another amount, an unknown payment, another payment's transaction: stored with the reason."""
    _, [first] = await pay.add_order_with_payments((method, 100))
    order_id, [second] = await pay.add_order_with_payments((method, 100))
    for payment in (first, second):
        pay.pay_at_provider(method, payment["payment_id"])
    about = partial(altered_callback, pay, method, second["payment_id"])
    more = about(lambda trade: dataclasses.replace(trade, amount=101), "more")
    less = about(lambda trade: dataclasses.replace(trade, amount=1), "less")
    unknown = about(lambda trade: dataclasses.replace(trade, out_no=uuid4().hex), "unknown")
    for callback in (more, less, unknown):
        await refused(pay, method, callback, "refused")
        await refused(pay, method, callback, "refused")  # a repeat is refused as well
    assert (
        await pay.send_webhook(method, pay.build_webhook(method, first["payment_id"], webhook_id="first"))
        == YES[method]
    )
    own = pay.payment_store.find_trade(method, first["payment_id"].replace("-", ""))
    assert own is not None
    twice = about(lambda trade: dataclasses.replace(trade, trade_no=own.trade_no), "twice")
    await refused(pay, method, twice, "refused")
    assert (
        await pay.send_webhook(method, pay.build_webhook(method, second["payment_id"], webhook_id="second"))
        == YES[method]
    )
    await pay.wait_for_order(order_id, "paid")
    other = about(lambda trade: dataclasses.replace(trade, trade_no="20261122999"), "in-another-transaction")
    await refused(pay, method, other, "refused")
    kept = [row["result"] for row in await pay.fetch_rows("SELECT result FROM payment_webhooks ORDER BY received_at")]
    first_reasons = (
        f"{method} captured Money(amount=101,",
        f"{method} captured Money(amount=1,",
        "there is no payment ",
    )
    later_reasons = ("its transaction belongs to another payment", "paid in transaction ")
    refusals = [text for text in kept if text != "captured"]
    assert len(refusals) == 5
    assert all(
        text.startswith(f"refused: {reason}")
        for text, reason in zip(refusals, first_reasons + later_reasons, strict=True)
    ), kept
    await pay.check_records()


@pytest.mark.parametrize("method", PROVIDERS)
async def test_payment_webhook_not_authentic_is_refused_and_not_stored(pay: PaymentShop, method: str) -> None:
    """Forged, altered, truncated, of another merchant, in another currency: not stored."""
    _, [payment] = await pay.add_order_with_payments((method, 100))
    pay.pay_at_provider(method, payment["payment_id"])
    good = pay.build_webhook(method, payment["payment_id"])
    other = "wechatpay" if method == "alipay" else "alipay"
    changed = good._replace(body=good.body.replace(b"100" if b"100" in good.body else b"1.00", b"101"))
    due_webhook = DuePaymentWebhook("wrong", method, payment["payment_id"].replace("-", ""), None, "signature", 0)
    trade = pay.payment_store.find_trade(method, due_webhook.out_no)
    assert trade is not None
    forged = pay.sandbox.protocols[method].build_webhook(due_webhook, trade, None)
    await refused(pay, method, forged, "bad_signature")
    await refused(pay, method, good._replace(body=good.body[:-9]), "bad_signature")
    if changed.body != good.body:
        await refused(pay, method, changed, "bad_signature")
    empty = "malformed" if method == "alipay" else "bad_signature"
    await refused(pay, method, good._replace(body=b""), empty)
    await refused(pay, method, _foreign(pay, method, due_webhook, trade), "foreign")
    await refused(pay, method, _in_pounds(pay, method, due_webhook, trade), "bad_content")
    async with pay.gateway.client.post(
        f"{pay.gateway.base}/v1/webhooks/payments/{other}", data=good.body, headers=good.headers
    ) as answer:
        assert (answer.status, await answer.text()) == NO[other]
    assert await pay.fetch_value("SELECT count(*) FROM payment_webhooks") == 0
    assert await pay.send_webhook(method, good) == YES[method]


def _foreign(pay: PaymentShop, method: str, due_webhook: DuePaymentWebhook, trade: SimulatedTrade) -> SignedWebhook:
    """Build a webhook with a valid signature, for another merchant."""
    ids = msgspec.structs.replace(provider_keys().ids, alipay_app_id="2021000000000000", wechatpay_mch_id="1900000000")
    keys = dataclasses.replace(provider_keys(), ids=ids)
    protocols = provider_protocols(
        pay.payment_store, SystemClock(), keys, "http://shop.invalid", pay.sandbox.payment_simulator
    )
    [protocol] = [protocol for protocol in protocols if protocol.name == method]
    return protocol.build_webhook(dataclasses.replace(due_webhook, defect=None), trade, None)


def _in_pounds(pay: PaymentShop, method: str, due_webhook: DuePaymentWebhook, trade: SimulatedTrade) -> SignedWebhook:
    """Build a webhook about the amount in another currency."""
    good = dataclasses.replace(due_webhook, defect=None)
    if method == "wechatpay":
        return pay.sandbox.protocols[method].build_webhook(good, dataclasses.replace(trade, currency="GBP"), None)
    callback = pay.sandbox.protocols[method].build_webhook(good, trade, None)
    fields = {**dict(parse_qsl(callback.body.decode())), "trans_currency": "GBP"}
    key = load_pem_private_key(provider_keys().alipay_platform.private.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    fields["sign"] = wire.sign(wire.signing_text(fields, excluded=("sign", "sign_type")), key)
    return callback._replace(body=urlencode(fields).encode())


@pytest.mark.parametrize("method", PROVIDERS)
async def test_payment_webhook_repeated_changes_nothing(pay: PaymentShop, method: str) -> None:
    """The identical webhook, one with another id, and one after the refund are answered as stored."""
    order_id, [payment] = await pay.add_order_with_payments((method, 100))
    pay.pay_at_provider(method, payment["payment_id"])
    callback = pay.build_webhook(method, payment["payment_id"])
    assert await pay.send_webhook(method, callback) == YES[method]
    await pay.wait_for_order(order_id, "paid")
    before = await state(pay)
    for again, result in (
        (callback, "duplicate"),
        (pay.build_webhook(method, payment["payment_id"]), "duplicate"),
        (pay.build_webhook(method, payment["payment_id"], webhook_id="n-2"), "unchanged"),
    ):
        count = counted(method, result)
        assert await pay.send_webhook(method, again) == YES[method]
        assert counted(method, result) == count + 1
    assert await state(pay) == before
    await pay.call_as_staff(
        "POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "amount": 40, "reason": "broken"}
    )
    await pay.wait_until_idle() if method == "alipay" else await _refunded_by_callback(
        pay, method, payment["payment_id"]
    )
    refund = str(await pay.fetch_value("SELECT refund_id FROM refunds"))
    before = await state(pay)
    for number in range(2):
        late = pay.build_webhook(method, payment["payment_id"], refund, webhook_id=f"refund-{number}")
        assert await pay.send_webhook(method, late) == YES[method]
    assert await pay.send_webhook(method, callback) == YES[method]
    assert await state(pay) == before
    await pay.check_records()


async def _refunded_by_callback(pay: PaymentShop, method: str, payment_id: str) -> None:
    """Complete a refund by its webhook alone: the worker does not poll for half a minute."""

    async def was_requested() -> bool:
        return bool(pay.payment_store.list_refunds(method))

    await eventually(was_requested)
    refund = str(await pay.fetch_value("SELECT refund_id FROM refunds WHERE status = 'pending'"))
    assert (
        await pay.send_webhook(method, pay.build_webhook(method, payment_id, refund, webhook_id="refund"))
        == YES[method]
    )
    assert await pay.fetch_value("SELECT status FROM refunds") == "done"


async def test_refund_webhook_contradicting_records_is_refused(pay: PaymentShop) -> None:
    """The refund has another amount, or was never requested."""
    order_id, [payment] = await pay.add_order_with_payments(("wechatpay", 100))
    pay.pay_at_provider("wechatpay", payment["payment_id"])
    await pay.send_webhook("wechatpay", pay.build_webhook("wechatpay", payment["payment_id"]))
    await pay.wait_for_order(order_id, "paid")
    await pay.call_as_staff(
        "POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "amount": 40, "reason": "broken"}
    )

    async def was_requested() -> bool:
        return bool(
            await pay.fetch_value("SELECT requested AND attempts = 0 FROM refunds JOIN jobs ON subject = refund_id")
        )

    await eventually(was_requested)
    [refund] = pay.payment_store.list_refunds("wechatpay")
    trade = pay.payment_store.find_trade("wechatpay", refund.out_no)
    assert trade is not None
    protocol = pay.sandbox.protocols["wechatpay"]
    for number, wrong in enumerate(
        (dataclasses.replace(refund, amount=41), dataclasses.replace(refund, out_refund_no=uuid4().hex))
    ):
        due_webhook = DuePaymentWebhook(f"r{number}", "wechatpay", refund.out_no, wrong.out_refund_no, None, 0)
        await refused(pay, "wechatpay", protocol.build_webhook(due_webhook, trade, wrong), "refused")
    await pay.send_webhook(
        "wechatpay", pay.build_webhook("wechatpay", payment["payment_id"], refund.out_refund_no, webhook_id="ok")
    )
    assert await pay.fetch_value("SELECT refunded_minor FROM payments") == 40


async def test_payment_webhook_of_unknown_provider_or_key_is_refused(pay: PaymentShop) -> None:
    """The provider is not offered, or the key is unknown and the certificates are unavailable."""
    for name in ("paypal", "balance"):
        url = f"{pay.gateway.base}/v1/webhooks/payments/{name}"
        async with aiohttp.ClientSession() as client, client.post(url, data=b"x") as answer:
            assert answer.status in (404, 422)
    _, [payment] = await pay.add_order_with_payments(("wechatpay", 100))
    pay.pay_at_provider("wechatpay", payment["payment_id"])
    callback = pay.build_webhook("wechatpay", payment["payment_id"])
    stranger = callback._replace(headers={**callback.headers, "Wechatpay-Serial": "ABCDEF"})
    merchant = pay.sandbox.protocols["wechatpay"]
    merchant._merchant_serial, serial = "00", merchant._merchant_serial  # type: ignore[attr-defined]
    await refused(pay, "wechatpay", stranger, "unknown_key")  # the provider refuses to send its certificates
    merchant._merchant_serial = serial  # type: ignore[attr-defined]
    await refused(pay, "wechatpay", stranger, "unknown_key")
