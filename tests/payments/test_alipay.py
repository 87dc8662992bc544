"""Alipay's adapter against the sandbox: every method, and what each answer means."""

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
    async with open_alipay_kit() as found:
        yield found


# Asking for a payment.


async def test_a_code_to_scan(kit: AlipayKit) -> None:
    charge = kit.charge("qr")
    action = await kit.alipay.create(charge)
    assert (action.kind, action.code) == ("qr", f"{PUBLIC_URL}/pay/alipay/{charge.payment_id.hex}")
    assert await kit.alipay.create(charge) == action
    trade = kit.trade(charge.payment_id)
    assert kit.told == [trade]
    assert (trade.amount, trade.currency, trade.subject, trade.scene) == (1999, "CNY", "红茶 a b c d", "qr")
    assert (trade.notify_url, from_ms(trade.expires_ms)) == (NOTIFY_URL, charge.expires_at)


async def test_a_page_is_a_signed_address_and_exists_once_it_is_opened(kit: AlipayKit) -> None:
    charge = kit.charge("page", return_url="https://shop.invalid/thanks?a=1&b=ü +")
    action = await kit.alipay.create(charge)
    assert action.kind == "redirect"
    assert action.url is not None
    given = dict(parse_qsl(urlsplit(action.url).query, strict_parsing=True))
    content = json.loads(given["biz_content"])
    assert given["method"] == "alipay.trade.page.pay"
    assert given["return_url"] == charge.return_url
    assert given["timestamp"] == "2026-11-11 12:00:00"
    assert content["time_expire"] == "2026-11-11 12:15:00"
    assert (content["total_amount"], content["product_code"]) == ("19.99", "FAST_INSTANT_TRADE_PAY")
    assert await kit.alipay.query(charge.payment_id) == ProviderPayment(charge.payment_id, "absent")
    for _ in range(2):
        async with await kit.open_page(action.url) as page:
            assert (page.status, page.headers["location"]) == (302, f"{PUBLIC_URL}/pay/alipay/{charge.payment_id.hex}")
    assert kit.told == [kit.trade(charge.payment_id)]
    assert (await kit.alipay.query(charge.payment_id)).state == "waiting"


async def test_a_page_cannot_be_opened_after_its_end(kit: AlipayKit) -> None:
    charge = kit.charge("page")
    action = await kit.alipay.create(charge)
    assert (await kit.alipay.close(charge.payment_id)).state == "closed"  # Alipay has never heard of it
    kit.clock.ms += 15 * 60_000
    async with await kit.open_page(str(action.url)) as page:
        assert (page.status, "time_expire" in await page.text()) == (200, True)
    assert (await kit.alipay.query(charge.payment_id)).state == "absent"
    assert kit.told == []


async def test_an_order_string_for_the_app(kit: AlipayKit) -> None:
    charge = kit.charge("app")
    action = await kit.alipay.create(charge)
    assert action.kind == "app"
    assert action.parameters is not None
    assert list(action.parameters) == ["order_string"]
    async with await kit.open_page(f"{kit.gateway_url}?{action.parameters['order_string']}") as page:
        assert page.status == 302
    assert kit.trade(charge.payment_id).scene == "app"


async def test_what_alipay_does_not_take_is_refused(kit: AlipayKit) -> None:
    pound = Money(1, "GBP")
    charge = kit.charge()
    for wrong, word in (
        (kit.charge("jsapi"), "scene"),
        (structs.replace(charge, amount=pound), "currency"),
        (kit.charge(fen=0), r"ACQ\.INVALID_PARAMETER"),
    ):
        with pytest.raises(ExternalRefusal, match=word):
            await kit.alipay.create(wrong)
    with pytest.raises(ExternalRefusal, match="currency"):
        await kit.alipay.refund(RefundRequest(uuid4(), uuid4(), pound, pound, ""))
    await kit.alipay.create(charge)
    with pytest.raises(ExternalRefusal, match=r"ACQ\.CONTEXT_INCONSISTENT"):
        await kit.alipay.create(structs.replace(charge, amount=Money(1, "CNY")))


# What became of it.


