"""Scores the customers of running sales. Several may run."""

from __future__ import annotations

import logging
from datetime import timedelta

from commerce.kernel.failures import Failures
from commerce.screening.model import SignalLimits
from commerce.screening.screener import Screener
from config.screening import ScreeningSettings
from workers.loop import run_steps, wait_or_stop
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5


async def screening_worker(services: WorkerServices) -> None:
    """Take one step of each kind at a time, if screening is enabled."""
    settings, clock = services.settings.screening, services.clock
    if not settings.enabled:
        await services.stop.wait()
        return
    limits, retention = make_signal_limits(settings), timedelta(days=services.settings.retention.screening_days)
    screener = Screener(services.db, services.redis, clock, limits, settings.rows_per_step, retention)

    async def fold_orders() -> int:
        return await screener.fold_orders([sale.sale_id for sale in await services.sales.list_opened()])

    steps = {
        "sales": screener.add_sales,
        "sightings": screener.fold_sightings,
        "orders": fold_orders,
        "scores": screener.rescore,
    }

    async def step() -> int:
        failures = Failures("screen", _logger)
        counts = []
        for jobs, take_step in steps.items():
            with failures.catch(jobs=jobs):
                counts.append(await take_step())
        failures.raise_any()
        if max(counts) < settings.rows_per_step:  # not at once: there is always a new order while a sale runs
            await wait_or_stop(services.stop, _POLL_INTERVAL_S)
        return sum(counts)

    await run_steps("screening_worker", step, services.stop, 0)


def make_signal_limits(settings: ScreeningSettings) -> SignalLimits:
    """Return the limits of signals in the settings."""
    return SignalLimits(*(getattr(settings, name) for name in SignalLimits._fields))
