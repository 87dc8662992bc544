"""Request bodies and error responses of WeChat Pay's API v3."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from commerce.kernel.money import MAX_MINOR

_Fen = Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)]
_OutNo = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-*]{6,32}\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
T = TypeVar("T")


class _Amount(msgspec.Struct):
    total: _Fen
    currency: str = "CNY"


class _Payer(msgspec.Struct):
    openid: _Text


class _H5Info(msgspec.Struct):
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]


class _SceneInfo(msgspec.Struct):
    payer_client_ip: Annotated[str, msgspec.Meta(min_length=2, max_length=45)]
    h5_info: _H5Info | None = None


class OrderBody(msgspec.Struct):
    """The body of a request for an order, in each flow."""

    appid: str
    mchid: str
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=127)]
    out_trade_no: _OutNo
    notify_url: _Text
    amount: _Amount
    time_expire: datetime | None = None
    payer: _Payer | None = None
    scene_info: _SceneInfo | None = None


class _RefundAmount(msgspec.Struct):
    refund: _Fen
    total: _Fen
    currency: str


class RefundBody(msgspec.Struct):
    """The body of a request for a refund."""

    out_trade_no: _OutNo
    out_refund_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}\Z")]
    amount: _RefundAmount
    reason: Annotated[str, msgspec.Meta(max_length=80)] = ""


class RedirectBody(msgspec.Struct):
    """The body of a request to send an abnormal refund to another bank account; two fields are encrypted."""

    out_refund_no: str
    type: Literal["USER_BANK_CARD", "MERCHANT_BANK_CARD"]
    issuer: Annotated[str, msgspec.Meta(max_length=16)] = msgspec.field(default="", name="bank_type")
    account: Annotated[str, msgspec.Meta(max_length=1024)] = msgspec.field(default="", name="bank_account")
    name: Annotated[str, msgspec.Meta(max_length=1024)] = msgspec.field(default="", name="real_name")


class CloseBody(msgspec.Struct):
    """The body of a request to close an order."""

    mchid: str


class WeChatPayError(Exception):
    """A response with an error code."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


def decode_body(body: bytes, kind: type[T]) -> T:
    """Decode a request body. Raises `WeChatPayError` (PARAM_ERROR) if it is not valid."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WeChatPayError(400, "PARAM_ERROR", str(error)) from None
