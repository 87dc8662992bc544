"""Screened sales for tests: customers that gateways saw, and a screener that scores them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from commerce.kernel.clock import Clock
from commerce.screening.model import ScreenedUser
from commerce.screening.screener import Screener
from commerce.screening.service import Screening
from config.retention import RetentionSettings
from config.screening import ScreeningSettings
from gateway.request_origin import RequestOrigin
from gateway.screening_signals import ScreeningSignals
from ops.services import CliServices
from workers.screening_worker import make_signal_limits

JOIN_OPENED_MS = 0
"""long ago: nobody is too fast"""


@dataclass
class ScreenedShop:
    """A screener, and the signals of a gateway."""

    shop: CliServices
    screener: Screener
    screening: Screening
    signals: ScreeningSignals

    async def follow_sales(self) -> None:
        """Screen the running sales from now on."""
        await self.screener.add_sales()
        self.signals.set_sales(await self.screening.list_sales())

    async def note_joins(self, sale_id: str, customers: Iterable[tuple[str, RequestOrigin]]) -> None:
        """Let customers join, and store it as gateways do."""
        for user_id, origin in customers:
            self.signals.note_join(sale_id, user_id, origin, JOIN_OPENED_MS)
        while await self.signals.export():
            pass

    async def score(self) -> None:
        """Take steps until nothing is left to do."""
        while await self.screener.fold_sightings() + await self.screener.rescore():
            pass

    async def scores(self, sale_id: str) -> dict[str, ScreenedUser]:
        page = await self.screening.list_users(sale_id, None, 100_000)
        return {user.user_id: user for user in page.items}


def make_screened_shop(shop: CliServices, clock: Clock | None = None, **values: Any) -> ScreenedShop:
    """Build a screener with these settings, which need not be those of the shop."""
    settings = ScreeningSettings(enabled=True, **values)
    clock = clock or shop.clock
    retention = timedelta(days=RetentionSettings().screening_days)
    limits = make_signal_limits(settings)
    screener = Screener(shop.db, shop.redis, clock, limits, settings.rows_per_step, retention)
    screening = Screening(shop.db, clock)
    return ScreenedShop(shop, screener, screening, ScreeningSignals(screening, settings, clock))


def attackers(count: int, devices: int, form: int = 0xBAD) -> list[tuple[str, RequestOrigin]]:
    """Return accounts of one program behind one address, which share some devices."""
    return [
        (f"bot-{number:05}", RequestOrigin("203.0.113.9", f"device-{number % devices}", form))
        for number in range(count)
    ]


def colleagues(count: int, forms: int = 4) -> list[tuple[str, RequestOrigin]]:
    """Return people behind one address, each with a device of his own and one of the usual programs."""
    return [
        (f"colleague-{number:04}", RequestOrigin("198.51.100.7", f"phone-of-{number}", number % forms))
        for number in range(count)
    ]


def strangers(count: int, forms: int = 4) -> list[tuple[str, RequestOrigin]]:
    """Return people at home, two to an address, with the usual programs."""
    return [
        (f"stranger-{number:05}", RequestOrigin(f"2001:db8::{number // 2:x}", f"device-of-{number}", number % forms))
        for number in range(count)
    ]
