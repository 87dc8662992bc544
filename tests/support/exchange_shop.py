"""A shop with orders that are placed in Redis, paid with store credit, delivered and exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

import lua
from commerce.aftersales.model import CaseKind, CaseLineInput
from commerce.exchanges import store as exchanges
from commerce.exchanges.model import Exchange
from commerce.kernel.clock import from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.orders import store as orders
from commerce.orders.model import Order
from commerce.payments import locked_orders
from commerce.payments import store as payments
from commerce.payments.order_status import Capture, record_authorisation
from commerce.reservations.service import Reservations
from commerce.sales.loading import load_sale
from config.settings import Settings
from lua import SaleKeys
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.gateway import run_workers
from tests.support.sales import ADDRESS, eventually, make_sale, reservation, reserve
from tests.support.shipping_shop import ShippingShop, tracking_event

PRICES = {"a": 100, "b": 150, "c": 60}
USER = "user"
_POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)


class ExchangeShop:
    """A sale of `a` (at most 4 each customer), `b` and `c`, 20 units of each.

    Jobs run only when the test works on them."""

    def __init__(self, ship: ShippingShop, settings: Settings, cases: CaseShop, keys: SaleKeys, sale_id: str) -> None:
        self.ship, self.cases, self.keys, self.sale_id = ship, cases, keys, sale_id
        self.shop, self._settings = ship.shop, settings
        self._reservations = Reservations(self.shop.db, self.shop.redis, self.shop.clock, _POLICY)

    def now(self) -> Any:
        return from_ms(self.shop.clock.now_ms())

    async def write(self) -> None:
        """Let the writer store all orders."""

        async def is_stored() -> bool:
            return (await lua.read_backlog(self.shop.redis, self.keys)).orders == 0

        async with run_workers(self._settings, "order_writer"):
            await eventually(is_stored)

    async def add_delivered(self, sku: str = "a", quantity: int = 2) -> UUID:
        """Place an order, pay it and deliver it."""
        limits = {"a": 4}
        order = reservation(
            self.shop.ids.new, self.sale_id, {sku: quantity}, user=USER, price=PRICES[sku], limits=limits
        )
        [result] = await reserve(self.shop.redis, self.keys, order)
        assert result.outcome is lua.ReserveOutcome.ACCEPTED
        await self.write()
        addresses = orjson.dumps([ADDRESS]).decode()
        async with self.shop.db.connection() as connection:
            await connection.execute("UPDATE orders SET ship_to = $2 WHERE order_id = $1", order.order_id, addresses)
        await self.pay(order.order_id)
        await self.deliver(order.order_id)
        return order.order_id

    async def pay(self, order_id: UUID, method: str = "balance") -> None:
        """Pay an order whole with store credit, or choose that it is paid on delivery (`cod`)."""
        order = await self.get(order_id)
        total = order.total.amount
        if method == "balance":
            await self.shop.payments.grant_store_credit(USER, Money(total, "CNY"), f"for {order_id}")
        now, payment_id = self.now(), self.shop.ids.new()
        async with self.shop.db.transaction() as connection:
            header = await orders.lock_order(connection, order_id)
            assert header is not None
            await connection.execute(
                "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, "
                "amount_minor, currency, status, created_at, expires_at) "
                "VALUES ($1, $2, $3, 1, 0, $7, 'none', $4, 'CNY', 'pending', $5, $6)",
                *(payment_id, order_id, USER, total, now, now + timedelta(hours=1), method),
            )
            [locked] = await locked_orders.read_orders(connection, [header])
            payment = locked.payments[payment_id]
            if method == "cod":
                record_authorisation(locked, payment)
            else:
                assert await payments.adjust_store_credit(connection, USER, "CNY", -total)
                locked.changes.captures.append(Capture(payment, now, None))
                locked.replace_payment(payment, status="captured")
            await locked_orders.update_and_write(connection, self.shop.ids, [locked], now)

    async def deliver(self, order_id: UUID) -> None:
        await self.ship.work_until_idle()
        for shipment in await self.ship.list_shipments(order_id):
            code = str(shipment.shipment_id)
            await self.ship.apply_events(shipment.shipment_id, tracking_event("delivered", code=code))

    async def get(self, order_id: UUID) -> Order:
        async with self.shop.db.connection() as connection:
            stored = await orders.get(connection, order_id)
        assert stored is not None
        return stored[1]

    async def lines(self, order_id: UUID, wanted_sku: str, quantity: int) -> list[CaseLineInput]:
        [line, *_] = await self.cases.lines(order_id)
        return [
            CaseLineInput(line_no=line.line_no, quantity=quantity, shipment_id=line.shipment_id, wanted_sku=wanted_sku)
        ]

    async def preview(self, order_id: UUID, wanted_sku: str, quantity: int = 1) -> Any:
        lines = await self.lines(order_id, wanted_sku, quantity)
        return await self.cases.preview(order_id, kind=CaseKind.EXCHANGE, lines=lines)

    async def exchange(self, order_id: UUID, wanted_sku: str, quantity: int = 1) -> UUID:
        """Request an exchange, approve it, receive good units, and resolve it. Returns the case."""
        lines = await self.lines(order_id, wanted_sku, quantity)
        case_id = await self.cases.request(order_id, kind=CaseKind.EXCHANGE, lines=lines)
        await self.cases.approve(case_id)
        await self.receive(case_id)
        await self.cases.act("resolve", case_id)
        return case_id

    async def receive(self, case_id: UUID) -> None:
        """Inspect all units of a case as good; the resolution releases them."""
        lines = (await self.cases.get(case_id)).lines
        await self.cases.receive(case_id, *((line.quantity, 0, 0) for line in lines))

    async def work(self, case_id: UUID, jobs: int = 1) -> list[str]:
        """Do the job of a case so many times. Returns the result words."""
        words: list[str] = []
        for _ in range(jobs):
            words += await self.cases.work(case_id)
        return words

    async def finish(self, case_id: UUID) -> list[str]:
        """Apply releases, and do the job before and after the replacement is stored."""
        await self.apply_releases()
        words = await self.work(case_id)
        await self.write()
        return words + await self.work(case_id)

    async def apply_releases(self) -> None:
        while await self._reservations.apply_due_releases():
            pass

    async def expire(self, order_id: UUID) -> None:
        """Let the time to pay an order pass."""
        async with self.shop.db.connection() as connection:
            await connection.execute(
                "UPDATE orders SET accepted_at = accepted_at - interval '9 days', pay_by = now() - interval '1 second' "
                "WHERE order_id = $1",
                order_id,
            )
        assert await self._reservations.expire_unpaid_orders() == 1

    async def exchange_of(self, case_id: UUID) -> Exchange:
        async with self.shop.db.connection() as connection:
            exchange = await exchanges.get_exchange(connection, case_id)
        assert exchange is not None
        return exchange

    async def replacement(self, case_id: UUID) -> Order:
        return await self.get((await self.exchange_of(case_id)).replacement_id)

    async def stock(self) -> Mapping[str, int]:
        return await lua.read_stock(self.shop.redis, self.keys)

    async def credit(self) -> int:
        """Return the customer's store credit in minor units."""
        return sum(balance.amount for balance in (await self.shop.payments.get_store_credit(USER)).balances)

    async def story(self, order_id: UUID) -> list[str]:
        query = "SELECT reason FROM order_events WHERE order_id = $1 AND kind = 'exchange' ORDER BY seq"
        return [row["reason"] for row in await self.ship.fetch_rows(query, order_id)]

    async def check(self) -> None:
        """Check the audit of changes and of all history, and again after a rebuild."""
        await self.write()
        await self.apply_releases()
        await self.cases.check_records()
        for _ in range(2):
            for audit in (
                await self.shop.audit.audit_changes(self.sale_id),
                await self.shop.audit.audit_sale(self.sale_id),
            ):
                assert [(finding.detail, finding.examples) for finding in audit.findings] == []
            await load_sale(self.shop.db, self.shop.redis, self.shop.clock, self.sale_id)


async def open_exchange_shop(ship: ShippingShop, settings: Settings, sale_id: str) -> ExchangeShop:
    keys = await make_sale(
        ship.shop, sale_id, {sku: (20, price, 4 if sku == "a" else None) for sku, price in PRICES.items()}
    )
    return ExchangeShop(ship, settings, open_case_shop(ship), keys, sale_id)
