"""Reads CSV files line by line; a wrong line becomes a `LineError` and does not stop the import."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from commerce.kernel.errors import UnreadableCsv
from commerce.kernel.money import MoneyError

Row = TypeVar("Row")
MAX_FIELD_CHARS = 10_000


class LineError(msgspec.Struct, frozen=True):
    """A line that was not imported; `line` counts from 1 and the header is line 1."""

    line: int
    reason: str


class ImportReport(msgspec.Struct):
    """The counts of an import, and the lines that were not imported."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    errors: list[LineError] = msgspec.field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.added + self.changed + self.unchanged + len(self.errors)


class CsvLineError(ValueError):
    """One line is invalid; the text is the reason."""


def read_rows(
    lines: Iterable[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    parse: Callable[[int, dict[str, str]], Row],
) -> Iterator[tuple[int, Row | LineError]]:
    """Yield (line number, result of `parse` or its `LineError`) for each line after the header.

    Open the file with `errors="surrogateescape"`, so that bytes that are not UTF-8 become an error of their line and do
    not end the import. Raises `UnreadableCsv` if the header lacks a column or has an unknown one.
    """
    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(lines, strict=True)
    header = _header(reader, columns, optional)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, LineError(line, f"not CSV: {error}")
            continue
        if not fields:
            continue
        try:
            if len(fields) != len(header):
                raise CsvLineError(f"{len(fields)} fields where the header has {len(header)}")
            for name, value in zip(header, fields, strict=True):
                if any("\ud800" <= char <= "\udfff" for char in value):
                    raise CsvLineError(f"{name} is not UTF-8")
            yield line, parse(line, dict(zip(header, fields, strict=True)))
        except (CsvLineError, MoneyError) as error:
            yield line, LineError(line, str(error))


def _header(reader: Iterator[list[str]], columns: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    try:
        header = [name.strip().removeprefix("\ufeff").lower() for name in next(reader)]
    except (StopIteration, csv.Error):
        raise UnreadableCsv(
            f"cannot read the file: it has no header line; it needs the columns {', '.join(columns)}"
        ) from None
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns + optional]
    if missing or unknown or len(set(header)) != len(header):
        also = f" and may have {', '.join(optional)}" if optional else ""
        raise UnreadableCsv(
            f"cannot read the file: its header is {','.join(header)}; it needs the columns {', '.join(columns)}{also}"
        )
    return header


def parse_unsigned(name: str, text: str, maximum: int) -> int:
    """Parse a whole number from 0 to `maximum`. Raises `CsvLineError` otherwise."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) > maximum:
        raise CsvLineError(f"{name} is {text[:40]!r}, not a whole number from 0 to {maximum}")
    return int(text)


def check_unique(first_lines: dict[str, int], value: str, line: int, label: str = "SKU") -> None:
    """Raise `CsvLineError` if an earlier line has the same key, because either could be the intended one.

    `first_lines` maps keys to lines; it is updated. `label` names the key in the error.
    """
    first_line = first_lines.setdefault(value, line)
    if first_line != line:
        raise CsvLineError(f"the {label} {value} is on line {first_line} already")
