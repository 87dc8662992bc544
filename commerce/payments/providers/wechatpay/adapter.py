"""Adapter of WeChat Pay: codes (native), pages inside WeChat (jsapi), phones' browsers (h5), its app.

https://pay.weixin.qq.com/doc/v3/merchant/4012525171 (orders), …/4012791834 (h5), …/4013070347 (app), …/4012556352
(queries), …/4012556398 (closing), …/4012552567 (refunds); webhooks: https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter3_1_11.shtml.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import (
    ExternalOutcomeUnknown,
    ExternalRefusal,
    HttpResponse,
    HttpTransport,
    InvalidWebhook,
    WebhookReply,
)
from commerce.kernel.external_text import decode_repaired_json
from commerce.kernel.ids import parse_uuid_hex
from commerce.payments.fund_lines import Payout, list_payouts
from commerce.payments.provider_port import (
    BankCard,
    PaymentAction,
    PaymentFlow,
    PaymentRequest,
    PaymentWebhook,
    ProviderPayment,
    ProviderRefund,
    RefundRequest,
    StatementLine,
)
from commerce.payments.providers.wechatpay import fund_bill, messages, status_map, wire
from commerce.payments.providers.wechatpay.conversions import (
    CURRENCY,
    RefundIds,
    to_provider_payment,
    to_provider_refund,
)
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount
from commerce.payments.providers.wechatpay.statement import read_statement

Json = dict[str, Any]
MAX_SUBJECT_BYTES, MAX_REASON_BYTES = 127, 80
REFRESH_S, RETRY_S = 60, 5
"""minimum seconds between downloads of certificates, after a success and after a failure

