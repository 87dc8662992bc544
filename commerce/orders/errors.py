"""Errors of orders."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, ProblemError


class NoSuchOrder(NotFound):
    title = "There is no such order, or it is not yours"


class KeyReused(ProblemError):
    code = "key_reused"
    status = 422
    title = "This Idempotency-Key was used with another order"


class NotStoredYet(Conflict):
    code = "not_stored_yet"
    title = "The order was accepted a moment ago and cannot be changed yet"
    retry_after_s = 1


class CannotCancel(Conflict):
    code = "cannot_cancel"
    title = "The order can no longer be cancelled"
