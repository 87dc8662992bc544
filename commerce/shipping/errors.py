"""What shipping refuses."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchShipment(NotFound):
    """There is no such parcel, or it is not yours."""


class NoLabel(Conflict):
    """A parcel has a label once a carrier is booked for it."""

    code = "no_label"


class InvalidShipmentState(Conflict):
    """The parcel is somewhere where this cannot be done any more, or yet."""

    code = "invalid_shipment_state"


class CannotShip(Invalid):
    """The order cannot be made into parcels, or no carrier takes one, as things are; the detail says what to do."""

    code = "cannot_ship"
