"""Documents: their codes can be read, their text is complete, and nothing leaves the page."""

from __future__ import annotations

import random
import string
import threading
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pypdfium2
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.fulfilment.documents.address_format import format_address
from commerce.fulfilment.documents.fonts import BOLD, MISSING, REGULAR
from commerce.fulfilment.documents.label import draw_label, draw_labels
from commerce.fulfilment.documents.model import LabelData, PackingLine, PackingList
from commerce.fulfilment.documents.packing_list import draw_packing_list
from commerce.fulfilment.documents.pick_list import draw_pick_list
from commerce.fulfilment.documents.text_fitting import MM, clean_text, fit_text, measure_width
from commerce.kernel.address import Address
from commerce.kernel.money import MAX_MINOR, Money
from commerce.shipping.model import Pick, Wave

ORDER = UUID("0199f0a2-7c3e-7b11-9c41-6f0d2b7e5a90")
SHOP = Address(
    name="极光商城", phone="400-820-8820", country="CN", province="浙江省", city="杭州市", line="文一西路969号"
)
SHENZHEN = Address(
    name="欧阳娜娜",
    phone="+86 138 0013 8000",
    country="CN",
    province="广东省",
    city="深圳市",
    district="南山区",
    line="粤海街道科技园高新南一道008号A座1203室",
    postcode="518057",
)
LODZ = Address(
    name="Łukasz Żółć-Müller", phone="+48 22 123 45 67", country="PL", city="Łódź", line="Ślężna 12", postcode="90-001"
)
LONGEST = Address(
    name="W" * 200,
    phone="+" + "8" * 31,
    country="DE",
    province="新" * 200,
    city="疆" * 200,
    district="Ä" * 200,
    line="W " * 100,
    postcode="9" * 20,
)
HOSTILE = Address(
    name="\x00\x1b[31m\u202e\ud800👩‍👩‍👧 🎁",
    phone="1234",
    country="CN",
    city="<b>& ]]> %s",
    line="a\nb\tc\u2028d (\\) BT ET",
)
BLANK_MM = 2.5
DPI = 300


def label_data(**changes: Any) -> LabelData:
    values: dict[str, Any] = {
        "order_id": ORDER,
        "parcel_no": 1,
        "shipment_count": 3,
        "sender": SHOP,
        "ship_to": SHENZHEN,
        "carrier": "sf_express",
        "tracking_no": "SF1328765430091",
        "weight_g": 1250,
    }
    return LabelData(**values | changes)


def render_pages(pdf: bytes, dpi: int = DPI) -> list[Any]:
    with pypdfium2.PdfDocument(pdf) as document:
        return [page.render(scale=dpi / 72, grayscale=True).to_pil() for page in document]


def page_texts(pdf: bytes) -> list[str]:
    with pypdfium2.PdfDocument(pdf) as document:
        return [page.get_textpage().get_text_range() for page in document]


def read_codes(image: Any) -> dict[str, str]:
    fine = image.width > 1000
    barcodes = zxingcpp.read_barcodes(image, try_rotate=False, try_invert=False, try_downscale=fine)
    return {str(code.format): code.text for code in barcodes}


def without_spaces(text: str) -> str:
    return "".join(text.split())


def check_margin(image: Any, dpi: int = DPI) -> None:
    margin = round(BLANK_MM * dpi / 25.4)
    framed = image.copy()
    framed.paste(255, (margin, margin, image.width - margin, image.height - margin))
    assert framed.getextrema() == (255, 255)


def has_ink(image: Any, box: tuple[float, float, float, float]) -> bool:
    """Tell whether anything is drawn in this area in millimetres: left, top, right, bottom."""
    part = image.crop(tuple(round(side * DPI / 25.4) for side in box))
    return part.getextrema()[0] < 128


