"""Events of return shipments that say what staff did with their jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from commerce.jobs.staff_jobs import Action, SubjectHistory
from commerce.kernel.postgres import Connection
from commerce.return_shipments import store
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS
from commerce.return_shipments.return_tracking import NewReturnEvent
from commerce.shipping.job_history import ShipmentJobHistory
from commerce.shipping.shipment_tasks import SHIPMENTS

_TEXTS: dict[Action, str] = {"retried": "retried", "cancelled": "it is no longer polled"}


class ReturnShipmentJobHistory:
    """Records what staff do with jobs of return shipments in the shipments' events."""

    async def lock(self, connection: Connection, subjects: Sequence[UUID]) -> None:
        """Lock the orders of return shipments, as everything does that adds events."""
        await store.lock_orders_of_shipments(connection, subjects)

    async def record(
        self, connection: Connection, subjects: Sequence[UUID], action: Action, actor: str, now: datetime
    ) -> None:
        """Add an event to each of the shipments that there are."""
        for return_shipment_id in await store.list_orders_of_shipments(connection, subjects):
            event = NewReturnEvent(now, "staff", actor, _TEXTS[action])
            await store.insert_events(connection, return_shipment_id, [event], now)


JOB_HISTORIES: Mapping[str, SubjectHistory] = {
    SHIPMENTS: ShipmentJobHistory(),
    RETURN_SHIPMENTS: ReturnShipmentJobHistory(),
}
"""histories by queue, of subjects that carriers transport"""
