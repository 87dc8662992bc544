"""Finishes what was begun with a sale and not brought to Redis: loads, new terms, stock changes."""

from __future__ import annotations

import logging

from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_LOOK_S = 1.0


async def sale_sync(shop: WorkerServices) -> None:
    """Whoever changes a sale tells Redis at once; this is for those that died before they could."""

    async def step() -> int:
        for sale in await shop.sales.list_out_of_sync():
            done = await shop.sales.sync_to_redis(sale.sale_id)
            _logger.info("a sale was unfinished", extra={"sale": sale.sale_id, "finished": done})
        return await shop.stock.apply_due_changes()

    await run_steps("sale_sync", step, shop.stop, _LOOK_S)
