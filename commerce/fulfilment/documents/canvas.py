"""A document being drawn: millimetres from the top left corner, sizes of letters in points."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Literal

import segno
from reportlab.graphics.barcode.code128 import Code128
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from commerce.fulfilment.documents.fonts import LOCK
from commerce.fulfilment.documents.text_fitting import LEADING, MM, Fitted, clean, face, fit, width

Align = Literal["left", "center", "right"]

_DOT = 25.4 / 203
"""A dot of a label printer with 203 dots an inch, in millimetres: codes are drawn in whole ones, so none is blurred."""
_MOST_DOTS = 4
_FEWEST_DOTS = 2
"""A finer bar such a printer does not print sharply anyhow, so then the room is used to the full."""
_QUIET = 10
"""Modules that are blank on either side of a barcode."""
_BASE = 1.0
"""From the top of a line to what its letters stand on, in sizes."""
_MIDDLE = 0.62
"""From the top of a line to the middle of its letters, in sizes."""
_CODE = re.compile(r"[!-~]{1,64}")


def _on_dot(place: float) -> float:
    return round(place / _DOT) * _DOT


class PdfCanvas:
    """Pages of one size. What is drawn is kept until `pdf`, when it is known which letters are needed."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height = width, height
        self._title = clean(title)
        self._pages: list[list[Callable[[Any], None]]] = []
        self._on = 0
        self._letters: dict[bool, set[str]] = {False: set(), True: set()}

    @property
    def pages(self) -> int:
        return len(self._pages)

    def add_page(self) -> None:
        """What is drawn from now on is on a new page."""
        self._pages.append([])
        self._on = len(self._pages) - 1

    def turn_to(self, page: int) -> None:
        """What is drawn from now on is on that page, counted from 1."""
        self._on = page - 1

    def _draw(self, draw: Callable[[Any], None]) -> None:
        self._pages[self._on].append(draw)

    def set(
        self,
        fitted: Fitted,
        x: float,
        y: float,
        *,
        room: float,
        bold: bool = False,
        align: Align = "left",
        white: bool = False,
    ) -> None:
        """Draw lines that have been fitted; `y` is their top."""
        name, size = face(bold).name, fitted.size
        for number, line in enumerate(fitted.lines):
            self._letters[bold].update(line)
            space = room - width(line, size, bold=bold)
            at = (x + {"left": 0, "center": space / 2, "right": space}[align]) * MM
            up = (self.height - y) * MM - (number * LEADING + _BASE) * size

            def draw(canvas: Any, line: str = line, at: float = at, up: float = up) -> None:
                canvas.setFillGray(1 if white else 0)
                canvas.setFont(name, size)
                canvas.drawString(at, up, line)

            self._draw(draw)

    def text(
        self,
        text: str | Sequence[str],
        x: float,
        y: float,
        room: float,
        size: float,
        *,
        smallest: float = 6,
        height: float | None = None,
        bold: bool = False,
        align: Align = "left",
        white: bool = False,
    ) -> Fitted:
        """Fit text and draw it; see `fit`."""
        paragraphs = [text] if isinstance(text, str) else text
        fitted = fit(paragraphs, room, size, smallest=smallest, height=height, bold=bold)
        self.set(fitted, x, y, room=room, bold=bold, align=align, white=white)
        return fitted

    def centred(
        self,
        text: str,
        x: float,
        middle: float,
        room: float,
        size: float,
        *,
        smallest: float = 6,
        height: float | None = None,
        white: bool = False,
    ) -> None:
        """Bold text in the middle of a room, `middle` being where half its height is."""
        fitted = fit([text], room, size, smallest=smallest, height=height, bold=True)
        top = middle - (_MIDDLE + (len(fitted.lines) - 1) * LEADING / 2) * fitted.size / MM
        self.set(fitted, x, top, room=room, bold=True, align="center", white=white)

    def side_by_side(self, texts: Sequence[tuple[Fitted, float, float, bool, Align]], y: float) -> None:
        """Lines that have been fitted, each with its x, its room, whether it is bold and how it is aligned: the first
        lines of all stand on one line."""
        largest = max((fitted.size for fitted, *_ in texts if fitted.lines), default=0)
        for fitted, x, room, bold, align in texts:
            self.set(fitted, x, y + (largest - fitted.size) * _BASE / MM, room=room, bold=bold, align=align)

    def box(self, x: float, y: float, wide: float, high: float, *, line: float = 0.3, filled: bool = False) -> None:
        """A frame, its line so many millimetres thick, or a black block."""

        def draw(canvas: Any) -> None:
            canvas.setLineWidth(line * MM)
            canvas.setFillGray(0)
            canvas.rect(x * MM, (self.height - y - high) * MM, wide * MM, high * MM, stroke=not filled, fill=filled)

        self._draw(draw)

    def rule(self, x: float, y: float, long: float, *, line: float = 0.3) -> None:
        """A line from left to right."""

        def draw(canvas: Any) -> None:
            canvas.setLineWidth(line * MM)
            canvas.line(x * MM, (self.height - y) * MM, (x + long) * MM, (self.height - y) * MM)

        self._draw(draw)

    def code128(self, code: str, x: float, y: float, room: float, high: float) -> None:
        """A Code 128 (ISO/IEC 15417) in the middle of a room that includes its blank sides. Raises `ValueError` for
        what is not 1 to 64 printable ASCII characters."""
        if not _CODE.fullmatch(code):
            raise ValueError(f"{code[:70]!r} cannot be a barcode: it must be 1 to 64 of ASCII's letters, digits, signs")
        modules = round(Code128(code, barWidth=1, quiet=0).width)
        dots = min(room / (modules + 2 * _QUIET) / _DOT, _MOST_DOTS)
        if dots >= _FEWEST_DOTS:
            dots = int(dots)
        bar = Code128(code, barWidth=dots * _DOT * MM, barHeight=high * MM, quiet=0)
        left = _on_dot(x + (room - modules * dots * _DOT) / 2)
        self._draw(lambda canvas: bar.drawOn(canvas, left * MM, (self.height - y - high) * MM))

    def qr(self, content: str, x: float, y: float, room: float) -> None:
        """A QR code (ISO/IEC 18004, correction level M) with its blank border, in the middle of a square room."""
        code = segno.make(content, error="m", micro=False, boost_error=False)
        rows = [bytes(row) for row in code.matrix]
        dot = int(room / (len(rows) + 8) / _DOT) * _DOT
        edge = (room - len(rows) * dot) / 2
        x, y = _on_dot(x + edge), _on_dot(y + edge)

        def draw(canvas: Any) -> None:
            canvas.setFillGray(0)
            path = canvas.beginPath()
            for number, row in enumerate(rows):
                for dark in re.finditer(rb"\x01+", row):
                    left, down = x + dark.start() * dot, y + (number + 1) * dot
                    path.rect(left * MM, (self.height - down) * MM, len(dark[0]) * dot * MM, dot * MM)
            canvas.drawPath(path, stroke=0, fill=1)

        self._draw(draw)

    def pdf(self) -> bytes:
        """The document."""
        out = BytesIO()
        with LOCK:
            fonts = [TTFont(face(bold).name, face(bold).font(chars)) for bold, chars in self._letters.items() if chars]
            for font in fonts:
                pdfmetrics.registerFont(font)
            try:
                canvas = Canvas(out, pagesize=(self.width * MM, self.height * MM), pageCompression=1, invariant=1)
                canvas.setTitle(self._title)
                for page in self._pages:
                    for draw in page:
                        draw(canvas)
                    canvas.showPage()
                canvas.save()
            finally:
                for font in fonts:
                    font.unregister()
        return out.getvalue()
