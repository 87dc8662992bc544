"""The label of a parcel, 100 mm by 150 mm, for a label printer. What people compare by eye is large."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.fulfilment.documents.address_format import written
from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MOST_LABELS, LabelData
from commerce.fulfilment.documents.text_fitting import fit
from commerce.kernel.address import Address
from commerce.kernel.money import format_money

_WIDE, _HIGH = 100, 150
_EDGE = 4
_ROOM = _WIDE - 2 * _EDGE
_QR = 28
_BLANK = 1.5
"""The barcode may be wider than the rest: the longest needs it."""


def label(data: LabelData) -> bytes:
    """A label as PDF, one page. Both codes hold the tracking number and nothing else: it is what carriers' scanners
    look for, and an address on the web would be another thing to keep alive for as long as parcels travel. A number
    of more than some 28 letters makes bars that a label printer with 203 dots an inch prints too finely for many
    scanners; then there is the QR code. Raises `ValueError` for a tracking number that cannot be a Code 128."""
    return labels([data])


def labels(many: Sequence[LabelData]) -> bytes:
    """Labels in one PDF, a page each, 1 to 500 of them. Raises `ValueError` as `label` does."""
    if not 1 <= len(many) <= MOST_LABELS:
        raise ValueError(f"{len(many)} labels: it must be 1 to {MOST_LABELS} in one file")
    paper = PdfCanvas(_WIDE, _HIGH, "Label " + many[0].tracking_no if len(many) == 1 else f"{len(many)} labels")
    for data in many:
        paper.add_page()
        _head(paper, data)
        _code(paper, data)
        _people(paper, data)
        _foot(paper, data)
    return paper.pdf()


def _head(paper: PdfCanvas, data: LabelData) -> None:
    paper.text(data.carrier, _EDGE, _EDGE, 58, 20, smallest=9, bold=True)
    paper.text(data.service or "", _EDGE, 13, 58, 10, smallest=7)
    paper.text(f"{data.parcel} / {data.parcels}", 64, _EDGE, 32, 20, smallest=9, bold=True, align="right")
    paper.text("件数 Parcel", 64, 13.5, 32, 8, align="right")
    paper.rule(_EDGE, 18.5, _ROOM)
    paper.centred(data.sort_code or data.to.city, _EDGE, 27, _ROOM, 40, smallest=8, height=14)
    paper.rule(_EDGE, 35.5, _ROOM)


def _code(paper: PdfCanvas, data: LabelData) -> None:
    paper.code128(data.tracking_no, _BLANK, 37.5, _WIDE - 2 * _BLANK, 17)
    paper.centred(data.tracking_no, _EDGE, 58.9, _ROOM, 14, height=7)
    paper.rule(_EDGE, 63, _ROOM)


def _people(paper: PdfCanvas, data: LabelData) -> None:
    _party(paper, "收", "TO", data.to, top=64.5, size=14, height=27)
    paper.rule(_EDGE, 101, _ROOM)
    _party(paper, "寄", "FROM", data.sender, top=102, size=8, height=8)
    paper.rule(_EDGE, 115, _ROOM)


def _party(paper: PdfCanvas, sign: str, word: str, who: Address, *, top: float, size: float, height: float) -> None:
    side, left = 8 if size > 10 else 6, 16
    room = _WIDE - _EDGE - left
    paper.box(_EDGE, top + 0.5, side, side, filled=True)
    paper.centred(sign, _EDGE, top + 0.5 + side / 2, side, side * 2.2, white=True)
    paper.text(word, _EDGE - 1, top + side + 1, side + 2, 6, smallest=5, align="center")
    name = fit([who.name], room * 0.55, size, smallest=size * 0.6, bold=True)
    phone = fit([who.phone], room * 0.42, size, smallest=6, bold=True)
    paper.side_by_side([(name, left, room, True, "left"), (phone, left, room, True, "right")], top)
    below = top + max(name.height, phone.height) + 0.6
    paper.text(written(who), left, below, room, size * 0.92, smallest=6, height=height)


def _foot(paper: PdfCanvas, data: LabelData) -> None:
    room = _ROOM - _QR - 2
    top = 116.5
    if data.cash is not None and data.cash.amount:
        paper.box(_EDGE + 0.4, top, room - 0.8, 14, line=0.8)
        paper.text("代收货款 Cash to collect", _EDGE + 2, top + 0.8, room - 4, 8, bold=True)
        amount = format_money(data.cash.amount, data.cash.currency)
        paper.centred(amount, _EDGE + 2, top + 9, room - 4, 22)
        top += 15.5
    paper.text(f"订单 Order {data.order_id.hex[-8:].upper()}", _EDGE, top, room * 0.55, 8.5, smallest=6)
    paper.text(f"重量 {data.weight_g / 1000:,.2f} kg", _EDGE, top, room, 8.5, smallest=6, align="right")
    if data.held is not None:
        top += 5
        paper.box(_EDGE, top, room, 146.5 - top, filled=True)
        why = f"暂缓发货 HOLD: {data.held}"
        paper.text(why, _EDGE + 1.5, top + 0.7, room - 3, 12, smallest=6, height=146 - top - 0.7, bold=True, white=True)
    paper.qr(data.tracking_no, _WIDE - _EDGE - _QR, 117, _QR)
