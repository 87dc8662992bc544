"""The wait-lists in this process's memory: their public pages, and their settings for those who join.

They are polled twice a second while there are any, else once. While Postgres is unavailable the last state is shown.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.outages import log_failure
from commerce.sales.errors import SaleNotOpen
from commerce.wait_lists.errors import NoWaitList, WaitListEnded
from commerce.wait_lists.model import WaitList
from commerce.wait_lists.service import WaitLists, to_public_wait_list
from gateway import metrics
from gateway.cached_content import Content, encode_content

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S, _IDLE_INTERVAL_S = 0.5, 1.0
_CACHE_CONTROL = "public, max-age=1"
_STALLED_AFTER = timedelta(seconds=30)


class WaitListStatus:
    """The wait-lists of sales that are open, paused or closed lately."""

    def __init__(self, wait_lists: WaitLists, clock: Clock) -> None:
        self._wait_lists = wait_lists
        self._clock = clock
        self._by_sale: dict[str, WaitList] = {}
        self.pages: dict[bytes, Content] = {}
        """public pages by the target of a GET request"""

    def find(self, sale_id: str) -> WaitList:
        """Return the wait-list of a sale. Raises `NoWaitList`."""
        wait_list = self._by_sale.get(sale_id)
        if wait_list is None:
            raise _no_wait_list(sale_id)
        return wait_list

    def find_open(self, sale_id: str) -> WaitList:
        """Return a wait-list that people may join. Raises `NoWaitList`, `SaleNotOpen` or `WaitListEnded`."""
        wait_list, now = self.find(sale_id), from_ms(self._clock.now_ms())
        if wait_list.is_ending(now):
            raise WaitListEnded("the wait-list is off, or the sale is over: nobody waits any more")
        if now < wait_list.opens_at:
            text = wait_list.opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            raise SaleNotOpen(f"{sale_id} opens at {text}; nobody waits before", opens_at=text)
        return wait_list

    def page(self, sale_id: str) -> Content:
        """Return the public page of a wait-list. Raises `NoWaitList`."""
        content = self.pages.get(_target(sale_id))
        if content is None:
            raise _no_wait_list(sale_id)
        return content

    async def refresh(self) -> None:
        """Read the wait-lists now."""
        by_sale = {wait_list.sale_id: wait_list for wait_list in await self._wait_lists.list_kept()}
        now = from_ms(self._clock.now_ms())
        self.pages = {
            _target(sale_id): encode_content(to_public_wait_list(wait_list, now), _CACHE_CONTROL)
            for sale_id, wait_list in by_sale.items()
        }
        for sale_id in self._by_sale.keys() - by_sale.keys():
            for gauge in (metrics.WAIT_LIST_WAITING, metrics.WAIT_LIST_OFFERED_UNITS, metrics.WAIT_LIST_STALLED):
                gauge.labels(sale_id).set(0)
        self._by_sale = by_sale
        for sale_id, wait_list in by_sale.items():
            runs = not wait_list.is_ending(now) and wait_list.sale_state == "open" and wait_list.opens_at <= now
            last = max(wait_list.opens_at, wait_list.ran_at or wait_list.opens_at)
            metrics.WAIT_LIST_WAITING.labels(sale_id).set(wait_list.waiting)
            metrics.WAIT_LIST_OFFERED_UNITS.labels(sale_id).set(sum(sku.offered_units for sku in wait_list.skus))
            metrics.WAIT_LIST_STALLED.labels(sale_id).set(int(runs and now - last > _STALLED_AFTER))

    async def refresh_forever(self) -> None:
        """Refresh until cancelled, also through outages of the database."""
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot read the wait-lists", error)
            await self._clock.sleep(_POLL_INTERVAL_S if self._by_sale else _IDLE_INTERVAL_S)


def _target(sale_id: str) -> bytes:
    return f"/v1/sales/{sale_id}/wait-list".encode()


def _no_wait_list(sale_id: str) -> NoWaitList:
    return NoWaitList(f"the sale {sale_id!r} has no wait-list")
