"""Applies to Redis what is in Postgres only, adopts sales on a new Redis, sets planned prices."""

from __future__ import annotations

import logging

from commerce.catalog.prices import PLANNED_PRICES, PriceJobs
from commerce.kernel.failures import Failures
from commerce.kernel.jobs import RetryPolicy
from commerce.sales.server_adoption import ServerAdoption
from commerce.sales.stock_changes import STOCK_CHANGES
from commerce.sales.unsold_units import UnsoldUnits
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 1.0
_TAKE_BACK_INTERVAL_S = 10.0


async def sale_sync(services: WorkerServices) -> None:
    """Sync sales whose changes were not applied to Redis, because the process that made them died.

    A list price that is set at its time reaches Redis in the same step."""

    services.stock.jobs.count_results = metrics.count_results
    settings = services.settings.jobs
    prices = PriceJobs(services.db, services.clock, RetryPolicy.from_settings(settings), settings.max_attempts).queue
    prices.count_results = metrics.count_results
    adoption = ServerAdoption(services.db, services.redis, services.clock)
    unsold = UnsoldUnits(services.db, services.sales, services.stock, services.clock)
    take_back_at_s = 0.0

    async def step() -> int:
        nonlocal take_back_at_s
        failures = Failures("sync to Redis", _logger)
        changes = 0
        with failures.catch(jobs="stock_changes"):
            changes = await services.stock.apply_due_changes()
        with failures.catch(jobs="planned_prices"):
            changes += await prices.work_due()
        with failures.catch(jobs="adoptions"):  # gateways do it, too, but a shop without one pays and ships on
            opened = await services.sales.list_opened()
            await adoption.adopt_sales([sale.sale_id for sale in opened], {})
        for sale in await services.sales.list_out_of_sync():
            with failures.catch(sale_id=sale.sale_id):
                completed = await services.sales.sync_to_redis(sale.sale_id)
                _logger.info("synced a sale to Redis", extra={"sale_id": sale.sale_id, "completed": completed})
        if services.clock.monotonic() >= take_back_at_s:
            take_back_at_s = services.clock.monotonic() + _TAKE_BACK_INTERVAL_S
            with failures.catch(jobs="unsold_units"):
                if units := await unsold.take_back():
                    _logger.info("took unsold units back to warehouses", extra={"units": units})
        failures.raise_any()
        return changes

    await run_steps(
        "sale_sync", step, services.stop, _POLL_INTERVAL_S, services.due_jobs.event(STOCK_CHANGES, PLANNED_PRICES)
    )