def test_label_has_all_fields_and_readable_codes() -> None:
    pdf = draw_label(
        label_data(service="标快", sort_code="755-A12", cash_to_collect=Money(129900, "CNY"), hold_reason="客户改地址")
    )
    [image] = render_pages(pdf)
    assert image.width / DPI * 25.4 == pytest.approx(100, abs=0.1)
    assert image.height / DPI * 25.4 == pytest.approx(150, abs=0.1)
    assert read_codes(image) == {"Code 128": "SF1328765430091", "QR Code": "SF1328765430091"}
    check_margin(image)
    printed = without_spaces(page_texts(pdf)[0])
    for part in (
        *("sf_express", "标快", "755-A12", "1/3", "SF1328765430091", "欧阳娜娜", "+8613800138000", "2B7E5A90"),
        *("广东省深圳市南山区粤海街道科技园高新南一道008号A座1203室", "518057", "极光商城", "1.25kg"),
        *("1299.00CNY", "HOLD:客户改地址"),
    ):
        assert part in printed


def test_label_without_cash_or_hold_omits_them() -> None:
    for cash in (None, Money(0, "CNY")):
        printed = without_spaces(page_texts(draw_label(label_data(cash_to_collect=cash)))[0])
        assert "代收" not in printed
        assert "HOLD" not in printed
        assert printed.count("深圳市") == 2, "without a sort code the city is printed in its place"


def test_label_codes_at_printer_resolution_are_readable() -> None:
    rng = random.Random(11)
    numbers = [
        *("".join(rng.choices(string.ascii_letters + string.digits + "-", k=4 + at % 24)) for at in range(100)),
        *("SF" + "".join(rng.choices(string.digits, k=4 + at % 30)) for at in range(100)),
    ]
    recipients = (SHENZHEN, LODZ, HOSTILE, LONGEST)
    pdf = draw_labels([label_data(tracking_no=number, ship_to=recipients[at % 4]) for at, number in enumerate(numbers)])
    # The resolution of a label printer.
    for number, image in zip(numbers, render_pages(pdf, 203), strict=True):
        assert read_codes(image) == {"Code 128": number, "QR Code": number}
        check_margin(image, 203)


@pytest.mark.parametrize("number", ["W" * 64, "a1-Z" * 16, "7" * 64, "1234"])
def test_label_with_longest_values_stays_within_its_areas(number: str) -> None:
    pdf = draw_label(
        label_data(
            tracking_no=number,
            ship_to=LONGEST,
            sender=LONGEST,
            carrier="承" * 100,
            service="W" * 200,
            sort_code="W" * 64,
            cash_to_collect=Money(MAX_MINOR, "KWD"),
            hold_reason="原因 W" * 100,
            parcel_no=30_000,
            shipment_count=30_000,
            weight_g=99_999_999,
        )
    )
    # A module of the longest code is one dot of a usual printer, so a finer resolution is needed.
    [image] = render_pages(pdf, 600)
    assert read_codes(image) == {"Code 128": number, "QR Code": number}
    check_margin(image, 600)
    printed = without_spaces(page_texts(pdf)[0])
    assert number in printed
    assert "1000000000000.000KWD" in printed
    [image] = render_pages(pdf)
    for empty in (
        (4, 36, 96, 37.3),
        (4, 63.5, 96, 64.2),
        (66.3, 116, 67.3, 146),
        (67, 116, 96, 117.5),
        (13, 64, 15.5, 100),
    ):
        assert not has_ink(image, empty)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_label_with_any_text_is_drawn(name: str, line: str, hold_reason: str) -> None:
    ship_to = Address(name=name, phone="1234", country="CN", city=line[:9], line=line)
    pdf = draw_labels([label_data(ship_to=ship_to, hold_reason=hold_reason, carrier=name)])
    [image] = render_pages(pdf, 203)
    codes = {"Code 128": "SF1328765430091", "QR Code": "SF1328765430091"}
    assert read_codes(image) == ({} if "NO LABEL" in page_texts(pdf)[0] else codes)
    check_margin(image, 203)


def test_clean_text_replaces_unprintable_characters() -> None:
    assert clean_text("礼物🎁给你") == f"礼物{MISSING}给你"
    assert clean_text(" a\x00\x1b\n\tb\u200d\u202e\ufe0f c ") == "a b c"
    assert clean_text("Cafe\u0301") == "Café"
    assert clean_text("\ud800\ue000") == MISSING * 2
    printable = "深圳𠮷龘繁體かな한글ĄčőşΩЖ₫€×…〓"
    assert clean_text(printable) == printable
    [image] = render_pages(draw_label(label_data(ship_to=HOSTILE)))
    assert has_ink(image, (16, 66, 40, 71))


