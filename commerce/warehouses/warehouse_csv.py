"""Reads warehouses and goods from CSV, each wrong line with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from commerce.catalog.product_csv import read_sku
from commerce.kernel.address import COUNTRY, PHONE, Address
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_unsigned, read_rows
from commerce.warehouses.model import ProductLogistics, Warehouse

WAREHOUSE_COLUMNS = ("id", "name", "phone", "country", "city", "line", "latitude", "longitude")
WAREHOUSE_OPTIONAL = ("province", "district", "postcode")
GOODS_COLUMNS = ("sku", "warehouse", "shelf", "weight_g", "length_mm", "width_mm", "height_mm")
MAX_WEIGHT_G, MAX_SIDE_MM = 1_000_000, 10_000
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PHONE, _COUNTRY = re.compile(PHONE), re.compile(COUNTRY)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DEGREES = re.compile(r"-?[0-9]{1,3}(\.[0-9]{1,15})?")


def read_warehouses(lines: Iterable[str]) -> Iterator[tuple[int, Warehouse | LineError]]:
    """The lines of a file of warehouses; their name stands as the sender's. Lines as for `read_rows`."""
    first: dict[str, int] = {}

    def make(line: int, fields: dict[str, str]) -> Warehouse:
        warehouse_id = read_id("id", fields["id"])
        name = _text(fields, "name", 200)
        address = Address(
            name,
            _matching(fields, "phone", _PHONE, "a phone number of 4 to 31 digits, spaces, dashes and brackets"),
            _matching(fields, "country", _COUNTRY, "two capital letters, such as CN"),
            _text(fields, "city", 200),
            _text(fields, "line", 200),
            _text(fields, "province", 200, least=0),
            _text(fields, "district", 200, least=0),
            _text(fields, "postcode", 20, least=0),
        )
        place = _degrees(fields, "latitude", 90), _degrees(fields, "longitude", 180)
        check_unique(first, warehouse_id, line, "warehouse")
        return Warehouse(warehouse_id, name, address, *place)

    return read_rows(lines, WAREHOUSE_COLUMNS, WAREHOUSE_OPTIONAL, make)


def read_goods(lines: Iterable[str]) -> Iterator[tuple[int, ProductLogistics | LineError]]:
    """The lines of a file of goods: grams and millimetres, from 1."""
    first: dict[str, int] = {}

    def make(line: int, fields: dict[str, str]) -> ProductLogistics:
        goods = ProductLogistics(
            read_sku(fields["sku"]),
            read_id("warehouse", fields["warehouse"]),
            _text(fields, "shelf", 32),
            _positive(fields, "weight_g", MAX_WEIGHT_G),
            _positive(fields, "length_mm", MAX_SIDE_MM),
            _positive(fields, "width_mm", MAX_SIDE_MM),
            _positive(fields, "height_mm", MAX_SIDE_MM),
        )
        check_unique(first, goods.sku, line)
        return goods

    return read_rows(lines, GOODS_COLUMNS, (), make)


def read_id(name: str, text: str) -> str:
    """A field that must be a warehouse's id."""
    text = text.strip()
    if not _ID.fullmatch(text):
        raise CsvLineError(f"{name} is {text[:40]!r}, not up to 32 small letters, digits and dashes, no dash first")
    return text


def _text(fields: dict[str, str], name: str, most: int, least: int = 1) -> str:
    text = fields.get(name, "").strip()
    if not least <= len(text) <= most or _CONTROL.search(text):
        raise CsvLineError(f"{name} is not a text of {least} to {most} characters without control characters")
    return text


def _matching(fields: dict[str, str], name: str, pattern: re.Pattern[str], wanted: str) -> str:
    text = fields[name].strip()
    if not pattern.fullmatch(text):
        raise CsvLineError(f"{name} is {text[:40]!r}, not {wanted}")
    return text


def _positive(fields: dict[str, str], name: str, most: int) -> int:
    number = parse_unsigned(name, fields[name], most)
    if number == 0:
        raise CsvLineError(f"{name} is 0, not a whole number from 1 to {most}")
    return number


def _degrees(fields: dict[str, str], name: str, most: int) -> float:
    text = fields[name].strip()
    if not _DEGREES.fullmatch(text) or abs(float(text)) > most:
        raise CsvLineError(f"{name} is {text[:40]!r}, not degrees from -{most} to {most}, such as 30.25")
    return float(text)
