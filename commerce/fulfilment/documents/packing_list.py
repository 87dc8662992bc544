"""Draws the packing list that is put into the box, on A5: contents and recipient."""

from __future__ import annotations

from commerce.fulfilment.documents.address_format import format_address
from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MAX_LINES, PackingList
from commerce.fulfilment.documents.table import Column, draw_table, number_pages

_WIDTH, _HEIGHT = 148, 210
_MARGIN = 10
_ROOM = _WIDTH - 2 * _MARGIN
_QR_SIDE = 24
_COLUMNS = (
    Column("货号 SKU", 34, lines=4),
    Column("品名 Name", 68, lines=2),
    Column("数量 Units", 20, align="right", bold=True),
)


def draw_packing_list(data: PackingList) -> bytes:
    """Draw a packing list as PDF, with the order id as text and as QR code.

    Raises `ValueError` for more than 10,000 lines.
    """
    if len(data.lines) > MAX_LINES:
        raise ValueError(f"cannot draw a packing list of {len(data.lines)} lines: it must be {MAX_LINES} at most")
    canvas = PdfCanvas(
        _WIDTH, _HEIGHT, f"Packing list {data.order_id}, parcel {data.parcel_no} of {data.shipment_count}"
    )
    canvas.add_page()
    top = draw_table(
        canvas,
        _COLUMNS,
        [(line.sku, line.name, f"{line.quantity:,}") for line in data.lines],
        margin=_MARGIN,
        first_top=_draw_first_head(canvas, data),
        head=lambda: _draw_next_head(canvas, data),
    )
    if top + 8 > _HEIGHT - _MARGIN - 6:
        canvas.add_page()
        top = _draw_next_head(canvas, data)
    units = sum(line.quantity for line in data.lines)
    canvas.draw_rule(_MARGIN, top, _ROOM, line=0.5)
    canvas.draw_text(f"合计 Total: {len(data.lines):,} 项 lines", _MARGIN, top + 1.5, _ROOM / 2, 10, bold=True)
    canvas.draw_text(f"{units:,}", _MARGIN + _ROOM / 2, top + 1.5, _ROOM / 2, 10, bold=True, align="right")
    number_pages(canvas, _MARGIN)
    return canvas.to_pdf()


def _parcel_no_text(data: PackingList) -> str:
    return f"包裹 Parcel {data.parcel_no} / {data.shipment_count}"


def _draw_first_head(canvas: PdfCanvas, data: PackingList) -> float:
    room = _ROOM - _QR_SIDE - 4
    canvas.draw_text("装箱单 Packing list", _MARGIN, _MARGIN, room, 18, bold=True)
    canvas.draw_text(f"订单 Order {data.order_id}", _MARGIN, _MARGIN + 9, room, 9)
    canvas.draw_text(_parcel_no_text(data), _MARGIN, _MARGIN + 13.5, room, 11, bold=True)
    canvas.draw_text(["寄件 From " + data.sender.name], _MARGIN, _MARGIN + 19.5, room, 8, min_size=6)
    canvas.draw_qr(str(data.order_id), _WIDTH - _MARGIN - _QR_SIDE + 3, _MARGIN - 3, _QR_SIDE)
    top = _MARGIN + 26
    canvas.draw_rule(_MARGIN, top, _ROOM, line=0.5)
    name = canvas.draw_text(
        ["收件 To " + data.ship_to.name + "  " + data.ship_to.phone],
        _MARGIN,
        top + 1.5,
        _ROOM,
        11,
        min_size=7,
        bold=True,
    )
    address = canvas.draw_text(
        format_address(data.ship_to), _MARGIN, top + 2 + name.height, _ROOM, 10, min_size=7, height=15
    )
    return top + 4 + name.height + address.height


def _draw_next_head(canvas: PdfCanvas, data: PackingList) -> float:
    canvas.draw_text(f"装箱单 Packing list  {data.order_id}", _MARGIN, _MARGIN, _ROOM - 34, 9, bold=True)
    canvas.draw_text(_parcel_no_text(data), _MARGIN + _ROOM - 34, _MARGIN, 34, 9, bold=True, align="right")
    return _MARGIN + 6
