"""Refusals of staff's changes of sales."""

from __future__ import annotations

from commerce.kernel.errors import Conflict


class SaleIncomplete(Conflict):
    """A draft lacks what its orders will need."""

    code = "sale_incomplete"
    title = "The sale lacks what its orders will need"
