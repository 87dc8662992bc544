"""Reads the items of a sale from CSV files."""

from __future__ import annotations

from pathlib import Path

from commerce.catalog.variant_csv import read_sku
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_lines, read_rows
from commerce.kernel.errors import Invalid
from commerce.kernel.money import parse_money
from commerce.sales.model import MAX_UNITS, ItemInput

_MAX_LIMIT = 1_000_000
_MAX_REPORTED_LINES = 50


def read_items(file: Path, currency: str) -> list[tuple[str, ItemInput]]:
    """Read items by SKU from a file with the columns sku, units and optionally price and limit_per_user.

    Raises `Invalid` that lists the wrong lines, `UnreadableCsv` if the file or its header is wrong.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> tuple[str, ItemInput]:
        sku = read_sku(fields["sku"])
        check_unique(first_lines, sku, line)
        price, limit = fields.get("price", "").strip(), fields.get("limit_per_user", "").strip()
        return sku, ItemInput(
            price=parse_money(price, currency) if price else None,
            limit_per_user=_parse_limit(limit) if limit else None,
            units=parse_unsigned("units", fields["units"], MAX_UNITS),
        )

    rows = [row for _, row in read_rows(read_lines(file), ("sku", "units"), ("price", "limit_per_user"), parse)]
    errors = [row for row in rows if isinstance(row, LineError)]
    if errors:
        details = "\n".join(f"  line {error.line}: {error.reason}" for error in errors[:_MAX_REPORTED_LINES])
        raise Invalid(f"cannot read items from {file}: {len(errors)} lines are wrong\n{details}")
    return [row for row in rows if not isinstance(row, LineError)]


def _parse_limit(text: str) -> int:
    limit = parse_unsigned("limit_per_user", text, _MAX_LIMIT)
    if limit == 0:
        raise CsvLineError("limit_per_user is 0: leave it empty for no limit")
    return limit
