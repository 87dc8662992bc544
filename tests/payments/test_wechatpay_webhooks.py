"""Webhooks of WeChat Pay: genuine ones are read, changed ones are refused with the right code."""

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
    encrypt,
    lower_names,
    open_wechatpay_kit,
    payment_request,
    refund_request,
    signature_headers,
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
    """A webhook that must be refused with `code`."""

    change: str
    headers: dict[str, str]
    body: bytes
    code: str
    now: datetime = NOW


def create_adapter() -> WeChatPay:
    return WeChatPay(with_public_key(), FakeWeChatPayTransport(), CLOCK)


def envelope(content: Any, event: str, **changed: Any) -> dict[str, Any]:
    plaintext = content if isinstance(content, bytes) else msgspec.json.encode(content)
    kind = event.partition(".")[0].lower()
    return {
        "id": "7b2b145f-9cda-5573-8be2-d2d9eaaffa25",
        "create_time": "2026-11-22T10:34:57+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": "支付成功",
        "resource": {"original_type": kind, **encrypt(plaintext, kind)},
    } | changed


PAYMENT_ENVELOPE = envelope(TRADE, "TRANSACTION.SUCCESS")
REFUND_ENVELOPE = envelope(REFUND, "REFUND.SUCCESS")


def replace_field(genuine: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy with another value of one field, like amount.total; without it if the value is `...`."""
    name, _, remaining_path = path.partition(".")
    if remaining_path:
        return genuine | {name: replace_field(genuine[name], remaining_path, value)}
    return {k: v for k, v in genuine.items() if k != name} if value is ... else genuine | {name: value}


def signed_case(change: str, content: Any, code: str, **signer: str) -> InvalidWebhookCase:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return InvalidWebhookCase(change, signature_headers(body, NOW, **signer), body, code)


def header_values(good: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Return headers with the code of the refusal and values that cause it."""
    stamp, nonce, signature_text, serial = (
        good[f"wechatpay-{name}"] for name in ("timestamp", "nonce", "signature", "serial")
    )
    malformed = ["", f"{stamp}, {stamp}", stamp * 2, f"-{stamp}", f"+{stamp}", f" {stamp}", f"{stamp}.0", f"{stamp}\n"]
    malformed += ["now", "0x65", "1_700_000_000", "NaN", "１７３２", stamp[:5] + "x" + stamp[6:]]
    stale = ["0", stamp[:-1], f"{stamp}0", str(int(stamp) - 301), str(int(stamp) + 301)]
    within_window = [str(int(stamp) - 299), str(int(stamp) + 1), f"0{stamp}"]
    raw = b64decode(signature_text)
    forged = [raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :] for at in range(0, len(raw), len(raw) // FLIPS)]
    forged += [raw[:-1], raw + b"\0", b"\0" + raw, raw * 2, raw[::-1], b"\0" * len(raw), b"\xff" * len(raw), b"1"]
    # the same bytes in base64 with unused bits set
    loose = signature_text[:-3] + chr(ord(signature_text[-3]) + 1) + "=="
    signature_texts = [
        loose,
        signature_text.rstrip("="),
        f"{signature_text}=",
        f"{signature_text}, {signature_text}",
        signature_text * 2,
        signature_text.swapcase(),
        f" {signature_text}",
        f"{signature_text}\n",
    ]
    signature_texts += [raw.hex(), "é", f"WECHATPAY/SIGNTEST/{signature_text}", "WECHATPAY/SIGNTEST/1"]
    nonces = ["", f"{nonce}, {nonce}", f"{nonce} ", f"é{nonce}", f"{nonce}\udce9", f"{nonce}\n", "n" * 257]
    serials = [serial.lower(), serial[:-1], f"{serial}0", f"{serial}, {serial}", "5F" * 20, "é", " ", "0"]
    return [
        ("timestamp", "malformed", malformed),
        ("timestamp", "stale", stale),
        ("timestamp", "bad_signature", within_window),
        ("nonce", "malformed", nonces),
        ("nonce", "bad_signature", [nonce * 2, nonce[:-1], nonce[::-1], nonce.lower(), "0"]),
        ("signature", "malformed", [""]),
        ("signature", "bad_signature", [*(b64encode(other).decode() for other in forged), *signature_texts]),
        ("signature-type", "bad_signature", ["RSA", "", "WECHATPAY2-SM2-WITH-SM3", "WECHATPAY2-SHA256-RSA2048, x"]),
        ("serial", "malformed", [""]),
        ("serial", "unknown_key", serials),
    ]


def wrong_headers(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    body = msgspec.json.encode(envelope)
    good = signature_headers(body, NOW)
    for name, code, values in header_values(good):
        for value in values:
            yield InvalidWebhookCase(f"{name}: {value}", good | {f"wechatpay-{name}": value}, body, code)
    for name in ("timestamp", "nonce", "signature", "serial"):
        yield InvalidWebhookCase(f"no {name}", replace_field(good, f"wechatpay-{name}", ...), body, "malformed")
    for signer in ("merchant", "stranger"):
        yield InvalidWebhookCase(
            f"signed by the {signer}", signature_headers(body, NOW, signer=signer), body, "bad_signature"
        )
    yield InvalidWebhookCase("without headers", {}, body, "malformed")
    yield InvalidWebhookCase(
        "names in capitals", {key.title(): value for key, value in good.items()}, body, "malformed"
    )
    for seconds in (-86_400, -302, 302, 86_400):
        yield InvalidWebhookCase(f"{seconds} s off", good, body, "stale", NOW + timedelta(seconds=seconds))


def wrong_bodies(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    """Yield bodies changed after they were signed."""
    body = msgspec.json.encode(envelope)
    good = signature_headers(body, NOW)
    changed = [b"", b"{}", b" " + body, body + b"\n", body[:-1], body[1:], body * 2, body[: len(body) // 2]]
    changed += [b"\xef\xbb\xbf" + body, body.decode().encode("utf-16"), b"\xff" + body, msgspec.json.format(body)]
    changed += [
        body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1 :] for at in range(0, len(body), len(body) // FLIPS)
    ]
    for path in ("id", "create_time", "resource_type", "event_type", "summary", "resource"):
        changed.append(msgspec.json.encode(replace_field(envelope, path, ...)))
        changed.append(msgspec.json.encode(replace_field(envelope, path, "x")))
        changed.append(body[:-1] + b',"%s":"x"}' % path.encode())
    for field in envelope["resource"]:
        for value in (..., "x", envelope["resource"][field] * 2, envelope["resource"][field][:-1]):
            changed.append(msgspec.json.encode(replace_field(envelope, f"resource.{field}", value)))
    for other in changed:
        assert other != body
        yield InvalidWebhookCase(f"the body {other[:60]!r}", good, other, "bad_signature")


def wrong_envelopes(envelope: dict[str, Any]) -> Iterator[InvalidWebhookCase]:
    """Yield bodies with a valid signature, so only the key's owner could have created them."""
    paths = ("id", "event_type", "resource_type", "resource.algorithm", "resource.ciphertext", "resource.nonce")
    no_text: tuple[Any, ...] = (..., None, 1, True, [], {})
    malformed = [(path, value) for path in paths for value in no_text]
    malformed += [("resource", value) for value in (*no_text[:-1], "x")]
    malformed += [("id", ""), ("id", "x" * 65)]
    for path, value in malformed:
        yield signed_case(f"{path} {value}", replace_field(envelope, path, value), "malformed")
    raw = msgspec.json.encode(envelope)
    for body in (
        b"",
        b"null",
        b"[]",
        b'"x"',
        raw[:-1],
        raw + b"}",
        b"\xef\xbb" + raw,
    ):
        yield signed_case(f"the body {body[:40]!r}", body, "malformed")
    yield signed_case("a damaged type", raw.replace(b"encrypt", b"\xff\xfe"), "bad_content")
    ciphertext = b64decode(envelope["resource"]["ciphertext"])
    tag = ciphertext[:-16] + bytes([ciphertext[-16] ^ 1]) + ciphertext[-15:]
    texts = (
        tag,
        ciphertext[:-1],
        ciphertext[1:],
        ciphertext + b"\0",
        bytes([ciphertext[0] ^ 1]) + ciphertext[1:],
        ciphertext[:8],
        b"",
    )
    wrong: dict[str, tuple[Any, ...]] = {
        "resource.ciphertext": ("****", "é", *(b64encode(text).decode() for text in texts)),
        "resource.nonce": ("", "fdasflkja485", "x", "n" * 200, "é"),
        "resource.associated_data": ("", "certificate", "x", ...),
        "resource.algorithm": ("", "AEAD_AES_128_GCM", "none", "aead_aes_256_gcm"),
        "resource_type": ("", "plain", "ENCRYPT-RESOURCE"),
        "event_type": ("", "TRANSACTION.FAIL", "TRANSACTION", "REFUND", "REFUND.", "REFUND.PROCESSING", "x.SUCCESS"),
        "resource": (encrypt(msgspec.json.encode(TRADE), "transaction", api_v3_key="f" * 32),),
    }
    for path, values in wrong.items():
        for value in values:
            yield signed_case(f"{path} {value}", replace_field(envelope, path, value), "bad_content")


def wrong_contents(content: dict[str, Any], event: str, amounts: tuple[str, ...]) -> Iterator[InvalidWebhookCase]:
    wrong: list[tuple[str, str, tuple[Any, ...]]] = []
    for path in {"mchid", "appid"} & set(content):
        own_value = content[path]
        wrong.append((path, "foreign", ("", "1900000110", own_value + " ", own_value.upper() + "0")))
        wrong.append((path, "bad_content", (1_900_000_109, [own_value])))
        wrong.append((path, "bad_content" if path == "mchid" else "foreign", (..., None)))
    for path in {"out_trade_no", "out_refund_no"} & set(content):
        own_value = content[path]
        others = (
            "",
            own_value[:-1],
            own_value + "0",
            own_value.upper(),
            str(UUID(own_value)),
            f"{{{own_value}}}",
            "S20210128",
            "é" * 32,
        )
        wrong.append((path, "foreign", others))
        wrong.append((path, "bad_content", (..., None, 5, True)))
    no_fen = (..., None, True, False, 510.0, 5.1, "510", "5.10", 0, -510, 10**15 + 1, 10**30, [510], {"fen": 510})
    wrong += [(path, "bad_content", no_fen) for path in amounts]
    wrong.append(("amount.currency", "bad_content", ("USD", "cny", "", 1, ["CNY"])))
    wrong.append(("amount", "bad_content", (..., None, 510, "510", [], {})))
    for path, code, values in wrong:
        for value in values:
            yield signed_case(f"{path} {value}", envelope(replace_field(content, path, value), event), code)
    for plaintext in (b"", b"null", b"[]", b"\xff\xfe", b"{", msgspec.json.encode(content)[:-1], b'"x"'):
        yield signed_case(f"the content {plaintext!r}", envelope(plaintext, event), "bad_content")


OTHER_YEARS = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00")


def wrong_words() -> Iterator[InvalidWebhookCase]:
    for status_word in (..., None, "", "success", "NOTPAY", "CLOSED", "REFUND", "USERPAYING", "PAYERROR", "PAID", 1):
        content = replace_field(TRADE, "trade_state", status_word)
        yield signed_case(f"trade_state {status_word}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for status_word in (..., None, "", "success", "PROCESSING", "ABNORMAL", "CLOSED", "DONE", 1):
        content = replace_field(REFUND, "refund_status", status_word)
        yield signed_case(f"refund_status {status_word}", envelope(content, "REFUND.SUCCESS"), "bad_content")
    for status_word in ("ABNORMAL", "CLOSED"):
        yield signed_case(
            f"a refund that is not {status_word}", envelope(REFUND, f"REFUND.{status_word}"), "bad_content"
        )
    no_moments = (..., None, "", 1, "yesterday", "2026-11-22T10:34:56", "2026-13-22T10:34:56+08:00", 1_700_000_000)
    for value in no_moments + OTHER_YEARS:
        content = replace_field(TRADE, "success_time", value)
        yield signed_case(f"success_time {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for value in (..., None, "", 1):
        content = replace_field(TRADE, "transaction_id", value)
        yield signed_case(f"transaction_id {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    for value in (..., None):
        content = replace_field(TRADE, "amount.currency", value)
        yield signed_case(f"currency {value}", envelope(content, "TRANSACTION.SUCCESS"), "bad_content")
    yield signed_case("a refund as a payment", envelope(REFUND, "TRANSACTION.SUCCESS"), "bad_content")
    yield signed_case("a payment as a refund", envelope(TRADE, "REFUND.SUCCESS"), "bad_content")


def all_wrong() -> Iterator[InvalidWebhookCase]:
    for whole_envelope in (PAYMENT_ENVELOPE, REFUND_ENVELOPE):
        yield from wrong_headers(whole_envelope)
        yield from wrong_bodies(whole_envelope)
        yield from wrong_envelopes(whole_envelope)
    yield from wrong_contents(TRADE, "TRANSACTION.SUCCESS", ("amount.total",))
    yield from wrong_contents(REFUND, "REFUND.SUCCESS", ("amount.total", "amount.refund"))
    yield from wrong_words()


def test_genuine_webhook_is_read() -> None:
    body = msgspec.json.encode(PAYMENT_ENVELOPE)
    for seconds in (-299, 0, 299):
        webhook = create_adapter().read_webhook(signature_headers(body, NOW), body, NOW + timedelta(seconds=seconds))
    assert webhook.webhook_id == PAYMENT_ENVELOPE["id"]
    at = datetime.fromisoformat(TRADE["success_time"])
    assert webhook.subject == ProviderPayment(PAYMENT_ID, "captured", Money(510, "CNY"), TRADE["transaction_id"], at)
    for status_word, state in {"SUCCESS": "done", "ABNORMAL": "failed", "CLOSED": "failed"}.items():
        body = msgspec.json.encode(envelope(REFUND | {"refund_status": status_word}, f"REFUND.{status_word}"))
        refund = create_adapter().read_webhook(signature_headers(body, NOW), body, NOW).subject
        assert isinstance(refund, ProviderRefund)
        assert (refund.payment_id, refund.refund_id, refund.state) == (PAYMENT_ID, REFUND_ID, state)
        assert refund.amount == Money(200, "CNY")
        assert (status_word in refund.reason) == (state == "failed")


def test_changed_webhook_is_refused_with_its_code() -> None:
    adapter, counts, wrong = create_adapter(), Counter[str](), []
    for case in all_wrong():
        outcome = "accepted"
        try:
            adapter.read_webhook(case.headers, case.body, case.now)
        except InvalidWebhook as refusal:
            outcome = refusal.code
        counts[case.code] += 1
        if outcome != case.code:
            wrong.append(f"{case.change}: {outcome} instead of {case.code}")
    assert wrong == []
    assert counts.total() >= 600, counts
    assert set(counts) == set(InvalidWebhook.CODES)
    assert min(counts.values()) >= 15


async def test_webhook_of_sandbox_is_read_or_refused() -> None:
    async with open_wechatpay_kit() as kit:
        request = payment_request("jsapi")
        await kit.adapter.create(request)
        trade = kit.pay(request.payment_id)
        await kit.adapter.refund(requested := refund_request(request, 200))
        refund = kit.refunds[0]
        genuine = kit.webhook(trade, refund)
        webhook = kit.adapter.read_webhook(lower_names(genuine.headers), genuine.body, kit.clock.now)
        assert webhook.subject == await kit.adapter.query_refund(requested)
        wrong = kit.webhook(trade, refund, wrong="amount")
        other = kit.adapter.read_webhook(lower_names(wrong.headers), wrong.body, kit.clock.now)
        assert other.subject.amount == Money(201, "CNY")
        for subject in (None, refund):
            forged = kit.webhook(trade, subject, wrong="signature")
            with pytest.raises(InvalidWebhook, match="bad_signature"):
                kit.adapter.read_webhook(lower_names(forged.headers), forged.body, kit.clock.now)
        again = kit.webhook(trade)
        assert again.headers["Wechatpay-Nonce"] != kit.webhook(trade).headers["Wechatpay-Nonce"]

        fresh = WeChatPay(with_public_key(kit.url), kit.transport, kit.clock)
        with pytest.raises(InvalidWebhook, match="unknown_key"):
            fresh.read_webhook(lower_names(genuine.headers), genuine.body, kit.clock.now)
        await fresh.refresh()
        assert fresh.read_webhook(lower_names(genuine.headers), genuine.body, kit.clock.now) == webhook
        late = kit.clock.now + timedelta(days=366)  # after the certificate has expired
        stamped = signature_headers(genuine.body, late, serial=genuine.headers["Wechatpay-Serial"])
        with pytest.raises(InvalidWebhook, match="unknown_key"):
            fresh.read_webhook(stamped, genuine.body, late)
    assert PUBLIC_KEY_ID not in genuine.headers.values()
