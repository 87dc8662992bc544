"""Lets orders that were not paid expire, and gives back what is to be given back."""

from __future__ import annotations

from workers.driver import drive
from workers.runtime import Workshop


async def release_driver(shop: Workshop) -> None:
    """Expired orders first: they make the releases that are applied next."""

    async def step() -> int:
        return await shop.releases.expire() + await shop.releases.apply()

    await drive("release", step, shop.stop, shop.settings.driver.poll_ms / 1000)
