"""A shop from the order to what comes back: payments at the sandbox, fake carriers, cases.

Workers of orders, payments and releases run. Shipments and cases move when the test moves them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from config.settings import Settings
from ops.services import CliServices
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.fake_carrier import FakeCarrier
from tests.support.gateway import open_gateway, run_workers
from tests.support.payment_shop import WORKERS, PaymentShop, open_sandbox, with_providers
from tests.support.sales import make_sale
from tests.support.shipping_gateway import CARRIER_SETTINGS, RATES, FakeNumberedCarrier
from tests.support.shipping_shop import ShippingShop, open_shipping_shop, tracking_event


@dataclass
class WholeShop:
    """`pay` has the gateway and the providers, `ship` the carriers, `cases` the jobs of cases."""

    pay: PaymentShop
    ship: ShippingShop
    cases: CaseShop

    async def add_paid_orders(self, count: int, *lines: tuple[str, int], total: int) -> list[UUID]:
        """Place orders of customers `user-0` and so on, who pay with store credit."""

        async def add(user: str) -> UUID:
            await self.pay.grant_credit(total, user)
            order_id = await self.pay.add_order(*lines, user=user)
            await self.pay.start_payments(order_id, ("balance", total), user=user)
            await self.pay.wait_for_order(order_id, "paid")
            return order_id

        return await asyncio.gather(*(add(f"user-{number}") for number in range(count)))

    async def work_until_idle(self) -> None:
        """Work on due jobs of orders, shipments and cancellations until none is due."""
        await self.ship.work_until_idle()

    async def follow_cases(self) -> None:
        """Look at every open case at once: has its money moved, is its deadline over?"""
        query = "UPDATE jobs SET due_at = now() - interval '1 second' WHERE queue = 'cases' RETURNING 1"
        await self.ship.fetch_rows(query)
        for jobs in await self.cases.jobs.queue.claim(1_000, {}):
            await self.cases.jobs.queue.work(jobs)

    async def check_audit(self) -> None:
        """Check that the audit of what has changed, and that of all history, find nothing."""
        audit = self.pay.shop.audit
        for report in (await audit.audit_changes(self.pay.sale_id), await audit.audit_sale(self.pay.sale_id)):
            assert report.clean, report.findings

    async def deliver(self, order_id: UUID) -> None:
        """Have carriers deliver all booked shipments of an order."""
        for shipment in await self.ship.list_shipments(order_id):
            await self.ship.apply_events(
                shipment.shipment_id, tracking_event("delivered", code=str(shipment.parcel_no))
            )


@asynccontextmanager
async def open_whole_shop(
    shop: CliServices,
    make_settings: Callable[..., Settings],
    sale_id: str,
    items: Mapping[str, tuple[int, int, int | None]],
) -> AsyncIterator[WholeShop]:
    """Open a sale of products of `PRODUCT_LOGISTICS`, and all that sells, pays and ships them."""
    settings = make_settings(
        shipping=CARRIER_SETTINGS, limits={"database_connections": 12, "request_head_timeout_s": 60}
    )
    async with AsyncExitStack() as stack:
        ship = await stack.enter_async_context(open_shipping_shop(shop, settings, rates=RATES, max_attempts=1_000))
        ship.carriers.clear()
        ship.carriers |= {
            "sf_express": FakeNumberedCarrier("sf_express"),
            "zto": FakeCarrier("zto", accepts_bookings=False, needs_subscription=True),
            "own_fleet": FakeCarrier("own_fleet", is_external=False),
        }
        await make_sale(shop, sale_id, items)
        sandbox, url = await stack.enter_async_context(open_sandbox())
        gateway = await stack.enter_async_context(open_gateway(with_providers(settings, url, "http://shop.invalid")))
        settings = with_providers(settings, url, gateway.base)
        await stack.enter_async_context(run_workers(settings, *WORKERS))
        yield WholeShop(PaymentShop(shop, sandbox, sale_id, gateway, settings), ship, open_case_shop(ship))


_UNITS_BEYOND = """
SELECT 'refunded beyond what was ordered', order_id, line_no, sum(granted.quantity), order_lines.quantity
FROM refund_grant_lines AS granted JOIN order_lines USING (order_id, line_no, address_no)
GROUP BY order_id, line_no, order_lines.quantity HAVING sum(granted.quantity) > order_lines.quantity
UNION ALL
SELECT 'returned beyond what was delivered', order_id, line_no, sum(case_lines.quantity), shipment_lines.quantity
FROM case_lines JOIN cases USING (case_id, order_id) JOIN shipment_lines USING (shipment_id, line_no, order_id)
WHERE status NOT IN ('declined', 'cancelled')
GROUP BY order_id, shipment_id, line_no, shipment_lines.quantity
HAVING sum(case_lines.quantity) > shipment_lines.quantity
UNION ALL
SELECT 'cancelled and delivered beyond what was ordered', order_id, line_no, cancelled + delivered, ordered
FROM fulfilment_lines WHERE cancelled + delivered > ordered
"""
_REFUNDS_BEYOND = """
SELECT payments.order_id, payments.amount_minor, sum(refunds.amount_minor)
FROM payments JOIN refunds USING (payment_id) WHERE refunds.status <> 'failed'
GROUP BY payments.payment_id HAVING sum(refunds.amount_minor) > payments.amount_minor
"""
# What is taken off a replacement was paid with the order that it comes from.
_GRANTS_BEYOND = """
SELECT orders.order_id, total_minor, granted FROM orders
JOIN (SELECT order_id, sum(amount_minor) AS granted FROM refund_grants GROUP BY order_id) AS grants USING (order_id)
LEFT JOIN exchanges ON replacement_id = orders.order_id AND exchanges.status = 'done'
WHERE granted > total_minor + CASE WHEN replacement_id IS NULL THEN 0 ELSE discount_minor END
"""
BEYOND = (_UNITS_BEYOND, _REFUNDS_BEYOND, _GRANTS_BEYOND)
"""Queries that return what is beyond what was ordered, delivered, captured or paid."""
