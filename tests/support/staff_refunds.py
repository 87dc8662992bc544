"""Refunds as staff make them, for tests of what follows from them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from commerce.payments.model import OrderPayments
from commerce.refunds.model import RefundInput
from commerce.refunds.staff_refunds import StaffRefunds
from ops.services import CliServices


async def refund_as_staff(
    shop: CliServices, order_id: UUID, key: str = "k", amount: int | None = None, **terms: Any
) -> OrderPayments:
    """Refund an amount of an order, or all that is left."""
    wanted = RefundInput(**{"idempotency_key": key, "amount": amount, "reason": "it was broken", **terms})
    return await StaffRefunds(shop.db, shop.clock, shop.ids).refund(order_id, wanted, "staff sam")
