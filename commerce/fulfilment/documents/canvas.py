"""A PDF canvas: coordinates in millimetres from the top left corner, font sizes in points."""

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
from commerce.fulfilment.documents.text_fitting import (
    LEADING,
    MM,
    Fitted,
    clean_text,
    fit_text,
    measure_width,
    select_face,
)

Align = Literal["left", "center", "right"]

_DOT = 25.4 / 203
"""A dot in millimetres of a label printer with 203 dots per inch.

Codes are drawn in whole dots, so none is blurred.
"""
_MAX_DOTS = 4
_MIN_DOTS = 2
"""Dots per bar.

Such a printer cannot print finer bars sharply: then the code takes all the space there is.
"""
_QUIET_MODULES = 10
"""Blank modules on either side of a barcode."""
_BASELINE = 1.0
"""Distance from the top of a line to its baseline, in font sizes."""
_MIDDLE = 0.62
"""Distance from the top of a line to the middle of its letters, in font sizes."""
_BARCODE_TEXT = re.compile(r"[!-~]{1,64}")


def _snap_to_dot(position: float) -> float:
    return round(position / _DOT) * _DOT


class PdfCanvas:
    """Pages of one size.

    Drawing is recorded and rendered by `to_pdf`, when all characters of the fonts are known.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height = width, height
        self._title = clean_text(title)
        self._pages: list[list[Callable[[Any], None]]] = []
        self._page_index = 0
        self._chars: dict[bool, set[str]] = {False: set(), True: set()}

    @property
    def page_count(self) -> int:
        return len(self._pages)

    def add_page(self) -> None:
        """Add a page and draw on it from now on."""
        self._pages.append([])
        self._page_index = len(self._pages) - 1

    def select_page(self, page_no: int) -> None:
        """Draw on this page from now on, counted from 1."""
        self._page_index = page_no - 1

    def _draw(self, draw: Callable[[Any], None]) -> None:
        self._pages[self._page_index].append(draw)

    def draw_fitted(
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
        """Draw fitted lines; `y` is their top."""
        name, size = select_face(bold).name, fitted.size
        for number, line in enumerate(fitted.lines):
            self._chars[bold].update(line)
            space = room - measure_width(line, size, bold=bold)
            left = (x + {"left": 0, "center": space / 2, "right": space}[align]) * MM
            baseline = (self.height - y) * MM - (number * LEADING + _BASELINE) * size

            def draw(canvas: Any, line: str = line, left: float = left, baseline: float = baseline) -> None:
                canvas.setFillGray(1 if white else 0)
                canvas.setFont(name, size)
                canvas.drawString(left, baseline, line)

            self._draw(draw)

    def draw_text(
        self,
        text: str | Sequence[str],
        x: float,
        y: float,
        room: float,
        size: float,
        *,
        min_size: float = 6,
        height: float | None = None,
        bold: bool = False,
        align: Align = "left",
        white: bool = False,
    ) -> Fitted:
        """Fit text with `fit_text` and draw it."""
        paragraphs = [text] if isinstance(text, str) else text
        fitted = fit_text(paragraphs, room, size, min_size=min_size, height=height, bold=bold)
        self.draw_fitted(fitted, x, y, room=room, bold=bold, align=align, white=white)
        return fitted

    def draw_centred(
        self,
        text: str,
        x: float,
        middle: float,
        room: float,
        size: float,
        *,
        min_size: float = 6,
        height: float | None = None,
        white: bool = False,
    ) -> None:
        """Draw bold text centred in a width `room`; `middle` is the vertical centre."""
        fitted = fit_text([text], room, size, min_size=min_size, height=height, bold=True)
        top = middle - (_MIDDLE + (len(fitted.lines) - 1) * LEADING / 2) * fitted.size / MM
        self.draw_fitted(fitted, x, top, room=room, bold=True, align="center", white=white)

    def draw_side_by_side(self, texts: Sequence[tuple[Fitted, float, float, bool, Align]], y: float) -> None:
        """Draw fitted texts so that their first lines share a baseline.

        Each is (fitted, x, room, bold, align).
        """
        largest = max((fitted.size for fitted, *_ in texts if fitted.lines), default=0)
        for fitted, x, room, bold, align in texts:
            self.draw_fitted(fitted, x, y + (largest - fitted.size) * _BASELINE / MM, room=room, bold=bold, align=align)

    def draw_box(
        self, x: float, y: float, width: float, height: float, *, line: float = 0.3, filled: bool = False
    ) -> None:
        """Draw a frame with a line of this many millimetres, or a black block."""

        def draw(canvas: Any) -> None:
            canvas.setLineWidth(line * MM)
            canvas.setFillGray(0)
            canvas.rect(
                x * MM, (self.height - y - height) * MM, width * MM, height * MM, stroke=not filled, fill=filled
            )

        self._draw(draw)

    def draw_rule(self, x: float, y: float, length: float, *, line: float = 0.3) -> None:
        """Draw a line from left to right."""

        def draw(canvas: Any) -> None:
            canvas.setLineWidth(line * MM)
            canvas.line(x * MM, (self.height - y) * MM, (x + length) * MM, (self.height - y) * MM)

        self._draw(draw)

    def draw_code128(self, code: str, x: float, y: float, room: float, height: float) -> None:
        """Draw a Code 128 (ISO/IEC 15417) centred in a width `room`, which includes its blank sides.

        Raises `ValueError` if `code` is not 1 to 64 printable ASCII characters.
        """
        if not _BARCODE_TEXT.fullmatch(code):
            raise ValueError(f"{code[:70]!r} cannot be a barcode: use 1 to 64 ASCII letters, digits and signs")
        modules = round(Code128(code, barWidth=1, quiet=0).width)
        dots = min(room / (modules + 2 * _QUIET_MODULES) / _DOT, _MAX_DOTS)
        if dots >= _MIN_DOTS:
            dots = int(dots)
        bar = Code128(code, barWidth=dots * _DOT * MM, barHeight=height * MM, quiet=0)
        left = _snap_to_dot(x + (room - modules * dots * _DOT) / 2)
        self._draw(lambda canvas: bar.drawOn(canvas, left * MM, (self.height - y - height) * MM))

    def draw_qr(self, content: str, x: float, y: float, room: float) -> None:
        """Draw a QR code (ISO/IEC 18004, level M) with its blank border, centred in a square of `room`."""
        code = segno.make(content, error="m", micro=False, boost_error=False)
        rows = [bytes(row) for row in code.matrix]
        dot = int(room / (len(rows) + 8) / _DOT) * _DOT
        margin = (room - len(rows) * dot) / 2
        x, y = _snap_to_dot(x + margin), _snap_to_dot(y + margin)

        def draw(canvas: Any) -> None:
            canvas.setFillGray(0)
            path = canvas.beginPath()
            for number, row in enumerate(rows):
                for dark in re.finditer(rb"\x01+", row):
                    left, down = x + dark.start() * dot, y + (number + 1) * dot
                    path.rect(left * MM, (self.height - down) * MM, len(dark[0]) * dot * MM, dot * MM)
            canvas.drawPath(path, stroke=0, fill=1)

        self._draw(draw)

    def to_pdf(self) -> bytes:
        """Render the document."""
        out = BytesIO()
        with LOCK:
            fonts = [
                TTFont(select_face(bold).name, select_face(bold).build_font(chars))
                for bold, chars in self._chars.items()
                if chars
            ]
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
