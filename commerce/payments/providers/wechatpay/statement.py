"""WeChat Pay's trade bill of kind ALL, with a line per payment and per refund of a day.

https://pay.weixin.qq.com/doc/v3/merchant/4012791847: comma-separated text with Chinese headings. Each value begins with
a backquote, so a comma inside a value is no separator. The last two lines are headings and sums. Amounts are yuan.
"""

from __future__ import annotations

from commerce.kernel.ids import parse_uuid_hex
from commerce.kernel.money import Money, MoneyError, parse_money
from commerce.payments.fund_lines import read_fee
from commerce.payments.provider_port import StatementLine
from commerce.payments.refund_numbers import read_refund_number

MERCHANT, TRANSACTION, OUT_TRADE, STATE = "商户号", "微信订单号", "商户订单号", "交易状态"
CURRENCY, REFUND, OUT_REFUND, REFUND_STATUS = "货币种类", "微信退款单号", "商户退款单号", "退款状态"
TOTAL, REFUND_TOTAL = "订单金额", "申请退款金额"
FEE = "手续费"
"""without it no fees are read"""
_REQUIRED = (MERCHANT, TRANSACTION, OUT_TRADE, STATE, CURRENCY, REFUND, OUT_REFUND, REFUND_STATUS, TOTAL, REFUND_TOTAL)
SUMMARY = "总交易单数"
"""first heading of the sums"""


def read_statement(text: str, mch_id: str) -> list[StatementLine | str]:
    """Read each line of a bill, or return why it cannot be read.

    `transaction_id` is WeChat Pay's own number of the movement."""
    # `splitlines` would also split at Unicode's other line ends, inside of a product's name.
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    headings = rows[0].split(",")
    missing = [name for name in _REQUIRED if name not in headings]
    if missing:
        return [f"line 1: there is no column {', '.join(missing)}"]
    lines: list[StatementLine | str] = []
    for line_no, row in enumerate(rows[1:], start=2):
        if row.startswith(SUMMARY):
            return lines
        try:
            lines.append(_read_line(row, headings, mch_id))
        except ValueError as error:
            lines.append(f"line {line_no}: {error}")
    return [*lines, f"line {len(rows)}: the sums are missing, so the bill is cut short"]


def _read_line(row: str, headings: list[str], mch_id: str) -> StatementLine:
    if not row.startswith("`"):
        raise ValueError("it does not begin with a backquote")
    values = row[1:].split(",`")
    if len(values) != len(headings):
        raise ValueError(f"it has {len(values)} values, not {len(headings)}")
    cells = dict(zip(headings, values, strict=True))
    if cells[MERCHANT] != mch_id:
        raise ValueError(f"it is of another merchant, {cells[MERCHANT][:40]!r}")
    if cells[CURRENCY] != "CNY":
        raise ValueError(f"the currency is {cells[CURRENCY][:40]!r}, not CNY")
    payment_id = parse_uuid_hex(cells[OUT_TRADE])
    if payment_id is None:
        raise ValueError(f"{cells[OUT_TRADE][:40]!r} is not a number of ours")
    if cells[STATE] == "SUCCESS":
        fee = read_fee(cells.get(FEE, ""), is_refund=False)
        return StatementLine(payment_id, None, _parse_money(cells[TOTAL]), cells[TRANSACTION], fee)
    if cells[STATE] != "REFUND" or cells[REFUND_STATUS] not in ("SUCCESS", "PROCESSING"):
        raise ValueError(f"its state is {cells[STATE][:40]!r}, {cells[REFUND_STATUS][:40]!r}")
    refund_id, hand_number = read_refund_number(payment_id, cells[OUT_REFUND])
    fee = read_fee(cells.get(FEE, ""), is_refund=True)
    return StatementLine(payment_id, refund_id, _parse_money(cells[REFUND_TOTAL]), cells[REFUND], fee, hand_number)


def _parse_money(text: str) -> Money:
    try:
        return Money(parse_money(text, "CNY"), "CNY")
    except MoneyError as error:
        raise ValueError(str(error)) from None
