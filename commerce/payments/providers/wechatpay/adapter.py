"""WeChat Pay as a provider of payments: by a code to scan (native) and inside of WeChat (jsapi).

https://pay.weixin.qq.com/doc/v3/merchant/4012525171 (orders), …/4012556352 (queries), …/4012556398 (closing),
…/4012552567 (refunds); callbacks: https://pay.weixin.qq.com/wiki/doc/apiv3/apis/chapter3_1_11.shtml.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

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
from commerce.kernel.ids import parse_uuid_hex
from commerce.kernel.money import Money
from commerce.payments.provider_port import (
    PaymentAction,
    PaymentFlow,
    PaymentRequest,
    PaymentWebhook,
    ProviderPayment,
    ProviderRefund,
    RefundRequest,
    StatementLine,
)
from commerce.payments.providers.wechatpay import messages, status_map, wire
from commerce.payments.providers.wechatpay.settings import WeChatPayAccount
from commerce.payments.providers.wechatpay.statement import read_statement

CURRENCY = "CNY"
Json = dict[str, Any]
MAX_SUBJECT_BYTES, MAX_REASON_BYTES = 127, 80
REFRESH_S, RETRY_S = 60, 5
"""How soon certificates are asked for again, in seconds, after they came and after they did not: callbacks that a
stranger makes up must not make us ask all the time."""

_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError)
T = TypeVar("T")


class WeChatPay:
    """See `commerce.payments.provider_port.Provider`. An answer whose signature is missing or wrong is `Unclear`.

    Errors may come unsigned: WeChat Pay signs nothing for whoever it could not identify. Those are believed on the word
    of the connection's TLS, as its own SDKs do (https://pay.weixin.qq.com/doc/global/v3/zh/4012354982); they may say no
    or that it knows nothing, but never that money has moved.
    """

    name = "wechatpay"
    flows: tuple[PaymentFlow, ...] = ("qr", "jsapi")
    currencies: tuple[str, ...] = (CURRENCY,)

    def __init__(
        self,
        account: WeChatPayAccount,
        outside: HttpTransport,
        clock: Clock,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._account = account
        self._outside = outside
        self._clock = clock
        self._nonce = nonce
        self._keys: dict[str, wire.PlatformKey] = {}
        if account.public_key is not None and account.public_key_id is not None:
            self._keys[account.public_key_id] = wire.PlatformKey(account.public_key)
        self._refreshing = asyncio.Lock()
        self._refresh_after_s = float("-inf")

    async def create(self, charge: PaymentRequest) -> PaymentAction:
        account = self._account
        if charge.flow not in self.flows or charge.amount.currency != CURRENCY:
            raise ExternalRefusal("unsupported", f"WeChat Pay takes {CURRENCY} by {' and '.join(self.flows)}")
        order: Json = {
            "appid": account.app_id,
            "mchid": account.mch_id,
            "description": _cut(charge.subject, MAX_SUBJECT_BYTES),
            "out_trade_no": charge.payment_id.hex,
            "time_expire": charge.expires_at.astimezone(CHINA).isoformat(timespec="seconds"),
            "notify_url": account.notify_url,
            "amount": {"total": charge.amount.amount, "currency": CURRENCY},
        }
        if charge.flow == "qr":
            body = await self._call("POST", "/v3/pay/transactions/native", order)
            return PaymentAction(kind="qr", code=_decode(body, messages.NativeCode).code_url)
        if not charge.payer:
            raise ExternalRefusal("no_payer", "payment inside of WeChat needs the customer's openid")
        body = await self._call("POST", "/v3/pay/transactions/jsapi", {**order, "payer": {"openid": charge.payer}})
        prepay_id = _decode(body, messages.Prepaid).prepay_id
        parameters = wire.jsapi_parameters(account, prepay_id, now=self._now(), nonce=self._nonce())
        return PaymentAction(kind="jsapi", parameters=parameters)

    async def query(self, payment_id: UUID) -> ProviderPayment:
        path = f"/v3/pay/transactions/out-trade-no/{payment_id.hex}?mchid={self._account.mch_id}"
        try:
            trade = _decode(await self._call("GET", path), messages.WeChatTrade)
        except ExternalRefusal as no:
            if no.code not in status_map.ABSENT:
                raise
            return ProviderPayment(payment_id, "absent")
        is_ours = (trade.mchid, trade.out_trade_no) == (self._account.mch_id, payment_id.hex)
        if not is_ours or trade.appid not in (None, self._account.app_id):
            raise ExternalOutcomeUnknown("WeChat Pay answers about another payment than was asked for")
        try:
            return _payment(payment_id, trade)
        except ValueError as why:
            raise ExternalOutcomeUnknown(f"WeChat Pay's answer about a payment: {why}") from None

    async def close(self, payment_id: UUID) -> ProviderPayment:
        path = f"/v3/pay/transactions/out-trade-no/{payment_id.hex}/close"
        try:
            await self._call("POST", path, {"mchid": self._account.mch_id})
        except ExternalRefusal:
            # It is paid, closed already or was never there; which of them, only a query says for certain.
            seen = await self.query(payment_id)
            if seen.state == "waiting":
                raise
            return seen
        return ProviderPayment(payment_id, "closed")

    async def refund(self, order: RefundRequest) -> ProviderRefund:
        body: Json = {
            "out_trade_no": order.payment_id.hex,
            "out_refund_no": order.refund_id.hex,
            "notify_url": self._account.notify_url,
            "amount": {"refund": order.amount.amount, "total": order.captured.amount, "currency": CURRENCY},
        }
        if order.reason:
            body["reason"] = _cut(order.reason, MAX_REASON_BYTES)
        return await self._refund(order, "POST", "/v3/refund/domestic/refunds", body)

    async def query_refund(self, order: RefundRequest) -> ProviderRefund:
        return await self._refund(order, "GET", f"/v3/refund/domestic/refunds/{order.refund_id.hex}")

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """`unknown_key` may mean that WeChat Pay has a new certificate: `refresh`, then try once more."""
        wire.verify(headers, body, self._keys, now)
        try:
            envelope = msgspec.json.decode(body, type=messages.WeChatEnvelope)
        except _NOT_JSON as why:
            raise InvalidWebhook("malformed", str(why)) from None
        try:
            content = self._open(envelope.resource) if envelope.resource_type == "encrypt-resource" else None
            if content is not None and envelope.event_type == "TRANSACTION.SUCCESS":
                return PaymentWebhook(envelope.id, self._paid(msgspec.json.decode(content, type=messages.WeChatTrade)))
            kind, _, status = envelope.event_type.partition(".")
            if content is not None and kind == "REFUND" and status in ("SUCCESS", "ABNORMAL", "CLOSED"):
                return PaymentWebhook(
                    envelope.id, self._refunded(status, msgspec.json.decode(content, type=messages.RefundNotice))
                )
        except (msgspec.MsgspecError, ValueError) as why:
            raise InvalidWebhook("bad_content", str(why)) from None
        raise InvalidWebhook("bad_content", f"{envelope.resource_type[:40]} {envelope.event_type[:40]} is not known")

    def acknowledge(self, accepted: bool) -> WebhookReply:
        if accepted:
            return WebhookReply(204, "application/json", b"")
        return WebhookReply(400, "application/json", b'{"code":"FAIL","message":"not stored, send it again"}')

    def read_statement(self, text: str) -> list[StatementLine | str]:
        return read_statement(text, self._account.mch_id)

    async def refresh(self) -> None:
        """Download the platform certificates; again within a minute (within seconds if it failed) does nothing.

        The download is signed with a key that it may itself be the first to carry, as the official SDKs accept: what
        makes its certificates genuine is that they are encrypted with the APIv3 key. Accounts that verify with a
        WeChat Pay public key may have no certificates, which is no error. Raises `Unclear` and `Refused`.
        """
        async with self._refreshing:
            asked_s = self._clock.monotonic()
            if asked_s < self._refresh_after_s:
                return
            self._refresh_after_s = asked_s + RETRY_S
            answer = await self._send("GET", "/v3/certificates")
            if answer.status == 404 and self._account.public_key is not None:
                self._refresh_after_s = asked_s + REFRESH_S
                return
            if answer.status != 200:
                raise _failure(answer)
            found = {}
            now = self._now()
            try:
                for item in _decode(answer.body, messages.Certificates).data:
                    pem = self._open(item.encrypt_certificate)
                    found[item.serial_no.upper()] = wire.read_certificate(pem, item.serial_no)
                known = {**found, **self._keys}
                wire.verify(answer.headers, answer.body, known, now)
            except (InvalidWebhook, ValueError) as why:
                raise ExternalOutcomeUnknown(f"WeChat Pay's certificates: {why}") from None
            self._keys = {serial: key for serial, key in known.items() if key.not_after is None or now <= key.not_after}
            self._refresh_after_s = asked_s + REFRESH_S

    # What the methods above have in common.

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def _call(self, method: str, path: str, body: Json | None = None) -> bytes:
        """The content of an answer that is a success and that can be believed."""
        answer = await self._send(method, path, b"" if body is None else msgspec.json.encode(body))
        is_success = answer.status in (200, 204)
        if is_success or any(name in answer.headers for name in wire.SIGNATURE_HEADERS):
            await self._believe(answer)
        if not is_success:
            raise _failure(answer)
        return answer.body

    async def _send(self, method: str, path: str, body: bytes = b"") -> HttpResponse:
        # `path` is what is signed: a prefix that base_url may have belongs to whoever passes the request on.
        headers = {
            "Authorization": wire.authorization(
                self._account, method, path, body, now=self._now(), nonce=self._nonce()
            ),
            "Accept": "application/json",
            "Content-Type": "application/json",
            "User-Agent": "floodgate",
        }
        if self._account.public_key_id is not None:
            headers["Wechatpay-Serial"] = self._account.public_key_id  # asks for answers that this key has signed
        return await self._outside.send(method, self._account.base_url + path, headers, body)

    async def _believe(self, answer: HttpResponse) -> None:
        try:
            try:
                wire.verify(answer.headers, answer.body, self._keys, self._now())
            except InvalidWebhook as why:
                if why.code != "unknown_key":
                    raise
                await self.refresh()
                wire.verify(answer.headers, answer.body, self._keys, self._now())
        except (InvalidWebhook, ExternalRefusal) as why:
            # Refused too: that the certificates are refused says nothing of what was asked for.
            raise ExternalOutcomeUnknown(f"WeChat Pay's answer cannot be believed: {why}") from None

    async def _refund(self, order: RefundRequest, method: str, path: str, body: Json | None = None) -> ProviderRefund:
        try:
            refund = _decode(await self._call(method, path, body), messages.WeChatRefund)
        except ExternalRefusal as no:
            # Asked to refund, WeChat Pay now and then does not find a payment for a moment that it finds later.
            if no.code not in status_map.ABSENT:
                raise
            return ProviderRefund(order.payment_id, order.refund_id, "absent")
        if (refund.out_trade_no, refund.out_refund_no) != (order.payment_id.hex, order.refund_id.hex):
            raise ExternalOutcomeUnknown("WeChat Pay answers about another refund than was asked for")
        if refund.amount.currency not in (None, CURRENCY):
            raise ExternalOutcomeUnknown("WeChat Pay's answer about a refund is in another currency")
        return _seen(order.payment_id, order.refund_id, refund.status, refund.amount)

    def _open(self, resource: messages.Encrypted) -> bytes:
        if resource.algorithm != wire.CIPHER:
            raise ValueError(f"the algorithm {resource.algorithm[:40]!r} is not known")
        return wire.decrypt(self._account.api_v3_key, resource.nonce, resource.associated_data, resource.ciphertext)

    def _paid(self, trade: messages.WeChatTrade) -> ProviderPayment:
        payment_id = parse_uuid_hex(trade.out_trade_no)
        if (trade.mchid, trade.appid) != (self._account.mch_id, self._account.app_id) or payment_id is None:
            raise InvalidWebhook("foreign", "the callback is about a payment to somebody else")
        if trade.trade_state != "SUCCESS" or trade.amount is None or trade.amount.currency is None:
            raise ValueError("a callback of success without success, amount or currency")
        return _payment(payment_id, trade)

    def _refunded(self, status: str, refund: messages.RefundNotice) -> ProviderRefund:
        payment_id, refund_id = parse_uuid_hex(refund.out_trade_no), parse_uuid_hex(refund.out_refund_no)
        if refund.mchid != self._account.mch_id or payment_id is None or refund_id is None:
            raise InvalidWebhook("foreign", "the callback is about a refund by somebody else")
        if refund.refund_status != status or refund.amount.currency not in (None, CURRENCY):
            raise ValueError("a callback whose refund_status is not that of its event, or of another currency")
        return _seen(payment_id, refund_id, status, refund.amount)


def _payment(payment_id: UUID, trade: messages.WeChatTrade) -> ProviderPayment:
    """Raises `ValueError` for a captured payment that is not whole, `Unclear` for an unknown state."""
    state = status_map.payment_state(trade.trade_state)
    if state != "captured":
        return ProviderPayment(payment_id, state)
    if trade.amount is None or not trade.transaction_id or not trade.success_time:
        raise ValueError("a captured payment needs amount, transaction_id and success_time")
    if trade.amount.currency not in (None, CURRENCY):
        raise ValueError(f"the currency is not {CURRENCY}")
    captured_at = datetime.fromisoformat(trade.success_time)
    if captured_at.tzinfo is None:
        raise ValueError("success_time has no zone")
    return ProviderPayment(payment_id, state, Money(trade.amount.total, CURRENCY), trade.transaction_id, captured_at)


def _seen(payment_id: UUID, refund_id: UUID, word: str, amount: messages.RefundAmount) -> ProviderRefund:
    state = status_map.refund_state(word)
    why = f"WeChat Pay says {word}" if state == "failed" else ""
    return ProviderRefund(payment_id, refund_id, state, Money(amount.refund, CURRENCY), why)


def _failure(answer: HttpResponse) -> ExternalRefusal | ExternalOutcomeUnknown:
    try:
        said = msgspec.json.decode(answer.body, type=messages.Failure)
    except _NOT_JSON:
        said = messages.Failure()
    return status_map.failure(answer.status, said.code, said.message)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except _NOT_JSON as why:
        raise ExternalOutcomeUnknown(f"WeChat Pay's answer cannot be read: {why}") from None


def _cut(text: str, most_bytes: int) -> str:
    """As much of a text as fits, in whole characters."""
    return text.encode()[:most_bytes].decode(errors="ignore")
