"""Rows that fulfilment reads: orders to plan, lines to plan, lines to pack."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class FulfilmentState(NamedTuple):
    """The row of an order that is to be shipped: `pending`, `planned`, `delivered`, `done` or `cancelled`."""

    order_id: UUID
    status: str
    paid_at: datetime


class LineToPlan(NamedTuple):
    """Units of an order line for one address that are to be planned.

    Without a `warehouse_id`, or a weight, the product logistics were never imported.

    Weight, sides and amounts are those of one unit; `paid_minor` is its price after discounts, rounded down.
    """

    line_no: int
    address_no: int
    sku: str
    quantity: int
    paid_minor: int
    unit_price_minor: int
    warehouse_id: str | None
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class ShipmentLineDetails(NamedTuple):
    """Units of an order line in a shipment, with price and measures of one unit."""

    line_no: int
    address_no: int
    sku: str
    quantity: int
    unit_price_minor: int
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
