"""Views, new cart lines and refusals of what is sold out, on their way from this process to Postgres.

Each costs an entry of a dictionary, refusals that many get at once cost one for all of them, and other orders nothing.
Every two seconds the counts are stored in one row. The memory is bounded: what is counted when it is full is in no
report. A process that is killed loses two seconds, and counts whose storing has an unknown outcome are lost rather than
stored twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.coupon_skus import is_coupon_sku
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Database
from commerce.sales_figures import visits
from commerce.sales_figures.model import NO_SALE, WHOLE_SALE, Visit
from gateway import metrics

_logger = logging.getLogger(__name__)
VARIANT_ROUTE, OFFERS_ROUTE = "/v1/variants/{sku}", "/v1/sales/{sale_id}/offers"
_VARIANT_START, _SALE_START = len("/v1/variants/"), len("/v1/sales/")
_INTERVAL_S, _LAST_EXPORT_TIMEOUT_S = 2.0, 2.0
_MAX_KEYS = 10_000


class VisitCounts:
    """The visits of this process since they were last stored."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Visit, str, str], int] = {}
        self._dropped = 0

    def note_read(self, route: str, path: str) -> None:
        """Count a page that was read, if it is one of a variant, or the first one of the offers of a sale."""
        if route == VARIANT_ROUTE:
            self.note_variant(path[_VARIANT_START:])
        elif route == OFFERS_ROUTE and path.endswith("/offers"):
            self.note_offers(path[_SALE_START : -len("/offers")])

    def note_variant(self, sku: str) -> None:
        """Count a view of a variant's page."""
        self._note(("viewed", NO_SALE, sku))

    def note_offers(self, sale_id: str) -> None:
        """Count a view of the offers of a sale."""
        self._note(("viewed", sale_id, WHOLE_SALE))

    def note_cart_line(self, sale_id: str, sku: str) -> None:
        """Count a line that was put into a cart."""
        self._note(("carted", sale_id, sku))
        self._note(("carted", sale_id, WHOLE_SALE))

    def note_sold_out(self, sale_id: str, sku: str, orders: int = 1) -> None:
        """Count orders that were refused because too few units of a SKU are left. Coupons are none."""
        if not is_coupon_sku(sku):
            self._note(("sold_out", sale_id, sku), orders)
            self._note(("sold_out", sale_id, WHOLE_SALE), orders)

    def _note(self, key: tuple[Visit, str, str], times: int = 1) -> None:
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= _MAX_KEYS:
                self._dropped += times
                return
            count = 0
        self._counts[key] = count + times

    async def export(self, db: Database, clock: Clock) -> int:
        """Store the counts. Returns the number of keys. Raises the error of Postgres."""
        counts: Mapping[tuple[Visit, str, str], int] = self._counts
        dropped = self._dropped
        self._counts, self._dropped = {}, 0
        metrics.DROPPED_VISITS.inc(dropped)
        if counts:
            await visits.record(db, from_ms(clock.now_ms()), counts)
        return len(counts)

    async def export_forever(self, db: Database, clock: Clock) -> None:
        """Export every two seconds until cancelled, also through outages of the database."""
        while True:
            await clock.sleep(_INTERVAL_S)
            try:
                await self.export(db, clock)
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot store views and refusals", error)

    async def export_rest(self, db: Database, clock: Clock) -> None:
        """Export what is left before the process ends, if that goes fast."""
        with suppress(Exception):
            async with asyncio.timeout(_LAST_EXPORT_TIMEOUT_S):
                await self.export(db, clock)
