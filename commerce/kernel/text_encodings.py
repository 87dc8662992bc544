"""Finds the encoding of a text file that people upload, and reads its lines in bounded memory."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from commerce.kernel.errors import Invalid

REMEDY = "save it as “CSV UTF-8”, or convert it, for example with `iconv -f GB18030 -t UTF-8 OLD > NEW`"
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
PACKED = (b"PK\x03\x04", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")
_SAMPLE_BYTES = 4096
_FEW = 10
"""Damaged lines are few if at most one of this many is."""
_ASCII = re.compile("[\x00-\x7f]+")
_COMMON_SHARE = 0.8
"""of the characters of Chinese texts are in GB2312, and few of other texts"""
_LATIN = re.compile(rb"(?<![\x80-\xff])[\xc0-\xff](?![\x80-\xff])")
"""an accented letter between others"""


class TextEncoding(NamedTuple):
    """An encoding, and the length of the byte order mark that named it."""

    name: str
    mark_bytes: int = 0


def find_encoding(head: bytes, lines: Iterable[bytes]) -> TextEncoding:
    """Find the encoding of a file by its mark, or else by its content: UTF-8, or GB18030.

    `head` is the beginning of the file, `lines` are its lines. A file is GB18030 if all of it decodes so, most
    characters are common Chinese ones, and no line of it is UTF-8. A file in UTF-8 may have a few damaged lines. Raises
    `Invalid`, with “it” for the file and the name of the encoding that it seems to have.
    """
    if head.startswith(PACKED):
        raise Invalid("it is packed or a workbook: unpack it, or save the table as “CSV UTF-8”, and pass that file")
    for mark, name in MARKS:
        if head.startswith(mark):
            return TextEncoding(name, len(mark))
    if head[:_SAMPLE_BYTES].count(0) * 4 > len(head[:_SAMPLE_BYTES]):
        raise Invalid(f"it is not UTF-8 text, but UTF-16 without its mark or no text: {REMEDY}")
    counts = _Counts()
    for line in lines:
        counts.add(line)
    if not counts.damaged:
        return TextEncoding("utf-8")
    if counts.is_chinese and not counts.wide:
        return TextEncoding("gb18030")
    if counts.damaged <= counts.wide or counts.damaged * _FEW <= counts.lines:
        return TextEncoding("utf-8")
    guess = "latin-1 (Windows-1252)" if counts.latin * 2 > counts.damaged else "another encoding"
    raise Invalid(f"it is not UTF-8 text, nor GB18030; it seems to be in {guess}: {REMEDY}")


class _Counts:
    """Counts lines: `wide` ones have characters beyond ASCII in UTF-8, `damaged` ones are no UTF-8."""

    def __init__(self) -> None:
        self.lines = self.wide = self.damaged = self.latin = 0
        self._characters = self._common = 0
        self._decodes = True

    def add(self, line: bytes) -> None:
        self.lines += 1
        if line.isascii():
            return
        try:
            line.decode()
        except UnicodeDecodeError:
            self.damaged += 1
            self.latin += _LATIN.search(line) is not None
            self._add_chinese(line)
        else:
            self.wide += 1

    def _add_chinese(self, line: bytes) -> None:
        if not self._decodes:
            return
        try:
            text = _ASCII.sub("", line.decode("gb18030"))
        except UnicodeDecodeError:
            self._decodes = False
            return
        self._characters += len(text)
        self._common += len(text.encode("gb2312", "ignore")) // 2

    @property
    def is_chinese(self) -> bool:
        return self._decodes and self._common >= self._characters * _COMMON_SHARE


def open_lines(source: BinaryIO, max_line_chars: int) -> Iterator[str]:
    """Yield the lines of a file without their ends, whatever program saved it. `source` is read twice.

    A line that is longer is cut after `max_line_chars` and one more character. Bytes that are not UTF-8 become
    surrogates. Raises `Invalid` as `find_encoding` does.
    """
    head = source.read(_SAMPLE_BYTES)
    source.seek(0)
    encoding = find_encoding(head, iter(source))
    source.seek(encoding.mark_bytes)
    errors = "surrogateescape" if encoding.name == "utf-8" else "strict"
    text = io.TextIOWrapper(source, encoding.name, errors)
    try:
        yield from _read_lines(text, max_line_chars)
    except UnicodeDecodeError:
        raise Invalid(f"it is not {encoding.name.upper()} text: {REMEDY}") from None
    finally:
        text.detach()


def _read_lines(text: io.TextIOWrapper, max_line_chars: int) -> Iterator[str]:
    is_first = True
    while line := text.readline(max_line_chars + 2):
        rest = line
        while not rest.endswith("\n") and (rest := text.readline(max_line_chars)):
            pass
        line = line.removesuffix("\n")[: max_line_chars + 1]
        yield line.lstrip("\ufeff") if is_first else line
        is_first = False
