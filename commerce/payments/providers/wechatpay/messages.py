"""The JSON that WeChat Pay sends, as far as it is read.

Amounts are fen. Fields that are not named here are ignored. Decoding is strict: `true`, `1.0` and `"1"` are no amounts.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from commerce.kernel.money import MAX_MINOR

_Fen = Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)]


class Encrypted(msgspec.Struct, frozen=True):
    algorithm: str
    ciphertext: str
    nonce: str
    associated_data: str = ""


class WeChatEnvelope(msgspec.Struct, frozen=True):
    """A webhook; its content is encrypted in `resource`."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]
    event_type: str
    resource_type: str
    resource: Encrypted


class TradeAmount(msgspec.Struct, frozen=True):
    total: _Fen
    currency: str | None = None


class WeChatTrade(msgspec.Struct, frozen=True):
    """A payment in a webhook or in the response to a query. Before it is paid there may be no amount."""

    mchid: str
    out_trade_no: str
    trade_state: str
    appid: str | None = None
    transaction_id: Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[!-~]*\Z")] | None = None
    success_time: str | None = None
    amount: TradeAmount | None = None


class RefundAmount(msgspec.Struct, frozen=True):
    refund: _Fen
    total: _Fen
    currency: str | None = None


_Number = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]


class WeChatRefundWebhook(msgspec.Struct, frozen=True):
    """A refund in a webhook, which has no appid."""

    mchid: str
    out_trade_no: str
    out_refund_no: str
    refund_status: str
    amount: RefundAmount
    refund_id: _Number | None = None


class WeChatRefund(msgspec.Struct, frozen=True):
    """A refund in the response to a request or a query."""

    out_trade_no: str
    out_refund_no: str
    status: str
    amount: RefundAmount
    refund_id: _Number | None = None


class CertificateItem(msgspec.Struct, frozen=True):
    serial_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{1,64}\Z")]
    encrypt_certificate: Encrypted


class Certificates(msgspec.Struct, frozen=True):
    data: list[CertificateItem]


class NativeCode(msgspec.Struct, frozen=True):
    code_url: Annotated[str, msgspec.Meta(min_length=1)]


class H5Page(msgspec.Struct, frozen=True):
    h5_url: Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]+\Z")]


class Prepaid(msgspec.Struct, frozen=True):
    prepay_id: Annotated[str, msgspec.Meta(min_length=1)]


class Failure(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
