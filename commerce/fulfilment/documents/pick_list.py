"""The list of a wave, on A4: one walk along the shelves, and into which parcels goes what is taken there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import tzinfo

from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MOST_LINES
from commerce.fulfilment.documents.table import Column, number_pages, table
from commerce.shipping.model import Pick, Wave

_WIDE, _HIGH = 210, 297
_EDGE = 12
_ROOM = _WIDE - 2 * _EDGE
_LEFT = 68
_CODE = _ROOM - _LEFT
_PER_ROW = 24
"""Parcels in one row; what goes into more of them goes on in the next."""
_COLUMNS = (
    Column("", 5, check=True),
    Column("货架 Shelf", 27, size=11, bold=True, lines=3),
    Column("货号 SKU", 30, lines=4),
    Column("品名 Name", 53, lines=2),
    Column("数量 Units", 17, size=11, align="right", bold=True),
    Column("包裹×数量 Parcel×units", 39, lines=None),
)


def pick_list(wave: Wave, warehouse: str, zone: tzinfo) -> bytes:
    """The list as PDF, with the wave's id as Code 128; `warehouse` is its name, `zone` that of the times. The last
    column says how many units go into which of the wave's parcels, by its number. Raises `ValueError` for more than
    10,000 picks."""
    if len(wave.picks) > MOST_LINES:
        raise ValueError(f"a pick list of {len(wave.picks)} lines: it must be {MOST_LINES} at most")
    paper = PdfCanvas(_WIDE, _HIGH, f"Pick list {wave.wave_id}")
    paper.add_page()
    table(
        paper,
        _COLUMNS,
        [row for pick in sorted(wave.picks, key=_along_the_shelves) for row in _rows(pick)],
        edge=_EDGE,
        first_top=_first_head(paper, wave, warehouse, zone),
        head=lambda: _next_head(paper, wave, warehouse),
    )
    number_pages(paper, _EDGE)
    return paper.pdf()


def _along_the_shelves(pick: Pick) -> tuple[list[tuple[bool, int, str]], str]:
    """7 before A-2, A-2 before A-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", pick.shelf)
    return [(False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts], pick.sku


def _rows(pick: Pick) -> Iterator[tuple[str, ...]]:
    parcels = [f"{number}×{units}" for number, units in sorted(pick.shipments.items())]
    yield "x", pick.shelf, pick.sku, pick.name, f"{pick.quantity:,}", ", ".join(parcels[:_PER_ROW])
    for at in range(_PER_ROW, len(parcels), _PER_ROW):
        yield "", "", pick.sku, "续 continued", "", ", ".join(parcels[at : at + _PER_ROW])


def _first_head(paper: PdfCanvas, wave: Wave, warehouse: str, zone: tzinfo) -> float:
    paper.text("拣货单 Pick list", _EDGE, _EDGE, _LEFT, 20, bold=True)
    paper.text(f"仓库 Warehouse {warehouse}", _EDGE, _EDGE + 10, _LEFT, 10, smallest=7, bold=True)
    paper.text(f"{wave.created_at.astimezone(zone):%Y-%m-%d %H:%M}", _EDGE, _EDGE + 15, _LEFT, 10)
    units = sum(pick.quantity for pick in wave.picks)
    facts = f"{len(wave.shipments):,} 包裹 parcels, {len(wave.picks):,} 项 picks, {units:,} 件 units"
    paper.text(facts, _EDGE, _EDGE + 20, _LEFT, 10, smallest=7)
    paper.code128(str(wave.wave_id), _EDGE + _LEFT, _EDGE, _CODE, 15)
    paper.text(str(wave.wave_id), _EDGE + _LEFT, _EDGE + 16, _CODE, 9, align="center")
    return _EDGE + 28


def _next_head(paper: PdfCanvas, wave: Wave, warehouse: str) -> float:
    paper.text(f"拣货单 Pick list  {wave.wave_id}", _EDGE, _EDGE, _ROOM - 60, 9, bold=True)
    paper.text(warehouse, _WIDE - _EDGE - 60, _EDGE, 60, 9, smallest=7, bold=True, align="right")
    return _EDGE + 6
