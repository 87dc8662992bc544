"""Files of imports, stored in parts of whole lines: a part at a time is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import BinaryIO
from uuid import UUID

from commerce.kernel.csv_records import MAX_RECORD_CHARS, NumberedLine
from commerce.kernel.postgres import Connection
from commerce.kernel.text_encodings import open_lines
from commerce.product_imports import store
from commerce.product_imports.model import MAX_LINE_CHARS, ProductLines
from commerce.product_imports.product_csv import read_products
from commerce.product_imports.product_lines import read_product_lines
from commerce.product_imports.store import LockedImport

_PART_CHARS, _WINDOW_CHARS = 262_144, 1_048_576


async def store_parts(connection: Connection, import_id: UUID, source: BinaryIO) -> int:
    """Store the lines of a file, and return their number. Raises `Invalid` if it is no text."""
    lines = open_lines(source, MAX_LINE_CHARS)
    first_line = 1
    while part := await asyncio.to_thread(_take_part, lines):
        content = "\n".join(part).encode("utf-8", "surrogateescape")
        await store.insert_part(connection, import_id, first_line, content)
        first_line += len(part)
    return first_line - 1


def _take_part(lines: Iterator[str]) -> list[str]:
    part, chars = list[str](), 0
    for line in lines:
        part.append(line)
        chars += len(line) + 1
        if chars >= _PART_CHARS:
            break
    return part


async def read_groups(
    connection: Connection, current: LockedImport, first_line: int, max_groups: int
) -> tuple[list[ProductLines], bool]:
    """Read products from a line on, and whether they reach the end of the file.

    Those near the end of what was read are left for the next call: lines that follow could belong to them."""
    min_chars = _WINDOW_CHARS
    while True:
        lines = await _read_window(connection, current, first_line, min_chars)
        has_all = not lines or lines[-1][0] >= current.lines
        groups = list(islice(_take_whole(current, lines, has_all=has_all), max_groups))
        if groups or has_all:
            return groups, has_all and (not groups or groups[-1].last_line >= current.lines)
        min_chars *= 2  # one product is longer than that


async def _read_window(
    connection: Connection, current: LockedImport, first_line: int, min_chars: int
) -> list[NumberedLine]:
    """Read whole parts of a file until they have so many characters, or to its end."""
    lines, chars, next_line = list[NumberedLine](), 0, first_line
    while chars < min_chars and next_line <= current.lines:
        part = await store.read_part(connection, current.import_id, next_line)
        assert part is not None
        texts = part[1].decode("utf-8", "surrogateescape").split("\n")
        numbered = [(number, text) for number, text in enumerate(texts, start=part[0]) if number >= next_line]
        lines += numbered
        chars += sum(len(text) + 1 for _, text in numbered)
        next_line = part[0] + len(texts)
    return lines


def _take_whole(current: LockedImport, lines: list[NumberedLine], *, has_all: bool) -> Iterator[ProductLines]:
    """Yield products whose end is certain: a record that begins after them ends within the lines."""
    read = read_product_lines(lines) if current.format == "jsonl" else read_products(lines, current.columns)
    if has_all:
        yield from read
        return
    certain, chars = 0, 0
    for number, text in reversed(lines):
        chars += len(text) + 1
        if chars > MAX_RECORD_CHARS + 1:
            certain = number - 1
            break
    yield from takewhile(lambda group: group.last_line <= certain, read)


async def read_numbered(connection: Connection, current: LockedImport) -> list[NumberedLine]:
    """Read the first lines of a file, which have its header."""
    return await _read_window(connection, current, 1, _WINDOW_CHARS)
