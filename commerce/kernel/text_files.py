"""Reads files that people upload: once, whole, with a limit, and decoded whatever program saved them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from commerce.kernel.errors import Invalid

MAX_FILE_BYTES = 64 << 20
_REMEDY = "save it as “CSV UTF-8”, or convert it, for example with `iconv -f GB18030 -t UTF-8 OLD > NEW`"
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_PACKED = (b"PK\x03\x04", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")
_SAMPLE_CHARS = 4096
_FEW = 10
"""Damaged lines are few if at most one of this many is."""
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_file(file: Path) -> bytes:
    """Read a file or a pipe. Raises `Invalid` if it cannot be read or has more than `MAX_FILE_BYTES`."""
    try:
        with file.open("rb") as source:  # a pipe can be read once and has no size
            content = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}; check the file and repeat the command") from None
    if len(content) > MAX_FILE_BYTES:
        raise Invalid(f"cannot read {file}: it is larger than {MAX_FILE_BYTES >> 20} MiB; split it into several files")
    return content


def decode_text(raw: bytes, *encodings: str, keep_damaged: bool = False) -> str:
    """Decode a file by its byte order mark, or else by the first of `encodings` that fits.

    Without `encodings` it is UTF-8. Each line of the result ends with a line feed. With `keep_damaged`, bytes that are
    not UTF-8 become surrogates if only some lines have them; the encoding of a whole file is never guessed, because
    that could give wrong names. Raises `Invalid`, with “it” for the file.
    """
    if raw.startswith(_PACKED):
        raise Invalid("it is packed or a workbook: unpack it, or save the table as “CSV UTF-8”, and pass that file")
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            raw, encodings = raw[len(mark) :], (encoding,)
            break
    text = _decode(raw, encodings or ("utf-8",), keep_damaged)
    if text is None or text[:_SAMPLE_CHARS].count("\0") * 4 > len(text[:_SAMPLE_CHARS]):
        names = " or ".join(map(str.upper, encodings or ("utf-8",)))
        raise Invalid(f"it is not {names} text: {_REMEDY}")
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _decode(raw: bytes, encodings: tuple[str, ...], keep_damaged: bool) -> str | None:
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    if keep_damaged and encodings == ("utf-8",):
        text = raw.decode("utf-8", "surrogateescape")
        lines = text.splitlines()
        damaged, others = sum(map(has_surrogates, lines)), sum(not line.isascii() for line in lines)
        if damaged * 2 <= others or damaged * _FEW <= len(lines):
            return text
    return None


def has_surrogates(text: str) -> bool:
    """Tell whether a text has halves of characters, or bytes that were not UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None
