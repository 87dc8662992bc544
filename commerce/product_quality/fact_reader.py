"""Reads what the grades of products depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from commerce.catalog import product_store
from commerce.catalog.model import Product
from commerce.categories import store as category_store
from commerce.kernel.postgres import Connection
from commerce.product_quality import store
from commerce.product_quality.like_titles import are_like, compute_bands, fold_title
from commerce.product_quality.model import NamedText, PriceLevel, ProductFacts
from commerce.product_quality.quality_rules import MAX_VALUES

_MAX_PRICED = 10_000
"""products by which the price level of a category is measured"""
_MAX_COMPARED = 50
"""products with which one is compared"""


class FactsOfProduct(NamedTuple):
    """The facts of a product, and the bands of its names."""

    facts: ProductFacts
    bands: list[int]


async def read_facts(
    connection: Connection, products: Mapping[str, Product], price_level_age_s: float | None, now: datetime
) -> dict[str, FactsOfProduct]:
    """Read the facts of products by id. Call inside a transaction.

    The price levels of their categories are measured if they are older than `price_level_age_s`; with None they are
    taken as they are, and nothing is written."""
    ids = list(products)
    categories = sorted({product.category_id for product in products.values() if product.category_id is not None})
    rules = await category_store.list_rules(connection, categories)
    picture_px = await store.list_picture_px(connection, ids)
    unmeasured = await store.list_unmeasured(connection, ids)
    bands = {key: compute_bands(text.name for text in product.texts.values()) for key, product in products.items()}
    duplicates = await _find_duplicates(connection, products, bands)
    outdated = None if price_level_age_s is None else now - timedelta(seconds=price_level_age_s)
    levels = await _read_price_levels(connection, products.values(), outdated, now)
    facts = {}
    for product_id, product in products.items():
        required = [rule.attribute_id for rule in rules.get(product.category_id or "", ()) if rule.rule == "required"]
        set_ones = {*product.attributes, *product.options}
        facts[product_id] = ProductFacts(
            texts={key: NamedText(text.name, text.description or "") for key, text in product.texts.items()},
            brand=product.brand or "",
            has_category=product.category_id is not None,
            missing_attributes=[name for name in required if name not in set_ones],
            picture_px=picture_px.get(product_id, []),
            variants=len(product.variants),
            without_barcode=[variant.sku for variant in product.variants if variant.barcode is None],
            without_measures=[variant.sku for variant in product.variants if variant.sku in unmeasured],
            price=min((variant.price for variant in product.variants), default=None),
            price_level=levels.get(_price_group(product)),
            duplicates=duplicates[product_id],
        )
    return {product_id: FactsOfProduct(facts[product_id], bands[product_id]) for product_id in products}


async def _find_duplicates(
    connection: Connection, products: Mapping[str, Product], bands: Mapping[str, list[int]]
) -> dict[str, list[str]]:
    """Return for each product others that may be the same one."""
    candidates = await store.list_candidates(connection, {key: numbers for key, numbers in bands.items() if numbers})
    unread = {other for others in candidates.values() for other in others} - products.keys()
    rows = await product_store.read(connection, sorted(unread))
    readable = {**{key: row.product for key, row in rows.items()}, **products}
    by_band: dict[int, list[str]] = {}
    for product_id, numbers in bands.items():  # those of one step know each other before they are stored
        for number in numbers:
            by_band.setdefault(number, []).append(product_id)
    duplicates = {}
    for product_id, product in products.items():
        near = {*candidates.get(product_id, ()), *(key for number in bands[product_id] for key in by_band[number])}
        compared = sorted((near & readable.keys()) - {product_id})[:_MAX_COMPARED]
        duplicates[product_id] = [key for key in compared if may_be_same(product, readable[key])][:MAX_VALUES]
    return duplicates


def may_be_same(product: Product, other: Product) -> bool:
    """Tell if two products may be one: like names, no other brand, no attribute with another value.

    Their barcodes cannot be the same: each belongs to one variant."""
    if "retired" in (product.status, other.status):
        return False
    if product.brand and other.brand and fold_title(product.brand) != fold_title(other.brand):
        return False
    if any(other.attributes.get(name, value) != value for name, value in product.attributes.items()):
        return False
    names = [text.name for text in product.texts.values()]
    return any(are_like(name, text.name) for name in names for text in other.texts.values())


async def _read_price_levels(
    connection: Connection, products: Iterable[Product], outdated: datetime | None, now: datetime
) -> dict[tuple[str, str], PriceLevel]:
    """Return the levels of prices by category and currency, measured after a moment.

    With None, those that are stored."""
    groups = {group for product in products if all(group := _price_group(product))}
    stored = await store.list_price_levels(connection, {category_id for category_id, _ in groups})
    levels = {}
    for group in sorted(groups):
        level, measured_at = stored.get(group, (None, None))
        if outdated is not None and (level is None or measured_at is None or measured_at < outdated):
            level = await store.measure_prices(connection, *group, _MAX_PRICED)
            await store.put_price_level(connection, *group, level, now)
        if level is not None:
            levels[group] = level
    return levels


def _price_group(product: Product) -> tuple[str, str]:
    """Return the category and the currency of a product, either of them empty if it has none."""
    return product.category_id or "", product.variants[0].currency if product.variants else ""
