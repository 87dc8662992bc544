"""Refusals of shipping."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchShipment(NotFound):
    """The shipment does not exist, or it is not the caller's."""


class NoLabel(Conflict):
    """The shipment has no label: no carrier is booked, or letters of its address cannot be printed."""

    code = "no_label"


class InvalidShipmentState(Conflict):
    """The shipment's status does not allow the action any more, or not yet."""

    code = "invalid_shipment_state"


class CannotShip(Invalid):
    """The order cannot be planned, or no carrier takes a shipment; the detail names the remedy."""

    code = "cannot_ship"
