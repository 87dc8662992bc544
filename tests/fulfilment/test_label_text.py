"""Texts of labels: all of them are there, in the letters and the order in which people read them."""

from __future__ import annotations

import pytest
from msgspec import structs

from commerce.fulfilment.documents.address_format import format_address
from commerce.fulfilment.documents.fonts import MISSING
from commerce.fulfilment.documents.label import UnprintableText, draw_label, draw_labels
from commerce.fulfilment.documents.text_fitting import fit_text
from tests.fulfilment.test_documents import (
    ORDER,
    SHENZHEN,
    SHOP,
    check_margin,
    label_data,
    page_texts,
    render_pages,
    without_spaces,
)

NAMES = {
    "short": "李四",
    "fourteen wide": "欧阳娜娜一二三四五六七八九十",
    "fifteen wide": "欧阳娜娜一二三四五六七八九十末",
    "forty wide": "".join(map(chr, range(0x5000, 0x5028))),
    "longest wide": "".join(map(chr, range(0x5000, 0x50C8))),
    "latin": "Maximiliana Konstantinopolsky-Featherstonehaugh of Upper Wallop",
    "longest latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 7 + "end",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("phone", ["1234", "+86 138 0013 8000", "+86 (0571) 8888-8888 8888 88 123"])
def test_label_shows_name_phone_and_address_in_full(name: str, phone: str) -> None:
    far = structs.replace(SHENZHEN, name=name, phone=phone)
    longest = structs.replace(far, line="路" * 199 + "末", district="区" * 200, city="市" * 200, province="省" * 200)
    for ship_to in (far, longest):
        for sender in (SHOP, structs.replace(SHOP, name=name, phone=phone, line="路" * 199 + "尾")):
            data = label_data(ship_to=ship_to, sender=sender, carrier="c" * 32, hold_reason="原因" * 99 + "完毕")
            pdf = draw_label(data)
            printed = without_spaces(page_texts(pdf)[0])
            assert "…" not in printed
            for address in (ship_to, sender):
                for text in (address.name, address.phone, *format_address(address)):
                    assert without_spaces(text) in printed
            assert "c" * 32 in printed
            assert "原因" * 99 + "完毕" in printed
    [image] = render_pages(pdf)
    check_margin(image)


@pytest.mark.parametrize(
    ("text", "on_paper"),
    [
        ("שלום 12", "12 םולש"),
        ("בית (ב) A", "A (ב) תיב"),
        ("Haifa שלום", "Haifa םולש"),
        ("שָׁלוֹם", "םולש"),
        ("محمد", "\ufeaa\ufee4\ufea4\ufee3"),
        ("محمد 12", "12 \ufeaa\ufee4\ufea4\ufee3"),
        ("لا", "\ufefb"),
        ("Dubai دبي", "Dubai \ufef2\ufe91\ufea9"),
        ("Wenyi Road 9", "Wenyi Road 9"),
    ],
)
def test_text_from_right_to_left_is_joined_and_ordered(text: str, on_paper: str) -> None:
    assert fit_text([text], 200, 10, min_size=10).lines == [on_paper]
    pdf = draw_label(label_data(ship_to=structs.replace(SHENZHEN, name=text, line=text)))
    assert MISSING not in page_texts(pdf)[0]


def test_broken_text_from_right_to_left_begins_with_its_first_words() -> None:
    lines = fit_text(["אבג דהו זחט יכל"], 15, 10, min_size=10, height=20).lines
    assert len(lines) > 1
    assert lines[0].endswith("גבא")
    assert lines[-1].startswith("לכי")


FIELDS = ("name", "city", "line", "province", "district", "postcode")


@pytest.mark.parametrize("text", ["สมชาย", "नमस्ते", "বাংলা", "தமிழ்", "ສະບາຍ", "ߒߞߏ", "𪚥田", "ሀ"])
def test_label_with_unprintable_letters_names_the_field(text: str) -> None:
    for field in FIELDS:
        changed = structs.replace(SHENZHEN, **{field: text})
        for party, values in (("receiver", {"ship_to": changed}), ("sender", {"sender": changed})):
            with pytest.raises(UnprintableText, match=rf"the {party}'s {field} has letters .*U\+[0-9A-F]+.*; write it"):
                draw_label(label_data(**values))
    unprintable = label_data(ship_to=structs.replace(SHENZHEN, name=text))
    pages = page_texts(draw_labels([label_data(), unprintable, label_data()]))
    assert ["NO LABEL" in page for page in pages] == [False, True, False]
    assert without_spaces(str(ORDER)) in without_spaces(pages[1])
    assert MISSING not in pages[1]
