"""Alipay's adapter against the sandbox: all methods, and the result of each response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID, uuid4

import pytest
from msgspec import structs

from commerce.kernel.clock import from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.money import Money
from commerce.payments.provider_port import ProviderPayment, ProviderRefund, RefundRequest
from commerce.payments.providers.alipay import Alipay, status_map, wire
from ops.sandbox.payment_store import PaymentStoreRefusal
from tests.payments.alipay_kit import (
    APP_ID,
    NOON,
    NOTIFY_URL,
    PUBLIC_URL,
    AlipayKit,
    FakeAlipayTransport,
    account,
    key,
    open_alipay_kit,
    refund_request,
)
from tests.support.http_transport import SessionTransport


@pytest.fixture
async def kit() -> AsyncIterator[AlipayKit]:
    async with open_alipay_kit() as alipay_kit:
        yield alipay_kit


# Creating a payment.


async def test_payment_by_code_creates_trade_once(kit: AlipayKit) -> None:
    request = kit.payment_request("qr")
    action = await kit.alipay.create(request)
    assert (action.kind, action.code) == ("qr", f"{PUBLIC_URL}/pay/alipay/{request.payment_id.hex}")
    assert await kit.alipay.create(request) == action
    trade = kit.trade(request.payment_id)
    assert kit.scheduled == [trade]
    assert (trade.amount, trade.currency, trade.subject, trade.flow) == (1999, "CNY", "红茶 a b c d", "qr")
    assert (trade.notify_url, from_ms(trade.expires_ms)) == (NOTIFY_URL, request.expires_at)


async def test_payment_page_creates_trade_when_opened(kit: AlipayKit) -> None:
    request = kit.payment_request("page", return_url="https://shop.invalid/thanks?a=1&b=ü +")
    action = await kit.alipay.create(request)
    assert action.kind == "redirect"
    assert action.url is not None
    parameters = dict(parse_qsl(urlsplit(action.url).query, strict_parsing=True))
    content = json.loads(parameters["biz_content"])
    assert parameters["method"] == "alipay.trade.page.pay"
    assert parameters["return_url"] == request.return_url
    assert parameters["timestamp"] == "2026-11-11 12:00:00"
    assert content["time_expire"] == "2026-11-11 12:15:00"
    assert (content["total_amount"], content["product_code"]) == ("19.99", "FAST_INSTANT_TRADE_PAY")
    assert await kit.alipay.query(request.payment_id) == ProviderPayment(request.payment_id, "absent")
    for _ in range(2):
        async with await kit.open_page(action.url) as page:
            location, _, back = page.headers["location"].partition("?")
            assert (page.status, location) == (302, f"{PUBLIC_URL}/pay/alipay/{request.payment_id.hex}")
            assert dict(parse_qsl(back)) == {"return_url": request.return_url}
    assert kit.scheduled == [kit.trade(request.payment_id)]
    assert (await kit.alipay.query(request.payment_id)).state == "waiting"


async def test_page_for_phone_creates_trade_when_opened(kit: AlipayKit) -> None:
    request = kit.payment_request("mobile_page", return_url="https://shop.invalid/orders/7")
    action = await kit.alipay.create(request)
    assert (action.kind, action.expires_at) == ("redirect", None)
    parameters = dict(parse_qsl(urlsplit(str(action.url)).query, strict_parsing=True))
    content = json.loads(parameters["biz_content"])
    assert (parameters["method"], content["product_code"]) == ("alipay.trade.wap.pay", "QUICK_WAP_WAY")
    assert parameters["return_url"] == content["quit_url"] == request.return_url
    async with await kit.open_page(str(action.url)) as page:
        assert page.status == 302
    assert kit.trade(request.payment_id).flow == "mobile_page"


async def test_dead_code_cannot_be_paid_until_renewed(kit: AlipayKit) -> None:
    request = kit.payment_request("qr", expires_at=from_ms(kit.clock.ms) + timedelta(hours=6))
    action = await kit.alipay.create(request)
    kit.clock.ms += 2 * 3_600_000
    assert action.expires_at == from_ms(kit.clock.ms)
    with pytest.raises(PaymentStoreRefusal, match="has expired"):
        kit.payment_store.pay("alipay", request.payment_id.hex, kit.clock.ms)
    renewed = await kit.alipay.create(request)
    assert renewed.expires_at == from_ms(kit.clock.ms) + timedelta(hours=2)
    assert kit.payment_store.pay("alipay", request.payment_id.hex, kit.clock.ms).state == "captured"
    assert len(kit.scheduled) == 1, "the same trade: it cannot be paid twice"


@pytest.mark.parametrize("life", [timedelta(seconds=59), timedelta(days=15, seconds=1)])
async def test_end_outside_bounds_of_alipay_is_refused(kit: AlipayKit, life: timedelta) -> None:
    assert not kit.alipay.min_lifetime <= life <= kit.alipay.max_lifetime
    with pytest.raises(ExternalRefusal, match="time_expire"):
        await kit.alipay.create(kit.payment_request(expires_at=from_ms(kit.clock.ms) + life))


async def test_payment_page_after_expiry_cannot_be_opened(kit: AlipayKit) -> None:
    request = kit.payment_request("page")
    action = await kit.alipay.create(request)
    assert (await kit.alipay.close(request.payment_id)).state == "closed"  # Alipay does not know it
    kit.clock.ms += 15 * 60_000
    async with await kit.open_page(str(action.url)) as page:
        assert (page.status, "time_expire" in await page.text()) == (200, True)
    assert (await kit.alipay.query(request.payment_id)).state == "absent"
    assert kit.scheduled == []


async def test_order_string_for_app_creates_trade(kit: AlipayKit) -> None:
    request = kit.payment_request("app")
    action = await kit.alipay.create(request)
    assert action.kind == "app"
    assert action.parameters is not None
    assert list(action.parameters) == ["order_string"]
    async with await kit.open_page(f"{kit.gateway_url}?{action.parameters['order_string']}") as page:
        assert page.status == 302
    assert kit.trade(request.payment_id).flow == "app"


async def test_request_that_alipay_does_not_accept_is_refused(kit: AlipayKit) -> None:
    pound = Money(1, "GBP")
    request = kit.payment_request()
    for bad_request, word in (
        (kit.payment_request("jsapi"), "flow"),
        (structs.replace(request, amount=pound), "currency"),
        (kit.payment_request(fen=0), r"ACQ\.INVALID_PARAMETER"),
    ):
        with pytest.raises(ExternalRefusal, match=word):
            await kit.alipay.create(bad_request)
    with pytest.raises(ExternalRefusal, match="currency"):
        await kit.alipay.refund(RefundRequest(uuid4(), uuid4(), pound, pound, ""))
    await kit.alipay.create(request)
    with pytest.raises(ExternalRefusal, match=r"ACQ\.CONTEXT_INCONSISTENT"):
        await kit.alipay.create(structs.replace(request, amount=Money(1, "CNY")))


# States of a payment, and refunds.


async def test_paid_trade_is_captured(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    payment = await kit.alipay.query(payment_id)
    trade_no = kit.trade(payment_id).trade_no
    at = NOON + timedelta(minutes=1)
    assert payment == ProviderPayment(payment_id, "captured", Money(1999, "CNY"), trade_no, at)
    assert await kit.alipay.close(payment_id) == payment


async def test_closed_trade_stays_closed(kit: AlipayKit) -> None:
    request = kit.payment_request()
    await kit.alipay.create(request)
    for _ in range(2):
        assert await kit.alipay.close(request.payment_id) == ProviderPayment(request.payment_id, "closed")
    assert await kit.alipay.query(request.payment_id) == ProviderPayment(request.payment_id, "closed")
    with pytest.raises(ExternalRefusal, match=r"ACQ\.TRADE_HAS_CLOSE"):
        await kit.alipay.create(request)


async def test_expired_trade_is_closed(kit: AlipayKit) -> None:
    request = kit.payment_request()
    await kit.alipay.create(request)
    kit.clock.ms += 15 * 60_000
    assert (await kit.alipay.query(request.payment_id)).state == "closed"
    assert (await kit.alipay.close(request.payment_id)).state == "closed"


async def test_partial_refunds_repeated_are_done_once(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    first, second = refund_request(payment_id, 999), refund_request(payment_id, 1000)
    absent = ProviderRefund(payment_id, first.refund_id, "absent")
    trade = kit.payment_store.find_trade("alipay", payment_id.hex)
    assert trade is not None
    done = ProviderRefund(payment_id, first.refund_id, "done", Money(999, "CNY"), provider_refund_id=trade.trade_no)
    assert await kit.alipay.query_refund(first) == absent
    for _ in range(2):  # a repeat moves no money, and the refund is still done
        assert await kit.alipay.refund(first) == done
        assert await kit.alipay.query_refund(first) == done
    assert (await kit.alipay.query(payment_id)).state == "captured"
    assert (await kit.alipay.refund(second)).state == "done"
    # Everything is refunded: Alipay answers TRADE_CLOSED, but the payment was captured.
    assert kit.payment_store.sum_refunds("alipay", payment_id.hex) == 1999
    payment = await kit.alipay.query(payment_id)
    assert (payment.state, payment.amount) == ("captured", Money(1999, "CNY"))
    assert (await kit.alipay.close(payment_id)).state == "captured"
    assert len(kit.scheduled) == 3


async def test_refund_that_alipay_does_not_accept_is_refused(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    first = refund_request(payment_id, 1000)
    await kit.alipay.refund(first)
    for refund, word in (
        (refund_request(payment_id, 1000), r"ACQ\.REASON_TRADE_REFUND_FEE_ERR"),
        (refund_request(payment_id, 1, refund_id=first.refund_id), r"ACQ\.DISCORDANT_REPEAT_REQUEST"),
        (refund_request(uuid4(), 1), r"ACQ\.TRADE_NOT_EXIST"),
    ):
        with pytest.raises(ExternalRefusal, match=word):
            await kit.alipay.refund(refund)
    assert (await kit.alipay.query_refund(refund_request(uuid4(), 1))).state == "absent"
    request = kit.payment_request()
    await kit.alipay.create(request)
    with pytest.raises(ExternalRefusal, match=r"ACQ\.TRADE_STATUS_ERROR"):
        await kit.alipay.refund(refund_request(request.payment_id, 1))


# Unexpected responses.


def signed_response(method: str, content: dict[str, object], owner: str = "alipay") -> bytes:
    raw = json.dumps(content)
    node = method.replace(".", "_") + "_response"
    return f'{{"{node}":{raw},"sign":"{wire.sign(raw.encode(), key(owner))}"}}'.encode()


def adapter_with_reply(kit: AlipayKit, body: bytes, status: int = 200) -> Alipay:
    return Alipay(account(), FakeAlipayTransport(body, status=status), kit.clock)


PAYMENT_ID = UUID("019abcde-0000-7000-8000-000000000001")
GOOD: dict[str, object] = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": PAYMENT_ID.hex,
    "trade_no": "2026111122001",
    "trade_status": "TRADE_FINISHED",
    "total_amount": "19.99",
    "send_pay_date": "2026-11-11 12:00:00",
}


async def test_finished_trade_is_captured(kit: AlipayKit) -> None:
    payment = await adapter_with_reply(kit, signed_response("alipay.trade.query", GOOD)).query(PAYMENT_ID)
    assert (payment.state, payment.captured_at) == ("captured", NOON)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("trade_status", {**GOOD, "trade_status": "TRADE_PENDING"}),
        ("trade_status", {**GOOD, "trade_status": None}),
        ("another payment", {**GOOD, "out_trade_no": "0" * 32}),
        ("amount", {**GOOD, "total_amount": 19.99}),
        ("amount", {**GOOD, "total_amount": "1e2"}),
        ("amount is 0", {**GOOD, "total_amount": "0.00"}),
        ("trans_currency", {**GOOD, "trans_currency": "USD"}),
        ("trade_no", {**GOOD, "trade_no": ""}),
        ("time", {**GOOD, "send_pay_date": "2026-11-11T12:00:00Z"}),
        ("time", {name: value for name, value in GOOD.items() if name != "send_pay_date"}),
        ("20000", {"code": "20000", "msg": "Service Currently Unavailable", "sub_code": "aop.unknow-error"}),
        ("40005", {"code": "40005", "msg": "Call Limited"}),
        ("SYSTEM_ERROR", {"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"}),
        ("BALANCE", {"code": "40004", "sub_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"}),
        ("BRAND_NEW_CODE", {"code": "40004", "sub_code": "ACQ.BRAND_NEW_CODE"}),
        ("None", {}),
    ],
)
async def test_response_with_unknown_content_leaves_outcome_unknown(
    kit: AlipayKit, reason: str, content: dict[str, object]
) -> None:
    with pytest.raises(ExternalOutcomeUnknown, match=reason):
        await adapter_with_reply(kit, signed_response("alipay.trade.query", content)).query(PAYMENT_ID)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"alipay_trade_query_response":{"code":"\xff"},"sign":"x"}',
        b'{"alipay_trade_query_response":{},"sign":"\xff"}',
        b"{}",
        b'{"sign": 1}',
        signed_response("alipay.trade.query", GOOD, owner="stranger"),
        signed_response("alipay.trade.query", GOOD).replace(b"19.99", b"19.98"),
        signed_response("alipay.trade.query", GOOD).replace(b'"code": ', b'"code":'),
        signed_response("alipay.trade.close", GOOD),
        json.dumps({"alipay_trade_query_response": GOOD}).encode(),
        b'{"error_response":{"code":"40002","sub_code":"isv.invalid-app-id"}}',
    ],
)
async def test_response_without_valid_signature_leaves_outcome_unknown(kit: AlipayKit, body: bytes) -> None:
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter_with_reply(kit, body).query(PAYMENT_ID)
    with pytest.raises(ExternalOutcomeUnknown, match="HTTP 502"):
        await adapter_with_reply(kit, signed_response("alipay.trade.query", GOOD), 502).query(PAYMENT_ID)


async def test_unexpected_response_to_other_methods_leaves_outcome_unknown(kit: AlipayKit) -> None:
    refund = refund_request(PAYMENT_ID, 5)
    query = "alipay.trade.fastpay.refund.query"
    done = {**GOOD, "out_request_no": refund.refund_id.hex, "refund_amount": "0.05", "refund_status": "REFUND_SUCCESS"}
    assert (await adapter_with_reply(kit, signed_response(query, done)).query_refund(refund)).amount == Money(5, "CNY")
    for change in (
        {"refund_status": "REFUND_PROCESSING"},
        {"refund_status": None},
        {"refund_amount": "0.5"},
        {"out_request_no": "0" * 32},
        {"out_trade_no": "0" * 32},
    ):
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter_with_reply(kit, signed_response(query, {**done, **change})).query_refund(refund)
    with pytest.raises(ExternalOutcomeUnknown, match="has no code"):
        await adapter_with_reply(kit, signed_response("alipay.trade.precreate", GOOD)).create(
            kit.payment_request("qr", payment_id=PAYMENT_ID)
        )
    # The response to a close that names no trade counts only if a query confirms it.
    nameless = adapter_with_reply(kit, signed_response("alipay.trade.close", {"code": "10000", "msg": "Success"}))
    with pytest.raises(ExternalOutcomeUnknown):
        await nameless.close(PAYMENT_ID)


async def test_refund_is_done_only_when_alipay_confirms_it(kit: AlipayKit) -> None:
    refund = refund_request(PAYMENT_ID, 5)
    method, query = "alipay.trade.refund", "alipay.trade.fastpay.refund.query"
    confirmed, unconfirmed = (
        signed_response(method, {**GOOD, "fund_change": "Y"}),
        signed_response(method, {**GOOD, "fund_change": "N"}),
    )
    unknown = signed_response(query, {"code": "10000", "msg": "Success"})
    for bodies, state, calls in (
        ([confirmed], "done", 1),
        ([unconfirmed, unknown], "waiting", 2),
        ([signed_response(method, GOOD), unknown], "waiting", 2),
    ):
        transport = FakeAlipayTransport(*bodies)
        provider_refund = await Alipay(account(), transport, kit.clock).refund(refund)
        assert (provider_refund.state, transport.calls) == (state, calls)


def test_gateway_error_codes_are_refusals() -> None:
    for code in ("40001", "40002", "40003", "40006"):
        with pytest.raises(ExternalRefusal, match="isv"):
            status_map.raise_for_error("m", {"code": code, "sub_code": "isv.something"})
    status_map.raise_for_error("m", {"code": "10000"})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"app_id": "1"}, "isv.invalid-app-id"),
        ({"method": "alipay.trade.pay"}, "isv.invalid-method"),
        ({"sign_type": "RSA"}, "isv.invalid-signature-type"),
        ({"sign": "AAAA"}, "isv.invalid-signature"),
        ({"version": "2.0"}, "isv.invalid-version"),
        ({"charset": "gbk"}, "isv.invalid-charset"),
        ({"timestamp": "now"}, "isv.invalid-timestamp"),
        ({"biz_content": "[]"}, "isv.invalid-parameter"),
        ({"biz_content": "{"}, "isv.invalid-parameter"),
        ({"biz_content": "{}"}, "ACQ.INVALID_PARAMETER"),
        ({"timestamp": ""}, "isv.missing-timestamp"),
        ({"biz_content": ""}, "isv.missing-parameter"),
    ],
)
async def test_sandbox_refuses_bad_request_like_alipay(kit: AlipayKit, change: dict[str, str], word: str) -> None:
    good = {"app_id": APP_ID, "method": "alipay.trade.query", "charset": "utf-8", "sign_type": "RSA2"}
    good |= {"timestamp": "2026-11-11 12:00:00", "version": "1.0", "biz_content": "{}"}
    request = {**wire.with_signature({**good, **change}, key("merchant")), **change}
    async with kit.session.get(kit.gateway_url + "?" + urlencode(request)) as response:
        content_of_response = json.loads(await response.text())
    content = content_of_response.get("alipay_trade_query_response") or content_of_response["error_response"]
    assert content["sub_code"] == word
    assert ("sign" in content_of_response) == (word != "isv.invalid-app-id")
    async with kit.session.post(kit.gateway_url + "?" + urlencode(request), data=request) as response:
        assert "twice" in await response.text()


async def test_sandbox_refuses_request_signed_by_stranger(kit: AlipayKit) -> None:
    request = kit.payment_request("qr")
    stranger = replace(account(kit.gateway_url), merchant_key=key("stranger"))
    with pytest.raises(ExternalRefusal, match=r"isv\.invalid-signature"):
        await Alipay(stranger, SessionTransport(kit.session), kit.clock).create(request)
    assert kit.payment_store.find_trade("alipay", request.payment_id.hex) is None
