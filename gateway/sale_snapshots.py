"""Prices and limits of all opened sales, kept in this process's memory.

The sales are polled twice a second, and only changed ones are read again. While Postgres is unavailable the last
snapshots are used, however old (`floodgate_snapshot_age_seconds`). If an order was priced from a stale snapshot, Redis
answers so, the snapshot is refreshed and the order is priced again.
"""

from __future__ import annotations

import asyncio
import logging

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.connection_shares import use_share
from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.failures import Failures
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import SaleSnapshot
from commerce.sales.service import Sales
from gateway import metrics

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.5
_MAX_AGE_S = 5.0


class SaleSnapshots:
    """The snapshots of all sales that were opened."""

    def __init__(self, sales: Sales, clock: Clock) -> None:
        self._sales = sales
        self._clock = clock
        self._snapshots: dict[str, SaleSnapshot] = {}
        self._sorted_ids: list[str] = []
        self._sorted_skus: dict[str, list[str]] = {}
        self.version = 0
        """changes whenever a snapshot does"""
        self._ids_with_live_keys: list[str] = []
        self._unreadable_ids: set[str] = set()
        self._refreshed_at = float("-inf")
        self._failure: str | None = None
        self._refreshing: asyncio.Task[None] | None = None

    def sale_ids(self) -> list[str]:
        """Return the ids of all sales that were opened."""
        return list(self._snapshots)

    def ids_with_live_keys(self) -> list[str]:
        """Return the ids of sales whose keys may still be in Redis; those that ended days ago have none."""
        return self._ids_with_live_keys

    def cached(self, sale_id: str) -> SaleSnapshot | None:
        """Return the snapshot of a sale from memory, None if there is none."""
        return self._snapshots.get(sale_id)

    def find(self, sale_id: str) -> SaleSnapshot:
        """Return the snapshot of a sale from memory. Raises as `get` does, which may know a newer sale."""
        snapshot = self._snapshots.get(sale_id)
        if snapshot is None and sale_id in self._unreadable_ids:
            raise NotReady(f"cannot read the prices of {sale_id}; repeat the request")
        if snapshot is None:
            raise NoSuchSale(f"there is no sale {sale_id!r}")
        return snapshot

    def sorted_ids(self) -> list[str]:
        """Return the ids of all sales that were opened, sorted."""
        if len(self._sorted_ids) != len(self._snapshots):  # none is ever removed
            self._sorted_ids = sorted(self._snapshots)
        return self._sorted_ids

    def sorted_skus(self, snapshot: SaleSnapshot) -> list[str]:
        """Return the SKUs of a sale, sorted."""
        skus = self._sorted_skus.get(snapshot.sale.sale_id, [])
        if len(skus) != len(snapshot.items):  # none is ever removed
            skus = self._sorted_skus[snapshot.sale.sale_id] = sorted(snapshot.items)
        return skus

    async def get(self, sale_id: str) -> SaleSnapshot:
        """Return the snapshot of a sale. Raises `NoSuchSale`, or `NotReady` if the sale cannot be read.

        A sale that is not in memory may have been opened just now, so this refreshes once. Callers share a refresh.
        """
        if sale_id not in self._snapshots:
            await self.refresh()
        return self.find(sale_id)

    async def refresh(self) -> None:
        """Read the sales now. Callers during a running refresh wait for the next one and share it.

        Raises `NotReady` if Postgres does not answer.
        """
        running = self._refreshing
        if running is not None and not running.done():
            await asyncio.wait([running])
        if self._refreshing is running:
            with use_share("background"):  # whoever asked first, others wait for it too
                self._refreshing = asyncio.create_task(self._refresh())
            # If the last waiter is cancelled, as when a start fails, the error is nobody's and need not be logged.
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        assert self._refreshing is not None
        try:
            await asyncio.shield(self._refreshing)
        except POSTGRES_UNAVAILABLE as error:
            raise NotReady(f"cannot read prices: {type(error).__name__} of the database; repeat the request") from error

    async def _refresh(self) -> None:
        now = from_ms(self._clock.now_ms())
        sales = await self._sales.list_opened()
        ids_with_live_keys, unreadable_ids = [], set()
        failures = Failures("read a sale", _logger)
        for sale in sales:
            with failures.catch(sale_id=sale.sale_id):
                snapshot = self._snapshots.get(sale.sale_id)
                unreadable_ids.add(sale.sale_id)
                if snapshot is None or snapshot.sale.generation != sale.generation:
                    self._snapshots[sale.sale_id] = await self._sales.read_snapshot(sale, snapshot)
                    self.version += 1
                unreadable_ids.discard(sale.sale_id)
                if sale.has_live_keys(now):
                    ids_with_live_keys.append(sale.sale_id)
        self._ids_with_live_keys, self._unreadable_ids = ids_with_live_keys, unreadable_ids
        metrics.SNAPSHOT_FAILURES.inc(failures.count)
        self._refreshed_at = self._clock.monotonic()

    def unavailable_reason(self) -> str | None:
        """Return the reason why the sales cannot be read now, None if they can. Orders use memory regardless."""
        age_s = self._clock.monotonic() - self._refreshed_at
        if self._failure is None and age_s > _MAX_AGE_S:
            return f"no answer for {age_s:.0f} s"
        return self._failure

    async def refresh_forever(self) -> None:
        """Refresh until cancelled, also through outages of the database."""
        while True:
            try:
                await self.refresh()
                self._failure = None
            except ProblemError as error:
                self._failure = error.detail
                _logger.warning("cannot read the sales", extra={"reason": error.detail})
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                self._failure = f"cannot read the sales: {type(error).__name__}"  # anybody may ask for it
                log_failure(_logger, "cannot read the sales", error)
            metrics.SNAPSHOT_AGE.set(self._clock.monotonic() - self._refreshed_at)
            await self._clock.sleep(_POLL_INTERVAL_S)
