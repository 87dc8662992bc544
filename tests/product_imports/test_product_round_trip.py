"""Files of products: created, changed, exported, and imported again without a change."""

from __future__ import annotations

import pytest

from commerce.catalog.model import ProductInput, ProductText, VariantInput
from commerce.product_imports.model import ImportFormat
from ops.services import CliServices
from tests.support.product_files import apply, changes, check, export, faults, report
from tests.support.product_shop import ACTOR, add_categories, make_product

FILE = '''\
product_id,status,category_id,brand,options,name:en,description:en,search_words:en,name:zh-CN,attribute:fabric,\
attribute:weight,attribute:organic,attribute:since,attribute:color,sku,variant_name,price,currency,barcode,option:size
polo,on_sale,shirts,Acme,size,Polo,"Soft,
and ""light""","tee
top",马球衫,cotton,180.5,TRUE,2026-01-31,red|blue,polo-s,Polo S,9.90,CNY,4006381333931,s
polo,,,,,,,,,,,,,,polo-m,Polo M,10,CNY,,m

mug,,mugs,,,Mug,,,,,,,,red,0012,Mug,5,CNY,,
'''


@pytest.fixture(autouse=True)
async def _categories(shop: CliServices) -> None:
    await add_categories(shop)


async def test_file_creates_products_as_its_report_says(shop: CliServices) -> None:
    current = await check(shop, FILE)
    assert (current.status, current.created, current.refused) == ("checked", 3, 0), await faults(shop, current)
    assert (current.lines, current.header_lines, current.blank_lines, current.continued_lines) == (7, 1, 1, 2)
    assert [line.line for line in await report(shop, current)] == [2, 5, 7]
    applied = await apply(shop, current)
    assert (applied.status, applied.products, applied.applied_products) == ("applied", 2, 2)
    polo = await shop.products.get("polo")
    assert (polo.status, polo.brand, polo.options, polo.version) == ("on_sale", "Acme", ["size"], 1)
    assert polo.texts["en"] == ProductText(name="Polo", description='Soft,\nand "light"', search_words=["tee", "top"])
    assert polo.attributes == {
        "fabric": "cotton",
        "weight": 180.5,
        "organic": True,
        "since": "2026-01-31",
        "color": ["red", "blue"],
    }
    assert [(v.sku, v.price, v.barcode, v.option_values) for v in polo.variants] == [
        ("polo-m", 1000, None, {"size": "m"}),
        ("polo-s", 990, "4006381333931", {"size": "s"}),
    ]
    assert (await shop.products.get("mug")).status == "draft"
    changes = (await shop.products.list_changes("polo", None, 10)).items
    assert [(change.action, change.actor, change.reason) for change in changes] == [
        ("created", ACTOR, "imported from test.csv")
    ]
    again = await check(shop, FILE)
    assert (again.unchanged, again.changed, again.created, again.refused) == (3, 0, 0, 0)
    assert (await apply(shop, again)).products == 0
    assert (await shop.products.get("polo")) == polo


async def test_line_changes_named_columns_only(shop: CliServices) -> None:
    await make_product(shop, published=True)
    before = await shop.products.get("shirt")
    current = await check(shop, "product_id,sku,price\nshirt,shirt-m,12.34\nshirt,shirt-l,10\n")
    assert [(line.outcome, line.columns) for line in await report(shop, current)] == [
        ("changed", ["price"]),
        ("unchanged", []),
    ]
    await apply(shop, current)
    after = await shop.products.get("shirt")
    assert [variant.price for variant in after.variants] == [1000, 1234]
    assert (after.texts, after.attributes, after.version) == (before.texts, before.attributes, before.version)
    current = await check(shop, "product_id,brand,name:zh-CN,status\nshirt,,,retired\n")
    [line] = await report(shop, current)
    assert (line.outcome, line.columns) == ("changed", ["brand", "name:zh-CN", "search_words:zh-CN", "status"]) or line
    assert line.faults[0].column == "name:zh-CN", "the search words are left"
    current = await check(shop, "product_id,brand,name:zh-CN,search_words:zh-CN,status\nshirt,,,,retired\n")
    await apply(shop, current)
    after = await shop.products.get("shirt")
    assert (after.brand, list(after.texts), after.status, len(after.variants)) == (None, ["en"], "retired", 2)


async def fill(shop: CliServices) -> None:
    """Store products with all kinds of content, also such as a file could not bring."""
    await apply(shop, await check(shop, FILE))
    await make_product(shop, published=True)
    await shop.catalog.put("LED-9", VariantInput('=SUM(A1) "quoted", 灯', 255, "JPY"))
    text = ProductText(name=" Tea, green ", description='a\r\nb\n\n"c"\t|', search_words=["x|y", "z,"])
    await shop.products.put("tea", ProductInput(texts={"en": text, "de": ProductText(name="Tee")}, reason="new"), ACTOR)
    async with shop.db.connection() as connection:  # stored by an earlier version, and of a retired attribute
        await connection.execute(
            'UPDATE products SET attributes = \'{"old/one": ["a", "b"], "n": 1e-7, "big": 1e15, "flag": true}\' '
            "WHERE product_id = 'tea'"
        )
        await connection.execute("UPDATE variants SET price_minor = 0 WHERE sku = 'LED-9'")


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
async def test_exported_file_changes_nothing_when_it_is_imported(shop: CliServices, file_format: ImportFormat) -> None:
    await fill(shop)
    ids = ("LED-9", "mug", "polo", "shirt", "tea")
    before = [await shop.products.get(product_id) for product_id in ids]
    content = await export(shop, file_format)
    current = await check(shop, content, file_format)
    assert (current.created, current.changed, current.refused) == (0, 0, 0), (
        await changes(shop, current),
        await faults(shop, current),
    )
    assert current.unchanged == (7 if file_format == "csv" else 5)
    await apply(shop, current)
    assert [await shop.products.get(product_id) for product_id in ids] == before
    assert await export(shop, file_format) == content
    crlf = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    for raw in (crlf, b"\xef\xbb\xbf" + crlf, content.decode().encode("gb18030"), content.decode().encode("utf-16")):
        current = await check(shop, raw, file_format)
        assert (current.created, current.changed, current.refused) == (0, 0, 0), (
            await changes(shop, current),
            await faults(shop, current),
        )


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
async def test_exported_file_of_an_empty_shop_creates_the_same_products(
    shop: CliServices, file_format: ImportFormat
) -> None:
    await apply(shop, await check(shop, FILE))
    content = await export(shop, file_format, "shirts")
    renamed = content.replace(b"polo", b"tank").replace(b"4006381333931", b"4006381333948")
    applied = await apply(shop, await check(shop, renamed, file_format))
    assert applied.applied_products == 1
    polo, tank = await shop.products.get("polo"), await shop.products.get("tank")
    assert (tank.texts, tank.attributes, tank.status) == (polo.texts, polo.attributes, polo.status)
