"""Waivers of cash that is missing though all of an order is delivered: staff end what nobody will pay."""

from __future__ import annotations

from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.orders import store as orders
from commerce.orders.model import CANCELLATIONS
from commerce.payments import locked_orders
from commerce.payments.errors import NoSuchPayment, NotCollectable
from commerce.refunds import service as refunds
from commerce.shipping.cash_on_delivery import find_missing_cash, finish_cash


class CashWaivers:
    """Waives missing cash for staff."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def waive(self, payment_id: UUID, reason: str, actor: str) -> None:
        """Waive the cash that an order should have brought and has not. A repeat changes nothing.

        The payment is captured with what was collected; a grant says who waived the rest, and why. Raises
        `NoSuchPayment`, and `NotCollectable` if no cash of its order is missing."""
        now = from_ms(self._clock.now_ms())
        async with self._db.transaction() as connection:
            locked = (await locked_orders.lock_orders(connection, [payment_id])).get(payment_id)
            if locked is None:
                raise NoSuchPayment(f"there is no payment {payment_id}")
            order = await orders.lock_order(connection, locked.order_id)
            assert order is not None
            payment = locked.payments[payment_id]
            missing_minor = await find_missing_cash(connection, order) if payment.status == "authorised" else 0
            if not missing_minor:
                if payment.uncollected_minor or payment.status == "closed":
                    return
                raise NotCollectable(
                    f"cannot waive cash of this payment by {payment.method} that is {payment.status}: none is missing "
                    "until all of the order is delivered; cancel units that will not be"
                )
            terms = (payment_id, self._ids.new(), missing_minor, reason, actor, now)
            await refunds.waive_cash(connection, order, *terms)
            await finish_cash(connection, order, now)
            await jobs.retry(connection, CANCELLATIONS, [order.order_id], now)