Without them, forged webhooks could make us download all the time."""

_PATHS: dict[PaymentFlow, str] = {"qr": "native", "jsapi": "jsapi", "mobile_page": "h5", "app": "app"}
_ACTION_LIFETIMES: dict[PaymentFlow, timedelta] = {
    **dict.fromkeys(_PATHS, timedelta(hours=2)),
    "mobile_page": timedelta(minutes=5),
}
"""time for which a code, a prepay_id or a page serves; the same request again returns a new one"""
_NEVER = datetime.max.replace(tzinfo=CHINA)
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
Message = TypeVar("Message")


class WeChatPay:
    """The `Provider` for a merchant at WeChat Pay.

    A response without a valid signature raises `ExternalOutcomeUnknown`. Errors may be unsigned, because WeChat Pay
    signs nothing for a merchant that it could not identify. Those are trusted because of the connection's TLS, as in
    its own SDKs (https://pay.weixin.qq.com/doc/global/v3/zh/4012354982). They may refuse, or not know a payment, but
    they never prove that money has moved."""

    name = "wechatpay"
    flows: tuple[PaymentFlow, ...] = tuple(_PATHS)
    flows_with_payer_ip: tuple[PaymentFlow, ...] = ("mobile_page",)
    currencies: tuple[str, ...] = (CURRENCY,)
    # An earlier time_expire is moved to one minute after the request without a word. WeChat Pay advises 7 days at most
    # (https://developers.weixin.qq.com/community/develop/doc/00006a045acc703d38ad93de455400).
    min_lifetime, max_lifetime = timedelta(minutes=1), timedelta(days=7)

    def __init__(
        self,
        account: WeChatPayAccount,
        transport: HttpTransport,
        clock: Clock,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._account = account
        self._transport = transport
        self._clock = clock
        self._nonce = nonce
        self._keys: dict[str, wire.PlatformKey] = {}
        if account.public_key is not None and account.public_key_id is not None:
            self._keys[account.public_key_id] = wire.PlatformKey(account.public_key)
        self._refreshing = asyncio.Lock()
        self._refresh_after_s = float("-inf")

    async def create(self, request: PaymentRequest) -> PaymentAction:
        account = self._account
        if request.flow not in self.flows or request.amount.currency != CURRENCY:
            raise ExternalRefusal("unsupported", f"WeChat Pay accepts {CURRENCY} by {', '.join(self.flows)}")
        body: Json = {
            "appid": account.app_id,
            "mchid": account.mch_id,
            "description": _truncate(request.subject, MAX_SUBJECT_BYTES),
            "out_trade_no": request.payment_id.hex,
            "time_expire": request.expires_at.astimezone(CHINA).isoformat(timespec="seconds"),
            "notify_url": account.notify_url,
            "amount": {"total": request.amount.amount, "currency": CURRENCY},
        }
        if request.flow == "jsapi":
            if not request.payer:
                raise ExternalRefusal("no_payer", "payment inside WeChat needs the customer's openid")
            body["payer"] = {"openid": request.payer}
        if request.flow == "mobile_page":
            if not request.payer_ip:
                raise ExternalRefusal("no_payer_ip", "payment in a phone's browser needs the customer's address")
            body["scene_info"] = {"payer_client_ip": request.payer_ip, "h5_info": {"type": "Wap"}}
        response = await self._call("POST", f"/v3/pay/transactions/{_PATHS[request.flow]}", body)
        return self._build_action(request, response, self._now() + _ACTION_LIFETIMES[request.flow])

    def _build_action(self, request: PaymentRequest, response: bytes, expires_at: datetime) -> PaymentAction:
        if request.flow == "qr":
            code = _decode(response, messages.NativeCode).code_url
            return PaymentAction(kind="qr", code=code, expires_at=expires_at)
        if request.flow == "mobile_page":
            url = _decode(response, messages.H5Page).h5_url
            if request.return_url:
                url += ("&" if "?" in url else "?") + urlencode({"redirect_url": request.return_url})
            return PaymentAction(kind="redirect", url=url, expires_at=expires_at)
        prepay_id = _decode(response, messages.Prepaid).prepay_id
        is_app = request.flow == "app"
        sign_parameters = wire.sign_app_parameters if is_app else wire.sign_jsapi_parameters
        parameters = sign_parameters(self._account, prepay_id, now=self._now(), nonce=self._nonce())
        return PaymentAction(kind="app" if is_app else "jsapi", parameters=parameters, expires_at=expires_at)

    async def query(self, payment_id: UUID) -> ProviderPayment:
        path = f"/v3/pay/transactions/out-trade-no/{payment_id.hex}?mchid={self._account.mch_id}"
        try:
            trade = _decode(await self._call("GET", path), messages.WeChatTrade)
        except ExternalRefusal as refusal:
            if refusal.code not in status_map.ABSENT:
                raise
            return ProviderPayment(payment_id, "absent")
        is_ours = (trade.mchid, trade.out_trade_no) == (self._account.mch_id, payment_id.hex)
        if not is_ours or trade.appid not in (None, self._account.app_id):
            raise ExternalOutcomeUnknown("the response of WeChat Pay is about another payment")
        try:
            return to_provider_payment(payment_id, trade)
        except ValueError as error:
            raise ExternalOutcomeUnknown(f"the response of WeChat Pay about a payment: {error}") from None

    async def close(self, payment_id: UUID) -> ProviderPayment:
        path = f"/v3/pay/transactions/out-trade-no/{payment_id.hex}/close"
        try:
            await self._call("POST", path, {"mchid": self._account.mch_id})
        except ExternalRefusal:
            # The payment is captured, closed already or absent: only a query shows which.
            payment = await self.query(payment_id)
            if payment.state == "waiting":
                raise
            return payment
        return ProviderPayment(payment_id, "closed")

    async def refund(self, request: RefundRequest) -> ProviderRefund:
        body: Json = {
            "out_trade_no": request.payment_id.hex,
            "out_refund_no": request.refund_id.hex,
            "notify_url": self._account.notify_url,
            "amount": {"refund": request.amount.amount, "total": request.captured.amount, "currency": CURRENCY},
        }
        if request.reason:
            body["reason"] = _truncate(request.reason, MAX_REASON_BYTES)
        return await self._request_refund(request, "POST", "/v3/refund/domestic/refunds", body)

    async def query_refund(self, request: RefundRequest) -> ProviderRefund:
        return await self._request_refund(request, "GET", f"/v3/refund/domestic/refunds/{request.refund_id.hex}")

    async def redirect_refund(
        self, request: RefundRequest, provider_refund_id: str, card: BankCard | None
    ) -> ProviderRefund:
        """Send an abnormal refund to a debit card or to the merchant's account.

        https://pay.weixin.qq.com/doc/v3/merchant/4013071193. Account and name are encrypted for WeChat Pay."""
        body: Json = {"out_refund_no": request.refund_id.hex, "type": "MERCHANT_BANK_CARD"}
        serial = None
        if card is not None:
            serial, key = await self._newest_key()
            encrypted = {name: wire.encrypt_for(key, text) for name, text in card.secrets().items()}
            body |= {"type": "USER_BANK_CARD", "bank_type": card.bank, **encrypted}
        path = f"/v3/refund/domestic/refunds/{quote(provider_refund_id, safe='')}/apply-abnormal-refund"
        return await self._request_refund(request, "POST", path, body, serial)

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """Verify and decrypt a webhook.

        If it raises `unknown_key`, WeChat Pay may have a new certificate: call `refresh` and try once more."""
        wire.verify_signature(headers, body, self._keys, now)
        try:
            envelope = decode_repaired_json(body, messages.WeChatEnvelope)
        except _NOT_JSON as error:
            raise InvalidWebhook("malformed", str(error)) from None
        try:
            content = self._decrypt(envelope.resource) if envelope.resource_type == "encrypt-resource" else None
            if content is not None and envelope.event_type == "TRANSACTION.SUCCESS":
                trade = decode_repaired_json(content, messages.WeChatTrade)
                return PaymentWebhook(envelope.id, self._read_payment(trade))
            kind, _, status = envelope.event_type.partition(".")
            if content is not None and kind == "REFUND" and status in ("SUCCESS", "ABNORMAL", "CLOSED"):
                refund = decode_repaired_json(content, messages.WeChatRefundWebhook)
                return PaymentWebhook(envelope.id, self._read_refund(status, refund))
        except (*_NOT_JSON, ValueError) as error:
            raise InvalidWebhook("bad_content", str(error)) from None
        raise InvalidWebhook("bad_content", f"{envelope.resource_type[:40]} {envelope.event_type[:40]} is unknown")

    def acknowledge(self, accepted: bool) -> WebhookReply:
        if accepted:
            return WebhookReply(204, "application/json", b"")
        return WebhookReply(400, "application/json", b'{"code":"FAIL","message":"not stored, send it again"}')

    def read_statement(self, text: str) -> list[StatementLine | str]:
        return read_statement(text, self._account.mch_id)

    def read_payouts(self, text: str) -> list[Payout | str]:
        return list_payouts(fund_bill.read_fund_lines(text), fund_bill.PAYOUT)

    async def refresh(self) -> None:
        """Download the platform certificates. Does nothing within `REFRESH_S`, or `RETRY_S` after a failure.

        The response may be signed with a key that is new in this very response, which the official SDKs accept too: the
        certificates are proved genuine by their encryption with the APIv3 key. Accounts that verify with a WeChat Pay
        public key may have no certificates, which is no error. Raises `ExternalOutcomeUnknown` and
        `ExternalRefusal`."""
        async with self._refreshing:
            now_s = self._clock.monotonic()
            if now_s < self._refresh_after_s:
                return
            self._refresh_after_s = now_s + RETRY_S
            response = await self._send("GET", "/v3/certificates")
            if response.status == 404 and self._account.public_key is not None:
                self._refresh_after_s = now_s + REFRESH_S
                return
            if response.status != 200:
                raise _read_error(response)
            downloaded = {}
            now = self._now()
            try:
                for item in _decode(response.body, messages.Certificates).data:
                    pem = self._decrypt(item.encrypt_certificate)
                    downloaded[item.serial_no.upper()] = wire.read_certificate(pem, item.serial_no)
                keys = {**downloaded, **self._keys}
                wire.verify_signature(response.headers, response.body, keys, now)
            except (InvalidWebhook, ValueError) as error:
                raise ExternalOutcomeUnknown(f"the certificates of WeChat Pay: {error}") from None
            self._keys = {serial: key for serial, key in keys.items() if key.not_after is None or now <= key.not_after}
            self._refresh_after_s = now_s + REFRESH_S

    # Helpers of the methods above.

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def _call(self, method: str, path: str, body: Json | None = None, serial: str | None = None) -> bytes:
        """Send a request and return the body of a successful response with a valid signature.

        `serial` names the key with which some of the body is encrypted."""
        response = await self._send(method, path, b"" if body is None else msgspec.json.encode(body), serial)
        is_success = response.status in (200, 204)
        if is_success or any(name in response.headers for name in wire.SIGNATURE_HEADERS):
            await self._verify(response)
        if not is_success:
            raise _read_error(response)
        return response.body

    async def _send(self, method: str, path: str, body: bytes = b"", serial: str | None = None) -> HttpResponse:
        # Only `path` is signed: a prefix in base_url belongs to the proxy that forwards the request.
        headers = {
            "Authorization": wire.build_authorization(
                self._account, method, path, body, now=self._now(), nonce=self._nonce()
            ),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "floodgate",
        }
        serial = serial or self._account.public_key_id
        if serial is not None:
            headers["Wechatpay-Serial"] = serial  # requests responses signed with this key
        return await self._transport.send(method, self._account.base_url + path, headers, body)

    async def _verify(self, response: HttpResponse) -> None:
        """Verify the signature of a response; an unknown key makes the certificates refresh once."""
        try:
            try:
                wire.verify_signature(response.headers, response.body, self._keys, self._now())
            except InvalidWebhook as error:
                if error.code != "unknown_key":
                    raise
                await self.refresh()
                wire.verify_signature(response.headers, response.body, self._keys, self._now())
        except (InvalidWebhook, ExternalRefusal) as error:
            # A refusal too: it refuses the certificates, which shows nothing about the request itself.
            raise ExternalOutcomeUnknown(f"cannot verify the response of WeChat Pay: {error}") from None

    async def _newest_key(self) -> tuple[str, RSAPublicKey]:
        """Return the serial number and the key with which to encrypt what only WeChat Pay may read."""
        if not self._keys:
            await self.refresh()
        valid = {serial: key for serial, key in self._keys.items() if key.is_valid_at(self._now())}
        if not valid:
            raise ExternalOutcomeUnknown("there is no valid certificate of WeChat Pay")
        serial = max(valid, key=lambda serial: valid[serial].not_after or _NEVER)
        return serial, valid[serial].key

    async def _request_refund(
        self, request: RefundRequest, method: str, path: str, body: Json | None = None, serial: str | None = None
    ) -> ProviderRefund:
        try:
            refund = _decode(await self._call(method, path, body, serial), messages.WeChatRefund)
        except ExternalRefusal as no:
            failure = status_map.REFUND_FAILURES.get(no.code)
            if failure is not None and method == "POST":
                return ProviderRefund(request.payment_id, request.refund_id, "failed", reason=str(no), failure=failure)
            # For a moment WeChat Pay may not find the payment of a refund request, and find it later.
            if no.code not in status_map.ABSENT:
                raise
            return ProviderRefund(request.payment_id, request.refund_id, "absent")
        if (refund.out_trade_no, refund.out_refund_no) != (request.payment_id.hex, request.refund_id.hex):
            raise ExternalOutcomeUnknown("the response of WeChat Pay is about another refund")
        if refund.amount.currency not in (None, CURRENCY):
            raise ExternalOutcomeUnknown("the response of WeChat Pay about a refund is in another currency")
        return to_provider_refund(request, refund.status, refund.amount, refund.refund_id)

    def _decrypt(self, resource: messages.Encrypted) -> bytes:
        if resource.algorithm != wire.CIPHER:
            raise ValueError(f"the algorithm {resource.algorithm[:40]!r} is unknown")
        return wire.decrypt(self._account.api_v3_key, resource.nonce, resource.associated_data, resource.ciphertext)

    def _read_payment(self, trade: messages.WeChatTrade) -> ProviderPayment:
        payment_id = parse_uuid_hex(trade.out_trade_no)
        if (trade.mchid, trade.appid) != (self._account.mch_id, self._account.app_id) or payment_id is None:
            raise InvalidWebhook("foreign", "the webhook is about a payment of another account")
        if trade.trade_state != "SUCCESS" or trade.amount is None or trade.amount.currency is None:
            raise ValueError("a webhook of success lacks success, amount or currency")
        return to_provider_payment(payment_id, trade)

    def _read_refund(self, status: str, refund: messages.WeChatRefundWebhook) -> ProviderRefund:
        payment_id, refund_id = parse_uuid_hex(refund.out_trade_no), parse_uuid_hex(refund.out_refund_no)
        if refund.mchid != self._account.mch_id or payment_id is None or refund_id is None:
            raise InvalidWebhook("foreign", "the webhook is about a refund of another account")
        if refund.refund_status != status or refund.amount.currency not in (None, CURRENCY):
            raise ValueError("the refund_status is not that of the event, or the currency is another")
        return to_provider_refund(RefundIds(payment_id, refund_id), status, refund.amount, refund.refund_id)


def _read_error(response: HttpResponse) -> ExternalRefusal | ExternalOutcomeUnknown:
    try:
        failure = decode_repaired_json(response.body, messages.Failure)
    except _NOT_JSON:
        failure = messages.Failure()
    return status_map.map_error(response.status, failure.code, failure.message)


def _decode(body: bytes, message_type: type[Message]) -> Message:
    try:
        return decode_repaired_json(body, message_type)
    except _NOT_JSON as error:
        raise ExternalOutcomeUnknown(f"cannot read the response of WeChat Pay: {error}") from None


def _truncate(text: str, max_bytes: int) -> str:
    """Truncate a text to `max_bytes` of UTF-8, in whole characters."""
    return text.encode()[:max_bytes].decode(errors="ignore")
