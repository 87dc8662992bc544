"""Alipay's side of its protocol: the gateway, callbacks and statements of one merchant.

It answers as the open platform does (https://opendocs.alipay.com/common/02kf5q and the pages of each method), but knows
a trade by the merchant's `out_trade_no` alone, and enters it in the books when a code is asked for, not when somebody
scans it, so that the robot customer finds it. Of a request's timestamp only the form is checked: no limit to its age is
documented.
"""

from __future__ import annotations

import csv
import io
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
from ops.sandbox.payment_store import DueNotice, PaymentStore, PaymentStoreRefusal, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import Callback

Parameters = dict[str, str]
Content = dict[str, object]

BUYER = {"buyer_id": "2088102100000001", "buyer_logon_id": "fg***@sandbox.invalid"}
_OPEN_FOR_MS = 15 * 86_400_000
"""How long a trade can be paid that was given no end."""
_MAX_FEN = 10_000_000_000
_OUT_NO = re.compile(r"[0-9A-Za-z_]{1,64}")
_REQUIRED = ("app_id", "method", "charset", "sign_type", "sign", "timestamp", "version", "biz_content")
_SCENES = {"alipay.trade.page.pay": "page", "alipay.trade.app.pay": "app", "alipay.trade.precreate": "qr"}
_WORDS = {
    "no_trade": "ACQ.TRADE_NOT_EXIST",
    "not_paid": "ACQ.TRADE_STATUS_ERROR",
    "closed": "ACQ.TRADE_HAS_CLOSE",
    "paid": "ACQ.TRADE_HAS_SUCCESS",
    "over_refunded": "ACQ.REASON_TRADE_REFUND_FEE_ERR",
    "other_content": "ACQ.CONTEXT_INCONSISTENT",
}
_MESSAGES = {"40001": "Missing Required Arguments", "40002": "Invalid Arguments", "40004": "Business Failed"}

_COLUMNS = (
    *(wire.TRADE_NO, wire.OUT_TRADE_NO, wire.KIND, "商品名称", "创建时间", "完成时间", "门店编号", "门店名称"),
    *("操作员", "终端号", "对方账户", wire.AMOUNT, "商家实收（元）", "支付宝红包（元）", "集分宝（元）"),
    *("支付宝优惠（元）", "商家优惠（元）", "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）"),
    *(wire.REQUEST_NO, "服务费（元）", "分润（元）", "备注"),
)


