"""Damaged text in the webhooks and answers of every adapter: the rest of the message is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote_plus

import pytest

from commerce.kernel.external import HttpResponse
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.providers.alipay import Alipay
from commerce.payments.providers.alipay import wire as alipay_wire
from commerce.payments.providers.wechatpay import WeChatPay
from commerce.shipping.carriers.kuaidi100 import Kuaidi100
from tests.payments import alipay_kit, test_alipay_webhooks, wechatpay_kit
from tests.payments.alipay_kit import AlipayKit, FakeAlipayTransport
from tests.payments.test_wechatpay_webhooks import NOW, PAYMENT_ID, TRADE, create_adapter, envelope
from tests.shipping import sf_express_kit, test_sf_express_webhooks
from tests.shipping.kuaidi100_kit import (
    CARRIERS,
    SALT,
    FakeKuaidi100Transport,
    account,
    carrier,
    entry,
    query_result,
    webhook_param,
)

MARK = "MARK"
DAMAGES = {
    "high surrogate": b"\\ud83c",
    "low surrogate": b"\\udf75",
    "two high surrogates": b"\\ud83c\\uD83C",
    "surrogate in UTF-8": b"\xed\xa0\xbc",
    "half a character": b"\xe7\xba",
    "GB18030": "签收".encode("gb18030"),
    "NUL": b"\0",
    "escaped NUL": b"\\u0000",
    "line break": b"\r\n",
    "terminal escape": b"\\u001b[31m",
    "bidi override": b"\\u202e",
    "long": b"x" * 2_000,
    "whole": "🍵".encode(),
}
NUMBER = "73100012345678"


def damaged(content: object, damage: bytes) -> bytes:
    """Encode JSON with the damage in place of the mark."""
    body = json.dumps(content, ensure_ascii=False).encode()
    assert MARK.encode() in body
    return body.replace(MARK.encode(), damage)


def history() -> dict[str, object]:
    return query_result(NUMBER, data=[entry("2026-11-25 18:03:11", f"已签收 {MARK} 本人", "本人签收", "301", MARK)])


async def kuaidi100_webhook(damage: bytes) -> list[str]:
    param = damaged(json.loads(webhook_param(history())), damage)
    sign = hashlib.md5(param + SALT.encode()).hexdigest().upper()
    body = f"sign={sign}&param={quote_plus(param)}".encode()
    reader = Kuaidi100(account(), FakeKuaidi100Transport(), CARRIERS)
    [update] = reader.read_webhook({}, {}, body, NOW).updates
    return [text for event in update.events for text in (event.text, event.place or "", event.code)]


async def kuaidi100_answer(damage: bytes) -> list[str]:
    events = await carrier(FakeKuaidi100Transport(damaged(history(), damage))).fetch_tracking(NUMBER, "")
    return [text for event in events for text in (event.text, event.place or "", event.code)]


async def sf_express_webhook(damage: bytes) -> list[str]:
    route = test_sf_express_webhooks.webhook_route(
        remark=f"已签收 {MARK} 本人", acceptAddress=MARK, reasonCode=MARK, reasonName=MARK
    )
    [update] = test_sf_express_webhooks.read(damaged({"Body": {"WaybillRoute": [route]}}, damage)).updates
    return [text for event in update.events for text in (event.text, event.place or "", event.code)]


async def sf_express_answer(damage: bytes) -> list[str]:
    route = sf_express_kit.route_entry("80", remark=f"已签收 {MARK} 本人", acceptAddress=MARK)
    content = {"routeResps": [{"mailNo": sf_express_kit.NUMBER, "routes": [route]}]}
    result = damaged({"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": content}, damage)
    # The result is JSON inside of a text of JSON.
    text = result.decode("utf-8", "surrogateescape")
    body = json.dumps({"apiResultCode": "A1000", "apiResultData": text}).encode()
    adapter, _ = sf_express_kit.make_adapter(HttpResponse(200, {}, body))
    events = await adapter.fetch_tracking(sf_express_kit.NUMBER, sf_express_kit.RECIPIENT.phone)
    return [text for event in events for text in (event.text, event.place or "", event.code)]


def paid(subject: ProviderPayment | ProviderRefund) -> list[str]:
    assert isinstance(subject, ProviderPayment)
    assert subject.state == "captured"
    return [str(subject.transaction_id)]


async def wechatpay_webhook(damage: bytes) -> list[str]:
    content = damaged(TRADE | {"trade_state_desc": MARK, "attach": MARK}, damage)
    body = damaged(envelope(content, "TRANSACTION.SUCCESS", summary=MARK), damage)
    return paid(create_adapter().read_webhook(wechatpay_kit.signature_headers(body, NOW), body, NOW).subject)


async def wechatpay_answer(damage: bytes) -> list[str]:
    body = damaged(TRADE | {"trade_state_desc": MARK}, damage)
    clock = wechatpay_kit.FakeWeChatPayClock()
    response = HttpResponse(200, wechatpay_kit.signature_headers(body, clock.now), body)
    transport = wechatpay_kit.FakeWeChatPayTransport(response)
    adapter = WeChatPay(wechatpay_kit.with_public_key(), transport, clock)
    return paid(await adapter.query(PAYMENT_ID))


async def alipay_webhook(damage: bytes) -> list[str]:
    async with alipay_kit.open_alipay_kit() as kit:
        payment_id = await kit.create_paid_payment()
        fields = test_alipay_webhooks.parse_fields(kit.webhook(payment_id))
        fields["subject"] = f"tea {damage.decode('utf-8', 'surrogateescape')}"
        content = alipay_wire.signing_text(fields, excluded=("sign", "sign_type"))
        fields["sign"] = alipay_wire.sign(content, alipay_kit.key("alipay"))
        pairs = (f"{name}={quote_plus(value.encode('utf-8', 'surrogateescape'))}" for name, value in fields.items())
        return paid(kit.alipay.read_webhook({}, "&".join(pairs).encode(), alipay_kit.NOON).subject)


async def alipay_answer(damage: bytes) -> list[str]:
    content = {
        "code": "10000",
        "msg": "Success",
        "subject": MARK,
        "buyer_logon_id": MARK,
        "trade_no": "2026112222001",
        "out_trade_no": PAYMENT_ID.hex,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "5.10",
        "send_pay_date": "2026-11-11 12:00:00",
    }
    raw = damaged(content, damage)
    sign = alipay_wire.sign(raw, alipay_kit.key("alipay"))
    body = b'{"alipay_trade_query_response":' + raw + f',"sign":"{sign}"}}'.encode()
    alipay = Alipay(alipay_kit.account(), FakeAlipayTransport(body), AlipayKit().clock)
    return paid(await alipay.query(PAYMENT_ID))


READERS: list[Callable[[bytes], Awaitable[list[str]]]] = [
    *(kuaidi100_webhook, kuaidi100_answer, sf_express_webhook, sf_express_answer),
    *(wechatpay_webhook, wechatpay_answer, alipay_webhook, alipay_answer),
]


@pytest.mark.parametrize("reader", READERS, ids=[reader.__name__ for reader in READERS])
async def test_message_with_damaged_text_is_read(reader: Callable[[bytes], Awaitable[list[str]]]) -> None:
    for name, damage in DAMAGES.items():
        texts = await reader(damage)
        assert texts, name
        for text in texts:
            assert text.isprintable(), (name, text)
            assert len(text.encode()) <= 2_000, name
            assert len(text) <= 500, name
        if "express" in reader.__name__ or "kuaidi" in reader.__name__:
            assert texts[0].startswith("已签收"), (name, texts)
