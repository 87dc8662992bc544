"""Text for people has letters or digits, at every door; regions and phones have one form."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect

from commerce.catalog.variant_csv import read_variants
from commerce.fleet.fleet_csv import read_places, read_travel_matrix
from commerce.fleet.geography import region_key
from commerce.fulfilment.carrier_assignment import missing_address_fields
from commerce.kernel.address import Address, address_errors
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.csv_rows import LineError
from commerce.kernel.regions import parse_region, to_region_path
from commerce.kernel.types import Name, Reason, explain_mismatch, is_filled, message_text
from commerce.rates.errors import InvalidRateTable
from commerce.rates.rate_csv import read_rate_table
from commerce.warehouses.warehouse_csv import read_product_logistics, read_warehouses
from gateway.app import ADMIN, PUBLIC

BLANKS = {
    "zero width space": "\u200b",
    "word joiner": "\u2060",
    "soft hyphen": "\u00ad",
    "bidi marks": "\u200e\u202e\u2066\u2069",
    "ideographic space": "\u3000",
    "no-break space": "\u00a0",
    "byte order mark": "\ufeff",
    "Hangul filler": "\u3164",
    "Hangul fillers": "\u115f\u1160\uffa0",
    "braille blank": "\u2800",
    "combining mark alone": "\u0301",
    "variation selector": "\ufe0f",
    "tag characters": "\U000e0041\U000e007f",
    "signs": "-- . /",
}
FILLED = ["a", "7", "张", "é", "ש", "ไ", "क", "ا", "𠮷", "O'Neil", "«Ann»", " \u200bb", "e\u0301"]
ADDRESS = {"name": "Li", "phone": "13800000000", "country": "CN", "city": "Suzhou", "line": "Road 8", "province": "Js"}
each_blank = pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)


@each_blank
def test_blank_text_is_not_filled(blank: str) -> None:
    assert not is_filled(blank)
    for kind in (Name, Reason):
        with pytest.raises(msgspec.ValidationError) as error:
            msgspec.convert(blank, kind)
        assert "one line with at least one letter or digit" in explain_mismatch(error.value)


@pytest.mark.parametrize("text", FILLED)
def test_text_of_any_script_is_filled(text: str) -> None:
    assert is_filled(text)
    assert msgspec.convert(text, Name) == text
    assert address_errors(Address(**ADDRESS | dict.fromkeys(("name", "city", "line"), text))) == []


@pytest.mark.parametrize("text", ["two\nlines", "two\u2028lines", "two\u2029lines", "next\x85line", "bell\x07", ""])
def test_text_of_several_lines_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, Name)
    assert not text or address_errors(Address(**ADDRESS | {"line": text}))


def text_fields(info: Any, path: str = "") -> Iterator[tuple[str, inspect.StrType]]:
    """Yield path and type of every text in a body. An address checks its own texts."""
    if isinstance(info, inspect.StructType):
        if info.cls is Address:
            return
        for field in info.fields:
            yield from text_fields(field.type, f"{path}/{field.encode_name}")
    elif isinstance(info, inspect.StrType):
        yield path, info
    else:
        for name in ("type", "item_type", "value_type", "key_type"):
            if hasattr(info, name):
                yield from text_fields(getattr(info, name), path)
        for part in getattr(info, "types", ()):
            yield from text_fields(part, path)


TEXTS = [
    (operation.id + path, info)
    for operation in [*PUBLIC, *ADMIN]
    if operation.body is not None
    for path, info in text_fields(inspect.type_info(operation.body))
]
SHOP_OWN = ("place_order/sale_id", "place_order/lines/sku", "quote_order/sale_id", "quote_order/lines/sku")
"""Texts without a pattern, because they must be equal to a text of the shop."""
ATTRIBUTES = (
    *("put_product/attributes", "put_product/option_values", "change_product/attributes"),
    *("change_product/option_values", "put_product_variant/option_values"),
)
"""Values of attributes, of which the category says what they may be."""
MESSAGES = (
    *("ask_question/text", "write_message/text", "reply_in_conversation/text", "note_in_conversation/text"),
    *("preview_bulk_change/action/reply", "put_reply_template/text", "add_article_version/text/body"),
    *("put_product/texts/description", "change_product/texts/description"),
    *("suggest_articles/text", "suggest_articles_to_staff/text", "rate_article/query"),
)
"""Texts that may be signs alone: people write `?` and emoji, and search for them."""


@pytest.mark.parametrize(("path", "info"), TEXTS, ids=[path for path, _ in TEXTS])
def test_text_of_request_body_refuses_blanks(path: str, info: inspect.StrType) -> None:
    accepted = [name for name, blank in BLANKS.items() if re.search(info.pattern or "", blank)]
    if path in ATTRIBUTES:
        assert accepted in ([], list(BLANKS))
    else:
        assert accepted == (list(BLANKS) if path in SHOP_OWN else ["signs"] if path in MESSAGES else [])


@each_blank
def test_address_with_blank_text_is_refused(blank: str) -> None:
    for field in ("name", "city", "line"):
        address = Address(**ADDRESS | {field: blank})
        assert [name for name, _ in address_errors(address)] == [field]
        assert field in (missing_address_fields(address) or "")
    assert "province" in (missing_address_fields(Address(**ADDRESS | {"province": blank})) or "")


@pytest.mark.parametrize(
    ("phone", "valid"),
    [
        *(
            (phone, True)
            for phone in ("1234", "+86 138-0000-0000", "0571 (8888)", "1 2 3 4", "1" * 32, "0571-8888 (9)")
        ),
        *((phone, False) for phone in ("1---", "123", "+123", "1 2 3", "----", "", " ", "1" * 33, "١٢٣٤", "１２３４")),
        *((phone, False) for phone in ("1234\n", "+", "++1234", "call me", "12\u200b34", "1234x")),
    ],
)
def test_phone_has_four_digits(phone: str, valid: bool) -> None:
    address = Address(**ADDRESS | {"phone": phone})
    assert (address_errors(address) == []) == valid
    assert (missing_address_fields(address) is None) == valid
    schema = msgspec.json.schema(Address)["$defs"]["Address"]["properties"]["phone"]
    published = (
        re.compile(schema["pattern"].removesuffix("$") + r"\Z").match(phone) and len(phone) <= schema["maxLength"]
    )
    assert bool(published) == valid


@pytest.mark.parametrize("country", ["ZZ", "XX", "UK", "AN", "cn", "CHN", "", "C", "ＣＮ", "EU"])
def test_country_that_does_not_exist_is_refused(country: str) -> None:
    address = Address(**ADDRESS | {"country": country})
    assert [name for name, _ in address_errors(address)] == ["country"]
    assert "country" in (missing_address_fields(address) or "")


def test_countries_are_those_of_iso_3166() -> None:
    assert len(COUNTRIES) == 249
    assert {"CN", "GB", "DE", "TW", "HK", "MO", "US", "SS", "CW"} <= COUNTRIES
    assert all(address_errors(Address(**ADDRESS | {"country": country})) == [] for country in COUNTRIES)


def _errors(rows: Iterable[tuple[int, object]]) -> list[str]:
    return [row.reason for _, row in rows if isinstance(row, LineError)]


def _rate_errors(lines: list[str]) -> list[str]:
    try:
        read_rate_table(lines)
    except InvalidRateTable as error:
        return [line.reason for line in error.line_errors]
    return []


FILES: dict[str, tuple[Callable[[list[str]], list[str]], str, str]] = {
    "product name": (lambda lines: _errors(read_variants(lines)), "sku,name,price,currency", "A1,{},1,CNY"),
    "shelf": (
        lambda lines: _errors(read_product_logistics(lines)),
        "sku,warehouse,shelf,weight_g,length_mm,width_mm,height_mm",
        "A1,hz,{},1,1,1,1",
    ),
    "rate region": (
        _rate_errors,
        "carrier,region,from_g,to_g,price,currency,days,cod",
        "sf,CN/{},0,9,1,CNY,1,no",
    ),
    "place": (lambda lines: _errors(read_places(lines)), "region,latitude,longitude", "{}/zhejiang,1,1"),
    "point": (lambda lines: _errors(read_travel_matrix(lines)), "from,to,distance_m,duration_s", "{},hz,1,1"),
    **{
        f"warehouse {field}": (
            lambda lines: _errors(read_warehouses(lines)),
            "id,name,phone,country,city,line,latitude,longitude",
            "hz," + ",".join("{}" if name == field else ADDRESS[name] for name in list(ADDRESS)[:5]) + ",1,1",
        )
        for field in ("name", "phone", "country", "city", "line")
    },
}


@pytest.mark.parametrize("name", FILES)
def test_file_with_blank_text_is_refused_by_line(name: str) -> None:
    read, header, line = FILES[name]
    for blank in BLANKS.values():
        assert len(read([header, line.format(blank)])) == 1, blank
    assert read([header, line.format("1234" if name.endswith("phone") else "CN")]) == []


@pytest.mark.parametrize(
    "text",
    [
        "CN/Zhejiang",
        " cn / ZHEJIANG ",
        "ＣＮ／Ｚhejiang",
        "CN/Zhe\u200bjiang",
        "cn/zhejiang\u00a0",
        "CN/ＺＨＥＪＩＡＮＧ\u3000",
    ],
)
def test_region_has_one_form_in_rates_and_fleet(text: str) -> None:
    country, province = parse_region(text)
    assert (country, province) == ("cn", "zhejiang")
    address = Address(**ADDRESS | {"country": "CN", "province": text.replace("／", "/").split("/")[1]})
    assert to_region_path((address.country, address.province)) == ("cn", "zhejiang")
    assert region_key(address.country, address.province) == "cn/zhejiang"


@pytest.mark.parametrize(
    ("text", "same"),
    [("Straße", "STRASSE"), ("Łódź", "łódź"), ("é", "e\u0301"), ("New  York", "new york"), ("ｶﾞ", "ガ"), ("①区", "1区")],
)
def test_region_part_has_one_form(text: str, same: str) -> None:
    assert to_region_path([text]) == to_region_path([same])


@pytest.mark.parametrize("text", ["?", "👍", "😀\n", "\u3000\u3000您好\n谢谢", "a\nb", *FILLED])
def test_message_with_something_to_see_is_taken_in_linear_time(text: str) -> None:
    kind = Annotated[str, message_text(100_000)]
    assert msgspec.convert(text, kind) == text
    for refused in (f"{text}\x00", " " * 90_000 + "\x07", text * 20_000 + "\x1b"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(refused, kind)
