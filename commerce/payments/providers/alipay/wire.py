"""Alipay's protocol: RSA2 signatures, and the form of requests, answers, callbacks and statements.

Sources: https://opendocs.alipay.com/common/02kf5q (signing), https://opendocs.alipay.com/common/02mse7 (verifying
answers and callbacks), https://opendocs.alipay.com/open/203/105286 (callbacks), https://opendocs.alipay.com/open/028woa
(statements).
"""

from __future__ import annotations

import base64
import binascii
import csv
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
from commerce.kernel.ids import parse_uuid_hex
from commerce.kernel.money import Money
from commerce.payments.provider_port import StatementLine

CURRENCY = "CNY"
MAX_NOTICE_BYTES = 65_536
"""A callback is one or two kilobytes; what is longer than this is not even parsed."""
MAX_NOTICE_FIELDS = 100

_YUAN = re.compile(r"(?:0|[1-9][0-9]{0,12})\.[0-9]{2}")
"""Alipay always writes two decimals. Thirteen digits before them stay below `commerce.kernel.money.MAX_MINOR`."""


# Numbers and amounts.


def yuan(fen: int) -> str:
    """255 gives `"2.55"`; not for negative amounts."""
    return f"{fen // 100}.{fen % 100:02d}"


def fen(text: object) -> int:
    """`"2.55"` gives 255, without a float on the way. Raises `ValueError` for anything but yuan with two decimals."""
    if not isinstance(text, str) or not _YUAN.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is not an amount like 2.55")
    return int(text.replace(".", ""))


def our_number(text: object) -> UUID:
    """The id behind `out_trade_no` or `out_request_no`, which are `UUID.hex`. Raises `ValueError` for any other."""
    number = parse_uuid_hex(text)
    if number is None:
        raise ValueError(f"{str(text)[:40]!r} is not a number of ours")
    return number


# Signatures.


def signing_text(parameters: Mapping[str, str], *, without: tuple[str, ...]) -> bytes:
    """What is signed of parameters: sorted by name, joined, neither quoted nor escaped.

    Requests go without `sign`, callbacks without `sign` and `sign_type`.
    """
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters) if name not in without).encode()


def sign(content: bytes, key: RSAPrivateKey) -> str:
    """RSA2: SHA-256 with RSA, padded by PKCS #1 v1.5, in base64."""
    return base64.b64encode(key.sign(content, PKCS1v15(), SHA256())).decode()


def is_signed(content: bytes, signature: object, key: RSAPublicKey) -> bool:
    """Whether `signature` is the RSA2 signature of exactly this, in its one form of base64."""
    if not isinstance(signature, str):
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode() != signature:  # the last digit has bits that do not count
            return False
        key.verify(raw, content, PKCS1v15(), SHA256())
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


# Requests and answers.


def signed(parameters: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """A request's parameters with their signature. None may be empty: empty ones are not signed."""
    return {**parameters, "sign": sign(signing_text(parameters, without=("sign",)), key)}


def read_answer(body: bytes, method: str, key: RSAPublicKey) -> dict[str, Any]:
    """The content of an answer: `{"<method>_response": {…}, "sign": "…"}`, in UTF-8 as requests ask for.

    The signature is over the text between those braces as it came, escapes and all. Raises `Unclear` for an answer that
    cannot be believed: also for an error that is not signed, as Alipay answers an unknown app_id.
    """
    try:
        parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        raw = bytes(parts.get(method.replace(".", "_") + "_response") or parts["error_response"])
        content = msgspec.json.decode(raw, type=dict[str, Any])
        signature = msgspec.json.decode(parts["sign"], type=str) if "sign" in parts else None
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, RecursionError):
        raise ExternalOutcomeUnknown(f"{method}: this is no answer of Alipay's: {body[:200]!r}") from None
    if not is_signed(raw, signature, key):
        said = f"{content.get('code')} {content.get('sub_code')} {content.get('sub_msg')}"
        raise ExternalOutcomeUnknown(f"{method}: the answer is not signed with Alipay's key; it says {said[:200]!r}")
    return content


# Callbacks.


def read_form(body: bytes, key: RSAPublicKey) -> dict[str, str]:
    """The fields of a callback whose signature is right. Raises `BadNotice`: malformed or bad_signature."""
    fields = form_decoding.decode_signed_form(
        body, max_bytes=MAX_NOTICE_BYTES, max_fields=MAX_NOTICE_FIELDS, required=("sign", "sign_type")
    )
    # sign_type is not signed; whatever it names, nothing weaker than RSA2 is ever accepted.
    content = signing_text(fields, without=("sign", "sign_type"))
    if fields["sign_type"] != "RSA2" or not is_signed(content, fields["sign"], key):
        raise InvalidWebhook("bad_signature", "not signed by Alipay with RSA2")
    return fields


# The daily statement.

TRADE_NO, OUT_TRADE_NO, KIND = "支付宝交易号", "商户订单号", "业务类型"
AMOUNT, REQUEST_NO = "订单金额（元）", "退款批次号/请求号"
PAYMENT, REFUND = "交易", "退款"
END = "业务明细列表结束"
_NEEDED = (TRADE_NO, OUT_TRADE_NO, KIND, AMOUNT, REQUEST_NO)


def read_statement(text: str) -> Iterator[StatementLine | str]:
    """The lines of a 业务明细 file (GB18030 in Alipay's archive; decoded by whoever fetches it).

    Lines with a leading # are remarks, the first other one has the headings; cells are padded with tabs. A text stands
    for a line that cannot be read, and for an end that is missing.
    """
    headings: list[str] = []
    number, ended = 0, False
    for number, padded in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = padded.strip()
        if not line or line.startswith("#"):
            ended = ended or END in line
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if not headings:
                headings = cells
                if missing := [name for name in _NEEDED if name not in cells]:
                    yield f"line {number}: no column {', '.join(missing)}, so nothing below can be read"
                    return
                continue
            yield _statement_line(headings, cells)
        except (ValueError, csv.Error) as reason:
            yield f"line {number}: {reason}"
    if not ended:
        yield f"line {number}: the statement breaks off, {END} is missing"


def _statement_line(headings: list[str], cells: list[str]) -> StatementLine:
    if len(cells) != len(headings):
        raise ValueError(f"{len(cells)} cells under {len(headings)} headings")
    row = dict(zip(headings, cells, strict=True))
    kind, amount, refund_id = row[KIND], row[AMOUNT], None
    if kind == REFUND:  # written as a negative amount
        if not amount.startswith("-"):
            raise ValueError(f"{amount[:40]!r} is not the amount of a refund like -2.55")
        amount, refund_id = amount[1:], our_number(row[REQUEST_NO])
    elif kind != PAYMENT:
        raise ValueError(f"{KIND} {kind[:40]!r} is neither {PAYMENT} nor {REFUND}")
    if not row[TRADE_NO]:
        raise ValueError(f"without {TRADE_NO}")
    return StatementLine(our_number(row[OUT_TRADE_NO]), refund_id, Money(fen(amount), CURRENCY), row[TRADE_NO])
