"""Callbacks: the genuine are read, and whatever is changed in one is refused for the right reason."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from commerce.kernel.external import InvalidWebhook
from commerce.kernel.money import Money
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from tests.payments.wechatpay_kit import (
    APP_ID,
    MCH_ID,
    PUBLIC_KEY_ID,
    FakeWeChatPayClock,
    FakeWeChatPayTransport,
    encrypted,
    lower,
    open_wechatpay_kit,
    payment_request,
    refund_request,
    signature,
    with_public_key,
)

CLOCK = FakeWeChatPayClock()
NOW = CLOCK.now
PAYMENT_ID, REFUND_ID = UUID("0192f7c5" * 4), UUID("0192f7c6" * 4)
TRADE: dict[str, Any] = {
    "mchid": MCH_ID,
    "appid": APP_ID,
    "out_trade_no": PAYMENT_ID.hex,
    "transaction_id": "4200002345202411220012345678",
    "trade_type": "NATIVE",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "bank_type": "OTHERS",
    "success_time": "2026-11-22T10:34:56+08:00",
    "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
    "amount": {"total": 510, "payer_total": 510, "currency": "CNY", "payer_currency": "CNY"},
}
REFUND: dict[str, Any] = {
    "mchid": MCH_ID,
    "out_trade_no": PAYMENT_ID.hex,
    "transaction_id": "4200002345202411220012345678",
    "out_refund_no": REFUND_ID.hex,
    "refund_id": "50302345202411220012345678901",
    "refund_status": "SUCCESS",
    "success_time": "2026-11-22T11:34:56+08:00",
    "user_received_account": "支付用户零钱",
    "amount": {"total": 510, "refund": 200, "payer_total": 510, "payer_refund": 200},
}
FLIPS = 24


class InvalidWebhookCase(NamedTuple):
    """A callback that must be refused with `code`."""

    what: str
    headers: dict[str, str]
    body: bytes
    code: str
    now: datetime = NOW


def reader() -> WeChatPay:
    return WeChatPay(with_public_key(), FakeWeChatPayTransport(), CLOCK)


def envelope(content: Any, event: str, **changed: Any) -> dict[str, Any]:
    clear = content if isinstance(content, bytes) else msgspec.json.encode(content)
    about = event.partition(".")[0].lower()
    return {
        "id": "7b2b145f-9cda-5573-8be2-d2d9eaaffa25",
        "create_time": "2026-11-22T10:34:57+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": "支付成功",
        "resource": {"original_type": about, **encrypted(clear, about)},
    } | changed


PAYMENT_ENVELOPE = envelope(TRADE, "TRANSACTION.SUCCESS")
REFUND_ENVELOPE = envelope(REFUND, "REFUND.SUCCESS")


def replaced(whole: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field, like amount.total, that is another; without it if the value is `...`."""
    name, _, rest = path.partition(".")
    if rest:
        return whole | {name: replaced(whole[name], rest, value)}
    return {k: v for k, v in whole.items() if k != name} if value is ... else whole | {name: value}


def signed(what: str, content: Any, code: str, **how: str) -> InvalidWebhookCase:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return InvalidWebhookCase(what, signature(body, NOW, **how), body, code)


