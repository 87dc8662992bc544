"""Orders that are stored, paid and cancelled by the statements of the shop, at any time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import count
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.stream_payload import AcceptedLine, AcceptedOrder, StreamedOrder
from commerce.orders import store
from commerce.orders.model import OrderStatus
from lua import EntryId
from ops.services import CliServices

PRICE = 100
_numbers = count()


async def store_order(
    connection: Connection, shop: CliServices, sale_id: str, units: Mapping[str, int], at: datetime, currency: str
) -> UUID:
    """Store an order as the writer does. Call inside a transaction."""
    number = next(_numbers)
    order = AcceptedOrder(
        order_id=shop.ids.new(),
        user_id=f"user-{number}",
        idempotency_key=f"key-{number}",
        body_digest=b"d" * 16,
        sale_id=sale_id,
        generation=1,
        currency=currency,
        total_minor=PRICE * sum(units.values()),
        pay_within_s=900,
        ship_to="[]",
        payments="[]",
        lines=[AcceptedLine(line_no, 0, sku, quantity, PRICE) for line_no, (sku, quantity) in enumerate(units.items())],
    )
    entry = EntryId(int(at.timestamp() * 1000), number)
    await store.copy_orders(connection, [StreamedOrder(order, entry, b"")], at)
    return order.order_id


async def pay(connection: Connection, order_id: UUID, at: datetime) -> None:
    """Make an order paid."""
    steps = OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID
    assert await store.advance_status(connection, order_id, *steps, at, "test", "it was paid")


async def lapse(connection: Connection, order_id: UUID, at: datetime, cause: str = "expired") -> None:
    """Cancel an order that was not paid."""
    assert await store.cancel(connection, [order_id], at, cause, "test", "not paid")
