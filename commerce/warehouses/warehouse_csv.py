"""Reads warehouses and product logistics from CSV; a wrong line becomes a `LineError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from commerce.catalog.variant_csv import read_sku
from commerce.kernel.address import Address, address_errors
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_degrees, parse_unsigned, read_rows
from commerce.kernel.types import CONTROL, is_filled
from commerce.warehouses.model import ProductLogistics, Warehouse

WAREHOUSE_COLUMNS = ("id", "name", "phone", "country", "city", "line", "latitude", "longitude")
WAREHOUSE_OPTIONAL = ("province", "district", "postcode")
PRODUCT_COLUMNS = ("sku", "warehouse", "shelf", "weight_g", "length_mm", "width_mm", "height_mm")
MAX_WEIGHT_G, MAX_SIDE_MM = 1_000_000, 10_000
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_CONTROL = re.compile(f"[{CONTROL}]")


def read_warehouses(lines: Iterable[str]) -> Iterator[tuple[int, Warehouse | LineError]]:
    """Read a file of warehouses.

    The name becomes the sender's. Lines as for `commerce.kernel.csv_rows.read_rows`.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> Warehouse:
        warehouse_id = read_warehouse_id("id", fields["id"])
        name = _parse_text(fields, "name", 200)
        address = Address(
            name=name,
            phone=fields["phone"].strip(),
            country=fields["country"].strip(),
            city=_parse_text(fields, "city", 200),
            line=_parse_text(fields, "line", 200),
            province=_parse_text(fields, "province", 200, required=False),
            district=_parse_text(fields, "district", 200, required=False),
            postcode=_parse_text(fields, "postcode", 20, required=False),
        )
        for field, error in address_errors(address):
            raise CsvLineError(f"{field} is {fields[field][:40]!r}: {error}")
        coordinates = (
            parse_degrees("latitude", fields["latitude"], 90),
            parse_degrees("longitude", fields["longitude"], 180),
        )
        check_unique(first_lines, warehouse_id, line, "warehouse")
        return Warehouse(warehouse_id, name, address, *coordinates)

    return read_rows(lines, WAREHOUSE_COLUMNS, WAREHOUSE_OPTIONAL, parse)


def read_product_logistics(lines: Iterable[str]) -> Iterator[tuple[int, ProductLogistics | LineError]]:
    """Read a file of product logistics: whole grams and millimetres, from 1."""
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> ProductLogistics:
        product = ProductLogistics(
            sku=read_sku(fields["sku"]),
            warehouse_id=read_warehouse_id("warehouse", fields["warehouse"]),
            shelf=_parse_text(fields, "shelf", 32),
            weight_g=_parse_positive(fields, "weight_g", MAX_WEIGHT_G),
            length_mm=_parse_positive(fields, "length_mm", MAX_SIDE_MM),
            width_mm=_parse_positive(fields, "width_mm", MAX_SIDE_MM),
            height_mm=_parse_positive(fields, "height_mm", MAX_SIDE_MM),
        )
        check_unique(first_lines, product.sku, line)
        return product

    return read_rows(lines, PRODUCT_COLUMNS, (), parse)


def read_warehouse_id(name: str, text: str) -> str:
    """Parse the id of a warehouse; `name` is the column. Raises `CsvLineError`."""
    text = text.strip()
    if not _ID.fullmatch(text):
        raise CsvLineError(f"{name} is {text[:40]!r}, not up to 32 small letters, digits and dashes, no dash first")
    return text


def _parse_text(fields: dict[str, str], name: str, max_chars: int, *, required: bool = True) -> str:
    text = fields.get(name, "").strip()
    if len(text) > max_chars or _CONTROL.search(text):
        raise CsvLineError(f"{name} is not a text of up to {max_chars} characters without control characters")
    if required and not is_filled(text):
        raise CsvLineError(f"{name} is {text[:40]!r}: it needs at least one letter or digit")
    return text


def _parse_positive(fields: dict[str, str], name: str, maximum: int) -> int:
    number = parse_unsigned(name, fields[name], maximum)
    if number == 0:
        raise CsvLineError(f"{name} is 0, not a whole number from 1 to {maximum}")
    return number
