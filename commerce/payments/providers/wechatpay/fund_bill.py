"""WeChat Pay's bill of funds (资金账单). Those of kind 提现 are payouts to the bank.

The form is that of the trade bill: comma-separated, Chinese headings, a backquote before each value, sums at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from commerce.kernel.china_time import CHINA, parse_china_time
from commerce.payments.fund_lines import FundLine, check_number, parse_signed_fen

TIME, NUMBER, KIND, DIRECTION, AMOUNT = "记账时间", "资金流水单号", "业务类型", "收支类型", "收支金额"
INCOME, EXPENSE = "收入", "支出"
PAYOUT = "提现"
SUMMARY = "资金流水总笔数"
"""first heading of the sums"""


def read_fund_lines(text: str) -> Iterator[FundLine | str]:
    """Yield the lines of a bill, or why one cannot be read."""
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n").split("\n")
    headings = [heading.partition("（")[0].partition("(")[0].strip() for heading in rows[0].split(",")]
    if missing := [name for name in (TIME, NUMBER, KIND, DIRECTION, AMOUNT) if name not in headings]:
        yield f"line 1: there is no column {', '.join(missing)}"
        return
    for line_no, row in enumerate(rows[1:], start=2):
        if row.startswith(SUMMARY):
            return
        try:
            yield _read_line(row, headings)
        except ValueError as error:
            yield f"line {line_no}: {error}"
    yield f"line {len(rows)}: the sums are missing, so the bill is cut short"


def _read_line(row: str, headings: list[str]) -> FundLine:
    if not row.startswith("`"):
        raise ValueError("it does not begin with a backquote")
    values = [value.strip() for value in row[1:].split(",`")]
    if len(values) != len(headings):
        raise ValueError(f"it has {len(values)} values, not {len(headings)}")
    cells = dict(zip(headings, values, strict=True))
    signs = {INCOME: 1, EXPENSE: -1}
    if cells[DIRECTION] not in signs:
        raise ValueError(f"{DIRECTION} {cells[DIRECTION][:40]!r} is neither {INCOME} nor {EXPENSE}")
    number = check_number(cells[NUMBER], NUMBER)
    booked_on = parse_china_time(cells[TIME]).astimezone(CHINA).date()
    change_minor = signs[cells[DIRECTION]] * abs(parse_signed_fen(cells[AMOUNT]))
    return FundLine(number, cells[KIND], booked_on, change_minor)
