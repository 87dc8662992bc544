"""Jobs of booked shipments: subscribe to their tracking, poll it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from commerce.fulfilment.carrier_jobs import UNCHANGED, CarrierJobs, Work, is_followed
from commerce.jobs.model import NO_ANSWER, Job, JobHandler, JobResult, failed, postponed, written
from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.orders import store as orders
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import Carrier, TrackingEvent
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.shipment_tasks import Task


class TrackingJobs(CarrierJobs):
    """Follows shipments from their booking to their end. Webhooks bring most events, polls the rest."""

    def list_handlers(self, max_attempts: int) -> dict[str, JobHandler]:
        """Return the handlers of the kinds that subscribe and track."""
        works: dict[Task, Work] = {"shipment.subscribe": self._subscribe, "shipment.track": self._track}
        return self.make_handlers(works, max_attempts)

    async def _subscribe(self, job: Job) -> JobResult:
        shipment = await self._read(job)
        if shipment.held_reason is not None:
            return self._postpone_held()
        if not is_followed(shipment):
            return UNCHANGED
        assert shipment.tracking_no is not None
        carrier = self._booked_carrier(shipment)
        await carrier.subscribe(shipment.tracking_no, shipment.address.phone)
        return postponed("subscribed", self.next_poll_at(shipment), "shipment.track")

    async def _track(self, job: Job) -> JobResult:
        shipment = await self._read(job)
        if shipment.held_reason is not None:
            return self._postpone_held()
        if not is_followed(shipment):
            return UNCHANGED
        assert shipment.tracking_no is not None
        carrier = self._booked_carrier(shipment)
        if carrier.min_poll_interval_s and (poll_at := await self._begin_poll(shipment, carrier)):
            return postponed("waiting", poll_at)
        try:
            events = await carrier.fetch_tracking(shipment.tracking_no, shipment.address.phone)
        except ExternalOutcomeUnknown as error:
            pause = timedelta(seconds=carrier.min_poll_interval_s)
            return failed(NO_ANSWER, str(error), self._now() + pause)
        return await self._on_polled(shipment, carrier, events)

    async def _on_polled(self, polled: Shipment, carrier: Carrier, events: Sequence[TrackingEvent]) -> JobResult:
        """Apply the events of a poll. One that brings nothing new changes only when to poll again."""
        if not await self._must_apply(polled, events):
            return postponed("unchanged", self.next_poll_at(polled))
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, polled.shipment_id)
            if not is_followed(shipment) or shipment.tracking_no != polled.tracking_no:
                return UNCHANGED
            tracking = await shipment_status.apply_tracking_events(
                connection, order, shipment, events, "query", carrier.system, self._now(), self._policy
            )
            has_not_left = tracking.result != "status_changed" and shipment.status is ShipmentStatus.BOOKED
            if has_not_left and await self._cancel_if_must_not_ship(connection, order, shipment):
                return written("stopped")
        return postponed(tracking.result, self.next_poll_at(shipment))

    async def _must_apply(self, shipment: Shipment, events: Sequence[TrackingEvent]) -> bool:
        """Tell whether events are new, or the shipment waits for its carrier and must not leave any more."""
        async with self._db.connection() as connection:
            if events and await shipment_status.select_new_events(connection, shipment.shipment_id, events):
                return True
            if shipment.status is not ShipmentStatus.BOOKED:
                return False
            order = await orders.read_order_header(connection, shipment.order_id)
            return order is not None and await shipment_status.must_not_ship(connection, order)

    async def _begin_poll(self, shipment: Shipment, carrier: Carrier) -> datetime | None:
        """Record the poll, or return when to poll if the carrier was polled too short a time ago.

        So its pace holds whatever made the job due: a retry, staff, or the lease of a worker that died."""
        async with self._db.connection() as connection:
            return await shipments.begin_poll(
                connection, shipment.shipment_id, self._now(), carrier.min_poll_interval_s
            )
