"""Grants refunds inside the transactions of cancellations, cases and staff."""

from __future__ import annotations

from datetime import datetime

from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.orders.store import OrderHeader
from commerce.refunds.model import Grant, GrantRequest


async def grant(
    connection: Connection, ids: IdGenerator, order: OrderHeader, request: GrantRequest, now: datetime
) -> Grant:
    """Grant a refund, ask for its money, and tell the customer in the order's story.

    Call inside a transaction that holds the order lock (`orders.lock_order`). A repeat of `kind` and `source_id`
    returns the stored grant and changes nothing. Units of an order of 0 make a grant without refunds.
    """
    raise RuntimeError("cannot grant a refund: its tables do not exist yet")


async def preview(connection: Connection, order: OrderHeader, request: GrantRequest) -> Grant:
    """Return what `grant` would do. Stores nothing and needs no lock."""
    raise RuntimeError("cannot grant a refund: its tables do not exist yet")
