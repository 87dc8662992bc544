"""Reads files that people upload: once, whole, with a limit, and decoded whatever program saved them."""

from __future__ import annotations

import re
from pathlib import Path

from commerce.kernel.errors import Invalid
from commerce.kernel.text_encodings import MARKS, PACKED, REMEDY, find_encoding

MAX_FILE_BYTES = 64 << 20
_SAMPLE_CHARS = 4096
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


def decode_text(raw: bytes, *encodings: str) -> str:
    """Decode a file by its byte order mark, or else by the first of `encodings` that fits.

    Without `encodings` it is UTF-8. Each line of the result ends with a line feed. Raises `Invalid`, with “it” for the
    file.
    """
    if raw.startswith(PACKED):
        raise Invalid("it is packed or a workbook: unpack it, or save the table as “CSV UTF-8”, and pass that file")
    for mark, encoding in MARKS:
        if raw.startswith(mark):
            raw, encodings = raw[len(mark) :], (encoding,)
            break
    text = _decode(raw, encodings or ("utf-8",))
    if text is None or text[:_SAMPLE_CHARS].count("\0") * 4 > len(text[:_SAMPLE_CHARS]):
        names = " or ".join(map(str.upper, encodings or ("utf-8",)))
        raise Invalid(f"it is not {names} text: {REMEDY}")
    return _normalise(text)


def decode_table(raw: bytes) -> str:
    """Decode a table as spreadsheet programs save it: by `text_encodings.find_encoding`.

    Each line of the result ends with a line feed. Bytes that are not UTF-8 become surrogates if only some lines have
    them. Raises `Invalid`, with “it” for the file.
    """
    encoding = find_encoding(raw, raw.splitlines())
    errors = "surrogateescape" if encoding.name == "utf-8" else "strict"
    try:
        return _normalise(raw[encoding.mark_bytes :].decode(encoding.name, errors))
    except UnicodeDecodeError:
        raise Invalid(f"it is not {encoding.name.upper()} text: {REMEDY}") from None


def _decode(raw: bytes, encodings: tuple[str, ...]) -> str | None:
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _normalise(text: str) -> str:
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def has_surrogates(text: str) -> bool:
    """Tell whether a text has halves of characters, or bytes that were not UTF-8."""
    return not text.isascii() and _SURROGATE.search(text) is not None
