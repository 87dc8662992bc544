"""WeChat Pay's trade bill of kind ALL, one line for each payment and each refund of a day.

https://pay.weixin.qq.com/doc/v3/merchant/4012791847: comma-separated text with Chinese headings; each value begins with
a backquote, so a comma inside a value is no separator; at the end a line of headings and one of sums. Amounts are yuan.
"""

from __future__ import annotations

from commerce.kernel.ids import parse_uuid_hex
from commerce.kernel.money import Money, MoneyError, parse_money
from commerce.payments.provider_port import StatementLine

MERCHANT, TRANSACTION, OUT_TRADE, STATE = "商户号", "微信订单号", "商户订单号", "交易状态"
CURRENCY, REFUND, OUT_REFUND, REFUND_STATUS = "货币种类", "微信退款单号", "商户退款单号", "退款状态"
TOTAL, REFUND_TOTAL = "订单金额", "申请退款金额"
_NEEDED = (MERCHANT, TRANSACTION, OUT_TRADE, STATE, CURRENCY, REFUND, OUT_REFUND, REFUND_STATUS, TOTAL, REFUND_TOTAL)
SUMMARY = "总交易单数"
"""How the headings of the sums begin."""


def read_statement(text: str, mch_id: str) -> list[StatementLine | str]:
    """Each line of a bill, or why it cannot be read. `transaction_id` is WeChat Pay's number of that very movement."""
    # Not `splitlines`, which would also cut at line ends that only Unicode knows, inside of a product's name.
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    headings = rows[0].split(",")
    missing = [name for name in _NEEDED if name not in headings]
    if missing:
        return [f"line 1: there is no column {', '.join(missing)}"]
    found: list[StatementLine | str] = []
    for at, row in enumerate(rows[1:], start=2):
        if row.startswith(SUMMARY):
            return found
        try:
            found.append(_line(row, headings, mch_id))
        except ValueError as why:
            found.append(f"line {at}: {why}")
    return [*found, f"line {len(rows)}: the sums are missing, so the bill was cut short"]


def _line(row: str, headings: list[str], mch_id: str) -> StatementLine:
    if not row.startswith("`"):
        raise ValueError("it does not begin with a backquote")
    values = row[1:].split(",`")
    if len(values) != len(headings):
        raise ValueError(f"it has {len(values)} values, not {len(headings)}")
    value = dict(zip(headings, values, strict=True))
    if value[MERCHANT] != mch_id:
        raise ValueError(f"it is of another merchant, {value[MERCHANT][:40]!r}")
    if value[CURRENCY] != "CNY":
        raise ValueError(f"the currency is {value[CURRENCY][:40]!r}, not CNY")
    payment_id = parse_uuid_hex(value[OUT_TRADE])
    if payment_id is None:
        raise ValueError(f"{value[OUT_TRADE][:40]!r} is not a number of ours")
    if value[STATE] == "SUCCESS":
        return StatementLine(payment_id, None, _money(value[TOTAL]), value[TRANSACTION])
    if value[STATE] != "REFUND" or value[REFUND_STATUS] not in ("SUCCESS", "PROCESSING"):
        raise ValueError(f"its state is {value[STATE][:40]!r}, {value[REFUND_STATUS][:40]!r}")
    refund_id = parse_uuid_hex(value[OUT_REFUND])
    if refund_id is None:
        raise ValueError(f"{value[OUT_REFUND][:40]!r} is not a number of ours")
    return StatementLine(payment_id, refund_id, _money(value[REFUND_TOTAL]), value[REFUND])


def _money(text: str) -> Money:
    try:
        return Money(parse_money(text, "CNY"), "CNY")
    except MoneyError as why:
        raise ValueError(str(why)) from None
