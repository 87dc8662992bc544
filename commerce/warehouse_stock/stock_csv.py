"""Reads counts of stock from CSV; a wrong line becomes a `LineError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from commerce.catalog.variant_csv import read_sku
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_rows
from commerce.warehouse_stock.model import MAX_STOCK_UNITS, WAREHOUSE_PATTERN, CountedStock

_WAREHOUSE = re.compile(WAREHOUSE_PATTERN)


def read_counts(lines: Iterable[str]) -> Iterator[tuple[int, CountedStock | LineError]]:
    """Read a file with the columns warehouse, sku, units, and optionally warn_below; empty: no warning.

    Lines as for `commerce.kernel.csv_rows.read_rows`.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> CountedStock:
        sku, warehouse_id = read_sku(fields["sku"]), fields["warehouse"].strip()
        if not _WAREHOUSE.match(warehouse_id):
            raise CsvLineError(
                f"warehouse is {warehouse_id[:40]!r}, not up to 32 small letters, digits and dashes, no dash first"
            )
        warn_below = fields.get("warn_below", "").strip()
        stock = CountedStock(
            sku,
            warehouse_id,
            parse_unsigned("units", fields["units"], MAX_STOCK_UNITS),
            (parse_unsigned("warn_below", warn_below, MAX_STOCK_UNITS) or None) if warn_below else None,
        )
        check_unique(first_lines, f"{sku} in {warehouse_id}", line)
        return stock

    return read_rows(lines, ("warehouse", "sku", "units"), ("warn_below",), parse)
