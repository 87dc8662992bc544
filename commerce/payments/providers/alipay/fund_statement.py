"""Alipay's 账务明细: a line for each change of the account's balance.

Those of kind 提现 are payouts to the bank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from commerce.kernel.china_time import CHINA, parse_china_time
from commerce.payments.fund_lines import FundLine, check_number, parse_signed_fen
from commerce.payments.providers.alipay.statement_rows import read_rows

NUMBER, TIME, KIND = "账务流水号", "发生时间", "业务类型"
INCOME, EXPENSE = "收入金额（+元）", "支出金额（-元）"
PAYOUT = "提现"
END = "账务明细列表结束"
_REQUIRED = (NUMBER, TIME, KIND, INCOME, EXPENSE)


def read_fund_lines(text: str) -> Iterator[FundLine | str]:
    """Return the lines of a file that is unpacked and decoded, or why one cannot be read."""
    return read_rows(text, _REQUIRED, END, _read_line)


def _read_line(row: Mapping[str, str]) -> FundLine:
    number = check_number(row[NUMBER], NUMBER)
    booked_on = parse_china_time(row[TIME]).astimezone(CHINA).date()
    change_minor = abs(parse_signed_fen(row[INCOME])) - abs(parse_signed_fen(row[EXPENSE]))
    return FundLine(number, row[KIND], booked_on, change_minor)
