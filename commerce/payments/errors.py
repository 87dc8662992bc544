"""What payments refuse, to shoppers and to staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchPayment(NotFound):
    title = "There is no such payment"


class NotPayable(Conflict):
    code = "not_payable"
    title = "The order cannot be paid any more"


class RefundExceedsCaptured(Conflict):
    code = "refund_exceeds_captured"
    title = "More would go back than was captured"


class NotCollectable(Conflict):
    code = "not_collectable"
    title = "No cash is to be collected on this payment"
