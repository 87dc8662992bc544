"""Reads products from CSV: a line per variant; the first line of a product has its own values, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from commerce.categories.model import AttributeId
from commerce.kernel.csv_records import CsvRecord, CsvRecordReader, NumberedLine
from commerce.kernel.languages import LanguageTag
from commerce.kernel.text_files import has_surrogates
from commerce.product_imports.model import Cell, Fault, ImportedProduct, ImportedVariant, ProductLines

SEPARATOR = "|"
"""stands between options, and between choices of an attribute"""
PRODUCT_COLUMNS = ("status", "category_id", "brand", "options")
VARIANT_COLUMNS = ("variant_name", "price", "currency", "barcode")
TEXT_COLUMNS = ("name", "description", "search_words")
_PLAIN = ("product_id", *PRODUCT_COLUMNS, "sku", *VARIANT_COLUMNS)
_PREFIXED = re.compile(r"(name|description|search_words|attribute|option):(.+)")
_COLUMN_HELP = (
    f"the columns are {', '.join(_PLAIN)}, name:LANGUAGE, description:LANGUAGE, search_words:LANGUAGE, attribute:ID "
    "and option:ID"
)


class ProductHeader(NamedTuple):
    """The names of the columns, the line on which they stand, and the lines up to there."""

    columns: list[str]
    line: int
    last_line: int
    blank: int
    faults: list[Fault]


def read_header(lines: Iterable[NumberedLine]) -> ProductHeader:
    """Read the columns of a file, with what is wrong with them."""
    reader, blank = CsvRecordReader(lines), 0
    while (record := reader.read()) is not None and not record.fields and not record.reason:
        blank += 1
    if record is None:
        return ProductHeader([], blank + 1, blank, blank, [Fault(1, "", f"the file has no header; {_COLUMN_HELP}")])
    last_line = record.line + record.line_count - 1
    if record.reason:
        return ProductHeader([], record.line, last_line, blank, [Fault(record.fault_line, "", record.reason)])
    columns = [_normalise(name) for name in record.fields]
    while columns and not columns[-1]:
        columns.pop()
    faults = [
        Fault(record.line, name, reason) for place, name in enumerate(columns) if (reason := _check(columns, place))
    ]
    if "product_id" not in columns:
        faults.append(Fault(record.line, "product_id", f"the column product_id is missing; {_COLUMN_HELP}"))
    elif "sku" not in columns and (of_variant := [name for name in columns if name in VARIANT_COLUMNS]):
        faults.append(Fault(record.line, "sku", f"the column sku is missing, to which {of_variant[0]} belongs"))
    return ProductHeader(columns, record.line, last_line, blank, faults)


def _normalise(name: str) -> str:
    """Return a name of a column without case, which only the tag of a language has."""
    kind, colon, rest = name.strip().partition(":")
    return kind.strip().lower() + colon + rest.strip()


def _check(columns: list[str], place: int) -> str:
    name = columns[place]
    if name in columns[:place]:
        return f"the column {name[:80]} is there twice: leave out one"
    if name in _PLAIN:
        return ""
    match = _PREFIXED.fullmatch(name)
    kind: Any = LanguageTag if match and match[1] in TEXT_COLUMNS else AttributeId
    try:
        if match:
            msgspec.convert(match[2], kind)
            return ""
    except msgspec.ValidationError:
        pass
    return f"there is no column {name[:80]!r}; {_COLUMN_HELP}"


def read_products(lines: Iterable[NumberedLine], columns: list[str]) -> Iterator[ProductLines]:
    """Yield the products of a file after its header; the lines of one stand together.

    What cannot be read belongs to the product whose lines are before and after it, or else to none.
    """
    reader, group, held = CsvRecordReader(lines), _Group(), list[CsvRecord]()
    while (record := reader.read(len(columns))) is not None:
        if not record.fields:
            if group.records:
                held.append(record)
            else:
                yield _build_alone(record)
            continue
        values = dict(zip(columns, record.fields, strict=True))
        if group.records and values["product_id"].strip() != group.product_id:
            yield group.build()
            yield from map(_build_alone, held)
            group, held = _Group(), []
        for between in held:
            group.add_between(between)
        held = []
        group.add(record, values)
    if group.records:
        yield group.build()
    yield from map(_build_alone, held)


def _build_alone(record: CsvRecord) -> ProductLines:
    """Return what is of no product: a blank line, or lines that cannot be read."""
    last_line = record.line + record.line_count - 1
    if not record.reason:
        return ProductLines([], last_line, record.line_count, None, [])
    return ProductLines([record.line], last_line, 0, None, [Fault(record.line, "", record.reason)])


class _Group:
    """The lines of one product."""

    def __init__(self) -> None:
        self.product_id = ""
        self.records: list[int] = []
        self._blank = 0
        self._last_line = 0
        self._product: ImportedProduct | None = None
        self._first_values: dict[str, str] = {}
        self._faults: list[Fault] = []
        self._skus: dict[str, int] = {}

    def add_between(self, record: CsvRecord) -> None:
        """Add a blank line, or one that cannot be read: the product is not whole without it."""
        self._last_line = record.line + record.line_count - 1
        if record.reason:
            self.records.append(record.line)
            self._faults.append(Fault(record.line, "", record.reason))
        else:
            self._blank += record.line_count

    def add(self, record: CsvRecord, values: dict[str, str]) -> None:
        line = record.line
        self.records.append(line)
        self._last_line = line + record.line_count - 1
        self._faults += [Fault(line, name, "it is not UTF-8") for name, text in values.items() if has_surrogates(text)]
        if self._product is None:
            self.product_id = values["product_id"].strip()
            self._first_values = values
            self._product = _to_product(line, self.product_id, values)
        else:
            self._check_repeated(line, values)
        if sku := values.get("sku", "").strip():
            first = self._skus.setdefault(sku, line)
            if first != line:
                self._faults.append(Fault(line, "sku", f"the SKU {sku[:80]} is on line {first} already"))
            self._product.variants.append(_to_variant(line, sku, values))
        elif filled := [name for name in VARIANT_COLUMNS if values.get(name, "").strip()]:
            self._faults.append(Fault(line, "sku", f"it is empty, and {filled[0]} belongs to a variant"))
        elif len(self.records) > 1 and "sku" in values:
            self._faults.append(Fault(line, "sku", "it is empty: a further line of a product is a variant"))

    def _check_repeated(self, line: int, values: dict[str, str]) -> None:
        """A further line of a product may leave its own values out, or repeat them."""
        assert self._product is not None
        first = self._product
        for name, text in values.items():
            match = _PREFIXED.fullmatch(name)
            if not text.strip() or name in ("product_id", "sku", *VARIANT_COLUMNS) or (match and match[1] == "option"):
                continue
            if text != self._first_values.get(name, ""):
                reason = f"it differs from line {first.line}, which has the values of the product: leave it empty"
                self._faults.append(Fault(line, name, reason))

    def build(self) -> ProductLines:
        if self._product is not None and not self.product_id:
            self._faults.append(Fault(self._product.line, "product_id", "it is empty"))
        return ProductLines(self.records, self._last_line, self._blank, self._product, self._faults)


def split_list(text: str) -> list[str]:
    """Split a cell with several values."""
    return [part for part in map(str.strip, text.split(SEPARATOR)) if part]


def _to_product(line: int, product_id: str, row: dict[str, str]) -> ImportedProduct:
    values: dict[str, Any] = {}
    for name in PRODUCT_COLUMNS:
        if name in row:
            text = row[name].strip()
            values[name] = split_list(text) if name == "options" else text or None
    if values.get("status", "") is None:
        del values["status"]  # to leave it empty is to leave it as it is
    texts: dict[str, dict[str, Any] | None] = {}
    attributes: dict[str, Any] = {}
    for name, text in row.items():
        if (match := _PREFIXED.fullmatch(name)) is None:
            continue
        kind, key = match.groups()
        if kind == "attribute":
            attributes[key] = Cell(text) if text.strip() else None
        elif kind != "option":
            words = texts.setdefault(key, {})
            assert words is not None
            words[kind] = [word for word in text.split("\n") if word] if kind == "search_words" else (text or None)
    return ImportedProduct(line, product_id, values, texts, attributes, [])


def _to_variant(line: int, sku: str, row: dict[str, str]) -> ImportedVariant:
    values: dict[str, Any] = {}
    if row.get("variant_name", "").strip():
        values["name"] = row["variant_name"]
    for name in ("price", "currency"):
        if row.get(name, "").strip():
            values[name] = row[name].strip()
    if "barcode" in row:
        values["barcode"] = row["barcode"].strip() or None
    options = {name.removeprefix("option:"): Cell(text) for name, text in row.items() if name.startswith("option:")}
    if options:
        values["option_values"] = {name: text if text.strip() else None for name, text in options.items()}
    return ImportedVariant(line, sku, values)
