"""Jobs of shipments: assign a carrier, book, cancel, subscribe to tracking, poll tracking.

A request to a carrier is stored before it is sent (the booking) and after it is answered, each in a transaction of its
own that holds the order lock. In between the job is leased. After a crash another worker repeats the request under the
same booking id, for which a carrier books only once.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.carrier_jobs import UNCHANGED, CarrierJobs, Work, cancel_before_dispatch, reload_shipment
from commerce.jobs.model import Job, JobHandler, JobResult, written
from commerce.kernel.clock import Clock
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import (
    BookingConfirmation,
    BookingRequest,
    Carrier,
    CarrierRegistry,
)
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_tasks import Task, put_follow_up, put_task
from commerce.warehouses import store as warehouses


class ShipmentJobs(CarrierJobs):
    """Assigns carriers to shipments, books them and cancels their bookings."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        retry_policy: RetryPolicy,
        carriers: CarrierRegistry,
        assignment: CarrierAssignment,
        policy: ShippingPolicy,
    ) -> None:
        super().__init__(db, clock, carriers, policy)
        self._ids = ids
        self._retry_policy = retry_policy
        self._assignment = assignment
        self.unavailable_systems: Collection[str] = ()
        """systems that do not answer now, so that shipments are assigned to carriers of others"""

    def list_handlers(self, max_attempts: int) -> dict[str, JobHandler]:
        """Return the handlers of the kinds that assign, book and cancel."""
        works: dict[Task, Work] = {
            "shipment.assign": self._assign,
            "shipment.assign_again": self._assign,
            "shipment.book": self._book,
            "shipment.cancel": self._cancel,
        }
        return self.make_handlers(works, max_attempts)

    async def _book(self, job: Job) -> JobResult:
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.subject)
            if not _must_be_booked(shipment):
                return self._postpone_held() if shipment.held_reason is not None else UNCHANGED
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return written("stopped")
            carrier = self._carrier(shipment)
            if carrier is None and shipment.booking_id is None:
                return await self._assign_locked(connection, shipment)
            carrier = self._booked_carrier(shipment)
            shipment = await self._record_request(connection, shipment, carrier)
            request = await self._booking_request(connection, shipment)
        try:
            confirmation = await carrier.book(request)
        except ExternalRefusal as error:
            return await self._on_refused(shipment, carrier, error)
        failpoint("shipment.after_book")
        return await self._on_booked(shipment, carrier, confirmation)

    async def _record_request(self, connection: Connection, shipment: Shipment, carrier: Carrier) -> Shipment:
        """Store that a booking is about to be requested: a new one, or the one left unanswered."""
        if shipment.booking_id is not None:
            await shipments.touch_booking_request(connection, shipment.booking_id, self._now())
            return shipment
        booking_id = self._ids.new()
        await shipments.insert_booking(connection, booking_id, shipment.shipment_id, carrier.name, self._now())
        return msgspec.structs.replace(shipment, booking_id=booking_id)

    async def _booking_request(self, connection: Connection, shipment: Shipment) -> BookingRequest:
        senders = await warehouses.warehouses_of(connection, [shipment.warehouse_id])
        assert shipment.booking_id is not None
        return BookingRequest(
            booking_id=shipment.booking_id,
            order_id=shipment.order_id,
            sender=senders[shipment.warehouse_id].address,
            recipient=shipment.address,
            weight_g=shipment.weight_g,
            length_mm=shipment.length_mm,
            width_mm=shipment.width_mm,
            height_mm=shipment.height_mm,
            contents=await shipments.list_contents(connection, shipment.shipment_id),
            value=Money(shipment.value_minor, shipment.currency),
            cod=shipment.cod,
        )

    async def _assign(self, job: Job) -> JobResult:
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.subject)
            if not _must_be_booked(shipment) or shipment.booking_id is not None:
                return self._postpone_held() if shipment.held_reason is not None else UNCHANGED
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return written("stopped")
            if job.kind == "shipment.assign_again":
                await shipments.clear_refusals(connection, job.subject)
                shipment = await reload_shipment(connection, job.subject)
            return await self._assign_locked(connection, shipment)

    async def _assign_locked(self, connection: Connection, shipment: Shipment) -> JobResult:
        now = self._now()
        unavailable = {
            name: "it does not answer now"
            for name, carrier in self._carriers.by_name.items()
            if carrier.accepts_bookings and carrier.system in self.unavailable_systems
        }
        name = await self._assignment.assign(connection, shipment, now, excluded=unavailable)
        if name is None and unavailable:
            # No available carrier takes the shipment, so it waits for one that is unavailable.
            due_at = now + timedelta(seconds=self._retry_policy.max_s)
            if await self._assignment.assign(connection, shipment, now, due_at=due_at):
                return written("waiting")
        return written("assigned" if name else "no_carrier")

    async def _on_refused(self, requested: Shipment, carrier: Carrier, error: ExternalRefusal) -> JobResult:
        """Record the refusal and assign the next best carrier, or park the shipment if there is none."""
        now, reason = self._now(), f"{carrier.name} refuses: {error}"
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, requested.shipment_id)
            if shipment.booking_id != requested.booking_id or shipment.status is not ShipmentStatus.PLANNED:
                return UNCHANGED
            assert requested.booking_id is not None
            await shipments.end_booking(connection, requested.booking_id, "refused", now, reason)
            await shipments.record_refusal(connection, shipment.shipment_id, carrier.name)
            await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, reason)
            if shipment.after_cancel is not None:
                return await self._after_booking_ended(connection, shipment)
            await self._assignment.assign(connection, await reload_shipment(connection, shipment.shipment_id), now)
        return written("refused")

    async def _on_booked(self, requested: Shipment, carrier: Carrier, confirmation: BookingConfirmation) -> JobResult:
        now = self._now()
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, requested.shipment_id)
            if shipment.booking_id != requested.booking_id or shipment.status is not ShipmentStatus.PLANNED:
                return UNCHANGED
            assert requested.booking_id is not None
            await shipment_status.record_booking(
                connection, shipment, requested.booking_id, confirmation, now, "system", shipment_status.ACTOR
            )
            if await shipment_status.must_not_ship(connection, order):
                await cancel_before_dispatch(connection, shipment, carrier, now)
            elif shipment.after_cancel is None:  # a cancellation requested meanwhile has put its job already
                poll_at = now + timedelta(seconds=self._policy.tracking_poll_initial_s)
                await put_follow_up(connection, shipment.shipment_id, carrier, poll_at, now)
        return written("booked")

    async def _cancel(self, job: Job) -> JobResult:
        shipment = await self._read(job)
        if shipment.after_cancel is None or shipment.booking_id is None:
            return UNCHANGED
        booking_id, confirmation, carrier = shipment.booking_id, None, self._booked_carrier(shipment)
        outcome = await carrier.cancel(booking_id, shipment.tracking_no)
        if outcome == "absent":
            await self._require_absence(booking_id)
        elif outcome == "too_late" and shipment.tracking_no is None:
            confirmation = await carrier.find_booking(booking_id)
            if confirmation is None:
                raise ExternalOutcomeUnknown("the carrier has the shipment and does not send its tracking number")
        failpoint("shipment.after_cancel")
        now = self._now()
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, job.subject)
            if shipment.after_cancel is None or shipment.booking_id != booking_id:
                return UNCHANGED
            # A tracking event may have arrived before the answer.
            if outcome == "too_late" or shipment.status not in (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED):
                return await self._on_too_late(connection, shipment, carrier, confirmation, now)
            await shipments.end_booking(connection, booking_id, "cancelled", now, "it was cancelled")
            return await self._after_booking_ended(connection, shipment)

    async def _require_absence(self, booking_id: UUID) -> None:
        """Check that a booking unknown to the carrier cannot arrive there any more.

        Raises `ExternalOutcomeUnknown` while the last request is younger than the lease: it may still be on its way.
        """
        async with self._db.connection() as connection:
            requested_at = await shipments.get_booking_requested_at(connection, booking_id)
        if self._now() < requested_at + timedelta(seconds=self._retry_policy.lease_s):
            raise ExternalOutcomeUnknown("the carrier does not know the booking, and may receive it yet")

    async def _after_booking_ended(self, connection: Connection, shipment: Shipment) -> JobResult:
        """Plan the shipment again or cancel it, now that no carrier will collect it."""
        now, id_ = self._now(), shipment.shipment_id
        if shipment.after_cancel == "cancelled":
            await shipment_status.record_step(
                *(connection, shipment, ShipmentStatus.CANCELLED, now),
                *("system", shipment_status.ACTOR, "its booking is cancelled"),
            )
        elif shipment.status is ShipmentStatus.BOOKED:
            await shipment_status.record_step(
                *(connection, shipment, ShipmentStatus.PLANNED, now),
                *("system", shipment_status.ACTOR, f"its booking with {shipment.carrier} is cancelled"),
            )
        await shipments.clear_booking(connection, id_)
        if shipment.after_cancel == "cancelled":
            return written("cancelled")
        if shipment.next_address is not None:
            await shipments.redirect_shipment(connection, id_, shipment.next_address, later=False)
        await shipments.clear_refusals(connection, id_)
        await self._assignment.assign(connection, await reload_shipment(connection, id_), now)
        return written("replanned")

    async def _on_too_late(
        self,
        connection: Connection,
        shipment: Shipment,
        carrier: Carrier,
        confirmation: BookingConfirmation | None,
        now: datetime,
    ) -> JobResult:
        """Go on with a shipment that the carrier has collected, and note that it could not be cancelled.

        `confirmation` is set for a booking whose outcome was unknown until now.
        """
        if shipment.status is ShipmentStatus.PLANNED:
            assert confirmation is not None
            assert shipment.booking_id is not None
            await shipment_status.record_booking(
                connection, shipment, shipment.booking_id, confirmation, now, "system", shipment_status.ACTOR
            )
        reason = f"too late to cancel: {shipment.carrier} has collected it"
        await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, reason)
        if shipment.ended_at is None:
            await shipments.set_after_cancel(connection, shipment.shipment_id, None)
            poll_at = self.next_poll_at(shipment)
            await put_task(connection, shipment.shipment_id, "shipment.track", carrier, poll_at, now)
        return written("too_late")


def _must_be_booked(shipment: Shipment) -> bool:
    return shipment.status is ShipmentStatus.PLANNED and shipment.after_cancel is None and shipment.held_reason is None
