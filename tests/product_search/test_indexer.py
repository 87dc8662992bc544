"""The index follows products, variants, categories and attributes."""

from __future__ import annotations

import asyncio

import pytest

from commerce.catalog.model import PriceInput, ProductPatch, ProductStep, ProductText, ProductVariantInput
from commerce.categories.model import CategoryInput, CategoryMerge, CategoryMove
from commerce.product_search import store
from commerce.product_search.indexer import ProductIndexer
from commerce.product_search.postgres_index import PostgresProductIndex
from ops.services import CliServices
from tests.support.search_shop import ACTOR, PRODUCTS, ids, index_all, make_search_shop, publish, search

_COUNTED = """
SELECT term FROM product_search_terms FULL JOIN (
    SELECT lexeme AS term, count(*) AS products
    FROM product_search, LATERAL unnest(tsvector_to_array(title) || ARRAY(
        SELECT filter FROM unnest(tsvector_to_array(filters)) AS filter WHERE filter LIKE '*category=%')) AS lexeme
    GROUP BY lexeme) AS counted USING (term)
WHERE product_search_terms.products IS DISTINCT FROM counted.products
"""


@pytest.fixture
async def index(shop: CliServices) -> PostgresProductIndex:
    return await make_search_shop(shop)


async def check_counts(shop: CliServices) -> None:
    """Check that the numbers of products of terms, and of all products, are those of the rows."""
    async with shop.db.connection() as connection:
        assert await connection.fetch(_COUNTED) == []
        listed = await connection.fetchval("SELECT count(*) FROM product_search WHERE is_listed")
        assert await connection.fetchval("SELECT listed_products FROM product_search_state") == listed


async def read_number(shop: CliServices, product_id: str) -> int:
    async with shop.db.connection() as connection:
        number = await connection.fetchval("SELECT product_no FROM product_search WHERE product_id = $1", product_id)
    return int(number)


async def test_changed_texts_prices_and_statuses_are_found(shop: CliServices, index: PostgresProductIndex) -> None:
    number = await read_number(shop, "mug")
    product = await shop.products.get("mug")
    patch = ProductPatch(texts={"en": ProductText(name="Tea Bowl")}, version=product.version, reason="other")
    product = await shop.products.change("mug", patch, ACTOR)
    await shop.prices.set_price("mug-1", PriceInput(price=99, currency="CNY", reason="sale"), ACTOR)
    assert ids(await search(index, "bowl")) == []
    await index_all(shop)
    assert [(hit.product_id, hit.min_minor) for hit in (await search(index, "bowl")).hits] == [("mug", 99)]
    assert ids(await search(index, "coffee")) == []
    await shop.products.retire("mug", ProductStep(product.version, "end"), ACTOR)
    await index_all(shop)
    assert ids(await search(index, "bowl")) == []
    assert "mug" not in ids(await search(index))
    await check_counts(shop)
    product = await shop.products.get("mug")
    await shop.products.publish("mug", ProductStep(product.version, "again"), ACTOR)
    await index_all(shop)
    assert ids(await search(index, "bowl")) == ["mug"]
    assert await read_number(shop, "mug") == number
    await check_counts(shop)


async def test_variant_that_moves_is_found_at_its_new_product(shop: CliServices, index: PostgresProductIndex) -> None:
    moved = ProductVariantInput(
        name="wide", price=7_000, currency="CNY", option_values={"size": "42"}, moved_from="runner", reason="move"
    )
    denim = await shop.products.get("denim")
    patch = ProductPatch(
        options=["size"], option_values={"denim-1": {"size": "41"}}, version=denim.version, reason="sizes"
    )
    await shop.products.change("denim", patch, ACTOR)
    await shop.product_variants.put("denim", "runner-2", moved, ACTOR)
    await index_all(shop)
    hits = {hit.product_id: hit for hit in (await search(index, category_id="clothing")).hits}
    assert (hits["denim"].skus, hits["denim"].min_minor) == (["denim-1", "runner-2"], 7_000)
    assert (hits["runner"].skus, hits["runner"].max_minor) == (["runner-1"], 30_000)
    await check_counts(shop)


async def test_drafts_are_not_found(shop: CliServices, index: PostgresProductIndex) -> None:
    await publish(shop, "secret", {"names": {"en": "Secret Lamp"}, "prices": [5]})
    product = await shop.products.get("secret")
    await shop.products.retire("secret", ProductStep(product.version, "wait"), ACTOR)
    await index_all(shop)
    assert ids(await search(index, "secret")) == []


