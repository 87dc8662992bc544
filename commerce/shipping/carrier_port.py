"""What every carrier does, in one shape. An adapter is a folder in `carriers/` with at least these files:

`settings.py` what the shop has agreed with the carrier (keys, ids, addresses), `wire.py` its protocol: signatures and
the form of messages, `states.py` its words for where a parcel is in ours, `adapter.py` the methods below.

Each method that calls out may be called again with the same ids, however the first call ended: the carrier knows a
booking by its `booking_id` (as 32 hexadecimal digits) and never makes one twice. Those methods raise `Unclear` where
nobody knows what happened, and `Refused` where it was said no.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

from commerce.kernel.address import Address
from commerce.kernel.external import WebhookReply
from commerce.kernel.money import Money
from commerce.shipping.model import ShipmentStatus


class ContentLine(NamedTuple):
    """What is in a parcel, for the carrier's papers."""

    name: str
    quantity: int


class BookingRequest(msgspec.Struct, frozen=True):
    """A parcel that a carrier is asked to bring. `cod` is what it collects at the door, `value` what the goods cost."""

    booking_id: UUID
    order_id: UUID
    sender: Address
    to: Address
    weight_g: int
    length_mm: int
    width_mm: int
    height_mm: int
    contents: Sequence[ContentLine]
    value: Money
    cod: Money | None = None


class BookingConfirmation(NamedTuple):
    """The carrier will come for it. `sort_code` is what its label must show for its sorters, where it wants that."""

    tracking_no: str
    sort_code: str | None = None


class TrackingEvent(msgspec.Struct, frozen=True):
    """One thing that a carrier tells of a parcel. `code` is its own word for it.

    `state` is where the parcel is after it, None where it stays where it was (a van is stuck in traffic). `unknown` is
    said of a code that we do not know: it is kept and shown, never guessed.
    """

    at: datetime
    code: str
    text: str
    state: ShipmentStatus | None = None
    is_unknown_code: bool = False
    place: str | None = None


class ShipmentUpdate(msgspec.Struct, frozen=True):
    """Genuine news of one parcel that a carrier sent by itself. `carrier` as in the rate table."""

    carrier: str
    tracking_no: str
    events: list[TrackingEvent]
    booking_id: UUID | None = None


class CarrierWebhook(msgspec.Struct, frozen=True):
    """A genuine call of a carrier's: `notice_id` is the same whenever it sends the same again."""

    webhook_id: str
    updates: list[ShipmentUpdate]


CancelOutcome = Literal["cancelled", "too_late", "absent"]
"""It will not come; it has the parcel already; it has never heard of it (and, as it was told now, never will)."""


class Carrier(Protocol):
    """One name in the rate table. Several may be reached through one `system`, which has the connections, the limits
    and the address that pushes come to."""

    name: str
    system: str
    accepts_bookings: bool
    """False: the desk books it by itself and says the number."""
    is_external: bool
    """False: nobody outside is called; what would be done outside is done with the row."""
    needs_subscription: bool
    """Whether it must be asked, parcel by parcel, to push its news."""

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        """Ask it to come for a parcel. Again for the same booking gives the same number."""
        ...

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        """What became of a booking that was asked for; None where the carrier knows nothing of it."""
        ...

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        """See to it that it does not come for the parcel; `tracking_no` is None where the booking is unclear."""
        ...

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        """Ask to be told its news. `phone` is the receiver's, by which some carriers check who asks."""
        ...

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        """All that it tells of a parcel, in the order of time; none where it has not heard of it yet."""
        ...


class CarrierWebhookReader(Protocol):
    """A system's pushes; `system` is its name in their address."""

    system: str

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        """Check that a push is the carrier's and for us. Names of headers are in lower case. Raises `BadNotice`."""
        ...

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """The answer to a push: it was stored, or it was not and may come again."""
        ...


class CarrierRegistry(NamedTuple):
    """All that the shop works with: carriers by their names in the rate table, pushes by system."""

    by_name: Mapping[str, Carrier]
    webhook_readers: Mapping[str, CarrierWebhookReader]