async def test_a_payment_is_captured(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    seen = await kit.alipay.query(payment_id)
    trade_no = kit.trade(payment_id).trade_no
    at = NOON + timedelta(minutes=1)
    assert seen == ProviderPayment(payment_id, "captured", Money(1999, "CNY"), trade_no, at)
    assert await kit.alipay.close(payment_id) == seen


async def test_a_payment_is_closed(kit: AlipayKit) -> None:
    charge = kit.charge()
    await kit.alipay.create(charge)
    for _ in range(2):
        assert await kit.alipay.close(charge.payment_id) == ProviderPayment(charge.payment_id, "closed")
    assert await kit.alipay.query(charge.payment_id) == ProviderPayment(charge.payment_id, "closed")
    with pytest.raises(ExternalRefusal, match=r"ACQ\.TRADE_HAS_CLOSE"):
        await kit.alipay.create(charge)


async def test_a_payment_that_expired_is_closed(kit: AlipayKit) -> None:
    charge = kit.charge()
    await kit.alipay.create(charge)
    kit.clock.ms += 15 * 60_000
    assert (await kit.alipay.query(charge.payment_id)).state == "closed"
    assert (await kit.alipay.close(charge.payment_id)).state == "closed"


async def test_refunds_in_parts(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    first, second = refund_request(payment_id, 999), refund_request(payment_id, 1000)
    absent = ProviderRefund(payment_id, first.refund_id, "absent")
    done = ProviderRefund(payment_id, first.refund_id, "done", Money(999, "CNY"))
    assert await kit.alipay.query_refund(first) == absent
    for _ in range(2):  # the same once more: nothing moves, and it is still done
        assert await kit.alipay.refund(first) == done
        assert await kit.alipay.query_refund(first) == done
    assert (await kit.alipay.query(payment_id)).state == "captured"
    assert (await kit.alipay.refund(second)).state == "done"
    # All went back: Alipay says TRADE_CLOSED, but money was taken.
    assert kit.bank.refunded("alipay", payment_id.hex) == 1999
    seen = await kit.alipay.query(payment_id)
    assert (seen.state, seen.amount) == ("captured", Money(1999, "CNY"))
    assert (await kit.alipay.close(payment_id)).state == "captured"
    assert len(kit.told) == 3


async def test_refunds_that_are_refused(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    first = refund_request(payment_id, 1000)
    await kit.alipay.refund(first)
    for order, word in (
        (refund_request(payment_id, 1000), r"ACQ\.REASON_TRADE_REFUND_FEE_ERR"),
        (refund_request(payment_id, 1, refund_id=first.refund_id), r"ACQ\.DISCORDANT_REPEAT_REQUEST"),
        (refund_request(uuid4(), 1), r"ACQ\.TRADE_NOT_EXIST"),
    ):
        with pytest.raises(ExternalRefusal, match=word):
            await kit.alipay.refund(order)
    assert (await kit.alipay.query_refund(refund_request(uuid4(), 1))).state == "absent"
    charge = kit.charge()
    await kit.alipay.create(charge)
    with pytest.raises(ExternalRefusal, match=r"ACQ\.TRADE_STATUS_ERROR"):
        await kit.alipay.refund(refund_request(charge.payment_id, 1))


# Answers that are odd.


def answer(method: str, content: dict[str, object], owner: str = "alipay", **more: object) -> bytes:
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


async def test_a_trade_that_is_finished_is_captured(kit: AlipayKit) -> None:
    seen = await adapter_with_reply(kit, answer("alipay.trade.query", GOOD)).query(PAYMENT_ID)
    assert (seen.state, seen.captured_at) == ("captured", NOON)


@pytest.mark.parametrize(
    ("why", "content"),
    [
        ("trade_status", {**GOOD, "trade_status": "TRADE_PENDING"}),
        ("trade_status", {**GOOD, "trade_status": None}),
        ("another payment", {**GOOD, "out_trade_no": "0" * 32}),
        ("amount", {**GOOD, "total_amount": 19.99}),
        ("amount", {**GOOD, "total_amount": "1e2"}),
        ("nothing", {**GOOD, "total_amount": "0.00"}),
        ("trans_currency", {**GOOD, "trans_currency": "USD"}),
        ("trade_no", {**GOOD, "trade_no": ""}),
        ("time", {**GOOD, "send_pay_date": "2026-11-11T12:00:00Z"}),
        ("time", {name: value for name, value in GOOD.items() if name != "send_pay_date"}),
        ("20000", {"code": "20000", "msg": "Service Currently Unavailable", "sub_code": "aop.unknow-error"}),
        ("40005", {"code": "40005", "msg": "Call Limited"}),
        ("SYSTEM_ERROR", {"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"}),
        ("BALANCE", {"code": "40004", "sub_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"}),
        ("NEVER_HEARD_OF", {"code": "40004", "sub_code": "ACQ.NEVER_HEARD_OF"}),
        ("None", {}),
    ],
)
async def test_an_answer_that_is_not_understood_is_unclear(
    kit: AlipayKit, why: str, content: dict[str, object]
) -> None:
    with pytest.raises(ExternalOutcomeUnknown, match=why):
        await adapter_with_reply(kit, answer("alipay.trade.query", content)).query(PAYMENT_ID)


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
        answer("alipay.trade.query", GOOD, owner="stranger"),
        answer("alipay.trade.query", GOOD).replace(b"19.99", b"19.98"),
        answer("alipay.trade.query", GOOD).replace(b'"code": ', b'"code":'),
        answer("alipay.trade.close", GOOD),
        json.dumps({"alipay_trade_query_response": GOOD}).encode(),
        b'{"error_response":{"code":"40002","sub_code":"isv.invalid-app-id"}}',
    ],
)
async def test_an_answer_that_cannot_be_believed_is_unclear(kit: AlipayKit, body: bytes) -> None:
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter_with_reply(kit, body).query(PAYMENT_ID)
    with pytest.raises(ExternalOutcomeUnknown, match="HTTP 502"):
        await adapter_with_reply(kit, answer("alipay.trade.query", GOOD), 502).query(PAYMENT_ID)


async def test_odd_answers_to_other_methods(kit: AlipayKit) -> None:
    order = refund_request(PAYMENT_ID, 5)
    query = "alipay.trade.fastpay.refund.query"
    done = {**GOOD, "out_request_no": order.refund_id.hex, "refund_amount": "0.05", "refund_status": "REFUND_SUCCESS"}
    assert (await adapter_with_reply(kit, answer(query, done)).query_refund(order)).amount == Money(5, "CNY")
    for change in (
        {"refund_status": "REFUND_PROCESSING"},
        {"refund_status": None},
        {"refund_amount": "0.5"},
        {"out_request_no": "0" * 32},
        {"out_trade_no": "0" * 32},
    ):
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter_with_reply(kit, answer(query, {**done, **change})).query_refund(order)
    with pytest.raises(ExternalOutcomeUnknown, match="without a code"):
        await adapter_with_reply(kit, answer("alipay.trade.precreate", GOOD)).create(
            kit.charge("qr", payment_id=PAYMENT_ID)
        )
    # A close that names no trade is believed only once a query has found the trade closed.
    nameless = adapter_with_reply(kit, answer("alipay.trade.close", {"code": "10000", "msg": "Success"}))
    with pytest.raises(ExternalOutcomeUnknown):
        await nameless.close(PAYMENT_ID)


async def test_a_refund_is_done_only_when_alipay_says_so(kit: AlipayKit) -> None:
    order = refund_request(PAYMENT_ID, 5)
    method, query = "alipay.trade.refund", "alipay.trade.fastpay.refund.query"
    yes, no = answer(method, {**GOOD, "fund_change": "Y"}), answer(method, {**GOOD, "fund_change": "N"})
    unknown = answer(query, {"code": "10000", "msg": "Success"})
    for bodies, state, asked in (
        ([yes], "done", 1),
        ([no, unknown], "waiting", 2),
        ([answer(method, GOOD), unknown], "waiting", 2),
    ):
        outside = FakeAlipayTransport(*bodies)
        seen = await Alipay(account(), outside, kit.clock).refund(order)
        assert (seen.state, outside.asked) == (state, asked)


def test_the_gateways_refusals_are_refusals() -> None:
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
async def test_the_sandbox_refuses_as_alipay_does(kit: AlipayKit, change: dict[str, str], word: str) -> None:
    good = {"app_id": APP_ID, "method": "alipay.trade.query", "charset": "utf-8", "sign_type": "RSA2"}
    good |= {"timestamp": "2026-11-11 12:00:00", "version": "1.0", "biz_content": "{}"}
    request = {**wire.with_signature({**good, **change}, key("merchant")), **change}
    async with kit.session.get(kit.gateway_url + "?" + urlencode(request)) as said:
        found = json.loads(await said.text())
    content = found.get("alipay_trade_query_response") or found["error_response"]
    assert content["sub_code"] == word
    assert ("sign" in found) == (word != "isv.invalid-app-id")
    async with kit.session.post(kit.gateway_url + "?" + urlencode(request), data=request) as said:
        assert "twice" in await said.text()


async def test_the_sandbox_takes_only_the_merchants_key(kit: AlipayKit) -> None:
    charge = kit.charge("qr")
    stranger = replace(account(kit.gateway_url), merchant_key=key("stranger"))
    with pytest.raises(ExternalRefusal, match=r"isv\.invalid-signature"):
        await Alipay(stranger, SessionTransport(kit.session), kit.clock).create(charge)
    assert kit.bank.trade("alipay", charge.payment_id.hex) is None
