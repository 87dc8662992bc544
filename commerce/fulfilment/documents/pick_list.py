"""Draws the pick list of a wave, on A4: units by shelf, with the shipments that they go into."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import tzinfo

from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MAX_LINES
from commerce.fulfilment.documents.table import Column, draw_table, number_pages
from commerce.shipping.model import Pick, Wave

_WIDTH, _HEIGHT = 210, 297
_MARGIN = 12
_ROOM = _WIDTH - 2 * _MARGIN
_LEFT_WIDTH = 68
_CODE_WIDTH = _ROOM - _LEFT_WIDTH
_SHIPMENTS_PER_ROW = 24
"""A pick for more shipments is continued in the next row."""
_COLUMNS = (
    Column("", 5, check=True),
    Column("货架 Shelf", 27, size=11, bold=True, lines=3),
    Column("货号 SKU", 30, lines=4),
    Column("品名 Name", 53, lines=2),
    Column("数量 Units", 17, size=11, align="right", bold=True),
    Column("包裹×数量 Shipment×units", 39, lines=None),
)


def draw_pick_list(wave: Wave, warehouse: str, zone: tzinfo) -> bytes:
    """Draw a pick list as PDF, with the wave id as Code 128.

    `warehouse` is its name, `zone` that of the times.

    The last column says how many units go into which shipment, by its number in the wave. Raises `ValueError` for more
    than 10,000 picks.
    """
    if len(wave.picks) > MAX_LINES:
        raise ValueError(f"cannot draw a pick list of {len(wave.picks)} lines: it must be {MAX_LINES} at most")
    canvas = PdfCanvas(_WIDTH, _HEIGHT, f"Pick list {wave.wave_id}")
    canvas.add_page()
    draw_table(
        canvas,
        _COLUMNS,
        [row for pick in sorted(wave.picks, key=_shelf_order) for row in _pick_rows(pick)],
        margin=_MARGIN,
        first_top=_draw_first_head(canvas, wave, warehouse, zone),
        head=lambda: _draw_next_head(canvas, wave, warehouse),
    )
    number_pages(canvas, _MARGIN)
    return canvas.to_pdf()


def _shelf_order(pick: Pick) -> tuple[list[tuple[bool, int, str]], str]:
    """Order 7 before A-2, and A-2 before A-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", pick.shelf)
    return [(False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts], pick.sku


def _pick_rows(pick: Pick) -> Iterator[tuple[str, ...]]:
    shipments = [f"{number}×{units}" for number, units in sorted(pick.shipments.items())]
    yield "x", pick.shelf, pick.sku, pick.name, f"{pick.quantity:,}", ", ".join(shipments[:_SHIPMENTS_PER_ROW])
    for start in range(_SHIPMENTS_PER_ROW, len(shipments), _SHIPMENTS_PER_ROW):
        yield "", "", pick.sku, "续 continued", "", ", ".join(shipments[start : start + _SHIPMENTS_PER_ROW])


def _draw_first_head(canvas: PdfCanvas, wave: Wave, warehouse: str, zone: tzinfo) -> float:
    canvas.draw_text("拣货单 Pick list", _MARGIN, _MARGIN, _LEFT_WIDTH, 20, bold=True)
    canvas.draw_text(f"仓库 Warehouse {warehouse}", _MARGIN, _MARGIN + 10, _LEFT_WIDTH, 10, min_size=7, bold=True)
    canvas.draw_text(f"{wave.created_at.astimezone(zone):%Y-%m-%d %H:%M}", _MARGIN, _MARGIN + 15, _LEFT_WIDTH, 10)
    units = sum(pick.quantity for pick in wave.picks)
    counts = f"{len(wave.shipments):,} 包裹 shipments, {len(wave.picks):,} 项 picks, {units:,} 件 units"
    canvas.draw_text(counts, _MARGIN, _MARGIN + 20, _LEFT_WIDTH, 10, min_size=7)
    canvas.draw_code128(str(wave.wave_id), _MARGIN + _LEFT_WIDTH, _MARGIN, _CODE_WIDTH, 15)
    canvas.draw_text(str(wave.wave_id), _MARGIN + _LEFT_WIDTH, _MARGIN + 16, _CODE_WIDTH, 9, align="center")
    return _MARGIN + 28


def _draw_next_head(canvas: PdfCanvas, wave: Wave, warehouse: str) -> float:
    canvas.draw_text(f"拣货单 Pick list  {wave.wave_id}", _MARGIN, _MARGIN, _ROOM - 60, 9, bold=True)
    canvas.draw_text(warehouse, _WIDTH - _MARGIN - 60, _MARGIN, 60, 9, min_size=7, bold=True, align="right")
    return _MARGIN + 6
