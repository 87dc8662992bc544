"""Rows that fulfilment reads: orders to plan, lines to pack."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class FulfilmentJob(NamedTuple):
    """An order that is to be made into parcels (`pending`), some of whose money goes back (`planned`), or that is over
    after a while (`delivered`)."""

    order_id: UUID
    status: str
    paid_at: datetime
    attempts: int


class LineToPlan(NamedTuple):
    """An order's line for one address with what is known of its goods; no warehouse: nothing is."""

    line_no: int
    address_no: int
    sku: str
    quantity: int
    unit_price_minor: int
    warehouse_id: str | None
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class ShipmentLineDetails(NamedTuple):
    """What a parcel holds of a line, with the price and the measures of a unit."""

    line_no: int
    address_no: int
    sku: str
    quantity: int
    unit_price_minor: int
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
