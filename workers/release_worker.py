"""Cancels orders that were not paid in time and applies releases to Redis."""

from __future__ import annotations

import logging

from commerce.kernel.failures import Failures
from workers.loop import run_steps
from workers.runtime import WorkerServices

_logger = logging.getLogger(__name__)


async def release_worker(services: WorkerServices) -> None:
    """Expire orders first: this inserts the releases that are applied next."""

    async def step() -> int:
        failures = Failures("expire orders and release stock", _logger)
        expired = 0
        with failures.catch(jobs="orders"):
            expired = await services.reservations.expire_unpaid_orders()
        applied = await services.reservations.apply_due_releases()
        failures.raise_any()
        return expired + applied

    await run_steps("release_worker", step, services.stop, services.settings.jobs.poll_ms / 1000)
