"""Events of shipments that say what staff did with their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from commerce.jobs.staff_jobs import Action
from commerce.kernel.postgres import Connection
from commerce.shipping import store
from commerce.shipping.records import NewHistory, NewShipmentEvent

_EVENTS: dict[Action, tuple[str, str | None]] = {
    "retried": ("retried", None),
    "cancelled": ("it is no longer polled", "poll_cancelled"),  # only polls can be cancelled; the audit knows the code
}
"""text and code by action"""


class ShipmentJobHistory:
    """Records what staff do with jobs of shipments in the shipments' events."""

    async def lock(self, connection: Connection, subjects: Sequence[UUID]) -> None:
        """Lock the orders of shipments, as everything does that adds events."""
        await store.lock_orders_of_shipments(connection, subjects)

    async def record(
        self, connection: Connection, subjects: Sequence[UUID], action: Action, actor: str, now: datetime
    ) -> None:
        """Add an event to each of the shipments that there are."""
        text, code = _EVENTS[action]
        event = NewShipmentEvent(now, "staff", actor, text, code=code)
        order_ids = await store.list_orders_of_shipments(connection, subjects)
        histories = [NewHistory(order_id, shipment_id, [event]) for shipment_id, order_id in order_ids.items()]
        await store.insert_events(connection, histories, now)
