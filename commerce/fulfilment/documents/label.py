"""Draws labels of 100 mm by 150 mm for label printers. Text that people compare by eye is large."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from commerce.fulfilment.documents.address_format import format_address
from commerce.fulfilment.documents.canvas import PdfCanvas
from commerce.fulfilment.documents.model import MAX_LABELS, LabelData
from commerce.fulfilment.documents.text_fitting import Fitted, fit_text, measure_width, unprintable_letters
from commerce.kernel.address import Address
from commerce.kernel.money import format_money

_WIDTH, _HEIGHT = 100, 150
_MARGIN = 4
_ROOM = _WIDTH - 2 * _MARGIN
_QR_SIDE = 28
_MIN_SIZE = 2.5
"""Font size at which the longest texts that are accepted have room, so that none is ever cut."""
_SIZE_STEP = 0.5
_GAP, _SPACING = 3, 0.6
"""Distance in millimetres of name and phone, and of both and the address."""
_BARCODE_MARGIN = 1.5
"""The barcode has narrower margins, because the longest tracking number needs the width."""


class UnprintableText(ValueError):
    """A text of a label has letters that cannot be drawn; the message names the field."""


def draw_label(data: LabelData) -> bytes:
    """Draw a label as PDF of one page.

    Raises `ValueError` for a tracking number that cannot be a Code 128, and `UnprintableText`.

    Both codes hold only the tracking number: carriers' scanners look for it, and a web address would have to be kept
    alive as long as shipments travel. A number of more than about 28 letters makes bars that a label printer with 203
    dots per inch prints too finely for many scanners; those read the QR code.
    """
    if reason := _unprintable_field(data):
        raise UnprintableText(reason)
    return draw_labels([data])


def draw_labels(labels: Sequence[LabelData]) -> bytes:
    """Draw 1 to 500 labels as one PDF, a page each. Raises `ValueError` as `draw_label` does.

    In place of a label that cannot be printed, a page says why: the others do not wait for it.
    """
    if not 1 <= len(labels) <= MAX_LABELS:
        raise ValueError(f"cannot draw {len(labels)} labels in one file: it must be 1 to {MAX_LABELS}")
    canvas = PdfCanvas(
        _WIDTH, _HEIGHT, "Label " + labels[0].tracking_no if len(labels) == 1 else f"{len(labels)} labels"
    )
    for data in labels:
        canvas.add_page()
        if reason := _unprintable_field(data):
            text = [f"NO LABEL of order {data.order_id}, parcel {data.parcel_no}", reason]
            canvas.draw_text(text, _MARGIN, _MARGIN, _ROOM, 16, height=100, bold=True)
            continue
        _draw_head(canvas, data)
        _draw_codes(canvas, data)
        _draw_parties(canvas, data)
        _draw_foot(canvas, data)
    return canvas.to_pdf()


def _unprintable_field(data: LabelData) -> str | None:
    for party, address in (("receiver", data.ship_to), ("sender", data.sender)):
        for field in ("name", "city", "line", "province", "district", "postcode"):
            if letters := unprintable_letters(getattr(address, field)):
                codes = ", ".join(f"U+{ord(letter):04X}" for letter in letters[:5])
                return f"the {party}'s {field} has letters that cannot be printed ({codes}); write it in other letters"
    return None


def _draw_head(canvas: PdfCanvas, data: LabelData) -> None:
    canvas.draw_text(data.carrier, _MARGIN, _MARGIN, 58, 20, min_size=_MIN_SIZE, bold=True)
    canvas.draw_text(data.service or "", _MARGIN, 13, 58, 10, min_size=_MIN_SIZE)
    canvas.draw_text(
        f"{data.parcel_no} / {data.shipment_count}", 64, _MARGIN, 32, 20, min_size=9, bold=True, align="right"
    )
    canvas.draw_text("件数 Parcel", 64, 13.5, 32, 8, align="right")
    canvas.draw_rule(_MARGIN, 18.5, _ROOM)
    canvas.draw_centred(data.sort_code or data.ship_to.city, _MARGIN, 27, _ROOM, 40, min_size=_MIN_SIZE, height=14)
    canvas.draw_rule(_MARGIN, 35.5, _ROOM)


def _draw_codes(canvas: PdfCanvas, data: LabelData) -> None:
    canvas.draw_code128(data.tracking_no, _BARCODE_MARGIN, 37.5, _WIDTH - 2 * _BARCODE_MARGIN, 17)
    canvas.draw_centred(data.tracking_no, _MARGIN, 58.9, _ROOM, 14, height=7)
    canvas.draw_rule(_MARGIN, 63, _ROOM)


def _draw_parties(canvas: PdfCanvas, data: LabelData) -> None:
    _draw_party(canvas, "收", "TO", data.ship_to, top=64.5, size=14, height=36)
    canvas.draw_rule(_MARGIN, 101, _ROOM)
    _draw_party(canvas, "寄", "FROM", data.sender, top=102, size=8, height=12.5)
    canvas.draw_rule(_MARGIN, 115, _ROOM)


def _draw_party(
    canvas: PdfCanvas, sign: str, word: str, address: Address, *, top: float, size: float, height: float
) -> None:
    side, left = 8 if size > 10 else 6, 16
    room = _WIDTH - _MARGIN - left
    canvas.draw_box(_MARGIN, top + 0.5, side, side, filled=True)
    canvas.draw_centred(sign, _MARGIN, top + 0.5 + side / 2, side, side * 2.2, white=True)
    canvas.draw_text(word, _MARGIN - 1, top + side + 1, side + 2, 6, min_size=5, align="center")
    name, phone, lines, is_beside = _fit_party(address, room, size, height)
    canvas.draw_fitted(name, left, top, room=room, bold=True)
    phone_top = top if is_beside else top + name.height
    canvas.draw_fitted(phone, left, phone_top, room=room, bold=True, align="right" if is_beside else "left")
    canvas.draw_fitted(lines, left, phone_top + phone.height + _SPACING, room=room)


class _Party(NamedTuple):
    """Name, phone and address of one size; the phone stands beside the name or below it."""

    name: Fitted
    phone: Fitted
    address: Fitted
    is_beside: bool


def _fit_party(address: Address, room: float, size: float, height: float) -> _Party:
    """Fit all of an address into a height: long texts are wrapped, and shrunk together, never cut."""
    while True:
        name, phone = (
            fit_text([text], room, size, min_size=size, height=inf, bold=True) for text in (address.name, address.phone)
        )
        lines = fit_text(format_address(address), room, size * 0.92, min_size=size * 0.92, height=inf)
        widths = [measure_width(line, size, bold=True) for line in (*name.lines, *phone.lines)]
        is_beside = len(widths) <= 2 and sum(widths) + _GAP <= room
        head = max(name.height, phone.height) if is_beside else name.height + phone.height
        if head + _SPACING + lines.height <= height or size <= _MIN_SIZE:
            return _Party(name, phone, lines, is_beside)
        size = max(_MIN_SIZE, size - _SIZE_STEP)


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
            text,
            _MARGIN + 1.5,
            top + 0.7,
            room - 3,
            12,
            min_size=_MIN_SIZE,
            height=146 - top - 0.7,
            bold=True,
            white=True,
        )
    canvas.draw_qr(data.tracking_no, _WIDTH - _MARGIN - _QR_SIDE, 117, _QR_SIDE)
