"""The port to carriers. An adapter is a folder in `carriers/` with at least these files:

`settings.py` (the shop's account at the carrier: keys, ids, addresses), `wire.py` (signatures and message formats),
`status_map.py` (the carrier's codes as shipment statuses) and `adapter.py` (the methods below). Its `__init__.py`
exports `ADAPTER`, a `CarrierAdapter`.

Each method that calls out may be called again with the same ids, however the first call ended: the carrier identifies a
booking by its `booking_id` (as 32 hexadecimal digits) and never books it twice. Those methods raise
`ExternalOutcomeUnknown` if the outcome is unknown and `ExternalRefusal` if the carrier refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.external import WebhookReply
from commerce.kernel.money import Money
from commerce.shipping.model import ShipmentStatus


class ContentLine(NamedTuple):
    """A product in a shipment, as the carrier's documents name it."""

    name: str
    quantity: int


class BookingRequest(msgspec.Struct, frozen=True):
    """A shipment that a carrier is to transport.

    The carrier collects `cod` on delivery. `value` is the price of the contents. With `is_return` the sender is a
    customer and the recipient a warehouse: the carrier is to come to the sender, and the shop pays it."""

    booking_id: UUID
    order_id: UUID
    sender: Address
    recipient: Address
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
    contents: Sequence[ContentLine]
    value: Money
    cod: Money | None = None
    is_return: bool = False


class BookingConfirmation(NamedTuple):
    """The carrier's promise to collect a shipment.

    `sort_code` is printed on the label if the carrier requires one."""

    tracking_no: str
    sort_code: str | None = None


class TrackingEvent(msgspec.Struct, frozen=True):
    """An event that a carrier or a driver reports of a shipment. `code` is the reporter's own word for it.

    `status` is the shipment's status after the event, None if it stays the same (a vehicle is stuck in traffic). A code
    that is not in our map has `is_unknown_code` set: it is stored and shown, never guessed."""

    at: datetime
    code: str
    text: str
    status: ShipmentStatus | None = None
    is_unknown_code: bool = False
    place: str | None = None


class ShipmentUpdate(msgspec.Struct, frozen=True):
    """Tracking events of one shipment from a genuine webhook. `carrier` is a name in the rate table."""

    carrier: str
    tracking_no: str
    events: list[TrackingEvent]
    booking_id: UUID | None = None


class CarrierWebhook(msgspec.Struct, frozen=True):
    """A genuine webhook of a carrier. Equal content has an equal `webhook_id`."""

    webhook_id: str
    updates: list[ShipmentUpdate]


CancelOutcome = Literal["cancelled", "too_late", "absent"]
"""`too_late`: the carrier has the shipment already.

`absent`: it has no such booking and will not accept it later."""


class Carrier(Protocol):
    """A carrier in the rate table.

    Carriers may share a `system`, which has connections, limits and webhooks."""

    name: str
    system: str
    accepts_bookings: bool
    """False: staff book with the carrier and enter the tracking number"""
    collects_returns: bool
    """True: it collects returns from customers, as `BookingRequest.is_return` asks"""
    is_external: bool
    """False: no external system is called"""
    needs_subscription: bool
    """True: the carrier sends webhooks of a shipment only after `subscribe`"""
    min_poll_interval_s: float
    """minimum time between two calls of `fetch_tracking` for a shipment, failed ones included"""

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        """Order the collection of a shipment. A repeated call for the same booking returns the same number."""
        ...

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        """Find the confirmation of a requested booking; None if the carrier has no such booking."""
        ...

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        """Cancel a booking. `tracking_no` is None if the booking's outcome is unknown."""
        ...

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        """Request webhooks for a shipment. Some carriers check the recipient's `phone`."""
        ...

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        """Fetch all tracking events of a shipment, sorted by time; none if the carrier has no scan yet."""
        ...


class CarrierWebhookReader(Protocol):
    """Checks and decodes the webhooks of a system. `system` is its name in the webhook's path."""

    system: str

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        """Verify that a webhook is genuine and for this shop, and decode it. Header names are in lower case.

        Raises `InvalidWebhook` if it is not."""
        ...

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """Make the reply in the carrier's form. A webhook that was not accepted may be sent again."""
        ...


class CarrierRegistry(NamedTuple):
    """The shop's carriers by their names in the rate table, and the webhook readers by system."""

    by_name: Mapping[str, Carrier]
    webhook_readers: Mapping[str, CarrierWebhookReader]


class AdapterObjects(NamedTuple):
    """The carriers that an adapter creates, and its webhook reader if the system sends webhooks."""

    carriers: Sequence[Carrier]
    webhook_reader: CarrierWebhookReader | None = None


@dataclass(frozen=True, kw_only=True)
class CarrierAdapter:
    """Description of an adapter, by which `open_carriers` finds and creates it."""

    name: str
    """the system's name in webhook paths, metrics and logs"""
    settings_field: str
    """field of the shipping settings: credentials or a switch; the adapter is used if it is set"""
    load_account: Callable[..., Any] | None = None
    """makes the account of the credentials, given by keyword; raises `ValueError` if one is invalid"""
    create: Callable[..., AdapterObjects]
    """called with account (or None), `HttpTransport`, `Clock` and, by keyword, `extra_settings`"""
    extra_settings: tuple[str, ...] = ()
    """further fields of the shipping settings, which may only be set together with `settings_field`"""
    sends_webhooks: bool = False
