"""Cancels orders that were not paid in time and applies releases to Redis."""

from __future__ import annotations

from workers.loop import run_steps
from workers.runtime import WorkerServices


async def release_worker(services: WorkerServices) -> None:
    """Expire orders first: this inserts the releases that are applied next."""

    async def step() -> int:
        expired = await services.reservations.expire_unpaid_orders()
        return expired + await services.reservations.apply_due_releases()

    await run_steps("release_worker", step, services.stop, services.settings.jobs.poll_ms / 1000)
