"""Webhooks of Alipay: genuine ones are read, all others are refused with the right code."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from commerce.kernel.clock import from_ms
from commerce.kernel.external import InvalidWebhook
from commerce.kernel.money import Money
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.providers.alipay import Alipay, wire
from commerce.payments.providers.alipay.adapter import WEBHOOK_MAX_AGE, WEBHOOK_MAX_AHEAD
from ops.sandbox.payment_store import SimulatedRefund, SimulatedTrade
from tests.payments.alipay_kit import NOON, NOTIFY_URL, AlipayKit, FakeAlipayTransport, account, key

PAYMENT_ID = UUID("019abcde-0000-7000-8000-000000000001")
REFUND_ID = UUID("019abcde-0000-7000-8000-0000000000b5")
TRADE_NO = "2026111122001000000000000001"
Fields = dict[str, str]


@pytest.fixture
def kit() -> Iterator[AlipayKit]:
    """Create a kit without network that has one pending trade of 19.99."""
    alipay_kit = AlipayKit()
    alipay_kit.alipay = Alipay(account(), FakeAlipayTransport(b""), alipay_kit.clock)
    start = alipay_kit.clock.ms
    subject = "红茶 & 点心 100%"
    names = ("alipay", PAYMENT_ID.hex, TRADE_NO)
    trade = SimulatedTrade(*names, 1999, "CNY", subject, "qr", "2088", NOTIFY_URL, "waiting", start, start + 900_000)
    alipay_kit.payment_store.open_trade(trade)
    yield alipay_kit
    alipay_kit.payment_store.close()


def pay(kit: AlipayKit) -> None:
    kit.payment_store.pay("alipay", PAYMENT_ID.hex, kit.clock.ms)


def refund(kit: AlipayKit, fen: int, refund_id: UUID = REFUND_ID) -> None:
    number = f"{TRADE_NO}{refund_id.hex}"
    kit.payment_store.refund(
        SimulatedRefund("alipay", refund_id.hex, PAYMENT_ID.hex, number, fen, "", kit.clock.ms + 320)
    )


def parse_fields(body: bytes) -> Fields:
    return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))


def signed(fields: Fields, **change: str | None) -> bytes:
    """Return a webhook with fields changed, or removed by None, and a valid signature."""
    merged = {name: value for name, value in {**fields, **change}.items() if value is not None}
    merged["sign"] = wire.sign(wire.signing_text(merged, excluded=("sign", "sign_type")), key("alipay"))
    return urlencode(merged).encode()


# Genuine webhooks.


def test_webhook_of_payment_is_read(kit: AlipayKit) -> None:
    assert kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID), NOON).subject == ProviderPayment(PAYMENT_ID, "waiting")
    pay(kit)
    webhook = kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID), NOON)
    assert webhook.webhook_id == "alipay:n-1"
    assert webhook.subject == ProviderPayment(PAYMENT_ID, "captured", Money(1999, "CNY"), TRADE_NO, NOON)
    kit.clock.ms += 86_400_000  # repeated: another notify_time, the same webhook
    assert kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID), from_ms(kit.clock.ms)) == webhook


def test_webhook_of_refund_is_read_without_amount(kit: AlipayKit) -> None:
    pay(kit)
    trade = kit.payment_store.find_trade("alipay", PAYMENT_ID.hex)
    assert trade is not None
    subject = ProviderRefund(PAYMENT_ID, REFUND_ID, "done", provider_refund_id=trade.trade_no)
    refund(kit, 1000)
    assert kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID, REFUND_ID), NOON).subject == subject
    second = UUID("019abcde-0000-7000-8000-0000000000b6")
    refund(kit, 999, second)
    body = kit.webhook(PAYMENT_ID, second)
    fields = parse_fields(body)
    assert (fields["trade_status"], fields["refund_fee"]) == ("TRADE_CLOSED", "19.99")  # of both refunds together
    assert kit.alipay.read_webhook({}, body, NOON).subject == msgspec.structs.replace(subject, refund_id=second)


def test_webhook_of_closed_trade_is_no_refund(kit: AlipayKit) -> None:
    kit.payment_store.close_trade("alipay", PAYMENT_ID.hex)
    fields = parse_fields(kit.webhook(PAYMENT_ID))
    assert (fields["trade_status"], fields["refund_fee"]) == ("TRADE_CLOSED", "0.00")  # as the real Alipay sends it
    assert kit.alipay.read_webhook({}, signed(fields), NOON).subject == ProviderPayment(PAYMENT_ID, "closed")


def test_webhook_without_refund_fee_is_payment(kit: AlipayKit) -> None:
    pay(kit)
    fields = parse_fields(kit.webhook(PAYMENT_ID))
    for fee in (None, "0.00"):
        subject = kit.alipay.read_webhook({}, signed(fields, out_biz_no="x", refund_fee=fee), NOON).subject
        assert isinstance(subject, ProviderPayment)


def test_webhook_of_manual_refund_is_captured_payment(kit: AlipayKit) -> None:
    pay(kit)
    refund(kit, 1999)
    fields = parse_fields(kit.webhook(PAYMENT_ID, REFUND_ID))
    subject = kit.alipay.read_webhook({}, signed(fields, out_biz_no=None), NOON).subject
    assert isinstance(subject, ProviderPayment)
    assert (subject.state, subject.amount) == ("captured", Money(1999, "CNY"))


def test_webhook_with_injected_fault_fails_or_carries_it(kit: AlipayKit) -> None:
    pay(kit)
    with pytest.raises(InvalidWebhook, match="bad_signature"):
        kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID, wrong="signature"), NOON)
    subject = kit.alipay.read_webhook({}, kit.webhook(PAYMENT_ID, wrong="amount"), NOON).subject
    assert subject.amount == Money(2000, "CNY")  # valid in form: the service compares the amount


def test_webhook_within_time_window_is_read(kit: AlipayKit) -> None:
    body = kit.webhook(PAYMENT_ID)
    for now in (NOON - WEBHOOK_MAX_AHEAD, NOON + WEBHOOK_MAX_AGE):
        assert kit.alipay.read_webhook({}, body, now)


async def test_webhook_response_is_understood_by_sandbox(kit: AlipayKit) -> None:
    accepted, refused = kit.alipay.acknowledge(True), kit.alipay.acknowledge(False)
    assert (accepted.status, accepted.body, refused.body) == (200, b"success", b"fail")
    assert kit.sandbox.is_accepted(accepted.status, accepted.body)
    assert not kit.sandbox.is_accepted(refused.status, refused.body)
    assert not kit.sandbox.is_accepted(500, accepted.body)
    await kit.alipay.refresh()  # does nothing


# Mutated webhooks.


class Mutant(NamedTuple):
    change: str
    body: bytes
    code: str
    now: datetime = NOON


def field_mutants(fields: Fields) -> Iterator[Mutant]:
    """Yield each field changed, emptied, cut, dropped, renamed and doubled, with the old signature."""
    for name, value in fields.items():
        is_frame = name in ("sign", "sign_type")
        other = ("B" if value[:1] == "A" else "A") + value[1:]
        for change, new in (
            ("changed", other),
            ("longer", value + " "),
            ("empty", ""),
            ("cut", value[: len(value) // 2]),
        ):
            yield Mutant(f"{name} {change}", urlencode({**fields, name: new}).encode(), "bad_signature")
        others = {field: fields[field] for field in fields if field != name}
        code = "malformed" if is_frame else "bad_signature"
        yield Mutant(f"{name} dropped", urlencode(others).encode(), code)
        yield Mutant(f"{name} renamed", urlencode({**others, f"{name}_": value}).encode(), code)
        yield Mutant(f"{name} twice", urlencode([*fields.items(), (name, value)]).encode(), "malformed")
    yield Mutant("one more", urlencode({**fields, "extra": "1"}).encode(), "bad_signature")


def signature_mutants(fields: Fields) -> Iterator[Mutant]:
    """Yield flipped bits and other base64 forms of the signature, other keys, and other schemes."""

    def with_signature(change: str, signature: str, **changes: str) -> Mutant:
        return Mutant(change, urlencode({**fields, "sign": signature, **changes}).encode(), "bad_signature")

    raw = base64.b64decode(fields["sign"])
    for at in range(0, len(raw), 4):
        turned = bytearray(raw)
        turned[at] ^= 1 << at // 4 % 8
        yield with_signature(f"bit in byte {at}", base64.b64encode(turned).decode())
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits[digits.index(fields["sign"][-3]) + 1]  # a bit that base64 does not use
    assert base64.b64decode(fields["sign"][:-3] + last + "==") == raw
    yield with_signature("padding bits", fields["sign"][:-3] + last + "==")
    yield with_signature("line break", fields["sign"][:76] + "\n" + fields["sign"][76:])
    yield with_signature("blank", fields["sign"] + " ")
    yield with_signature("no padding", fields["sign"].rstrip("="))
    yield with_signature("hexadecimal", raw.hex())
    yield with_signature("too long", base64.b64encode(raw + b"\0").decode())
    yield with_signature("too short", base64.b64encode(raw[1:]).decode())
    yield with_signature("not ASCII", "签名")
    content = wire.signing_text(fields, excluded=("sign", "sign_type"))
    for owner in ("merchant", "stranger"):
        yield with_signature(f"key of the {owner}", wire.sign(content, key(owner)))
    weak = base64.b64encode(key("alipay").sign(content, PKCS1v15(), SHA1())).decode()
    yield with_signature("SHA-1", weak)
    yield with_signature("RSA instead of RSA2", weak, sign_type="RSA")
    yield with_signature("named RSA", fields["sign"], sign_type="RSA")
    pss = key("alipay").sign(content, PSS(MGF1(SHA256()), 32), SHA256())
    yield with_signature("PSS", base64.b64encode(pss).decode())
    yield with_signature("over sign_type too", wire.sign(wire.signing_text(fields, excluded=("sign",)), key("alipay")))
    unsorted = "&".join(f"{name}={value}" for name, value in fields.items() if name not in ("sign", "sign_type"))
    yield with_signature("unsorted", wire.sign(unsorted.encode(), key("alipay")))
    quoted = urlencode(sorted((name, fields[name]) for name in fields if name not in ("sign", "sign_type")))
    yield with_signature("over quoted values", wire.sign(quoted.encode(), key("alipay")))


def body_mutants(fields: Fields) -> Iterator[Mutant]:
    """Yield bodies that are no form in UTF-8, are cut short, or are huge."""
    body = urlencode(fields).encode()
    start = body.index(b"&sign=") + len(b"&sign=")
    for at in [*range(1, start, 45), start - 1, start - 6]:
        yield Mutant(f"cut at {at}", body[:at], "malformed")
    for at in range(start, len(body), 40):
        yield Mutant(f"cut at {at}", body[:at], "bad_signature")
    for change, new in (
        ("nothing", b""),
        ("blank", b" "),
        ("JSON", b'{"sign": "x", "sign_type": "RSA2"}'),
        ("XML", b"<xml><sign>x</sign></xml>"),
        ("bytes", bytes(range(256))),
        ("raw bytes", body + b"&x=\xff"),
        ("raw UTF-8", body + "&x=红".encode()),
        ("UTF-16", body.decode().encode("utf-16")),
        ("an empty pair", body.replace(b"&", b"&&", 1)),
        ("no value", body + b"&x"),
        ("huge", body + b"&x=" + b"x" * wire.MAX_WEBHOOK_BYTES),
        ("fields without end", body + b"".join(b"&x%d=1" % number for number in range(100))),
    ):
        yield Mutant(change, new, "malformed")
    for change, new in (
        ("quoted bytes", body + b"&x=%ff"),
        ("surrogate", body + b"&x=%ed%a0%80"),
        ("GBK", body.replace(b"subject=", b"subject=" + b"%ba%ec")),
    ):
        yield Mutant(change, new, "bad_signature")


def time_mutants(fields: Fields) -> Iterator[Mutant]:
    second = timedelta(seconds=1)
    for ago in (WEBHOOK_MAX_AGE + second, timedelta(days=10), -WEBHOOK_MAX_AHEAD - second, -timedelta(days=365)):
        yield Mutant(f"{ago} old", urlencode(fields).encode(), "stale", NOON + ago)
    yield Mutant("in UTC", signed(fields, notify_time="2026-11-10 03:00:00"), "stale")


def content_mutants(fields: Fields) -> Iterator[Mutant]:
    """Yield bodies with a valid signature that are for another account or have invalid content."""
    foreign: dict[str, list[str | None]] = {
        "app_id": ["2021000000000002", "", "2021000000000001 "],
        "seller_id": ["2088000000000002", "", "seller@shop.invalid"],
        "out_trade_no": ["ORDER-1", "", None, str(PAYMENT_ID), PAYMENT_ID.hex.upper(), "0" * 31, "g" * 32],
    }
    amounts = [
        "0.1",
        "1e2",
        "1.234",
        "-1.00",
        "NaN",
        "Infinity",
        "19.990",
        "1999",
        "+19.99",
        "019.99",
        "19,99",
        "0.00",
        "￥19.99",
        "１９.99",
    ]
    bad: dict[str, list[str | None]] = {
        "app_id": [None],
        "seller_id": [None],
        "notify_time": [
            None,
            "",
            "now",
            "2026-11-11T12:00:00",
            "2026-11-11 12:00",
            "1794369600",
            "2026-11-31 00:00:00",
        ],
        "notify_type": [None, "", "batch_refund_notify"],
        "notify_id": [None, "", "9" * 129],
        "total_amount": [None, "", " 19.99", "19.99\n", "9" * 14 + ".00", *amounts],
        "trade_status": [None, "", "trade_success", "TRADE_PENDING", "SUCCESS", "TRADE_SUCCESS "],
        "trade_no": [None, ""],
        "gmt_payment": [None, "", "2026-11-11", "2026-11-11 24:00:00"],
        "refund_fee": ["", "-1.00", "1e0", "20.00"],
        "trans_currency": ["USD", "", "cny"],
        "settle_currency": ["HKD"],
    }
    for code, changes in (("foreign", foreign), ("bad_content", bad)):
        for name, values in changes.items():
            for value in values:
                yield Mutant(f"{name} {value!r}", signed(fields, **{name: value}), code)
    for number in ("REFUND-1", "", str(REFUND_ID), TRADE_NO):
        yield Mutant(f"out_biz_no {number!r}", signed(fields, out_biz_no=number, refund_fee="1.00"), "foreign")
    unpaid = signed(fields, trade_status="WAIT_BUYER_PAY", refund_fee="1.00")
    yield Mutant("refunded before it was paid", unpaid, "bad_content")


def test_mutated_webhook_is_refused_with_its_code(kit: AlipayKit) -> None:
    pay(kit)
    body = kit.webhook(PAYMENT_ID)
    fields = parse_fields(body)
    assert urlencode(fields).encode() == body == signed(fields)
    assert kit.alipay.read_webhook({}, body, NOON)
    count, wrong = Counter[str](), []
    for mutants in (field_mutants, signature_mutants, body_mutants, time_mutants, content_mutants):
        for mutant in mutants(fields):
            try:
                kit.alipay.read_webhook({}, mutant.body, mutant.now)
                outcome = "accepted"
            except InvalidWebhook as refusal:
                outcome = refusal.code
            count[outcome] += 1
            if outcome != mutant.code:
                wrong.append(f"{mutant.change}: {outcome}, not {mutant.code}")
    assert wrong == []
    print(f"{count.total()} mutated webhooks: {dict(count)}")
    assert count.total() >= 200
    assert set(count) == {"malformed", "bad_signature", "foreign", "stale", "bad_content"}
