"""Alipay's callbacks: genuine ones are read, and anything else is refused with the right code."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

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
    """Without its network: one trade over 19.99 that waits."""
    found = AlipayKit()
    found.alipay = Alipay(account(), FakeAlipayTransport(b""), found.clock)
    start = found.clock.ms
    subject = "红茶 & 点心 100%"
    names = ("alipay", PAYMENT_ID.hex, TRADE_NO)
    trade = SimulatedTrade(*names, 1999, "CNY", subject, "qr", "2088", NOTIFY_URL, "waiting", start, start + 900_000)
    found.bank.open_trade(trade)
    yield found
    found.bank.close()


def pay(kit: AlipayKit) -> None:
    kit.bank.pay("alipay", PAYMENT_ID.hex, kit.clock.ms)


def refund(kit: AlipayKit, fen: int, refund_id: UUID = REFUND_ID) -> None:
    number = f"{TRADE_NO}{refund_id.hex}"
    kit.bank.refund(SimulatedRefund("alipay", refund_id.hex, PAYMENT_ID.hex, number, fen, "", kit.clock.ms + 320))


def parse_fields(body: bytes) -> Fields:
    return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))


def signed(fields: Fields, **change: str | None) -> bytes:
    """A callback with fields changed, or taken out by None, and a right signature."""
    merged = {name: value for name, value in {**fields, **change}.items() if value is not None}
    merged["sign"] = wire.sign(wire.signing_text(merged, excluded=("sign", "sign_type")), key("alipay"))
    return urlencode(merged).encode()


# Genuine ones.


def test_a_payment_is_told(kit: AlipayKit) -> None:
    assert kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID), NOON).subject == ProviderPayment(PAYMENT_ID, "waiting")
    pay(kit)
    notice = kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID), NOON)
    assert notice.webhook_id == "alipay:n-1"
    assert notice.subject == ProviderPayment(PAYMENT_ID, "captured", Money(1999, "CNY"), TRADE_NO, NOON)
    kit.clock.ms += 86_400_000  # sent again: another notify_time, the same notice
    assert kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID), from_ms(kit.clock.ms)) == notice


def test_a_refund_is_told_without_its_amount(kit: AlipayKit) -> None:
    pay(kit)
    seen = ProviderRefund(PAYMENT_ID, REFUND_ID, "done")
    refund(kit, 1000)
    assert kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID, REFUND_ID), NOON).subject == seen
    second = UUID("019abcde-0000-7000-8000-0000000000b6")
    refund(kit, 999, second)
    body = kit.callback(PAYMENT_ID, second)
    told = parse_fields(body)
    assert (told["trade_status"], told["refund_fee"]) == ("TRADE_CLOSED", "19.99")  # of both refunds together
    assert kit.alipay.read_webhook({}, body, NOON).subject == ProviderRefund(PAYMENT_ID, second, "done")


def test_closed_is_told_from_all_given_back(kit: AlipayKit) -> None:
    kit.bank.close_trade("alipay", PAYMENT_ID.hex)
    told = parse_fields(kit.callback(PAYMENT_ID))
    assert (told["trade_status"], told["refund_fee"]) == ("TRADE_CLOSED", "0.00")  # as Alipay really sends it
    assert kit.alipay.read_webhook({}, signed(told), NOON).subject == ProviderPayment(PAYMENT_ID, "closed")


def test_a_number_without_a_refund_is_not_one(kit: AlipayKit) -> None:
    pay(kit)
    told = parse_fields(kit.callback(PAYMENT_ID))
    for fee in (None, "0.00"):
        seen = kit.alipay.read_webhook({}, signed(told, out_biz_no="x", refund_fee=fee), NOON).subject
        assert isinstance(seen, ProviderPayment)


def test_a_refund_by_hand_says_only_that_the_payment_was_captured(kit: AlipayKit) -> None:
    pay(kit)
    refund(kit, 1999)
    told = parse_fields(kit.callback(PAYMENT_ID, REFUND_ID))
    seen = kit.alipay.read_webhook({}, signed(told, out_biz_no=None), NOON).subject
    assert isinstance(seen, ProviderPayment)
    assert (seen.state, seen.amount) == ("captured", Money(1999, "CNY"))


def test_wrong_ones_on_purpose(kit: AlipayKit) -> None:
    pay(kit)
    with pytest.raises(InvalidWebhook, match="bad_signature"):
        kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID, wrong="signature"), NOON)
    seen = kit.alipay.read_webhook({}, kit.callback(PAYMENT_ID, wrong="amount"), NOON).subject
    assert seen.amount == Money(2000, "CNY")  # genuine in form: that it is another amount is for others to see


def test_the_window_of_time(kit: AlipayKit) -> None:
    body = kit.callback(PAYMENT_ID)
    for now in (NOON - WEBHOOK_MAX_AHEAD, NOON + WEBHOOK_MAX_AGE):
        assert kit.alipay.read_webhook({}, body, now)


async def test_answers_to_callbacks(kit: AlipayKit) -> None:
    yes, no = kit.alipay.acknowledge(True), kit.alipay.acknowledge(False)
    assert (yes.status, yes.body, no.body) == (200, b"success", b"fail")
    assert kit.sandbox.is_accepted(yes.status, yes.body)
    assert not kit.sandbox.is_accepted(no.status, no.body)
    assert not kit.sandbox.is_accepted(500, yes.body)
    await kit.alipay.refresh()  # there is nothing to renew


# All the others.


class Mutant(NamedTuple):
    what: str
    body: bytes
    code: str
    now: datetime = NOON


def field_mutants(told: Fields) -> Iterator[Mutant]:
    """Each field changed, emptied, cut, dropped, renamed and doubled, under the signature of before."""
    for name, value in told.items():
        is_frame = name in ("sign", "sign_type")
        other = ("B" if value[:1] == "A" else "A") + value[1:]
        for what, new in (
            ("changed", other),
            ("longer", value + " "),
            ("empty", ""),
            ("cut", value[: len(value) // 2]),
        ):
            yield Mutant(f"{name} {what}", urlencode({**told, name: new}).encode(), "bad_signature")
        rest = {field: told[field] for field in told if field != name}
        code = "malformed" if is_frame else "bad_signature"
        yield Mutant(f"{name} dropped", urlencode(rest).encode(), code)
        yield Mutant(f"{name} renamed", urlencode({**rest, f"{name}_": value}).encode(), code)
        yield Mutant(f"{name} twice", urlencode([*told.items(), (name, value)]).encode(), "malformed")
    yield Mutant("one more", urlencode({**told, "extra": "1"}).encode(), "bad_signature")


def signature_mutants(told: Fields) -> Iterator[Mutant]:
    """Bits of the signature turned, its base64 written otherwise, other keys and weaker or other schemes."""

    def under(what: str, signature: str, **more: str) -> Mutant:
        return Mutant(what, urlencode({**told, "sign": signature, **more}).encode(), "bad_signature")

    raw = base64.b64decode(told["sign"])
    for at in range(0, len(raw), 4):
        turned = bytearray(raw)
        turned[at] ^= 1 << at // 4 % 8
        yield under(f"bit in byte {at}", base64.b64encode(turned).decode())
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits[digits.index(told["sign"][-3]) + 1]  # a bit that base64 does not count
    assert base64.b64decode(told["sign"][:-3] + last + "==") == raw
    yield under("padding bits", told["sign"][:-3] + last + "==")
    yield under("line break", told["sign"][:76] + "\n" + told["sign"][76:])
    yield under("blank", told["sign"] + " ")
    yield under("no padding", told["sign"].rstrip("="))
    yield under("hexadecimal", raw.hex())
    yield under("too long", base64.b64encode(raw + b"\0").decode())
    yield under("too short", base64.b64encode(raw[1:]).decode())
    yield under("not ASCII", "签名")
    content = wire.signing_text(told, excluded=("sign", "sign_type"))
    for owner in ("merchant", "stranger"):
        yield under(f"key of the {owner}", wire.sign(content, key(owner)))
    weak = base64.b64encode(key("alipay").sign(content, PKCS1v15(), SHA1())).decode()
    yield under("SHA-1", weak)
    yield under("RSA instead of RSA2", weak, sign_type="RSA")
    yield under("named RSA", told["sign"], sign_type="RSA")
    pss = key("alipay").sign(content, PSS(MGF1(SHA256()), 32), SHA256())
    yield under("PSS", base64.b64encode(pss).decode())
    yield under("over sign_type too", wire.sign(wire.signing_text(told, excluded=("sign",)), key("alipay")))
    unsorted = "&".join(f"{name}={value}" for name, value in told.items() if name not in ("sign", "sign_type"))
    yield under("unsorted", wire.sign(unsorted.encode(), key("alipay")))
    quoted = urlencode(sorted((name, told[name]) for name in told if name not in ("sign", "sign_type")))
    yield under("over quoted values", wire.sign(quoted.encode(), key("alipay")))


def body_mutants(told: Fields) -> Iterator[Mutant]:
    """What is no form in UTF-8, or breaks off, or is huge."""
    body = urlencode(told).encode()
    start = body.index(b"&sign=") + len(b"&sign=")
    for at in [*range(1, start, 45), start - 1, start - 6]:
        yield Mutant(f"breaks off at {at}", body[:at], "malformed")
    for at in range(start, len(body), 40):
        yield Mutant(f"breaks off at {at}", body[:at], "bad_signature")
    for what, new in (
        ("nothing", b""),
        ("blank", b" "),
        ("JSON", b'{"sign": "x", "sign_type": "RSA2"}'),
        ("XML", b"<xml><sign>x</sign></xml>"),
        ("bytes", bytes(range(256))),
        ("quoted bytes", body + b"&x=%ff"),
        ("raw bytes", body + b"&x=\xff"),
        ("raw UTF-8", body + "&x=红".encode()),
        ("surrogate", body + b"&x=%ed%a0%80"),
        ("GBK", body.replace(b"subject=", b"subject=" + b"%ba%ec")),
        ("UTF-16", body.decode().encode("utf-16")),
        ("an empty pair", body.replace(b"&", b"&&", 1)),
        ("no value", body + b"&x"),
        ("huge", body + b"&x=" + b"x" * wire.MAX_WEBHOOK_BYTES),
        ("fields without end", body + b"".join(b"&x%d=1" % number for number in range(100))),
    ):
        yield Mutant(what, new, "malformed")


def time_mutants(told: Fields) -> Iterator[Mutant]:
    second = timedelta(seconds=1)
    for ago in (WEBHOOK_MAX_AGE + second, timedelta(days=10), -WEBHOOK_MAX_AHEAD - second, -timedelta(days=365)):
        yield Mutant(f"{ago} old", urlencode(told).encode(), "stale", NOON + ago)
    yield Mutant("in UTC", signed(told, notify_time="2026-11-10 03:00:00"), "stale")


def content_mutants(told: Fields) -> Iterator[Mutant]:
    """Signed as it should be, and yet not for us, or not what Alipay writes."""
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
                yield Mutant(f"{name} {value!r}", signed(told, **{name: value}), code)
    for number in ("REFUND-1", "", str(REFUND_ID), TRADE_NO):
        yield Mutant(f"out_biz_no {number!r}", signed(told, out_biz_no=number, refund_fee="1.00"), "foreign")
    unpaid = signed(told, trade_status="WAIT_BUYER_PAY", refund_fee="1.00")
    yield Mutant("given back before it was paid", unpaid, "bad_content")


def test_mutated_callbacks_are_refused(kit: AlipayKit) -> None:
    pay(kit)
    body = kit.callback(PAYMENT_ID)
    told = parse_fields(body)
    assert urlencode(told).encode() == body == signed(told)
    assert kit.alipay.read_webhook({}, body, NOON)
    count, wrong = Counter[str](), []
    for mutants in (field_mutants, signature_mutants, body_mutants, time_mutants, content_mutants):
        for mutant in mutants(told):
            try:
                kit.alipay.read_webhook({}, mutant.body, mutant.now)
                said = "accepted"
            except InvalidWebhook as refusal:
                said = refusal.code
            count[said] += 1
            if said != mutant.code:
                wrong.append(f"{mutant.what}: {said}, not {mutant.code}")
    assert wrong == []
    print(f"{count.total()} mutated callbacks: {dict(count)}")
    assert count.total() >= 200
    assert set(count) == {"malformed", "bad_signature", "foreign", "stale", "bad_content"}