async def test_renamed_moved_and_merged_categories_are_followed(shop: CliServices, index: PostgresProductIndex) -> None:
    renamed = CategoryInput(parent_id="clothing", names={"en": "Parkas", "zh-CN": "大衣"}, reason="rename")
    await shop.categories.put("jackets", renamed, ACTOR)
    await index_all(shop)
    assert set(ids(await search(index, "parka"))) == {"storm", "denim"}
    assert set(ids(await search(index, "大衣"))) == {"storm", "denim"}
    await shop.categories.move("jackets", CategoryMove(parent_id="kitchen", reason="move"), ACTOR)
    await index_all(shop)
    assert set(ids(await search(index, category_id="kitchen"))) == {"storm", "denim", "mug"}
    assert ids(await search(index, category_id="clothing")) == ["runner"]
    await shop.categories.merge("jackets", CategoryMerge(into="shoes", reason="merge"), ACTOR)
    await index_all(shop)
    assert set(ids(await search(index, category_id="shoes"))) == {"storm", "denim", "runner"}
    await check_counts(shop)


async def test_indexers_that_run_at_once_index_each_change(shop: CliServices) -> None:
    index = await make_search_shop(shop)

    async def rename(product_id: str) -> None:
        for number in range(4):
            product = await shop.products.get(product_id)
            text = ProductText(name=f"Thing {'abcd'[number]}{product_id}")
            patch = ProductPatch(texts={"en": text}, version=product.version, reason="test")
            await shop.products.change(product_id, patch, ACTOR)

    async def index_some() -> None:
        for _ in range(5):
            await ProductIndexer(shop.db, shop.clock).step()

    await asyncio.gather(*(rename(product_id) for product_id in PRODUCTS), index_some(), index_some())
    await index_all(shop)
    for product_id in PRODUCTS:
        assert ids(await search(index, f"d{product_id}")) == [product_id]
    await check_counts(shop)


async def test_changes_of_the_index_are_numbered_for_followers(shop: CliServices, index: PostgresProductIndex) -> None:
    async with shop.db.connection() as connection:
        before = await store.read_change(connection)
        rows = await store.list_changed(connection, 0, 100)
    assert [row.product_no for row in rows] == sorted(row.product_no for row in rows)
    await shop.prices.set_price("mug-1", PriceInput(price=98, currency="CNY", reason="sale"), ACTOR)
    await index_all(shop)
    async with shop.db.connection() as connection:
        changed = await store.list_changed(connection, before, 100)
        assert [(row.skus, row.is_listed) for row in changed] == [(["mug-1"], True)]
        assert changed[0].change_no <= await store.read_change(connection)


async def test_product_with_several_entries_is_indexed_once(shop: CliServices, index: PostgresProductIndex) -> None:
    async with shop.db.transaction() as connection:
        for number in range(150):
            for product_id in ("mug", "shoes", f"gone-{number}"):
                await connection.execute("INSERT INTO products_to_index (product_id) VALUES ($1)", product_id)
    indexer = ProductIndexer(shop.db, shop.clock)
    assert await indexer.step() == 150 * 2 + 66
    assert await indexer.step() == 84
    assert await indexer.step() == 0
    await check_counts(shop)


async def test_reindex_repairs_rows_and_changes_no_others(shop: CliServices, index: PostgresProductIndex) -> None:
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE product_search SET brand = 'wrong' WHERE product_id = 'mug'")
        before = await connection.fetch("SELECT product_id, change_no FROM product_search ORDER BY 1")
    assert await shop.product_indexer.reindex() == len(PRODUCTS)
    async with shop.db.connection() as connection:
        after = await connection.fetch("SELECT product_id, change_no FROM product_search ORDER BY 1")
        assert await connection.fetchval("SELECT brand FROM product_search WHERE product_id = 'mug'") == "Acme"
    assert [row for row in after if row not in before] == [row for row in after if row["product_id"] == "mug"]
    assert (await shop.product_indexer.measure_lag()).total_seconds() == 0
    await check_counts(shop)


async def test_variants_of_the_csv_import_are_found(shop: CliServices, index: PostgresProductIndex) -> None:
    await shop.catalog.import_csv(["sku,name,price,currency", "85123A,White Lantern,2.55,GBP"])
    await index_all(shop)
    for text in ("lantern", "85123a", "85123A"):
        assert ids(await search(index, text)) == ["85123A"]
