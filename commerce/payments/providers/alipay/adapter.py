"""Adapter of Alipay: pages on a computer and on a phone, its app from ours, codes to scan.

A trade exists at Alipay only once the customer has opened the page or scanned the code. Until then Alipay answers that
there is none and cannot close it, although it can still be opened. So every trade is created with an end
(`time_expire`). Close a payment after that time, or be ready for money that arrives after it was closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from commerce.kernel.china_time import format_china_time, parse_china_time
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import (
    ExternalOutcomeUnknown,
    ExternalRefusal,
    HttpTransport,
    InvalidWebhook,
    WebhookReply,
)
from commerce.kernel.money import Money
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
from commerce.payments.providers.alipay import fund_statement, status_map, wire
from commerce.payments.providers.alipay.settings import AlipayAccount

WEBHOOK_MAX_AGE = timedelta(hours=24, minutes=30)
"""age up to which a webhook is accepted

Alipay repeats a webhook after 4, 10, 10, 60, 120, 360 and 900 minutes, 24 h 24 min in all, with the same notify_id. In
practice it renews notify_time each time, but its documentation does not promise that."""
WEBHOOK_MAX_AHEAD = timedelta(minutes=5)
"""maximum by which Alipay's clock may be ahead of ours"""

_METHODS: dict[PaymentFlow, tuple[str, str | None]] = {
    "page": ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    "mobile_page": ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    "app": ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
    "qr": ("alipay.trade.precreate", None),
}
CODE_LIFETIME = timedelta(hours=2)
"""time for which a code of alipay.trade.precreate can be scanned, whatever `time_expire` is"""
_FORBIDDEN_IN_SUBJECT = re.compile(r"[/=&\x00-\x1f]")
"""characters that Alipay does not accept in a subject"""
_NUMBER = re.compile(r"[!-~]{1,128}")
_MAX_TEXT_CHARACTERS = 256
"""of a subject and of the reason for a refund"""


