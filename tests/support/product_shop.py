"""A category with attributes, and bodies of products, for tests of the catalog."""

from __future__ import annotations

from typing import Any

from commerce.catalog.model import Product, ProductInput, ProductText, ProductVariantInput, PublishStep
from ops.services import CliServices

ACTOR = "staff ann"
CATEGORY = "shirts"
_ROWS = """
INSERT INTO categories (category_id, path, position, status, version, created_at, changed_at, changed_by)
VALUES ('shirts', '{shirts}', 0, 'active', 1, now(), now(), 'test'),
       ('mugs', '{mugs}', 1, 'active', 1, now(), now(), 'test'),
       ('gone', '{gone}', 2, 'retired', 1, now(), now(), 'test');
INSERT INTO attributes (attribute_id, kind, unit, version, created_at, changed_at, changed_by)
VALUES ('size', 'choice', NULL, 1, now(), now(), 'test'), ('color', 'choices', NULL, 1, now(), now(), 'test'),
       ('fabric', 'text', NULL, 1, now(), now(), 'test'), ('weight', 'number', 'g', 1, now(), now(), 'test'),
       ('organic', 'boolean', NULL, 1, now(), now(), 'test'), ('since', 'date', NULL, 1, now(), now(), 'test');
INSERT INTO choices (choice_id, attribute_id, position, status)
VALUES ('s', 'size', 0, 'active'), ('m', 'size', 1, 'active'), ('l', 'size', 2, 'active'),
       ('red', 'color', 0, 'active'), ('blue', 'color', 1, 'active');
INSERT INTO category_attributes (category_id, attribute_id, rule)
VALUES ('shirts', 'size', 'optional'), ('shirts', 'color', 'optional'), ('shirts', 'fabric', 'required'),
       ('shirts', 'weight', 'optional'), ('shirts', 'organic', 'optional'), ('shirts', 'since', 'optional'),
       ('mugs', 'color', 'optional');
"""


async def add_categories(shop: CliServices) -> None:
    """Insert two categories with attributes, and a retired one."""
    async with shop.db.connection() as connection:
        await connection.execute(_ROWS)


def product_input(**more: Any) -> ProductInput:
    """Return a shirt with sizes and all that its category requires."""
    values: dict[str, Any] = {
        "texts": {"en": ProductText(name="Shirt"), "zh-CN": ProductText(name="衬衫", search_words=["上衣"])},
        "category_id": CATEGORY,
        "brand": "Acme",
        "attributes": {"fabric": "linen"},
        "options": ["size"],
        "reason": "new season",
    }
    return ProductInput(**{**values, **more})


def variant_input(size: Any = "m", **more: Any) -> ProductVariantInput:
    """Return a shirt of a size."""
    values: dict[str, Any] = {
        "name": f"Shirt {size}",
        "price": 1000,
        "currency": "CNY",
        "option_values": {"size": size},
        "reason": "new season",
    }
    return ProductVariantInput(**{**values, **more})


async def make_product(shop: CliServices, product_id: str = "shirt", *, published: bool = False) -> Product:
    """Create a shirt with the variants `ID-m` and `ID-l`."""
    await shop.products.put(product_id, product_input(), ACTOR)
    for size in "ml":
        await shop.product_variants.put(product_id, f"{product_id}-{size}", variant_input(size), ACTOR)
    product = await shop.products.get(product_id)
    if published:
        product = await shop.products.publish(product_id, PublishStep(product.version, "ready", "it is a test"), ACTOR)
    return product
