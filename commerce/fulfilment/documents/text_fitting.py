"""Text that fits: what cannot be shown is replaced, and what is too long is made smaller, broken, or cut."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from commerce.fulfilment.documents.address_format import is_wide
from commerce.fulfilment.documents.fonts import BOLD, MISSING, REGULAR, Face

MM = 72 / 25.4
"""Points in a millimetre."""
LEADING = 1.25
"""From line to line, in sizes."""
_PER_SIZE = 1000 * MM
"""Letters' widths are thousandths of their size."""
_LONGEST = 2_000
_STEP = 0.5
_ROUNDING = 1e-6
_WORD = re.compile(r" +|[^ ]+")


class Fitted(NamedTuple):
    """Lines and the size they are set in, in points."""

    lines: list[str]
    size: float

    @property
    def height(self) -> float:
        """In millimetres."""
        return len(self.lines) * self.size * LEADING / MM


def face(bold: bool) -> Face:
    """The letters to set text in."""
    return BOLD if bold else REGULAR


def clean(text: str) -> str:
    """Text as it can be printed: no control characters nor invisible ones, one space for any white space, 〓 for what
    the fonts lack. Of very long text the beginning."""
    return " ".join("".join(_shown(char) for char in unicodedata.normalize("NFC", text[:_LONGEST])).split())


@lru_cache(maxsize=20_000)
def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category == "Cf" or unicodedata.name(char, "").startswith("VARIATION SELECTOR"):
        return ""
    return char if category[0] != "C" and REGULAR.has(char) and BOLD.has(char) else MISSING


def width(text: str, size: float, *, bold: bool = False) -> float:
    """In millimetres, of text that is clean."""
    return _long(text, face(bold)) * size / _PER_SIZE


def _long(text: str, letters: Face) -> int:
    return sum(map(letters.width, text))


def fit(
    paragraphs: Sequence[str],
    room: float,
    size: float,
    *,
    smallest: float,
    height: float | None = None,
    bold: bool = False,
) -> Fitted:
    """Set paragraphs in a room so many millimetres wide and high, in one line if no height is given: as large as they
    fit, from `size` down to `smallest` points. If they do not even so, the last line ends with an ellipsis."""
    letters = face(bold)
    pieces = [[(piece, _long(piece, letters)) for piece in _pieces(text)] for text in map(clean, paragraphs)]
    while True:
        wide = room * _PER_SIZE / size
        lines = [line for text in pieces for line in _broken(text, wide, letters)]
        high = len(lines) * size * LEADING / MM
        if len(lines) <= 1 or (height is not None and high <= height + _ROUNDING):
            return Fitted(lines, size)
        if size <= smallest:
            most = 1 if height is None else max(1, int((height + _ROUNDING) * MM / (size * LEADING)))
            return Fitted([*lines[: most - 1], _cut(" ".join(lines[most - 1 :]), wide, letters)], size)
        size = max(smallest, size - _STEP)


def _broken(pieces: Sequence[tuple[str, int]], room: float, letters: Face) -> Iterator[str]:
    line, used = "", 0
    for piece, long in pieces:
        if piece == " " and not line:
            continue
        if used + long <= room:
            line, used = line + piece, used + long
        elif piece == " ":
            yield line
            line, used = "", 0
        elif long <= room:
            yield line.rstrip()
            line, used = piece, long
        else:
            for char in piece:
                if line and used + letters.width(char) > room:
                    yield line.rstrip()
                    line, used = "", 0
                line, used = line + char, used + letters.width(char)
    if line.strip():
        yield line.rstrip()


def _pieces(text: str) -> Iterator[str]:
    """Words, spaces, and each wide character by itself: between them a line may break."""
    for word in _WORD.findall(text):
        start = 0
        for at, char in enumerate(word):
            if is_wide(char):
                yield from filter(None, (word[start:at], char))
                start = at + 1
        if start < len(word):
            yield word[start:]


def _cut(text: str, room: float, letters: Face) -> str:
    left = room - letters.width("…")
    kept = ""
    for char in text:
        left -= letters.width(char)
        if left < 0:
            break
        kept += char
    return kept.rstrip() + "…"
