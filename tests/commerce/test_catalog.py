"""Imports of products: wrong lines are reported, all others are imported, a repeat changes nothing."""

from __future__ import annotations

import io

import pytest

from commerce.catalog.errors import NoSuchVariant
from commerce.catalog.model import VariantInput
from commerce.kernel.csv_rows import ImportReport
from commerce.kernel.errors import Invalid, UnreadableCsv
from ops.services import CliServices

HEADER = "sku,name,price,currency\n"


async def import_products(shop: CliServices, text: str, header: str = HEADER) -> ImportReport:
    return await shop.catalog.import_csv(io.StringIO(header + text, newline=""))


async def test_import_of_valid_lines_adds_products(shop: CliServices) -> None:
    report = await import_products(shop, 'A1,Lantern,2.55,GBP\nB2,"A ""big"" one, red",10,GBP\nC3,Tea,1200,JPY\n')
    assert (report.added, report.changed, report.unchanged, report.errors) == (3, 0, 0, [])
    assert (await shop.catalog.get("A1")).price == 255
    assert (await shop.catalog.get("B2")).name == 'A "big" one, red'
    assert (await shop.catalog.get("C3")).price == 1200


async def test_import_repeated_changes_nothing(shop: CliServices) -> None:
    text = "A1,Lantern,2.55,GBP\nB2,Kettle,10,GBP\n"
    await import_products(shop, text)
    before = await shop.catalog.list_variants(None, 10)
    report = await import_products(shop, text)
    assert (report.added, report.changed, report.unchanged) == (0, 0, 2)
    assert await shop.catalog.list_variants(None, 10) == before
    report = await import_products(shop, "A1,Lantern,2.60,GBP\nB2,Kettle,10,GBP\n")
    assert (report.added, report.changed, report.unchanged) == (0, 1, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("A 1,Lantern,2.55,GBP", "sku"),
        (",Lantern,2.55,GBP", "sku"),
        ("A" * 65 + ",Lantern,2.55,GBP", "sku"),
        ("A1,,2.55,GBP", "name"),
        ("A1,   ,2.55,GBP", "name"),
        ("A1," + "x" * 201 + ",2.55,GBP", "name"),
        ('A1,"two\u2028li\x0bnes",2.55,GBP', "name"),
        ('A1,"Lantern,2.55,GBP', "a quote is not closed on its line"),
        ('A1,"Lantern', "a quote is not closed on its line"),
        ("A1,Lan\0tern,2.55,GBP", "NUL"),
        ("A1," + "x" * 10_001 + ",2.55,GBP", "longer than 10000 characters"),
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
async def test_import_with_wrong_line_reports_it_and_imports_others(shop: CliServices, line: str, reason: str) -> None:
    report = await import_products(shop, f"G1,Good,1,GBP\n{line}\nG2,Good too,2,GBP\n")
    assert report.added == 2
    [error] = report.errors
    assert error.line == 3
    assert reason in error.reason


async def test_import_with_repeated_sku_keeps_first_line(shop: CliServices) -> None:
    report = await import_products(shop, "A1,First,1,GBP\nB1,Other,1,GBP\nA1,Second,2,GBP\n")
    assert report.added == 2
    assert [(line.line, line.reason) for line in report.errors] == [(4, "the SKU A1 is on line 2 already")]
    assert (await shop.catalog.get("A1")).name == "First"


async def test_import_with_multiline_fields_reports_file_lines(shop: CliServices) -> None:
    report = await import_products(shop, '\nA1,"a\nb",1,GBP\nB 1,x,1,GBP\n\nC1,fine,1,GBP\n')
    assert [line.line for line in report.errors] == [3, 4, 5]
    assert (report.added, report.blank) == (1, 2)


@pytest.mark.parametrize(
    "header", ["", "sku,name\n", "sku,name,price,currency,colour\n", "sku,sku,name,price,currency\n"]
)
async def test_import_with_wrong_header_is_refused(shop: CliServices, header: str) -> None:
    with pytest.raises(UnreadableCsv, match="needs the columns"):
        await import_products(shop, "A1,Lantern,2.55,GBP\n" if header else "", header)


async def test_import_with_byte_order_mark_and_reordered_columns_succeeds(shop: CliServices) -> None:
    report = await import_products(shop, "GBP,2.55,Lantern,A1\n", "\ufeffCurrency,Price,Name,SKU\n")
    assert report.added == 1


async def test_import_of_ten_thousand_lines_reports_progress(shop: CliServices) -> None:
    progress: list[int] = []
    text = HEADER + "".join(f"S{n},Thing {n},{n}.01,GBP\n" for n in range(10_000))
    report = await shop.catalog.import_csv(io.StringIO(text), progress.append)
    assert report.added == 10_000
    assert progress == sorted(progress)
    assert progress[-1] == 10_001


async def test_products_are_listed_in_pages(shop: CliServices) -> None:
    await import_products(shop, "".join(f"S{n},Thing,1,GBP\n" for n in range(5)))
    first = await shop.catalog.list_variants(None, 3)
    second = await shop.catalog.list_variants(first.next, 3)
    assert [product.sku for product in [*first.items, *second.items]] == [f"S{n}" for n in range(5)]
    assert second.next is None


async def test_product_with_unknown_sku_or_currency_is_refused(shop: CliServices) -> None:
    with pytest.raises(NoSuchVariant):
        await shop.catalog.get("none")
    with pytest.raises(Invalid):
        await shop.catalog.put("A1", VariantInput("x", 1, "XYZ"))
