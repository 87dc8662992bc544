"""What the store of shipments is given and gives, where it is less than a whole shipment or more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.address import Address
from commerce.shipping.model import ShipmentStatus, Source


class ShipmentLine(NamedTuple):
    """What a parcel holds of a line."""

    line_no: int
    address_no: int
    sku: str
    quantity: int


class PackageSize(NamedTuple):
    """A parcel's weight and outer sides."""

    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int


class NewShipment(NamedTuple):
    """A parcel that is to be planned; amounts in minor units of the order's currency."""

    shipment_id: UUID
    order_id: UUID
    address_no: int
    warehouse_id: str
    address: Address
    measures: PackageSize
    value_minor: int
    cod_minor: int
    currency: str
    promised_on: date
    lines: Sequence[ShipmentLine]
    replaces: UUID | None = None


class FulfilmentTotals(NamedTuple):
    """Units of an order over all lines and addresses."""

    ordered: int
    planned: int
    shipped: int
    delivered: int


class NewShipmentEvent(NamedTuple):
    """An event that is to be written; `move` is the step of the status, if it is one."""

    at: datetime
    source: Source
    actor: str
    text: str
    move: tuple[ShipmentStatus, ShipmentStatus] | None = None
    code: str | None = None
    is_unknown_code: bool = False
    contradicts_history: bool = False
    place: str | None = None
    key: bytes | None = None
