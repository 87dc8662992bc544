"""Alipay's protocol against the independent python-alipay-sdk: each verifies the other's signatures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import pytest
from alipay import AliPay
from alipay.exceptions import AliPayValidationError

from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.providers.alipay import Alipay, wire
from tests.payments.alipay_kit import (
    APP_ID,
    NOON,
    PUBLIC_URL,
    AlipayKit,
    FakeAlipayTransport,
    account,
    key,
    open_alipay_kit,
    private_pem,
    public_pem,
    refund_request,
    sdk,
)

SUBJECT = "红茶 100% + ü"


@pytest.fixture
async def kit() -> AsyncIterator[AlipayKit]:
    async with open_alipay_kit() as alipay_kit:
        yield alipay_kit


def create_alipay_side() -> AliPay:
    """Create an SDK client that signs and verifies as Alipay does.

    It has Alipay's private key and the merchant's public key."""
    return AliPay(
        appid=APP_ID,
        app_private_key_string=private_pem("alipay"),
        alipay_public_key_string=public_pem("merchant"),
        sign_type="RSA2",
    )


async def test_webhook_of_sandbox_verifies_with_sdk(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    refund = refund_request(payment_id, 1999)
    before = kit.webhook(payment_id)
    await kit.alipay.refund(refund)
    for body, is_right in (
        (before, True),
        (kit.webhook(payment_id, refund.refund_id), True),
        (kit.webhook(payment_id, wrong="amount"), True),
        (kit.webhook(payment_id, wrong="signature"), False),
    ):
        fields = dict(parse_qsl(body.decode(), strict_parsing=True))
        signature = fields.pop("sign")
        assert sdk().verify(fields, signature) is is_right


async def test_webhook_signed_by_sdk_is_read(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    refund = refund_request(payment_id, 1)
    await kit.alipay.refund(refund)
    for body, kind in (
        (kit.webhook(payment_id), ProviderPayment),
        (kit.webhook(payment_id, refund.refund_id), ProviderRefund),
    ):
        fields = dict(parse_qsl(body.decode(), strict_parsing=True))
        del fields["sign"], fields["sign_type"]
        fields["body"] = SUBJECT
        text = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
        form = {**fields, "sign_type": "RSA2", "sign": create_alipay_side()._sign(text)}
        assert isinstance(kit.alipay.read_webhook({}, urlencode(form).encode(), NOON).subject, kind)


async def test_request_signed_by_sdk_is_served_by_sandbox(kit: AlipayKit) -> None:
    """The SDK also verifies each response, and raises if its signature is wrong."""
    client = sdk(kit.gateway_url)
    captured, closed = uuid4().hex, uuid4().hex
    for number in (captured, closed):
        response = await asyncio.to_thread(client.api_alipay_trade_precreate, SUBJECT, number, "19.99")
        assert response["qr_code"] == f"{PUBLIC_URL}/pay/alipay/{number}"
    assert (await asyncio.to_thread(client.api_alipay_trade_close, closed))["code"] == "10000"
    kit.payment_store.pay("alipay", captured, kit.clock.ms)
    for number, status in ((captured, "TRADE_SUCCESS"), (closed, "TRADE_CLOSED")):
        assert (await asyncio.to_thread(client.api_alipay_trade_query, number))["trade_status"] == status
    response = await asyncio.to_thread(client.api_alipay_trade_refund, "9.99", captured, out_request_no="r1")
    assert (response["fund_change"], response["refund_fee"]) == ("Y", "9.99")
    response = await asyncio.to_thread(client.api_alipay_trade_fastpay_refund_query, "r1", out_trade_no=captured)
    assert (response["refund_status"], response["refund_amount"]) == ("REFUND_SUCCESS", "9.99")
    response = await asyncio.to_thread(client.api_alipay_trade_refund, "19.99", captured)
    assert (response["code"], response["sub_code"]) == ("40004", "ACQ.REASON_TRADE_REFUND_FEE_ERR")
    response = await asyncio.to_thread(client.api_alipay_trade_refund, "1.00", captured)
    assert response["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    response = await asyncio.to_thread(client.api_alipay_trade_query, uuid4().hex)
    assert response["sub_code"] == "ACQ.TRADE_NOT_EXIST"


async def test_page_signed_by_sdk_opens(kit: AlipayKit) -> None:
    client = sdk()
    for sign_page, flow in (
        (client.api_alipay_trade_page_pay, "page"),
        (client.api_alipay_trade_wap_pay, "mobile_page"),
        (client.api_alipay_trade_app_pay, "app"),
    ):
        number = uuid4().hex
        query = sign_page(SUBJECT, number, "19.99", time_expire="2026-11-11 12:15:00")
        async with await kit.open_page(f"{kit.gateway_url}?{query}") as page:
            assert (page.status, page.headers["location"]) == (302, f"{PUBLIC_URL}/pay/alipay/{number}")
        trade = kit.payment_store.find_trade("alipay", number)
        assert trade is not None
        assert (trade.flow, trade.subject, trade.amount) == (flow, SUBJECT, 1999)
        async with await kit.open_page(f"{kit.gateway_url}?{query.replace('19.99', '0.01')}") as page:
            assert (page.status, "isv.invalid-signature" in await page.text()) == (200, True)


async def test_request_of_adapter_verifies_with_sdk(kit: AlipayKit) -> None:
    page = await kit.alipay.create(kit.payment_request("page", return_url="https://shop.invalid/?a=1&b=ü +"))
    wap = await kit.alipay.create(kit.payment_request("mobile_page", return_url="https://shop.invalid/?a=1&b=ü +"))
    app = await kit.alipay.create(kit.payment_request("app", subject=SUBJECT))
    assert page.url is not None
    assert wap.url is not None
    assert app.parameters is not None
    for query in (urlsplit(page.url).query, urlsplit(wap.url).query, app.parameters["order_string"]):
        fields = dict(parse_qsl(query, strict_parsing=True))
        signature = fields.pop("sign")
        text = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
        assert create_alipay_side()._verify(text, signature)


async def test_response_signed_by_sdk_is_read(kit: AlipayKit) -> None:
    request = kit.payment_request("qr")
    content = {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": request.payment_id.hex,
        "qr_code": "https://q.invalid/ü",
    }
    raw = json.dumps(content, indent=1).replace("/", "\\/")
    signature = create_alipay_side()._sign(raw)
    body = f'{{ "sign" : "{signature}", "alipay_trade_precreate_response" : {raw} }}'.encode()
    alipay = Alipay(account(), FakeAlipayTransport(body), kit.clock)
    assert (await alipay.create(request)).code == "https://q.invalid/ü"
    assert sdk()._verify_and_return_sync_response(body.decode(), "alipay_trade_precreate_response") == content
    changed = body.replace(b"q.invalid", b"r.invalid")
    with pytest.raises(ExternalOutcomeUnknown, match="not signed"):
        wire.read_response(changed, "alipay.trade.precreate", key("alipay").public_key())
    with pytest.raises(AliPayValidationError):
        sdk()._verify_and_return_sync_response(changed.decode(), "alipay_trade_precreate_response")
