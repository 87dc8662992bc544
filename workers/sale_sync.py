"""Applies loads, terms and stock changes to Redis that are committed in Postgres only."""

from __future__ import annotations

import logging

from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 1.0


async def sale_sync(services: WorkerServices) -> None:
    """Sync sales whose changes were not applied to Redis, because the process that made them died."""

    async def step() -> int:
        for sale in await services.sales.list_out_of_sync():
            completed = await services.sales.sync_to_redis(sale.sale_id)
            _logger.info("synced a sale to Redis", extra={"sale_id": sale.sale_id, "completed": completed})
        return await services.stock.apply_due_changes()

    await run_steps("sale_sync", step, services.stop, _POLL_INTERVAL_S)
