"""The rows of warehouses and goods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.warehouses.model import ProductLogistics, Warehouse, WarehouseSummary

queries = load_queries(__package__)


async def upsert_warehouses(connection: Connection, warehouses: Sequence[Warehouse]) -> tuple[int, int]:
    """Write warehouses by id, each at most once. Returns how many were added and how many changed."""
    row = await connection.fetchrow(
        queries.upsert_warehouses,
        [one.warehouse_id for one in warehouses],
        [one.name for one in warehouses],
        [msgspec.json.encode(one.address).decode() for one in warehouses],
        [one.latitude for one in warehouses],
        [one.longitude for one in warehouses],
    )
    assert row is not None
    return row["added"], row["changed"]


async def upsert_goods(connection: Connection, goods: Sequence[ProductLogistics]) -> tuple[int, int]:
    """Write goods by SKU, each at most once. Returns how many were added and how many changed."""
    columns = [[getattr(one, name) for one in goods] for name in ProductLogistics.__struct_fields__]
    row = await connection.fetchrow(queries.upsert_goods, *columns)
    assert row is not None
    return row["added"], row["changed"]


async def unknown_skus(connection: Connection, skus: Collection[str]) -> set[str]:
    """Those that are no product."""
    return {row["sku"] for row in await connection.fetch(queries.unknown_skus, list(skus))}


async def goods_of(connection: Connection, skus: Collection[str]) -> dict[str, ProductLogistics]:
    """Goods by SKU; those that nobody has measured are missing."""
    return {row["sku"]: ProductLogistics(*row) for row in await connection.fetch(queries.goods_of, list(skus))}


async def warehouses_of(connection: Connection, ids: Collection[str]) -> dict[str, Warehouse]:
    """Warehouses by id; those that do not exist are missing."""
    return {row["warehouse_id"]: _warehouse(row) for row in await connection.fetch(queries.warehouses_of, list(ids))}


async def stocked(connection: Connection, count: int) -> list[WarehouseSummary]:
    """Warehouses by id, with how many products lie there."""
    return [
        WarehouseSummary(_warehouse(row), row["products"])
        for row in await connection.fetch(queries.list_warehouses, count)
    ]


def _warehouse(row: Any) -> Warehouse:
    address = msgspec.json.decode(row["address"], type=Address)
    return Warehouse(row["warehouse_id"], row["name"], address, row["latitude"], row["longitude"])
