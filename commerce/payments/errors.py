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


class NoSuchRefund(NotFound):
    title = "There is no such refund, or it is not yours"


class RefundNotStuck(Conflict):
    code = "refund_not_stuck"
    title = "The refund does not need another way"


class TransferRecorded(Conflict):
    code = "transfer_recorded"
    title = "A transfer of the refund is recorded"


class SecondPersonNeeded(Conflict):
    code = "second_person_needed"
    title = "Another person must confirm it"


class RefundNotRedirected(Conflict):
    code = "refund_not_redirected"
    title = "The provider did not send the refund to another account"


class NotCollectable(Conflict):
    code = "not_collectable"
    title = "This payment collects no cash"
