"""Answers that cannot be believed, that say too little or that nobody foresaw: nothing is made of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.x509 import load_pem_x509_certificate

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal, HttpResponse
from commerce.kernel.money import Money
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.status_map import PAYMENTS, REFUNDS
from ops.sandbox.wechatpay import make_certificate
from tests.payments.wechatpay_kit import (
    APP_ID,
    DAY,
    MCH_ID,
    PUBLIC_KEY_ID,
    FakeWeChatPayClock,
    FakeWeChatPayTransport,
    account,
    encrypted,
    http_response,
    key,
    payment_request,
    refund_request,
    with_public_key,
)

CLOCK = FakeWeChatPayClock()
WANTED = payment_request()
ORDER = refund_request(WANTED, 200)
TRADE: dict[str, Any] = {
    "appid": APP_ID,
    "mchid": MCH_ID,
    "out_trade_no": WANTED.payment_id.hex,
    "trade_state": "SUCCESS",
    "transaction_id": "4200",
    "success_time": "2026-11-22T10:34:56+08:00",
    "amount": {"total": 510, "currency": "CNY"},
}
REFUND: dict[str, Any] = {
    "out_trade_no": WANTED.payment_id.hex,
    "out_refund_no": ORDER.refund_id.hex,
    "status": "SUCCESS",
    "amount": {"total": 510, "refund": 200, "currency": "CNY"},
}
SERIAL = "AB12"


def make_adapter(*answers: HttpResponse) -> tuple[WeChatPay, FakeWeChatPayTransport]:
    outside = FakeWeChatPayTransport(*answers)
    return WeChatPay(with_public_key(), outside, CLOCK), outside


def success_response(content: Any, status: int = 200) -> HttpResponse:
    return http_response(CLOCK.now, status, content)


def certificates(
    signer: str = "platform", owner: str = "platform", serial: str | None = None, age: timedelta = DAY, **how: str
) -> tuple[HttpResponse, str]:
    """An answer with one certificate, signed with the key of `signer`; and its serial number."""
    pem = make_certificate(key(owner), CLOCK.now - age, CLOCK.now - age + 2 * DAY)
    found = f"{load_pem_x509_certificate(pem.encode()).serial_number:X}"
    item = {"serial_no": serial or found, "encrypt_certificate": encrypted(pem.encode(), "certificate", **how)}
    return http_response(CLOCK.now, 200, {"data": [item]}, signer=signer, serial=serial or found), found


@pytest.mark.parametrize(("word", "state"), PAYMENTS.items())
async def test_every_word_for_a_payment(word: str, state: str) -> None:
    adapter, _ = make_adapter(success_response(TRADE | {"trade_state": word}))
    assert (await adapter.query(WANTED.payment_id)).state == state


async def test_a_payment_need_not_name_the_app() -> None:
    adapter, _ = make_adapter(
        success_response({"mchid": MCH_ID, "out_trade_no": WANTED.payment_id.hex, "trade_state": "NOTPAY"})
    )
    assert (await adapter.query(WANTED.payment_id)).state == "waiting"


@pytest.mark.parametrize(("word", "state"), REFUNDS.items())
async def test_every_word_for_a_refund(word: str, state: str) -> None:
    adapter, _ = make_adapter(success_response(REFUND | {"status": word}))
    seen = await adapter.query_refund(ORDER)
    assert (seen.state, seen.amount) == (state, Money(200, "CNY"))
    assert bool(seen.reason) == (state == "failed")


@pytest.mark.parametrize(
    "changed",
    [
        {"trade_state": "PAID"},
        {"trade_state": ""},
        {"trade_state": None},
        {"appid": "wx1"},
        {"mchid": "1"},
        {"out_trade_no": "0" * 32},
        {"amount": None},
        {"amount": {"total": 510, "currency": "USD"}},
        {"amount": {"total": True, "currency": "CNY"}},
        {"amount": {"total": 5.1, "currency": "CNY"}},
        {"amount": {"total": 0, "currency": "CNY"}},
        {"transaction_id": ""},
        {"success_time": "2026-11-22T10:34:56"},
        {"success_time": "soon"},
    ],
)
async def test_payments_that_say_too_little(changed: dict[str, Any]) -> None:
    adapter, _ = make_adapter(success_response(TRADE | changed))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.query(WANTED.payment_id)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "DONE"},
        {"out_trade_no": "0" * 32},
        {"out_refund_no": "0" * 32},
        {"amount": {"total": 510, "refund": "200", "currency": "CNY"}},
        {"amount": {"total": 510, "refund": 200, "currency": "USD"}},
    ],
)
async def test_refunds_that_say_too_little(changed: dict[str, Any]) -> None:
    adapter, _ = make_adapter(success_response(REFUND | changed))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.refund(ORDER)


@pytest.mark.parametrize("content", [None, [], {}, "x", {"code_url": ""}, {"code_url": 1}, {"prepay_id": "wx1"}])
async def test_orders_without_a_code(content: Any) -> None:
    adapter, _ = make_adapter(success_response(content))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.create(WANTED)


async def test_answers_that_are_not_signed_as_they_should_be() -> None:
    content = {"code_url": "weixin://wxpay/bizpayurl?pr=x"}
    body = msgspec.json.encode(content)
    whole = success_response(content)
    signed = dict(whole.headers)
    for headers in (
        {},
        signed | {"wechatpay-signature": ""},
        signed | {"wechatpay-signature": "WECHATPAY/SIGNTEST/x"},
        signed | {"wechatpay-nonce": "other"},
        http_response(CLOCK.now, 200, content, signer="stranger").headers,
        http_response(CLOCK.now - timedelta(seconds=301), 200, content).headers,
    ):
        adapter, _ = make_adapter(HttpResponse(200, headers, body))
        with pytest.raises(ExternalOutcomeUnknown, match="cannot be believed"):
            await adapter.create(WANTED)
    adapter, _ = make_adapter(whole._replace(body=body.replace(b"pr=x", b"pr=y")))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.create(WANTED)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, {"code": "SYSTEM_ERROR", "message": "x"}),
        (500, {"code": "PARAM_ERROR", "message": "x"}),
        (502, "<html>"),
        (503, None),
        (429, {"code": "FREQUENCY_LIMITED", "message": "x"}),
        (429, {"code": "RATELIMIT_EXCEEDED", "message": "x"}),
        (403, {"code": "NOT_ENOUGH", "message": "x"}),
        (403, {"code": "RULE_LIMIT", "message": "x"}),
        (400, {"code": "BRAND_NEW_CODE", "message": "x"}),
        (400, {"code": 1}),
        (400, ["x"]),
        (404, {"code": "PARAM_ERROR"}),
        (404, None),
        (400, {"code": "ORDER_NOT_EXIST"}),
        (302, None),
        (202, {"code": "USER_PAYING"}),
        (204, None),
    ],
)
@pytest.mark.parametrize("is_signed", [True, False])
async def test_failures_that_prove_nothing(status: int, content: Any, is_signed: bool) -> None:
    for call in ("query", "refund"):
        adapter, _ = make_adapter(http_response(CLOCK.now, status, content, is_signed=is_signed))
        with pytest.raises(ExternalOutcomeUnknown):
            await (adapter.query(WANTED.payment_id) if call == "query" else adapter.refund(ORDER))


async def test_failures_that_are_a_no() -> None:
    said = {"code": "SIGN_ERROR", "message": "wrong"}
    adapter, _ = make_adapter(http_response(CLOCK.now, 401, said, is_signed=False), http_response(CLOCK.now, 401, said))
    for _ in range(2):
        with pytest.raises(ExternalRefusal, match="SIGN_ERROR: wrong"):
            await adapter.query(WANTED.payment_id)
    forged = http_response(CLOCK.now, 404, {"code": "ORDER_NOT_EXIST"}, signer="stranger")
    adapter, _ = make_adapter(forged)
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.query(WANTED.payment_id)


async def test_close_that_is_refused_says_why_when_it_still_can_be_paid() -> None:
    no = success_response({"code": "INVALID_REQUEST", "message": "x"}, 400)
    adapter, _ = make_adapter(no, success_response(TRADE | {"trade_state": "USERPAYING", "amount": None}))
    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await adapter.close(WANTED.payment_id)
    adapter, _ = make_adapter(no, success_response(TRADE))
    assert (await adapter.close(WANTED.payment_id)).state == "captured"


async def test_what_is_sent_with_a_public_key() -> None:
    adapter, outside = make_adapter(success_response(TRADE))
    await adapter.query(WANTED.payment_id)
    method, url, headers, body = outside.asked[0]
    path = f"/v3/pay/transactions/out-trade-no/{WANTED.payment_id.hex}?mchid={MCH_ID}"
    assert (method, url, body) == ("GET", f"http://127.0.0.1:1{path}", b"")
    assert headers["Wechatpay-Serial"] == PUBLIC_KEY_ID


async def test_certificates_that_cannot_be_believed() -> None:
    whole, _ = certificates()
    refused = http_response(CLOCK.now, 401, {"code": "SIGN_ERROR", "message": "x"}, is_signed=False)
    for first in (
        certificates(signer="stranger")[0],
        certificates(serial=SERIAL)[0],
        certificates(secret="f" * 32)[0],
        certificates(age=5 * DAY)[0],
        certificates(age=-DAY)[0],
        whole._replace(headers={}),
        success_response({"data": [{"serial_no": "x", "encrypt_certificate": {}}]}),
        success_response({"data": []})._replace(headers=whole.headers),
        http_response(CLOCK.now, 503, None),
    ):
        adapter = WeChatPay(account(), FakeWeChatPayTransport(first), CLOCK)
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter.refresh()
        assert adapter._keys == {}
    with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
        await WeChatPay(account(), FakeWeChatPayTransport(refused), CLOCK).refresh()
    adapter = WeChatPay(account(), FakeWeChatPayTransport(success_response(TRADE), refused), CLOCK)
    with pytest.raises(ExternalOutcomeUnknown, match="SIGN_ERROR"):  # the certificates are refused, not the payment
        await adapter.query(WANTED.payment_id)


async def test_certificates_that_did_not_come_are_asked_for_again_soon() -> None:
    clock = FakeWeChatPayClock()
    clock.ms = CLOCK.ms  # by which the answers are signed
    whole, serial = certificates()
    outside = FakeWeChatPayTransport(http_response(clock.now, 503, None), whole)
    adapter = WeChatPay(account(), outside, clock)
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.refresh()
    await adapter.refresh()
    assert len(outside.asked) == 1
    await clock.sleep(5)
    await adapter.refresh()
    assert set(adapter._keys) == {serial}


async def test_certificates_that_change() -> None:
    clock = FakeWeChatPayClock()
    clock.ms = CLOCK.ms  # by which the answers are signed
    old, first = certificates(age=DAY)
    new, second = certificates(signer="stranger", owner="stranger", age=DAY / 2)
    outside = FakeWeChatPayTransport(old, new)
    adapter = WeChatPay(account(), outside, clock)
    await adapter.refresh()
    assert set(adapter._keys) == {first}
    await clock.sleep(60)
    await adapter.refresh()
    assert set(adapter._keys) == {first, second}, "callbacks that the old one has signed may be under way"
    await clock.sleep(DAY.total_seconds() * 1.25)
    outside.answers.append(http_response(clock.now, 200, {"data": []}, signer="stranger", serial=second))
    await adapter.refresh()
    assert set(adapter._keys) == {second}, "the old one is over"


async def test_an_account_with_a_public_key_may_have_no_certificates() -> None:
    adapter, outside = make_adapter(success_response({"code": "RESOURCE_NOT_EXISTS", "message": "x"}, 404))
    await adapter.refresh()
    assert set(adapter._keys) == {PUBLIC_KEY_ID}
    assert outside.answers == []
