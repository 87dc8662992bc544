"""Refusals about return shipments."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class NoSuchReturnShipment(NotFound):
    """The return shipment does not exist, or it is not the caller's."""


class InvalidReturnState(Conflict):
    """The return shipment's or the case's status does not allow the action any more, or not yet."""

    code = "invalid_return_state"


class TrackingNoTaken(Conflict):
    """Another shipment has the tracking number."""

    code = "tracking_no_taken"


class CannotReturn(Invalid):
    """No carrier collects the return, or it cannot be packed; the detail names the remedy."""

    code = "cannot_return"
