"""Reads CSV files line by line; a wrong line becomes a `LineError` and does not stop the import."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from commerce.kernel.errors import Invalid, UnreadableCsv
from commerce.kernel.money import MoneyError
from commerce.kernel.spreadsheets import explain_scientific
from commerce.kernel.text_files import decode_table, has_surrogates, read_file

Row = TypeVar("Row")
MAX_LINE_CHARS = 10_000
_MAX_SHOWN_CHARS = 500
_DEGREES = re.compile(r"-?[0-9]{1,3}(\.[0-9]{1,15})?")
_BLANK_LINE = re.compile(r'(?:[\s,\ufeff]|"\s*")*')


class LineError(msgspec.Struct, frozen=True):
    """A line that was not imported; `line` counts from 1 and the header is line 1."""

    line: int
    reason: str


class ImportReport(msgspec.Struct):
    """The counts of an import and the lines that were refused.

    Together with the header they are all lines of the file.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    errors: list[LineError] = msgspec.field(default_factory=list)
    blank: int = 0

    @property
    def lines(self) -> int:
        return self.added + self.changed + self.unchanged + len(self.errors)


class CsvLineError(ValueError):
    """One line is invalid; the text is the reason."""


def read_lines(file: Path) -> list[str]:
    """Read the lines of a CSV file in UTF-8 or GB18030, or in UTF-16 with its mark.

    A line with bytes that are not UTF-8 is left for `read_rows` to refuse. Raises `Invalid` if the file cannot be read.
    """
    return split_lines(read_file(file), file)


def split_lines(content: bytes, file: Path) -> list[str]:
    """Split the content of a CSV file as `read_lines` does. `file` is its name in the refusal."""
    try:
        return decode_table(content).removesuffix("\n").split("\n")
    except Invalid as error:
        raise UnreadableCsv(f"cannot read {file}: {error}") from None


def read_columns(lines: Iterable[str]) -> list[str]:
    """Return the columns that the first line names which is not blank; it may be another file's header."""
    return next((_split_header(fields) for _, fields in _split_lines(lines) if isinstance(fields, list)), [])


def count_blank_lines(lines: Iterable[str]) -> int:
    """Count the lines that `read_rows` passes over: without a value, as spreadsheets leave below a table."""
    return sum(_BLANK_LINE.fullmatch(text) is not None for text in lines)


@contextmanager
def account_for_lines(report: ImportReport, lines: Sequence[str]) -> Iterator[None]:
    """Add a note to an exception that interrupts an import: how many lines were not read."""
    try:
        yield
    except UnreadableCsv:  # the header is wrong: to import the file again as it is would not help
        raise
    except Exception as error:
        unread = max(0, len(lines) - 1 - report.blank - report.lines)
        error.add_note(f"{report.lines} lines are imported or refused, {unread} were not read: import the file again")
        raise


def read_rows(
    lines: Iterable[str],
    columns: tuple[str, ...],
    optional: tuple[str, ...],
    parse: Callable[[int, dict[str, str]], Row],
) -> Iterator[tuple[int, Row | LineError]]:
    """Yield number and result of `parse`, or the `LineError`, of each line after the header.

    Blank lines are passed over. Each line stands alone: no value has line breaks, so a quote that is not closed spoils
    its own line and swallows no others. Empty fields beyond the header are ignored. Raises `UnreadableCsv` if the
    header lacks a column or has an unknown one.
    """
    rows = _split_lines(lines)
    header = _header(rows, columns, optional)
    for line, fields in rows:
        try:
            if isinstance(fields, CsvLineError):
                raise fields
            if len(fields) < len(header) or any(field.strip() for field in fields[len(header) :]):
                raise CsvLineError(f"{len(fields)} fields where the header has {len(header)}")
            values = dict(zip(header, fields, strict=False))
            for name, value in values.items():
                if has_surrogates(value):
                    raise CsvLineError(f"{name} is not UTF-8")
            yield line, parse(line, values)
        except (CsvLineError, MoneyError) as error:
            yield line, LineError(line, str(error))


def _split_lines(lines: Iterable[str]) -> Iterator[tuple[int, list[str] | CsvLineError]]:
    """Yield number and fields of each line that is not blank, or the reason why it has none."""
    for number, text in enumerate(lines, start=1):
        if _BLANK_LINE.fullmatch(text):
            continue
        if len(text) > MAX_LINE_CHARS:
            yield number, CsvLineError(f"it is longer than {MAX_LINE_CHARS} characters")
        elif "\0" in text:
            yield number, CsvLineError("it has NUL bytes, so it is damaged: write it again")
        else:
            try:
                yield number, next(csv.reader([text.strip("\ufeff\r\n")], strict=True))
            except csv.Error as error:
                reason = "a quote is not closed on its line" if "end of data" in str(error) else error
                yield number, CsvLineError(f"not CSV: {reason}")


def _split_header(fields: list[str]) -> list[str]:
    names = [name.strip().lower() for name in fields]
    while names and not names[-1]:
        names.pop()
    return names


def _header(
    rows: Iterator[tuple[int, list[str] | CsvLineError]], columns: tuple[str, ...], optional: tuple[str, ...]
) -> list[str]:
    _, fields = next(rows, (0, CsvLineError("it is empty")))
    if isinstance(fields, CsvLineError):
        raise UnreadableCsv(
            f"cannot read the file: it has no header line ({fields}); it needs the columns {', '.join(columns)}"
        )
    header = _split_header(fields)
    missing = [name for name in columns if name not in header]
    unknown = [name for name in header if name not in columns + optional]
    twice = [name for place, name in enumerate(header) if name in header[:place]]
    if missing or unknown or twice:
        also = f" and may have {', '.join(optional)}" if optional else ""
        raise UnreadableCsv(
            f"cannot read the file: its header is {','.join(header)[:_MAX_SHOWN_CHARS]}{_explain_names(twice)}; "
            f"it needs the columns {', '.join(columns)}{also}, separated by commas"
        )
    return header


def _explain_names(twice: Sequence[str]) -> str:
    return f", which names {', '.join(twice)} twice"[:_MAX_SHOWN_CHARS] if twice else ""


def parse_unsigned(name: str, text: str, maximum: int) -> int:
    """Parse a whole number from 0 to `maximum`. Raises `CsvLineError` otherwise."""
    text = text.strip()
    if reason := explain_scientific(text):
        raise CsvLineError(f"{name}: {reason}")
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) > maximum:
        raise CsvLineError(f"{name} is {text[:40]!r}, not a whole number from 0 to {maximum}")
    return int(text)


def parse_degrees(name: str, text: str, maximum: int) -> float:
    """Parse a latitude or longitude. Raises `CsvLineError` if it is none."""
    text = text.strip()
    if not _DEGREES.fullmatch(text) or abs(float(text)) > maximum:
        raise CsvLineError(f"{name} is {text[:40]!r}, not degrees from -{maximum} to {maximum}, such as 30.25")
    return float(text)


def check_unique(first_lines: dict[str, int], value: str, line: int, label: str = "SKU") -> None:
    """Raise `CsvLineError` if an earlier line has the same key, because either could be the intended one.

    `first_lines` maps keys to lines; it is updated. `label` names the key in the error.
    """
    first_line = first_lines.setdefault(value, line)
    if first_line != line:
        raise CsvLineError(f"the {label} {value} is on line {first_line} already")
