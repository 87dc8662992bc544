"""Repair of damaged text from external systems: half a character hides nothing else of a message.

JSON is repaired byte for byte: its length stays, so a part of the repaired text is found at the same place in the
original, over which signatures are verified.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BLANK, _REPLACEMENT = b"\\u0020", b"\\ufffd"
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair of surrogates
    rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|(?P<control>\\u00(?:[01][0-9a-fA-F]|7[fF]))|\\."
)
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
Type = TypeVar("Type")


def decode_repaired_json(text: bytes | str, type_: type[Type]) -> Type:
    """Decode JSON after `repair_json`. Raises msgspec's errors, and `RecursionError` for deep nesting."""
    return msgspec.json.decode(repair_json(text), type=type_)


def repair_json(text: bytes | str) -> bytes:
    """Return JSON text in valid UTF-8, without control characters and lone surrogates.

    Each replacement is as long as what it replaces: `?` for a byte, a blank for a control character, and an escape for
    an escape. Text may hold bytes that are not UTF-8, decoded with `surrogateescape`."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    raw = _ESCAPED_BYTE.sub("?", raw.decode("utf-8", "surrogateescape")).encode()
    return _ESCAPE.sub(_repair_escape, _CONTROL.sub(b" ", raw))


def _repair_escape(match: re.Match[bytes]) -> bytes:
    if match["lone"]:
        return _REPLACEMENT
    return _BLANK if match["control"] else match[0]


def clean_text(text: str | None, max_characters: int) -> str:
    """Return a text of one line that Postgres and people can read, at most `max_characters` long.

    What cannot be printed becomes a blank: control and format characters, surrogates, unusual spaces."""
    printable = "".join(char if char.isprintable() else " " for char in text or "")
    return " ".join(printable.split())[:max_characters].rstrip()