def header_values(good: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Headers with the reason for refusal and values that have it."""
    stamp, nonce, mark, serial = (good[f"wechatpay-{name}"] for name in ("timestamp", "nonce", "signature", "serial"))
    odd = ["", f"{stamp}, {stamp}", stamp * 2, f"-{stamp}", f"+{stamp}", f" {stamp}", f"{stamp}.0", f"{stamp}\n"]
    odd += ["now", "0x65", "1_700_000_000", "NaN", "１７３２", stamp[:5] + "x" + stamp[6:]]
    far = ["0", stamp[:-1], f"{stamp}0", str(int(stamp) - 301), str(int(stamp) + 301)]
    near = [str(int(stamp) - 299), str(int(stamp) + 1), f"0{stamp}"]
    raw = b64decode(mark)
    forged = [raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :] for at in range(0, len(raw), len(raw) // FLIPS)]
    forged += [raw[:-1], raw + b"\0", b"\0" + raw, raw * 2, raw[::-1], b"\0" * len(raw), b"\xff" * len(raw), b"1"]
    loose = mark[:-3] + chr(ord(mark[-3]) + 1) + "=="  # the same bytes, in a base64 that leaves bits over
    marks = [loose, mark.rstrip("="), f"{mark}=", f"{mark}, {mark}", mark * 2, mark.swapcase(), f" {mark}", f"{mark}\n"]
    marks += [raw.hex(), "é", f"WECHATPAY/SIGNTEST/{mark}", "WECHATPAY/SIGNTEST/1"]
    nonces = ["", f"{nonce}, {nonce}", f"{nonce} ", f"é{nonce}", f"{nonce}\udce9", f"{nonce}\n", "n" * 257]
    serials = [serial.lower(), serial[:-1], f"{serial}0", f"{serial}, {serial}", "5F" * 20, "é", " ", "0"]
    return [
        ("timestamp", "malformed", odd),
        ("timestamp", "stale", far),
        ("timestamp", "bad_signature", near),
        ("nonce", "malformed", nonces),
        ("nonce", "bad_signature", [nonce * 2, nonce[:-1], nonce[::-1], nonce.lower(), "0"]),
        ("signature", "malformed", [""]),
        ("signature", "bad_signature", [*(b64encode(other).decode() for other in forged), *marks]),
        ("signature-type", "bad_signature", ["RSA", "", "WECHATPAY2-SM2-WITH-SM3", "WECHATPAY2-SHA256-RSA2048, x"]),
        ("serial", "malformed", [""]),
        ("serial", "unknown_key", serials),
    ]


def wrong_headers(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    body = msgspec.json.encode(envelope)
    good = signature(body, NOW)
    for name, code, values in header_values(good):
        for value in values:
            yield InvalidWebhookCase(f"{name}: {value}", good | {f"wechatpay-{name}": value}, body, code)
    for name in ("timestamp", "nonce", "signature", "serial"):
        yield InvalidWebhookCase(f"no {name}", replaced(good, f"wechatpay-{name}", ...), body, "malformed")
    for signer in ("merchant", "stranger"):
        yield InvalidWebhookCase(f"signed by the {signer}", signature(body, NOW, signer=signer), body, "bad_signature")
    yield InvalidWebhookCase("without headers", {}, body, "malformed")
    yield InvalidWebhookCase(
        "names in capitals", {key.title(): value for key, value in good.items()}, body, "malformed"
    )
    for seconds in (-86_400, -302, 302, 86_400):
        yield InvalidWebhookCase(f"{seconds} s off", good, body, "stale", NOW + timedelta(seconds=seconds))


def wrong_bodies(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    """Changed after it was signed."""
    body = msgspec.json.encode(envelope)
    good = signature(body, NOW)
    changed = [b"", b"{}", b" " + body, body + b"\n", body[:-1], body[1:], body * 2, body[: len(body) // 2]]
    changed += [b"\xef\xbb\xbf" + body, body.decode().encode("utf-16"), b"\xff" + body, msgspec.json.format(body)]
    changed += [
        body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1 :] for at in range(0, len(body), len(body) // FLIPS)
    ]
    for path in ("id", "create_time", "resource_type", "event_type", "summary", "resource"):
        changed.append(msgspec.json.encode(replaced(envelope, path, ...)))
        changed.append(msgspec.json.encode(replaced(envelope, path, "x")))
        changed.append(body[:-1] + b',"%s":"x"}' % path.encode())
    for field in envelope["resource"]:
        for value in (..., "x", envelope["resource"][field] * 2, envelope["resource"][field][:-1]):
            changed.append(msgspec.json.encode(replaced(envelope, f"resource.{field}", value)))
    for other in changed:
        assert other != body
        yield InvalidWebhookCase(f"the body {other[:60]!r}", good, other, "bad_signature")


def wrong_envelopes(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    """Signed as they are, so that the key's owner would have to have made them."""
    paths = ("id", "event_type", "resource_type", "resource.algorithm", "resource.ciphertext", "resource.nonce")
    no_text: tuple[Any, ...] = (..., None, 1, True, [], {})
    malformed = [(path, value) for path in paths for value in no_text]
    malformed += [("resource", value) for value in (*no_text[:-1], "x")]
    malformed += [("id", ""), ("id", "x" * 65)]
    for path, value in malformed:
        yield signed(f"{path} {value}", replaced(envelope, path, value), "malformed")
    raw = msgspec.json.encode(envelope)
    for body in (
        b"",
        b"null",
        b"[]",
        b'"x"',
        raw[:-1],
        raw + b"}",
        raw.replace(b"encrypt", b"\xff\xfe"),
        b"\xef\xbb" + raw,
    ):
        yield signed(f"the body {body[:40]!r}", body, "malformed")
    hidden = b64decode(envelope["resource"]["ciphertext"])
    tag = hidden[:-16] + bytes([hidden[-16] ^ 1]) + hidden[-15:]
    texts = (tag, hidden[:-1], hidden[1:], hidden + b"\0", bytes([hidden[0] ^ 1]) + hidden[1:], hidden[:8], b"")
    wrong: dict[str, tuple[Any, ...]] = {
        "resource.ciphertext": ("****", "é", *(b64encode(text).decode() for text in texts)),
        "resource.nonce": ("", "fdasflkja485", "x", "n" * 200, "é"),
        "resource.associated_data": ("", "certificate", "x", ...),
        "resource.algorithm": ("", "AEAD_AES_128_GCM", "none", "aead_aes_256_gcm"),
        "resource_type": ("", "plain", "ENCRYPT-RESOURCE"),
        "event_type": ("", "TRANSACTION.FAIL", "TRANSACTION", "REFUND", "REFUND.", "REFUND.PROCESSING", "x.SUCCESS"),
        "resource": (encrypted(msgspec.json.encode(TRADE), "transaction", secret="f" * 32),),
    }
    for path, values in wrong.items():
        for value in values:
            yield signed(f"{path} {value}", replaced(envelope, path, value), "bad_content")


def wrong_contents(content: dict[str, Any], event: str, amounts: tuple[str, ...]) -> Iterator[InvalidWebhookCase]:
    wrong: list[tuple[str, str, tuple[Any, ...]]] = []
    for path in {"mchid", "appid"} & set(content):
        ours = content[path]
        wrong.append((path, "foreign", ("", "1900000110", ours + " ", ours.upper() + "0")))
        wrong.append((path, "bad_content", (1_900_000_109, [ours])))
        wrong.append((path, "bad_content" if path == "mchid" else "foreign", (..., None)))
    for path in {"out_trade_no", "out_refund_no"} & set(content):
        ours = content[path]
        others = ("", ours[:-1], ours + "0", ours.upper(), str(UUID(ours)), f"{{{ours}}}", "S20210128", "é" * 32)
        wrong.append((path, "foreign", others))
        wrong.append((path, "bad_content", (..., None, 5, True)))
    no_fen = (..., None, True, False, 510.0, 5.1, "510", "5.10", 0, -510, 10**15 + 1, 10**30, [510], {"fen": 510})
    wrong += [(path, "bad_content", no_fen) for path in amounts]
    wrong.append(("amount.currency", "bad_content", ("USD", "cny", "", 1, ["CNY"])))
    wrong.append(("amount", "bad_content", (..., None, 510, "510", [], {})))
    for path, code, values in wrong:
        for value in values:
            yield signed(f"{path} {value}", envelope(replaced(content, path, value), event), code)
    for clear in (b"", b"null", b"[]", b"\xff\xfe", b"{", msgspec.json.encode(content)[:-1], b'"x"'):
        yield signed(f"the content {clear!r}", envelope(clear, event), "bad_content")


def wrong_words() -> Iterator[InvalidWebhookCase]:
    for word in (..., None, "", "success", "NOTPAY", "CLOSED", "REFUND", "USERPAYING", "PAYERROR", "PAID", 1):
        content = replaced(TRADE, "trade_state", word)
        yield signed(f"trade_state {word}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for word in (..., None, "", "success", "PROCESSING", "ABNORMAL", "CLOSED", "DONE", 1):
        content = replaced(REFUND, "refund_status", word)
        yield signed(f"refund_status {word}", envelope(content, "REFUND.SUCCESS"), "bad_content")
    for word in ("ABNORMAL", "CLOSED"):
        yield signed(f"a refund that is not {word}", envelope(REFUND, f"REFUND.{word}"), "bad_content")
    for value in (..., None, "", 1, "yesterday", "2026-11-22T10:34:56", "2026-13-22T10:34:56+08:00", 1_700_000_000):
        content = replaced(TRADE, "success_time", value)
        yield signed(f"success_time {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for value in (..., None, "", 1):
        content = replaced(TRADE, "transaction_id", value)
        yield signed(f"transaction_id {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for value in (..., None):
        content = replaced(TRADE, "amount.currency", value)
        yield signed(f"currency {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    yield signed("a refund as a payment", envelope(REFUND, "TRANSACTION.SUCCESS"), "bad_content")
    yield signed("a payment as a refund", envelope(TRADE, "REFUND.SUCCESS"), "bad_content")


def all_wrong() -> Iterator[InvalidWebhookCase]:
    for whole in (PAYMENT_ENVELOPE, REFUND_ENVELOPE):
        yield from wrong_headers(whole)
        yield from wrong_bodies(whole)
        yield from wrong_envelopes(whole)
    yield from wrong_contents(TRADE, "TRANSACTION.SUCCESS", ("amount.total",))
    yield from wrong_contents(REFUND, "REFUND.SUCCESS", ("amount.total", "amount.refund"))
    yield from wrong_words()


def test_the_genuine_are_read() -> None:
    body = msgspec.json.encode(PAYMENT_ENVELOPE)
    for seconds in (-299, 0, 299):
        seen = reader().read_webhook(signature(body, NOW), body, NOW + timedelta(seconds=seconds))
    assert seen.webhook_id == PAYMENT_ENVELOPE["id"]
    at = datetime.fromisoformat(TRADE["success_time"])
    assert seen.subject == ProviderPayment(PAYMENT_ID, "captured", Money(510, "CNY"), TRADE["transaction_id"], at)
    for word, state in {"SUCCESS": "done", "ABNORMAL": "failed", "CLOSED": "failed"}.items():
        body = msgspec.json.encode(envelope(REFUND | {"refund_status": word}, f"REFUND.{word}"))
        refund = reader().read_webhook(signature(body, NOW), body, NOW).subject
        assert isinstance(refund, ProviderRefund)
        assert (refund.payment_id, refund.refund_id, refund.state) == (PAYMENT_ID, REFUND_ID, state)
        assert refund.amount == Money(200, "CNY")
        assert (word in refund.reason) == (state == "failed")


def test_whatever_is_changed_is_refused() -> None:
    adapter, counts, wrong = reader(), Counter[str](), []
    for bad in all_wrong():
        said = "accepted"
        try:
            adapter.read_webhook(bad.headers, bad.body, bad.now)
        except InvalidWebhook as no:
            said = no.code
        counts[bad.code] += 1
        if said != bad.code:
            wrong.append(f"{bad.what}: {said} instead of {bad.code}")
    assert wrong == []
    assert counts.total() >= 600, counts
    assert set(counts) == set(InvalidWebhook.CODES)
    assert min(counts.values()) >= 15


async def test_what_the_sandbox_sends() -> None:
    async with open_wechatpay_kit() as shop:
        wanted = payment_request("jsapi")
        await shop.adapter.create(wanted)
        trade = shop.pay(wanted.payment_id)
        await shop.adapter.refund(order := refund_request(wanted, 200))
        refund = shop.refunds[0]
        sent = shop.callback(trade, refund)
        seen = shop.adapter.read_webhook(lower(sent.headers), sent.body, shop.clock.now)
        assert seen.subject == await shop.adapter.query_refund(order)
        wrong = shop.callback(trade, refund, wrong="amount")
        other = shop.adapter.read_webhook(lower(wrong.headers), wrong.body, shop.clock.now)
        assert other.subject.amount == Money(201, "CNY")
        for about in (None, refund):
            forged = shop.callback(trade, about, wrong="signature")
            with pytest.raises(InvalidWebhook, match="bad_signature"):
                shop.adapter.read_webhook(lower(forged.headers), forged.body, shop.clock.now)
        again = shop.callback(trade)
        assert again.headers["Wechatpay-Nonce"] != shop.callback(trade).headers["Wechatpay-Nonce"]

        fresh = WeChatPay(with_public_key(shop.url), shop.outside, shop.clock)
        with pytest.raises(InvalidWebhook, match="unknown_key"):
            fresh.read_webhook(lower(sent.headers), sent.body, shop.clock.now)
        await fresh.refresh()
        assert fresh.read_webhook(lower(sent.headers), sent.body, shop.clock.now) == seen
        late = shop.clock.now + timedelta(days=366)  # when the certificate is over
        stamped = signature(sent.body, late, serial=sent.headers["Wechatpay-Serial"])
        with pytest.raises(InvalidWebhook, match="unknown_key"):
            fresh.read_webhook(stamped, sent.body, late)
    assert PUBLIC_KEY_ID not in sent.headers.values()
