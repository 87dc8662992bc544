"""Rows of variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from commerce.catalog.model import Variant, VariantInput, VersionedVariant
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


async def upsert(
    connection: Connection, variants: Sequence[tuple[str, VariantInput]], now: datetime
) -> tuple[int, int]:
    """Insert or update variants by SKU, each at most once.

    Returns the numbers of added and changed variants.
    """
    await connection.execute(queries.insert_products_of_new_skus, [sku for sku, _ in variants], now)
    rows = await connection.fetch(
        queries.upsert_variants,
        [sku for sku, _ in variants],
        [variant.name for _, variant in variants],
        [variant.price for _, variant in variants],
        [variant.currency for _, variant in variants],
        now,
    )
    added = sum(row["added"] for row in rows)
    return added, len(rows) - added


async def get(connection: Connection, sku: str) -> Variant | None:
    row = await connection.fetchrow(queries.get_variant, sku)
    return Variant(**row) if row else None


async def read_changed(
    connection: Connection, versions: Mapping[str, int | None]
) -> dict[str, VersionedVariant | None]:
    """Read the variants whose version is not the given one; None stands for a variant that is gone."""
    rows = await connection.fetch(queries.read_changed_variants, list(versions), list(versions.values()))
    return {
        row["sku"]: VersionedVariant(
            row["version"], Variant(row["sku"], row["name"], row["price"], row["currency"], row["updated_at"])
        )
        if row["version"] is not None
        else None
        for row in rows
    }


async def list_after(connection: Connection, sku: str, count: int) -> list[Variant]:
    return [Variant(**row) for row in await connection.fetch(queries.list_variants, sku, count)]
