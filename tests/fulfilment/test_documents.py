"""What is printed: the codes are read back, the text is found again, and nothing leaves the page."""

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


def data(**other: Any) -> LabelData:
    usual: dict[str, Any] = {
        "order_id": ORDER,
        "parcel_no": 1,
        "parcel_count": 3,
        "sender": SHOP,
        "ship_to": SHENZHEN,
        "carrier": "sf_express",
        "tracking_no": "SF1328765430091",
        "weight_g": 1250,
    }
    return LabelData(**usual | other)


def pictures(pdf: bytes, dpi: int = DPI) -> list[Any]:
    with pypdfium2.PdfDocument(pdf) as document:
        return [page.render(scale=dpi / 72, grayscale=True).to_pil() for page in document]


def texts(pdf: bytes) -> list[str]:
    with pypdfium2.PdfDocument(pdf) as document:
        return [page.get_textpage().get_text_range() for page in document]


def codes(picture: Any) -> dict[str, str]:
    fine = picture.width > 1000
    found = zxingcpp.read_barcodes(picture, try_rotate=False, try_invert=False, try_downscale=fine)
    return {str(code.format): code.text for code in found}


def together(text: str) -> str:
    return "".join(text.split())


def check_margin(picture: Any, dpi: int = DPI) -> None:
    edge = round(BLANK_MM * dpi / 25.4)
    framed = picture.copy()
    framed.paste(255, (edge, edge, picture.width - edge, picture.height - edge))
    assert framed.getextrema() == (255, 255)


def ink(picture: Any, box: tuple[float, float, float, float]) -> bool:
    """Whether anything is drawn between these millimetres: left, top, right, bottom."""
    part = picture.crop(tuple(round(side * DPI / 25.4) for side in box))
    return part.getextrema()[0] < 128


def test_a_label() -> None:
    pdf = draw_label(
        data(service="标快", sort_code="755-A12", cash_to_collect=Money(129900, "CNY"), hold_reason="客户改地址")
    )
    [picture] = pictures(pdf)
    assert picture.width / DPI * 25.4 == pytest.approx(100, abs=0.1)
    assert picture.height / DPI * 25.4 == pytest.approx(150, abs=0.1)
    assert codes(picture) == {"Code 128": "SF1328765430091", "QR Code": "SF1328765430091"}
    check_margin(picture)
    said = together(texts(pdf)[0])
    for part in (
        *("sf_express", "标快", "755-A12", "1/3", "SF1328765430091", "欧阳娜娜", "+8613800138000", "2B7E5A90"),
        *("广东省深圳市南山区粤海街道科技园高新南一道008号A座1203室", "518057", "极光商城", "1.25kg"),
        *("1299.00CNY", "HOLD:客户改地址"),
    ):
        assert part in said


def test_a_label_says_only_what_there_is() -> None:
    for cash in (None, Money(0, "CNY")):
        said = together(texts(draw_label(data(cash_to_collect=cash)))[0])
        assert "代收" not in said
        assert "HOLD" not in said
        assert said.count("深圳市") == 2, "where there is no sort code, the city stands in its place"


def test_codes_of_many_labels_are_read_back() -> None:
    chance = random.Random(11)
    numbers = [
        *("".join(chance.choices(string.ascii_letters + string.digits + "-", k=4 + at % 24)) for at in range(100)),
        *("SF" + "".join(chance.choices(string.digits, k=4 + at % 30)) for at in range(100)),
    ]
    people = (SHENZHEN, LODZ, HOSTILE, LONGEST)
    pdf = draw_labels([data(tracking_no=number, ship_to=people[at % 4]) for at, number in enumerate(numbers)])
    # As a label printer with 203 dots an inch sees it.
    for number, picture in zip(numbers, pictures(pdf, 203), strict=True):
        assert codes(picture) == {"Code 128": number, "QR Code": number}
        check_margin(picture, 203)


