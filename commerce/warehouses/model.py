"""Warehouses and product logistics."""

from __future__ import annotations

import msgspec

from commerce.catalog.model import Sku
from commerce.kernel.address import Address


class Warehouse(msgspec.Struct, frozen=True):
    """A place that shipments leave from: the sender's address, and coordinates in degrees."""

    warehouse_id: str
    name: str
    address: Address
    latitude: float
    longitude: float


class ProductLogistics(msgspec.Struct, frozen=True):
    """Location, weight and sides of one unit of a product, in the packing in which it could be sent alone."""

    sku: Sku
    warehouse_id: str
    shelf: str
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class WarehouseSummary(msgspec.Struct, frozen=True):
    """A warehouse, and the number of products that are stored there."""

    warehouse: Warehouse
    products: int
