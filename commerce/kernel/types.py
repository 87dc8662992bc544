"""Types of fields that several packages share."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
"""Characters that break lines or are no text, for a character class."""
INVISIBLE_LETTERS = "\u115f\u1160\u3164\uffa0"
"""Letters of no shape, which fill places in Hangul."""
_LETTER = rf"[^\W_{INVISIBLE_LETTERS}]"  # or digit
_FILLED = re.compile(_LETTER)
_FILLED_LINE = rf"^[^{CONTROL}]*{_LETTER}[^{CONTROL}]*\Z"
_INVISIBLE = (
    INVISIBLE_LETTERS + "\u00ad\u0300-\u036f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e01ef"
)
"""Characters that show nothing when they stand alone, for a character class."""
_VISIBLE = rf"[^\s{CONTROL}{_INVISIBLE}]"


def _lines(control: str) -> str:
    """Return the pattern of a text with something to see and without these control characters.

    It is checked in linear time: a text may be long."""
    return rf"^(?!(?s:.)*[{control}])(?s:.)*?{_VISIBLE}"


_MESSAGE = _lines(CONTROL.replace(r"\x00-\x1f", r"\x00-\x09\x0b-\x1f"))
MARKDOWN = _lines(CONTROL.replace(r"\x00-\x1f", r"\x00-\x08\x0b\x0c\x0e-\x1f"))
"""Pattern of Markdown: tabs and ends of lines are text."""
_FILLED_OR_EMPTY = rf"^(?:[^{CONTROL}]*{_LETTER}[^{CONTROL}]*)?\Z"


def is_filled(text: str) -> bool:
    """Tell whether a text shows a letter or digit, not just blanks, signs and invisible characters."""
    return _FILLED.search(text) is not None


def filled_line(max_length: int) -> msgspec.Meta:
    """Return the constraint of a text for people: one line that `is_filled`."""
    # The published pattern is shorter: outside Python, \W does not know the letters of most languages.
    schema = {"pattern": rf"^[^{CONTROL}]*[^{CONTROL}\x20][^{CONTROL}]*$"}
    description = "one line with at least one letter or digit"
    return msgspec.Meta(
        min_length=1, max_length=max_length, pattern=_FILLED_LINE, description=description, extra_json_schema=schema
    )


def filled_or_empty_line(max_length: int) -> msgspec.Meta:
    """Return the constraint of a text for people that may be left out: as of `filled_line`, or empty."""
    schema = {"pattern": rf"^([^{CONTROL}]*[^{CONTROL}\x20][^{CONTROL}]*)?$"}
    description = "one line with at least one letter or digit, or empty"
    return msgspec.Meta(
        max_length=max_length, pattern=_FILLED_OR_EMPTY, description=description, extra_json_schema=schema
    )


def message_text(max_length: int) -> msgspec.Meta:
    """Return the constraint of a message: lines of text, with something to see."""
    schema = {"pattern": rf"[^{CONTROL}\x20]"}
    description = "lines of text, without control characters but line feeds"
    return msgspec.Meta(
        min_length=1, max_length=max_length, pattern=_MESSAGE, description=description, extra_json_schema=schema
    )


def query_text(max_length: int) -> msgspec.Meta:
    """Return the constraint of words to search for: a text with something to see, also a sign."""
    schema = {"pattern": rf"[^{CONTROL}\x20]"}
    return msgspec.Meta(min_length=1, max_length=max_length, pattern=MARKDOWN, extra_json_schema=schema)


def explain_mismatch(error: msgspec.ValidationError) -> str:
    """Return msgspec's reason, in words where it shows the pattern of a `filled_line`."""
    reason = str(error)
    for pattern in (_FILLED_LINE, _FILLED_OR_EMPTY):
        reason = reason.replace(
            f"Expected `str` matching regex {pattern!r}",
            "Expected one line with at least one letter or digit, without control characters",
        )
    return reason.replace(
        f"Expected `str` matching regex {_MESSAGE!r}",
        "Expected lines of text, without control characters but line feeds",
    )


Name = Annotated[str, filled_line(200)]
Reason = Annotated[str, filled_line(200)]
