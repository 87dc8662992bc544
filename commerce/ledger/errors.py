"""Refusals of the ledger."""

from __future__ import annotations

from commerce.kernel.errors import Conflict


class CashNotHeld(Conflict):
    code = "cash_not_held"
    title = "There is not so much cash in that account"
