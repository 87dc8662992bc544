"""Typefaces of documents.

A document embeds every glyph that it shows, so that all viewers show it alike.

No font has all characters, and a bare machine has no fonts. A typeface is therefore composed of font files from
installed packages: each character is taken from the first file that has it. Noto Sans covers simplified Chinese,
traditional Chinese, Japanese and Korean (SIL OFL 1.1, package justmytype-intl-cjk), DejaVu Sans the other alphabets
(Bitstream Vera's licence, package matplotlib). Glyphs are not shaped: `text_fitting` joins Arabic letters by other
means. A character that no file has is shown as 〓, the printers' sign for a missing glyph.
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
"""Held by the one thread that reads fonts or renders a document."""

_EM = 1000
_ASCENT, _DESCENT = 880, -120
_NOTO = tuple(f"fonts/ofl/notosans{part.lower()}/NotoSans{part}[wght].ttf" for part in ("SC", "TC", "JP", "KR"))


class _Glyph(NamedTuple):
    """An outline, and its width in thousandths of the font size."""

    outline: Any
    width: int


@cache
def _open_font(package: str, path: str) -> TTFont:
    """Open a font file of an installed package without importing the package. Tables are read when needed."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return TTFont(Path(spec.origin).parent / path, lazy=True)


class _FontFile:
    """A font file at one weight."""

    def __init__(self, package: str, path: str, weight: int) -> None:
        self._location = package, path
        self._weight = weight

    @cached_property
    def names(self) -> dict[int, str]:
        names: dict[int, str] = _open_font(*self._location).getBestCmap()
        return names

    @cached_property
    def _glyphs(self) -> Any:
        font = _open_font(*self._location)
        return font.getGlyphSet(location={"wght": self._weight} if "fvar" in font else None)

    def glyph(self, char: str) -> _Glyph:
        source, scale = self._glyphs[self.names[ord(char)]], _EM / _open_font(*self._location)["head"].unitsPerEm
        recording, pen = DecomposingRecordingPen(self._glyphs), TTGlyphPen(None)
        source.draw(recording)
        recording.replay(TransformPen(pen, (scale, 0, 0, scale, 0, 0)))
        return _Glyph(pen.glyph(), round(source.width * scale))


class Face:
    """A typeface of one weight."""

    def __init__(self, name: str, weight: int, dejavu_file: str) -> None:
        self.name = name
        self._weight = weight
        self._files = [_FontFile("justmytype_intl_cjk", path, weight) for path in _NOTO]
        self._files.append(_FontFile("matplotlib", f"mpl-data/fonts/ttf/{dejavu_file}", weight))
        self._glyphs: dict[str, _Glyph] = {}

    def has(self, char: str) -> bool:
        """Tell whether any font file has the character."""
        with LOCK:
            return char in self._glyphs or any(ord(char) in file.names for file in self._files)

    def glyph(self, char: str) -> _Glyph:
        """Return the glyph of a character that the typeface has."""
        glyph = self._glyphs.get(char)
        if glyph is None:
            with LOCK:
                file = next(file for file in self._files if ord(char) in file.names)
                glyph = self._glyphs[char] = file.glyph(char)
        return glyph

    def width(self, char: str) -> int:
        """Return the width of a character that the typeface has, in thousandths of the font size."""
        return self.glyph(char).width

    def build_font(self, chars: Iterable[str]) -> BytesIO:
        """Build a TrueType file of only these characters; equal characters are built as equal bytes."""
        glyph_of = {f"u{ord(char):05x}": (ord(char), self.glyph(char)) for char in sorted(set(chars) | {MISSING})}
        glyphs = {".notdef": glyph_of[f"u{ord(MISSING):05x}"][1]} | {
            name: glyph for name, (_, glyph) in glyph_of.items()
        }
        font = FontBuilder(_EM)
        font.setupGlyphOrder(list(glyphs))
        font.setupCharacterMap({code: name for name, (code, _) in glyph_of.items()})
        font.setupGlyf({name: glyph.outline for name, glyph in glyphs.items()})
        outlines = font.font["glyf"]
        font.setupHorizontalMetrics({n: (g.width, getattr(outlines[n], "xMin", 0)) for n, g in glyphs.items()})
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
