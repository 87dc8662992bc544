"""The sandbox's WeChat Pay: API v3 as far as a shop uses it, with real signatures and encryption.

Paths, bodies, error codes and status codes are those of https://pay.weixin.qq.com/doc/v3/merchant/4012525171 (orders),
…/4012556352 (queries), …/4012556398 (closing), …/4012552567 (refunds) and, for certificates,
https://pay.weixin.qq.com/wiki/doc/apiv3_partner/wechatpay/wechatpay5_1.shtml.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, load_pem_public_key
from cryptography.x509.oid import NameOID

from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.money import MAX_MINOR
from commerce.payments.providers.wechatpay.wire import (
    CIPHER,
    MAX_CLOCK_DIFFERENCE_S,
    SCHEME,
    is_signed,
    sign,
    signing_text,
)
from ops.sandbox.payment_store import DueNotice, PaymentStore, PaymentStoreRefusal, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import Callback
from ops.sandbox.wechatpay_bill import TYPES, write_bill

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_LIFE_MS = 2 * 3_600_000
_WORDS = {"waiting": "NOTPAY", "captured": "SUCCESS", "closed": "CLOSED"}
_REFUSALS = {
    "paid": (400, "ORDERPAID"),
    "closed": (400, "ORDER_CLOSED"),
    "other_content": (403, "OUT_TRADE_NO_USED"),
    "not_paid": (400, "INVALID_REQUEST"),
    "over_refunded": (400, "INVALID_REQUEST"),
}

_Fen = Annotated[int, msgspec.Meta(ge=1, le=MAX_MINOR)]
_OutNo = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-*]{6,32}\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
T = TypeVar("T")
_Handler = Callable[[web.Request, bytes], Awaitable[tuple[int, Any]]]


class _Amount(msgspec.Struct):
    total: _Fen
    currency: str = "CNY"


class _Payer(msgspec.Struct):
    openid: _Text


class _Order(msgspec.Struct):
    appid: str
    mchid: str
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=127)]
    out_trade_no: _OutNo
    notify_url: _Text
    amount: _Amount
    time_expire: datetime | None = None
    payer: _Payer | None = None


class _RefundAmount(msgspec.Struct):
    refund: _Fen
    total: _Fen
    currency: str


class _Asked(msgspec.Struct):
    out_trade_no: _OutNo
    out_refund_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}\Z")]
    amount: _RefundAmount
    reason: Annotated[str, msgspec.Meta(max_length=80)] = ""


class _Close(msgspec.Struct):
    mchid: str


class _No(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class WeChatPaySandbox:
    """See `ops.sandbox.protocol.SandboxProtocol`. Keys and the certificate are PEM text."""

    name = "wechatpay"

    def __init__(
        self,
        *,
        bank: PaymentStore,
        clock: Clock,
        app_id: str,
        mch_id: str,
        api_v3_key: str,
        platform_private_key: str,
        platform_certificate: str,
        merchant_serial: str,
        merchant_public_key: str,
        on_trade: Callable[[SimulatedTrade], None],
        on_refund: Callable[[SimulatedTrade, SimulatedRefund], None],
        public_url: str,
    ) -> None:
        private = load_pem_private_key(platform_private_key.encode(), None)
        public = load_pem_public_key(merchant_public_key.encode())
        assert isinstance(private, RSAPrivateKey)
        assert isinstance(public, RSAPublicKey)
        self._private, self._merchant = private, public
        self._certificate = x509.load_pem_x509_certificate(platform_certificate.encode())
        self._serial = f"{self._certificate.serial_number:X}"
        self._merchant_serial = merchant_serial.upper()
        self._bank, self._clock = bank, clock
        self._app_id, self._mch_id, self._api_v3_key = app_id, mch_id, api_v3_key.encode()
        self._on_trade, self._on_refund = on_trade, on_refund
        self._public_url = public_url.rstrip("/")

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        orders, refunds = "/v3/pay/transactions", "/v3/refund/domestic/refunds"
        return [
            web.post(f"{orders}/native", self._signed(self._native)),
            web.post(f"{orders}/jsapi", self._signed(self._jsapi)),
            web.get(f"{orders}/out-trade-no/{{out_no}}", self._signed(self._query)),
            web.post(f"{orders}/out-trade-no/{{out_no}}/close", self._signed(self._close)),
            web.post(refunds, self._signed(self._refund)),
            web.get(f"{refunds}/{{out_refund_no}}", self._signed(self._query_refund)),
            web.get("/v3/certificates", self._signed(self._certificates)),
        ]

    def callback(self, notice: DueNotice, trade: SimulatedTrade, refund: SimulatedRefund | None) -> Callback:
        """A new nonce and time at each attempt, under the same id."""
        more = 1 if notice.wrong == "amount" else 0
        if refund is None:
            event, kind, content = "TRANSACTION.SUCCESS", "transaction", self._trade(trade, "SUCCESS", more)
        else:
            event, kind, content = "REFUND.SUCCESS", "refund", self._refund_notice(trade, refund, more)
        body = msgspec.json.encode(
            {
                "id": notice.notice_id,
                "create_time": _time(self._clock.now_ms()),
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": "支付成功" if refund is None else "退款成功",
                "resource": {"original_type": kind, **self._encrypted(msgspec.json.encode(content), kind)},
            }
        )
        return Callback({**self._signature(body if notice.wrong != "signature" else body + b" "), **_JSON}, body)

    def is_accepted(self, status: int, body: bytes) -> bool:
        return status in (200, 204)

    def statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        moves: list[tuple[SimulatedTrade, SimulatedRefund | None]] = [(trade, None) for trade in trades]
        for refund in refunds:
            trade = self._bank.trade(self.name, refund.out_no)
            assert trade is not None, "a refund is of a trade in the books"
            moves.append((trade, refund))
        return write_bill(moves, self._app_id, self._mch_id)

    # Requests.

    async def _native(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        trade = self._enter(_read(body, _Order), "qr")
        # No telephone opens the code of a sandbox, so its own page for paying is told as well.
        page = f"{self._public_url}/pay/{self.name}/{trade.out_no}"
        return 200, {"code_url": f"weixin://wxpay/bizpayurl?pr={trade.out_no}", "sandbox_page": page}

    async def _jsapi(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        order = _read(body, _Order)
        if order.payer is None:
            raise _No(400, "PARAM_ERROR", "payer.openid is missing")
        return 200, {"prepay_id": f"wx{self._enter(order, 'jsapi').out_no}"}

    def _enter(self, order: _Order, scene: str) -> SimulatedTrade:
        if (order.appid, order.mchid) != (self._app_id, self._mch_id):
            raise _No(400, "APPID_MCHID_NOT_MATCH", "appid and mchid do not belong together")
        now_ms = self._clock.now_ms()
        if order.time_expire is not None and order.time_expire.tzinfo is None:
            raise _No(400, "PARAM_ERROR", "time_expire has no zone")
        expires_ms = now_ms + _LIFE_MS if order.time_expire is None else to_ms(order.time_expire)
        if order.amount.currency != "CNY" or expires_ms <= now_ms:
            raise _No(400, "PARAM_ERROR", "the currency is not CNY, or time_expire is over")
        is_new = self._bank.trade(self.name, order.out_trade_no) is None
        trade = self._bank.open_trade(
            SimulatedTrade(
                provider=self.name,
                out_no=order.out_trade_no,
                trade_no=f"4200{secrets.randbelow(10**24):024}",
                amount=order.amount.total,
                currency="CNY",
                subject=order.description,
                scene=scene,
                payer=order.payer.openid if order.payer else "",
                notify_url=order.notify_url,
                state="waiting",
                created_ms=now_ms,
                expires_ms=expires_ms,
            )
        )
        if is_new:
            self._on_trade(trade)
        return trade

    async def _query(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        self._own(request.query.get("mchid"))
        trade = self._known(request)
        refunded = trade.state == "captured" and self._bank.refunded(self.name, trade.out_no)
        return 200, self._trade(trade, "REFUND" if refunded else _WORDS[trade.state], 0)

    async def _close(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        self._own(_read(body, _Close).mchid)
        trade = self._known(request)
        if trade.state == "closed":
            raise _No(400, "ORDER_CLOSED", "the order is closed")
        self._bank.close_trade(self.name, trade.out_no)
        return 204, None

    async def _refund(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        asked = _read(body, _Asked)
        trade = self._bank.trade(self.name, asked.out_trade_no)
        if trade is None:
            raise _No(404, "RESOURCE_NOT_EXISTS", "there is no such order")
        if (asked.amount.total, asked.amount.currency) != (trade.amount, "CNY"):
            raise _No(400, "PARAM_ERROR", "amount.total is not the order's")
        is_new = self._bank.refund_of(self.name, asked.out_refund_no) is None
        refund = self._bank.refund(
            SimulatedRefund(
                provider=self.name,
                out_refund_no=asked.out_refund_no,
                out_no=asked.out_trade_no,
                refund_no=f"5030{secrets.randbelow(10**24):024}",
                amount=asked.amount.refund,
                reason=asked.reason,
                at_ms=self._clock.now_ms(),
            )
        )
        if is_new:
            self._on_refund(trade, refund)
        return 200, self._refund_answer(trade, refund, "PROCESSING" if is_new else "SUCCESS")

    async def _query_refund(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        refund = self._bank.refund_of(self.name, request.match_info["out_refund_no"])
        trade = self._bank.trade(self.name, refund.out_no) if refund else None
        if refund is None or trade is None:
            raise _No(404, "RESOURCE_NOT_EXISTS", "there is no such refund")
        return 200, self._refund_answer(trade, refund, "SUCCESS")

    async def _certificates(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        certificate = self._certificate
        item = {
            "serial_no": self._serial,
            "effective_time": certificate.not_valid_before_utc.astimezone(CHINA).isoformat(),
            "expire_time": certificate.not_valid_after_utc.astimezone(CHINA).isoformat(),
            "encrypt_certificate": self._encrypted(certificate.public_bytes(Encoding.PEM), "certificate"),
        }
        return 200, {"data": [item]}

    # Who asks, and in what form it is answered.

    def _signed(self, handler: _Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            try:
                self._check(request, body)
                status, content = await handler(request, body)
            except _No as no:
                status, content = no.status, {"code": no.code, "message": str(no)}
            except PaymentStoreRefusal as no:
                status, code = _REFUSALS[no.code]
                content = {"code": code, "message": str(no)}
            raw = b"" if content is None else msgspec.json.encode(content)
            return web.Response(status=status, body=raw, headers={**self._signature(raw), **_JSON})

        return answer

    def _check(self, request: web.Request, body: bytes) -> None:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        said = dict(re.findall(r'([a-z_]+)="([^"]*)"', rest))
        names = ("mchid", "serial_no", "timestamp", "nonce_str", "signature")
        mch_id, serial, timestamp, nonce, signature = (said.get(name, "") for name in names)
        if scheme != SCHEME or (mch_id, serial.upper()) != (self._mch_id, self._merchant_serial) or not nonce:
            raise _No(401, "SIGN_ERROR", "the Authorization header is not this merchant's")
        seconds = int(timestamp) if re.fullmatch(r"[0-9]{1,12}", timestamp) else 0
        if abs(self._clock.now_ms() / 1_000 - seconds) > MAX_CLOCK_DIFFERENCE_S:
            raise _No(401, "SIGN_ERROR", "the timestamp is too far from now")
        path = request.raw_path[request.raw_path.index("/v3/") :]  # as the merchant signed it, without our prefix
        if not is_signed(self._merchant, signing_text(request.method, path, timestamp, nonce, body), signature):
            raise _No(401, "SIGN_ERROR", "the signature is wrong")

    def _own(self, mch_id: str | None) -> None:
        if mch_id != self._mch_id:
            raise _No(400, "PARAM_ERROR", "mchid is not the merchant who asks")

    def _known(self, request: web.Request) -> SimulatedTrade:
        trade = self._bank.trade(self.name, request.match_info["out_no"])
        if trade is None:
            raise _No(404, "ORDER_NOT_EXIST", "there is no such order")
        return trade

    def _signature(self, body: bytes) -> dict[str, str]:
        timestamp, nonce = str(self._clock.now_ms() // 1_000), secrets.token_hex(16)
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": sign(self._private, signing_text(timestamp, nonce, body)),
            "Wechatpay-Signature-Type": SCHEME,
            "Wechatpay-Serial": self._serial,
        }

    def _encrypted(self, clear: bytes, about: str) -> dict[str, str]:
        nonce = secrets.token_hex(6)  # twelve characters, which are the twelve bytes that AES-GCM wants
        secret = AESGCM(self._api_v3_key).encrypt(nonce.encode(), clear, about.encode())
        return {
            "algorithm": CIPHER,
            "nonce": nonce,
            "associated_data": about,
            "ciphertext": b64encode(secret).decode(),
        }

    # What is told about trades and refunds.

    def _trade(self, trade: SimulatedTrade, word: str, more: int) -> dict[str, Any]:
        seen: dict[str, Any] = {
            "appid": self._app_id,
            "mchid": self._mch_id,
            "out_trade_no": trade.out_no,
            "trade_state": word,
            "trade_state_desc": word,
            "amount": {"total": trade.amount + more, "currency": trade.currency},
        }
        if trade.paid_ms is not None:
            seen["transaction_id"] = trade.trade_no
            seen["trade_type"] = TYPES[trade.scene]
            seen["bank_type"] = "OTHERS"
            seen["success_time"] = _time(trade.paid_ms)
            seen["payer"] = {"openid": trade.payer or "sandbox-customer"}
            seen["amount"] |= {"payer_total": trade.amount + more, "payer_currency": trade.currency}
        return seen

    def _about(self, trade: SimulatedTrade, refund: SimulatedRefund) -> dict[str, Any]:
        return {
            "refund_id": refund.refund_no,
            "out_refund_no": refund.out_refund_no,
            "transaction_id": trade.trade_no,
            "out_trade_no": trade.out_no,
            "success_time": _time(refund.at_ms),
            "user_received_account": "支付用户零钱",
        }

    def _refund_answer(self, trade: SimulatedTrade, refund: SimulatedRefund, word: str) -> dict[str, Any]:
        amount = {"total": trade.amount, "refund": refund.amount, "currency": "CNY"}
        times = {"create_time": _time(refund.at_ms), "channel": "ORIGINAL"}
        return {**self._about(trade, refund), **times, "status": word, "amount": amount}

    def _refund_notice(self, trade: SimulatedTrade, refund: SimulatedRefund, more: int) -> dict[str, Any]:
        total, back = trade.amount, refund.amount + more
        amount = {"total": total, "refund": back, "payer_total": total, "payer_refund": back}
        return {"mchid": self._mch_id, **self._about(trade, refund), "refund_status": "SUCCESS", "amount": amount}


def make_certificate(key: RSAPrivateKey, not_before: datetime, not_after: datetime) -> str:
    """A platform certificate as PEM text, signed by its own key, with a new serial number."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Payment sandbox, no real platform")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), not_before, not_after)
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as why:
        raise _No(400, "PARAM_ERROR", str(why)) from None


def _time(ms: int) -> str:
    return from_ms(ms).astimezone(CHINA).isoformat(timespec="seconds")
