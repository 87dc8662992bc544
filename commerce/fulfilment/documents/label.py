"""Draws labels of 100 mm by 150 mm for label printers. Text that people compare by eye is large."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.fulfilment.documents.address_format import format_address
from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MAX_LABELS, LabelData
from commerce.fulfilment.documents.text_fitting import fit_text
from commerce.kernel.address import Address
from commerce.kernel.money import format_money

_WIDTH, _HEIGHT = 100, 150
_MARGIN = 4
_ROOM = _WIDTH - 2 * _MARGIN
_QR_SIDE = 28
_BARCODE_MARGIN = 1.5
"""The barcode has narrower margins, because the longest tracking number needs the width."""


def draw_label(data: LabelData) -> bytes:
    """Draw a label as PDF of one page.

    Raises `ValueError` for a tracking number that cannot be a Code 128.

    Both codes hold only the tracking number: carriers' scanners look for it, and a web address would have to be kept
    alive as long as shipments travel. A number of more than about 28 letters makes bars that a label printer with 203
    dots per inch prints too finely for many scanners; those read the QR code.
    """
    return draw_labels([data])


def draw_labels(labels: Sequence[LabelData]) -> bytes:
    """Draw 1 to 500 labels as one PDF, a page each. Raises `ValueError` as `draw_label` does."""
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"cannot draw {len(labels)} labels in one file: it must be 1 to {MAX_LABELS}")
    canvas = PdfCanvas(
        _WIDTH, _HEIGHT, "Label " + labels[0].tracking_no if len(labels) == 1 else f"{len(labels)} labels"
    )
    for data in labels:
        canvas.add_page()
        _draw_head(canvas, data)
        _draw_codes(canvas, data)
        _draw_parties(canvas, data)
        _draw_foot(canvas, data)
    return canvas.to_pdf()


def _draw_head(canvas: PdfCanvas, data: LabelData) -> None:
    canvas.draw_text(data.carrier, _MARGIN, _MARGIN, 58, 20, min_size=9, bold=True)
    canvas.draw_text(data.service or "", _MARGIN, 13, 58, 10, min_size=7)
    canvas.draw_text(
        f"{data.parcel_no} / {data.shipment_count}", 64, _MARGIN, 32, 20, min_size=9, bold=True, align="right"
    )
    canvas.draw_text("件数 Parcel", 64, 13.5, 32, 8, align="right")
    canvas.draw_rule(_MARGIN, 18.5, _ROOM)
    canvas.draw_centred(data.sort_code or data.ship_to.city, _MARGIN, 27, _ROOM, 40, min_size=8, height=14)
    canvas.draw_rule(_MARGIN, 35.5, _ROOM)


def _draw_codes(canvas: PdfCanvas, data: LabelData) -> None:
    canvas.draw_code128(data.tracking_no, _BARCODE_MARGIN, 37.5, _WIDTH - 2 * _BARCODE_MARGIN, 17)
    canvas.draw_centred(data.tracking_no, _MARGIN, 58.9, _ROOM, 14, height=7)
    canvas.draw_rule(_MARGIN, 63, _ROOM)


def _draw_parties(canvas: PdfCanvas, data: LabelData) -> None:
    _draw_party(canvas, "收", "TO", data.ship_to, top=64.5, size=14, height=27)
    canvas.draw_rule(_MARGIN, 101, _ROOM)
    _draw_party(canvas, "寄", "FROM", data.sender, top=102, size=8, height=8)
    canvas.draw_rule(_MARGIN, 115, _ROOM)


def _draw_party(
    canvas: PdfCanvas, sign: str, word: str, address: Address, *, top: float, size: float, height: float
) -> None:
    side, left = 8 if size > 10 else 6, 16
    room = _WIDTH - _MARGIN - left
    canvas.draw_box(_MARGIN, top + 0.5, side, side, filled=True)
    canvas.draw_centred(sign, _MARGIN, top + 0.5 + side / 2, side, side * 2.2, white=True)
    canvas.draw_text(word, _MARGIN - 1, top + side + 1, side + 2, 6, min_size=5, align="center")
    name = fit_text([address.name], room * 0.55, size, min_size=size * 0.6, bold=True)
    phone = fit_text([address.phone], room * 0.42, size, min_size=6, bold=True)
    canvas.draw_side_by_side([(name, left, room, True, "left"), (phone, left, room, True, "right")], top)
    below = top + max(name.height, phone.height) + 0.6
    canvas.draw_text(format_address(address), left, below, room, size * 0.92, min_size=6, height=height)


def _draw_foot(canvas: PdfCanvas, data: LabelData) -> None:
    room = _ROOM - _QR_SIDE - 2
    top = 116.5
    if data.cash_to_collect is not None and data.cash_to_collect.amount:
        canvas.draw_box(_MARGIN + 0.4, top, room - 0.8, 14, line=0.8)
        canvas.draw_text("代收货款 Cash to collect", _MARGIN + 2, top + 0.8, room - 4, 8, bold=True)
        amount = format_money(data.cash_to_collect.amount, data.cash_to_collect.currency)
        canvas.draw_centred(amount, _MARGIN + 2, top + 9, room - 4, 22)
        top += 15.5
    canvas.draw_text(f"订单 Order {data.order_id.hex[-8:].upper()}", _MARGIN, top, room * 0.55, 8.5, min_size=6)
    canvas.draw_text(f"重量 {data.weight_g / 1000:,.2f} kg", _MARGIN, top, room, 8.5, min_size=6, align="right")
    if data.hold_reason is not None:
        top += 5
        canvas.draw_box(_MARGIN, top, room, 146.5 - top, filled=True)
        text = f"暂缓发货 HOLD: {data.hold_reason}"
        canvas.draw_text(
            text, _MARGIN + 1.5, top + 0.7, room - 3, 12, min_size=6, height=146 - top - 0.7, bold=True, white=True
        )
    canvas.draw_qr(data.tracking_no, _WIDTH - _MARGIN - _QR_SIDE, 117, _QR_SIDE)
