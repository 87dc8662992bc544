"""Rows of products."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from commerce.catalog.model import Product, ProductInput
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


async def list_after(connection: Connection, sku: str, count: int) -> list[Product]:
    return [Product(**row) for row in await connection.fetch(queries.list_products, sku, count)]
