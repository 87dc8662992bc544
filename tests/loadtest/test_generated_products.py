"""Products are generated from a taxonomy, and are such as staff could have entered."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from commerce.catalog.model import MAX_VARIANTS, ProductContent
from commerce.catalog.product_rules import check_content, check_distinct, check_option_values
from commerce.categories.assignment import read_definitions
from commerce.categories.errors import BadTaxonomy
from commerce.categories.taxonomy_import import TaxonomyImport
from commerce.categories.taxonomy_reader import read_taxonomy
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict
from commerce.product_search.indexer import ProductIndexer
from commerce.product_search.postgres_index import PostgresProductIndex
from loadtest.bench.search import make_samples
from loadtest.generated_products import CHINESE, GENERATED_TEXTS, GeneratedProduct, ProductGenerator
from loadtest.product_loading import load_products
from ops.services import CliServices
from tests.support.taxonomies import NAMES, write_taxonomy

_CHINESE_CATEGORIES = NAMES["categories.en.txt"].replace("Gift Cards", "礼品卡").replace("Totes", "托特包")


def make_taxonomy(folder: Path) -> Path:
    """Write the small taxonomy with Chinese names of its categories without children."""
    names = (
        _CHINESE_CATEGORIES.replace("School Backpacks", "书包").replace("Backpacks", "双肩包").replace("Bags", "箱包")
    )
    return write_taxonomy(folder, **{"categories.zh-CN.txt": names})


def generate(folder: Path, seed: int, count: int) -> list[GeneratedProduct]:
    return [*ProductGenerator(read_taxonomy(folder), seed).generate(count)]


def test_product_follows_from_seed_and_number(tmp_path: Path) -> None:
    folder = make_taxonomy(tmp_path)
    products = generate(folder, 7, 200)
    assert products == generate(folder, 7, 200)
    assert products[:20] == generate(folder, 7, 20)
    assert [product.texts for product in products] != [product.texts for product in generate(folder, 8, 200)]
    assert {product.category_id for product in products} == {"lb-1-9", "lb-2"}
    assert len({product.product_id for product in products}) == 200
    assert any(len(product.variants) > 1 for product in products)


def test_product_says_that_it_is_generated_and_keeps_the_limits(tmp_path: Path) -> None:
    for product in generate(make_taxonomy(tmp_path), 1, 200):
        content = {
            "texts": {language: msgspec.to_builtins(text) for language, text in product.texts.items()},
            "category_id": product.category_id,
            "brand": product.brand,
            "attributes": product.attributes,
            "options": product.options,
        }
        msgspec.convert(content, ProductContent)
        assert product.texts.keys() == GENERATED_TEXTS.keys()
        for language, text in product.texts.items():
            assert GENERATED_TEXTS[language] in (text.description or "")
        assert 1 <= len(product.variants) <= MAX_VARIANTS
        assert all(variant.price > 0 for variant in product.variants)
        check_distinct({variant.sku: variant.option_values for variant in product.variants})


def test_taxonomy_without_chinese_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTaxonomy, match="no category"):
        ProductGenerator(read_taxonomy(write_taxonomy(tmp_path)), 1)


async def test_loaded_products_are_on_sale_with_histories(shop: CliServices, tmp_path: Path) -> None:
    folder = make_taxonomy(tmp_path)
    await TaxonomyImport(shop.db, shop.clock).import_folder(folder, "test", "a small tree")
    generated_products = generate(folder, 1, 50)
    progress: list[int] = []
    loaded = await load_products(shop.db, generated_products, from_ms(shop.clock.now_ms()), progress.append)
    assert loaded == (50, sum(len(product.variants) for product in generated_products))
    assert progress == [50]
    product = await shop.products.get(generated_products[0].product_id)
    assert (product.status, product.version, product.texts) == ("on_sale", 2, generated_products[0].texts)
    assert product.texts[CHINESE].name != product.texts["en"].name
    assert [variant.sku for variant in product.variants] == [variant.sku for variant in generated_products[0].variants]
    changes = await shop.products.list_changes(product.product_id, None, 10)
    assert [change.action for change in changes.items] == ["published", "created"]
    async with shop.db.connection() as connection:
        definitions = await read_definitions(connection, {"lb-1-9", "lb-2"})
    for generated in generated_products:
        own_definitions = definitions[generated.category_id]
        stored = await shop.products.get(generated.product_id)
        content = ProductContent(
            texts=stored.texts,
            category_id=stored.category_id,
            attributes=stored.attributes,
            options=stored.options,
        )
        assert check_content(content, own_definitions, {}, must_be_complete=True) == []
        for variant in stored.variants:
            assert check_option_values(stored.options, variant.option_values, own_definitions, {}, "") == []
    with pytest.raises(Conflict, match="--seed"):
        await load_products(shop.db, generated_products[-1:], from_ms(shop.clock.now_ms()), progress.append)


async def test_searches_of_the_benchmark_find_products(shop: CliServices, tmp_path: Path) -> None:
    folder = make_taxonomy(tmp_path)
    await TaxonomyImport(shop.db, shop.clock).import_folder(folder, "test", "a small tree")
    products = generate(folder, 1, 60)
    await load_products(shop.db, products, from_ms(shop.clock.now_ms()), lambda count: None)
    await ProductIndexer(shop.db, shop.clock).reindex()
    index = PostgresProductIndex(shop.db, 10_000)
    for terms in chain.from_iterable(make_samples(read_taxonomy(folder), products)):
        assert (await index.search(terms)).total > 0, terms


async def test_products_without_their_categories_are_not_loaded(shop: CliServices, tmp_path: Path) -> None:
    generated_products = generate(make_taxonomy(tmp_path), 1, 3)
    with pytest.raises(Conflict, match="taxonomy import"):
        await load_products(shop.db, generated_products, from_ms(shop.clock.now_ms()), lambda count: None)
    assert not (await shop.products.list_products(None, 10)).items


@pytest.mark.skipif("FLOODGATE_TEST_TAXONOMY" not in os.environ, reason="FLOODGATE_TEST_TAXONOMY names no folder")
def test_whole_taxonomy_makes_varied_products() -> None:
    products = generate(Path(os.environ["FLOODGATE_TEST_TAXONOMY"]), 1, 3_000)
    assert len({product.category_id for product in products}) > 1_500
    assert len({product.texts[CHINESE].name for product in products}) > 2_990
    assert max(len(product.attributes) for product in products) == 6
