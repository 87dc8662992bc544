"""Responses that are not genuine, incomplete or unknown leave the outcome unknown."""

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
    encrypt,
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


def make_adapter(*responses: HttpResponse) -> tuple[WeChatPay, FakeWeChatPayTransport]:
    transport = FakeWeChatPayTransport(*responses)
    return WeChatPay(with_public_key(), transport, CLOCK), transport


def success_response(content: Any, status: int = 200) -> HttpResponse:
    return http_response(CLOCK.now, status, content)


def certificates(
    signer: str = "platform",
    owner: str = "platform",
    serial: str | None = None,
    age: timedelta = DAY,
    **encryption: str,
) -> tuple[HttpResponse, str]:
    """Return a response with one certificate, signed with the key of `signer`, and its serial number."""
    pem = make_certificate(key(owner), CLOCK.now - age, CLOCK.now - age + 2 * DAY)
    own_serial = f"{load_pem_x509_certificate(pem.encode()).serial_number:X}"
    item = {
        "serial_no": serial or own_serial,
        "encrypt_certificate": encrypt(pem.encode(), "certificate", **encryption),
    }
    return http_response(CLOCK.now, 200, {"data": [item]}, signer=signer, serial=serial or own_serial), own_serial


@pytest.mark.parametrize(("trade_state", "state"), PAYMENTS.items())
async def test_payment_with_known_state_is_mapped(trade_state: str, state: str) -> None:
    adapter, _ = make_adapter(success_response(TRADE | {"trade_state": trade_state}))
    assert (await adapter.query(WANTED.payment_id)).state == state


async def test_payment_without_appid_is_read() -> None:
    adapter, _ = make_adapter(
        success_response({"mchid": MCH_ID, "out_trade_no": WANTED.payment_id.hex, "trade_state": "NOTPAY"})
    )
    assert (await adapter.query(WANTED.payment_id)).state == "waiting"


@pytest.mark.parametrize(("status", "state"), REFUNDS.items())
async def test_refund_with_known_status_is_mapped(status: str, state: str) -> None:
    adapter, _ = make_adapter(success_response(REFUND | {"status": status}))
    refund = await adapter.query_refund(ORDER)
    assert (refund.state, refund.amount) == (state, Money(200, "CNY"))
    assert bool(refund.reason) == (state == "failed")


@pytest.mark.parametrize(
    "changes",
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
async def test_payment_with_incomplete_response_leaves_outcome_unknown(changes: dict[str, Any]) -> None:
    adapter, _ = make_adapter(success_response(TRADE | changes))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.query(WANTED.payment_id)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "DONE"},
        {"out_trade_no": "0" * 32},
        {"out_refund_no": "0" * 32},
        {"amount": {"total": 510, "refund": "200", "currency": "CNY"}},
        {"amount": {"total": 510, "refund": 200, "currency": "USD"}},
    ],
)
async def test_refund_with_incomplete_response_leaves_outcome_unknown(changes: dict[str, Any]) -> None:
    adapter, _ = make_adapter(success_response(REFUND | changes))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.refund(ORDER)


@pytest.mark.parametrize("content", [None, [], {}, "x", {"code_url": ""}, {"code_url": 1}, {"prepay_id": "wx1"}])
async def test_payment_created_without_code_leaves_outcome_unknown(content: Any) -> None:
    adapter, _ = make_adapter(success_response(content))
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.create(WANTED)


async def test_response_without_valid_signature_leaves_outcome_unknown() -> None:
    content = {"code_url": "weixin://wxpay/bizpayurl?pr=x"}
    body = msgspec.json.encode(content)
    genuine = success_response(content)
    signed = dict(genuine.headers)
    for headers in (
        {},
        signed | {"wechatpay-signature": ""},
        signed | {"wechatpay-signature": "WECHATPAY/SIGNTEST/x"},
        signed | {"wechatpay-nonce": "other"},
        http_response(CLOCK.now, 200, content, signer="stranger").headers,
        http_response(CLOCK.now - timedelta(seconds=301), 200, content).headers,
    ):
        adapter, _ = make_adapter(HttpResponse(200, headers, body))
        with pytest.raises(ExternalOutcomeUnknown, match="cannot verify the response"):
            await adapter.create(WANTED)
    adapter, _ = make_adapter(genuine._replace(body=body.replace(b"pr=x", b"pr=y")))
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
async def test_error_that_proves_nothing_leaves_outcome_unknown(status: int, content: Any, is_signed: bool) -> None:
    for call in ("query", "refund"):
        adapter, _ = make_adapter(http_response(CLOCK.now, status, content, is_signed=is_signed))
        with pytest.raises(ExternalOutcomeUnknown):
            await (adapter.query(WANTED.payment_id) if call == "query" else adapter.refund(ORDER))


