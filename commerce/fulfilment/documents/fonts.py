"""The letters of printed documents. A document carries each of those that it shows, so every viewer shows the same.

No font has everything and a bare machine has none, so a face is put together out of files that wheels bring: each
character comes from the first file that has it. Noto Sans for simplified Chinese, traditional Chinese, Japanese and
Korean (SIL OFL 1.1, the package justmytype-intl-cjk), then DejaVu Sans for the other alphabets (Bitstream Vera's
licence, in matplotlib). Letters are not shaped: Arabic, Hebrew and the scripts of India and Thailand do not come out as
they are written by hand. What no file has is shown as 〓, the printers' sign for a letter that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, cached_property
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

MISSING = "〓"
LOCK = RLock()
"""Fonts are read, and documents made, by one thread at a time."""

_EM = 1000
_ASCENT, _DESCENT = 880, -120
_NOTO = tuple(f"fonts/ofl/notosans{part.lower()}/NotoSans{part}[wght].ttf" for part in ("SC", "TC", "JP", "KR"))


class _Letter(NamedTuple):
    outline: Any
    width: int
    """In thousandths of the size."""


@cache
def _file(package: str, path: str) -> TTFont:
    """A file of an installed package, which is found without importing it. Tables are read when they are needed."""
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return TTFont(Path(found.origin).parent / path, lazy=True)


class _Source:
    """A file at one weight."""

    def __init__(self, package: str, path: str, weight: int) -> None:
        self._at = package, path
        self._weight = weight

    @cached_property
    def names(self) -> dict[int, str]:
        found: dict[int, str] = _file(*self._at).getBestCmap()
        return found

    @cached_property
    def _glyphs(self) -> Any:
        font = _file(*self._at)
        return font.getGlyphSet(location={"wght": self._weight} if "fvar" in font else None)

    def letter(self, char: str) -> _Letter:
        glyph, scale = self._glyphs[self.names[ord(char)]], _EM / _file(*self._at)["head"].unitsPerEm
        drawn, pen = DecomposingRecordingPen(self._glyphs), TTGlyphPen(None)
        glyph.draw(drawn)
        drawn.replay(TransformPen(pen, (scale, 0, 0, scale, 0, 0)))
        return _Letter(pen.glyph(), round(glyph.width * scale))


class Face:
    """Letters of one weight."""

    def __init__(self, name: str, weight: int, other: str) -> None:
        self.name = name
        self._weight = weight
        self._sources = [_Source("justmytype_intl_cjk", path, weight) for path in _NOTO]
        self._sources.append(_Source("matplotlib", f"mpl-data/fonts/ttf/{other}", weight))
        self._letters: dict[str, _Letter] = {}

    def has(self, char: str) -> bool:
        """Whether any file has the character."""
        with LOCK:
            return char in self._letters or any(ord(char) in source.names for source in self._sources)

    def _letter(self, char: str) -> _Letter:
        found = self._letters.get(char)
        if found is None:
            with LOCK:
                source = next(source for source in self._sources if ord(char) in source.names)
                found = self._letters[char] = source.letter(char)
        return found

    def width(self, char: str) -> int:
        """In thousandths of the size, for a character that it has."""
        return self._letter(char).width

    def font(self, chars: Iterable[str]) -> BytesIO:
        """A TrueType file of just these characters, the same bytes for the same characters."""
        letters = {f"u{ord(char):05x}": (ord(char), self._letter(char)) for char in sorted(set(chars) | {MISSING})}
        glyphs = {".notdef": letters[f"u{ord(MISSING):05x}"][1]} | {name: found[1] for name, found in letters.items()}
        font = FontBuilder(_EM)
        font.setupGlyphOrder(list(glyphs))
        font.setupCharacterMap({code: name for name, (code, _) in letters.items()})
        font.setupGlyf({name: letter.outline for name, letter in glyphs.items()})
        sides = font.font["glyf"]
        font.setupHorizontalMetrics({n: (g.width, getattr(sides[n], "xMin", 0)) for n, g in glyphs.items()})
        font.setupHorizontalHeader(ascent=_ASCENT, descent=_DESCENT)
        font.setupNameTable({"familyName": "Printed", "styleName": self.name, "psName": self.name})
        font.setupOS2(
            sTypoAscender=_ASCENT, sTypoDescender=_DESCENT, sCapHeight=733, usWeightClass=self._weight, fsType=0
        )
        font.setupPost(keepGlyphNames=False)
        font.updateHead(created=0, modified=0)
        font.font.recalcTimestamp = False
        out = BytesIO()
        font.save(out)
        out.seek(0)
        return out


REGULAR = Face("Printed-Regular", 400, "DejaVuSans.ttf")
BOLD = Face("Printed-Bold", 700, "DejaVuSans-Bold.ttf")
