"""Rows of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from commerce.catalog.model import Product, ProductInput, VersionedProduct
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


async def upsert(
    connection: Connection, products: Sequence[tuple[str, ProductInput]], now: datetime
) -> tuple[int, int]:
    """Insert or update products by SKU, each at most once.

    Returns the numbers of added and changed products.
    """
    rows = await connection.fetch(
        queries.upsert_products,
        [sku for sku, _ in products],
        [product.name for _, product in products],
        [product.price for _, product in products],
        [product.currency for _, product in products],
        now,
    )
    added = sum(row["added"] for row in rows)
    return added, len(rows) - added


async def get(connection: Connection, sku: str) -> Product | None:
    row = await connection.fetchrow(queries.get_product, sku)
    return Product(**row) if row else None


async def read_changed(
    connection: Connection, versions: Mapping[str, int | None]
) -> dict[str, VersionedProduct | None]:
    """Read the products whose version is not the given one; None stands for a product that is gone."""
    rows = await connection.fetch(queries.read_changed_products, list(versions), list(versions.values()))
    return {
        row["sku"]: VersionedProduct(
            row["version"], Product(row["sku"], row["name"], row["price"], row["currency"], row["updated_at"])
        )
        if row["version"] is not None
        else None
        for row in rows
    }


async def list_after(connection: Connection, sku: str, count: int) -> list[Product]:
    return [Product(**row) for row in await connection.fetch(queries.list_products, sku, count)]
