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
from commerce.payments.providers.wechatpay.wire import is_signed, message
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
async def shop() -> AsyncIterator[WeChatPayKit]:
    async with open_wechatpay_kit() as made:
        yield made


async def test_both_sides_have_the_shape_that_is_asked_of_them(shop: WeChatPayKit) -> None:
    provider: Provider = shop.adapter
    protocol: SandboxProtocol = shop.sandbox
    assert provider.name == protocol.name


async def test_a_code_to_scan(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    action = await shop.adapter.create(wanted)
    assert (action.kind, action.code) == ("qr", f"weixin://wxpay/bizpayurl?pr={wanted.payment_id.hex}")
    trade = shop.trades[0]
    assert (trade.out_no, trade.amount, trade.currency) == (wanted.payment_id.hex, 510, "CNY")
    assert (trade.subject, trade.scene) == (wanted.subject, "qr")
    assert from_ms(trade.expires_ms) == wanted.expires_at.replace(microsecond=0)
    assert await shop.adapter.create(wanted) == action, "again gives the like"
    assert len(shop.trades) == 1


async def test_inside_of_wechat(shop: WeChatPayKit) -> None:
    wanted = payment_request("jsapi")
    action = await shop.adapter.create(wanted)
    assert action.kind == "jsapi"
    said = action.parameters
    assert said is not None
    assert sorted(said) == ["appId", "nonceStr", "package", "paySign", "signType", "timeStamp"]
    assert (said["appId"], said["signType"]) == (APP_ID, "RSA")
    signed = message(APP_ID, said["timeStamp"], said["nonceStr"], said["package"])
    assert is_signed(key("merchant").public_key(), signed, said["paySign"])
    assert said["package"].startswith("prepay_id=wx")
    assert shop.trades[0].payer == wanted.payer


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (payment_request("page"), "unsupported"),
        (payment_request("app"), "unsupported"),
        (payment_request(currency="GBP"), "unsupported"),
        (payment_request("jsapi", payer=""), "no_payer"),
    ],
)
async def test_what_it_does_not_do_it_refuses(shop: WeChatPayKit, wanted: PaymentRequest, code: str) -> None:
    with pytest.raises(ExternalRefusal) as no:
        await shop.adapter.create(wanted)
    assert no.value.code == code
    assert shop.calls == []


async def test_long_texts_are_cut_in_whole_characters(shop: WeChatPayKit) -> None:
    wanted = payment_request(subject="红茶" * 100)
    await shop.adapter.create(wanted)
    assert shop.trades[0].subject == wanted.subject[:42]  # 126 of 127 bytes
    shop.pay(wanted.payment_id)
    await shop.adapter.refund(refund_request(wanted, 1, reason="坏" * 100))
    assert shop.refunds[0].reason == "坏" * 26


