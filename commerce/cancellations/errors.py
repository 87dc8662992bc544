"""Errors of cancellations."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NotCancellable(Conflict):
    code = "not_cancellable"
    title = "These units can no longer be cancelled"


class NoSuchCancellation(NotFound):
    title = "There is no such cancellation, or it is not yours"


class NotUndelivered(Conflict):
    code = "not_undelivered"
    title = "The shipment does not wait for a decision"