class _Error(Exception):
    def __init__(self, code: str, word: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.word = word


class AlipaySandbox:
    """A `SandboxProtocol`. `public_url` is where the sandbox's approval pages are; `on_trade` is told of every new
    trade, `on_refund` of every new refund."""

    name = "alipay"

    def __init__(
        self,
        *,
        bank: PaymentStore,
        clock: Clock,
        app_id: str,
        seller_id: str,
        sandbox_key: RSAPrivateKey,
        merchant_key: RSAPublicKey,
        on_trade: Callable[[SimulatedTrade], None],
        on_refund: Callable[[SimulatedTrade, SimulatedRefund], None],
        public_url: str,
    ) -> None:
        self._bank = bank
        self._clock = clock
        self._app_id = app_id
        self._seller_id = seller_id
        self._sandbox_key = sandbox_key
        self._merchant_key = merchant_key
        self._on_trade = on_trade
        self._on_refund = on_refund
        self._public_url = public_url.rstrip("/")
        self._methods: dict[str, Callable[[Content, Parameters], Content]] = {
            "alipay.trade.precreate": self._precreate,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._query_refund,
        }

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """`gateway.do`, by GET and by POST, with parameters in the address, the body or both."""
        return [web.get("/gateway.do", self._gateway), web.post("/gateway.do", self._gateway)]

    def callback(self, notice: DueNotice, trade: SimulatedTrade, refund: SimulatedRefund | None) -> Callback:
        """A form. The notify_id is the same each time; notify_time is the time of sending."""
        now = self._clock.now_ms()
        refunded = self._bank.refunded(self.name, trade.out_no)
        status = self._status(trade)
        fields = BUYER | {"app_id": self._app_id, "auth_app_id": self._app_id, "seller_id": self._seller_id}
        fields |= {"notify_id": notice.notice_id, "notify_type": "trade_status_sync", "notify_time": _time(now)}
        fields |= {"charset": "utf-8", "version": "1.0", "sign_type": "RSA2"}
        fields |= {"out_trade_no": trade.out_no, "trade_no": trade.trade_no, "trade_status": status}
        fields |= {"subject": trade.subject, "gmt_create": _time(trade.created_ms)}
        fields["total_amount"] = wire.format_yuan(trade.amount + (notice.wrong == "amount"))
        if trade.paid_ms is not None:
            paid = wire.format_yuan(trade.amount)
            fields |= {"gmt_payment": _time(trade.paid_ms), "receipt_amount": paid, "buyer_pay_amount": paid}
            fields |= {"invoice_amount": paid, "point_amount": "0.00"}
            fields["fund_bill_list"] = json.dumps([{"amount": paid, "fundChannel": "ALIPAYACCOUNT"}])
        if status == "TRADE_CLOSED":
            fields |= {"gmt_close": _time(now), "refund_fee": wire.format_yuan(refunded)}
        if refund is not None:
            fields |= {"out_biz_no": refund.out_refund_no, "refund_fee": wire.format_yuan(refunded)}
            fields["gmt_refund"] = f"{_time(refund.at_ms)}.{refund.at_ms % 1000:03d}"
        content = wire.signing_text(fields, excluded=("sign", "sign_type"))
        fields["sign"] = wire.sign(content + b"!" * (notice.wrong == "signature"), self._sandbox_key)
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        return Callback(headers, urlencode(fields).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Only the word success counts."""
        return status == 200 and body.strip() == b"success"

    def statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        """A 业务明细 file (unpacked; in GB18030 at Alipay). Refunds are negative."""
        times = [trade.paid_ms or 0 for trade in trades] + [refund.at_ms for refund in refunds]
        first, last = (_time(moment) for moment in (min(times), max(times))) if times else ("", "")
        out = io.StringIO()
        out.write("#支付宝业务明细查询\n")
        out.write(f"#账号：[{self._seller_id}0156]\n")
        out.write(f"#起始日期：[{first}]   终止日期：[{last}]\n")
        out.write(f"#{'-' * 41}业务明细列表{'-' * 40}\n")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for trade in trades:
            writer.writerow(_row(trade, wire.PAYMENT, trade.amount, trade.paid_ms or 0))
        for refund in refunds:
            paid = self._bank.trade(self.name, refund.out_no)
            assert paid is not None
            writer.writerow(_row(paid, wire.REFUND, -refund.amount, refund.at_ms, refund.out_refund_no))
        out.write(f"#{'-' * 41}{wire.END}{'-' * 36}\n")
        taken, given = sum(trade.amount for trade in trades), sum(refund.amount for refund in refunds)
        out.write(f"#交易合计：{len(trades)}笔，商家实收共{_signed(taken)}元，商家优惠共0.00元\n")
        out.write(f"#退款合计：{len(refunds)}笔，商家实收退款共{_signed(-given)}元，商家优惠退款共0.00元\n")
        out.write(f"#导出时间：[{_time(self._clock.now_ms())}]\n")
        return out.getvalue()

    # The gateway.

    async def _gateway(self, request: web.Request) -> web.Response:
        pairs = [*request.query.items(), *(await request.post()).items()]
        parameters = {name: value for name, value in pairs if isinstance(value, str)}
        method = parameters.get("method", "")
        try:
            if len(parameters) != len(pairs):
                raise _Error("40002", "isv.invalid-parameter", "a parameter is there twice, or is a file")
            content = self._checked(parameters)
            if method in ("alipay.trade.page.pay", "alipay.trade.app.pay"):
                trade = self._open(content, parameters)
                raise web.HTTPFound(f"{self._public_url}/pay/alipay/{trade.out_no}")
            answer = {"code": "10000", "msg": "Success", **self._methods[method](content, parameters)}
        except PaymentStoreRefusal as refusal:
            answer = _failure("40004", _WORDS[refusal.code], str(refusal))
        except _Error as error:
            answer = _failure(error.code, error.word, str(error))
        if method in _SCENES and method not in self._methods:
            return web.Response(text=f"{answer['sub_code']}: {answer['sub_msg']}")  # a page for the customer's eyes
        node = method.replace(".", "_") + "_response" if method in self._methods else "error_response"
        raw = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
        signature = ""
        if parameters.get("app_id") == self._app_id:  # whose keys to use for a stranger, it could not know
            signature = f',"sign":"{wire.sign(raw.encode(), self._sandbox_key)}"'
        return web.Response(text=f'{{"{node}":{raw}{signature}}}', content_type="text/html", charset="utf-8")

    def _checked(self, parameters: Parameters) -> Content:
        """The request's content, if it is the merchant's and in the right form."""
        for name in _REQUIRED:
            if not parameters.get(name):
                word = {"sign": "signature", "biz_content": "parameter"}.get(name, name.replace("_", "-"))
                raise _Error("40001", f"isv.missing-{word}", f"{name} is missing")
        given = {name: value for name, value in parameters.items() if value}  # empty ones are not signed
        signed = wire.signing_text(given, excluded=("sign",))
        for is_right, word, message in (
            (given["app_id"] == self._app_id, "app-id", "无效的AppID参数"),
            (given["method"] in {*self._methods, *_SCENES}, "method", "不存在的方法名"),
            (given["sign_type"] == "RSA2", "signature-type", "无效签名类型"),
            (wire.is_signed(signed, given["sign"], self._merchant_key), "signature", "验签出错"),
            (given["charset"].lower() == "utf-8", "charset", "字符集错误"),
            (given["version"] == "1.0", "version", "无效的版本"),
        ):
            if not is_right:
                raise _Error("40002", f"isv.invalid-{word}", message)
        try:
            parse_china_time(given["timestamp"])
        except ValueError:
            raise _Error("40002", "isv.invalid-timestamp", "非法的时间戳参数") from None
        try:
            content = json.loads(given["biz_content"])
            if isinstance(content, dict):
                return content
        except ValueError:
            pass
        raise _Error("40002", "isv.invalid-parameter", "biz_content is no JSON object")

    # The methods.

    def _open(self, content: Content, parameters: Parameters) -> SimulatedTrade:
        """Enter a trade, or find it."""
        now = self._clock.now_ms()
        amount, subject, until = _amount(content, "total_amount"), content.get("subject"), content.get("time_expire")
        if not isinstance(subject, str) or not 0 < len(subject) <= 256 or set(subject) & set("/=&"):
            raise _invalid("subject")
        try:
            expires_ms = to_ms(parse_china_time(until)) if until is not None else now + _OPEN_FOR_MS
        except ValueError:
            raise _invalid("time_expire") from None
        if expires_ms <= now:
            raise _Error("40004", "ACQ.INVALID_PARAMETER", "time_expire is over")
        wanted = SimulatedTrade(
            provider=self.name,
            out_no=_number(content, "out_trade_no"),
            trade_no=self._own_number(),
            amount=amount,
            currency=wire.CURRENCY,
            subject=subject,
            scene=_SCENES[parameters["method"]],
            payer=BUYER["buyer_id"],
            notify_url=parameters.get("notify_url", ""),
            state="waiting",
            created_ms=now,
            expires_ms=expires_ms,
        )
        trade = self._bank.open_trade(wanted)
        if trade is wanted:
            self._on_trade(trade)
        elif now >= trade.expires_ms:
            raise PaymentStoreRefusal("closed", "the trade has expired")
        return trade

    def _precreate(self, content: Content, parameters: Parameters) -> Content:
        trade = self._open(content, parameters)
        return {"out_trade_no": trade.out_no, "qr_code": f"{self._public_url}/pay/alipay/{trade.out_no}"}

    def _query(self, content: Content, parameters: Parameters) -> Content:
        trade = self._find(content)
        status = self._status(trade)
        paid = wire.format_yuan(trade.amount if status == "TRADE_SUCCESS" else 0)
        found: Content = {
            "buyer_logon_id": BUYER["buyer_logon_id"],
            "buyer_pay_amount": paid,
            "buyer_user_id": BUYER["buyer_id"],
            "invoice_amount": paid,
            "out_trade_no": trade.out_no,
            "point_amount": "0.00",
            "receipt_amount": paid,
        }
        if trade.paid_ms is not None:
            found["send_pay_date"] = _time(trade.paid_ms)
        return {**found, "total_amount": wire.format_yuan(trade.amount), "trade_no": trade.trade_no, "trade_status": status}

    def _close(self, content: Content, parameters: Parameters) -> Content:
        trade = self._find(content)
        if self._status(trade) != "WAIT_BUYER_PAY":
            raise _Error("40004", "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
        self._bank.close_trade(self.name, trade.out_no)
        return {"out_trade_no": trade.out_no, "trade_no": trade.trade_no}

    def _refund(self, content: Content, parameters: Parameters) -> Content:
        trade, amount = self._find(content), _amount(content, "refund_amount")
        if "out_request_no" not in content and amount != trade.amount:
            raise _Error("40004", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "撤销或退款金额与订单金额不一致")
        out_no = _number(content, "out_request_no") if "out_request_no" in content else trade.out_no
        now = self._clock.now_ms()
        reason = str(content.get("refund_reason", ""))
        wanted = SimulatedRefund(self.name, out_no, trade.out_no, self._own_number(), amount, reason, now)
        try:
            refund = self._bank.refund(wanted)
        except PaymentStoreRefusal as refusal:
            if refusal.code == "other_content":
                raise _Error("40004", "ACQ.DISCORDANT_REPEAT_REQUEST", str(refusal)) from None
            raise
        if refund is wanted:
            self._on_refund(trade, refund)
        return {
            **BUYER,
            "out_trade_no": trade.out_no,
            "trade_no": trade.trade_no,
            "fund_change": "Y" if refund is wanted else "N",
            "refund_fee": wire.format_yuan(self._bank.refunded(self.name, trade.out_no)),
            "gmt_refund_pay": _time(refund.at_ms),
        }

    def _query_refund(self, content: Content, parameters: Parameters) -> Content:
        trade = self._find(content)
        refund = self._bank.refund_of(self.name, _number(content, "out_request_no"))
        if refund is None or refund.out_no != trade.out_no:
            return {}
        return {
            "out_request_no": refund.out_refund_no,
            "out_trade_no": trade.out_no,
            "trade_no": trade.trade_no,
            "refund_amount": wire.format_yuan(refund.amount),
            "refund_status": "REFUND_SUCCESS",
            "total_amount": wire.format_yuan(trade.amount),
        }

    def _find(self, content: Content) -> SimulatedTrade:
        trade = self._bank.trade(self.name, _number(content, "out_trade_no"))
        if trade is None:
            raise PaymentStoreRefusal("no_trade", "交易不存在")
        return trade

    def _status(self, trade: SimulatedTrade) -> str:
        if trade.state == "captured":
            left = trade.amount - self._bank.refunded(self.name, trade.out_no)
            return "TRADE_SUCCESS" if left else "TRADE_CLOSED"
        if trade.state == "closed" or self._clock.now_ms() >= trade.expires_ms:
            return "TRADE_CLOSED"
        return "WAIT_BUYER_PAY"

    def _own_number(self) -> str:
        """As Alipay's look: the day in Shanghai, then 20 digits."""
        day = from_ms(self._clock.now_ms()).astimezone(CHINA)
        return f"{day:%Y%m%d}22001{secrets.randbelow(10**15):015d}"


def _time(ms: int) -> str:
    return format_china_time(from_ms(ms))


def _signed(fen: int) -> str:
    return f"{'-' * (fen < 0)}{wire.format_yuan(abs(fen))}"


def _row(trade: SimulatedTrade, kind: str, fen: int, at_ms: int, request_no: str = "") -> list[str]:
    cells = dict.fromkeys(_COLUMNS, "") | {column: "0.00" for column in _COLUMNS if column.endswith("（元）")}
    cells |= {wire.TRADE_NO: f"{trade.trade_no}\t", wire.OUT_TRADE_NO: f"{trade.out_no}\t", wire.KIND: kind}
    cells |= {"商品名称": " ".join(trade.subject.split()), "对方账户": BUYER["buyer_logon_id"]}
    cells |= {"创建时间": _time(trade.created_ms), "完成时间": _time(at_ms)}
    cells |= {wire.AMOUNT: _signed(fen), "商家实收（元）": _signed(fen)}
    cells[wire.REQUEST_NO] = f"{request_no}\t" if request_no else ""
    return list(cells.values())


def _failure(code: str, word: str, message: str) -> Content:
    return {"code": code, "msg": _MESSAGES[code], "sub_code": word, "sub_msg": message}


def _invalid(name: str) -> _Error:
    return _Error("40004", "ACQ.INVALID_PARAMETER", f"参数无效: {name}")


def _number(content: Content, name: str) -> str:
    number = content.get(name)
    if not isinstance(number, str) or not _OUT_NO.fullmatch(number):
        raise _invalid(name)
    return number


def _amount(content: Content, name: str) -> int:
    try:
        amount = wire.parse_yuan(content.get(name))
    except ValueError:
        raise _invalid(name) from None
    if not 0 < amount <= _MAX_FEN:
        raise _invalid(name)
    return amount