async def test_error_that_refuses_raises_refusal() -> None:
    content = {"code": "SIGN_ERROR", "message": "wrong"}
    adapter, _ = make_adapter(
        http_response(CLOCK.now, 401, content, is_signed=False), http_response(CLOCK.now, 401, content)
    )
    for _ in range(2):
        with pytest.raises(ExternalRefusal, match="SIGN_ERROR: wrong"):
            await adapter.query(WANTED.payment_id)
    forged = http_response(CLOCK.now, 404, {"code": "ORDER_NOT_EXIST"}, signer="stranger")
    adapter, _ = make_adapter(forged)
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.query(WANTED.payment_id)


async def test_close_refused_while_payable_raises_refusal() -> None:
    refusal = success_response({"code": "INVALID_REQUEST", "message": "x"}, 400)
    adapter, _ = make_adapter(refusal, success_response(TRADE | {"trade_state": "USERPAYING", "amount": None}))
    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await adapter.close(WANTED.payment_id)
    adapter, _ = make_adapter(refusal, success_response(TRADE))
    assert (await adapter.close(WANTED.payment_id)).state == "captured"


async def test_request_with_public_key_names_its_id() -> None:
    adapter, transport = make_adapter(success_response(TRADE))
    await adapter.query(WANTED.payment_id)
    method, url, headers, body = transport.requests[0]
    path = f"/v3/pay/transactions/out-trade-no/{WANTED.payment_id.hex}?mchid={MCH_ID}"
    assert (method, url, body) == ("GET", f"http://127.0.0.1:1{path}", b"")
    assert headers["Wechatpay-Serial"] == PUBLIC_KEY_ID


async def test_certificates_not_genuine_are_not_used() -> None:
    genuine, _ = certificates()
    refused = http_response(CLOCK.now, 401, {"code": "SIGN_ERROR", "message": "x"}, is_signed=False)
    for response in (
        certificates(signer="stranger")[0],
        certificates(serial=SERIAL)[0],
        certificates(api_v3_key="f" * 32)[0],
        certificates(age=5 * DAY)[0],
        certificates(age=-DAY)[0],
        genuine._replace(headers={}),
        success_response({"data": [{"serial_no": "x", "encrypt_certificate": {}}]}),
        success_response({"data": []})._replace(headers=genuine.headers),
        http_response(CLOCK.now, 503, None),
    ):
        adapter = WeChatPay(account(), FakeWeChatPayTransport(response), CLOCK)
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter.refresh()
        assert adapter._keys == {}
    with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
        await WeChatPay(account(), FakeWeChatPayTransport(refused), CLOCK).refresh()
    adapter = WeChatPay(account(), FakeWeChatPayTransport(success_response(TRADE), refused), CLOCK)
    with pytest.raises(ExternalOutcomeUnknown, match="SIGN_ERROR"):  # the certificates are refused, not the payment
        await adapter.query(WANTED.payment_id)


async def test_certificates_after_failed_download_are_requested_again() -> None:
    clock = FakeWeChatPayClock()
    clock.ms = CLOCK.ms  # the time of the signed responses
    genuine, serial = certificates()
    transport = FakeWeChatPayTransport(http_response(clock.now, 503, None), genuine)
    adapter = WeChatPay(account(), transport, clock)
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.refresh()
    await adapter.refresh()
    assert len(transport.requests) == 1
    await clock.sleep(5)
    await adapter.refresh()
    assert set(adapter._keys) == {serial}


async def test_certificates_replaced_are_valid_until_expiry() -> None:
    clock = FakeWeChatPayClock()
    clock.ms = CLOCK.ms  # the time of the signed responses
    old, old_serial = certificates(age=DAY)
    new, new_serial = certificates(signer="stranger", owner="stranger", age=DAY / 2)
    transport = FakeWeChatPayTransport(old, new)
    adapter = WeChatPay(account(), transport, clock)
    await adapter.refresh()
    assert set(adapter._keys) == {old_serial}
    await clock.sleep(60)
    await adapter.refresh()
    assert set(adapter._keys) == {old_serial, new_serial}, "webhooks signed with the old one may be on their way"
    await clock.sleep(DAY.total_seconds() * 1.25)
    transport.responses.append(http_response(clock.now, 200, {"data": []}, signer="stranger", serial=new_serial))
    await adapter.refresh()
    assert set(adapter._keys) == {new_serial}, "the old one has expired"


async def test_certificates_absent_with_public_key_are_no_error() -> None:
    adapter, transport = make_adapter(success_response({"code": "RESOURCE_NOT_EXISTS", "message": "x"}, 404))
    await adapter.refresh()
    assert set(adapter._keys) == {PUBLIC_KEY_ID}
    assert transport.responses == []
