"""Splits lines into CSV records, whose quoted values may have line breaks."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

NumberedLine = tuple[int, str]
MAX_RECORD_CHARS = 200_000
"""A quote that is not closed within so many characters is taken for one that is never closed."""


class CsvRecord(NamedTuple):
    """A record: its first line, the number of its lines, and its fields; a blank line has none.

    With a `reason` it cannot be read, and `fault_line` is where the reason is."""

    line: int
    line_count: int
    fields: list[str]
    reason: str = ""
    fault_line: int = 0


class CsvRecordReader:
    """Reads records one after another from numbered lines without their ends.

    A quote that is not closed costs the lines up to the one on which it opens. Those after it are read again, each on
    its own: so it swallows none of them."""

    def __init__(self, lines: Iterable[NumberedLine]) -> None:
        self._lines = iter(lines)
        self._waiting = deque[NumberedLine]()

    def read(self, width: int | None = None) -> CsvRecord | None:
        """Read the next record, None at the end. `width` is the number of fields that it must have.

        Empty fields beyond them are ignored."""
        taken: list[NumberedLine] = []
        try:
            fields = next(csv.reader(self._take(taken), strict=True), None)
        except _TooLongError:
            return self._refuse(taken, f"it is longer than {MAX_RECORD_CHARS} characters")
        except csv.Error as error:
            return self._refuse(taken, f"not CSV: {error}")
        if fields is None:
            return None
        line = taken[0][0]
        if not any(field.strip("\ufeff \t\u3000") for field in fields):
            return CsvRecord(line, len(taken), [])
        if any("\0" in text for _, text in taken):
            return CsvRecord(line, len(taken), [], "it has NUL bytes, so it is damaged: write it again", line)
        if width is not None and (len(fields) < width or any(field.strip() for field in fields[width:])):
            reason = f"{len(fields)} fields where the header has {width}"
            if len(taken) > 1:
                reason += f"; is a quote on line {line} not closed?"
            return self._refuse(taken, reason, is_quote=False)
        return CsvRecord(line, len(taken), fields if width is None else fields[:width])

    def _take(self, taken: list[NumberedLine]) -> Iterator[str]:
        """Yield lines as `csv` wants them, and note them.

        Raises `_TooLongError` if they are more than a record's."""
        chars = 0
        while True:
            numbered = self._waiting.popleft() if self._waiting else next(self._lines, None)
            if numbered is None:
                return
            taken.append(numbered)
            chars += len(numbered[1])
            if chars > MAX_RECORD_CHARS:
                raise _TooLongError
            yield numbered[1] + "\n"

    def _refuse(self, taken: list[NumberedLine], reason: str, *, is_quote: bool = True) -> CsvRecord:
        """Refuse a record that may have taken lines of others, and put those back."""
        place = _find_open_quote([text for _, text in taken]) if is_quote else 0
        line, opening = taken[0][0], taken[place][0]
        if is_quote and (len(taken) > 1 or "unexpected end of data" in reason):
            reason = f"a quote opens on line {opening} and is not closed: close it, or double a quote that is text"
        self._waiting.extendleft(reversed(taken[place + 1 :]))
        return CsvRecord(line, place + 1, [], reason, opening)


class _TooLongError(Exception):
    """The quote that opened last is not closed."""


def _find_open_quote(lines: list[str]) -> int:
    """Return the index of the line where a quoted value opens that is not closed, or closed too late.

    It is the first line if there is no such value."""
    text, place = "\n".join(lines), 0
    while (quote := text.find('"', place)) >= 0:
        if quote and text[quote - 1] not in ",\n":
            place = quote + 1
            continue
        end = text.find('"', quote + 1)
        while end >= 0 and text[end + 1 : end + 2] == '"':
            end = text.find('"', end + 2)
        if end < 0 or text[end + 1 : end + 2] not in ("", ",", "\n"):
            return text.count("\n", 0, quote)
        place = end + 1
    return 0
