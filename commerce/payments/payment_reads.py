"""Reads of orders' payments for display; those of concurrent callers share statements."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.store import OrderHeader
from commerce.payments import store
from commerce.payments.model import OrderPayments, Payment, PaymentView, Refund, RefundView
from commerce.payments.tenders import is_action_usable

_OrderWithPayments = tuple[OrderHeader, Sequence[Payment]]


class PaymentReads:
    """Reads the payments of orders. Customers poll these while a provider is called."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._batch: Batcher[UUID, _OrderWithPayments | None] = Batcher(self._read)

    async def get(self, order_id: UUID, user_id: str | None) -> OrderPayments:
        """Return an order's payments; for staff (`user_id` None) those of any customer. Raises `NoSuchOrder`."""
        for_staff = user_id is None
        # Reads of staff take a connection of their own share.
        stored = (await self._read([order_id]))[0] if for_staff else await self._batch.add(order_id)
        if stored is None or user_id not in (None, stored[0].user_id):
            raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
        order, payments = stored
        refunds: list[Refund] = []
        collected_minor = 0
        if any(payment.method == "cod" and payment.status == "authorised" for payment in payments):
            async with self._db.connection() as connection:
                collected_minor = (await store.sum_uncaptured_cash(connection, [order_id]))[order_id]
        if any(payment.status == "captured" for payment in payments):  # otherwise there are no refunds
            async with self._db.snapshot() as connection:
                payments = await store.list_payments(connection, order_id)
                refunds = await store.list_refunds(connection, order_id)
        now = from_ms(self._clock.now_ms())
        return build_order_payments(order, payments, refunds, now, collected_minor, for_staff=for_staff)

    async def _read(self, order_ids: Sequence[UUID]) -> list[_OrderWithPayments | None]:
        # It takes no lock, which would be written to the disk each time.
        async with self._db.connection() as connection:
            headers = await orders.read_order_headers(connection, order_ids)
            payments = await store.list_payments_of_orders(connection, list(headers))
        return [(headers[id_], payments[id_]) if id_ in headers else None for id_ in order_ids]


def build_order_payments(
    order: OrderHeader,
    payments: Sequence[Payment],
    refunds: Sequence[Refund],
    now: datetime,
    collected_minor: int = 0,
    *,
    for_staff: bool = False,
) -> OrderPayments:
    """Describe an order's payments and refunds as customers see them, or staff.

    `collected_minor` is the cash that was collected for them and is not captured."""
    revision = payments[-1].plan_revision if payments else 0
    net_captured = sum(payment.captured_minor - payment.refunded_minor for payment in payments)
    views = list[PaymentView]()
    for payment in payments:
        current = payment.plan_revision == revision
        collected = payment.captured_minor if payment.method == "cod" else 0
        if payment.method == "cod" and payment.status == "authorised" and current:
            collected = min(payment.amount_minor, collected_minor)
            collected_minor -= collected
        views.append(_payment_view(payment, refunds, now, collected, current=current, for_staff=for_staff))
    return OrderPayments(order.order_id, order.total, net_captured, views)


def _payment_view(
    payment: Payment, refunds: Sequence[Refund], now: datetime, collected: int, *, current: bool, for_staff: bool
) -> PaymentView:
    return PaymentView(
        payment_id=payment.payment_id,
        method=payment.method,
        amount=payment.amount,
        status=payment.status,
        current=current,
        expires_at=payment.expires_at,
        action=payment.action if payment.status == "pending" and current and is_action_usable(payment, now) else None,
        reason=payment.reason,
        provider_error=payment.provider_error if for_staff else None,
        collected=collected,
        captured=payment.captured_minor,
        refunded=payment.refunded_minor,
        refunds=[
            _refund_view(refund, for_staff=for_staff)
            for refund in refunds
            if refund.payment_id == payment.payment_id and (for_staff or refund.status != "failed")
        ],
    )


def _refund_view(refund: Refund, *, for_staff: bool) -> RefundView:
    """Describe a refund. Customers do not see the attempts and waits behind it."""
    view = RefundView(
        refund_id=refund.refund_id,
        amount=refund.amount_minor,
        status=refund.status,
        reason=refund.reason,
        created_at=refund.created_at,
        way=refund.way,
        other_way_reason=refund.other_way_reason,
    )
    if not for_staff:
        return view
    return msgspec.structs.replace(
        view,
        attempt_no=refund.attempt_no,
        wait_reason=refund.wait_reason,
        provider_refund_id=refund.provider_refund_id,
        provider_error=refund.provider_error,
    )
