"""Records that the store of shipments takes and returns, besides whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

from commerce.kernel.address import Address
from commerce.shipping.carrier_port import BookingConfirmation
from commerce.shipping.model import Shipment, ShipmentStatus, Source


class ShipmentLine(NamedTuple):
    """Units of an order line in a shipment.

    Of a shipment that ended without a delivery, `decided` units were since sent or planned again, or cancelled."""

    line_no: int
    address_no: int
    sku: str
    quantity: int
    decided: int = 0

    @property
    def undecided(self) -> int:
        return self.quantity - self.decided


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
    """Units of an order, summed over its lines and addresses. Those that are not cancelled are expected."""

    ordered: int
    planned: int
    shipped: int
    delivered: int
    cancelled: int = 0

    @property
    def expected(self) -> int:
        return self.ordered - self.cancelled


class UnitMove(NamedTuple):
    """The counts that the units of a shipment are added to, each times 1, 0 or -1."""

    shipment_id: UUID
    planned: int = 0
    shipped: int = 0
    delivered: int = 0


class ShipmentKey(NamedTuple):
    """A shipment and its order."""

    order_id: UUID
    shipment_id: UUID


class NewBooking(NamedTuple):
    """A booking that is about to be requested."""

    booking_id: UUID
    shipment_id: UUID
    carrier: str


class ConfirmedBooking(NamedTuple):
    """A shipment under the lock of its order, and the confirmation of its booking."""

    shipment: Shipment
    booking_id: UUID
    confirmation: BookingConfirmation


CarrierNumber = tuple[str, str]
"""a carrier's name and one of its tracking numbers, in any form"""


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


class NewHistory(NamedTuple):
    """Events to insert of a shipment, in their sequence.

    `last_event_at` is when a carrier's last event happened, None if no carrier reports them."""

    order_id: UUID
    shipment_id: UUID
    events: Sequence[NewShipmentEvent]
    last_event_at: datetime | None = None


class NewWebhook(NamedTuple):
    """A webhook to store, with the shipments that it is about."""

    system: str
    webhook_id: str
    result: str
    body: bytes
    shipment_ids: Sequence[UUID]
