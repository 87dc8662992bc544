"""Reports of files with faults: line, column and reason of each, and all other lines imported."""

from __future__ import annotations

import pytest

from commerce.catalog.model import VariantInput
from ops.services import CliServices
from tests.support.product_files import apply, check, faults, report
from tests.support.product_shop import add_categories, make_product

HEADER = (
    "product_id,status,category_id,options,name:en,attribute:fabric,attribute:weight,attribute:since,attribute:organic,"
    "sku,variant_name,price,currency,barcode,option:size,option:color\n"
)
GOOD = "good,,,,Good,,,,,good,Good,1,CNY,,,\n"


@pytest.fixture(autouse=True)
async def _products(shop: CliServices) -> None:
    await add_categories(shop)
    await make_product(shop)
    await shop.catalog.put("0077", VariantInput("Lamp", 100, "CNY"))


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        ("p,,,,P,,,,,1.23E+05,P,1,CNY,,,", "sku", "what a spreadsheet makes of a long number"),
        ("p,,,,P,,,,,p,P,1.23E+05,CNY,,,", "price", "what a spreadsheet makes of a long number"),
        ("p,,,,P,,,,,p,P,1,CNY,4.01E+12,,", "barcode", "what a spreadsheet makes of a long number"),
        ("1.2E+7,,,,P,,,,,p,P,1,CNY,,,", "product_id", "what a spreadsheet makes of a long number"),
        ("p,,,,P,,,,,77,P,1,CNY,,,", "sku", "leading zeros are lost: there is 0077, and no 77"),
        ("77,,,,P,,,,,p,P,1,CNY,,,", "product_id", "leading zeros are lost: there is 0077, and no 77"),
        ("p,,,,P,,,,,p,P,1,CNY,36000291452,,", "barcode", "leading zeros are lost: 36000291452 is 036000291452"),
        ("p,,,,P,,,,,p,P,1,CNY,4006381333932,,", "barcode", "the check digit of 400638133393 is 1"),
        ("p,,,,P,,,,,p,P,1.234,CNY,,,", "price", "more decimals than CNY, which has 2"),
        ("p,,,,P,,,,,p,P,0,CNY,,,", "price", "give a price above 0"),
        ("p,,,,P,,,,,p,P,1,XXQ,,,", "currency", "'XXQ' is not an ISO 4217 currency"),
        ("shirt,,shirts,size,Shirt,linen,,,,shirt-s,S,1,GBP,,s,", "currency", "shirt-s in GBP: all variants"),
        ("shirt,,shirts,size,Shirt,linen,,,,shirt-s,S,1,,,m,", "sku", "shirt-s would be like shirt-m"),
        ("p,,,,P,,,,,shirt-m,P,1,CNY,,,", "sku", "shirt-m is a variant of shirt"),
        ("p,,none,,P,,,,,p,P,1,CNY,,,", "category_id", "there is no category 'none'"),
        ("p,,gone,,P,,,,,p,P,1,CNY,,,", "category_id", "the category 'gone' is retired"),
        ("p,,mugs,,P,linen,,,,p,P,1,CNY,,,", "attribute:fabric", "the category has no such attribute"),
        ("p,,shirts,,P,linen,heavy,,,p,P,1,CNY,,,", "attribute:weight", "must be a number of g"),
        ("p,,shirts,,P,linen,1.5E+05,,,p,P,1,CNY,,,", "attribute:weight", "what a spreadsheet makes"),
        ("p,,shirts,,P,linen,,2026/1/31,,p,P,1,CNY,,,", "attribute:since", "write it as 2026-11-11"),
        ("p,,shirts,,P,linen,,,maybe,p,P,1,CNY,,,", "attribute:organic", "must be true or false"),
        ("p,,shirts,size,P,linen,,,,p,P,1,CNY,,xxl,", "option:size", "is not one of the choices"),
        ("p,,shirts,size,P,linen,,,,p,P,1,CNY,,,", "option", "the option size has no value"),
        ("p,,shirts,size|color|fabric|weight,P,,,,,p,P,1,CNY,,s,red", "options", "Expected `array` of length <= 3"),
        ("p,on_sale,shirts,,P,,,,,p,P,1,CNY,,,", "attribute:fabric", "the category requires this attribute"),
        ("p,on_sale,,,P,,,,,,,,,,,", "status", "a product on sale needs a variant"),
        ("p,sold,,,P,,,,,p,P,1,CNY,,,", "status", "Invalid enum value"),
        ("p,,,,,,,,,p,P,1,CNY,,,", "name", "a product needs a name in one language"),
        ("p,,,,P,,,,,p,,1,CNY,,,", "variant_name", "a new variant needs a name"),
        ("p,,,,P,,,,,p,P,,CNY,,,", "price", "it is missing"),
        ("p,,,,P,,,,,,P,1,CNY,,,", "sku", "belongs to a variant"),
        (",,,,P,,,,,p,P,1,CNY,,,", "product_id", "it is empty"),
        ("p q,,,,P,,,,,p,P,1,CNY,,,", "product_id", "Expected `str` matching"),
        ("p,,,,P,,,,,p,P,1,CNY", "", "13 fields where the header has 16"),
        ("p,,,,P\x00,,,,,p,P,1,CNY,,,", "", "NUL bytes"),
        ("p,,,,P,,,,,good,P,1,CNY,,,", "sku", "another product has this SKU on line 2"),
        ("good,,,,P,,,,,p,P,1,CNY,,,", "product_id", "its lines stand together, and the first is 2"),
    ],
)
async def test_fault_is_reported_with_line_and_column(shop: CliServices, line: str, column: str, reason: str) -> None:
    between = "other,,,,Other,,,,,other,Other,1,CNY,,,\n"
    current = await check(shop, HEADER + GOOD + between + line + "\n" + GOOD.replace("good", "last"))
    assert (current.status, current.created, current.refused) == ("checked", 3, 1), await faults(shop, current)
    listed = await faults(shop, current)
    assert any(number == 4 and name == column and reason in text for number, name, text in listed), listed
    applied = await apply(shop, current)
    assert (applied.products, applied.applied_products) == (3, 3)


