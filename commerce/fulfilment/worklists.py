"""What there is to do at the shipping desk: its lists, how long they are, and how long orders take."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fulfilment import store
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.shipping import store as shipments
from commerce.shipping.model import UnplannedOrder, WorklistItem, WorklistName
from commerce.shipping.policy import ShippingPolicy

_FIRST = UUID(int=0)
_MOST_UNPLANNED = 500


class Worklists:
    """The desk's lists over Postgres."""

    def __init__(self, db: Database, clock: Clock, rules: ShippingPolicy) -> None:
        self._db = db
        self._clock = clock
        self._rules = rules

    async def list_worklist(
        self, which: WorklistName, warehouse_id: str | None, after: UUID | None, size: int
    ) -> Page[WorklistItem]:
        """What there is to do, oldest first."""
        now = self._now()
        today = now.astimezone(ZoneInfo(self._rules.timezone)).date()
        async with self._db.connection() as connection:
            found = await store.listed(
                *(connection, which, warehouse_id, after or _FIRST, size + 1, now, today),
                *(self._rules.stalled_after_s, self._rules.no_first_scan_after_s),
            )
            lines = await shipments.lines_of(connection, [shipment.shipment_id for shipment, _ in found])
        items = [WorklistItem(one, shipments.shown(lines[one.shipment_id]), why) for one, why in found]
        return to_page(items, size, lambda item: str(item.shipment.shipment_id))

    async def count_worklists(self) -> dict[str, float]:
        """How long each list is, and for how long the oldest jobs have been due."""
        now = self._now()
        today = now.astimezone(ZoneInfo(self._rules.timezone)).date()
        async with self._db.connection() as connection:
            return await store.counts(
                connection, now, today, self._rules.stalled_after_s, self._rules.no_first_scan_after_s
            )

    async def count_open_shipments(self) -> dict[tuple[str, str], int]:
        """(carrier, status) → parcels that are not over."""
        async with self._db.connection() as connection:
            return await store.by_carrier(connection)

    async def measure_fulfilment_times(self) -> dict[str, list[float]]:
        """Seconds from paid to `handed_over` and to `delivered` in the last day: of 50, 90 and 99 in a hundred orders;
        without those of which there are none."""
        async with self._db.connection() as connection:
            return await store.times(connection, self._now())

    async def list_unplanned_orders(self) -> list[UnplannedOrder]:
        """Orders that cannot be made into parcels as things are, with what is to be done."""
        async with self._db.connection() as connection:
            return await store.unplanned(connection, _MOST_UNPLANNED)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
