"""Records that the store of shipments takes and returns, besides whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.address import Address
from commerce.shipping.model import ShipmentStatus, Source


class ShipmentLine(NamedTuple):
    """Units of an order line in a shipment."""

    line_no: int
    address_no: int
    sku: str
    quantity: int


class PackageSize(NamedTuple):
    """A shipment's weight and outer dimensions."""

    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class NewShipment(NamedTuple):
    """A shipment to insert; amounts in minor units of the order's currency.

    `replaces` is the shipment that it reships."""

    shipment_id: UUID
    order_id: UUID
    address_no: int
    warehouse_id: str
    address: Address
    size: PackageSize
    value_minor: int
    cod_minor: int
    currency: str
    promised_on: date
    lines: Sequence[ShipmentLine]
    replaces: UUID | None = None


class FulfilmentTotals(NamedTuple):
    """Units of an order, summed over its lines and addresses."""

    ordered: int
    planned: int
    shipped: int
    delivered: int


class NewShipmentEvent(NamedTuple):
    """An event to insert. `step` is the old and the new status if the event advances the status."""

    at: datetime
    source: Source
    actor: str
    text: str
    step: tuple[ShipmentStatus, ShipmentStatus] | None = None
    code: str | None = None
    is_unknown_code: bool = False
    contradicts_history: bool = False
    place: str | None = None
    key: bytes | None = None
