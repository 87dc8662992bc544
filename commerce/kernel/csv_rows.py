"""Reads CSV files line by line and says of each wrong one what is wrong. A file is never refused for one line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError

Row = TypeVar("Row")
MAX_FIELD_CHARS = 10_000


class UnreadableCsv(Invalid):
    title = "The file cannot be imported"


class LineError(msgspec.Struct, frozen=True):
    """A line of an import that was not taken; `line` counts from 1 and the header is line 1."""

    line: int
    reason: str


class ImportReport(msgspec.Struct):
    """What an import did."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    errors: list[LineError] = msgspec.field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.added + self.changed + self.unchanged + len(self.errors)


class CsvLineError(ValueError):
    """What is wrong with one line."""


def read_rows(
    lines: Iterable[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    make: Callable[[int, dict[str, str]], Row],
) -> Iterator[tuple[int, Row | LineError]]:
    """Yield (line number, what `make` made of it or why not) for each line after the header.

    `lines` comes from a text file opened with `errors="surrogateescape"`, so that bytes that are not UTF-8 are found
    in their line instead of ending the whole import.
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
            yield line, make(line, dict(zip(header, fields, strict=True)))
        except (CsvLineError, MoneyError) as error:
            yield line, LineError(line, str(error))


def _header(reader: Iterator[list[str]], columns: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    try:
        header = [name.strip().removeprefix("\ufeff").lower() for name in next(reader)]
    except (StopIteration, csv.Error):
        raise UnreadableCsv(f"the file has no header line; it needs the columns {', '.join(columns)}") from None
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns + optional]
    if missing or unknown or len(set(header)) != len(header):
        also = f" and may have {', '.join(optional)}" if optional else ""
        raise UnreadableCsv(f"the header is {','.join(header)}; it needs the columns {', '.join(columns)}{also}")
    return header


def parse_unsigned(name: str, text: str, most: int) -> int:
    """A field that must be a whole number from 0 to `most`."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) > most:
        raise CsvLineError(f"{name} is {text[:40]!r}, not a whole number from 0 to {most}")
    return int(text)


def check_unique(first: dict[str, int], value: str, line: int, what: str = "SKU") -> None:
    """Refuse a SKU, or what else names a row, that an earlier line gave: which of the two would be meant?"""
    before = first.setdefault(value, line)
    if before != line:
        raise CsvLineError(f"the {what} {value} was given on line {before} already")
