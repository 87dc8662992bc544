"""Jobs of booked shipments: subscribe to their tracking, poll it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.fulfilment.carrier_jobs import UNCHANGED, CarrierJobs, Work, is_followed
from commerce.jobs.model import NO_ANSWER, Job, JobHandler, JobResult, failed, postponed, written
from commerce.kernel.batches import Batcher
from commerce.kernel.clock import Clock
from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.orders import store as orders
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import Carrier, CarrierRegistry, TrackingEvent
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ShipmentKey
from commerce.shipping.shipment_status import LockedShipment
from commerce.shipping.shipment_tasks import Task
from commerce.shipping.tracking import TrackingReport, by_key


class _Poll(NamedTuple):
    """A shipment as it was before the poll, and the events that its carrier named, by their keys."""

    shipment: Shipment
    carrier: Carrier
    events: Mapping[bytes, TrackingEvent]


class TrackingJobs(CarrierJobs):
    """Follows shipments from their booking to their end. Webhooks bring most events, polls the rest."""

    def __init__(self, db: Database, clock: Clock, carriers: CarrierRegistry, policy: ShippingPolicy) -> None:
        super().__init__(db, clock, carriers, policy)
        self._must_apply: Batcher[_Poll, bool] = Batcher(self._judge_polls)
        self._transactions: SharedTransactions[_Poll, JobResult] = SharedTransactions(db, self._apply)

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
        # Polls that end at about the same time share their reads, and their transaction if they bring new events.
        poll = _Poll(shipment, carrier, by_key(events))
        if not await self._must_apply.add(poll):
            return postponed("unchanged", self.next_poll_at(shipment))
        return await self._transactions.add(poll)

    async def _judge_polls(self, polls: Sequence[_Poll]) -> list[bool]:
        """Tell which polls must be applied.

        Their events are new, or the shipment waits for its carrier and must not leave any more."""
        keys = {(poll.shipment.shipment_id, key) for poll in polls for key in poll.events}
        booked = {poll.shipment.order_id for poll in polls if poll.shipment.status is ShipmentStatus.BOOKED}
        async with self._db.connection() as connection:
            stored = await shipments.list_stored_event_keys(connection, keys)
            headers = await orders.read_order_headers(connection, list(booked)) if booked else {}
            unshippable = await shipment_status.list_unshippable(connection, list(headers.values()))
        return [
            any((poll.shipment.shipment_id, key) not in stored for key in poll.events)
            or (poll.shipment.status is ShipmentStatus.BOOKED and poll.shipment.order_id in unshippable)
            for poll in polls
        ]

    async def _apply(self, connection: Connection, polls: Sequence[_Poll], may_wait: bool) -> list[JobResult | None]:
        """Apply polls, without `may_wait` only those of orders that nobody has locked."""
        keys = [ShipmentKey(poll.shipment.order_id, poll.shipment.shipment_id) for poll in polls]
        if may_wait:
            locked = {id_: await shipment_status.lock_shipment(connection, id_) for _, id_ in sorted(keys)}
        else:
            locked = await shipment_status.lock_free_shipments(connection, keys)
        free = [poll for poll in polls if poll.shipment.shipment_id in locked]
        results = await self._apply_locked(connection, locked, free)
        return [results.get(poll.shipment.shipment_id) for poll in polls]

    async def _apply_locked(
        self, connection: Connection, locked: Mapping[UUID, LockedShipment], polls: Sequence[_Poll]
    ) -> dict[UUID, JobResult]:
        followed = [poll for poll in polls if _is_still_followed(locked[poll.shipment.shipment_id].shipment, poll)]
        reports = [
            TrackingReport(poll.shipment.shipment_id, poll.events, "query", poll.carrier.system) for poll in followed
        ]
        tracking = await shipment_status.apply_reports(connection, locked, reports, self._now(), self._policy)
        results = {poll.shipment.shipment_id: UNCHANGED for poll in polls}
        for report, (word, _) in zip(reports, tracking, strict=True):
            order, shipment = locked[report.shipment_id]
            result = postponed(word, self.next_poll_at(shipment))
            has_not_left = word != "status_changed" and shipment.status is ShipmentStatus.BOOKED
            if has_not_left and await self._cancel_if_must_not_ship(connection, order, shipment):
                result = written("stopped")
            results[report.shipment_id] = result
        return results

    async def _begin_poll(self, shipment: Shipment, carrier: Carrier) -> datetime | None:
        """Record the poll, or return when to poll if the carrier was polled too short a time ago.

        So its pace holds whatever made the job due: a retry, staff, or the lease of a worker that died."""
        async with self._db.connection() as connection:
            return await shipments.begin_poll(
                connection, shipment.shipment_id, self._now(), carrier.min_poll_interval_s
            )


def _is_still_followed(shipment: Shipment, poll: _Poll) -> bool:
    """Tell if a shipment is followed still, and by the number that was polled."""
    return is_followed(shipment) and shipment.tracking_no == poll.shipment.tracking_no
