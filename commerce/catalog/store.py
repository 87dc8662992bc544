"""Rows of variants, and of the products that have one variant of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import asyncpg
import msgspec

from commerce.catalog.model import Variant, VariantInput, VersionedVariant
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

_VARIANT = (
    *("sku", "name", "price_minor AS price", "currency", "updated_at"),
    *("product_id", "option_values", "barcode"),
)
queries = load_queries(
    __package__,
    variants=_VARIANT,
    products=(
        *("product_id", "status", "version", "category_id", "brand", "attributes", "options"),
        *("created_at", "updated_at"),
    ),
    planned_prices=(
        *("plan_id", "sku", "price_minor AS price", "currency", "starts_at", "status", "actor", "reason"),
        *("created_at", "ended_at", "ended_by", "end_reason"),
    ),
)


RefusedVariant = Literal["taken", "currency"]


class NamedVariants(NamedTuple):
    """Columns of variants by SKU, in the sequence of their SKUs."""

    skus: list[str]
    names: list[str]
    prices: list[int]
    currencies: list[str]


def to_columns(variants: Mapping[str, VariantInput]) -> NamedVariants:
    """Sort variants by SKU, so that two statements that lock the same rows do not wait for each other."""
    ordered = sorted(variants.items())
    return NamedVariants(
        [sku for sku, _ in ordered],
        [variant.name for _, variant in ordered],
        [variant.price for _, variant in ordered],
        [variant.currency for _, variant in ordered],
    )


def to_variant(row: asyncpg.Record) -> Variant:
    """Build a variant from a row."""
    values = {name: row[name] for name in Variant.__struct_fields__}
    return Variant(**{**values, "option_values": msgspec.json.decode(row["option_values"])})


async def get(connection: Connection, sku: str) -> Variant | None:
    row = await connection.fetchrow(queries.get_variant, sku)
    return to_variant(row) if row else None


async def read_changed(
    connection: Connection, versions: Mapping[str, int | None]
) -> dict[str, VersionedVariant | None]:
    """Read the variants whose version is not the given one; None stands for a variant that is gone."""
    rows = await connection.fetch(queries.read_changed_variants, list(versions), list(versions.values()))
    return {
        row["key"]: VersionedVariant(row["row_version"], row["is_public"], to_variant(row))
        if row["row_version"] is not None
        else None
        for row in rows
    }


async def list_after(connection: Connection, sku: str, count: int) -> list[Variant]:
    """List the variants of products on sale."""
    return [to_variant(row) for row in await connection.fetch(queries.list_variants, sku, count)]


async def lock_products_of_skus(connection: Connection, skus: Sequence[str]) -> None:
    """Lock the products that have the SKUs as variants or as their own id."""
    await connection.execute(queries.lock_products_of_skus, skus)


async def lock_variants(connection: Connection, skus: Sequence[str]) -> dict[str, Variant]:
    """Lock and return those of the variants that there are. Their products are locked before."""
    return {row["sku"]: to_variant(row) for row in await connection.fetch(queries.lock_variants, skus)}


async def find_refused(connection: Connection, variants: Mapping[str, VariantInput]) -> dict[str, RefusedVariant]:
    """Return the variants that cannot be stored: `taken` products, or products in another `currency`."""
    columns = to_columns(variants)
    rows = await connection.fetch(queries.find_refused, columns.skus, columns.currencies)
    return {row["sku"]: row["refusal"] for row in rows}


async def insert_own_products(connection: Connection, skus: Sequence[str], now: datetime) -> list[str]:
    """Insert products on sale for SKUs that are neither variants nor products yet, and return them."""
    return [row["product_id"] for row in await connection.fetch(queries.insert_own_products, skus, now)]


async def insert_own_texts(connection: Connection, names: Mapping[str, tuple[str, str]]) -> None:
    """Insert the texts of new products as (language, name)."""
    texts = names.values()
    await connection.execute(
        queries.insert_own_texts, list(names), [language for language, _ in texts], [name for _, name in texts]
    )


async def insert_own_variants(connection: Connection, variants: Mapping[str, VariantInput], now: datetime) -> list[str]:
    """Insert new variants, each into the product with its SKU as id, and return their SKUs."""
    return [row["sku"] for row in await connection.fetch(queries.insert_own_variants, *to_columns(variants), now)]


async def update_variants(connection: Connection, variants: Mapping[str, VariantInput], now: datetime) -> None:
    """Set name, price and currency of variants."""
    await connection.execute(queries.update_variants, *to_columns(variants), now)


async def rename_products(connection: Connection, renamed: Sequence[tuple[str, str, str]]) -> None:
    """Rename products that had the name of their only variant: (product_id, old name, new name)."""
    if renamed:
        await connection.execute(queries.rename_products, *(list(column) for column in zip(*renamed, strict=True)))
