"""Takes units that a sale did not sell back to the warehouses that allotted them, once it has ended."""

from __future__ import annotations

from datetime import timedelta

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.sales.errors import NotEnoughFreeUnits
from commerce.sales.model import StockChangeInput
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from commerce.warehouse_stock import store as warehouse_stock

_END_MARGIN = timedelta(minutes=1)
"""A sale is over by the clock of Redis, which may be behind."""
_ITEMS_PER_QUERY = 500
_ACTOR = "sale_sync"


class UnsoldUnits:
    """Removes free units of ended sales by stock changes; each applied one is taken back to warehouses.

    Units that return to an ended sale later, of cancelled orders or from customers, follow in the same way."""

    def __init__(self, db: Database, sales: Sales, changes: StockChanges, clock: Clock) -> None:
        self._db = db
        self._sales = sales
        self._changes = changes
        self._clock = clock
        self._ids = IdGenerator(clock)

    async def take_back(self) -> int:
        """Take back what is free in ended sales. Returns the number of units.

        Raises an error of `REDIS_UNAVAILABLE` if Redis does not answer. Several processes may do this at once: of two
        changes that remove the same units Redis refuses one."""
        taken, after = 0, ("", "")
        while True:
            async with self._db.connection() as connection:
                ended_before = from_ms(self._clock.now_ms()) - _END_MARGIN
                items = await warehouse_stock.list_unplanned_items(connection, ended_before, after, _ITEMS_PER_QUERY)
            if not items:
                return taken
            for (sale_id, sku), units in (await self._sales.read_free_units(items)).items():
                taken += await self._take_back_item(sale_id, sku, units) if units > 0 else 0
            after = items[-1]

    async def _take_back_item(self, sale_id: str, sku: str, units: int) -> int:
        change = StockChangeInput(sku, -units, "the sale has ended and did not sell them")
        try:
            stored = await self._changes.change(sale_id, self._ids.new(), change, _ACTOR)
        except NotEnoughFreeUnits:
            return 0
        return units if stored.status == "applied" else 0
