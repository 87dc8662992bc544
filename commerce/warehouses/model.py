"""Warehouses and goods: where a product lies, and its weight and size as it is sent."""

from __future__ import annotations

import msgspec

from commerce.catalog.model import Sku
from commerce.kernel.address import Address


class Warehouse(msgspec.Struct, frozen=True):
    """Where parcels leave from: the sender's address, and the place in degrees."""

    warehouse_id: str
    name: str
    address: Address
    latitude: float
    longitude: float


class ProductLogistics(msgspec.Struct, frozen=True):
    """One unit of a product, in the packing that it would travel in by itself."""

    sku: Sku
    warehouse_id: str
    shelf: str
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class WarehouseSummary(msgspec.Struct, frozen=True):
    """A warehouse and how many products lie there."""

    warehouse: Warehouse
    products: int
