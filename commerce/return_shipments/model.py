"""Return shipments: the row, views for customers and staff, and inputs."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.money import Money
from commerce.shipping.model import EnteredTrackingNo, ShipmentStatus

Payer = Literal["shop", "customer"]
BookedBy = Literal["shop", "customer"]
EventSource = Literal["system", "staff", "customer", "webhook", "query"]
CarrierName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z][a-z0-9_]{0,31}\Z",
        examples=["sf_express"],
        description="a carrier's name in small letters; the shop follows those that it knows",
    ),
]


class ReturnStatus(StrEnum):
    """The status of a return shipment: requested, booked, then as its tracking events report."""

    REQUESTED = "requested"
    BOOKED = "booked"
    PICKED_UP = "picked_up"
    IN_TRANSIT = "in_transit"
    DELIVERED = "delivered"
    LOST = "lost"
    CANCELLED = "cancelled"


RETURN_PATH = (
    ReturnStatus.REQUESTED,
    ReturnStatus.BOOKED,
    ReturnStatus.PICKED_UP,
    ReturnStatus.IN_TRANSIT,
    ReturnStatus.DELIVERED,
)
"""the statuses of a return shipment that arrives, in order"""
ENDED_STATUSES = frozenset({ReturnStatus.DELIVERED, ReturnStatus.LOST, ReturnStatus.CANCELLED})
ON_ITS_WAY = frozenset({ReturnStatus.PICKED_UP, ReturnStatus.IN_TRANSIT})
STEPS = frozenset(
    {
        *pairwise(RETURN_PATH),
        *(
            (status, ended)
            for status in RETURN_PATH[:4]
            for ended in (ReturnStatus.LOST, ReturnStatus.CANCELLED)
            if status in ON_ITS_WAY or ended is ReturnStatus.CANCELLED
        ),
    }
)
"""all steps of a status; a shipment that carriers bring back to the customer is cancelled on its way"""
STATUS_OF: dict[ShipmentStatus, ReturnStatus] = {
    ShipmentStatus.PICKED_UP: ReturnStatus.PICKED_UP,
    ShipmentStatus.IN_TRANSIT: ReturnStatus.IN_TRANSIT,
    ShipmentStatus.OUT_FOR_DELIVERY: ReturnStatus.IN_TRANSIT,
    ShipmentStatus.DELIVERED: ReturnStatus.DELIVERED,
    ShipmentStatus.LOST: ReturnStatus.LOST,
    ShipmentStatus.RETURNED_TO_SENDER: ReturnStatus.CANCELLED,
}
"""carriers' statuses in those of return shipments, whose sender is the customer"""


class ReturnContent(NamedTuple):
    """Units of a line of a case that a return shipment should hold."""

    case_line_no: int
    sku: str
    quantity: int


class NewReturnShipment(NamedTuple):
    """Units of an approved case that are to come back. `value_minor` is what was paid for them."""

    case_id: UUID
    order_id: UUID
    user_id: str
    from_address: Address
    warehouse_id: str
    contents: tuple[ReturnContent, ...]
    value_minor: int
    currency: str
    payer: Payer


class ReturnShipment(msgspec.Struct, frozen=True):
    """A row of `return_shipments`."""

    return_shipment_id: UUID
    case_id: UUID
    order_id: UUID
    user_id: str
    booked_by: BookedBy
    from_address: Address
    warehouse_id: str
    status: ReturnStatus
    event_seq: int
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
    value_minor: int
    currency: str
    payer: Payer
    price_minor: int | None
    carrier: str | None
    refused_by: list[str]
    booking_id: UUID | None
    requested_at: datetime | None
    tracking_no: str | None
    sort_code: str | None
    expected_on: date | None
    is_cancelling: bool
    created_at: datetime
    created_by: str
    booked_at: datetime | None
    polled_at: datetime | None
    last_event_at: datetime | None
    ended_at: datetime | None
    received_at: datetime | None


class ReturnShipmentEvent(msgspec.Struct, frozen=True):
    """An event of a return shipment; `status` is set if it advanced."""

    seq: int
    at: datetime
    source: EventSource
    text: str
    status: ReturnStatus | None = None
    place: str | None = None


class ReturnShipmentView(msgspec.Struct, frozen=True):
    """A return shipment as its customer sees it.

    `price` is what it costs if the customer bears it, once it is known. It is not charged: the shop may withhold it."""

    return_shipment_id: UUID
    booked_by: BookedBy
    status: ReturnStatus
    to_address: Address
    payer: Payer
    carrier: str | None = None
    tracking_no: str | None = None
    expected_on: date | None = None
    price: Money | None = None
    events: list[ReturnShipmentEvent] = []


class ReturnShipmentDetails(msgspec.Struct, frozen=True):
    """A return shipment as staff see it.

    `job_error` says why work on it failed, `is_parked` that it was given up."""

    shipment: ReturnShipment
    events: list[ReturnShipmentEvent]
    job_kind: str | None = None
    job_error: str | None = None
    is_parked: bool = False


class TrackingInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The carrier and the number with which a customer has sent a return."""

    carrier: CarrierName
    tracking_no: EnteredTrackingNo
