"""Worklists of staff, their lengths, and fulfilment times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fulfilment import store
from commerce.fulfilment.errors import NoCarrierChoice
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.rates.model import CarrierChoice
from commerce.shipping import shipment_tasks
from commerce.shipping import store as shipments
from commerce.shipping.model import Shipment, ShipmentJob, UnplannedOrder, WorklistItem, WorklistName
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ShipmentLine

_FIRST_ID = UUID(int=0)
_MAX_UNPLANNED = 500


class Worklists:
    """Reads over Postgres that show what staff must do. Calls no carrier."""

    def __init__(self, db: Database, clock: Clock, policy: ShippingPolicy) -> None:
        self._db = db
        self._clock = clock
        self._policy = policy

    async def list_worklist(
        self, worklist: WorklistName, warehouse_id: str | None, after: UUID | None, size: int
    ) -> Page[WorklistItem]:
        """List a page of a worklist, oldest first, of one warehouse or of all."""
        policy = self._policy
        async with self._db.connection() as connection:
            rows = await store.list_worklist(
                *(connection, worklist, warehouse_id, after or _FIRST_ID, size + 1, self._now(), self._today()),
                *(policy.stalled_after_s, policy.no_first_scan_after_s),
            )
            ids = [shipment.shipment_id for shipment, _ in rows]
            lines = await shipments.list_shipment_lines(connection, ids)
            jobs = await shipment_tasks.list_jobs(connection, ids)
        items = [
            _make_item(shipment, lines[shipment.shipment_id], jobs.get(shipment.shipment_id), reason)
            for shipment, reason in rows
        ]
        return to_page(items, size, lambda item: str(item.shipment.shipment_id))

    async def count_worklists(self) -> dict[str, int]:
        """Count each worklist, and the orders that cannot be planned (`unplanned`)."""
        policy = self._policy
        async with self._db.connection() as connection:
            return await store.count_worklists(
                connection, self._now(), self._today(), policy.stalled_after_s, policy.no_first_scan_after_s
            )

    async def count_open_shipments(self) -> dict[tuple[str, str], int]:
        """Count shipments that have not ended, by (carrier, status)."""
        async with self._db.connection() as connection:
            return await store.count_open_shipments(connection)

    async def measure_fulfilment_times(self) -> dict[str, list[float]]:
        """Measure the seconds from paid to `handed_over` and to `delivered` over the last day.

        Values are the percentiles 50, 90 and 99. A key is missing if no order reached that point.
        """
        async with self._db.connection() as connection:
            return await store.measure_fulfilment_times(connection, self._now())

    async def list_unplanned_orders(self) -> list[UnplannedOrder]:
        """List paid orders that cannot be planned into shipments, with the reason and what to do."""
        async with self._db.connection() as connection:
            return await store.list_unplanned_orders(connection, _MAX_UNPLANNED)

    async def explain_carrier_choice(self, shipment_id: UUID) -> CarrierChoice:
        """Return the recorded reasons for a shipment's carrier.

        Raises `NoCarrierChoice` if the shipment does not exist or no rate table was consulted for it.
        """
        async with self._db.connection() as connection:
            choice = await store.get_carrier_choice(connection, shipment_id)
        if choice is None:
            raise NoCarrierChoice(f"there is no shipment {shipment_id}, or no carrier was chosen for it yet")
        return choice

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    def _today(self) -> date:
        return self._now().astimezone(ZoneInfo(self._policy.timezone)).date()


def _make_item(
    shipment: Shipment, lines: Sequence[ShipmentLine], job: ShipmentJob | None, reason: str | None
) -> WorklistItem:
    if reason is None and job is not None:
        reason = job.last_error
    return WorklistItem(shipment, shipments.make_line_views(lines), job, reason)
