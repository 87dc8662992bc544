"""Alipay's 账务明细: a line for each change of the account's balance.

Those of kind 提现 are payouts to the bank.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from commerce.kernel.china_time import CHINA, parse_china_time
from commerce.payments.fund_lines import FundLine, check_number, parse_signed_fen

NUMBER, TIME, KIND = "账务流水号", "发生时间", "业务类型"
INCOME, EXPENSE = "收入金额（+元）", "支出金额（-元）"
PAYOUT = "提现"
END = "账务明细列表结束"
_REQUIRED = (NUMBER, TIME, KIND, INCOME, EXPENSE)


def read_fund_lines(text: str) -> Iterator[FundLine | str]:
    """Yield the lines of a file that is unpacked and decoded, or why one cannot be read."""
    headings: list[str] = []
    line_no, ended = 0, False
    for line_no, padded in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = padded.strip()
        if not line or line.startswith("#"):
            ended = ended or END in line
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if not headings:
                headings = cells
                if missing := [name for name in _REQUIRED if name not in cells]:
                    yield f"line {line_no}: no column {', '.join(missing)}, so nothing below can be read"
                    return
                continue
            yield _read_line(dict(zip(headings, cells, strict=True)))
        except (ValueError, csv.Error) as reason:
            yield f"line {line_no}: {reason}"
    if not ended:
        yield f"line {line_no}: the statement is cut short, {END} is missing"


def _read_line(row: dict[str, str]) -> FundLine:
    number = check_number(row[NUMBER], NUMBER)
    booked_on = parse_china_time(row[TIME]).astimezone(CHINA).date()
    change_minor = abs(parse_signed_fen(row[INCOME])) - abs(parse_signed_fen(row[EXPENSE]))
    return FundLine(number, row[KIND], booked_on, change_minor)
