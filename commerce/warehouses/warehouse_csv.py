"""Reads warehouses and product logistics from CSV; a wrong line becomes a `LineError`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from commerce.catalog.product_csv import read_sku
from commerce.kernel.address import COUNTRY, PHONE, Address
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_rows
from commerce.warehouses.model import ProductLogistics, Warehouse

WAREHOUSE_COLUMNS = ("id", "name", "phone", "country", "city", "line", "latitude", "longitude")
WAREHOUSE_OPTIONAL = ("province", "district", "postcode")
PRODUCT_COLUMNS = ("sku", "warehouse", "shelf", "weight_g", "length_mm", "width_mm", "height_mm")
MAX_WEIGHT_G, MAX_SIDE_MM = 1_000_000, 10_000
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PHONE, _COUNTRY = re.compile(PHONE), re.compile(COUNTRY)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEGREES = re.compile(r"-?[0-9]{1,3}(\.[0-9]{1,15})?")


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
            phone=_match(fields, "phone", _PHONE, "a phone number of 4 to 31 digits, spaces, dashes and brackets"),
            country=_match(fields, "country", _COUNTRY, "two capital letters, such as CN"),
            city=_parse_text(fields, "city", 200),
            line=_parse_text(fields, "line", 200),
            province=_parse_text(fields, "province", 200, min_chars=0),
            district=_parse_text(fields, "district", 200, min_chars=0),
            postcode=_parse_text(fields, "postcode", 20, min_chars=0),
        )
        coordinates = _degrees(fields, "latitude", 90), _degrees(fields, "longitude", 180)
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


def _parse_text(fields: dict[str, str], name: str, max_chars: int, min_chars: int = 1) -> str:
    text = fields.get(name, "").strip()
    if not min_chars <= len(text) <= max_chars or _CONTROL.search(text):
        raise CsvLineError(f"{name} is not a text of {min_chars} to {max_chars} characters without control characters")
    return text


def _match(fields: dict[str, str], name: str, pattern: re.Pattern[str], expected: str) -> str:
    text = fields[name].strip()
    if not pattern.fullmatch(text):
        raise CsvLineError(f"{name} is {text[:40]!r}, not {expected}")
    return text


def _parse_positive(fields: dict[str, str], name: str, maximum: int) -> int:
    number = parse_unsigned(name, fields[name], maximum)
    if number == 0:
        raise CsvLineError(f"{name} is 0, not a whole number from 1 to {maximum}")
    return number


def _degrees(fields: dict[str, str], name: str, maximum: int) -> float:
    text = fields[name].strip()
    if not _DEGREES.fullmatch(text) or abs(float(text)) > maximum:
        raise CsvLineError(f"{name} is {text[:40]!r}, not degrees from -{maximum} to {maximum}, such as 30.25")
    return float(text)
