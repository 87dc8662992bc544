"""The own fleet as a carrier: nobody outside is asked, and its news come from the vans' drivers, not through here."""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from uuid import UUID

from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, CancelOutcome, TrackingEvent


class OwnFleet:
    """See `commerce.shipping.carrier_port.Carrier`. A tracking number is OF and twelve characters of A to Z and 2 to 7."""

    name = "own_fleet"
    system = "own_fleet"
    accepts_bookings = True
    is_external = False
    needs_subscription = False

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        return _booked(parcel.booking_id)

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation:
        return _booked(booking_id)

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        pass

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return []


def _booked(booking_id: UUID) -> BookingConfirmation:
    # Ids of one moment begin alike, so the number is made of a digest and not of the id's beginning.
    return BookingConfirmation("OF" + b32encode(sha256(booking_id.bytes).digest()).decode()[:12])
