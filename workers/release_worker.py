"""Cancels orders that were not paid in time and applies releases to Redis."""

from __future__ import annotations

import asyncio

from commerce.reservations.service import RELEASES
from workers import metrics
from workers.loop import run_steps
from workers.runtime import WorkerServices


async def release_worker(services: WorkerServices) -> None:
    """Expire orders and, at the same time, apply the releases of each batch."""
    reservations, poll_s = services.reservations, services.settings.jobs.poll_ms / 1000
    reservations.jobs.count_results = metrics.count_results
    due = services.due_jobs.event(RELEASES)
    await asyncio.gather(
        run_steps("release_worker", reservations.expire_unpaid_orders, services.stop, poll_s),
        run_steps("release_worker", reservations.apply_due_releases, services.stop, poll_s, due),
    )
