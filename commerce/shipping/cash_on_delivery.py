"""Cash on delivery: posted when a shipment is delivered, captured when no more can come.

Call inside a transaction that holds the locks of the orders.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import locked_orders
from commerce.payments import store as payments
from commerce.refunds import store as refunds
from commerce.shipping import store
from commerce.shipping.shipment_tasks import put_cancellation_jobs


async def collect_cash(connection: Connection, headers: Mapping[UUID, OrderHeader], now: datetime) -> None:
    """Post the cash of delivered shipments of these orders, and capture payments that are complete.

    Each shipment is posted once, to the account of the driver or the carrier that has the money. Jobs refund what was
    collected beyond what grants have left due, and have staff look for cash that is missing."""
    if not headers:
        return
    await store.post_collected_cash(connection, list(headers), now)
    cash_due = await payments.sum_cash_due(connection, list(headers))
    collected = await payments.sum_uncaptured_cash(connection, list(headers))
    captured, missing = list[UUID](), list[UUID]()
    for order_id, order in headers.items():
        if not (cash_due[order_id] or collected[order_id]):
            continue
        if await finish_cash(connection, order, now):
            captured.append(order_id)
        elif cash_due[order_id] and not await store.has_cash_shipments(connection, order_id):
            missing.append(order_id)
    if captured or missing:
        owed = await refunds.list_owed_orders(connection, captured)
        await put_cancellation_jobs(connection, [*owed, *missing], now, now)


async def find_missing_cash(connection: Connection, order: OrderHeader) -> int:
    """Return the cash that is missing though all of an order is delivered, in minor units."""
    is_delivered = order.status in (OrderStatus.DELIVERED, OrderStatus.COMPLETED)
    if not is_delivered or await store.has_cash_shipments(connection, order.order_id):
        return 0
    due_minor = await payments.get_cash_due(connection, order.order_id)
    return max(0, due_minor - (await payments.sum_uncaptured_cash(connection, [order.order_id]))[order.order_id])


async def finish_cash(connection: Connection, order: OrderHeader, now: datetime) -> bool:
    """Capture the cash of an order if it is complete, or if no more of it can be collected.

    In the second case payments are captured with what was collected, and closed where that is nothing. No more can be
    collected once no shipment is under way that collects cash, and the order is cancelled, or some of its units are
    and all others are delivered, or grants have taken the rest off. Cash that is missing though everything was
    delivered stays due: staff record or waive it. Returns whether any payment changed; a repeat changes nothing."""
    is_final = await store.is_cash_final(connection, order.order_id)
    return await locked_orders.capture_cash(connection, order, now, is_final=is_final)
