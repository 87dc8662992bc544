"""Products: versions, texts, attributes, statuses, and the record of their changes."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from commerce.catalog.errors import BadProduct, DuplicateVariant, NoSuchProduct, ProductChanged, ProductNotReady
from commerce.catalog.model import ProductPatch, ProductStep, ProductText, PublishStep, VariantInput
from commerce.catalog.products import to_public
from commerce.categories.errors import CategoryRetired, NoSuchCategory
from commerce.categories.model import CategoryMerge
from commerce.kernel.errors import Invalid
from commerce.sales.model import ItemInput
from ops.services import CliServices
from tests.support.product_shop import ACTOR, add_categories, make_product, product_input, variant_input
from tests.support.sales import make_sale


@pytest.fixture
async def shirts(shop: CliServices) -> CliServices:
    await add_categories(shop)
    return shop


async def test_repeated_put_changes_nothing_and_another_one_needs_the_version(shirts: CliServices) -> None:
    product = await shirts.products.put("shirt", product_input(), ACTOR)
    assert (product.status, product.version, product.variants) == ("draft", 1, [])
    assert await shirts.products.put("shirt", product_input(), ACTOR) == product
    with pytest.raises(ProductChanged) as refused:
        await shirts.products.put("shirt", product_input(brand="Other"), ACTOR)
    assert refused.value.extra == {"version": 1}
    changed = await shirts.products.put("shirt", product_input(brand=None, version=1), ACTOR)
    assert (changed.brand, changed.version) == (None, 2)
    with pytest.raises(NoSuchProduct):
        await shirts.products.put("other", product_input(version=1), ACTOR)


async def test_two_writers_on_one_version_store_one_change(shirts: CliServices) -> None:
    await shirts.products.put("shirt", product_input(), ACTOR)
    patches = [ProductPatch(brand=f"Brand {n}", version=1, reason="race") for n in range(8)]
    results = await asyncio.gather(
        *(shirts.products.change("shirt", patch, ACTOR) for patch in patches), return_exceptions=True
    )
    assert sum(isinstance(result, ProductChanged) for result in results) == 7
    assert (await shirts.products.get("shirt")).version == 2
    created = await asyncio.gather(
        *(shirts.products.put("new", product_input(brand=f"Brand {n}"), ACTOR) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, ProductChanged) for result in created) == 7


async def test_patch_changes_the_fields_that_it_names(shirts: CliServices) -> None:
    await shirts.products.put("shirt", product_input(), ACTOR)
    patch = ProductPatch(
        texts={"en": None, "fr": ProductText(name="Chemise")},
        attributes={"weight": 150, "fabric": "cotton"},
        version=1,
        reason="better",
    )
    product = await shirts.products.change("shirt", patch, ACTOR)
    assert (sorted(product.texts), product.attributes) == (["fr", "zh-CN"], {"fabric": "cotton", "weight": 150})
    assert (product.brand, product.options) == ("Acme", ["size"])
    [change, created] = (await shirts.products.list_changes("shirt", None, 10)).items
    assert (change.version, change.action, change.actor, change.reason) == (2, "changed", ACTOR, "better")
    assert change.diff == {
        "attributes/fabric": ["linen", "cotton"],
        "attributes/weight": [None, 150],
        "texts/en/name": ["Shirt", None],
        "texts/fr/name": [None, "Chemise"],
    }
    assert (created.version, created.action) == (1, "created")
    nothing = ProductPatch(texts={"fr": None, "zh-CN": None}, version=2, reason="none left")
    with pytest.raises(BadProduct):
        await shirts.products.change("shirt", nothing, ACTOR)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"attributes": {"sleeve": "long"}}, "/attributes/sleeve"),
        ({"attributes": {"fabric": 5}}, "/attributes/fabric"),
        ({"attributes": {"weight": "heavy"}}, "/attributes/weight"),
        ({"attributes": {"color": ["green"]}}, "/attributes/color/0"),
        ({"attributes": {"since": "yesterday"}}, "/attributes/since"),
        ({"attributes": {"organic": "yes"}}, "/attributes/organic"),
        ({"options": ["size", "size"]}, "/options/1"),
        ({"options": ["sleeve"]}, "/options/0"),
        ({"options": ["color"], "attributes": {"color": ["red"]}}, "/options/0"),
        ({"category_id": None, "attributes": {}}, "/options/0"),
        ({"category_id": None, "options": []}, "/attributes/fabric"),
    ],
)
async def test_attributes_and_options_that_do_not_fit_are_refused_by_pointer(
    shirts: CliServices, fields: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(BadProduct) as refused:
        await shirts.products.put("shirt", product_input(**fields), ACTOR)
    assert [error["pointer"] for error in refused.value.extra["errors"]] == [pointer]
    with pytest.raises(NoSuchProduct):
        await shirts.products.get("shirt")


async def test_category_that_is_unknown_or_retired_is_refused(shirts: CliServices) -> None:
    with pytest.raises(NoSuchCategory):
        await shirts.products.put("shirt", product_input(category_id="none"), ACTOR)
    with pytest.raises(CategoryRetired):
        await shirts.products.put("shirt", product_input(category_id="gone"), ACTOR)


async def test_merged_category_takes_its_products_along(shirts: CliServices) -> None:
    await make_product(shirts)
    await shirts.categories.merge("shirts", CategoryMerge(into="mugs", reason="one is enough"), ACTOR)
    product = await shirts.products.get("shirt")
    assert (product.category_id, product.version, product.attributes) == ("mugs", 4, {"fabric": "linen"})
    [change, *_] = (await shirts.products.list_changes("shirt", None, 9)).items
    assert (change.reason, change.diff) == (
        "the category shirts was merged into mugs",
        {"category_id": ["shirts", "mugs"]},
    )
    patch = ProductPatch(brand=None, attributes={"fabric": None}, version=4, reason="not of mugs")
    assert (await shirts.products.change("shirt", patch, ACTOR)).attributes == {}


async def test_draft_is_published_when_it_has_variants_and_required_attributes(shirts: CliServices) -> None:
    await shirts.products.put("shirt", product_input(attributes={}), ACTOR)
    with pytest.raises(ProductNotReady, match="it has no variant"):
        await shirts.products.publish("shirt", PublishStep(1, "ready", "a test"), ACTOR)
    await shirts.product_variants.put("shirt", "shirt-m", variant_input(), ACTOR)
    with pytest.raises(ProductNotReady, match="set fabric first"):
        await shirts.products.publish("shirt", PublishStep(2, "ready", "a test"), ACTOR)
    await shirts.products.change("shirt", ProductPatch(attributes={"fabric": "silk"}, version=2, reason="known"), ACTOR)
    with pytest.raises(ProductChanged):
        await shirts.products.publish("shirt", PublishStep(2, "ready", "a test"), ACTOR)
    published = await shirts.products.publish("shirt", PublishStep(3, "ready", "a test"), ACTOR)
    assert (published.status, published.version) == ("on_sale", 4)
    assert await shirts.products.publish("shirt", PublishStep(3, "ready", "a test"), ACTOR) == published
    patch = ProductPatch(attributes={"fabric": None}, version=4, reason="wrong")
    with pytest.raises(BadProduct, match="requires"):
        await shirts.products.change("shirt", patch, ACTOR)
    retired = await shirts.products.retire("shirt", ProductStep(4, "sold out"), ACTOR)
    assert retired.status == "retired"
    actions = [change.action for change in (await shirts.products.list_changes("shirt", None, 10)).items]
    assert actions == ["retired", "published", "changed", "variant_added", "created"]


async def test_variants_of_products_that_are_not_on_sale_are_hidden_and_in_no_new_sale(
    shirts: CliServices, sale_id: str
) -> None:
    product = await make_product(shirts)
    await make_sale(shirts, sale_id, {"a": (5, 100, None)}, opened=False)
    items = [("shirt-m", ItemInput(units=1))]
    assert [variant.sku for variant in (await shirts.catalog.list_variants(None, 10)).items] == ["a"]
    with pytest.raises(Invalid, match="shirt-m is draft; publish their products first"):
        await shirts.sales.put_items(sale_id, items, ACTOR)
    before = await shirts.catalog.refresh({"shirt-m": None})
    assert before["shirt-m"].is_public is False
    await shirts.products.publish("shirt", PublishStep(product.version, "ready", "a test"), ACTOR)
    after = await shirts.catalog.refresh(before)
    assert after["shirt-m"].is_public is True
    await shirts.sales.put_items(sale_id, items, ACTOR)
    assert len((await shirts.catalog.list_variants(None, 10)).items) == 3
    await shirts.products.retire("shirt", ProductStep(product.version + 1, "sold out"), ACTOR)
    assert (await shirts.catalog.refresh(after))["shirt-m"].is_public is False
    with pytest.raises(Invalid, match="shirt-m is retired"):
        await shirts.sales.put_items(sale_id, items, ACTOR)


async def test_options_change_with_the_values_of_the_variants(shirts: CliServices) -> None:
    product = await make_product(shirts, published=True)
    patch = ProductPatch(options=["size", "color"], version=product.version, reason="two colours")
    with pytest.raises(BadProduct, match="the option color has no value"):
        await shirts.products.change("shirt", patch, ACTOR)
    values = {"shirt-m": {"size": "m", "color": ["red"]}, "shirt-l": {"size": "m", "color": ["red"]}}
    patch = ProductPatch(options=["size", "color"], option_values=values, version=product.version, reason="two colours")
    with pytest.raises(DuplicateVariant):
        await shirts.products.change("shirt", patch, ACTOR)
    values["shirt-l"] = {"size": "m", "color": ["blue"]}
    changed = await shirts.products.change("shirt", patch, ACTOR)
    assert [variant.option_values["color"] for variant in changed.variants] == [["blue"], ["red"]]
    swapped = {"shirt-m": values["shirt-l"], "shirt-l": values["shirt-m"]}
    patch = ProductPatch(option_values=swapped, version=changed.version, reason="mixed up")
    changed = await shirts.products.change("shirt", patch, ACTOR)
    assert [variant.option_values["color"] for variant in changed.variants] == [["red"], ["blue"]]
    patch = ProductPatch(option_values={"none": {}}, version=changed.version, reason="which")
    with pytest.raises(BadProduct, match="no variant with this SKU"):
        await shirts.products.change("shirt", patch, ACTOR)


async def test_imported_sku_is_a_product_on_sale_and_renames_it(shop: CliServices) -> None:
    await shop.catalog.put("A1", VariantInput("Lantern", 255, "GBP"))
    product = await shop.products.get("A1")
    assert (product.status, product.texts["en"].name, len(product.variants)) == ("on_sale", "Lantern", 1)
    await shop.catalog.put("A1", VariantInput("红灯笼", 255, "GBP"), ACTOR, "translated")
    product = await shop.products.get("A1")
    assert (product.texts["en"].name, product.version) == ("红灯笼", 2)
    await shop.catalog.put("Z9", VariantInput("茶", 100, "CNY"))
    assert list((await shop.products.get("Z9")).texts) == ["zh"]
    [renamed, created] = (await shop.products.list_changes("A1", None, 10)).items
    assert (renamed.action, renamed.reason, created.action) == ("variant_changed", "translated", "created")
    assert renamed.diff == {"variants/A1/name": ["Lantern", "红灯笼"]}


async def test_import_of_a_sku_that_is_another_product_is_refused_on_its_line(shirts: CliServices) -> None:
    await make_product(shirts, "shirt")
    await shirts.products.put("empty", product_input(options=[]), ACTOR)
    lines = ["sku,name,price,currency", "shirt,Shirt,1.00,CNY", "shirt-m,Shirt,1.00,GBP", "empty,Empty,1.00,CNY"]
    report = await shirts.catalog.import_csv(lines)
    assert (report.added, [error.line for error in report.errors]) == (1, [2, 3])
    assert "add shirt as a variant" in report.errors[0].reason
    assert "have another currency" in report.errors[1].reason
    assert (await shirts.products.get("empty")).status == "draft"
    lines = ["sku,name,price,currency", "shirt-m,Shirt,1.00,GBP", "shirt-l,Shirt,1.00,GBP"]
    assert (await shirts.catalog.import_csv(lines)).changed == 2


async def test_readers_get_the_best_of_their_languages(shirts: CliServices) -> None:
    product = await make_product(shirts)
    for wanted, name in ((["zh"], "衬衫"), (["zh-TW", "en"], "衬衫"), (["fr", "en-GB"], "Shirt"), ([], "Shirt")):
        assert to_public(product, wanted).name == name


async def test_history_of_changes_cannot_be_rewritten(shirts: CliServices) -> None:
    await make_product(shirts)
    async with shirts.db.connection() as connection:
        for statement in ("UPDATE product_changes SET actor = 'nobody'", "DELETE FROM price_changes"):
            with pytest.raises(asyncpg.RaiseError, match="only added"):
                await connection.execute(statement)


async def test_refresh_reads_changed_products(shirts: CliServices) -> None:
    product = await make_product(shirts, published=True)
    first = await shirts.products.refresh({"shirt": None, "none": None})
    assert list(first) == ["shirt"]
    again = await shirts.products.refresh({**first, "none": None})
    assert again["shirt"] is first["shirt"]
    await shirts.product_variants.put("shirt", "shirt-m", variant_input(price=900), ACTOR)
    changed = await shirts.products.refresh(dict(first))
    assert changed["shirt"].product.variants[1].price == 900
    assert changed["shirt"].product.version == product.version, "prices have a history of their own"