async def test_open_quote_is_refused_where_it_opens_and_swallows_nothing(shop: CliServices) -> None:
    rows = [f'p{number},"P, {number}",p{number},P,1,CNY' for number in range(400)]
    rows[100] = 'p100,"P 100,p100,P,1,CNY'
    rows[200] = 'p200,"a ""quoted""\nname",p200,"P\n,1,CNY'
    rows[399] = 'p399,P,p399,"P,1,CNY'
    current = await check(shop, "product_id,name:en,sku,variant_name,price,currency\n" + "\n".join(rows))
    assert current.created == 397, await faults(shop, current)
    listed = await faults(shop, current)
    opened = [(line, text.split()[5]) for line, _, text in listed if text.startswith("a quote opens on line ")]
    assert opened == [(102, "102"), (202, "203"), (403, "403")], listed


async def test_all_lines_of_a_product_are_refused_with_one(shop: CliServices) -> None:
    text = "product_id,name:en,sku,variant_name,price,currency\n"
    current = await check(shop, text + "p,P,p1,P,1,CNY\np,,p2,P,x,CNY\np,Q,p1,P,1,CNY\n\nq,Q,q,Q,1,CNY\n")
    assert [(line.line, line.outcome) for line in await report(shop, current)] == [
        (2, "refused"),
        (3, "refused"),
        (4, "refused"),
        (6, "created"),
    ]
    assert await faults(shop, current) == [
        (2, "", "line 3 of the same product is refused"),
        (3, "price", "'x' is not an amount like 2.55"),
        (4, "name:en", "it differs from line 2, which has the values of the product: leave it empty"),
        (4, "sku", "the SKU p1 is on line 2 already"),
    ]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        (b"", ["has no header"]),
        (b"\n\n", ["has no header"]),
        (b"sku,price\na,1\n", ["the column product_id is missing"]),
        (b"product_id,price\na,1\n", ["the column sku is missing, to which price belongs"]),
        (b"product_id,sku,SKU ,colour\na,1\n", ["the column sku is there twice", "there is no column 'colour'"]),
        (b"product_id,name:English!,attribute:\n", ["no column 'name:English!'", "no column 'attribute:'"]),
        (b'product_id,"sku\n' * 3, ["a quote opens on line 1"]),
        ("product_id,name:en\n".encode("utf-16-le"), ["UTF-16 without its mark"]),
        ("product_id,name:fr\na,crème brûlée\nb,thé\nc,café\n".encode("latin-1"), ["latin-1 (Windows-1252)"]),
        (b"PK\x03\x04 a workbook", ["packed or a workbook"]),
    ],
)
async def test_unreadable_file_is_refused_with_its_reason(
    shop: CliServices, content: bytes, reasons: list[str]
) -> None:
    current = await check(shop, content)
    assert current.status == "refused"
    assert all(reason in (current.reason or "") for reason in reasons), current.reason
    assert current.created + current.changed == 0


async def test_line_of_json_with_faults_says_where(shop: CliServices) -> None:
    lines = [
        '{"product_id": "a", "texts": {"en": {"name": "A"}}, "variants": [{"sku": "a", "price": "1"}]}',
        '{"product_id": "b", "colour": 1}',
        '{"product_id": "c"',
        '{"product_id": "d", "texts": {"en": {"name": "D"}}, '
        '"variants": [{"sku": "d", "name": "D", "price": 5, "currency": "CNY"}, {"sku": "d"}]}',
        '{"product_id": "e", "texts": {"en": {"name": "E"}}}',
    ]
    current = await check(shop, "\n".join(lines), "jsonl")
    assert (current.created, current.refused) == (1, 4)
    listed = await faults(shop, current)
    assert listed[0] == (1, "variants[0].price", "Expected `int`, got `str`")
    assert "colour" in listed[1][2]
    assert "truncated" in listed[2][2]
    assert (4, "sku", "the SKU d is there twice") in listed


async def test_product_that_changed_meanwhile_is_left_and_reported(shop: CliServices) -> None:
    text = "product_id,sku,price\nshirt,shirt-m,20\n0077,0077,30\nnew,,\n"
    current = await check(shop, text.replace("new,,\n", ""))
    await shop.catalog.put("shirt-l", VariantInput("Shirt l", 1500, "CNY"))
    applied = await apply(shop, current)
    assert (applied.status, applied.applied_products, applied.changed_meanwhile) == ("applied", 1, 1)
    assert [(line.result, line.product_id) for line in await report(shop, applied)] == [
        ("changed_meanwhile", "shirt"),
        ("applied", "0077"),
    ]
    shirt = await shop.products.get("shirt")
    assert [variant.price for variant in shirt.variants] == [1500, 1000]


async def test_variants_swap_options_and_barcodes_in_one_file(shop: CliServices) -> None:
    text = "product_id,sku,barcode,option:size\nshirt,shirt-m,{0},{2}\nshirt,shirt-l,{1},{3}\n"
    first, second = "4006381333931", "036000291452"
    for values in ((first, second, "m", "l"), (second, first, "l", "m")):
        applied = await apply(shop, await check(shop, text.format(*values)))
        assert applied.applied_products == 1, await report(shop, applied)
    shirt = await shop.products.get("shirt")
    assert [(variant.sku, variant.barcode, variant.option_values["size"]) for variant in shirt.variants] == [
        ("shirt-l", first, "m"),
        ("shirt-m", second, "l"),
    ]