class Alipay:
    """The `Provider` for one application on Alipay's open platform."""

    name = "alipay"
    flows: tuple[PaymentFlow, ...] = tuple(_METHODS)
    flows_with_payer_ip: tuple[PaymentFlow, ...] = ()
    currencies: tuple[str, ...] = (wire.CURRENCY,)
    # https://opendocs.alipay.com/open/02ekfg: 1m to 15d
    min_lifetime, max_lifetime = timedelta(minutes=1), timedelta(days=15)

    def __init__(self, account: AlipayAccount, transport: HttpTransport, clock: Clock) -> None:
        self._account = account
        self._transport = transport
        self._clock = clock

    async def create(self, request: PaymentRequest) -> PaymentAction:
        """Create a page's address or an app's order string without a call, or request a code from Alipay.

        The parameter for the app's SDK is `order_string`. Raises `ExternalRefusal` and, for a code,
        `ExternalOutcomeUnknown`."""
        if request.flow not in _METHODS:
            raise ExternalRefusal("flow", f"Alipay does not offer {request.flow} here")
        method, product = _METHODS[request.flow]
        content = {
            "out_trade_no": request.payment_id.hex,
            "total_amount": wire.format_yuan(_fen(request.amount)),
            "subject": _FORBIDDEN_IN_SUBJECT.sub(" ", request.subject)[:_MAX_TEXT_CHARACTERS],
            "time_expire": format_china_time(request.expires_at),
        }
        if product:
            content["product_code"] = product
        if request.flow == "qr":
            response = await self._call(method, content, notify_url=self._account.notify_url)
            code = _check_payment_id(response, request.payment_id).get("qr_code")
            if not isinstance(code, str) or not code:
                raise ExternalOutcomeUnknown(f"{method}: the response has no code")
            return PaymentAction("qr", code=code, expires_at=from_ms(self._clock.now_ms()) + CODE_LIFETIME)
        extra = {"notify_url": self._account.notify_url}
        if request.flow != "app" and request.return_url:
            extra["return_url"] = request.return_url
            if request.flow == "mobile_page":  # where the page's own button for leaving leads
                content["quit_url"] = request.return_url
        order_string = urlencode(self._sign_request(method, content, extra))
        if request.flow == "app":
            return PaymentAction("app", parameters={"order_string": order_string})
        return PaymentAction("redirect", url=f"{self._account.gateway_url}?{order_string}")

    async def query(self, payment_id: UUID) -> ProviderPayment:
        """Query a trade. Its amount is the order's, whatever part of it was paid with vouchers."""
        try:
            response = await self._call("alipay.trade.query", {"out_trade_no": payment_id.hex})
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderPayment(payment_id, "absent")
            raise
        try:
            return _payment(_check_payment_id(response, payment_id), response.get("send_pay_date"))
        except ValueError as reason:
            raise ExternalOutcomeUnknown(f"alipay.trade.query: {reason}") from None

    async def close(self, payment_id: UUID) -> ProviderPayment:
        """Close a trade, or return the state that makes it too late.

        The result is `closed` also for a trade that Alipay does not know: more cannot be known of it. Its page or code
        can be opened until `expires_at` of its request."""
        try:
            response = await self._call("alipay.trade.close", {"out_trade_no": payment_id.hex})
            if response.get("out_trade_no") == payment_id.hex:  # its documentation calls it optional
                return ProviderPayment(payment_id, "closed")
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderPayment(payment_id, "closed")
            if refusal.code not in status_map.NOT_WAITING:
                raise
        payment = await self.query(payment_id)
        if payment.state in ("closed", "captured"):
            return payment
        raise ExternalOutcomeUnknown(f"alipay.trade.close refused to close a trade that is {payment.state}")

    async def refund(self, request: RefundRequest) -> ProviderRefund:
        """Request a refund. The response's refund_fee is the sum of all refunds, so it is not read."""
        content = {
            "out_trade_no": request.payment_id.hex,
            "out_request_no": request.refund_id.hex,
            "refund_amount": wire.format_yuan(_fen(request.amount)),
            "refund_reason": request.reason[:_MAX_TEXT_CHARACTERS],
        }
        ids = request.payment_id, request.refund_id
        try:
            response = _check_payment_id(await self._call("alipay.trade.refund", content), request.payment_id)
        except ExternalRefusal as refusal:
            if refusal.code not in status_map.REFUND_FAILURES:
                raise
            failure = status_map.REFUND_FAILURES[refusal.code]
            return ProviderRefund(*ids, "failed", reason=str(refusal), failure=failure)
        if response.get("fund_change") == "Y":
            return ProviderRefund(*ids, "done", request.amount, provider_refund_id=_trade_no(response))
        # Without Y, which the response to a repeated request never has, only a query shows if it was done.
        refund = await self.query_refund(request)
        if refund.state != "absent":
            return refund
        return ProviderRefund(*ids, "waiting")

    async def query_refund(self, request: RefundRequest) -> ProviderRefund:
        """Query a refund: `done` or `absent`, since Alipay shows no failed refund.

        An absent refund may be requested again with the same number."""
        method = "alipay.trade.fastpay.refund.query"
        content = {"out_trade_no": request.payment_id.hex, "out_request_no": request.refund_id.hex}
        try:
            response = await self._call(method, content)
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderRefund(request.payment_id, request.refund_id, "absent")
            raise
        status = response.get("refund_status")
        if status is None and "refund_amount" not in response:
            return ProviderRefund(request.payment_id, request.refund_id, "absent")
        if status != "REFUND_SUCCESS" or response.get("out_request_no") != request.refund_id.hex:
            raise ExternalOutcomeUnknown(f"{method}: unknown refund_status {str(status)[:40]!r}")
        _check_payment_id(response, request.payment_id)
        try:
            amount = Money(wire.parse_yuan(response.get("refund_amount")), wire.CURRENCY)
        except ValueError as reason:
            raise ExternalOutcomeUnknown(f"{method}: {reason}") from None
        number = _trade_no(response)
        return ProviderRefund(request.payment_id, request.refund_id, "done", amount, provider_refund_id=number)

    async def redirect_refund(
        self, request: RefundRequest, provider_refund_id: str, card: BankCard | None
    ) -> ProviderRefund:
        """Refuse: if Alipay cannot refund a trade, it tells at once and does not take the money."""
        raise ExternalRefusal("unsupported", "Alipay sends no refund to a bank card: use another way")

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """Read a webhook of a trade or of a refund, which come to the same address. The headers are not used.

        A `ProviderRefund` has no amount, since refund_fee is the sum of all refunds of the trade."""
        fields = wire.read_webhook_form(body, self._account.alipay_key)
        for name, expected in (("app_id", self._account.app_id), ("seller_id", self._account.seller_id)):
            if name not in fields:
                raise InvalidWebhook("bad_content", f"there is no {name}")
            if fields[name] != expected:
                raise InvalidWebhook("foreign", f"{name} is of another account")
        try:
            sent_at = parse_china_time(fields.get("notify_time"))
        except ValueError as reason:
            raise InvalidWebhook("bad_content", f"notify_time: {reason}") from None
        if not -WEBHOOK_MAX_AHEAD <= now - sent_at <= WEBHOOK_MAX_AGE:
            raise InvalidWebhook("stale", f"it was sent at {sent_at:%Y-%m-%dT%H:%M:%SZ}")
        webhook_id = fields.get("notify_id", "")
        if fields.get("notify_type") != "trade_status_sync" or not _NUMBER.fullmatch(webhook_id):
            raise InvalidWebhook("bad_content", "notify_type is unknown, or notify_id is missing or malformed")
        return PaymentWebhook(f"{self.name}:{webhook_id}", _webhook_subject(fields))

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """Return the response; Alipay stops repeating a webhook only after exactly these seven letters."""
        return WebhookReply(200, "text/plain", b"success" if accepted else b"fail")

    def read_statement(self, text: str) -> list[StatementLine | str]:
        """Read a 业务明细 file that is unpacked and decoded; see `wire.read_statement`."""
        return list(wire.read_statement(text))

    def read_payouts(self, text: str) -> list[Payout | str]:
        """Read a 账务明细 file that is unpacked and decoded."""
        return list_payouts(fund_statement.read_fund_lines(text), fund_statement.PAYOUT)

    async def refresh(self) -> None:
        """Do nothing: plain public keys change only in the settings."""

    async def _call(self, method: str, content: Mapping[str, str], **extra: str) -> dict[str, Any]:
        request = self._sign_request(method, content, extra)
        body = urlencode({"biz_content": request.pop("biz_content")}).encode()
        # The gateway reads the charset of the body from the address, so only the content is sent in the body.
        response = await self._transport.send(
            "POST",
            f"{self._account.gateway_url}?{urlencode(request)}",
            {"content-type": "application/x-www-form-urlencoded;charset=utf-8"},
            body,
        )
        if response.status != 200:
            raise ExternalOutcomeUnknown(f"{method}: HTTP {response.status}")
        content_of_response = wire.read_response(response.body, method, self._account.alipay_key)
        status_map.raise_for_error(method, content_of_response)
        return content_of_response

    def _sign_request(self, method: str, content: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
        parameters = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": format_china_time(from_ms(self._clock.now_ms())),
            "version": "1.0",
            **extra,
            "biz_content": msgspec.json.encode(content).decode(),
        }
        return wire.with_signature(parameters, self._account.merchant_key)


