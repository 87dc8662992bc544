"""Warehouse, weight and size of products for tests."""

from __future__ import annotations

from commerce.kernel.postgres import Connection
from commerce.warehouses import store as warehouses
from commerce.warehouses.model import ProductLogistics


async def put_logistics(
    connection: Connection, sku: str, warehouse_id: str, shelf: str, weight_g: int, side_mm: int
) -> None:
    """Set warehouse, shelf, weight and the length of each side of a SKU."""
    product = ProductLogistics(sku, warehouse_id, shelf, weight_g, side_mm, side_mm, side_mm)
    await warehouses.upsert_product_logistics(connection, [product])
