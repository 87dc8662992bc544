"""Alipay's protocol against python-alipay-sdk, which others wrote: each side believes the other's signatures."""

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
    async with open_alipay_kit() as found:
        yield found


def alipays_side() -> AliPay:
    """The SDK with Alipay's private key and the merchant's public one: it signs and verifies as Alipay does."""
    return AliPay(
        appid=APP_ID,
        app_private_key_string=private_pem("alipay"),
        alipay_public_key_string=public_pem("merchant"),
        sign_type="RSA2",
    )


async def test_callbacks_of_the_sandbox_verify(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    order = refund_request(payment_id, 1999)
    before = kit.callback(payment_id)
    await kit.alipay.refund(order)
    for body, is_right in (
        (before, True),
        (kit.callback(payment_id, order.refund_id), True),
        (kit.callback(payment_id, wrong="amount"), True),
        (kit.callback(payment_id, wrong="signature"), False),
    ):
        fields = dict(parse_qsl(body.decode(), strict_parsing=True))
        signature = fields.pop("sign")
        assert sdk().verify(fields, signature) is is_right


async def test_callbacks_that_the_sdk_signs_are_believed(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    order = refund_request(payment_id, 1)
    await kit.alipay.refund(order)
    for body, kind in (
        (kit.callback(payment_id), ProviderPayment),
        (kit.callback(payment_id, order.refund_id), ProviderRefund),
    ):
        fields = dict(parse_qsl(body.decode(), strict_parsing=True))
        del fields["sign"], fields["sign_type"]
        fields["body"] = SUBJECT
        text = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
        form = {**fields, "sign_type": "RSA2", "sign": alipays_side()._sign(text)}
        assert isinstance(kit.alipay.read_webhook({}, urlencode(form).encode(), NOON).subject, kind)


async def test_requests_that_the_sdk_signs_are_served(kit: AlipayKit) -> None:
    """The SDK also verifies each answer, and raises if it does not believe it."""
    shop = sdk(kit.gateway_url)
    paid, closed = uuid4().hex, uuid4().hex
    for number in (paid, closed):
        answer = await asyncio.to_thread(shop.api_alipay_trade_precreate, SUBJECT, number, "19.99")
        assert answer["qr_code"] == f"{PUBLIC_URL}/pay/alipay/{number}"
    assert (await asyncio.to_thread(shop.api_alipay_trade_close, closed))["code"] == "10000"
    kit.bank.pay("alipay", paid, kit.clock.ms)
    for number, status in ((paid, "TRADE_SUCCESS"), (closed, "TRADE_CLOSED")):
        assert (await asyncio.to_thread(shop.api_alipay_trade_query, number))["trade_status"] == status
    answer = await asyncio.to_thread(shop.api_alipay_trade_refund, "9.99", paid, out_request_no="r1")
    assert (answer["fund_change"], answer["refund_fee"]) == ("Y", "9.99")
    answer = await asyncio.to_thread(shop.api_alipay_trade_fastpay_refund_query, "r1", out_trade_no=paid)
    assert (answer["refund_status"], answer["refund_amount"]) == ("REFUND_SUCCESS", "9.99")
    answer = await asyncio.to_thread(shop.api_alipay_trade_refund, "19.99", paid)
    assert (answer["code"], answer["sub_code"]) == ("40004", "ACQ.REASON_TRADE_REFUND_FEE_ERR")
    answer = await asyncio.to_thread(shop.api_alipay_trade_refund, "1.00", paid)
    assert answer["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    answer = await asyncio.to_thread(shop.api_alipay_trade_query, uuid4().hex)
    assert answer["sub_code"] == "ACQ.TRADE_NOT_EXIST"


async def test_pages_that_the_sdk_signs_open(kit: AlipayKit) -> None:
    shop = sdk()
    for make, scene in ((shop.api_alipay_trade_page_pay, "page"), (shop.api_alipay_trade_app_pay, "app")):
        number = uuid4().hex
        query = make(SUBJECT, number, "19.99", time_expire="2026-11-11 12:15:00")
        async with await kit.open_page(f"{kit.gateway_url}?{query}") as page:
            assert (page.status, page.headers["location"]) == (302, f"{PUBLIC_URL}/pay/alipay/{number}")
        trade = kit.bank.trade("alipay", number)
        assert trade is not None
        assert (trade.scene, trade.subject, trade.amount) == (scene, SUBJECT, 1999)
        async with await kit.open_page(f"{kit.gateway_url}?{query.replace('19.99', '0.01')}") as page:
            assert (page.status, "isv.invalid-signature" in await page.text()) == (200, True)


async def test_our_requests_verify_under_the_sdk(kit: AlipayKit) -> None:
    page = await kit.alipay.create(kit.charge("page", return_url="https://shop.invalid/?a=1&b=ü +"))
    app = await kit.alipay.create(kit.charge("app", subject=SUBJECT))
    assert page.url is not None
    assert app.parameters is not None
    for query in (urlsplit(page.url).query, app.parameters["order_string"]):
        fields = dict(parse_qsl(query, strict_parsing=True))
        signature = fields.pop("sign")
        text = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
        assert alipays_side()._verify(text, signature)


async def test_answers_that_the_sdk_signs_are_believed(kit: AlipayKit) -> None:
    charge = kit.charge("qr")
    content = {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": charge.payment_id.hex,
        "qr_code": "https://q.invalid/ü",
    }
    raw = json.dumps(content, indent=1).replace("/", "\\/")
    signature = alipays_side()._sign(raw)
    body = f'{{ "sign" : "{signature}", "alipay_trade_precreate_response" : {raw} }}'.encode()
    alipay = Alipay(account(), FakeAlipayTransport(body), kit.clock)
    assert (await alipay.create(charge)).code == "https://q.invalid/ü"
    assert sdk()._verify_and_return_sync_response(body.decode(), "alipay_trade_precreate_response") == content
    changed = body.replace(b"q.invalid", b"r.invalid")
    with pytest.raises(ExternalOutcomeUnknown, match="not signed"):
        wire.read_response(changed, "alipay.trade.precreate", key("alipay").public_key())
    with pytest.raises(AliPayValidationError):
        sdk()._verify_and_return_sync_response(changed.decode(), "alipay_trade_precreate_response")