def test_typeface_glyphs_are_distinct_shapes() -> None:
    """In each weight every glyph differs from the others and is not empty.

    So none of them is the box of a missing glyph.
    """
    for face in (REGULAR, BOLD):
        shapes = {}
        for char in "收寄代货款暂缓拣装箱单龘𠮷한łőЖéß":
            outline = face.glyph(char).outline
            assert outline.numberOfContours > 0
            shapes[char] = tuple(outline.coordinates)
        assert len(set(shapes.values())) == len(shapes)


def test_label_text_with_markup_is_printed_literally() -> None:
    printed = page_texts(draw_label(label_data(ship_to=HOSTILE)))[0]
    assert "<b>& ]]> %s" in printed
    assert r"(\) BT ET" in without_spaces(printed).replace("BTET", " BT ET")


@pytest.mark.parametrize(
    ("text", "height"),
    [("深圳市南山区" * 40, 12), ("word " * 200, 12), ("W" * 500, 12), ("W" * 500, None), ("深圳", None)],
)
def test_fit_text_stays_within_width_and_height(text: str, height: float | None) -> None:
    fitted = fit_text([text], 40, 14, min_size=6, height=height)
    assert fitted.lines
    assert all(0 < measure_width(line, fitted.size) <= 40 for line in fitted.lines)
    assert fitted.height <= (height or fitted.size * 1.25 / MM) + 1e-6
    whole = without_spaces("".join(fitted.lines)) == without_spaces(text)
    assert whole != fitted.lines[-1].endswith("…")


@pytest.mark.parametrize("number", ["", "深圳123", "A B", "W" * 65, "\x00abc"])
def test_label_with_invalid_tracking_no_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="cannot be a barcode"):
        draw_label(label_data(tracking_no=number))


def test_format_address_follows_order_of_country() -> None:
    assert format_address(SHENZHEN) == ["广东省深圳市南山区粤海街道科技园高新南一道008号A座1203室", "518057"]
    beijing = Address(
        name="n", phone="1234", country="CN", province="北京市", city="北京市", district="朝阳区", line="1号"
    )
    assert format_address(beijing) == ["北京市朝阳区1号"]
    latin = Address(name="n", phone="1234", country="CN", province="Zhejiang", city="Hangzhou", line="Wensan Road 1")
    assert format_address(latin) == ["Zhejiang Hangzhou Wensan Road 1"]
    assert format_address(LODZ) == ["Ślężna 12", "90-001 Łódź", "PL"]
    leeds = Address(name="n", phone="1234", country="GB", city="Leeds", line="1 High Street", postcode="LS1 1AA")
    assert format_address(leeds) == ["1 High Street", "Leeds, LS1 1AA", "GB"]
    seoul = Address(
        name="n", phone="1234", country="KR", city="서울", district="강남구", line="테헤란로 1", postcode="06133"
    )
    assert format_address(seoul) == ["서울 강남구 테헤란로 1", "06133", "KR"]


def packing_list_data(lines: list[PackingLine], ship_to: Address = SHENZHEN) -> PackingList:
    return PackingList(order_id=ORDER, parcel_no=2, shipment_count=3, sender=SHOP, ship_to=ship_to, lines=lines)


def test_packing_list_has_lines_totals_and_code() -> None:
    lines = [PackingLine("85123A", "保温杯 500ml", 2), PackingLine("M" * 64, "Café <i>crème</i> 🎁", 1_000_000)]
    pdf = draw_packing_list(packing_list_data(lines))
    [image] = render_pages(pdf)
    assert read_codes(image) == {"QR Code": str(ORDER)}
    check_margin(image)
    printed = without_spaces(page_texts(pdf)[0])
    for part in (
        *(str(ORDER), "Parcel2/3", "欧阳娜娜", "广东省深圳市", "85123A保温杯500ml2", "M" * 64, "Page1of1"),
        *(f"Café<i>crème</i>{MISSING}", "1,000,000", "合计Total:2项lines1,000,002"),
    ):
        assert part in printed


