"""Keeps the gauges: how much waits, how old it is, what was given up."""

from __future__ import annotations

import lua
from lua import SaleKeys
from workers import metrics
from workers.driver import drive
from workers.runtime import Workshop


async def observer(shop: Workshop) -> None:
    """Look at all sales that were opened, and at the jobs."""

    async def step() -> int:
        for sale in await shop.sales.opened():
            waiting = await lua.backlog(shop.redis, SaleKeys(sale.sale_id))
            age_ms = 0 if waiting.oldest_ms is None else max(0, shop.clock.now_ms() - waiting.oldest_ms)
            metrics.BACKLOG_ORDERS.labels(sale.sale_id).set(waiting.orders)
            metrics.BACKLOG_AGE.labels(sale.sale_id).set(age_ms / 1000)
        counts = await shop.audit.counts()
        metrics.DEAD_LETTERS.set(counts["dead_letters"])
        metrics.PARKED.labels("release").set(counts["parked_releases"])
        metrics.PARKED.labels("stock_change").set(counts["parked_stock_changes"])
        metrics.PENDING_RELEASES.set(counts["pending_releases"])
        metrics.OLDEST_RELEASE.set(counts["oldest_release_s"])
        return 0

    await drive("observer", step, shop.stop, shop.settings.observer.gauges_every_s)
