"""Paid orders in the database with any lines, freight and payments, and grants of refunds for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.kernel.clock import from_ms
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.refunds import service
from commerce.refunds.model import Grant, GrantRequest
from ops.services import CliServices
from tests.support.sales import ADDRESS


class LineOfOrder(NamedTuple):
    """A line to insert: units at a price each, less a discount on all of them."""

    quantity: int
    unit_price: int
    discount: int = 0
    line_no: int = 0
    address_no: int = 0


@dataclass
class RefundOrders:
    """Orders that are inserted as they would be after paying, and grants for them."""

    shop: CliServices

    async def add(
        self,
        lines: Sequence[LineOfOrder],
        payments: Sequence[tuple[str, int]],
        *,
        freight: int = 0,
        cod_fee: int = 0,
        user: str = "user",
    ) -> UUID:
        """Insert an order with payments (method, amount), captured except for cash on delivery."""
        order_id, now = self.shop.ids.new(), from_ms(self.shop.clock.now_ms())
        total = sum(line.quantity * line.unit_price - line.discount for line in lines) + freight + cod_fee
        assert not payments or total == sum(amount for _, amount in payments)
        discount = sum(line.discount for line in lines)
        async with self.shop.db.transaction() as connection:
            await connection.execute(
                "INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, "
                "total_minor, ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by, discount_minor, "
                "freight_minor, cod_fee_minor) "
                "VALUES ($1, $2, $3, $4, 'sale', 1, 'CNY', $5, $6, '[]', $7, 0, $7, $8, $9, $10, $11)",
                *(order_id, user, str(order_id), b"d" * 16, total, msgspec.json.encode([ADDRESS]).decode()),
                *(now - timedelta(seconds=1), now + timedelta(hours=1), discount, freight, cod_fee),
            )
            for line in lines:
                await connection.execute(
                    "INSERT INTO order_lines (order_id, line_no, address_no, sku, quantity, unit_price_minor, "
                    "list_price_minor, discount_minor) VALUES ($1, $2, $3, 'a', $4, $5, $6, $7)",
                    *(order_id, line.line_no, line.address_no, line.quantity, line.unit_price),
                    *(line.unit_price * 2, line.discount),
                )
            for tender_no, (method, amount) in enumerate(payments):
                await self._insert_payment(connection, order_id, user, tender_no, method, amount, now)
            if payments:
                is_cash = any(method == "cod" for method, _ in payments)
                status = OrderStatus.CONFIRMED if is_cash else OrderStatus.PAID
                step = (OrderStatus.AWAITING_PAYMENT, status, now, "test", "paid")
                assert await orders.advance_status(connection, order_id, *step)
        return order_id

    async def _insert_payment(
        self, connection: Any, order_id: UUID, user: str, tender_no: int, method: str, amount: int, now: datetime
    ) -> None:
        status, captured_at = ("authorised", None) if method == "cod" else ("captured", now)
        payment_id = self.shop.ids.new()
        await connection.execute(
            "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, "
            "amount_minor, currency, status, created_at, expires_at, captured_at, transaction_id) "
            "VALUES ($1, $2, $3, 1, $4, $5, 'none', $6, 'CNY', $7, $8, $9, $10, $11)",
            *(payment_id, order_id, user, tender_no, method, amount, status, now),
            *(now + timedelta(hours=1), captured_at, None if captured_at is None else str(payment_id)),
        )
        if captured_at:
            source = f"credit:{user}" if method == "balance" else f"provider:{method}"
            await connection.execute(
                "INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES "
                "($1, $2, $3, $4, 'CNY', $5), ($1, 'orders', $3, -$4, 'CNY', $5)",
                *(f"capture {payment_id}", source, order_id, amount, now),
            )

    async def grant(self, order_id: UUID, **values: Any) -> Grant:
        """Grant a refund in a transaction of its own; by default to a case, for a reason."""
        request = GrantRequest(**{"kind": "case", "source_id": None, "reason": "broken", "actor": "test", **values})
        async with self.shop.db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            assert order is not None
            now = from_ms(self.shop.clock.now_ms())
            return await service.grant(connection, self.shop.ids, order, request, now)

    async def preview(self, order_id: UUID, **values: Any) -> Grant:
        request = GrantRequest(**{"kind": "case", "source_id": None, "reason": "broken", "actor": "test", **values})
        async with self.shop.db.snapshot() as connection:
            order = await orders.read_order_header(connection, order_id)
            assert order is not None
            return await service.preview(connection, order, request)

    async def fetch(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return [tuple(row) for row in await connection.fetch(query, *values)]

    async def refunded(self, order_id: UUID) -> dict[str, int]:
        """Return the amounts that are refunded or being refunded, by method."""
        return dict(
            await self.fetch(
                "SELECT method, sum(refunds.amount_minor)::bigint FROM refunds JOIN payments USING (payment_id) "
                "WHERE refunds.order_id = $1 AND refunds.status <> 'failed' GROUP BY method",
                order_id,
            )
        )

    async def collect_cash(self, order_id: UUID) -> None:
        """Collect the cash of an order."""
        async with self.shop.db.connection() as connection:
            [row] = await connection.fetch(
                "SELECT payment_id FROM payments WHERE order_id = $1 AND method = 'cod'", order_id
            )
        await self.shop.payments.record_cash_collected(row["payment_id"])