def test_packing_list_of_many_pages_repeats_heads_and_keeps_all_lines() -> None:
    lines = [PackingLine(f"SKU-{at:04}", ("智能手机" * 30, "T恤", "W" * 200)[at % 3], at % 9 + 1) for at in range(1000)]
    pdf = draw_packing_list(packing_list_data(lines, LONGEST))
    pages = page_texts(pdf)
    for page, text in enumerate(pages, 1):
        assert f"Page {page} of {len(pages)}" in text
        assert "品名 Name" in text
        assert "Parcel 2 / 3" in text
    listed = [word for text in pages for word in text.split() if word.startswith("SKU-")]
    assert listed == [line.sku for line in lines]
    assert "Total: 1,000" in pages[-1]
    for image in render_pages(pdf, 72):
        check_margin(image, 72)


def make_wave(picks: list[Pick]) -> Wave:
    return Wave(
        wave_id=ORDER,
        warehouse_id="hz1",
        created_at=datetime(2026, 11, 11, 2, 30, tzinfo=UTC),
        shipments=[UUID(int=at) for at in range(500)],
        picks=picks,
    )


_draw_pick_list = partial(draw_pick_list, warehouse="杭州一号仓", zone=ZoneInfo("Asia/Shanghai"))


def test_pick_list_is_ordered_by_shelf() -> None:
    shelves = ["A-10-1", "B-1", "A-2-1", "7", "A-2-1", "a-1"]
    picks = [Pick(shelf, f"S{at}", "保温杯", 3, {7: 1, 1: 2}) for at, shelf in enumerate(shelves)]
    pdf = _draw_pick_list(make_wave(picks))
    [image] = render_pages(pdf)
    assert read_codes(image) == {"Code 128": str(ORDER)}
    check_margin(image)
    [printed] = page_texts(pdf)
    rows = [line.split()[0] for line in printed.splitlines() if "保温杯" in line]
    assert rows == ["7", "A-2-1", "A-2-1", "A-10-1", "B-1", "a-1"]
    assert printed.count("1×2, 7×1") == len(picks)
    for part in ("2026-11-11 10:30", "杭州一号仓", "500 包裹 shipments, 6 项 picks, 18 件 units", "Page 1 of 1"):
        assert part in printed


def test_pick_list_for_many_shipments_keeps_all_of_them() -> None:
    all_shipments = dict.fromkeys(range(1, 501), 1_000_000)
    picks = [
        Pick("W" * 29 + f"-{at}", "S" * 60 + f"-{at}", "W" * 200, 500_000_000, all_shipments if at == 5 else {at: 1})
        for at in range(1, 90)
    ]
    pdf = _draw_pick_list(make_wave(picks))
    pages = page_texts(pdf)
    assert len(pages) > 3
    assert all(f"Page {page} of {len(pages)}" in text for page, text in enumerate(pages, 1))
    printed = without_spaces("".join(pages))
    assert all(f"{number}×1000000" in printed for number in all_shipments)
    for image in render_pages(pdf, 72):
        check_margin(image, 72)


def test_documents_drawn_again_concurrently_are_equal_bytes() -> None:
    """A reprint is equal byte for byte, also while other threads draw."""
    jobs = [
        partial(draw_label, label_data(ship_to=LODZ)),
        partial(draw_packing_list, packing_list_data([PackingLine("1", "保温杯", 1)])),
        partial(_draw_pick_list, make_wave([Pick("A", "1", "한글", 1, {1: 1})])),
    ]
    first = [job() for job in jobs]
    again: dict[int, bytes] = {}

    def draw(at: int) -> None:
        again[at] = jobs[at % 3]()

    threads = [threading.Thread(target=draw, args=(at,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [again[at] == first[at % 3] for at in range(12)] == [True] * 12
    assert draw_label(label_data(ship_to=SHENZHEN)) != first[0]


def test_documents_beyond_limits_are_refused() -> None:
    for count in (0, 501):
        with pytest.raises(ValueError, match="it must be 1 to 500"):
            draw_labels([label_data()] * count)
    with pytest.raises(ValueError, match="10000 at most"):
        draw_packing_list(packing_list_data([PackingLine("1", "n", 1)] * 10_001))
    with pytest.raises(ValueError, match="10000 at most"):
        _draw_pick_list(make_wave([Pick("A", "1", "n", 1, {1: 1})] * 10_001))
