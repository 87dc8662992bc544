"""A table over as many pages as it needs; each page begins with the column titles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from commerce.fulfilment.documents.canvas import Align, PdfCanvas
from commerce.fulfilment.documents.text_fitting import LEADING, MM, Fitted, fit_text

_PADDING = 1.2
_HEAD_HEIGHT = 6.5
_BOX_SIDE = 3.6
_COLUMN_GAP = 3


class Column(NamedTuple):
    """A column with its width in millimetres.

    Text longer than `lines` lines is cut with an ellipsis; with None it is never cut. In a column of check boxes any
    text is drawn as a box.
    """

    title: str
    width: float
    size: float = 9
    align: Align = "left"
    bold: bool = False
    lines: int | None = 1
    check: bool = False


def draw_table(
    canvas: PdfCanvas,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    margin: float,
    first_top: float,
    head: Callable[[], float],
) -> float:
    """Draw a table from `first_top` of the selected page, and on further pages. Returns the y of its end.

    `head` draws the head of each further page and returns the y at which the table may begin.
    """
    bottom = canvas.height - margin - 7
    top = _draw_titles(canvas, columns, margin, first_top)
    for row in rows:
        cells = [_fit_cell(column, text) for column, text in zip(columns, row, strict=True)]
        largest = max(cell.size for cell in cells)
        row_height = max(cell.height + (largest - cell.size) / MM for cell in cells) + 2 * _PADDING
        if top + row_height > bottom:
            canvas.add_page()
            top = _draw_titles(canvas, columns, margin, head())
        _draw_row(canvas, columns, cells, margin, top)
        top += row_height
        canvas.draw_rule(margin, top, canvas.width - 2 * margin, line=0.1)
    return top


def number_pages(canvas: PdfCanvas, margin: float) -> None:
    """Draw "page x of y" at the bottom of every page."""
    for page_no in range(1, canvas.page_count + 1):
        canvas.select_page(page_no)
        room = canvas.width - 2 * margin
        canvas.draw_text(
            f"第 {page_no} 页 共 {canvas.page_count} 页  Page {page_no} of {canvas.page_count}",
            margin,
            canvas.height - margin - 4,
            room,
            8,
            align="right",
        )


def _draw_titles(canvas: PdfCanvas, columns: Sequence[Column], margin: float, top: float) -> float:
    left = margin
    for column in columns:
        canvas.draw_text(column.title, left, top + 1, column.width, 8, align=column.align, bold=True)
        left += column.width + _COLUMN_GAP
    canvas.draw_rule(margin, top + _HEAD_HEIGHT, canvas.width - 2 * margin, line=0.5)
    return top + _HEAD_HEIGHT


def _draw_row(canvas: PdfCanvas, columns: Sequence[Column], cells: Sequence[Fitted], margin: float, top: float) -> None:
    left = margin
    texts: list[tuple[Fitted, float, float, bool, Align]] = []
    for column, cell in zip(columns, cells, strict=True):
        if column.check and cell.lines:
            canvas.draw_box(left, top + _PADDING + 0.6, _BOX_SIDE, _BOX_SIDE)
        elif not column.check:
            texts.append((cell, left, column.width, column.bold, column.align))
        left += column.width + _COLUMN_GAP
    canvas.draw_side_by_side(texts, top + _PADDING)


def _fit_cell(column: Column, text: str) -> Fitted:
    height = math.inf if column.lines is None else column.lines * column.size * LEADING / MM
    return fit_text([text], column.width, column.size, min_size=column.size * 0.75, height=height, bold=column.bold)
