"""A table over as many pages as it needs: each begins with the columns' names and ends with its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from commerce.fulfilment.documents.canvas import Align, PdfCanvas
from commerce.fulfilment.documents.text_fitting import LEADING, MM, Fitted, fit

_PAD = 1.2
_HEAD = 6.5
_BOX = 3.6
_GAP = 3
"""Between columns."""


class Column(NamedTuple):
    """A column so many millimetres wide. Text that is longer than the height of `lines` ends with an ellipsis; without,
    it goes on as long as it takes. In a column of check boxes any text means a box."""

    title: str
    width: float
    size: float = 9
    align: Align = "left"
    bold: bool = False
    lines: int | None = 1
    check: bool = False


def table(
    paper: PdfCanvas,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    edge: float,
    first_top: float,
    head: Callable[[], float],
) -> float:
    """Draw it from `first_top` of the page that the paper is on, and on further pages; `head` draws what is at the top
    of those and says where the table may begin. Returns where it ends."""
    bottom = paper.height - edge - 7
    top = _titles(paper, columns, edge, first_top)
    for row in rows:
        cells = [_cell(column, text) for column, text in zip(columns, row, strict=True)]
        largest = max(cell.size for cell in cells)
        high = max(cell.height + (largest - cell.size) / MM for cell in cells) + 2 * _PAD
        if top + high > bottom:
            paper.add_page()
            top = _titles(paper, columns, edge, head())
        _row(paper, columns, cells, edge, top)
        top += high
        paper.rule(edge, top, paper.width - 2 * edge, line=0.1)
    return top


def number_pages(paper: PdfCanvas, edge: float) -> None:
    """Write "page x of y" under every page."""
    for page in range(1, paper.pages + 1):
        paper.turn_to(page)
        room = paper.width - 2 * edge
        paper.text(
            f"第 {page} 页 共 {paper.pages} 页  Page {page} of {paper.pages}",
            edge,
            paper.height - edge - 4,
            room,
            8,
            align="right",
        )


def _titles(paper: PdfCanvas, columns: Sequence[Column], edge: float, top: float) -> float:
    left = edge
    for column in columns:
        paper.text(column.title, left, top + 1, column.width, 8, align=column.align, bold=True)
        left += column.width + _GAP
    paper.rule(edge, top + _HEAD, paper.width - 2 * edge, line=0.5)
    return top + _HEAD


def _row(paper: PdfCanvas, columns: Sequence[Column], cells: Sequence[Fitted], edge: float, top: float) -> None:
    left = edge
    texts: list[tuple[Fitted, float, float, bool, Align]] = []
    for column, cell in zip(columns, cells, strict=True):
        if column.check and cell.lines:
            paper.box(left, top + _PAD + 0.6, _BOX, _BOX)
        elif not column.check:
            texts.append((cell, left, column.width, column.bold, column.align))
        left += column.width + _GAP
    paper.side_by_side(texts, top + _PAD)


def _cell(column: Column, text: str) -> Fitted:
    height = math.inf if column.lines is None else column.lines * column.size * LEADING / MM
    return fit([text], column.width, column.size, smallest=column.size * 0.75, height=height, bold=column.bold)
