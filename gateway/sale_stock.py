"""Services that change the stock of sales: stock changes and coupons."""

from __future__ import annotations

from dataclasses import dataclass

from redis.asyncio import Redis

from commerce.coupons.service import Coupons
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from config.settings import Settings
from gateway.auth import build_issued_codes


@dataclass(frozen=True, slots=True)
class SaleStock:
    """The services."""

    changes: StockChanges
    coupons: Coupons


def build_stock(
    settings: Settings, db: Database, redis: Redis, sales: Sales, ids: IdGenerator, clock: Clock
) -> SaleStock:
    """Build the services."""
    changes = StockChanges(db, redis, clock, RetryPolicy.from_settings(settings.jobs))
    return SaleStock(changes, Coupons(db, redis, sales, changes, ids, clock, build_issued_codes(settings.auth)))
