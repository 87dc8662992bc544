"""The adapter against the sandbox: every method, with real signatures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from commerce.kernel.clock import from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal, WebhookReply
from commerce.kernel.money import Money
from commerce.payments.provider_port import PaymentRequest, Provider, ProviderPayment, ProviderRefund, StatementLine
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount
from commerce.payments.providers.wechatpay.wire import is_signed, signing_text
from ops.sandbox.protocol import SandboxProtocol
from tests.payments.wechatpay_kit import (
    API_V3_KEY,
    APP_ID,
    MCH_ID,
    FakeWeChatPayClock,
    WeChatPayKit,
    account,
    key,
    lower,
    open_wechatpay_kit,
    payment_request,
    private_pem,
    refund_request,
    with_public_key,
)


@pytest.fixture
async def kit() -> AsyncIterator[WeChatPayKit]:
    async with open_wechatpay_kit() as made:
        yield made


async def test_both_sides_have_the_shape_that_is_asked_of_them(kit: WeChatPayKit) -> None:
    provider: Provider = kit.adapter
    protocol: SandboxProtocol = kit.sandbox
    assert provider.name == protocol.name


async def test_a_code_to_scan(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    action = await kit.adapter.create(wanted)
    assert (action.kind, action.code) == ("qr", f"weixin://wxpay/bizpayurl?pr={wanted.payment_id.hex}")
    trade = kit.trades[0]
    assert (trade.out_no, trade.amount, trade.currency) == (wanted.payment_id.hex, 510, "CNY")
    assert (trade.subject, trade.scene) == (wanted.subject, "qr")
    assert from_ms(trade.expires_ms) == wanted.expires_at.replace(microsecond=0)
    assert await kit.adapter.create(wanted) == action, "again gives the like"
    assert len(kit.trades) == 1


async def test_inside_of_wechat(kit: WeChatPayKit) -> None:
    wanted = payment_request("jsapi")
    action = await kit.adapter.create(wanted)
    assert action.kind == "jsapi"
    said = action.parameters
    assert said is not None
    assert sorted(said) == ["appId", "nonceStr", "package", "paySign", "signType", "timeStamp"]
    assert (said["appId"], said["signType"]) == (APP_ID, "RSA")
    signed = signing_text(APP_ID, said["timeStamp"], said["nonceStr"], said["package"])
    assert is_signed(key("merchant").public_key(), signed, said["paySign"])
    assert said["package"].startswith("prepay_id=wx")
    assert kit.trades[0].payer == wanted.payer


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (payment_request("page"), "unsupported"),
        (payment_request("app"), "unsupported"),
        (payment_request(currency="GBP"), "unsupported"),
        (payment_request("jsapi", payer=""), "no_payer"),
    ],
)
async def test_what_it_does_not_do_it_refuses(kit: WeChatPayKit, wanted: PaymentRequest, code: str) -> None:
    with pytest.raises(ExternalRefusal) as no:
        await kit.adapter.create(wanted)
    assert no.value.code == code
    assert kit.calls == []


async def test_long_texts_are_cut_in_whole_characters(kit: WeChatPayKit) -> None:
    wanted = payment_request(subject="红茶" * 100)
    await kit.adapter.create(wanted)
    assert kit.trades[0].subject == wanted.subject[:42]  # 126 of 127 bytes
    kit.pay(wanted.payment_id)
    await kit.adapter.refund(refund_request(wanted, 1, reason="坏" * 100))
    assert kit.refunds[0].reason == "坏" * 26


async def test_a_number_stands_for_one_amount(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    await kit.adapter.create(wanted)
    with pytest.raises(ExternalRefusal) as no:
        await kit.adapter.create(msgspec.structs.replace(wanted, amount=Money(511, "CNY")))
    assert no.value.code == "OUT_TRADE_NO_USED"


async def test_a_payment_from_nothing_to_refunded(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    assert await kit.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "absent")
    await kit.adapter.create(wanted)
    assert await kit.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "waiting")
    trade = kit.pay(wanted.payment_id)
    seen = await kit.adapter.query(wanted.payment_id)
    assert (seen.state, seen.amount, seen.transaction_id) == ("captured", wanted.amount, trade.trade_no)
    assert trade.paid_ms is not None
    assert seen.captured_at == from_ms(trade.paid_ms // 1_000 * 1_000)
    with pytest.raises(ExternalRefusal, match="ORDERPAID"):
        await kit.adapter.create(wanted)

    order = refund_request(wanted, 200)
    ids = (wanted.payment_id, order.refund_id)
    assert await kit.adapter.query_refund(order) == ProviderRefund(*ids, "absent")
    assert await kit.adapter.refund(order) == ProviderRefund(*ids, "waiting", order.amount)
    assert await kit.adapter.refund(order) == ProviderRefund(*ids, "done", order.amount), "again does not refund again"
    assert await kit.adapter.query_refund(order) == ProviderRefund(*ids, "done", order.amount)
    assert kit.bank.refunded("wechatpay", trade.out_no) == 200
    assert [refund.out_refund_no for refund in kit.refunds] == [order.refund_id.hex]
    assert await kit.adapter.query(wanted.payment_id) == seen, "captured, whatever was refunded since"

    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await kit.adapter.refund(refund_request(wanted, 311))


async def test_refunds_that_cannot_be(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    order = refund_request(wanted, 100)
    assert (await kit.adapter.refund(order)).state == "absent"
    await kit.adapter.create(wanted)
    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await kit.adapter.refund(order)


async def test_close(kit: WeChatPayKit) -> None:
    wanted, paid = payment_request(), payment_request()
    assert await kit.adapter.close(wanted.payment_id) == ProviderPayment(wanted.payment_id, "absent")
    await kit.adapter.create(wanted)
    for _ in range(2):
        assert await kit.adapter.close(wanted.payment_id) == ProviderPayment(wanted.payment_id, "closed")
    assert await kit.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "closed")
    with pytest.raises(ExternalRefusal, match="ORDER_CLOSED"):
        await kit.adapter.create(wanted)
    await kit.adapter.create(paid)
    kit.pay(paid.payment_id)
    assert (await kit.adapter.close(paid.payment_id)).state == "captured"


async def test_certificates_are_fetched_when_they_are_needed(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    await asyncio.gather(*(kit.adapter.query(uuid4()) for _ in range(5)))
    assert kit.calls.count("/v3/certificates") == 1
    await kit.adapter.create(wanted)
    await kit.adapter.refresh()
    assert kit.calls.count("/v3/certificates") == 1, "again within a minute does nothing"
    await kit.clock.sleep(61)
    await kit.adapter.refresh()
    assert kit.calls.count("/v3/certificates") == 2


async def test_the_sandbox_believes_nobody_else(kit: WeChatPayKit) -> None:
    wrong: list[WeChatPayAccount] = [
        account(kit.url, mch_id="1900000110"),
        account(kit.url, serial="AB"),
        account(kit.url, private_key=private_pem("stranger")),
    ]
    for other in wrong:
        with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
            await WeChatPay(other, kit.outside, kit.clock).refresh()
    with pytest.raises(ExternalRefusal, match="APPID_MCHID_NOT_MATCH"):
        await WeChatPay(account(kit.url, app_id="wx1"), kit.outside, kit.clock).create(payment_request())
    late = FakeWeChatPayClock()
    late.ms = kit.clock.ms - 301_000
    with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
        await WeChatPay(account(kit.url), kit.outside, late).refresh()
    nobody = await kit.outside.send("GET", f"{kit.url}/v3/certificates", {})
    assert nobody.status == 401
    assert kit.trades == []


async def test_without_a_prefix_too() -> None:
    async with open_wechatpay_kit("") as kit:
        assert (await kit.adapter.create(payment_request())).kind == "qr"


async def test_bad_bodies_are_refused(kit: WeChatPayKit) -> None:
    adapter = WeChatPay(account(kit.url), kit.outside, kit.clock)
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(expires_at=kit.clock.now - timedelta(seconds=1)))
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(fen=0))
    order = refund_request(payment_request(), 5)
    await adapter.create(made := payment_request())
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.refund(msgspec.structs.replace(order, payment_id=made.payment_id, captured=Money(9, "CNY")))


async def test_nobody_there_is_unclear(kit: WeChatPayKit) -> None:
    with pytest.raises(ExternalOutcomeUnknown):
        await WeChatPay(account("http://127.0.0.1:1"), kit.outside, kit.clock).create(payment_request())


async def test_a_day_s_statement_reads_back(kit: WeChatPayKit) -> None:
    charges = [payment_request(fen=fen, subject=f"a,`b\n{fen}") for fen in (1, 510, 123_456)]
    for wanted in charges:
        await kit.adapter.create(wanted)
        kit.pay(wanted.payment_id)
        await kit.clock.sleep(1)  # the books go by time
    orders = [refund_request(charges[1], 110), refund_request(charges[1], 400)]
    for order in orders:
        await kit.adapter.refund(order)
    text = kit.sandbox.statement(kit.bank.trades("wechatpay"), kit.bank.refunds("wechatpay"))
    read = kit.adapter.read_statement(text)
    trades = {trade.out_no: trade for trade in kit.bank.trades("wechatpay")}
    refunds = {refund.out_refund_no: refund for refund in kit.bank.refunds("wechatpay")}
    paid = [
        StatementLine(wanted.payment_id, None, wanted.amount, trades[wanted.payment_id.hex].trade_no)
        for wanted in charges
    ]
    back = [
        StatementLine(order.payment_id, order.refund_id, order.amount, refunds[order.refund_id.hex].refund_no)
        for order in orders
    ]
    assert set(read) == {*paid, *back}
    assert len(read) == 5
    assert "`5,`1239.67,`5.10," in text, "the sums"
    assert kit.adapter.read_statement("\ufeff" + text.replace("\r\n", "\n")) == read

    lines = text.split("\r\n")
    whole = lines[1]
    for bad, why in {
        whole.replace("`", ""): "backquote",
        whole + ",`more": "28 values",
        whole.replace(MCH_ID, "1900000110"): "another merchant",
        whole.replace("`CNY", "`USD"): "not CNY",
        whole.replace("`SUCCESS", "`REVOKED"): "REVOKED",
        whole.replace(paid[0].payment_id.hex, "S20210128"): "not a number of ours",
        whole.replace("`0.01,`0.00,`", "`0.011,`0.00,`"): "more decimals than CNY",
        "": "backquote",
    }.items():
        broken = kit.adapter.read_statement("\r\n".join([lines[0], lines[2], bad, *lines[3:]]))
        assert len(broken) == 5
        assert isinstance(broken[1], str), bad
        assert broken[1].startswith("line 3: ")
        assert why in broken[1]
    assert "cut short" in str(kit.adapter.read_statement("\r\n".join(lines[:4]))[-1])
    assert "no column" in str(kit.adapter.read_statement("")[0])
    assert "line 1: there is no column 订单金额" in kit.adapter.read_statement(text.replace("订单金额", "x"))[0]
    refunded = lines[4].replace("`SUCCESS", "`FAIL")
    assert "'FAIL'" in str(kit.adapter.read_statement("\r\n".join([lines[0], refunded, *lines[6:]]))[0])


async def test_the_answers_to_callbacks(kit: WeChatPayKit) -> None:
    yes, no = kit.adapter.acknowledge(True), kit.adapter.acknowledge(False)
    assert yes == WebhookReply(204, "application/json", b"")
    assert (no.status, msgspec.json.decode(no.body)["code"]) == (400, "FAIL")
    assert kit.sandbox.is_accepted(yes.status, yes.body)
    assert not kit.sandbox.is_accepted(no.status, no.body)


def test_settings_say_what_to_do() -> None:
    made = with_public_key()
    assert API_V3_KEY not in repr(made)
    assert "RSA" not in repr(made)
    assert made.serial == made.serial.upper()
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
        "notify_url": ["", "shop.example", "https://x/notify?secret=1"],
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


async def test_callbacks_are_told_apart_by_what_is_wrong_with_them(kit: WeChatPayKit) -> None:
    wanted = payment_request()
    await kit.adapter.create(wanted)
    trade = kit.pay(wanted.payment_id)
    good = kit.callback(trade)
    seen = kit.adapter.read_webhook(lower(good.headers), good.body, kit.clock.now)
    assert seen.subject == await kit.adapter.query(wanted.payment_id)
    wrong = kit.callback(trade, wrong="amount")
    other = kit.adapter.read_webhook(lower(wrong.headers), wrong.body, kit.clock.now)
    assert other.webhook_id == seen.webhook_id
    assert other.subject.amount == Money(511, "CNY")
