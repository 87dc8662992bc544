"""Shipments: views for customers, inputs and views for staff, and the row."""

from __future__ import annotations

from datetime import date, datetime, time
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.kernel.types import Reason

AfterCancel = Literal["planned", "cancelled"]
"""a shipment's status once its booking is cancelled"""
Source = Literal["system", "staff", "webhook", "query", "fleet"]
TrackingNo = Annotated[str, msgspec.Meta(min_length=4, max_length=64, pattern=r"^[A-Za-z0-9-]+\Z")]
EnteredTrackingNo = Annotated[
    str,
    msgspec.Meta(
        max_length=100,
        pattern=r"^(?=[ -]*[A-Za-z0-9]) *(?:[A-Za-z0-9-] *){4,64}\Z",
        description="4 to 64 letters, digits and dashes; case and blanks make no difference",
    ),
]
"""A number as staff read it off a label; `to_tracking_no` returns its one form."""
WarehouseId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
LocalTime = Annotated[time, msgspec.Meta(tz=False)]


def to_tracking_no(text: str) -> str:
    """Return the one form of a tracking number: in capitals, without blanks."""
    return "".join(text.split()).upper()


class ShipmentStatus(StrEnum):
    """The status of a shipment: planned, booked with a carrier, then as its tracking events report."""

    PLANNED = "planned"
    BOOKED = "booked"
    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    OUT_FOR_DELIVERY = "out_for_delivery"
    DELIVERED = "delivered"
    LOST = "lost"
    RETURNED_TO_SENDER = "returned_to_sender"
    CANCELLED = "cancelled"


DELIVERY_PATH = (
    ShipmentStatus.PLANNED,
    ShipmentStatus.BOOKED,
    ShipmentStatus.PICKED_UP,
    ShipmentStatus.IN_TRANSIT,
    ShipmentStatus.OUT_FOR_DELIVERY,
    ShipmentStatus.DELIVERED,
)
"""The statuses of a shipment that arrives, in order."""
FINAL_STATUSES = frozenset(
    {
        ShipmentStatus.DELIVERED,
        ShipmentStatus.LOST,
        ShipmentStatus.RETURNED_TO_SENDER,
        ShipmentStatus.CANCELLED,
    }
)
UNDELIVERED_STATUSES = FINAL_STATUSES - {ShipmentStatus.DELIVERED}
"""Ends without a delivery: it is decided what becomes of the units."""
WITH_CARRIER = frozenset(DELIVERY_PATH[2:5])
TRANSITIONS = frozenset(
    {
        *pairwise(DELIVERY_PATH),
        (ShipmentStatus.PLANNED, ShipmentStatus.CANCELLED),
        (ShipmentStatus.BOOKED, ShipmentStatus.PLANNED),  # the booking was cancelled; another one follows
        (ShipmentStatus.BOOKED, ShipmentStatus.CANCELLED),
        *(
            (status, final)
            for status in DELIVERY_PATH[2:5]
            for final in (ShipmentStatus.LOST, ShipmentStatus.RETURNED_TO_SENDER)
        ),
    }
)
"""All allowed steps of a status. The table `shipment_transitions` holds the same and enforces it."""


class ShipmentLineView(msgspec.Struct, frozen=True):
    """Units of an order line in a shipment."""

    line_no: int
    sku: str
    quantity: int


class ShipmentEvent(msgspec.Struct, frozen=True):
    """An event of a shipment.

    `status` is set if it advanced; `seq` counts over all shipments of the order."""

    seq: int
    shipment_id: UUID
    at: datetime
    source: Source
    text: str
    status: ShipmentStatus | None = None
    place: str | None = None


class ShipmentView(msgspec.Struct, frozen=True):
    """A shipment as the customer sees it; `ship_to` is the index of its address in the order."""

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
    """The shipments of an order; `unplanned_units` are in no shipment yet."""

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
    after_cancel: AfterCancel | None
    cancel_refused_at: datetime | None
    plan_again: bool

    @property
    def cod(self) -> Money | None:
        """Return the cash that the carrier collects on delivery, or None."""
        return Money(self.cod_minor, self.currency) if self.cod_minor else None


class ShipmentJob(msgspec.Struct, frozen=True):
    """The next job of a shipment; `parked`: given up, a person decides."""

    kind: str
    system: str
    due_at: datetime
    attempts: int
    parked: bool
    last_error: str | None


# Views and inputs of staff.

WorklistName = Literal[
    "to_pack", "parked", "on_hold", "overdue", "stalled", "no_first_scan", "undelivered", "anomalies", "all"
]
"""Shipments that need a person.

`to_pack`; `parked` after failed jobs; `on_hold` until staff resume them; `overdue` after the promised day; `stalled`
with a carrier that reports nothing for long; `no_first_scan` after booking; `undelivered`, lost or returned and not
resolved; `anomalies` among the tracking events."""


class WorklistItem(msgspec.Struct, frozen=True):
    """A shipment on a worklist, with its lines; `reason` is the error or the hold that stopped it."""

    shipment: Shipment
    lines: list[ShipmentLineView]
    job: ShipmentJob | None = None
    reason: str | None = None


class ShipmentDetails(msgspec.Struct, frozen=True):
    """A shipment with its lines, all its events, and what is to be done next."""

    shipment: Shipment
    lines: list[ShipmentLineView]
    events: list[ShipmentEvent]
    job: ShipmentJob | None = None


class UnplannedOrder(msgspec.Struct, frozen=True):
    """A paid order that cannot be planned, with the reason."""

    order_id: UUID
    paid_at: datetime
    attempts: int
    reason: str


class PackedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shipment is packed. `tracking_no` is set if staff booked it with the carrier."""

    tracking_no: EnteredTrackingNo | None = None


class ReasonInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The reason of an action by staff."""

    reason: Reason


class OutcomeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The final status of a shipment that its tracking events do not report, as staff know it."""

    status: Literal["delivered", "lost", "returned_to_sender"]
    reason: Reason


class SplitInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units, by line of the order, that move into a new shipment."""

    lines: Annotated[
        dict[int, Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]], msgspec.Meta(min_length=1, max_length=1000)
    ]


class MergeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shipments that are merged into another one."""

    shipments: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=50)]


class RedirectInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new address for a shipment that has not been handed over."""

    address: Address
    reason: Reason


class Appointment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time window in the warehouses' time zone and coordinates, for delivery by our own vehicles."""

    deliver_from: LocalTime | None = None
    deliver_to: LocalTime | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180)] | None = None


class WaveInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new wave of shipments to pack, oldest first."""

    warehouse_id: WarehouseId
    max_shipments: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Pick(msgspec.Struct, frozen=True):
    """Units to pick from a shelf; `shipments` maps a shipment's number in the wave to its units."""

    shelf: str
    sku: str
    name: str
    quantity: int
    shipments: dict[int, int]


class Wave(msgspec.Struct, frozen=True):
    """Shipments picked in one walk, and the pick list. Positions from 1 number them."""

    wave_id: UUID
    warehouse_id: str
    created_at: datetime
    shipments: list[UUID]
    picks: list[Pick]
