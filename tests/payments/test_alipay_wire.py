"""Alipay's keys, amounts, times and daily statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from commerce.kernel.money import Money
from commerce.payments.provider_port import StatementLine
from commerce.payments.providers.alipay import AlipayAccount, wire
from tests.payments.alipay_kit import (
    APP_ID,
    NOTIFY_URL,
    SELLER_ID,
    AlipayKit,
    key,
    open_alipay_kit,
    private_pem,
    public_pem,
    refund_request,
)


@pytest.fixture
async def kit() -> AsyncIterator[AlipayKit]:
    async with open_alipay_kit() as alipay_kit:
        yield alipay_kit


# Keys, amounts, times.


def test_account_with_keys_in_any_form_is_loaded() -> None:
    settings = {"app_id": APP_ID, "seller_id": SELLER_ID, "notify_url": NOTIFY_URL}
    settings["gateway_url"] = "https://openapi.alipay.com/gateway.do"
    pem = {"merchant_key": private_pem("merchant"), "alipay_key": public_pem("alipay")}
    bare = {name: "".join(text.splitlines()[1:-1]) for name, text in pem.items()}
    pkcs1 = key("merchant").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    for keys in (pem, bare, {**bare, "merchant_key": "".join(pkcs1.splitlines()[1:-1])}):
        result = AlipayAccount.load(**settings, **keys)
        assert result.merchant_key.private_numbers() == key("merchant").private_numbers()
        assert result.alipay_key.public_numbers() == key("alipay").public_key().public_numbers()
        assert "PRIVATE" not in repr(result)
        assert "key" not in repr(result)
    short = generate_private_key(65537, 1024)
    for change, word in (
        ({"merchant_key": "nonsense"}, "merchant_key: set the application's private key"),
        ({"merchant_key": public_pem("alipay")}, "merchant_key"),
        ({"alipay_key": private_pem("merchant")}, "alipay_key: set Alipay's public key"),
        (
            {"alipay_key": short.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()},
            "alipay_key: set an RSA key of 2048",
        ),
        ({"app_id": "x"}, "app_id: set"),
        ({"seller_id": "2088"}, "seller_id: set"),
        ({"gateway_url": "openapi.alipay.com"}, "gateway_url: set"),
        ({"notify_url": "https://shop.invalid/?a=1"}, "notify_url: set"),
    ):
        with pytest.raises(ValueError, match=word) as error:
            AlipayAccount.load(**{**settings, **pem, **change})
        assert "BEGIN" not in str(error.value)


@pytest.mark.parametrize(("text", "fen"), [("0.01", 1), ("0.10", 10), ("88.88", 8888), ("100000000.00", 10**10)])
def test_amount_is_parsed_and_formatted(text: str, fen: int) -> None:
    assert wire.parse_yuan(text) == fen
    assert wire.format_yuan(fen) == text


NO_AMOUNTS = [
    "0.1",
    "1e2",
    "1.234",
    "-1.00",
    "NaN",
    "1",
    "+1.00",
    "01.00",
    "1,000.00",
    ".01",
    "１.00",
    "1.0٠",
    "0x1.00",
    "1_0.00",
    "inf",
    "99999999999999.00",
]


@pytest.mark.parametrize("text", [*NO_AMOUNTS, "", "1.00 ", " 1.00", "1.00\n", 1.0, 1, None, True])
def test_invalid_amount_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        wire.parse_yuan(text)


# The daily statement.


async def test_statement_of_sandbox_is_read_back(kit: AlipayKit) -> None:
    payments = [await kit.create_paid_payment(fen) for fen in (1999, 5, 1_234_567)]
    refund_requests = [
        refund_request(payments[0], 1999),
        refund_request(payments[2], 67),
        refund_request(payments[2], 500),
    ]
    for refund in refund_requests:
        await kit.alipay.refund(refund)
    trades, stored_refunds = kit.payment_store.list_paid_trades("alipay"), kit.payment_store.list_refunds("alipay")
    trades[1] = replace(trades[1], subject='tea, "green"\nand black')
    text = kit.sandbox.build_statement(trades, stored_refunds)
    expected = {
        StatementLine(UUID(hex=trade.out_no), None, Money(trade.amount, "CNY"), trade.trade_no)
        for trade in kit.payment_store.list_paid_trades("alipay")
    } | {
        StatementLine(refund.payment_id, refund.refund_id, refund.amount, kit.trade(refund.payment_id).trade_no)
        for refund in refund_requests
    }
    result = kit.alipay.read_statement(text)
    assert (len(result), set(result)) == (6, expected)
    assert kit.alipay.read_statement(text.replace("\n", "\r\n")) == result
    assert kit.alipay.read_statement("\ufeff" + text) == result
    assert kit.alipay.read_statement(kit.sandbox.build_statement([], [])) == []


async def test_statement_with_bad_line_reports_its_number(kit: AlipayKit) -> None:
    payment_id = await kit.create_paid_payment()
    refund = refund_request(payment_id, 1000)
    await kit.alipay.refund(refund)
    text = kit.sandbox.build_statement(
        kit.payment_store.list_paid_trades("alipay"), kit.payment_store.list_refunds("alipay")
    )
    lines = text.split("\n")
    assert [lines[5].count("19.99"), lines[6].count("-10.00")] == [2, 2]
    good = kit.alipay.read_statement(text)
    for line_no, old, new, reason in (
        (6, "19.99", "19.9", "not an amount"),
        (6, "19.99", "-19.99", "not an amount"),
        (6, payment_id.hex, "ORDER1", "not a number of ours"),
        (6, payment_id.hex, payment_id.hex.upper(), "not a number of ours"),
        (6, "交易", "转账", "neither"),
        (6, ",", "", "cells"),
        (6, "2026", '"2026', "cells"),
        (6, kit.trade(payment_id).trade_no, "", "there is no"),
        (7, "-10.00", "10.00", "not the amount of a refund"),
        (7, refund.refund_id.hex, "", "no number of ours"),
        (7, "-10.00", "-1e1", "not an amount"),
        (7, "退款", "\r退款", "new-line"),
    ):
        broken = lines.copy()
        broken[line_no - 1] = broken[line_no - 1].replace(old, new, 1)
        result = kit.alipay.read_statement("\n".join(broken))
        other = 7 - line_no
        assert result[other] == good[other]
        error_line = result[1 - other]
        assert isinstance(error_line, str)
        assert error_line.startswith(f"line {line_no}: ")
        assert reason in error_line


async def test_statement_cut_short_or_foreign_is_reported(kit: AlipayKit) -> None:
    await kit.create_paid_payment()
    text = kit.sandbox.build_statement(kit.payment_store.list_paid_trades("alipay"), [])
    cut_short = kit.alipay.read_statement(text[: text.index("#---", text.index("交易,"))])
    assert isinstance(cut_short[0], StatementLine)
    assert "cut short" in str(cut_short[1])
    assert "no column" in str(kit.alipay.read_statement(text.replace("订单金额", "金额"))[0])
    assert "cut short" in str(kit.alipay.read_statement("")[0])
    assert "no column" in str(kit.alipay.read_statement("<html>\n</html>")[0])