@pytest.mark.parametrize("number", ["W" * 64, "a1-Z" * 16, "7" * 64, "1234"])
def test_the_longest_of_everything_stays_in_its_place(number: str) -> None:
    pdf = draw_label(
        data(
            tracking_no=number,
            ship_to=LONGEST,
            sender=LONGEST,
            carrier="承" * 100,
            service="W" * 200,
            sort_code="W" * 64,
            cash_to_collect=Money(MAX_MINOR, "KWD"),
            hold_reason="原因 W" * 100,
            parcel_no=30_000,
            parcel_count=30_000,
            weight_g=99_999_999,
        )
    )
    # A module of the longest is a dot of the usual printer, so it is looked at by a finer one.
    [picture] = pictures(pdf, 600)
    assert codes(picture) == {"Code 128": number, "QR Code": number}
    check_margin(picture, 600)
    said = together(texts(pdf)[0])
    assert number in said
    assert "1000000000000.000KWD" in said
    [picture] = pictures(pdf)
    for empty in (
        (4, 36, 96, 37.3),
        (4, 63.5, 96, 64.2),
        (66.3, 116, 67.3, 146),
        (67, 116, 96, 117.5),
        (13, 64, 15.5, 100),
    ):
        assert not ink(picture, empty)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_text_can_be_printed(name: str, line: str, why: str) -> None:
    who = Address(name=name, phone="1234", country="CN", city=line[:9], line=line)
    [picture] = pictures(draw_label(data(ship_to=who, hold_reason=why, carrier=name)), 203)
    assert codes(picture) == {"Code 128": "SF1328765430091", "QR Code": "SF1328765430091"}
    check_margin(picture, 203)


def test_what_has_no_letter_is_seen() -> None:
    assert clean_text("礼物🎁给你") == f"礼物{MISSING}给你"
    assert clean_text(" a\x00\x1b\n\tb\u200d\u202e\ufe0f c ") == "a b c"
    assert clean_text("Cafe\u0301") == "Café"
    assert clean_text("\ud800\ue000") == MISSING * 2
    every = "深圳𠮷龘繁體かな한글ĄčőşΩЖ₫€×…〓"
    assert clean_text(every) == every
    [picture] = pictures(draw_label(data(ship_to=HOSTILE)))
    assert ink(picture, (16, 66, 40, 71))


def test_every_letter_has_a_shape() -> None:
    """None of them is a box: in each weight, every letter is drawn differently from the others and from nothing."""
    for face in (REGULAR, BOLD):
        shapes = {}
        for char in "收寄代货款暂缓拣装箱单龘𠮷한łőЖéß":
            outline = face.glyph(char).outline
            assert outline.numberOfContours > 0
            shapes[char] = tuple(outline.coordinates)
        assert len(set(shapes.values())) == len(shapes)


def test_text_is_not_markup() -> None:
    said = texts(draw_label(data(ship_to=HOSTILE)))[0]
    assert "<b>& ]]> %s" in said
    assert r"(\) BT ET" in together(said).replace("BTET", " BT ET")


@pytest.mark.parametrize(
    ("text", "height"),
    [("深圳市南山区" * 40, 12), ("word " * 200, 12), ("W" * 500, 12), ("W" * 500, None), ("深圳", None)],
)
def test_text_fits_its_room(text: str, height: float | None) -> None:
    fitted = fit_text([text], 40, 14, smallest=6, height=height)
    assert fitted.lines
    assert all(0 < measure_width(line, fitted.size) <= 40 for line in fitted.lines)
    assert fitted.height <= (height or fitted.size * 1.25 / MM) + 1e-6
    whole = together("".join(fitted.lines)) == together(text)
    assert whole != fitted.lines[-1].endswith("…")


@pytest.mark.parametrize("number", ["", "深圳123", "A B", "W" * 65, "\x00abc"])
def test_what_cannot_be_a_barcode(number: str) -> None:
    with pytest.raises(ValueError, match="cannot be a barcode"):
        draw_label(data(tracking_no=number))


def test_addresses_are_written_as_their_country_does() -> None:
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


def packing(lines: list[PackingLine], to: Address = SHENZHEN) -> PackingList:
    return PackingList(order_id=ORDER, parcel_no=2, parcel_count=3, sender=SHOP, ship_to=to, lines=lines)


def test_a_packing_list() -> None:
    lines = [PackingLine("85123A", "保温杯 500ml", 2), PackingLine("M" * 64, "Café <i>crème</i> 🎁", 1_000_000)]
    pdf = draw_packing_list(packing(lines))
    [picture] = pictures(pdf)
    assert codes(picture) == {"QR Code": str(ORDER)}
    check_margin(picture)
    said = together(texts(pdf)[0])
    for part in (
        *(str(ORDER), "Parcel2/3", "欧阳娜娜", "广东省深圳市", "85123A保温杯500ml2", "M" * 64, "Page1of1"),
        *(f"Café<i>crème</i>{MISSING}", "1,000,000", "合计Total:2项lines1,000,002"),
    ):
        assert part in said


