"""WeChat Pay's adapter against the sandbox: all methods, with real signatures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from commerce.kernel.clock import from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal, WebhookReply
from commerce.kernel.money import Money
from commerce.payments.provider_port import (
    PaymentFlow,
    PaymentRequest,
    Provider,
    ProviderPayment,
    ProviderRefund,
    StatementLine,
)
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount
from commerce.payments.providers.wechatpay.wire import is_signed, signing_text
from ops.sandbox.payment_store import PaymentStoreRefusal
from ops.sandbox.protocol import ProviderProtocol
from tests.payments.wechatpay_kit import (
    API_V3_KEY,
    APP_ID,
    MCH_ID,
    FakeWeChatPayClock,
    WeChatPayKit,
    account,
    key,
    lower_names,
    open_wechatpay_kit,
    payment_request,
    private_pem,
    refund_request,
    with_public_key,
)


@pytest.fixture
async def kit() -> AsyncIterator[WeChatPayKit]:
    async with open_wechatpay_kit() as wechatpay_kit:
        yield wechatpay_kit


async def test_adapter_and_sandbox_implement_their_ports(kit: WeChatPayKit) -> None:
    provider: Provider = kit.adapter
    protocol: ProviderProtocol = kit.sandbox
    assert provider.name == protocol.name


async def test_payment_by_code_creates_trade_once(kit: WeChatPayKit) -> None:
    request = payment_request()
    action = await kit.adapter.create(request)
    assert (action.kind, action.expires_at) == ("qr", kit.clock.now + timedelta(hours=2))
    assert str(action.code).startswith(f"weixin://wxpay/bizpayurl?pr={request.payment_id.hex}")
    trade = kit.trades[0]
    assert (trade.out_no, trade.amount, trade.currency) == (request.payment_id.hex, 510, "CNY")
    assert (trade.subject, trade.flow) == (request.subject, "qr")
    assert from_ms(trade.expires_ms) == request.expires_at.replace(microsecond=0)
    assert await kit.adapter.create(request) == action, "a repeat returns an equal action"
    assert len(kit.trades) == 1


async def test_payment_inside_wechat_returns_signed_parameters(kit: WeChatPayKit) -> None:
    request = payment_request("jsapi")
    action = await kit.adapter.create(request)
    assert action.kind == "jsapi"
    parameters = action.parameters
    assert parameters is not None
    assert sorted(parameters) == ["appId", "nonceStr", "package", "paySign", "signType", "timeStamp"]
    assert (parameters["appId"], parameters["signType"]) == (APP_ID, "RSA")
    signed = signing_text(APP_ID, parameters["timeStamp"], parameters["nonceStr"], parameters["package"])
    assert is_signed(key("merchant").public_key(), signed, parameters["paySign"])
    assert parameters["package"].startswith("prepay_id=wx")
    assert kit.trades[0].payer == request.payer


async def test_payment_in_app_returns_signed_parameters(kit: WeChatPayKit) -> None:
    request = payment_request("app")
    action = await kit.adapter.create(request)
    parameters = action.parameters
    assert action.kind == "app"
    assert parameters is not None
    assert sorted(parameters) == ["appid", "noncestr", "package", "partnerid", "prepayid", "sign", "timestamp"]
    assert (parameters["appid"], parameters["partnerid"], parameters["package"]) == (APP_ID, MCH_ID, "Sign=WXPay")
    signed = signing_text(APP_ID, parameters["timestamp"], parameters["noncestr"], parameters["prepayid"])
    assert is_signed(key("merchant").public_key(), signed, parameters["sign"])
    assert kit.trades[0].flow == "app"


@pytest.mark.parametrize("return_url", [None, "https://shop.example/orders/7?a=1&b=2"])
async def test_payment_in_phone_browser_returns_page(kit: WeChatPayKit, return_url: str | None) -> None:
    request = payment_request("mobile_page", payer_ip="2001:db8::7", return_url=return_url)
    action = await kit.adapter.create(request)
    assert (action.kind, action.expires_at) == ("redirect", kit.clock.now + timedelta(minutes=5))
    query = dict(parse_qsl(urlsplit(str(action.url)).query))
    assert query.pop("prepay_id").startswith("wx")
    assert query == ({"redirect_url": return_url} if return_url else {})
    assert kit.calls == ["/v3/pay/transactions/h5", "/v3/certificates"]


@pytest.mark.parametrize(("flow", "minutes"), [("qr", 120), ("jsapi", 120), ("app", 120), ("mobile_page", 5)])
async def test_dead_code_cannot_be_paid_until_renewed(kit: WeChatPayKit, flow: PaymentFlow, minutes: int) -> None:
    expires_at = kit.clock.now + timedelta(hours=6)
    request = payment_request(flow, payer_ip="203.0.113.7", expires_at=expires_at)
    first = await kit.adapter.create(request)
    kit.clock.ms += minutes * 60_000
    assert first.expires_at == kit.clock.now
    with pytest.raises(PaymentStoreRefusal, match="has expired"):
        kit.pay(request.payment_id)
    second = await kit.adapter.create(request)
    assert (second.code, second.url, second.parameters) != (first.code, first.url, first.parameters)
    assert second.expires_at == kit.clock.now + timedelta(minutes=minutes)
    assert kit.pay(request.payment_id).state == "captured"
    assert len(kit.trades) == 1, "the same trade: it cannot be paid twice"


@pytest.mark.parametrize("changes", [{"subject": "another product"}, {"payer": "another-openid"}])
async def test_same_payment_with_other_content_is_refused(kit: WeChatPayKit, changes: dict[str, str]) -> None:
    request = payment_request("jsapi")
    await kit.adapter.create(request)
    with pytest.raises(ExternalRefusal, match="OUT_TRADE_NO_USED"):
        await kit.adapter.create(msgspec.structs.replace(request, **changes))


async def test_end_is_within_bounds_of_wechatpay(kit: WeChatPayKit) -> None:
    await kit.adapter.create(payment_request(expires_at=kit.clock.now + timedelta(seconds=5)))
    assert kit.trades[0].expires_ms == kit.clock.ms + 60_000, "a minute is the least, and nothing says so"
    too_late = kit.clock.now + kit.adapter.max_lifetime + timedelta(minutes=1)
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await kit.adapter.create(payment_request(expires_at=too_late))


@pytest.mark.parametrize(
    ("unsupported", "code"),
    [
        (payment_request("page"), "unsupported"),
        (payment_request(currency="GBP"), "unsupported"),
        (payment_request("mobile_page"), "no_payer_ip"),
        (payment_request("jsapi", payer=""), "no_payer"),
    ],
)
async def test_unsupported_request_is_refused_without_call(
    kit: WeChatPayKit, unsupported: PaymentRequest, code: str
) -> None:
    with pytest.raises(ExternalRefusal) as refusal:
        await kit.adapter.create(unsupported)
    assert refusal.value.code == code
    assert kit.calls == []


async def test_long_text_is_truncated_to_whole_characters(kit: WeChatPayKit) -> None:
    request = payment_request(subject="红茶" * 100)
    await kit.adapter.create(request)
    assert kit.trades[0].subject == request.subject[:42]  # 126 of 127 bytes
    kit.pay(request.payment_id)
    await kit.adapter.refund(refund_request(request, 1, reason="坏" * 100))
    assert kit.refunds[0].reason == "坏" * 26


async def test_payment_repeated_with_other_amount_is_refused(kit: WeChatPayKit) -> None:
    request = payment_request()
    await kit.adapter.create(request)
    with pytest.raises(ExternalRefusal) as refusal:
        await kit.adapter.create(msgspec.structs.replace(request, amount=Money(511, "CNY")))
    assert refusal.value.code == "OUT_TRADE_NO_USED"


async def test_payment_passes_all_states_until_refunded(kit: WeChatPayKit) -> None:
    request = payment_request()
    assert await kit.adapter.query(request.payment_id) == ProviderPayment(request.payment_id, "absent")
    await kit.adapter.create(request)
    assert await kit.adapter.query(request.payment_id) == ProviderPayment(request.payment_id, "waiting")
    trade = kit.pay(request.payment_id)
    provider_payment = await kit.adapter.query(request.payment_id)
    assert (provider_payment.state, provider_payment.amount, provider_payment.transaction_id) == (
        "captured",
        request.amount,
        trade.trade_no,
    )
    assert trade.paid_ms is not None
    assert provider_payment.captured_at == from_ms(trade.paid_ms // 1_000 * 1_000)
    with pytest.raises(ExternalRefusal, match="ORDERPAID"):
        await kit.adapter.create(request)

    refund = refund_request(request, 200)
    ids = (request.payment_id, refund.refund_id)
    assert await kit.adapter.query_refund(refund) == ProviderRefund(*ids, "absent")
    accepted = await kit.adapter.refund(refund)
    number = kit.refunds[0].refund_no
    assert accepted == ProviderRefund(*ids, "waiting", refund.amount, provider_refund_id=number)
    done = ProviderRefund(*ids, "done", refund.amount, provider_refund_id=number)
    assert await kit.adapter.refund(refund) == done, "a repeat does not refund again"
    assert await kit.adapter.query_refund(refund) == done
    assert kit.payment_store.sum_refunds("wechatpay", trade.out_no) == 200
    assert [stored.out_refund_no for stored in kit.refunds] == [refund.refund_id.hex]
    assert await kit.adapter.query(request.payment_id) == provider_payment, "still captured after a refund"

    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await kit.adapter.refund(refund_request(request, 311))


async def test_refund_of_unpaid_payment_is_absent_or_refused(kit: WeChatPayKit) -> None:
    request = payment_request()
    refund = refund_request(request, 100)
    assert (await kit.adapter.refund(refund)).state == "absent"
    await kit.adapter.create(request)
    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await kit.adapter.refund(refund)


async def test_close_returns_final_state_of_payment(kit: WeChatPayKit) -> None:
    request, paid = payment_request(), payment_request()
    assert await kit.adapter.close(request.payment_id) == ProviderPayment(request.payment_id, "absent")
    await kit.adapter.create(request)
    for _ in range(2):
        assert await kit.adapter.close(request.payment_id) == ProviderPayment(request.payment_id, "closed")
    assert await kit.adapter.query(request.payment_id) == ProviderPayment(request.payment_id, "closed")
    with pytest.raises(ExternalRefusal, match="ORDER_CLOSED"):
        await kit.adapter.create(request)
    await kit.adapter.create(paid)
    kit.pay(paid.payment_id)
    assert (await kit.adapter.close(paid.payment_id)).state == "captured"


async def test_certificates_are_downloaded_on_first_use_and_once_a_minute(kit: WeChatPayKit) -> None:
    request = payment_request()
    await asyncio.gather(*(kit.adapter.query(uuid4()) for _ in range(5)))
    assert kit.calls.count("/v3/certificates") == 1
    await kit.adapter.create(request)
    await kit.adapter.refresh()
    assert kit.calls.count("/v3/certificates") == 1, "a second refresh within a minute does nothing"
    await kit.clock.sleep(61)
    await kit.adapter.refresh()
    assert kit.calls.count("/v3/certificates") == 2


async def test_sandbox_refuses_request_of_other_account(kit: WeChatPayKit) -> None:
    wrong: list[WeChatPayAccount] = [
        account(kit.url, mch_id="1900000110"),
        account(kit.url, serial="AB"),
        account(kit.url, private_key=private_pem("stranger")),
    ]
    for other_account in wrong:
        with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
            await WeChatPay(other_account, kit.transport, kit.clock).refresh()
    with pytest.raises(ExternalRefusal, match="APPID_MCHID_NOT_MATCH"):
        await WeChatPay(account(kit.url, app_id="wx1"), kit.transport, kit.clock).create(payment_request())
    late_clock = FakeWeChatPayClock()
    late_clock.ms = kit.clock.ms - 301_000
    with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
        await WeChatPay(account(kit.url), kit.transport, late_clock).refresh()
    unsigned = await kit.transport.send("GET", f"{kit.url}/v3/certificates", {})
    assert unsigned.status == 401
    assert kit.trades == []


async def test_payment_at_base_url_without_prefix_is_created() -> None:
    async with open_wechatpay_kit("") as kit:
        assert (await kit.adapter.create(payment_request())).kind == "qr"


async def test_request_with_bad_parameter_is_refused(kit: WeChatPayKit) -> None:
    adapter = WeChatPay(account(kit.url), kit.transport, kit.clock)
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(expires_at=kit.clock.now - timedelta(seconds=1)))
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(fen=0))
    refund = refund_request(payment_request(), 5)
    await adapter.create(created := payment_request())
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.refund(msgspec.structs.replace(refund, payment_id=created.payment_id, captured=Money(9, "CNY")))


async def test_unreachable_provider_leaves_outcome_unknown(kit: WeChatPayKit) -> None:
    with pytest.raises(ExternalOutcomeUnknown):
        await WeChatPay(account("http://127.0.0.1:1"), kit.transport, kit.clock).create(payment_request())


async def test_statement_of_sandbox_is_read_back(kit: WeChatPayKit) -> None:
    payment_requests = [payment_request(fen=fen, subject=f"a,`b\n{fen}") for fen in (1, 510, 123_456)]
    for request in payment_requests:
        await kit.adapter.create(request)
        kit.pay(request.payment_id)
        await kit.clock.sleep(1)  # the store is ordered by time
    refund_requests = [refund_request(payment_requests[1], 110), refund_request(payment_requests[1], 400)]
    for refund in refund_requests:
        await kit.adapter.refund(refund)
    text = kit.sandbox.build_statement(
        kit.payment_store.list_paid_trades("wechatpay"), kit.payment_store.list_refunds("wechatpay")
    )
    lines_read = kit.adapter.read_statement(text)
    trades = {trade.out_no: trade for trade in kit.payment_store.list_paid_trades("wechatpay")}
    refunds = {refund.out_refund_no: refund for refund in kit.payment_store.list_refunds("wechatpay")}
    payment_lines = [
        StatementLine(request.payment_id, None, request.amount, trades[request.payment_id.hex].trade_no)
        for request in payment_requests
    ]
    refund_lines = [
        StatementLine(refund.payment_id, refund.refund_id, refund.amount, refunds[refund.refund_id.hex].refund_no)
        for refund in refund_requests
    ]
    assert set(lines_read) == {*payment_lines, *refund_lines}
    assert len(lines_read) == 5
    assert "`5,`1239.67,`5.10," in text, "the sums"
    assert kit.adapter.read_statement("\ufeff" + text.replace("\r\n", "\n")) == lines_read

    lines = text.split("\r\n")
    good_line = lines[1]
    for bad_line, reason in {
        good_line.replace("`", ""): "backquote",
        good_line + ",`more": "28 values",
        good_line.replace(MCH_ID, "1900000110"): "another merchant",
        good_line.replace("`CNY", "`USD"): "not CNY",
        good_line.replace("`SUCCESS", "`REVOKED"): "REVOKED",
        good_line.replace(payment_lines[0].payment_id.hex, "S20210128"): "not a number of ours",
        good_line.replace("`0.01,`0.00,`", "`0.011,`0.00,`"): "more decimals than CNY",
        "": "backquote",
    }.items():
        broken = kit.adapter.read_statement("\r\n".join([lines[0], lines[2], bad_line, *lines[3:]]))
        assert len(broken) == 5
        assert isinstance(broken[1], str), bad_line
        assert broken[1].startswith("line 3: ")
        assert reason in broken[1]
    assert "cut short" in str(kit.adapter.read_statement("\r\n".join(lines[:4]))[-1])
    assert "no column" in str(kit.adapter.read_statement("")[0])
    assert "line 1: there is no column 订单金额" in kit.adapter.read_statement(text.replace("订单金额", "x"))[0]
    refunded = lines[4].replace("`SUCCESS", "`FAIL")
    assert "'FAIL'" in str(kit.adapter.read_statement("\r\n".join([lines[0], refunded, *lines[6:]]))[0])


async def test_webhook_response_is_understood_by_sandbox(kit: WeChatPayKit) -> None:
    accepted, refused = kit.adapter.acknowledge(True), kit.adapter.acknowledge(False)
    assert accepted == WebhookReply(204, "application/json", b"")
    assert (refused.status, msgspec.json.decode(refused.body)["code"]) == (400, "FAIL")
    assert kit.sandbox.is_accepted(accepted.status, accepted.body)
    assert not kit.sandbox.is_accepted(refused.status, refused.body)


def test_account_with_bad_setting_names_the_setting() -> None:
    with_key = with_public_key()
    assert API_V3_KEY not in repr(with_key)
    assert "RSA" not in repr(with_key)
    assert with_key.serial == with_key.serial.upper()
    weak = generate_private_key(public_exponent=65_537, key_size=1_024)
    small = weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = "-----BEGIN PUBLIC KEY-----"
    bad = {
        "app_id": ["", "wx 1"],
        "mch_id": ["", "19000x"],
        "serial": ["", "no"],
        "private_key": ["", "-----BEGIN PRIVATE KEY-----", small],
        "api_v3_key": ["", "short", API_V3_KEY + "x"],
        "base_url": ["", "ftp://x", "https://x?y"],
        "notify_url": ["", "shop.example", "https://x/webhook?secret=1"],
        "public_key": ["x"],
        "public_key_id": ["PUB_KEY_ID_1"],
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=f"WeChat Pay .*{name}"):
                account(**{name: value})
    with pytest.raises(ValueError, match="public_key_id: set the id"):
        account(public_key=public, public_key_id="1")
    with pytest.raises(ValueError, match=r"pub_key\.pem"):
        account(public_key=public, public_key_id="PUB_KEY_ID_1")


async def test_webhook_with_wrong_amount_is_read_with_that_amount(kit: WeChatPayKit) -> None:
    request = payment_request()
    await kit.adapter.create(request)
    trade = kit.pay(request.payment_id)
    genuine = kit.webhook(trade)
    genuine_webhook = kit.adapter.read_webhook(lower_names(genuine.headers), genuine.body, kit.clock.now)
    assert genuine_webhook.subject == await kit.adapter.query(request.payment_id)
    wrong = kit.webhook(trade, wrong="amount")
    wrong_webhook = kit.adapter.read_webhook(lower_names(wrong.headers), wrong.body, kit.clock.now)
    assert wrong_webhook.webhook_id == genuine_webhook.webhook_id
    assert wrong_webhook.subject.amount == Money(511, "CNY")
