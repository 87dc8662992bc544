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
    async with open_alipay_kit() as found:
        yield found


# Keys, amounts, times.


def test_keys_are_read_as_the_console_shows_them() -> None:
    given = {"app_id": APP_ID, "seller_id": SELLER_ID, "notify_url": NOTIFY_URL}
    given["gateway_url"] = "https://openapi.alipay.com/gateway.do"
    pem = {"merchant_key": private_pem("merchant"), "alipay_key": public_pem("alipay")}
    bare = {name: "".join(text.splitlines()[1:-1]) for name, text in pem.items()}
    pkcs1 = key("merchant").private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    for keys in (pem, bare, {**bare, "merchant_key": "".join(pkcs1.splitlines()[1:-1])}):
        found = AlipayAccount.load(**given, **keys)
        assert found.merchant_key.private_numbers() == key("merchant").private_numbers()
        assert found.alipay_key.public_numbers() == key("alipay").public_key().public_numbers()
        assert "PRIVATE" not in repr(found)
        assert "key" not in repr(found)
    short = generate_private_key(65537, 1024)
    for change, word in (
        ({"merchant_key": "nonsense"}, "merchant_key: give the application's private key"),
        ({"merchant_key": public_pem("alipay")}, "merchant_key"),
        ({"alipay_key": private_pem("merchant")}, "alipay_key: give Alipay's public key"),
        (
            {"alipay_key": short.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()},
            "alipay_key: give an RSA key of 2048",
        ),
        ({"app_id": "x"}, "app_id: give"),
        ({"seller_id": "2088"}, "seller_id: give"),
        ({"gateway_url": "openapi.alipay.com"}, "gateway_url: give"),
        ({"notify_url": "https://shop.invalid/?a=1"}, "notify_url: give"),
    ):
        with pytest.raises(ValueError, match=word) as error:
            AlipayAccount.load(**{**given, **pem, **change})
        assert "BEGIN" not in str(error.value)


@pytest.mark.parametrize(("text", "fen"), [("0.01", 1), ("0.10", 10), ("88.88", 8888), ("100000000.00", 10**10)])
def test_amounts(text: str, fen: int) -> None:
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
def test_what_is_no_amount_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        wire.parse_yuan(text)


# The daily statement.


async def test_a_statement_reads_back(kit: AlipayKit) -> None:
    payments = [await kit.paid(fen) for fen in (1999, 5, 1_234_567)]
    orders = [refund_request(payments[0], 1999), refund_request(payments[2], 67), refund_request(payments[2], 500)]
    for order in orders:
        await kit.alipay.refund(order)
    trades, refunds = kit.bank.trades("alipay"), kit.bank.refunds("alipay")
    trades[1] = replace(trades[1], subject='tea, "green"\nand black')
    text = kit.sandbox.statement(trades, refunds)
    expected = {
        StatementLine(UUID(hex=trade.out_no), None, Money(trade.amount, "CNY"), trade.trade_no)
        for trade in kit.bank.trades("alipay")
    } | {StatementLine(o.payment_id, o.refund_id, o.amount, kit.trade(o.payment_id).trade_no) for o in orders}
    found = kit.alipay.read_statement(text)
    assert (len(found), set(found)) == (6, expected)
    assert kit.alipay.read_statement(text.replace("\n", "\r\n")) == found
    assert kit.alipay.read_statement("\ufeff" + text) == found
    assert kit.alipay.read_statement(kit.sandbox.statement([], [])) == []


async def test_lines_that_cannot_be_read_are_told_by_number(kit: AlipayKit) -> None:
    payment_id = await kit.paid()
    order = refund_request(payment_id, 1000)
    await kit.alipay.refund(order)
    text = kit.sandbox.statement(kit.bank.trades("alipay"), kit.bank.refunds("alipay"))
    lines = text.split("\n")
    assert [lines[5].count("19.99"), lines[6].count("-10.00")] == [2, 2]
    good = kit.alipay.read_statement(text)
    for number, old, new, why in (
        (6, "19.99", "19.9", "not an amount"),
        (6, "19.99", "-19.99", "not an amount"),
        (6, payment_id.hex, "ORDER1", "not a number of ours"),
        (6, payment_id.hex, payment_id.hex.upper(), "not a number of ours"),
        (6, "交易", "转账", "neither"),
        (6, ",", "", "cells"),
        (6, "2026", '"2026', "cells"),
        (6, kit.trade(payment_id).trade_no, "", "without"),
        (7, "-10.00", "10.00", "not the amount of a refund"),
        (7, order.refund_id.hex, "", "not a number of ours"),
        (7, "-10.00", "-1e1", "not an amount"),
        (7, "退款", "\r退款", "new-line"),
    ):
        broken = lines.copy()
        broken[number - 1] = broken[number - 1].replace(old, new, 1)
        found = kit.alipay.read_statement("\n".join(broken))
        other = 7 - number
        assert found[other] == good[other]
        wrong = found[1 - other]
        assert isinstance(wrong, str)
        assert wrong.startswith(f"line {number}: ")
        assert why in wrong


async def test_a_statement_that_is_none_or_breaks_off_is_told(kit: AlipayKit) -> None:
    await kit.paid()
    text = kit.sandbox.statement(kit.bank.trades("alipay"), [])
    cut = kit.alipay.read_statement(text[: text.index("#---", text.index("交易,"))])
    assert isinstance(cut[0], StatementLine)
    assert "breaks off" in str(cut[1])
    assert "no column" in str(kit.alipay.read_statement(text.replace("订单金额", "金额"))[0])
    assert "breaks off" in str(kit.alipay.read_statement("")[0])
    assert "no column" in str(kit.alipay.read_statement("<html>\n</html>")[0])
