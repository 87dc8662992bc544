"""Refusals about receipts of returns."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchReceipt(NotFound):
    """The receipt, the surplus or the units to be sent back do not exist."""


class InvalidReceiptState(Conflict):
    """The receipt, the surplus or its case does not allow the action any more, or not yet."""

    code = "invalid_receipt_state"
