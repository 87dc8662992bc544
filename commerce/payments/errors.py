"""Refusals of payments, to customers and to staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchPayment(NotFound):
    title = "The payment does not exist"


class NotPayable(Conflict):
    code = "not_payable"
    title = "The order can no longer be paid"


class RefundExceedsCaptured(Conflict):
    code = "refund_exceeds_captured"
    title = "The refund exceeds what was captured"


class NotCollectable(Conflict):
    code = "not_collectable"
    title = "This payment collects no cash"