def test_a_packing_list_of_many_pages() -> None:
    lines = [PackingLine(f"SKU-{at:04}", ("智能手机" * 30, "T恤", "W" * 200)[at % 3], at % 9 + 1) for at in range(1000)]
    pdf = draw_packing_list(packing(lines, LONGEST))
    found = texts(pdf)
    for page, text in enumerate(found, 1):
        assert f"Page {page} of {len(found)}" in text
        assert "品名 Name" in text
        assert "Parcel 2 / 3" in text
    listed = [word for text in found for word in text.split() if word.startswith("SKU-")]
    assert listed == [line.sku for line in lines]
    assert "Total: 1,000" in found[-1]
    for picture in pictures(pdf, 72):
        check_margin(picture, 72)


def wave(picks: list[Pick]) -> Wave:
    return Wave(
        wave_id=ORDER,
        warehouse_id="hz1",
        created_at=datetime(2026, 11, 11, 2, 30, tzinfo=UTC),
        shipments=[UUID(int=at) for at in range(500)],
        picks=picks,
    )


PICK_LIST = partial(draw_pick_list, warehouse="杭州一号仓", zone=ZoneInfo("Asia/Shanghai"))


def test_a_pick_list_walks_along_the_shelves() -> None:
    shelves = ["A-10-1", "B-1", "A-2-1", "7", "A-2-1", "a-1"]
    picks = [Pick(shelf, f"S{at}", "保温杯", 3, {7: 1, 1: 2}) for at, shelf in enumerate(shelves)]
    pdf = PICK_LIST(wave(picks))
    [picture] = pictures(pdf)
    assert codes(picture) == {"Code 128": str(ORDER)}
    check_margin(picture)
    [said] = texts(pdf)
    rows = [line.split()[0] for line in said.splitlines() if "保温杯" in line]
    assert rows == ["7", "A-2-1", "A-2-1", "A-10-1", "B-1", "a-1"]
    assert said.count("1×2, 7×1") == len(picks)
    for part in ("2026-11-11 10:30", "杭州一号仓", "500 包裹 parcels, 6 项 picks, 18 件 units", "Page 1 of 1"):
        assert part in said


def test_no_parcel_of_a_pick_list_is_lost() -> None:
    everyone = dict.fromkeys(range(1, 501), 1_000_000)
    picks = [
        Pick("W" * 29 + f"-{at}", "S" * 60 + f"-{at}", "W" * 200, 500_000_000, everyone if at == 5 else {at: 1})
        for at in range(1, 90)
    ]
    pdf = PICK_LIST(wave(picks))
    found = texts(pdf)
    assert len(found) > 3
    assert all(f"Page {page} of {len(found)}" in text for page, text in enumerate(found, 1))
    said = together("".join(found))
    assert all(f"{number}×1000000" in said for number in everyone)
    for picture in pictures(pdf, 72):
        check_margin(picture, 72)


def test_the_same_again_is_the_same() -> None:
    """A reprint is byte-equal, also while others print."""
    jobs = [
        partial(draw_label, data(ship_to=LODZ)),
        partial(draw_packing_list, packing([PackingLine("1", "保温杯", 1)])),
        partial(PICK_LIST, wave([Pick("A", "1", "한글", 1, {1: 1})])),
    ]
    first = [job() for job in jobs]
    again: dict[int, bytes] = {}

    def print_it(at: int) -> None:
        again[at] = jobs[at % 3]()

    threads = [threading.Thread(target=print_it, args=(at,)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [again[at] == first[at % 3] for at in range(12)] == [True] * 12
    assert draw_label(data(ship_to=SHENZHEN)) != first[0]


def test_there_is_a_limit() -> None:
    for count in (0, 501):
        with pytest.raises(ValueError, match="it must be 1 to 500"):
            draw_labels([data()] * count)
    with pytest.raises(ValueError, match="10000 at most"):
        draw_packing_list(packing([PackingLine("1", "n", 1)] * 10_001))
    with pytest.raises(ValueError, match="10000 at most"):
        PICK_LIST(wave([Pick("A", "1", "n", 1, {1: 1})] * 10_001))