def _fen(money: Money) -> int:
    if money.currency != wire.CURRENCY:
        raise ExternalRefusal("currency", f"Alipay accepts {wire.CURRENCY} here, not {money.currency}")
    return money.amount


def _check_payment_id(response: dict[str, Any], payment_id: UUID) -> dict[str, Any]:
    """Return the response if it is about this payment.

    Its signature proves that Alipay wrote it, but not for which request."""
    if response.get("out_trade_no") != payment_id.hex:
        raise ExternalOutcomeUnknown("the response is about another payment")
    return response


def _trade_no(response: Mapping[str, Any]) -> str | None:
    """Return Alipay's number of the trade: its refunds have no number of their own."""
    number = response.get("trade_no")
    return number if isinstance(number, str) and _NUMBER.fullmatch(number) else None


def _payment(fields: Mapping[str, Any], paid_at: object) -> ProviderPayment:
    """Read a trade from a query's response or a webhook. Raises `ValueError` and `ExternalOutcomeUnknown`."""
    payment_id = wire.parse_our_id(fields.get("out_trade_no"))
    total = _total(fields)
    state = status_map.map_payment_state(fields.get("trade_status"), was_paid=paid_at is not None)
    if state != "captured":
        return ProviderPayment(payment_id, state)
    trade_no = fields.get("trade_no")
    if not isinstance(trade_no, str) or not _NUMBER.fullmatch(trade_no):
        raise ValueError(f"{str(trade_no)[:40]!r} is no trade_no")
    return ProviderPayment(payment_id, state, Money(total, wire.CURRENCY), trade_no, parse_china_time(paid_at))


def _total(fields: Mapping[str, Any]) -> int:
    """Read a trade's amount in fen. Domestic trades have no currency; if there is one, it must be CNY."""
    for name in ("trans_currency", "settle_currency"):
        if fields.get(name, wire.CURRENCY) != wire.CURRENCY:
            raise ValueError(f"{name} is not {wire.CURRENCY}")
    total = wire.parse_yuan(fields.get("total_amount"))
    if not total:
        raise ValueError("the trade's amount is 0")
    return total


def _webhook_subject(fields: Mapping[str, str]) -> ProviderPayment | ProviderRefund:
    """Read the payment or refund of a verified webhook. Raises `InvalidWebhook` (foreign, bad_content)."""
    try:
        payment_id = wire.parse_our_id(fields.get("out_trade_no"))
    except ValueError as reason:
        raise InvalidWebhook("foreign", f"out_trade_no: {reason}") from None
    try:
        payment = _payment(fields, fields.get("gmt_payment"))
        refunded = wire.parse_yuan(fields.get("refund_fee", "0.00"))
        if refunded > _total(fields) or (refunded and payment.state != "captured"):
            raise ValueError("more was refunded than was paid")
    except (ValueError, ExternalOutcomeUnknown) as reason:
        raise InvalidWebhook("bad_content", str(reason)) from None
    # Without our number, the refunds of the trade may have been made by hand in Alipay's console.
    if not refunded or "out_biz_no" not in fields:
        return msgspec.structs.replace(payment, refunded=Money(refunded, wire.CURRENCY)) if refunded else payment
    try:
        refund_id = wire.parse_our_id(fields["out_biz_no"])
        return ProviderRefund(payment_id, refund_id, "done", provider_refund_id=_trade_no(fields))
    except ValueError as reason:
        raise InvalidWebhook("foreign", f"out_biz_no: {reason}") from None
