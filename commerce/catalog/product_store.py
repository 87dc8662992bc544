"""Rows of products, their texts and their changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from commerce.catalog.model import (
    Product,
    ProductAction,
    ProductChange,
    ProductContent,
    ProductStatus,
    ProductSummary,
    ProductText,
    ProductVariantInput,
    Variant,
    VersionedProduct,
)
from commerce.catalog.store import queries, to_variant
from commerce.kernel.postgres import Connection

BARCODE_INDEX = "variants_barcode"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


async def read(connection: Connection, product_ids: Sequence[str]) -> dict[str, VersionedProduct]:
    """Read products with their texts and variants; unknown ids are left out. Call in a snapshot."""
    rows = await connection.fetch(queries.read_products, product_ids)
    products = await _complete(connection, rows)
    return {row["product_id"]: VersionedProduct(row["row_version"], products[row["product_id"]]) for row in rows}


async def read_versions(connection: Connection, product_ids: Sequence[str]) -> dict[str, str]:
    """Read the versions of `read` alone."""
    rows = await connection.fetch(queries.read_products, product_ids)
    return {row["product_id"]: row["row_version"] for row in rows}


async def lock(connection: Connection, *product_ids: str) -> dict[str, Product]:
    """Lock products in the sequence of their ids; unknown ids are left out."""
    return await _complete(connection, await connection.fetch(queries.lock_products, list(product_ids)))


async def _complete(connection: Connection, rows: Sequence[asyncpg.Record]) -> dict[str, Product]:
    ids = [row["product_id"] for row in rows]
    texts: dict[str, dict[str, ProductText]] = defaultdict(dict)
    for row in await connection.fetch(queries.read_texts, ids):
        text = ProductText(name=row["name"], description=row["description"], search_words=row["search_words"])
        texts[row["product_id"]][row["language"]] = text
    variants: dict[str, list[Variant]] = defaultdict(list)
    for row in await connection.fetch(queries.list_variants_of_products, ids):
        variants[row["product_id"]].append(to_variant(row))
    return {
        row["product_id"]: Product(
            product_id=row["product_id"],
            status=row["status"],
            version=row["version"],
            texts=texts[row["product_id"]],
            category_id=row["category_id"],
            brand=row["brand"],
            attributes=msgspec.json.decode(row["attributes"]),
            options=row["options"],
            variants=variants[row["product_id"]],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )
        for row in rows
    }


async def insert(connection: Connection, product_id: str, content: ProductContent, now: datetime) -> bool:
    """Insert a draft. Returns False if the product exists."""
    values = content.category_id, content.brand, _json(content.attributes), content.options
    if await connection.fetchval(queries.insert_product, product_id, *values, now) is None:
        return False
    await _put_texts(connection, product_id, content.texts)
    return True


async def update(connection: Connection, product_id: str, content: ProductContent) -> None:
    """Replace everything but status, version and variants."""
    values = content.category_id, content.brand, _json(content.attributes), content.options
    await connection.execute(queries.update_product, product_id, *values)
    await connection.execute(queries.delete_texts, product_id, list(content.texts))
    await _put_texts(connection, product_id, content.texts)


async def _put_texts(connection: Connection, product_id: str, texts: Mapping[str, ProductText]) -> None:
    await connection.executemany(
        queries.put_text,
        [
            (product_id, language, text.name, text.description, text.search_words)
            for language, text in sorted(texts.items())
        ],
    )


async def set_status(connection: Connection, product_id: str, status: ProductStatus, now: datetime) -> None:
    """Set the status. The variants are written too, so caches read them again."""
    await connection.execute(queries.set_status, product_id, status)
    await connection.execute(queries.touch_variants, product_id, now)


async def set_option_values(connection: Connection, values: Mapping[str, Mapping[str, Any]], now: datetime) -> None:
    """Set the option values of variants by SKU."""
    encoded = [_json(option_values) for option_values in values.values()]
    await connection.execute(queries.set_option_values, list(values), encoded, now)


async def put_variant(
    connection: Connection, product_id: str, sku: str, variant: ProductVariantInput, now: datetime
) -> None:
    """Insert or replace a variant. Raises `UniqueViolationError` if another one has the barcode."""
    values = variant.name, variant.price, variant.currency, _json(variant.option_values), variant.barcode
    await connection.execute(queries.put_variant, sku, product_id, *values, now)


async def find_sku_of_barcode(connection: Connection, barcode: str) -> str | None:
    sku: str | None = await connection.fetchval(queries.find_sku_of_barcode, barcode)
    return sku


async def add_changes(
    connection: Connection,
    changes: Sequence[tuple[str, ProductAction, Mapping[str, Any]]],
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Record changes as (product_id, action, diff), at most one of each product, and raise the versions."""
    ids, actions, diffs = ([change[at] for change in changes] for at in range(3))
    await connection.execute(queries.add_changes, ids, actions, actor, reason, [_json(diff) for diff in diffs], now)


async def move_products(connection: Connection, category_id: str, into: str) -> int:
    """Put the products of a category that is merged into another one there, and return their number.

    Call inside the transaction of the merge, which holds the lock of the category.
    """
    reason = f"the category {category_id} was merged into {into}"
    return int(await connection.fetchval(queries.move_products, category_id, into, "category merge", reason))


async def list_changes(connection: Connection, product_id: str, before: int, count: int) -> list[ProductChange]:
    """List changes before a version, newest first."""
    rows = await connection.fetch(queries.list_changes, product_id, before, count)
    return [ProductChange(**{**row, "diff": msgspec.json.decode(row["diff"])}) for row in rows]


async def list_products(
    connection: Connection, after: str, count: int, status: ProductStatus | None, category_id: str | None
) -> list[ProductSummary]:
    """List products by id."""
    rows = await connection.fetch(queries.list_products, after, status, category_id, count)
    return [ProductSummary(**{**row, "names": msgspec.json.decode(row["names"] or "{}")}) for row in rows]
