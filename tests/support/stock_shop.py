"""Stock of warehouses for tests: movements, and sums that must agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from commerce.kernel.ids import IdGenerator
from commerce.warehouse_stock.model import MovementInput, StockLevel
from commerce.warehouse_stock.service import WarehouseStock
from ops.services import CliServices
from tests.support.sales import ADDRESS

_WRONG_LEVELS = """
SELECT level.sku, level.warehouse_id, on_hand, moved.on_hand_sum, allotted, moved.allotted_sum, units
FROM stock_levels AS level LEFT JOIN LATERAL (
    SELECT coalesce(sum(on_hand_delta), 0) AS on_hand_sum, coalesce(sum(allotted_delta), 0) AS allotted_sum
    FROM stock_movements AS movement
    WHERE movement.sku = level.sku AND movement.warehouse_id = level.warehouse_id) AS moved ON true
LEFT JOIN LATERAL (
    SELECT coalesce(sum(units), 0) AS units FROM allotments
    WHERE allotments.sku = level.sku AND allotments.warehouse_id = level.warehouse_id) AS allotment ON true
WHERE (on_hand, allotted, allotted) IS DISTINCT FROM (on_hand_sum, allotted_sum, units)
"""


@dataclass
class StockShop:
    """A shop with the warehouses `hz` and `sh`."""

    shop: CliServices
    stock: WarehouseStock

    async def fetch_rows(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def receive(self, sku: str, warehouse_id: str, units: int) -> None:
        await self.stock.record(sku, warehouse_id, MovementInput("received", units, "delivered"), "test")

    async def level(self, sku: str, warehouse_id: str) -> tuple[int, int]:
        """Return the units on hand, and the allotted ones of them."""
        [level] = (await self.stock.list_levels(None, 10, sku, warehouse_id)).items
        assert isinstance(level, StockLevel)
        return level.on_hand, level.allotted

    async def check(self) -> None:
        """Check that movements, stocks and allotments add up."""
        assert await self.fetch_rows(_WRONG_LEVELS) == []


@asynccontextmanager
async def open_stock_shop(
    shop: CliServices, *, adds_warehouses: bool = True, checks: bool = True
) -> AsyncIterator[StockShop]:
    """Open a shop whose stocks must add up in the end, unless a test breaks them."""
    async with shop.db.connection() as connection:
        for id_, city in (("hz", "Hangzhou"), ("sh", "Shanghai")) if adds_warehouses else ():
            address = {**ADDRESS, "city": city, "province": "Zhejiang" if id_ == "hz" else "Shanghai"}
            await connection.execute(
                "INSERT INTO warehouses VALUES ($1, $2, $3, 30.25, 120.16)",
                *(id_, f"Warehouse {id_}", msgspec.json.encode(address).decode()),
            )
    opened = StockShop(shop, WarehouseStock(shop.db, shop.clock, IdGenerator(shop.clock)))
    yield opened
    if checks:
        await opened.check()
