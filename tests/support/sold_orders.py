"""Orders that are paid without a payment, and units of them that are released."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import lua
from commerce.audit.model import SaleAudit, StockRow
from commerce.kernel.clock import from_ms
from commerce.kernel.jobs import RetryPolicy
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.reservations import store as reservations
from commerce.reservations.service import Reservations
from commerce.reservations.store import GiveBack
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve

LIMIT = 5
_POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)


class SoldOrders:
    """Paid orders of one sale with `a`, of which each customer may have five, and `b`."""

    def __init__(self, shop: CliServices, settings: Settings, keys: SaleKeys, sale_id: str) -> None:
        self.shop, self.keys, self.sale_id = shop, keys, sale_id
        self._settings = settings
        self.reservations = Reservations(shop.db, shop.redis, shop.clock, _POLICY)

    async def place(self, units: Mapping[str, int], user: str = "ann", *, paid: bool = True) -> UUID:
        """Place an order, store it and make it paid."""
        order = reservation(self.shop.ids.new, self.sale_id, units, user=user, limits={"a": LIMIT, "coupon:TEN": 1})
        [result] = await reserve(self.shop.redis, self.keys, order)
        assert result.outcome is lua.ReserveOutcome.ACCEPTED

        async def is_stored() -> bool:
            return (await lua.read_backlog(self.shop.redis, self.keys)).orders == 0

        async with run_workers(self._settings, "order_writer"):
            await eventually(is_stored)
        if paid:
            await self.advance(order.order_id, OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID)
        return order.order_id

    async def advance(self, order_id: UUID, before: OrderStatus, after: OrderStatus) -> None:
        now = from_ms(self.shop.clock.now_ms())
        async with self.shop.db.transaction() as connection:
            assert await orders.advance_status(connection, order_id, before, after, now, "test", "it was paid")

    async def give_back(
        self,
        order_id: UUID,
        units: Mapping[str, int],
        written_off: Mapping[str, int] | None = None,
        release_id: UUID | None = None,
    ) -> bool:
        request = GiveBack(release_id or self.shop.ids.new(), order_id, units, "it came back", written_off or {})
        async with self.shop.db.transaction() as connection:
            return await reservations.give_back(connection, request, from_ms(self.shop.clock.now_ms()))

    async def cancel(self, order_id: UUID, written_off: Mapping[str, int] | None = None) -> None:
        """Cancel a paid order."""
        now = from_ms(self.shop.clock.now_ms())
        async with self.shop.db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            assert order is not None
            cause = ("by_staff", "staff", "it is out of stock")
            await reservations.cancel_sold(connection, order, now, *cause, written_off=written_off)

    async def apply(self) -> None:
        """Apply all due releases."""
        while await self.reservations.apply_due_releases():
            pass

    async def read_units(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the free units, and those that count towards limits by "user SKU"."""
        taken = await lua.read_units_taken(self.shop.redis, self.keys)
        return (
            await lua.read_stock(self.shop.redis, self.keys),
            {field.decode().replace("\0", " "): units for field, units in taken.items()},
        )

    async def audit(self) -> SaleAudit:
        """Audit what has changed and all history: both are clean and find the same."""
        changes = await self.shop.audit.audit_changes(self.sale_id)
        whole = await self.shop.audit.audit_sale(self.sale_id)
        assert (changes.findings, whole.findings) == ([], [])
        assert changes.rows == whole.rows
        return whole

    async def audit_row(self, sku: str = "a") -> StockRow:
        """Audit, and return the units of one SKU."""
        return next(row for row in (await self.audit()).rows if row.sku == sku)

    async def execute(self, *statements: str) -> None:
        """Change rows by hand, while triggers of the shop are off."""
        async with self.shop.db.transaction() as connection:
            await connection.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                await connection.execute(statement)


async def open_sold_orders(shop: CliServices, settings: Settings, sale_id: str) -> SoldOrders:
    """Open the sale, with 20 units of each SKU."""
    keys = await make_sale(shop, sale_id, {"a": (20, 100, LIMIT), "b": (20, 50, None)})
    return SoldOrders(shop, settings, keys, sale_id)
