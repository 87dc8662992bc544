"""Alipay's protocol: RSA2 signatures, and the form of requests, responses, webhooks and statements.

Sources: https://opendocs.alipay.com/common/02kf5q (signing), https://opendocs.alipay.com/common/02mse7 (verifying
responses and webhooks), https://opendocs.alipay.com/open/203/105286 (webhooks),
https://opendocs.alipay.com/open/028woa (statements).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from commerce.kernel import form_decoding
from commerce.kernel.external import ExternalOutcomeUnknown, InvalidWebhook
from commerce.kernel.external_text import repair_json
from commerce.kernel.ids import parse_uuid_hex
from commerce.kernel.money import Money
from commerce.payments.fund_lines import read_fee
from commerce.payments.provider_port import StatementLine
from commerce.payments.providers.alipay.statement_rows import read_rows
from commerce.payments.refund_numbers import read_refund_number

CURRENCY = "CNY"
MAX_WEBHOOK_BYTES = 65_536
"""a webhook has one or two kilobytes; a longer body than this is not parsed"""
MAX_WEBHOOK_FIELDS = 100

_YUAN = re.compile(r"(?:0|[1-9][0-9]{0,12})\.[0-9]{2}")
"""always with two decimals; thirteen digits before them stay below `money.MAX_MINOR`"""


# Numbers and amounts.


def format_yuan(fen: int) -> str:
    """Format fen as yuan: 255 as `"2.55"`. Not for negative amounts."""
    return f"{fen // 100}.{fen % 100:02d}"


def parse_yuan(text: object) -> int:
    """Parse yuan into fen: `"2.55"` into 255, without floats.

    Raises `ValueError` for any other form than yuan with two decimals."""
    if not isinstance(text, str) or not _YUAN.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is not an amount like 2.55")
    return int(text.replace(".", ""))


def parse_our_id(text: object) -> UUID:
    """Parse our id in `out_trade_no` or `out_request_no`. Raises `ValueError` for other numbers."""
    number = parse_uuid_hex(text)
    if number is None:
        raise ValueError(f"{str(text)[:40]!r} is not a number of ours")
    return number


# Signatures.


def signing_text(parameters: Mapping[str, str], *, excluded: tuple[str, ...]) -> bytes:
    """Return the bytes to sign: parameters sorted by name and joined, neither quoted nor escaped.

    Requests exclude `sign`, webhooks `sign` and `sign_type`."""
    text = "&".join(f"{name}={parameters[name]}" for name in sorted(parameters) if name not in excluded)
    return text.encode("utf-8", "surrogateescape")


def sign(content: bytes, key: RSAPrivateKey) -> str:
    """Sign with RSA2: SHA-256 with RSA, padded by PKCS #1 v1.5, in base64."""
    return base64.b64encode(key.sign(content, PKCS1v15(), SHA256())).decode()


def is_signed(content: bytes, signature: object, key: RSAPublicKey) -> bool:
    """Tell if `signature` is the RSA2 signature of the content, in its canonical base64 form."""
    if not isinstance(signature, str):
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode() != signature:  # the last digit has unused bits
            return False
        key.verify(raw, content, PKCS1v15(), SHA256())
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


# Requests and responses.


def with_signature(parameters: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """Return a request's parameters with their signature. None may be empty: empty ones are not signed."""
    return {**parameters, "sign": sign(signing_text(parameters, excluded=("sign",)), key)}


def read_response(body: bytes, method: str, key: RSAPublicKey) -> dict[str, Any]:
    """Verify a response `{"<method>_response": {…}, "sign": "…"}` in UTF-8 and return its content.

    The signature covers the text of the content as it was received, with its escapes. Raises `ExternalOutcomeUnknown`
    for a response that cannot be trusted, also for an unsigned error, which Alipay sends for an unknown app_id."""
    try:
        repaired = repair_json(body)
        parts = msgspec.json.decode(repaired, type=dict[str, msgspec.Raw])
        part = bytes(parts.get(method.replace(".", "_") + "_response") or parts["error_response"])
        start = repaired.index(part)
        raw = body[start : start + len(part)]
        content = msgspec.json.decode(part, type=dict[str, Any])
        signature = msgspec.json.decode(parts["sign"], type=str) if "sign" in parts else None
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, RecursionError):
        raise ExternalOutcomeUnknown(f"{method}: this is not a response of Alipay: {body[:200]!r}") from None
    if not is_signed(raw, signature, key):
        text = f"{content.get('code')} {content.get('sub_code')} {content.get('sub_msg')}"
        raise ExternalOutcomeUnknown(f"{method}: the response is not signed with Alipay's key: {text[:200]!r}")
    return content


# Webhooks.


def read_webhook_form(body: bytes, key: RSAPublicKey) -> dict[str, str]:
    """Verify a webhook's signature and return its fields.

    Raises `InvalidWebhook` (malformed, bad_signature)."""
    fields = form_decoding.decode_signed_form(
        body, max_bytes=MAX_WEBHOOK_BYTES, max_fields=MAX_WEBHOOK_FIELDS, required=("sign", "sign_type")
    )
    # sign_type is not signed; nothing weaker than RSA2 is accepted.
    content = signing_text(fields, excluded=("sign", "sign_type"))
    if fields["sign_type"] != "RSA2" or not is_signed(content, fields["sign"], key):
        raise InvalidWebhook("bad_signature", "it is not signed by Alipay with RSA2")
    return fields


# The daily statement.

TRADE_NO, OUT_TRADE_NO, KIND = "支付宝交易号", "商户订单号", "业务类型"
AMOUNT, REQUEST_NO, FEE = "订单金额（元）", "退款批次号/请求号", "服务费（元）"
PAYMENT, REFUND = "交易", "退款"
END = "业务明细列表结束"
_REQUIRED = (TRADE_NO, OUT_TRADE_NO, KIND, AMOUNT, REQUEST_NO)


def read_statement(text: str) -> Iterator[StatementLine | str]:
    """Return the lines of a 业务明细 file (GB18030 in Alipay's archive; decoded by the caller).

    A text stands for a line that cannot be read, and for a missing end."""
    return read_rows(text, _REQUIRED, END, _statement_line)


def _statement_line(row: Mapping[str, str]) -> StatementLine:
    kind, amount, refund_id, hand_number = row[KIND], row[AMOUNT], None, None
    payment_id = parse_our_id(row[OUT_TRADE_NO])
    if kind == REFUND:  # written as a negative amount
        if not amount.startswith("-"):
            raise ValueError(f"{amount[:40]!r} is not the amount of a refund like -2.55")
        amount = amount[1:]
        refund_id, hand_number = read_refund_number(payment_id, row[REQUEST_NO])
    elif kind != PAYMENT:
        raise ValueError(f"{KIND} {kind[:40]!r} is neither {PAYMENT} nor {REFUND}")
    if not row[TRADE_NO]:
        raise ValueError(f"there is no {TRADE_NO}")
    fee = read_fee(row.get(FEE, ""), is_refund=refund_id is not None)
    money = Money(parse_yuan(amount), CURRENCY)
    return StatementLine(payment_id, refund_id, money, row[TRADE_NO], fee, hand_number)
