"""What this process knows of the sales: prices and limits by SKU.

The sales are looked at twice a second, and only what has changed is read; while Postgres is away what was known last is
gone by, however old (`floodgate_snapshot_age_seconds`). Should an order be priced from a snapshot that has gone stale,
Redis says so, the snapshot is renewed and the order priced again.
"""

from __future__ import annotations

import asyncio
import logging

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE, safe_error_text
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import SaleSnapshot
from commerce.sales.service import Sales
from gateway import metrics

_logger = logging.getLogger(__name__)
_EVERY_S = 0.5
_OLD_S = 5.0


class SaleSnapshots:
    """All sales that were opened."""

    def __init__(self, sales: Sales, clock: Clock) -> None:
        self._sales = sales
        self._clock = clock
        self._known: dict[str, SaleSnapshot] = {}
        self._with_keys: list[str] = []
        self._looked_at = float("-inf")
        self._failure: str | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def loaded(self) -> list[str]:
        """The ids of all sales that were opened."""
        return list(self._known)

    def ids_with_live_keys(self) -> list[str]:
        """Those of them in which an order's key may still be found: not the ones that ended days ago."""
        return self._with_keys

    def cached(self, sale_id: str) -> SaleSnapshot | None:
        """The snapshot of a sale that is in memory."""
        return self._known.get(sale_id)

    async def get(self, sale_id: str) -> SaleSnapshot:
        """The snapshot of a sale, or `NoSuchSale`.

        One that is not known may have been opened this moment, so it is looked for once; all who ask share one look.
        """
        snapshot = self._known.get(sale_id)
        if snapshot is None:
            await self.refresh()
            snapshot = self._known.get(sale_id)
        if snapshot is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return snapshot

    async def refresh(self) -> None:
        """Look at the sales now. All who ask while a look is under way wait for the one after it, which is shared."""
        running = self._refreshing
        if running is not None and not running.done():
            await asyncio.wait([running])
        if self._refreshing is running:
            self._refreshing = asyncio.create_task(self._refresh())
        assert self._refreshing is not None
        try:
            await asyncio.shield(self._refreshing)
        except POSTGRES_UNAVAILABLE as error:
            raise NotReady("the database does not answer, so prices are not known; repeat the request") from error

    async def _refresh(self) -> None:
        now = from_ms(self._clock.now_ms())
        sales = await self._sales.list_opened()
        self._with_keys = [sale.sale_id for sale in sales if sale.has_live_keys(now)]
        for sale in sales:
            known = self._known.get(sale.sale_id)
            if known is None or known.sale.generation != sale.generation:
                self._known[sale.sale_id] = await self._sales.read_snapshot(sale, known)
        self._looked_at = self._clock.monotonic()

    def unavailable_reason(self) -> str | None:
        """Why the sales cannot be looked at now; None if they can. They are sold from memory all the same."""
        age_s = self._clock.monotonic() - self._looked_at
        if self._failure is None and age_s > _OLD_S:
            return f"no answer for {age_s:.0f} s"
        return self._failure

    async def refresh_forever(self) -> None:
        """Keep up to date until cancelled; a database that is away is waited for."""
        while True:
            try:
                await self.refresh()
                self._failure = None
            except ProblemError as error:
                self._failure = error.detail
                _logger.warning("the sales cannot be looked at", extra={"why": error.detail})
            except Exception as error:
                self._failure = safe_error_text(error)
                _logger.exception("the sales cannot be looked at")
            metrics.SNAPSHOT_AGE.set(self._clock.monotonic() - self._looked_at)
            await self._clock.sleep(_EVERY_S)
