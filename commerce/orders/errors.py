"""Errors of orders."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, NotReady
from commerce.orders.model import PersistResult


class NoSuchOrder(NotFound):
    title = "There is no such order, or it is not yours"


class NotStoredYet(Conflict):
    code = "not_stored_yet"
    title = "The order was accepted a moment ago and cannot be changed yet"
    retry_after_s = 1


class TotalChanged(Conflict):
    code = "total_changed"
    title = "The order would cost something else than the customer has confirmed"


class CannotCancel(Conflict):
    code = "cannot_cancel"
    title = "The order can no longer be cancelled"


class OrdersNotStorable(NotReady):
    """Orders fail in a way that may be the program's fault.

    `result` is what became of the others of the batch.
    """

    title = "Orders cannot be stored at the moment"

    def __init__(self, detail: str, result: PersistResult) -> None:
        super().__init__(detail)
        self.result = result
