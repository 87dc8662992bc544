"""Alipay's statement of kind 业务明细 as text; Alipay sends it packed, in GB18030. Refunds are negative."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from commerce.kernel.china_time import format_china_time
from commerce.kernel.clock import from_ms
from commerce.payments.providers.alipay import wire
from ops.sandbox.payment_store import SimulatedRefund, SimulatedTrade

_COLUMNS = (
    *(wire.TRADE_NO, wire.OUT_TRADE_NO, wire.KIND, "商品名称", "创建时间", "完成时间", "门店编号", "门店名称"),
    *("操作员", "终端号", "对方账户", wire.AMOUNT, "商家实收（元）", "支付宝红包（元）", "集分宝（元）"),
    *("支付宝优惠（元）", "商家优惠（元）", "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）"),
    *(wire.REQUEST_NO, "服务费（元）", "分润（元）", "备注"),
)


def write_statement(
    movements: Sequence[tuple[SimulatedTrade, SimulatedRefund | None]], account: str, customer: str, now_ms: int
) -> str:
    """Return a line for each payment (a trade without a refund) and each refund, then the sums."""
    times = [_movement_ms(trade, refund) for trade, refund in movements]
    first, last = (_format_time(moment) for moment in (min(times), max(times))) if times else ("", "")
    out = io.StringIO()
    out.write("#支付宝业务明细查询\n")
    out.write(f"#账号：[{account}]\n")
    out.write(f"#起始日期：[{first}]   终止日期：[{last}]\n")
    out.write(f"#{'-' * 41}业务明细列表{'-' * 40}\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_build_row(trade, refund, customer) for trade, refund in movements)
    out.write(f"#{'-' * 41}{wire.END}{'-' * 36}\n")
    captures = [trade.amount for trade, refund in movements if refund is None]
    refunds = [refund.amount for _, refund in movements if refund is not None]
    captured, refunded = _format_signed(sum(captures)), _format_signed(-sum(refunds))
    out.write(f"#交易合计：{len(captures)}笔，商家实收共{captured}元，商家优惠共0.00元\n")
    out.write(f"#退款合计：{len(refunds)}笔，商家实收退款共{refunded}元，商家优惠退款共0.00元\n")
    out.write(f"#导出时间：[{_format_time(now_ms)}]\n")
    return out.getvalue()


def _movement_ms(trade: SimulatedTrade, refund: SimulatedRefund | None) -> int:
    return refund.at_ms if refund else trade.paid_ms or 0


def _build_row(trade: SimulatedTrade, refund: SimulatedRefund | None, customer: str) -> list[str]:
    amount = _format_signed(-refund.amount if refund else trade.amount)
    cells = dict.fromkeys(_COLUMNS, "") | {column: "0.00" for column in _COLUMNS if column.endswith("（元）")}
    cells |= {wire.TRADE_NO: f"{trade.trade_no}\t", wire.OUT_TRADE_NO: f"{trade.out_no}\t"}
    cells |= {wire.KIND: wire.REFUND if refund else wire.PAYMENT}
    cells |= {"商品名称": " ".join(trade.subject.split()), "对方账户": customer}
    cells |= {"创建时间": _format_time(trade.created_ms), "完成时间": _format_time(_movement_ms(trade, refund))}
    cells |= {wire.AMOUNT: amount, "商家实收（元）": amount}
    cells[wire.REQUEST_NO] = f"{refund.out_refund_no}\t" if refund else ""
    return list(cells.values())


def _format_signed(fen: int) -> str:
    return f"{'-' * (fen < 0)}{wire.format_yuan(abs(fen))}"


def _format_time(ms: int) -> str:
    return format_china_time(from_ms(ms))
