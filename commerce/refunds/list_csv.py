"""Reads lists of refunds from CSV, and writes the outcome of each row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_rows
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.types import explain_mismatch
from commerce.refunds.model import RefundListReport

COLUMNS = ("row", "order_id")
OPTIONAL = ("line", "quantity", "amount", "reason")
_LINE = re.compile(r"([0-9]{1,5})(?::([0-9]{1,4}))?")
_MAX_QUANTITY = 1_000_000


class ListRow(NamedTuple):
    """A row of a file. `amount` is still text, such as 2.55: its currency is that of the order."""

    row: str
    order_id: UUID
    reason: str
    line: Mapping[str, int] | None
    amount: str | None


def read_refund_list(lines: Sequence[str], reason: str | None, max_rows: int) -> tuple[list[ListRow], list[LineError]]:
    """Read the rows of a list, and the faults of others.

    `reason` is that of rows without one. Raises `UnreadableCsv` if the header is wrong, and `Invalid` if there are more
    than `max_rows` rows.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, values: dict[str, str]) -> ListRow:
        row = _parse(values, reason)
        check_unique(first_lines, row.row, line, "row")
        return row

    rows, errors = list[ListRow](), list[LineError]()
    for _, row in read_rows(lines, COLUMNS, OPTIONAL, parse):
        if len(rows) + len(errors) >= max_rows:
            raise Invalid(f"the list has more than {max_rows} rows: split it, under names of their own")
        if isinstance(row, LineError):
            errors.append(row)
        else:
            rows.append(row)
    return rows, errors


def _parse(values: dict[str, str], reason: str | None) -> ListRow:
    values = {name: value.strip() for name, value in values.items()}
    try:
        order_id = msgspec.convert(values["order_id"], UUID)
    except msgspec.ValidationError as error:
        raise CsvLineError(f"order_id: {explain_mismatch(error)}") from None
    line_text, amount = values.get("line", ""), values.get("amount", "") or None
    if bool(line_text) == bool(amount):
        raise CsvLineError("give line and quantity, or amount")
    line = None
    if line_text:
        match = _LINE.fullmatch(line_text)
        if match is None:
            raise CsvLineError("line: write NO, or NO:ADDRESS for units to one of several addresses")
        quantity = parse_unsigned("quantity", values.get("quantity", ""), _MAX_QUANTITY)
        line = {"line_no": int(match[1]), "ship_to": int(match[2] or 0), "quantity": quantity}
    text = values.get("reason", "") or reason
    if text is None:
        raise CsvLineError("it has no reason: fill the column, or give one for all rows")
    return ListRow(values["row"], order_id, text, line, amount)


def write_report(report: RefundListReport) -> str:
    """Write the outcome of each row as CSV, with amounts such as 2.55."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(("row", "order_id", "outcome", "amount", "currency", "code", "reason"))
    for row in report.rows:
        amount = format_money(row.amount, row.currency).partition(" ")[0] if row.currency else ""
        values = (
            row.row,
            row.order_id or "",
            row.outcome,
            amount,
            row.currency or "",
            row.code or "",
            row.reason or "",
        )
        writer.writerow(values)
    return target.getvalue()
