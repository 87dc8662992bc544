"""Lets orders that were not paid expire, and gives back what is to be given back."""

from __future__ import annotations

from workers.loop import run_steps
from workers.runtime import WorkerServices


async def release_worker(shop: WorkerServices) -> None:
    """Expired orders first: they make the releases that are applied next."""

    async def step() -> int:
        return await shop.reservations.expire_unpaid_orders() + await shop.reservations.apply_due_releases()

    await run_steps("release", step, shop.stop, shop.settings.jobs.poll_ms / 1000)
