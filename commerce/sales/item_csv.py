"""Reads the items of a sale from CSV files."""

from __future__ import annotations

from pathlib import Path

from commerce.catalog.product_csv import read_sku
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_rows
from commerce.kernel.errors import Invalid
from commerce.kernel.money import parse_money
from commerce.sales.model import MAX_UNITS, ItemInput


def read_items(file: Path, currency: str) -> list[tuple[str, ItemInput]]:
    """The items of a CSV file. Raises `Invalid` that lists every wrong line."""
    first: dict[str, int] = {}

    def make(line: int, fields: dict[str, str]) -> tuple[str, ItemInput]:
        sku = read_sku(fields["sku"])
        price, limit = fields.get("price", "").strip(), fields.get("limit", "").strip()
        check_unique(first, sku, line)
        wanted = parse_unsigned("limit", limit, 1_000_000) if limit else None
        if wanted == 0:
            raise CsvLineError("limit is 0: leave it empty for none")
        return sku, ItemInput(
            parse_money(price, currency) if price else None, wanted, parse_unsigned("units", fields["units"], MAX_UNITS)
        )

    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        rows = [row for _, row in read_rows(lines, ("sku", "units"), ("price", "limit"), make)]
    wrong = [row for row in rows if isinstance(row, LineError)]
    if wrong:
        listed = "\n".join(f"  line {row.line}: {row.reason}" for row in wrong[:50])
        raise Invalid(f"{len(wrong)} lines of {file} are wrong:\n{listed}")
    return [row for row in rows if not isinstance(row, LineError)]
