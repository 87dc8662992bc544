"""Shipments: what a customer sees of them, what the desk does with them, their rows."""

from __future__ import annotations

from datetime import date, datetime, time
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from commerce.kernel.money import Money
from commerce.kernel.types import Reason
from commerce.kernel.address import Address

Task = Literal["book", "cancel", "subscribe", "track"]
Then = Literal["planned", "cancelled"]
Source = Literal["system", "staff", "webhook", "query", "fleet"]
TrackingNo = Annotated[str, msgspec.Meta(min_length=4, max_length=64, pattern=r"^[A-Za-z0-9-]+\Z")]
WarehouseId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
LocalTime = Annotated[time, msgspec.Meta(tz=False)]


class ShipmentStatus(StrEnum):
    """A parcel is planned, somebody is booked to bring it, and then it is where the news says it is."""

    PLANNED = "planned"
    BOOKED = "booked"
    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    LOST = "lost"
    RETURNED_TO_SENDER = "returned_to_sender"
    CANCELLED = "cancelled"


_S = ShipmentStatus
DELIVERY_PATH = (_S.PLANNED, _S.BOOKED, _S.PICKED_UP, _S.IN_TRANSIT, _S.OUT_FOR_DELIVERY, _S.DELIVERED)
"""The way of a parcel that arrives."""
TRANSITIONS = frozenset(
    {
        *pairwise(DELIVERY_PATH),
        (_S.PLANNED, _S.CANCELLED),
        (_S.BOOKED, _S.PLANNED),  # the booking was cancelled, and it is booked anew
        (_S.BOOKED, _S.CANCELLED),
        *((out, end) for out in DELIVERY_PATH[2:5] for end in (_S.LOST, _S.RETURNED_TO_SENDER)),
    }
)
"""Every step a shipment may take; the table `shipment_transitions` says the same and enforces it."""
FINAL_STATUSES = frozenset({_S.DELIVERED, _S.LOST, _S.RETURNED_TO_SENDER, _S.CANCELLED})
WITH_CARRIER = frozenset(DELIVERY_PATH[2:5])


class ShipmentLineView(msgspec.Struct, frozen=True):
    """What a parcel holds of an order's line."""

    line_no: int
    sku: str
    quantity: int


class ShipmentEvent(msgspec.Struct, frozen=True):
    """Something that happened to a parcel. `status` is set where it moved on; `seq` counts over all parcels of the
    order."""

    seq: int
    shipment_id: UUID
    at: datetime
    source: Source
    text: str
    status: ShipmentStatus | None = None
    place: str | None = None


class ShipmentView(msgspec.Struct, frozen=True):
    """A parcel as the customer sees it; `to` is the index of its address in the order."""

    shipment_id: UUID
    parcel_no: int
    status: ShipmentStatus
    ship_to: int
    lines: list[ShipmentLineView]
    promised_on: date
    carrier: str | None = None
    tracking_no: str | None = None
    expected_on: date | None = None
    cash_to_collect: Money | None = None
    events: list[ShipmentEvent] = []


class OrderShipments(msgspec.Struct, frozen=True):
    """An order's parcels; `open` is how many units are in no parcel yet."""

    order_id: UUID
    unplanned_units: int
    shipments: list[ShipmentView]


class Shipment(msgspec.Struct, frozen=True):
    """A row of `shipments`."""

    shipment_id: UUID
    order_id: UUID
    address_no: int
    parcel_no: int
    warehouse_id: str
    address: Address
    status: ShipmentStatus
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
    value_minor: int
    cod_minor: int
    currency: str
    carrier: str | None
    carrier_choice: dict[str, Any] | None
    refused_by: list[str]
    price_minor: int | None
    promised_on: date
    expected_on: date | None
    booking_id: UUID | None
    tracking_no: str | None
    sort_code: str | None
    wave_id: UUID | None
    packed_at: datetime | None
    packed_by: str | None
    held_reason: str | None
    deliver_from: time | None
    deliver_to: time | None
    latitude: float | None
    longitude: float | None
    planned_at: datetime
    booked_at: datetime | None
    handed_over_at: datetime | None
    ended_at: datetime | None
    last_event_at: datetime | None
    cod_collected_at: datetime | None
    resolved_at: datetime | None
    resolution: str | None
    replaces: UUID | None
    next_address: Address | None
    after_cancel: Then | None
    task: Task | None
    due_at: datetime
    attempts: int
    last_error: str | None
    parked: bool

    @property
    def cod(self) -> Money | None:
        """What is to be collected at the door."""
        return Money(self.cod_minor, self.currency) if self.cod_minor else None


# What the desk sees and says.

WorklistName = Literal[
    "to_pack", "parked", "on_hold", "overdue", "stalled", "no_first_scan", "undelivered", "anomalies", "all"
]
"""What is there to do: pack it; mend what stopped it; nothing before somebody lets it go; promised for a day that is
over; on the way without news for long; booked and never heard of; lost or sent back and not settled; news that nobody
understands or that cannot be."""


class WorklistItem(msgspec.Struct, frozen=True):
    """A parcel as the desk sees it, with what it holds; `why` says what stopped it."""

    shipment: Shipment
    lines: list[ShipmentLineView]
    reason: str | None = None


class ShipmentDetails(msgspec.Struct, frozen=True):
    """One parcel with everything that happened to it."""

    shipment: Shipment
    lines: list[ShipmentLineView]
    events: list[ShipmentEvent]


class UnplannedOrder(msgspec.Struct, frozen=True):
    """An order that cannot be made into parcels, and why."""

    order_id: UUID
    paid_at: datetime
    attempts: int
    reason: str


class PackedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parcel is packed. The carrier's number, where the desk books it and not the driver."""

    tracking_no: TrackingNo | None = None


class ReasonInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it is done."""

    reason: Reason


class OutcomeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a parcel ended, as its carrier or its receiver told the desk, where the carrier's news do not say so."""

    status: Literal["delivered", "lost", "returned_to_sender"]
    reason: Reason


class SplitInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units by line of the order that go into a parcel of their own."""

    lines: Annotated[
        dict[int, Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]], msgspec.Meta(min_length=1, max_length=1000)
    ]


class MergeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parcels that are put into another one."""

    shipments: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=50)]


class RedirectInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another address for a parcel, before it is handed over."""

    address: Address
    reason: Reason


class Appointment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the customer is there, in the shop's time, and where that is; for vans."""

    deliver_from: LocalTime | None = None
    deliver_to: LocalTime | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None


class WaveInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Gather parcels that are to be packed, the oldest first."""

    warehouse_id: WarehouseId
    max_shipments: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Pick(msgspec.Struct, frozen=True):
    """So many units from a shelf, and into which parcels of the wave they go (its number in the wave → units)."""

    shelf: str
    sku: str
    name: str
    quantity: int
    shipments: dict[int, int]


class Wave(msgspec.Struct, frozen=True):
    """One walk through the warehouse; `shipments` in the order of their numbers from 1."""

    wave_id: UUID
    warehouse_id: str
    created_at: datetime
    shipments: list[UUID]
    picks: list[Pick]
