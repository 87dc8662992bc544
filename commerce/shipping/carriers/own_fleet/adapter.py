"""The own fleet as a carrier.

No external system is called. Tracking events come from drivers, not through here.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from uuid import UUID

from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, CancelOutcome, TrackingEvent


class OwnFleet:
    """Implements `commerce.shipping.carrier_port.Carrier`.

    A tracking number is OF and twelve characters of A to Z and 2 to 7."""

    name = "own_fleet"
    system = "own_fleet"
    accepts_bookings = True
    collects_returns = False  # routes are planned for deliveries alone
    is_external = False
    needs_subscription = False
    min_poll_interval_s = 0.0

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        return _confirmation(request.booking_id)

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation:
        return _confirmation(booking_id)

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        pass

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return []


def _confirmation(booking_id: UUID) -> BookingConfirmation:
    # Ids of one millisecond begin with the same digits, so the number is made of a digest, not of the id's beginning.
    return BookingConfirmation("OF" + b32encode(sha256(booking_id.bytes).digest()).decode()[:12])
