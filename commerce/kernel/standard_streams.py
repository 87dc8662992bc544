"""Standard streams that can always be written to, and print what others have written only as text."""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import sys
from typing import Any, TextIO

# Control characters but tab and line feed; marks that are invisible or change the direction of what follows.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_ERROR_HANDLER = "floodgate_escape"


def escape_unprintable(text: str) -> str:
    """Replace each character that could control a terminal or deceive by an escape such as `\\u001b`.

    Line feeds and tabs are kept. JSON keeps its meaning, because the escapes are those of JSON.
    """
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(lambda match: _escape(match[0]), text)


def _escape(text: str) -> str:
    raw = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[index : index + 2].hex()}" for index in range(0, len(raw), 2))


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escape(error.object[error.start : error.end]), error.end


class _OutputFile(io.FileIO):
    """A file that keeps its first error and drops what is written after it."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write, or drop the data after an error."""
        if self.error is None:
            try:
                written = super().write(data)
                if written is not None:
                    return written
                self.error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            except OSError as error:
                self.error = error
        return len(data)


class _OutputStream(io.TextIOWrapper):
    """A text stream that escapes what is unprintable, and what its encoding does not have."""

    def __init__(self, number: int, encoding: str) -> None:
        self.file = _OutputFile(number, "wb", closefd=False)
        buffer = io.BufferedWriter(self.file)
        by_line = number == 2 or self.file.isatty()
        super().__init__(buffer, encoding, _ERROR_HANDLER, line_buffering=by_line, write_through=True)
        # Colours of our own need escape sequences: `rich` looks for this attribute and writes its output there.
        self.rich_proxied_file = io.TextIOWrapper(
            buffer, encoding, _ERROR_HANDLER, line_buffering=by_line, write_through=True
        )

    def write(self, text: str) -> int:
        """Write a text with escapes."""
        return super().write(escape_unprintable(text))


def open_standard_streams() -> None:
    """Make standard input, output and error usable, whatever the process was started with. Call it first.

    A closed one is opened on /dev/null; otherwise a socket or a file of the process would take its number, and what is
    printed would be written there. Output never raises: `output_error` returns the first error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)
            if null != number:
                os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # it is never closed
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    codecs.register_error(_ERROR_HANDLER, _escape_error)
    sys.stdout = _wrap(1, sys.stdout)
    sys.stderr = _wrap(2, sys.stderr)


def _wrap(number: int, stream: TextIO | None) -> TextIO:
    if isinstance(stream, _OutputStream):
        return stream
    return _OutputStream(number, stream.encoding if stream else "utf-8")


def output_error() -> OSError | None:
    """Write what is buffered, and return the error for which a part of the output is lost, if any."""
    sys.stdout.flush()
    return sys.stdout.file.error if isinstance(sys.stdout, _OutputStream) else None
