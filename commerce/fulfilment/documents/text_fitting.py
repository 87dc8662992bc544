"""Fits text into a space: letters are joined and ordered, long text is shrunk, broken or cut."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import arabic_reshaper
from bidi.algorithm import get_display

from commerce.fulfilment.documents.address_format import is_wide
from commerce.fulfilment.documents.fonts import BOLD, MISSING, REGULAR, Face

MM = 72 / 25.4
"""Points per millimetre."""
LEADING = 1.25
"""Distance of two lines, in font sizes."""
_UNITS_PER_SIZE = 1000 * MM
"""Glyph widths are thousandths of the font size."""
_MAX_CHARS = 2_000
_SIZE_STEP = 0.5
_ROUNDING = 1e-6
_WORD = re.compile(r" +|[^ ]+")
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_HEBREW_POINTS = re.compile(r"[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_UNJOINED_SCRIPTS = ("LAO ", "NKO ")
"""The typeface has their letters, and nothing here places their signs or joins them."""


class Fitted(NamedTuple):
    """Lines and their font size in points."""

    lines: list[str]
    size: float

    @property
    def height(self) -> float:
        """The height in millimetres."""
        return len(self.lines) * self.size * LEADING / MM


def select_face(bold: bool) -> Face:
    """Return the bold or the regular typeface."""
    return BOLD if bold else REGULAR


def clean_text(text: str) -> str:
    """Make text printable: single spaces, no invisible characters, 〓 for what no font has.

    Arabic letters are joined; vowel points of Arabic and Hebrew are left out, as in most print. Text is cut after 2,000
    characters.
    """
    return " ".join("".join(_printable(char) for char in _join_letters(text[:_MAX_CHARS])).split())


def unprintable_letters(text: str) -> list[str]:
    """Return the letters, signs of letters and digits of a text that cannot be drawn as they should be."""
    return [char for char in dict.fromkeys(_join_letters(text)) if _is_unprintable_letter(char)]


def _join_letters(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    if not _RIGHT_TO_LEFT.search(text):
        return text
    joined: str = arabic_reshaper.reshape(_HEBREW_POINTS.sub("", text))
    return joined


@lru_cache(maxsize=20_000)
def _is_unprintable_letter(char: str) -> bool:
    name = unicodedata.name(char, "")
    if unicodedata.category(char)[0] not in "LMN" or name.startswith("VARIATION SELECTOR"):
        return False
    return name.startswith(_UNJOINED_SCRIPTS) or not (REGULAR.has(char) and BOLD.has(char))


def _order_for_eyes(line: str, *, right_to_left: bool) -> str:
    """Put the letters of a line into their order on paper, from the left."""
    if not _RIGHT_TO_LEFT.search(line):
        return line
    ordered: str = get_display(line, base_dir="R" if right_to_left else "L")
    return ordered


def _begins_right_to_left(text: str) -> bool:
    strong = (unicodedata.bidirectional(char) for char in text)
    return next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L"


@lru_cache(maxsize=20_000)
def _printable(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category == "Cf" or unicodedata.name(char, "").startswith("VARIATION SELECTOR"):
        return ""
    return char if category[0] != "C" and REGULAR.has(char) and BOLD.has(char) else MISSING


def measure_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of cleaned text in millimetres."""
    return _units(text, select_face(bold)) * size / _UNITS_PER_SIZE


def _units(text: str, typeface: Face) -> int:
    return sum(map(typeface.width, text))


def fit_text(
    paragraphs: Sequence[str],
    room: float,
    size: float,
    *,
    min_size: float,
    height: float | None = None,
    bold: bool = False,
) -> Fitted:
    """Fit paragraphs into a width `room` and a `height` in millimetres, or on one line without a height.

    The font is as large as fits, from `size` down to `min_size` points. Text that does not fit even then is cut, and
    its last line ends with an ellipsis.
    """
    typeface = select_face(bold)
    texts = [clean_text(text) for text in paragraphs]
    pieces = [[(piece, _units(piece, typeface)) for piece in _split_pieces(text)] for text in texts]
    right_to_left = any(map(_begins_right_to_left, texts))
    while True:
        room_units = room * _UNITS_PER_SIZE / size
        lines = [line for paragraph in pieces for line in _break_lines(paragraph, room_units, typeface)]
        text_height = len(lines) * size * LEADING / MM
        fits = len(lines) <= 1 or (height is not None and text_height <= height + _ROUNDING)
        if fits or size <= min_size:
            break
        size = max(min_size, size - _SIZE_STEP)
    if not fits:
        max_lines = 1 if height is None else max(1, int((height + _ROUNDING) * MM / (size * LEADING)))
        lines = [*lines[: max_lines - 1], _cut(" ".join(lines[max_lines - 1 :]), room_units, typeface)]
    return Fitted([_order_for_eyes(line, right_to_left=right_to_left) for line in lines], size)


def _break_lines(pieces: Sequence[tuple[str, int]], room_units: float, typeface: Face) -> Iterator[str]:
    line, used = "", 0
    for piece, units in pieces:
        if piece == " " and not line:
            continue
        if used + units <= room_units:
            line, used = line + piece, used + units
        elif piece == " ":
            yield line
            line, used = "", 0
        elif units <= room_units:
            yield line.rstrip()
            line, used = piece, units
        else:
            for char in piece:
                if line and used + typeface.width(char) > room_units:
                    yield line.rstrip()
                    line, used = "", 0
                line, used = line + char, used + typeface.width(char)
    if line.strip():
        yield line.rstrip()


def _split_pieces(text: str) -> Iterator[str]:
    """Split text where a line may break: into words, spaces and single wide characters."""
    for word in _WORD.findall(text):
        start = 0
        for at, char in enumerate(word):
            if is_wide(char):
                yield from filter(None, (word[start:at], char))
                start = at + 1
        if start < len(word):
            yield word[start:]


def _cut(text: str, room_units: float, typeface: Face) -> str:
    remaining = room_units - typeface.width("…")
    kept = ""
    for char in text:
        remaining -= typeface.width(char)
        if remaining < 0:
            break
        kept += char
    return kept.rstrip() + "…"
