"""Alipay's side of its protocol for one merchant: the gateway, webhooks and statements.

Responses are those of the open platform (https://opendocs.alipay.com/common/02kf5q and the pages of each method), with
two differences. A trade is known by the merchant's `out_trade_no` alone. It is stored when a code is requested, not
when somebody scans it, so that the robot can pay it. The allowed age of a timestamp is not documented, so only its form
is checked.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from commerce.kernel.china_time import CHINA, format_china_time, parse_china_time
from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.payments.providers.alipay import wire
from ops.sandbox.alipay_statement import write_statement
from ops.sandbox.payment_store import (
    DuePaymentWebhook,
    PaymentStore,
    PaymentStoreRefusal,
    SimulatedRefund,
    SimulatedTrade,
)
from ops.sandbox.protocol import SignedWebhook

Parameters = dict[str, str]
Content = dict[str, object]

CUSTOMER = {"buyer_id": "2088102100000001", "buyer_logon_id": "fg***@sandbox.invalid"}
_DEFAULT_LIFE_MS = 15 * 86_400_000
"""time to pay a trade without time_expire"""
_MAX_FEN = 10_000_000_000
_OUT_NO = re.compile(r"[0-9A-Za-z_]{1,64}")
_REQUIRED = ("app_id", "method", "charset", "sign_type", "sign", "timestamp", "version", "biz_content")
_MIN_LIFE_MS, _CODE_LIFE_MS = 60_000, 2 * 3_600_000
_FLOWS = {
    "alipay.trade.page.pay": "page",
    "alipay.trade.wap.pay": "mobile_page",
    "alipay.trade.app.pay": "app",
    "alipay.trade.precreate": "qr",
}
_SUB_CODES = {
    "no_trade": "ACQ.TRADE_NOT_EXIST",
    "not_paid": "ACQ.TRADE_STATUS_ERROR",
    "closed": "ACQ.TRADE_HAS_CLOSE",
    "code_expired": "ACQ.TRADE_HAS_CLOSE",
    "paid": "ACQ.TRADE_HAS_SUCCESS",
    "over_refunded": "ACQ.REASON_TRADE_REFUND_FEE_ERR",
    "other_content": "ACQ.CONTEXT_INCONSISTENT",
    "no_balance": "ACQ.SELLER_BALANCE_NOT_ENOUGH",
    "account_closed": "ACQ.BUYER_NOT_EXIST",
    "too_often": "ACQ.CALL_LIMITED",
    "system_error": "ACQ.SYSTEM_ERROR",
}
_MESSAGES = {
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
}


class _AlipayError(Exception):
    """A response with an error code."""

    def __init__(self, code: str, sub_code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.sub_code = sub_code


class AlipaySandbox:
    """The `ProviderProtocol` of Alipay.

    `public_url` is the URL of the pages for customers. `on_trade` is called with every new trade, `on_refund` with
    every new refund.
    """

    name = "alipay"

    def __init__(
        self,
        *,
        payment_store: PaymentStore,
        clock: Clock,
        app_id: str,
        seller_id: str,
        sandbox_key: RSAPrivateKey,
        merchant_key: RSAPublicKey,
        on_trade: Callable[[SimulatedTrade], None],
        on_refund: Callable[[SimulatedTrade, SimulatedRefund], None],
        public_url: str,
        decide_refund: Callable[[SimulatedRefund], SimulatedRefund] = lambda refund: refund,
    ) -> None:
        self._payment_store = payment_store
        self._clock = clock
        self._app_id = app_id
        self._seller_id = seller_id
        self._sandbox_key = sandbox_key
        self._merchant_key = merchant_key
        self._on_trade = on_trade
        self._on_refund = on_refund
        self._decide_refund = decide_refund
        self._public_url = public_url.rstrip("/")
        self._methods: dict[str, Callable[[Content, Parameters], Content]] = {
            "alipay.trade.precreate": self._precreate,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._query_refund,
        }

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return `gateway.do` by GET and POST, with parameters in the query, the body or both."""
        return [web.get("/gateway.do", self._gateway), web.post("/gateway.do", self._gateway)]

    def build_webhook(
        self, due_webhook: DuePaymentWebhook, trade: SimulatedTrade, refund: SimulatedRefund | None
    ) -> SignedWebhook:
        """Build a form. Its notify_id is the same at every attempt; notify_time is the time of the attempt."""
        now = self._clock.now_ms()
        refunded = self._payment_store.sum_refunds(self.name, trade.out_no)
        status = self._status(trade)
        fields = CUSTOMER | {"app_id": self._app_id, "auth_app_id": self._app_id, "seller_id": self._seller_id}
        fields |= {"notify_id": due_webhook.webhook_id, "notify_type": "trade_status_sync"}
        fields |= {"notify_time": _format_time(now), "charset": "utf-8", "version": "1.0", "sign_type": "RSA2"}
        fields |= {"out_trade_no": trade.out_no, "trade_no": trade.trade_no, "trade_status": status}
        fields |= {"subject": trade.subject, "gmt_create": _format_time(trade.created_ms)}
        fields["total_amount"] = wire.format_yuan(trade.amount + (due_webhook.defect == "amount"))
        if trade.paid_ms is not None:
            paid = wire.format_yuan(trade.amount)
            fields |= {"gmt_payment": _format_time(trade.paid_ms), "receipt_amount": paid, "buyer_pay_amount": paid}
            fields |= {"invoice_amount": paid, "point_amount": "0.00"}
            fields["fund_bill_list"] = json.dumps([{"amount": paid, "fundChannel": "ALIPAYACCOUNT"}])
        if status == "TRADE_CLOSED":
            fields |= {"gmt_close": _format_time(now), "refund_fee": wire.format_yuan(refunded)}
        if refund is not None:
            fields |= {"out_biz_no": refund.out_refund_no, "refund_fee": wire.format_yuan(refunded)}
            fields["gmt_refund"] = f"{_format_time(refund.at_ms)}.{refund.at_ms % 1000:03d}"
        content = wire.signing_text(fields, excluded=("sign", "sign_type"))
        fields["sign"] = wire.sign(content + b"!" * (due_webhook.defect == "signature"), self._sandbox_key)
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        return SignedWebhook(headers, urlencode(fields).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Return True if the response is the word success."""
        return status == 200 and body.strip() == b"success"

    def build_statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        movements: list[tuple[SimulatedTrade, SimulatedRefund | None]] = [(trade, None) for trade in trades]
        for refund in refunds:
            trade = self._payment_store.find_trade(self.name, refund.out_no)
            assert trade is not None, "a refund is of a stored trade"
            movements.append((trade, refund))
        return write_statement(movements, f"{self._seller_id}0156", CUSTOMER["buyer_logon_id"], self._clock.now_ms())

    # The gateway.

    async def _gateway(self, request: web.Request) -> web.Response:
        pairs = [*request.query.items(), *(await request.post()).items()]
        parameters = {name: value for name, value in pairs if isinstance(value, str)}
        method = parameters.get("method", "")
        try:
            if len(parameters) != len(pairs):
                raise _AlipayError("40002", "isv.invalid-parameter", "a parameter occurs twice or is a file")
            content = self._check_request(parameters)
            if method in _FLOWS and method not in self._methods:
                trade = self._open_trade(content, parameters)
                back = f"?{urlencode({'return_url': parameters['return_url']})}" if "return_url" in parameters else ""
                raise web.HTTPFound(f"{self._public_url}/pay/alipay/{trade.out_no}{back}")
            document = {"code": "10000", "msg": "Success", **self._methods[method](content, parameters)}
        except PaymentStoreRefusal as refusal:
            code = "40005" if refusal.code == "too_often" else "40004"
            document = _build_failure(code, _SUB_CODES[refusal.code], str(refusal))
        except _AlipayError as error:
            document = _build_failure(error.code, error.sub_code, str(error))
        if method in _FLOWS and method not in self._methods:
            return web.Response(text=f"{document['sub_code']}: {document['sub_msg']}")  # a page for the customer
        node = method.replace(".", "_") + "_response" if method in self._methods else "error_response"
        raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
        signature = ""
        if parameters.get("app_id") == self._app_id:  # there is no key for other accounts
            signature = f',"sign":"{wire.sign(raw.encode(), self._sandbox_key)}"'
        return web.Response(text=f'{{"{node}":{raw}{signature}}}', content_type="text/html", charset="utf-8")

    def _check_request(self, parameters: Parameters) -> Content:
        """Return the request's content. Raises `_AlipayError` if its form, account or signature is wrong."""
        for name in _REQUIRED:
            if not parameters.get(name):
                suffix = {"sign": "signature", "biz_content": "parameter"}.get(name, name.replace("_", "-"))
                raise _AlipayError("40001", f"isv.missing-{suffix}", f"{name} is missing")
        values = {name: value for name, value in parameters.items() if value}  # empty parameters are not signed
        signed = wire.signing_text(values, excluded=("sign",))
        for is_right, sub_code, message in (
            (values["app_id"] == self._app_id, "app-id", "无效的AppID参数"),
            (values["method"] in {*self._methods, *_FLOWS}, "method", "不存在的方法名"),
            (values["sign_type"] == "RSA2", "signature-type", "无效签名类型"),
            (wire.is_signed(signed, values["sign"], self._merchant_key), "signature", "验签出错"),
            (values["charset"].lower() == "utf-8", "charset", "字符集错误"),
            (values["version"] == "1.0", "version", "无效的版本"),
        ):
            if not is_right:
                raise _AlipayError("40002", f"isv.invalid-{sub_code}", message)
        try:
            parse_china_time(values["timestamp"])
        except ValueError:
            raise _AlipayError("40002", "isv.invalid-timestamp", "非法的时间戳参数") from None
        try:
            content = json.loads(values["biz_content"])
            if isinstance(content, dict):
                return content
        except ValueError:
            pass
        raise _AlipayError("40002", "isv.invalid-parameter", "biz_content is no JSON object")

    # The methods.

    def _open_trade(self, content: Content, parameters: Parameters) -> SimulatedTrade:
        """Store a new trade and schedule it, or return the stored one."""
        now = self._clock.now_ms()
        amount, subject, until = (
            _read_amount(content, "total_amount"),
            content.get("subject"),
            content.get("time_expire"),
        )
        if not isinstance(subject, str) or not 0 < len(subject) <= 256 or set(subject) & set("/=&"):
            raise _invalid_parameter("subject")
        try:
            expires_ms = to_ms(parse_china_time(until)) if until is not None else now + _DEFAULT_LIFE_MS
        except ValueError:
            raise _invalid_parameter("time_expire") from None
        if not now + _MIN_LIFE_MS <= expires_ms <= now + _DEFAULT_LIFE_MS:
            raise _AlipayError("40004", "ACQ.INVALID_PARAMETER", "time_expire is not 1m to 15d ahead")
        new_trade = SimulatedTrade(
            provider=self.name,
            out_no=_read_number(content, "out_trade_no"),
            trade_no=self._generate_number(),
            amount=amount,
            currency=wire.CURRENCY,
            subject=subject,
            flow=_FLOWS[parameters["method"]],
            payer=CUSTOMER["buyer_id"],
            notify_url=parameters.get("notify_url", ""),
            state="waiting",
            created_ms=now,
            expires_ms=expires_ms,
            code_expires_ms=now + _CODE_LIFE_MS if parameters["method"] == "alipay.trade.precreate" else 9 * 10**18,
        )
        trade = self._payment_store.open_trade(new_trade)
        if trade is new_trade:
            self._on_trade(trade)
        elif now >= trade.expires_ms:
            raise PaymentStoreRefusal("closed", "the trade has expired")
        return trade

    def _precreate(self, content: Content, parameters: Parameters) -> Content:
        trade = self._open_trade(content, parameters)
        return {"out_trade_no": trade.out_no, "qr_code": f"{self._public_url}/pay/alipay/{trade.out_no}"}

    def _query(self, content: Content, parameters: Parameters) -> Content:
        trade = self._get_trade(content)
        status = self._status(trade)
        paid = wire.format_yuan(trade.amount if status == "TRADE_SUCCESS" else 0)
        document: Content = {
            "buyer_logon_id": CUSTOMER["buyer_logon_id"],
            "buyer_pay_amount": paid,
            "buyer_user_id": CUSTOMER["buyer_id"],
            "invoice_amount": paid,
            "out_trade_no": trade.out_no,
            "point_amount": "0.00",
            "receipt_amount": paid,
        }
        if trade.paid_ms is not None:
            document["send_pay_date"] = _format_time(trade.paid_ms)
        return {
            **document,
            "total_amount": wire.format_yuan(trade.amount),
            "trade_no": trade.trade_no,
            "trade_status": status,
        }

    def _close(self, content: Content, parameters: Parameters) -> Content:
        trade = self._get_trade(content)
        if self._status(trade) != "WAIT_BUYER_PAY":
            raise _AlipayError("40004", "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
        self._payment_store.close_trade(self.name, trade.out_no)
        return {"out_trade_no": trade.out_no, "trade_no": trade.trade_no}

    def _refund(self, content: Content, parameters: Parameters) -> Content:
        trade, amount = self._get_trade(content), _read_amount(content, "refund_amount")
        if "out_request_no" not in content and amount != trade.amount:
            raise _AlipayError("40004", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "撤销或退款金额与订单金额不一致")
        out_no = _read_number(content, "out_request_no") if "out_request_no" in content else trade.out_no
        now = self._clock.now_ms()
        reason = str(content.get("refund_reason", ""))
        new_refund = SimulatedRefund(self.name, out_no, trade.out_no, self._generate_number(), amount, reason, now)
        try:
            new_refund = self._decide_refund(new_refund)
            refund = self._payment_store.refund(new_refund)
        except PaymentStoreRefusal as refusal:
            if refusal.code == "other_content":
                raise _AlipayError("40004", "ACQ.DISCORDANT_REPEAT_REQUEST", str(refusal)) from None
            raise
        if refund is new_refund:
            self._on_refund(trade, refund)
        return {
            **CUSTOMER,
            "out_trade_no": trade.out_no,
            "trade_no": trade.trade_no,
            "fund_change": "Y" if refund is new_refund and refund.state_at(now) == "done" else "N",
            "refund_fee": wire.format_yuan(self._payment_store.sum_refunds(self.name, trade.out_no)),
            "gmt_refund_pay": _format_time(refund.at_ms),
        }

    def _query_refund(self, content: Content, parameters: Parameters) -> Content:
        trade = self._get_trade(content)
        refund = self._payment_store.find_refund(self.name, _read_number(content, "out_request_no"))
        if refund is None or refund.out_no != trade.out_no or refund.state_at(self._clock.now_ms()) != "done":
            return {}
        return {
            "out_request_no": refund.out_refund_no,
            "out_trade_no": trade.out_no,
            "trade_no": trade.trade_no,
            "refund_amount": wire.format_yuan(refund.amount),
            "refund_status": "REFUND_SUCCESS",
            "total_amount": wire.format_yuan(trade.amount),
        }

    def _get_trade(self, content: Content) -> SimulatedTrade:
        trade = self._payment_store.find_trade(self.name, _read_number(content, "out_trade_no"))
        if trade is None:
            raise PaymentStoreRefusal("no_trade", "交易不存在")
        return trade

    def _status(self, trade: SimulatedTrade) -> str:
        if trade.state == "captured":
            remaining = trade.amount - self._payment_store.sum_refunds(self.name, trade.out_no)
            return "TRADE_SUCCESS" if remaining else "TRADE_CLOSED"
        if trade.state == "closed" or self._clock.now_ms() >= trade.expires_ms:
            return "TRADE_CLOSED"
        return "WAIT_BUYER_PAY"

    def _generate_number(self) -> str:
        """Return a number in Alipay's form: the day in China, then 20 digits."""
        day = from_ms(self._clock.now_ms()).astimezone(CHINA)
        return f"{day:%Y%m%d}22001{secrets.randbelow(10**15):015d}"


def _format_time(ms: int) -> str:
    return format_china_time(from_ms(ms))


def _build_failure(code: str, sub_code: str, message: str) -> Content:
    return {"code": code, "msg": _MESSAGES[code], "sub_code": sub_code, "sub_msg": message}


def _invalid_parameter(name: str) -> _AlipayError:
    return _AlipayError("40004", "ACQ.INVALID_PARAMETER", f"参数无效: {name}")


def _read_number(content: Content, name: str) -> str:
    number = content.get(name)
    if not isinstance(number, str) or not _OUT_NO.fullmatch(number):
        raise _invalid_parameter(name)
    return number


def _read_amount(content: Content, name: str) -> int:
    try:
        amount = wire.parse_yuan(content.get(name))
    except ValueError:
        raise _invalid_parameter(name) from None
    if not 0 < amount <= _MAX_FEN:
        raise _invalid_parameter(name)
    return amount
