"""Alipay as a payment provider: pages on a computer, its app from ours, codes to scan.

A trade exists at Alipay only once the customer has opened the page or scanned the code. Until then Alipay says that
there is none, and cannot close it, although it can still be opened; so every trade is given an end (`time_expire`) when
it is made. Close a payment after that time, or be ready for money that arrives after it was closed.
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
from commerce.payments.providers.alipay import status_map, wire
from commerce.payments.providers.alipay.settings import AlipayAccount

NOTICE_MAX_AGE = timedelta(hours=24, minutes=30)
"""Alipay repeats a callback after 4, 10, 10, 60, 120, 360 and 900 minutes, 24 h 24 min in all, with the same notify_id.
It has been seen to renew notify_time each time, but its documentation does not promise that."""
NOTICE_MAX_AHEAD = timedelta(minutes=5)
"""How far the clocks may be apart."""

_METHODS: dict[PaymentFlow, tuple[str, str | None]] = {
    "page": ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    "app": ("alipay.trade.app.pay", "QUICK_MSECURITY_PAY"),
    "qr": ("alipay.trade.precreate", None),
}
_NOT_IN_SUBJECT = re.compile(r"[/=&\x00-\x1f]")
"""What Alipay does not take in a subject."""
_MAX_TEXT = 256
"""Of a subject and of the reason for a refund."""
_MAX_NOTICE_ID = 128


class Alipay:
    """The `Provider` for one application on Alipay's open platform. `outside` keeps the time limit of a call."""

    name = "alipay"
    flows: tuple[PaymentFlow, ...] = tuple(_METHODS)
    currencies: tuple[str, ...] = (wire.CURRENCY,)

    def __init__(self, account: AlipayAccount, outside: HttpTransport, clock: Clock) -> None:
        self._account = account
        self._outside = outside
        self._clock = clock

    async def create(self, charge: PaymentRequest) -> PaymentAction:
        """A page's address and an app's order string are made here, without a call; a code is asked for.

        The parameter for the app's SDK is `order_string`. Raises `Refused` and, for a code, `Unclear`.
        """
        if charge.flow not in _METHODS:
            raise ExternalRefusal("scene", f"Alipay does not take {charge.flow} here")
        method, product = _METHODS[charge.flow]
        content = {
            "out_trade_no": charge.payment_id.hex,
            "total_amount": wire.yuan(_fen(charge.amount)),
            "subject": _NOT_IN_SUBJECT.sub(" ", charge.subject)[:_MAX_TEXT],
            "time_expire": format_china_time(charge.expires_at),
        }
        if product:
            content["product_code"] = product
        if charge.flow == "qr":
            answer = await self._call(method, content, notify_url=self._account.notify_url)
            code = _same(answer, charge.payment_id).get("qr_code")
            if not isinstance(code, str) or not code:
                raise ExternalOutcomeUnknown(f"{method}: an answer without a code")
            return PaymentAction("qr", code=code)
        more = {"notify_url": self._account.notify_url}
        if charge.flow == "page" and charge.return_url:
            more["return_url"] = charge.return_url
        order = urlencode(self._request(method, content, more))
        if charge.flow == "app":
            return PaymentAction("app", parameters={"order_string": order})
        return PaymentAction("redirect", url=f"{self._account.gateway_url}?{order}")

    async def query(self, payment_id: UUID) -> ProviderPayment:
        """As Alipay has it; the amount is the order's, whatever part of it was paid with vouchers."""
        try:
            answer = await self._call("alipay.trade.query", {"out_trade_no": payment_id.hex})
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderPayment(payment_id, "absent")
            raise
        try:
            return _payment(_same(answer, payment_id), answer.get("send_pay_date"))
        except ValueError as reason:
            raise ExternalOutcomeUnknown(f"alipay.trade.query: {reason}") from None

    async def close(self, payment_id: UUID) -> ProviderPayment:
        """Close it, or find out why that is too late.

        `closed` is also said of a trade that Alipay has never seen: nobody can know more of it. Its page or code can be
        opened until the charge's `expires_at`.
        """
        try:
            answer = await self._call("alipay.trade.close", {"out_trade_no": payment_id.hex})
            if answer.get("out_trade_no") == payment_id.hex:  # its documentation calls it optional
                return ProviderPayment(payment_id, "closed")
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderPayment(payment_id, "closed")
            if refusal.code not in status_map.NOT_WAITING:
                raise
        found = await self.query(payment_id)
        if found.state in ("closed", "captured"):
            return found
        raise ExternalOutcomeUnknown(f"alipay.trade.close: the trade waits no more, but a query finds it {found.state}")

    async def refund(self, order: RefundRequest) -> ProviderRefund:
        """Give money back. The refund_fee of the answer is the sum of all refunds, so it says nothing of this one."""
        content = {
            "out_trade_no": order.payment_id.hex,
            "out_request_no": order.refund_id.hex,
            "refund_amount": wire.yuan(_fen(order.amount)),
            "refund_reason": order.reason[:_MAX_TEXT],
        }
        answer = _same(await self._call("alipay.trade.refund", content), order.payment_id)
        if answer.get("fund_change") == "Y":
            return ProviderRefund(order.payment_id, order.refund_id, "done", order.amount)
        # Without Y, which a repeated request never gets, only a query can say whether it was done.
        found = await self.query_refund(order)
        if found.state != "absent":
            return found
        return ProviderRefund(order.payment_id, order.refund_id, "waiting")

    async def query_refund(self, order: RefundRequest) -> ProviderRefund:
        """`done` or `absent`: Alipay shows no refund that failed; it may be asked for again under the same number."""
        method = "alipay.trade.fastpay.refund.query"
        content = {"out_trade_no": order.payment_id.hex, "out_request_no": order.refund_id.hex}
        try:
            answer = await self._call(method, content)
        except ExternalRefusal as refusal:
            if refusal.code == status_map.NO_TRADE:
                return ProviderRefund(order.payment_id, order.refund_id, "absent")
            raise
        status = answer.get("refund_status")
        if status is None and "refund_amount" not in answer:
            return ProviderRefund(order.payment_id, order.refund_id, "absent")
        if status != "REFUND_SUCCESS" or answer.get("out_request_no") != order.refund_id.hex:
            raise ExternalOutcomeUnknown(f"{method}: nobody knows what refund_status {str(status)[:40]!r} means here")
        _same(answer, order.payment_id)
        try:
            amount = Money(wire.fen(answer.get("refund_amount")), wire.CURRENCY)
        except ValueError as reason:
            raise ExternalOutcomeUnknown(f"{method}: {reason}") from None
        return ProviderRefund(order.payment_id, order.refund_id, "done", amount)

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """Alipay tells of trades and of refunds at the same address; `headers` carry nothing of worth.

        A `RefundSeen` comes without amount, since refund_fee is the sum of all refunds of the trade.
        """
        fields = wire.read_form(body, self._account.alipay_key)
        for name, ours in (("app_id", self._account.app_id), ("seller_id", self._account.seller_id)):
            if name not in fields:
                raise InvalidWebhook("bad_content", f"without {name}")
            if fields[name] != ours:
                raise InvalidWebhook("foreign", f"{name} is another's")
        try:
            sent = parse_china_time(fields.get("notify_time"))
        except ValueError as reason:
            raise InvalidWebhook("bad_content", f"notify_time: {reason}") from None
        if not -NOTICE_MAX_AHEAD <= now - sent <= NOTICE_MAX_AGE:
            raise InvalidWebhook("stale", f"it was sent at {sent:%Y-%m-%dT%H:%M:%SZ}")
        notice_id = fields.get("notify_id", "")
        if fields.get("notify_type") != "trade_status_sync" or not 0 < len(notice_id) <= _MAX_NOTICE_ID:
            raise InvalidWebhook("bad_content", "notify_type or notify_id is not as it should be")
        return PaymentWebhook(f"{self.name}:{notice_id}", _seen(fields))

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """Alipay stops at exactly these seven letters."""
        return WebhookReply(200, "text/plain", b"success" if accepted else b"fail")

    def read_statement(self, text: str) -> list[StatementLine | str]:
        """A 业务明细 file, already unpacked and decoded; see `wire.read_statement`."""
        return list(wire.read_statement(text))

    async def refresh(self) -> None:
        """Nothing: plain public keys do not change by themselves."""

    async def _call(self, method: str, content: Mapping[str, str], **more: str) -> dict[str, Any]:
        request = self._request(method, content, more)
        body = urlencode({"biz_content": request.pop("biz_content")}).encode()
        # The gateway takes the charset of the body from the address, so only the content goes into the body.
        answer = await self._outside.send(
            "POST",
            f"{self._account.gateway_url}?{urlencode(request)}",
            {"content-type": "application/x-www-form-urlencoded;charset=utf-8"},
            body,
        )
        if answer.status != 200:
            raise ExternalOutcomeUnknown(f"{method}: HTTP {answer.status}")
        said = wire.read_answer(answer.body, method, self._account.alipay_key)
        status_map.check(method, said)
        return said

    def _request(self, method: str, content: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
        parameters = {
            "app_id": self._account.app_id,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": format_china_time(from_ms(self._clock.now_ms())),
            "version": "1.0",
            **more,
            "biz_content": msgspec.json.encode(content).decode(),
        }
        return wire.signed(parameters, self._account.merchant_key)


def _fen(money: Money) -> int:
    if money.currency != wire.CURRENCY:
        raise ExternalRefusal("currency", f"Alipay takes {wire.CURRENCY} here, not {money.currency}")
    return money.amount


def _same(answer: dict[str, Any], payment_id: UUID) -> dict[str, Any]:
    """The answer, if it is about this payment: a signature says that Alipay wrote it, not to whom."""
    if answer.get("out_trade_no") != payment_id.hex:
        raise ExternalOutcomeUnknown("the answer is about another payment")
    return answer


def _payment(fields: Mapping[str, Any], paid_at: object) -> ProviderPayment:
    """What a query's answer or a callback says of a trade. Raises `ValueError` and `Unclear`."""
    payment_id = wire.our_number(fields.get("out_trade_no"))
    total = _total(fields)
    state = status_map.payment_state(fields.get("trade_status"), was_paid=paid_at is not None)
    if state != "captured":
        return ProviderPayment(payment_id, state)
    trade_no = fields.get("trade_no")
    if not isinstance(trade_no, str) or not trade_no:
        raise ValueError("no trade_no")
    return ProviderPayment(payment_id, state, Money(total, wire.CURRENCY), trade_no, parse_china_time(paid_at))


def _total(fields: Mapping[str, Any]) -> int:
    """The trade's amount in fen. Domestic trades carry no currency; where there is one, it has to be ours."""
    for name in ("trans_currency", "settle_currency"):
        if fields.get(name, wire.CURRENCY) != wire.CURRENCY:
            raise ValueError(f"{name} is not {wire.CURRENCY}")
    total = wire.fen(fields.get("total_amount"))
    if not total:
        raise ValueError("a trade over nothing")
    return total


def _seen(fields: Mapping[str, str]) -> ProviderPayment | ProviderRefund:
    """What a callback that is genuine tells. Raises `BadNotice`: foreign or bad_content."""
    try:
        payment_id = wire.our_number(fields.get("out_trade_no"))
    except ValueError as reason:
        raise InvalidWebhook("foreign", f"out_trade_no: {reason}") from None
    try:
        payment = _payment(fields, fields.get("gmt_payment"))
        refunded = wire.fen(fields.get("refund_fee", "0.00"))
        if refunded > _total(fields) or (refunded and payment.state != "captured"):
            raise ValueError("more went back than was paid")
    except (ValueError, ExternalOutcomeUnknown) as reason:
        raise InvalidWebhook("bad_content", str(reason)) from None
    # A refund that names no request was made by hand in Alipay's console: of the payment it only says that it was paid.
    if not refunded or "out_biz_no" not in fields:
        return payment
    try:
        return ProviderRefund(payment_id, wire.our_number(fields["out_biz_no"]), "done")
    except ValueError as reason:
        raise InvalidWebhook("foreign", f"out_biz_no: {reason}") from None
