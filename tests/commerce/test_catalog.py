"""Importing a catalogue: every wrong line is named, the rest goes in, a repeat changes nothing."""

from __future__ import annotations

import io

import pytest

from commerce.catalog.errors import NoSuchProduct
from commerce.catalog.model import ProductInput
from commerce.kernel.csv_rows import UnreadableCsv
from commerce.kernel.errors import Invalid
from ops.services import CliServices

HEADER = "sku,name,price,currency\n"


async def imported(shop: CliServices, text: str, header: str = HEADER):  # type: ignore[no-untyped-def]
    return await shop.catalog.import_csv(io.StringIO(header + text, newline=""))


async def test_good_lines(shop: CliServices) -> None:
    report = await imported(shop, 'A1,Lantern,2.55,GBP\nB2,"A ""big"" one, red",10,GBP\nC3,Tea,1200,JPY\n')
    assert (report.added, report.changed, report.unchanged, report.errors) == (3, 0, 0, [])
    assert (await shop.catalog.get("A1")).price == 255
    assert (await shop.catalog.get("B2")).name == 'A "big" one, red'
    assert (await shop.catalog.get("C3")).price == 1200


async def test_a_repeated_import_changes_nothing(shop: CliServices) -> None:
    text = "A1,Lantern,2.55,GBP\nB2,Kettle,10,GBP\n"
    await imported(shop, text)
    before = await shop.catalog.list_products(None, 10)
    report = await imported(shop, text)
    assert (report.added, report.changed, report.unchanged) == (0, 0, 2)
    assert await shop.catalog.list_products(None, 10) == before
    report = await imported(shop, "A1,Lantern,2.60,GBP\nB2,Kettle,10,GBP\n")
    assert (report.added, report.changed, report.unchanged) == (0, 1, 1)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("A 1,Lantern,2.55,GBP", "sku"),
        (",Lantern,2.55,GBP", "sku"),
        ("A" * 65 + ",Lantern,2.55,GBP", "sku"),
        ("A1,,2.55,GBP", "name"),
        ("A1,   ,2.55,GBP", "name"),
        ("A1," + "x" * 201 + ",2.55,GBP", "name"),
        ('A1,"two\nlines",2.55,GBP', "name"),
        ("A1,Lantern,2.555,GBP", "more decimals than GBP"),
        ("A1,Lantern,-1,GBP", "not an amount"),
        ("A1,Lantern,1e3,GBP", "not an amount"),
        ("A1,Lantern,NaN,GBP", "not an amount"),
        ("A1,Lantern,,GBP", "not an amount"),
        ("A1,Lantern,9999999999999999,GBP", "more than"),
        ("A1,Lantern,2.55,XYZ", "not an ISO 4217 currency"),
        ("A1,Lantern,2.55,gbp", "not an ISO 4217 currency"),
        ("A1,Lantern,2.55", "3 fields where the header has 4"),
        ("A1,Lantern,2.55,GBP,more", "5 fields where the header has 4"),
        ("A1,Lan\udcfftern,2.55,GBP", "name is not UTF-8"),
        ('A1,"Lan"tern,2.55,GBP', "not CSV"),
    ],
)
async def test_a_wrong_line_is_named_and_the_rest_goes_in(shop: CliServices, line: str, why: str) -> None:
    report = await imported(shop, f"G1,Good,1,GBP\n{line}\nG2,Good too,2,GBP\n")
    assert report.added == 2
    [refused] = report.errors
    assert refused.line == 3
    assert why in refused.reason


async def test_the_same_sku_twice_in_a_file(shop: CliServices) -> None:
    report = await imported(shop, "A1,First,1,GBP\nB1,Other,1,GBP\nA1,Second,2,GBP\n")
    assert report.added == 2
    assert [(line.line, line.reason) for line in report.errors] == [(4, "the SKU A1 is on line 2 already")]
    assert (await shop.catalog.get("A1")).name == "First"


async def test_line_numbers_count_lines_of_the_file(shop: CliServices) -> None:
    report = await imported(shop, '\nA1,"a\nb",1,GBP\nB 1,x,1,GBP\n\nC1,fine,1,GBP\n')
    assert [line.line for line in report.errors] == [3, 5]
    assert report.added == 1


@pytest.mark.parametrize(
    "header", ["", "sku,name\n", "sku,name,price,currency,colour\n", "sku,sku,name,price,currency\n"]
)
async def test_a_header_that_does_not_fit(shop: CliServices, header: str) -> None:
    with pytest.raises(UnreadableCsv, match="needs the columns"):
        await imported(shop, "A1,Lantern,2.55,GBP\n" if header else "", header)


async def test_a_byte_order_mark_and_other_order_of_columns(shop: CliServices) -> None:
    report = await imported(shop, "GBP,2.55,Lantern,A1\n", "\ufeffCurrency,Price,Name,SKU\n")
    assert report.added == 1


async def test_ten_thousand_lines_tell_their_progress(shop: CliServices) -> None:
    seen: list[int] = []
    text = HEADER + "".join(f"S{n},Thing {n},{n}.00,GBP\n" for n in range(10_000))
    report = await shop.catalog.import_csv(io.StringIO(text), seen.append)
    assert report.added == 10_000
    assert seen == sorted(seen)
    assert seen[-1] == 10_001


async def test_pages(shop: CliServices) -> None:
    await imported(shop, "".join(f"S{n},Thing,1,GBP\n" for n in range(5)))
    first = await shop.catalog.list_products(None, 3)
    rest = await shop.catalog.list_products(first.next, 3)
    assert [product.sku for product in [*first.items, *rest.items]] == [f"S{n}" for n in range(5)]
    assert rest.next is None


async def test_no_such_product(shop: CliServices) -> None:
    with pytest.raises(NoSuchProduct):
        await shop.catalog.get("none")
    with pytest.raises(Invalid):
        await shop.catalog.put("A1", ProductInput("x", 1, "XYZ"))
