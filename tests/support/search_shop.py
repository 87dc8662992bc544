"""A small catalog in Chinese and English, indexed, for tests of product search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commerce.catalog.model import ProductInput, ProductStep, ProductText, ProductVariantInput
from commerce.product_search.indexer import ProductIndexer
from commerce.product_search.model import SearchPage, SearchTerms
from commerce.product_search.postgres_index import PostgresProductIndex
from ops.services import CliServices

ACTOR = "staff ann"
_ROWS = """
INSERT INTO categories (category_id, parent_id, path, position, status, version, created_at, changed_at, changed_by)
VALUES ('clothing', NULL, '{clothing}', 0, 'active', 1, now(), now(), 'test'),
       ('jackets', 'clothing', '{clothing,jackets}', 0, 'active', 1, now(), now(), 'test'),
       ('shoes', 'clothing', '{clothing,shoes}', 1, 'active', 1, now(), now(), 'test'),
       ('kitchen', NULL, '{kitchen}', 1, 'active', 1, now(), now(), 'test');
INSERT INTO category_names (category_id, language, name)
VALUES ('clothing', 'en', 'Clothing'), ('clothing', 'zh-CN', '服装'), ('jackets', 'en', 'Jackets & Coats'),
       ('jackets', 'zh-CN', '外套'), ('shoes', 'en', 'Shoes'), ('shoes', 'zh-CN', '鞋'),
       ('kitchen', 'en', 'Kitchen'), ('kitchen', 'zh-CN', '厨房用品');
INSERT INTO attributes (attribute_id, kind, unit, version, created_at, changed_at, changed_by)
VALUES ('color', 'choices', NULL, 1, now(), now(), 'test'), ('size', 'choice', NULL, 1, now(), now(), 'test'),
       ('waterproof', 'boolean', NULL, 1, now(), now(), 'test'), ('weight', 'number', 'g', 1, now(), now(), 'test');
INSERT INTO attribute_names (attribute_id, language, name)
VALUES ('color', 'en', 'Color'), ('color', 'zh-CN', '颜色'), ('size', 'en', 'Size'),
       ('waterproof', 'en', 'Waterproof'), ('waterproof', 'zh-CN', '防水'), ('weight', 'en', 'Weight');
INSERT INTO choices (choice_id, attribute_id, position, status)
VALUES ('red', 'color', 0, 'active'), ('blue', 'color', 1, 'active'), ('41', 'size', 0, 'active'),
       ('42', 'size', 1, 'active');
INSERT INTO choice_names (choice_id, language, name)
VALUES ('red', 'en', 'Red'), ('red', 'zh-CN', '红色'), ('blue', 'en', 'Blue'), ('blue', 'zh-CN', '蓝色'),
       ('41', 'en', '41'), ('42', 'en', '42');
INSERT INTO category_attributes (category_id, attribute_id, rule)
VALUES ('clothing', 'color', 'optional'), ('clothing', 'size', 'optional'), ('clothing', 'waterproof', 'optional'),
       ('clothing', 'weight', 'optional'), ('kitchen', 'color', 'optional'), ('kitchen', 'weight', 'optional');
"""
PRODUCTS: dict[str, dict[str, Any]] = {
    "storm": {
        "names": {"en": "Storm Jacket", "zh-CN": "暴风冲锋衣"},
        "description": "Keeps you dry on the mountain.",
        "category_id": "jackets",
        "brand": "Nordwind",
        "attributes": {"color": ["red", "blue"], "waterproof": True, "weight": 480},
        "prices": [45_000],
    },
    "denim": {
        "names": {"en": "Denim Jacket", "zh-CN": "牛仔外套"},
        "description": "A classic of cotton.",
        "category_id": "jackets",
        "brand": "Acme",
        "attributes": {"color": ["blue"], "waterproof": False, "weight": 900},
        "prices": [20_000],
    },
    "runner": {
        "names": {"en": "Running Shoes", "zh-CN": "轻便运动鞋"},
        "category_id": "shoes",
        "brand": "Nordwind",
        "attributes": {"color": ["red"], "weight": 250.5},
        "options": ["size"],
        "sizes": ["41", "42"],
        "prices": [30_000, 36_000],
    },
    "mug": {
        "names": {"en": "Coffee Mug", "zh-CN": "咖啡杯"},
        "description": "Red like a storm lamp.",
        "search_words": ["gift 🎁", "马克杯"],
        "category_id": "kitchen",
        "brand": "Acme",
        "attributes": {"color": ["red"]},
        "prices": [4_500],
    },
}


async def add_taxonomy(shop: CliServices) -> None:
    """Insert categories, attributes and choices with their names."""
    async with shop.db.connection() as connection:
        await connection.execute(_ROWS)


async def publish(shop: CliServices, product_id: str, spec: Mapping[str, Any]) -> None:
    """Create a product and put it on sale."""
    texts = {
        language: ProductText(
            name=name,
            description=spec.get("description") if language == "en" else None,
            search_words=spec.get("search_words", []) if language == "en" else [],
        )
        for language, name in spec["names"].items()
    }
    content: dict[str, Any] = {
        name: spec[name] for name in ("category_id", "brand", "attributes", "options") if name in spec
    }
    await shop.products.put(product_id, ProductInput(texts=texts, reason="new", **content), ACTOR)
    sizes = spec.get("sizes", [None] * len(spec["prices"]))
    for number, (size, price) in enumerate(zip(sizes, spec["prices"], strict=True), 1):
        variant = ProductVariantInput(
            name=f"{product_id} {number}",
            price=price,
            currency=spec.get("currency", "CNY"),
            option_values={} if size is None else {"size": size},
            reason="new",
        )
        await shop.product_variants.put(product_id, f"{product_id}-{number}", variant, ACTOR)
    product = await shop.products.get(product_id)
    await shop.products.publish(product_id, ProductStep(product.version, "ready"), ACTOR)


async def index_all(shop: CliServices) -> None:
    """Index until nothing waits."""
    indexer = ProductIndexer(shop.db, shop.clock)
    while await indexer.step():
        pass


async def make_search_shop(shop: CliServices) -> PostgresProductIndex:
    """Fill the catalog and return its index."""
    await add_taxonomy(shop)
    for product_id, spec in PRODUCTS.items():
        await publish(shop, product_id, spec)
    await index_all(shop)
    return PostgresProductIndex(shop.db, 5_000)


async def search(index: PostgresProductIndex, text: str = "", **terms: Any) -> SearchPage:
    """Search by these terms."""
    return await index.search(SearchTerms(text=text, **terms))


def ids(page: SearchPage) -> list[str]:
    """Return the ids of the hits."""
    return [hit.product_id for hit in page.hits]
