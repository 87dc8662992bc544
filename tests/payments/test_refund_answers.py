"""Answers to refund requests in our words: later, never, or refused; and the encryption of bank cards."""

from __future__ import annotations

from base64 import b64decode

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA1

from commerce.kernel.external import ExternalDelay, ExternalOutcomeUnknown, ExternalRefusal
from commerce.payments.provider_port import BankCard
from commerce.payments.providers.alipay.status_map import REFUND_FAILURES, raise_for_error
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.providers.wechatpay.status_map import map_error
from commerce.payments.providers.wechatpay.wire import encrypt_for
from tests.payments.wechatpay_kit import (
    PUBLIC_KEY_ID,
    FakeWeChatPayClock,
    FakeWeChatPayTransport,
    http_response,
    key,
    payment_request,
    refund_request,
    with_public_key,
)

CARD = BankCard("ICBC_DEBIT", "6222021234567890123", "张三")


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "NOT_ENOUGH", "merchant_balance"),
        (429, "FREQUENCY_LIMITED", "frequency"),
        (403, "RULE_LIMIT", "frequency"),
    ],
)
def test_wechat_pay_answers_later(status: int, code: str, reason: str) -> None:
    error = map_error(status, code, "try later")
    assert isinstance(error, ExternalDelay)
    assert (error.code, error.reason) == (code, reason)
    assert not isinstance(map_error(500, code, "x"), ExternalDelay), "the outcome is unknown"


@pytest.mark.parametrize(
    ("code", "sub_code", "reason"),
    [
        ("40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH", "merchant_balance"),
        ("40004", "ACQ.REASON_TRADE_BEEN_FREEZEN", "frozen"),
        ("40004", "ACQ.REFUND_CHARGE_ERROR", "busy"),
        ("40005", "isv.call-limited", "frequency"),
    ],
)
def test_alipay_answers_later(code: str, sub_code: str, reason: str) -> None:
    with pytest.raises(ExternalDelay) as delay:
        raise_for_error("alipay.trade.refund", {"code": code, "sub_code": sub_code, "sub_msg": "later"})
    assert delay.value.reason == reason


@pytest.mark.parametrize("sub_code", [*REFUND_FAILURES, "ACQ.REFUND_ACCOUNT_NOT_EXIST", "ACQ.TRADE_HAS_CLOSE"])
def test_alipay_refuses_for_good(sub_code: str) -> None:
    with pytest.raises(ExternalRefusal, match=sub_code):
        raise_for_error("alipay.trade.refund", {"code": "40004", "sub_code": sub_code, "sub_msg": "never"})
    with pytest.raises(ExternalOutcomeUnknown):
        raise_for_error("alipay.trade.refund", {"code": "20000", "sub_code": sub_code, "sub_msg": "unknown"})


async def test_card_is_encrypted_for_wechat_pay_alone() -> None:
    clock, request = FakeWeChatPayClock(), refund_request(payment_request(), 200)
    answer = {
        "refund_id": "5030",
        "out_refund_no": request.refund_id.hex,
        "out_trade_no": request.payment_id.hex,
        "status": "PROCESSING",
        "amount": {"refund": 200, "total": 510, "currency": "CNY"},
    }
    transport = FakeWeChatPayTransport(http_response(clock.now, 200, answer))
    refund = await WeChatPay(with_public_key(), transport, clock).redirect_refund(request, "50 30", CARD)
    assert (refund.state, refund.provider_refund_id) == ("waiting", "5030")
    [(method, url, headers, body)] = transport.requests
    assert (method, url.partition("/v3")[2]) == ("POST", "/refund/domestic/refunds/50%2030/apply-abnormal-refund")
    assert headers["Wechatpay-Serial"] == PUBLIC_KEY_ID
    sent = msgspec.json.decode(body)
    assert (sent["type"], sent["bank_type"], sent["out_refund_no"]) == (
        "USER_BANK_CARD",
        "ICBC_DEBIT",
        request.refund_id.hex,
    )
    padding = OAEP(mgf=MGF1(SHA1()), algorithm=SHA1(), label=None)
    read = [key("platform").decrypt(b64decode(sent[name]), padding).decode() for name in ("bank_account", "real_name")]
    assert read == [CARD.account, CARD.name]
    assert CARD.account not in repr(CARD)
    assert encrypt_for(key("platform").public_key(), "x") != encrypt_for(key("platform").public_key(), "x")
