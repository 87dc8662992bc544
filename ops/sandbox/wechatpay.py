"""WeChat Pay's side of API v3 for one merchant, with real signatures and encryption.

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
from typing import Any

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
from commerce.payments.providers.wechatpay.wire import (
    CIPHER,
    MAX_CLOCK_DIFFERENCE_S,
    SCHEME,
    is_signed,
    sign,
    signing_text,
)
from ops.sandbox.payment_store import (
    DuePaymentWebhook,
    PaymentStore,
    PaymentStoreRefusal,
    SimulatedRefund,
    SimulatedTrade,
)
from ops.sandbox.protocol import SignedWebhook
from ops.sandbox.wechatpay_bill import TYPES, write_bill
from ops.sandbox.wechatpay_refunds import REFUND_STATES, DecideRefund, WeChatPayRefunds
from ops.sandbox.wechatpay_requests import CloseBody, OrderBody, WeChatPayError, decode_body

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_MIN_LIFE_MS, _DEFAULT_LIFE_MS, _MAX_LIFE_MS = 60_000, 2 * 3_600_000, 7 * 86_400_000
_CODE_LIFE_MS, _H5_LIFE_MS = 2 * 3_600_000, 5 * 60_000
_MAX_DESCRIPTION_BYTES = 127
_TRADE_STATES = {"waiting": "NOTPAY", "captured": "SUCCESS", "closed": "CLOSED"}
_REFUSALS = {
    "paid": (400, "ORDERPAID"),
    "closed": (400, "ORDER_CLOSED"),
    "code_expired": (400, "ORDER_CLOSED"),
    "other_content": (403, "OUT_TRADE_NO_USED"),
    "not_paid": (400, "INVALID_REQUEST"),
    "over_refunded": (400, "INVALID_REQUEST"),
    "no_balance": (403, "NOT_ENOUGH"),
    "account_closed": (403, "USER_ACCOUNT_ABNORMAL"),
    "too_often": (429, "FREQUENCY_LIMITED"),
    "system_error": (500, "SYSTEM_ERROR"),
}

_Handler = Callable[[web.Request, bytes], Awaitable[tuple[int, Any]]]


class WeChatPaySandbox:
    """The `ProviderProtocol` of WeChat Pay. Keys and the certificate are PEM text."""

    name = "wechatpay"

    def __init__(
        self,
        *,
        payment_store: PaymentStore,
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
        decide_refund: DecideRefund = lambda refund: refund,
    ) -> None:
        private = load_pem_private_key(platform_private_key.encode(), None)
        public = load_pem_public_key(merchant_public_key.encode())
        assert isinstance(private, RSAPrivateKey)
        assert isinstance(public, RSAPublicKey)
        self._private, self._merchant = private, public
        self._certificate = x509.load_pem_x509_certificate(platform_certificate.encode())
        self._serial = f"{self._certificate.serial_number:X}"
        self._merchant_serial = merchant_serial.upper()
        self._payment_store, self._clock = payment_store, clock
        self._app_id, self._mch_id, self._api_v3_key = app_id, mch_id, api_v3_key.encode()
        self._on_trade = on_trade
        self._refunds = WeChatPayRefunds(
            payment_store, clock, mch_id, private, self._serial, on_refund, decide_refund, _format_time
        )
        self._public_url = public_url.rstrip("/")

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        orders, refunds = "/v3/pay/transactions", "/v3/refund/domestic/refunds"
        return [
            web.post(f"{orders}/native", self._with_signatures(self._native)),
            web.post(f"{orders}/jsapi", self._with_signatures(self._jsapi)),
            web.post(f"{orders}/h5", self._with_signatures(self._h5)),
            web.post(f"{orders}/app", self._with_signatures(self._app)),
            web.get(f"{orders}/out-trade-no/{{out_no}}", self._with_signatures(self._query)),
            web.post(f"{orders}/out-trade-no/{{out_no}}/close", self._with_signatures(self._close)),
            web.post(refunds, self._with_signatures(self._refunds.refund)),
            web.get(f"{refunds}/{{out_refund_no}}", self._with_signatures(self._refunds.query)),
            web.post(f"{refunds}/{{refund_no}}/apply-abnormal-refund", self._with_signatures(self._refunds.redirect)),
            web.get("/v3/certificates", self._with_signatures(self._certificates)),
        ]

    def build_webhook(
        self, due_webhook: DuePaymentWebhook, trade: SimulatedTrade, refund: SimulatedRefund | None
    ) -> SignedWebhook:
        """Build an encrypted document. Nonce and time are new at every attempt, its id stays."""
        excess = 1 if due_webhook.defect == "amount" else 0
        if refund is None:
            event, kind, content = (
                "TRANSACTION.SUCCESS",
                "transaction",
                self._build_transaction(trade, "SUCCESS", excess),
            )
        else:
            event, kind = f"REFUND.{REFUND_STATES[refund.outcome]}", "refund"
            content = self._refunds.build_resource(trade, refund, excess)
        body = msgspec.json.encode(
            {
                "id": due_webhook.webhook_id,
                "create_time": _format_time(self._clock.now_ms()),
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": "支付成功" if refund is None else "退款成功",
                "resource": {"original_type": kind, **self._encrypt(msgspec.json.encode(content), kind)},
            }
        )
        return SignedWebhook(
            {**self._build_signature(body if due_webhook.defect != "signature" else body + b" "), **_JSON}, body
        )

    def is_accepted(self, status: int, body: bytes) -> bool:
        return status in (200, 204)

    def build_statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        movements: list[tuple[SimulatedTrade, SimulatedRefund | None]] = [(trade, None) for trade in trades]
        for refund in refunds:
            trade = self._payment_store.find_trade(self.name, refund.out_no)
            assert trade is not None, "a refund is of a stored trade"
            movements.append((trade, refund))
        return write_bill(movements, self._app_id, self._mch_id)

    # Requests.

    async def _native(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        trade = self._open_trade(decode_body(body, OrderBody), "qr")
        # No telephone opens the code of a sandbox, so the response also has the URL of its page.
        code = f"weixin://wxpay/bizpayurl?pr={trade.out_no}{trade.code_expires_ms:x}"
        return 200, {"code_url": code, "sandbox_page": self._page(trade)}

    async def _jsapi(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        order = decode_body(body, OrderBody)
        if order.payer is None:
            raise WeChatPayError(400, "PARAM_ERROR", "payer.openid is missing")
        return 200, {"prepay_id": _prepay_id(self._open_trade(order, "jsapi"))}

    async def _h5(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        order = decode_body(body, OrderBody)
        if order.scene_info is None or order.scene_info.h5_info is None:
            raise WeChatPayError(400, "PARAM_ERROR", "scene_info.h5_info is missing")
        trade = self._open_trade(order, "mobile_page")
        return 200, {"h5_url": f"{self._page(trade)}?prepay_id={_prepay_id(trade)}"}

    async def _app(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        return 200, {"prepay_id": _prepay_id(self._open_trade(decode_body(body, OrderBody), "app"))}

    def _page(self, trade: SimulatedTrade) -> str:
        return f"{self._public_url}/pay/{self.name}/{trade.out_no}"

    def _open_trade(self, order: OrderBody, flow: str) -> SimulatedTrade:
        if (order.appid, order.mchid) != (self._app_id, self._mch_id):
            raise WeChatPayError(400, "APPID_MCHID_NOT_MATCH", "appid and mchid do not match")
        now_ms = self._clock.now_ms()
        if order.time_expire is not None and order.time_expire.tzinfo is None:
            raise WeChatPayError(400, "PARAM_ERROR", "time_expire has no time zone")
        expires_ms = now_ms + _DEFAULT_LIFE_MS if order.time_expire is None else to_ms(order.time_expire)
        if order.amount.currency != "CNY" or not now_ms < expires_ms <= now_ms + _MAX_LIFE_MS:
            raise WeChatPayError(400, "PARAM_ERROR", "the currency is not CNY, or time_expire is past or over 7 days")
        if len(order.description.encode()) > _MAX_DESCRIPTION_BYTES:
            raise WeChatPayError(400, "PARAM_ERROR", "description has more than 127 bytes")
        is_new = self._payment_store.find_trade(self.name, order.out_trade_no) is None
        trade = self._payment_store.open_trade(
            SimulatedTrade(
                provider=self.name,
                out_no=order.out_trade_no,
                trade_no=f"4200{secrets.randbelow(10**24):024}",
                amount=order.amount.total,
                currency="CNY",
                subject=order.description,
                flow=flow,
                payer=order.payer.openid if order.payer else "",
                notify_url=order.notify_url,
                state="waiting",
                created_ms=now_ms,
                expires_ms=max(expires_ms, now_ms + _MIN_LIFE_MS),  # WeChat Pay does the same and does not say so
                code_expires_ms=now_ms + (_H5_LIFE_MS if flow == "mobile_page" else _CODE_LIFE_MS),
            )
        )
        if is_new:
            self._on_trade(trade)
        return trade

    async def _query(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        self._check_merchant(request.query.get("mchid"))
        trade = self._get_trade(request)
        refunded = trade.state == "captured" and self._payment_store.sum_refunds(self.name, trade.out_no)
        return 200, self._build_transaction(trade, "REFUND" if refunded else _TRADE_STATES[trade.state], 0)

    async def _close(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        self._check_merchant(decode_body(body, CloseBody).mchid)
        trade = self._get_trade(request)
        if trade.state == "closed":
            raise WeChatPayError(400, "ORDER_CLOSED", "the order is closed")
        self._payment_store.close_trade(self.name, trade.out_no)
        return 204, None

    async def _certificates(self, request: web.Request, body: bytes) -> tuple[int, Any]:
        certificate = self._certificate
        item = {
            "serial_no": self._serial,
            "effective_time": certificate.not_valid_before_utc.astimezone(CHINA).isoformat(),
            "expire_time": certificate.not_valid_after_utc.astimezone(CHINA).isoformat(),
            "encrypt_certificate": self._encrypt(certificate.public_bytes(Encoding.PEM), "certificate"),
        }
        return 200, {"data": [item]}

    # Signatures and encryption.

    def _with_signatures(self, handler: _Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def respond(request: web.Request) -> web.Response:
            body = await request.read()
            try:
                self._check_signature(request, body)
                status, content = await handler(request, body)
            except WeChatPayError as error:
                status, content = error.status, {"code": error.code, "message": str(error)}
            except PaymentStoreRefusal as refusal:
                status, code = _REFUSALS[refusal.code]
                content = {"code": code, "message": str(refusal)}
            raw = b"" if content is None else msgspec.json.encode(content)
            return web.Response(status=status, body=raw, headers={**self._build_signature(raw), **_JSON})

        return respond

    def _check_signature(self, request: web.Request, body: bytes) -> None:
        scheme, _, fields = request.headers.get("Authorization", "").partition(" ")
        values = dict(re.findall(r'([a-z_]+)="([^"]*)"', fields))
        names = ("mchid", "serial_no", "timestamp", "nonce_str", "signature")
        mch_id, serial, timestamp, nonce, signature = (values.get(name, "") for name in names)
        if scheme != SCHEME or (mch_id, serial.upper()) != (self._mch_id, self._merchant_serial) or not nonce:
            raise WeChatPayError(401, "SIGN_ERROR", "the Authorization header is not this merchant's")
        seconds = int(timestamp) if re.fullmatch(r"[0-9]{1,12}", timestamp) else 0
        if abs(self._clock.now_ms() / 1_000 - seconds) > MAX_CLOCK_DIFFERENCE_S:
            raise WeChatPayError(401, "SIGN_ERROR", "the timestamp is too far from now")
        path = request.raw_path[request.raw_path.index("/v3/") :]  # the signed path has no prefix
        if not is_signed(self._merchant, signing_text(request.method, path, timestamp, nonce, body), signature):
            raise WeChatPayError(401, "SIGN_ERROR", "the signature is wrong")

    def _check_merchant(self, mch_id: str | None) -> None:
        if mch_id != self._mch_id:
            raise WeChatPayError(400, "PARAM_ERROR", "mchid is not the merchant's")

    def _get_trade(self, request: web.Request) -> SimulatedTrade:
        trade = self._payment_store.find_trade(self.name, request.match_info["out_no"])
        if trade is None:
            raise WeChatPayError(404, "ORDER_NOT_EXIST", "there is no such order")
        return trade

    def _build_signature(self, body: bytes) -> dict[str, str]:
        timestamp, nonce = str(self._clock.now_ms() // 1_000), secrets.token_hex(16)
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": sign(self._private, signing_text(timestamp, nonce, body)),
            "Wechatpay-Signature-Type": SCHEME,
            "Wechatpay-Serial": self._serial,
        }

    def _encrypt(self, plaintext: bytes, associated_data: str) -> dict[str, str]:
        nonce = secrets.token_hex(6)  # twelve characters: AES-GCM needs a nonce of twelve bytes
        secret = AESGCM(self._api_v3_key).encrypt(nonce.encode(), plaintext, associated_data.encode())
        return {
            "algorithm": CIPHER,
            "nonce": nonce,
            "associated_data": associated_data,
            "ciphertext": b64encode(secret).decode(),
        }

    # Documents about trades and refunds.

    def _build_transaction(self, trade: SimulatedTrade, state: str, excess: int) -> dict[str, Any]:
        document: dict[str, Any] = {
            "appid": self._app_id,
            "mchid": self._mch_id,
            "out_trade_no": trade.out_no,
            "trade_state": state,
            "trade_state_desc": state,
            "amount": {"total": trade.amount + excess, "currency": trade.currency},
        }
        if trade.paid_ms is not None:
            document["transaction_id"] = trade.trade_no
            document["trade_type"] = TYPES[trade.flow]
            document["bank_type"] = "OTHERS"
            document["success_time"] = _format_time(trade.paid_ms)
            document["payer"] = {"openid": trade.payer or "sandbox-customer"}
            document["amount"] |= {"payer_total": trade.amount + excess, "payer_currency": trade.currency}
        return document


def make_certificate(key: RSAPrivateKey, not_before: datetime, not_after: datetime) -> str:
    """Return a self-signed platform certificate with a new serial number as PEM text."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Payment sandbox, no real platform")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), not_before, not_after)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def _prepay_id(trade: SimulatedTrade) -> str:
    return f"wx{trade.out_no}{trade.code_expires_ms:x}"


def _format_time(ms: int) -> str:
    return from_ms(ms).astimezone(CHINA).isoformat(timespec="seconds")
