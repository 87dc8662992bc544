"""The one place that changes a return shipment's status.

Call inside a transaction that holds the order lock. Webhooks, polls, workers, staff and customers all lock the order
first; what tracking events change is decided in `tracking`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.store import StoryEvent
from commerce.return_shipments import store
from commerce.return_shipments.errors import NoSuchReturnShipment
from commerce.return_shipments.model import ENDED_STATUSES, EventSource, ReturnShipment, ReturnStatus
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS
from commerce.return_shipments.return_tracking import NewReturnEvent, decide_events
from commerce.shipping.carrier_port import BookingConfirmation, TrackingEvent
from commerce.shipping.tracking import TrackingResult

ACTOR = "fulfilment_worker"
_STORY = {
    ReturnStatus.BOOKED: "your return is announced to {carrier} as {tracking_no}",
    ReturnStatus.PICKED_UP: "{carrier} has your return",
    ReturnStatus.DELIVERED: "your return has arrived at our warehouse",
    ReturnStatus.LOST: "{carrier} has lost your return",
    ReturnStatus.CANCELLED: "your return is not on its way any more: {text}",
}
"""texts in the story of an order by status"""


class CaseHook(Protocol):
    """Lets the case of a return shipment follow it.

    Is called inside the transaction that holds the order lock, once for the last of the steps that came together."""

    async def __call__(
        self, connection: Connection, shipment: ReturnShipment, status: ReturnStatus, now: datetime
    ) -> None: ...


async def ignore_case(connection: Connection, shipment: ReturnShipment, status: ReturnStatus, now: datetime) -> None:
    """Let no case follow: for shipments whose case is none of the caller's business."""


async def lock_return(connection: Connection, return_shipment_id: UUID) -> ReturnShipment:
    """Lock the order of a return shipment and read the shipment. Raises `NoSuchReturnShipment`."""
    order_id = (await store.list_orders_of_shipments(connection, [return_shipment_id])).get(return_shipment_id)
    order = await orders.lock_order(connection, order_id) if order_id else None
    # The shipment may have changed while this transaction waited for the lock.
    shipment = await store.get_shipment(connection, return_shipment_id)
    if shipment is None or order is None:
        raise NoSuchReturnShipment(f"there is no return shipment {return_shipment_id}")
    return shipment


class ReturnSteps:
    """Records events of return shipments, and lets jobs, cases and stories follow their steps."""

    def __init__(self, on_step: CaseHook) -> None:
        self._on_step = on_step

    async def record_step(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        to: ReturnStatus,
        now: datetime,
        source: EventSource,
        actor: str,
        text: str,
    ) -> None:
        """Advance a shipment by a step that no carrier reports."""
        await self._insert(connection, shipment, [NewReturnEvent(now, source, actor, text, (shipment.status, to))], now)

    async def record_note(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        now: datetime,
        source: EventSource,
        actor: str,
        text: str,
    ) -> None:
        """Store an event that leaves the status unchanged."""
        await self._insert(connection, shipment, [NewReturnEvent(now, source, actor, text)], now)

    async def record_booking(
        self, connection: Connection, shipment: ReturnShipment, confirmation: BookingConfirmation, now: datetime
    ) -> None:
        """Store a carrier's confirmation and advance the shipment to booked."""
        await store.confirm_booking(connection, shipment.return_shipment_id, confirmation, now)
        text = f"{shipment.carrier} collects it as {confirmation.tracking_no}"
        await self.record_step(connection, shipment, ReturnStatus.BOOKED, now, "system", ACTOR, text)

    async def apply_events(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        events: Mapping[bytes, TrackingEvent],
        source: EventSource,
        actor: str,
        now: datetime,
    ) -> TrackingResult:
        """Store events that a carrier reports, by their keys, and advance the status.

        An event that is stored already changes nothing."""
        known_keys = await store.list_known_keys(connection, shipment.return_shipment_id, events.keys())
        rows = decide_events(shipment, events, known_keys, source, actor)
        if not rows:
            return TrackingResult("unchanged")
        # A carrier's clock that runs ahead must not hide that nothing is reported any more.
        last_event_at = min(now, max(row.at for row in rows))
        await self._insert(connection, shipment, rows, now, last_event_at)
        return TrackingResult(
            "status_changed" if any(row.step for row in rows) else "recorded",
            sum(row.is_unknown_code for row in rows),
        )

    async def _insert(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        rows: Sequence[NewReturnEvent],
        now: datetime,
        last_event_at: datetime | None = None,
    ) -> None:
        await store.insert_events(connection, shipment.return_shipment_id, rows, now, last_event_at)
        steps = [(row.step[1], row.text) for row in rows if row.step]
        if not steps:
            return
        current = await store.get_shipment(connection, shipment.return_shipment_id)
        assert current is not None
        if current.status in ENDED_STATUSES:
            await jobs.remove(connection, RETURN_SHIPMENTS, [shipment.return_shipment_id])
        story = [_make_story(current, to, text) for to, text in steps if to in _STORY]
        await orders.insert_story_events(connection, story, now, rows[-1].actor)
        await self._on_step(connection, current, current.status, now)


def _make_story(shipment: ReturnShipment, to: ReturnStatus, text: str) -> StoryEvent:
    reason = _STORY[to].format(carrier=shipment.carrier or "the carrier", tracking_no=shipment.tracking_no, text=text)
    details = {
        "case_id": str(shipment.case_id),
        "return_shipment_id": str(shipment.return_shipment_id),
        "status": str(to),
    }
    return StoryEvent(shipment.order_id, "case", reason[:500], details)
