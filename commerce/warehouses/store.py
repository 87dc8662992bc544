"""Rows of warehouses and product logistics."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.warehouses.model import ProductLogistics, UnitSize, Warehouse, WarehouseSummary

queries = load_queries(__package__)


async def upsert_warehouses(connection: Connection, warehouses: Sequence[Warehouse]) -> tuple[int, int]:
    """Write warehouses, each id at most once. Returns how many were added and how many changed."""
    row = await connection.fetchrow(
        queries.upsert_warehouses,
        [warehouse.warehouse_id for warehouse in warehouses],
        [warehouse.name for warehouse in warehouses],
        [msgspec.json.encode(warehouse.address).decode() for warehouse in warehouses],
        [warehouse.latitude for warehouse in warehouses],
        [warehouse.longitude for warehouse in warehouses],
    )
    assert row is not None
    return row["added"], row["changed"]


async def upsert_product_logistics(connection: Connection, products: Sequence[ProductLogistics]) -> tuple[int, int]:
    """Write product logistics, each SKU at most once. Returns how many were added and how many changed."""
    columns = [[getattr(product, name) for product in products] for name in ProductLogistics.__struct_fields__]
    row = await connection.fetchrow(queries.upsert_product_logistics, *columns)
    assert row is not None
    return row["added"], row["changed"]


async def unknown_skus(connection: Connection, skus: Collection[str]) -> set[str]:
    """Return the SKUs that no product has."""
    return {row["sku"] for row in await connection.fetch(queries.unknown_skus, list(skus))}


async def product_logistics_of(connection: Connection, skus: Collection[str]) -> dict[str, ProductLogistics]:
    """Read product logistics by SKU, without those that were never imported."""
    rows = await connection.fetch(queries.product_logistics_of, list(skus))
    return {row["sku"]: ProductLogistics(*row) for row in rows}


async def unit_sizes_of(connection: Connection, skus: Collection[str]) -> dict[str, UnitSize]:
    """Read weight and size by SKU, without those that are unknown."""
    rows = await connection.fetch(queries.unit_sizes_of, list(skus))
    return {sku: UnitSize(*size) for sku, *size in rows}


async def warehouses_of(connection: Connection, warehouse_ids: Collection[str]) -> dict[str, Warehouse]:
    """Read warehouses by id, without those that do not exist."""
    rows = await connection.fetch(queries.warehouses_of, list(warehouse_ids))
    return {row["warehouse_id"]: _read_warehouse(row) for row in rows}


async def list_warehouses(connection: Connection, count: int) -> list[WarehouseSummary]:
    """List warehouses by id, with the number of products of each."""
    rows = await connection.fetch(queries.list_warehouses, count)
    return [WarehouseSummary(_read_warehouse(row), row["products"]) for row in rows]


def _read_warehouse(row: Any) -> Warehouse:
    address = msgspec.json.decode(row["address"], type=Address)
    return Warehouse(row["warehouse_id"], row["name"], address, row["latitude"], row["longitude"])
