"""Reads variants from CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from commerce.catalog.model import Sku, VariantInput
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, read_rows
from commerce.kernel.money import parse_money
from commerce.kernel.spreadsheets import explain_scientific
from commerce.kernel.types import Name


def read_variants(lines: Iterable[str]) -> Iterator[tuple[int, tuple[str, VariantInput] | LineError]]:
    """Read lines with the columns sku, name, price (2.55) and currency (GBP), as `read_rows` does."""
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> tuple[str, VariantInput]:
        sku = read_sku(fields["sku"])
        currency = fields["currency"].strip()
        price = parse_money(fields["price"], currency)
        try:
            name = msgspec.convert(fields["name"].strip(), Name)
        except msgspec.ValidationError:
            raise CsvLineError(
                "name has no letter or digit, is longer than 200 characters, or has control characters"
            ) from None
        check_unique(first_lines, sku, line)
        return sku, VariantInput(name, price, currency)

    return read_rows(lines, ("sku", "name", "price", "currency"), (), parse)


def read_sku(text: str) -> str:
    """Read a field that holds a SKU. Raises `CsvLineError` if it is none."""
    if reason := explain_scientific(text):
        raise CsvLineError(f"sku: {reason}")
    try:
        return msgspec.convert(text.strip(), Sku)
    except msgspec.ValidationError:
        raise CsvLineError(
            f"sku is {text[:40]!r}, not up to 64 letters, digits, dots, dashes and underscores that start with "
            "a letter or digit"
        ) from None