async def test_a_number_stands_for_one_amount(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    await shop.adapter.create(wanted)
    with pytest.raises(ExternalRefusal) as no:
        await shop.adapter.create(msgspec.structs.replace(wanted, amount=Money(511, "CNY")))
    assert no.value.code == "OUT_TRADE_NO_USED"


async def test_a_payment_from_nothing_to_refunded(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    assert await shop.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "absent")
    await shop.adapter.create(wanted)
    assert await shop.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "waiting")
    trade = shop.pay(wanted.payment_id)
    seen = await shop.adapter.query(wanted.payment_id)
    assert (seen.state, seen.amount, seen.transaction_id) == ("captured", wanted.amount, trade.trade_no)
    assert trade.paid_ms is not None
    assert seen.captured_at == from_ms(trade.paid_ms // 1_000 * 1_000)
    with pytest.raises(ExternalRefusal, match="ORDERPAID"):
        await shop.adapter.create(wanted)

    order = refund_request(wanted, 200)
    ids = (wanted.payment_id, order.refund_id)
    assert await shop.adapter.query_refund(order) == ProviderRefund(*ids, "absent")
    assert await shop.adapter.refund(order) == ProviderRefund(*ids, "waiting", order.amount)
    assert await shop.adapter.refund(order) == ProviderRefund(*ids, "done", order.amount), "again does not refund again"
    assert await shop.adapter.query_refund(order) == ProviderRefund(*ids, "done", order.amount)
    assert shop.bank.refunded("wechatpay", trade.out_no) == 200
    assert [refund.out_refund_no for refund in shop.refunds] == [order.refund_id.hex]
    assert await shop.adapter.query(wanted.payment_id) == seen, "captured, whatever was refunded since"

    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await shop.adapter.refund(refund_request(wanted, 311))


async def test_refunds_that_cannot_be(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    order = refund_request(wanted, 100)
    assert (await shop.adapter.refund(order)).state == "absent"
    await shop.adapter.create(wanted)
    with pytest.raises(ExternalRefusal, match="INVALID_REQUEST"):
        await shop.adapter.refund(order)


async def test_close(shop: WeChatPayKit) -> None:
    wanted, paid = payment_request(), payment_request()
    assert await shop.adapter.close(wanted.payment_id) == ProviderPayment(wanted.payment_id, "absent")
    await shop.adapter.create(wanted)
    for _ in range(2):
        assert await shop.adapter.close(wanted.payment_id) == ProviderPayment(wanted.payment_id, "closed")
    assert await shop.adapter.query(wanted.payment_id) == ProviderPayment(wanted.payment_id, "closed")
    with pytest.raises(ExternalRefusal, match="ORDER_CLOSED"):
        await shop.adapter.create(wanted)
    await shop.adapter.create(paid)
    shop.pay(paid.payment_id)
    assert (await shop.adapter.close(paid.payment_id)).state == "captured"


async def test_certificates_are_fetched_when_they_are_needed(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    await asyncio.gather(*(shop.adapter.query(uuid4()) for _ in range(5)))
    assert shop.calls.count("/v3/certificates") == 1
    await shop.adapter.create(wanted)
    await shop.adapter.refresh()
    assert shop.calls.count("/v3/certificates") == 1, "again within a minute does nothing"
    await shop.clock.sleep(61)
    await shop.adapter.refresh()
    assert shop.calls.count("/v3/certificates") == 2


async def test_the_sandbox_believes_nobody_else(shop: WeChatPayKit) -> None:
    wrong: list[WeChatPayAccount] = [
        account(shop.url, mch_id="1900000110"),
        account(shop.url, serial="AB"),
        account(shop.url, private_key=private_pem("stranger")),
    ]
    for other in wrong:
        with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
            await WeChatPay(other, shop.outside, shop.clock).refresh()
    with pytest.raises(ExternalRefusal, match="APPID_MCHID_NOT_MATCH"):
        await WeChatPay(account(shop.url, app_id="wx1"), shop.outside, shop.clock).create(payment_request())
    late = FakeWeChatPayClock()
    late.ms = shop.clock.ms - 301_000
    with pytest.raises(ExternalRefusal, match="SIGN_ERROR"):
        await WeChatPay(account(shop.url), shop.outside, late).refresh()
    nobody = await shop.outside.send("GET", f"{shop.url}/v3/certificates", {})
    assert nobody.status == 401
    assert shop.trades == []


async def test_without_a_prefix_too() -> None:
    async with open_wechatpay_kit("") as shop:
        assert (await shop.adapter.create(payment_request())).kind == "qr"


async def test_bad_bodies_are_refused(shop: WeChatPayKit) -> None:
    adapter = WeChatPay(account(shop.url), shop.outside, shop.clock)
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(expires_at=shop.clock.now - timedelta(seconds=1)))
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.create(payment_request(fen=0))
    order = refund_request(payment_request(), 5)
    await adapter.create(made := payment_request())
    with pytest.raises(ExternalRefusal, match="PARAM_ERROR"):
        await adapter.refund(msgspec.structs.replace(order, payment_id=made.payment_id, captured=Money(9, "CNY")))


async def test_nobody_there_is_unclear(shop: WeChatPayKit) -> None:
    with pytest.raises(ExternalOutcomeUnknown):
        await WeChatPay(account("http://127.0.0.1:1"), shop.outside, shop.clock).create(payment_request())


async def test_a_day_s_statement_reads_back(shop: WeChatPayKit) -> None:
    charges = [payment_request(fen=fen, subject=f"a,`b\n{fen}") for fen in (1, 510, 123_456)]
    for wanted in charges:
        await shop.adapter.create(wanted)
        shop.pay(wanted.payment_id)
        await shop.clock.sleep(1)  # the books go by time
    orders = [refund_request(charges[1], 110), refund_request(charges[1], 400)]
    for order in orders:
        await shop.adapter.refund(order)
    text = shop.sandbox.statement(shop.bank.trades("wechatpay"), shop.bank.refunds("wechatpay"))
    read = shop.adapter.read_statement(text)
    trades = {trade.out_no: trade for trade in shop.bank.trades("wechatpay")}
    refunds = {refund.out_refund_no: refund for refund in shop.bank.refunds("wechatpay")}
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
    assert shop.adapter.read_statement("\ufeff" + text.replace("\r\n", "\n")) == read

    lines = text.split("\r\n")
    whole = lines[1]
    for bad, why in {
        whole.replace("`", ""): "backquote",
        whole + ",`more": "28 values",
        whole.replace(MCH_ID, "1900000110"): "another merchant",
        whole.replace("`CNY", "`USD"): "not CNY",
        whole.replace("`SUCCESS", "`REVOKED"): "REVOKED",
        whole.replace(paid[0].payment_id.hex, "S20210128"): "not a number of ours",
        whole.replace("`0.01,`0.00,`", "`0.011,`0.00,`"): "finer than CNY",
        "": "backquote",
    }.items():
        broken = shop.adapter.read_statement("\r\n".join([lines[0], lines[2], bad, *lines[3:]]))
        assert len(broken) == 5
        assert isinstance(broken[1], str), bad
        assert broken[1].startswith("line 3: ")
        assert why in broken[1]
    assert "cut short" in str(shop.adapter.read_statement("\r\n".join(lines[:4]))[-1])
    assert "no column" in str(shop.adapter.read_statement("")[0])
    assert "line 1: there is no column 订单金额" in shop.adapter.read_statement(text.replace("订单金额", "x"))[0]
    refunded = lines[4].replace("`SUCCESS", "`FAIL")
    assert "'FAIL'" in str(shop.adapter.read_statement("\r\n".join([lines[0], refunded, *lines[6:]]))[0])


async def test_the_answers_to_callbacks(shop: WeChatPayKit) -> None:
    yes, no = shop.adapter.acknowledge(True), shop.adapter.acknowledge(False)
    assert yes == WebhookReply(204, "application/json", b"")
    assert (no.status, msgspec.json.decode(no.body)["code"]) == (400, "FAIL")
    assert shop.sandbox.is_accepted(yes.status, yes.body)
    assert not shop.sandbox.is_accepted(no.status, no.body)


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


async def test_callbacks_are_told_apart_by_what_is_wrong_with_them(shop: WeChatPayKit) -> None:
    wanted = payment_request()
    await shop.adapter.create(wanted)
    trade = shop.pay(wanted.payment_id)
    good = shop.callback(trade)
    seen = shop.adapter.read_webhook(lower(good.headers), good.body, shop.clock.now)
    assert seen.subject == await shop.adapter.query(wanted.payment_id)
    wrong = shop.callback(trade, wrong="amount")
    other = shop.adapter.read_webhook(lower(wrong.headers), wrong.body, shop.clock.now)
    assert other.webhook_id == seen.webhook_id
    assert other.subject.amount == Money(511, "CNY")
