"""Warehouses and product logistics."""

from __future__ import annotations

from typing import NamedTuple

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
    """Weight and sides of one unit of a variant, packed to be sent alone, and where it is.

    A warehouse that keeps its stock may ship it instead.
    """

    sku: Sku
    warehouse_id: str
    shelf: str
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class UnitSize(NamedTuple):
    """Weight and sides of one unit of a variant."""

    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class WarehouseSummary(msgspec.Struct, frozen=True):
    """A warehouse, and the number of products that are stored there."""

    warehouse: Warehouse
    products: int
