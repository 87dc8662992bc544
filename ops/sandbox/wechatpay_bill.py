"""WeChat Pay's trade bill of kind ALL.

The format is that of https://pay.weixin.qq.com/doc/v3/merchant/4012791847. Values begin with a backquote; amounts are
yuan, times those of China.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from commerce.kernel.china_time import format_china_time
from commerce.kernel.clock import from_ms
from commerce.payments.providers.wechatpay import statement as bill
from ops.sandbox.payment_store import SimulatedRefund, SimulatedTrade

TYPES = {"qr": "NATIVE", "jsapi": "JSAPI", "mobile_page": "MWEB", "app": "APP"}
HEADINGS = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,"
    "应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,"
    "手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMS = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
_AMOUNT_HEADINGS = ("应结订单金额", "代金券金额", "退款金额", "充值券退款金额", bill.TOTAL, bill.REFUND_TOTAL)


def write_bill(movements: Iterable[tuple[SimulatedTrade, SimulatedRefund | None]], app_id: str, mch_id: str) -> str:
    """Return a line for each payment (a trade without a refund) and each refund, then the sums."""
    lines, total, refunded = [HEADINGS], 0, 0
    for trade, refund in movements:
        lines.append(_format_values(_build_row(trade, refund, app_id, mch_id)))
        total += 0 if refund else trade.amount
        refunded += refund.amount if refund else 0
    count, total_yuan, refunded_yuan = str(len(lines) - 1), _format_yuan(total), _format_yuan(refunded)
    sums = [count, total_yuan, refunded_yuan, "0.00", "0.00000", total_yuan, refunded_yuan]
    lines += [SUMS, _format_values(sums)]
    return "".join(f"{line}\r\n" for line in lines)


def _build_row(trade: SimulatedTrade, refund: SimulatedRefund | None, app_id: str, mch_id: str) -> Sequence[str]:
    at_ms = refund.at_ms if refund else trade.paid_ms
    assert at_ms is not None, "a statement holds paid trades only"
    row = dict.fromkeys(HEADINGS.split(","), "") | dict.fromkeys(_AMOUNT_HEADINGS, "0.00")
    row |= {"交易时间": format_china_time(from_ms(at_ms)), "公众账号ID": app_id}
    row |= {bill.MERCHANT: mch_id, "特约商户号": "0", bill.TRANSACTION: trade.trade_no, bill.OUT_TRADE: trade.out_no}
    row |= {"用户标识": trade.payer, "交易类型": TYPES[trade.flow], "付款银行": "OTHERS", bill.CURRENCY: "CNY"}
    row |= {"商品名称": re.sub(r"[`\s]+", " ", trade.subject), "手续费": "0.00000", "费率": "0.00%"}
    if refund is None:
        row |= {bill.STATE: "SUCCESS", bill.REFUND: "0", bill.OUT_REFUND: "0"}
        row |= {"应结订单金额": _format_yuan(trade.amount), bill.TOTAL: _format_yuan(trade.amount)}
    else:
        row |= {bill.STATE: "REFUND", bill.REFUND: refund.refund_no, bill.OUT_REFUND: refund.out_refund_no}
        row |= {"退款类型": "ORIGINAL", bill.REFUND_STATUS: "SUCCESS"}
        row |= {"退款金额": _format_yuan(refund.amount), bill.REFUND_TOTAL: _format_yuan(refund.amount)}
    return list(row.values())


def _format_yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02}"


def _format_values(values: Sequence[str]) -> str:
    return ",".join(f"`{value}" for value in values)
