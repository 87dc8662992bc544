"""The list that lies in a parcel's box, on A5: what is in it, and for whom."""

from __future__ import annotations

from commerce.fulfilment.documents.address_format import written
from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MOST_LINES, PackingList
from commerce.fulfilment.documents.table import Column, number_pages, table

_WIDE, _HIGH = 148, 210
_EDGE = 10
_ROOM = _WIDE - 2 * _EDGE
_QR = 24
_COLUMNS = (
    Column("货号 SKU", 34, lines=4),
    Column("品名 Name", 68, lines=2),
    Column("数量 Units", 20, align="right", bold=True),
)


def packing_list(data: PackingList) -> bytes:
    """The list as PDF, with the order's id as text and as QR code. Raises `ValueError` for more than 10,000 lines."""
    if len(data.lines) > MOST_LINES:
        raise ValueError(f"a packing list of {len(data.lines)} lines: it must be {MOST_LINES} at most")
    paper = PdfCanvas(_WIDE, _HIGH, f"Packing list {data.order_id}, parcel {data.parcel} of {data.parcels}")
    paper.add_page()
    top = table(
        paper,
        _COLUMNS,
        [(line.sku, line.name, f"{line.quantity:,}") for line in data.lines],
        edge=_EDGE,
        first_top=_first_head(paper, data),
        head=lambda: _next_head(paper, data),
    )
    if top + 8 > _HIGH - _EDGE - 6:
        paper.add_page()
        top = _next_head(paper, data)
    units = sum(line.quantity for line in data.lines)
    paper.rule(_EDGE, top, _ROOM, line=0.5)
    paper.text(f"合计 Total: {len(data.lines):,} 项 lines", _EDGE, top + 1.5, _ROOM / 2, 10, bold=True)
    paper.text(f"{units:,}", _EDGE + _ROOM / 2, top + 1.5, _ROOM / 2, 10, bold=True, align="right")
    number_pages(paper, _EDGE)
    return paper.pdf()


def _parcel(data: PackingList) -> str:
    return f"包裹 Parcel {data.parcel} / {data.parcels}"


def _first_head(paper: PdfCanvas, data: PackingList) -> float:
    room = _ROOM - _QR - 4
    paper.text("装箱单 Packing list", _EDGE, _EDGE, room, 18, bold=True)
    paper.text(f"订单 Order {data.order_id}", _EDGE, _EDGE + 9, room, 9)
    paper.text(_parcel(data), _EDGE, _EDGE + 13.5, room, 11, bold=True)
    paper.text(["寄件 From " + data.sender.name], _EDGE, _EDGE + 19.5, room, 8, smallest=6)
    paper.qr(str(data.order_id), _WIDE - _EDGE - _QR + 3, _EDGE - 3, _QR)
    top = _EDGE + 26
    paper.rule(_EDGE, top, _ROOM, line=0.5)
    who = paper.text(
        ["收件 To " + data.to.name + "  " + data.to.phone], _EDGE, top + 1.5, _ROOM, 11, smallest=7, bold=True
    )
    where = paper.text(written(data.to), _EDGE, top + 2 + who.height, _ROOM, 10, smallest=7, height=15)
    return top + 4 + who.height + where.height


def _next_head(paper: PdfCanvas, data: PackingList) -> float:
    paper.text(f"装箱单 Packing list  {data.order_id}", _EDGE, _EDGE, _ROOM - 34, 9, bold=True)
    paper.text(_parcel(data), _EDGE + _ROOM - 34, _EDGE, 34, 9, bold=True, align="right")
    return _EDGE + 6
