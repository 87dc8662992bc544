"""Jobs of shipments: assign a carrier, book, cancel, subscribe to tracking, poll tracking.

A request to a carrier is stored before it is sent (the booking) and after it is answered, each in a transaction of its
own that holds the order lock. In between the row is leased. After a crash another worker repeats the request under the
same booking id, for which a carrier books only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, Carrier, CarrierRegistry
from commerce.shipping.model import Shipment, ShipmentStatus, Task
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_status import TrackingResult
from commerce.warehouses import store as warehouses


class ShipmentJobs:
    """Claims due shipments and does one job at a time. A job that fails `max_attempts` times is parked."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        retry_policy: RetryPolicy,
        max_attempts: int,
        carriers: CarrierRegistry,
        assignment: CarrierAssignment,
        policy: ShippingPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._retry_policy = retry_policy
        self._max_attempts = max_attempts
        self._carriers = carriers
        self._assignment = assignment
        self._policy = policy
        self._unavailable: frozenset[str] = frozenset()

    def system_of(self, job: Shipment) -> str:
        """Return the carrier's system, or `internal` for a job that calls nobody."""
        carrier = self._carrier(job)
        if carrier is None or not carrier.is_external or self._may_reassign(job):
            return "internal"
        return carrier.system

    def _carrier(self, job: Shipment) -> Carrier | None:
        return self._carriers.by_name.get(job.carrier) if job.carrier else None

    def _may_reassign(self, job: Shipment) -> bool:
        """Tell whether another carrier may take the shipment.

        That is so while its own carrier is unavailable and was not sent a request yet.
        """
        return job.task == "book" and job.booking_id is None and job.carrier in self._unavailable

    async def claim(
        self, count: int, excluded_systems: Sequence[str], unavailable_systems: Sequence[str]
    ) -> list[Shipment]:
        """Claim up to `count` due shipments, except those of excluded systems.

        Shipments whose carrier has received no request yet and is unavailable are claimed all the same, to assign
        another carrier.
        """
        carriers = self._carriers.by_name
        self._unavailable = frozenset(
            name
            for name, carrier in carriers.items()
            if carrier.accepts_bookings and carrier.system in unavailable_systems
        )
        excluded = [name for name, carrier in carriers.items() if carrier.system in excluded_systems]
        async with self._db.connection() as connection:
            return await shipments.claim_shipments(
                connection, self._now(), self._retry_policy.lease_s, count, excluded, list(self._unavailable)
            )

    async def work(self, job: Shipment) -> str:
        """Do the task of a claimed shipment and return its result word.

        A refused task is parked. Raises `ExternalOutcomeUnknown`, after postponing the job, if the carrier gave no
        usable answer.
        """
        try:
            return await self._do_task(job)
        except ExternalOutcomeUnknown as error:
            await self._postpone(job, str(error), park=False)
            raise
        except ExternalRefusal as error:
            await self._postpone(job, f"{job.carrier} refuses: {error}", park=True)
            return "refused"
        except UniqueViolationError as error:
            if error.constraint_name != shipments.TRACKING_NO_CONSTRAINT:
                raise
            await self._postpone(job, f"{job.carrier} returned the tracking number of another shipment", park=True)
            return "tracking_no_conflict"

    async def _do_task(self, job: Shipment) -> str:
        carrier = self._carrier(job)
        if carrier is None and job.carrier is not None and job.booking_id is not None:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        if job.task == "book":
            return await self._book(job, carrier)
        assert carrier is not None
        if job.task == "cancel":
            return await self._cancel(job, carrier)
        if job.task == "subscribe":
            return await self._subscribe(job, carrier)
        return await self._track(job, carrier)

    async def _subscribe(self, job: Shipment, carrier: Carrier) -> str:
        assert job.tracking_no is not None
        await carrier.subscribe(job.tracking_no, job.address.phone)
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if shipment.task == "subscribe":
                await shipments.set_task(connection, job.shipment_id, "track", self._next_poll_at(shipment))
        return "subscribed"

    async def _book(self, job: Shipment, carrier: Carrier | None) -> str:
        if carrier is None or self._may_reassign(job):
            return await self._assign(job)
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if not _must_be_booked(shipment) or shipment.carrier != carrier.name:
                return "unchanged"
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            shipment = await self._record_request(connection, shipment, carrier)
            request = await self._booking_request(connection, shipment)
        try:
            confirmation = await carrier.book(request)
        except ExternalRefusal as error:
            return await self._on_refused(shipment, carrier, error)
        failpoint("shipment.after_book")
        return await self._on_booked(shipment, carrier, confirmation)

    async def _cancel_if_must_not_ship(self, connection: Connection, order: OrderHeader, shipment: Shipment) -> bool:
        """Cancel the shipment, or start to cancel its booking, if its order must not be shipped any more."""
        if not await shipment_status.must_not_ship(connection, order):
            return False
        await cancel_before_dispatch(connection, shipment, self._now())
        return True

    async def _record_request(self, connection: Connection, shipment: Shipment, carrier: Carrier) -> Shipment:
        """Store that a booking is about to be requested: a new one, or the one left unanswered."""
        if shipment.booking_id is not None:
            await shipments.touch_booking_request(connection, shipment.booking_id, self._now())
            return shipment
        await shipments.insert_booking(connection, self._ids.new(), shipment.shipment_id, carrier.name, self._now())
        return await _reload(connection, shipment.shipment_id)

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

    async def _assign(self, job: Shipment) -> str:
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if not _must_be_booked(shipment) or shipment.booking_id is not None:
                return "unchanged"
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            unavailable = dict.fromkeys(self._unavailable, "it does not answer now")
            name = await self._assignment.assign(connection, shipment, self._now(), excluded=unavailable)
            # No available carrier takes the shipment, so it waits for one that is unavailable.
            if name is None and unavailable and await self._assignment.assign(connection, shipment, self._now()):
                due_at = self._now() + timedelta(seconds=self._retry_policy.max_s)
                await shipments.postpone_shipment(
                    connection, shipment, due_at, "its carriers do not answer now", park=False
                )
                return "waiting"
        return "assigned" if name else "no_carrier"

    async def _on_refused(self, requested: Shipment, carrier: Carrier, error: ExternalRefusal) -> str:
        """Record the refusal and assign the next best carrier, or park the shipment if there is none."""
        now, reason = self._now(), f"{carrier.name} refuses: {error}"
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, requested.shipment_id)
            if shipment.booking_id != requested.booking_id or shipment.status is not ShipmentStatus.PLANNED:
                return "unchanged"
            assert requested.booking_id is not None
            await shipments.end_booking(connection, requested.booking_id, "refused", now, reason)
            await shipments.record_refusal(connection, shipment.shipment_id, carrier.name)
            await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, reason)
            if shipment.task == "cancel":
                return await self._after_booking_ended(connection, shipment)
            await self._assignment.assign(connection, await _reload(connection, shipment.shipment_id), now)
        return "refused"

    async def _on_booked(self, requested: Shipment, carrier: Carrier, confirmation: BookingConfirmation) -> str:
        now = self._now()
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, requested.shipment_id)
            if shipment.booking_id != requested.booking_id or shipment.status is not ShipmentStatus.PLANNED:
                return "unchanged"
            assert requested.booking_id is not None
            await shipment_status.record_booking(
                connection, shipment, requested.booking_id, confirmation, now, "system", shipment_status.ACTOR
            )
            if await shipment_status.must_not_ship(connection, order):
                await shipments.set_task(connection, shipment.shipment_id, "cancel", now, "cancelled")
            elif shipment.task != "cancel":  # a cancellation requested meanwhile has set `after_cancel` already
                # A shipment that cannot be tracked is polled as well, because its order may be stopped.
                task: Task = "subscribe" if carrier.needs_subscription else "track"
                wait_s = 0 if carrier.needs_subscription else self._policy.tracking_poll_initial_s
                await shipments.set_task(connection, shipment.shipment_id, task, now + timedelta(seconds=wait_s))
        return "booked"

    async def _cancel(self, job: Shipment, carrier: Carrier) -> str:
        assert job.booking_id is not None
        confirmation, outcome = None, await carrier.cancel(job.booking_id, job.tracking_no)
        if outcome == "absent":
            await self._require_absence(job.booking_id)
        elif outcome == "too_late" and job.tracking_no is None:
            confirmation = await carrier.find_booking(job.booking_id)
            if confirmation is None:
                raise ExternalOutcomeUnknown("the carrier has the shipment and does not send its tracking number")
        failpoint("shipment.after_cancel")
        now = self._now()
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if shipment.task != "cancel" or shipment.booking_id != job.booking_id:
                return "unchanged"
            # A tracking event may have arrived before the answer.
            if outcome == "too_late" or shipment.status not in (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED):
                return await self._on_too_late(connection, shipment, confirmation, now)
            await shipments.end_booking(connection, job.booking_id, "cancelled", now, "it was cancelled")
            return await self._after_booking_ended(connection, shipment)

    async def _require_absence(self, booking_id: UUID) -> None:
        """Check that a booking unknown to the carrier cannot arrive there any more.

        Raises `ExternalOutcomeUnknown` while the last request is younger than the lease: it may still be on its way.
        """
        async with self._db.connection() as connection:
            requested_at = await shipments.get_booking_requested_at(connection, booking_id)
        if self._now() < requested_at + timedelta(seconds=self._retry_policy.lease_s):
            raise ExternalOutcomeUnknown("the carrier does not know the booking, and may receive it yet")

    async def _after_booking_ended(self, connection: Connection, shipment: Shipment) -> str:
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
            return "cancelled"
        if shipment.next_address is not None:
            await shipments.redirect_shipment(connection, id_, shipment.next_address, later=False)
        await shipments.set_task(connection, id_, "book", now)
        await shipments.clear_refusals(connection, id_)
        await self._assignment.assign(connection, await _reload(connection, id_), now)
        return "replanned"

    async def _on_too_late(
        self, connection: Connection, shipment: Shipment, confirmation: BookingConfirmation | None, now: datetime
    ) -> str:
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
        await shipments.set_task(connection, shipment.shipment_id, "track", self._next_poll_at(shipment))
        return "too_late"

    async def _track(self, job: Shipment, carrier: Carrier) -> str:
        assert job.tracking_no is not None
        if carrier.min_poll_interval_s and not await self._may_poll(job, carrier):
            return "waiting"
        events = await carrier.fetch_tracking(job.tracking_no, job.address.phone)
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if shipment.task != "track" or shipment.tracking_no != job.tracking_no:
                return "unchanged"
            tracking = TrackingResult("unchanged")
            if events:
                tracking = await shipment_status.apply_tracking_events(
                    connection, order, shipment, events, "query", carrier.system, self._now(), self._policy
                )
            has_not_left = tracking.result != "status_changed" and shipment.status is ShipmentStatus.BOOKED
            if has_not_left and await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            await shipments.schedule_poll(connection, shipment.shipment_id, self._next_poll_at(shipment))
        return tracking.result

    async def _may_poll(self, job: Shipment, carrier: Carrier) -> bool:
        """Record the poll, or schedule it if the carrier was polled too short a time ago.

        So its pace holds whatever made the job due: a retry, staff, or the lease of a worker that died."""
        async with self._db.transaction() as connection:
            poll_at = await shipments.begin_poll(connection, job.shipment_id, self._now(), carrier.min_poll_interval_s)
            if poll_at is not None:
                await shipments.schedule_poll(connection, job.shipment_id, poll_at)
        return poll_at is None

    def _next_poll_at(self, shipment: Shipment) -> datetime:
        """Return the next time to poll tracking.

        Polls become rarer as the booking ages, since webhooks bring most events.
        """
        now = self._now()
        age_s = (now - (shipment.booked_at or now)).total_seconds()
        wait_s = min(max(age_s / 4, self._policy.tracking_poll_initial_s), self._policy.tracking_poll_max_s)
        return now + timedelta(seconds=max(wait_s, self._min_poll_interval_s(shipment)))

    def _min_poll_interval_s(self, shipment: Shipment) -> float:
        carrier = self._carrier(shipment)
        return carrier.min_poll_interval_s if carrier else 0

    async def _postpone(self, job: Shipment, reason: str, *, park: bool) -> None:
        """Schedule the next attempt, or park the job for staff after the last one."""
        wait_s = self._retry_policy.delay_ms(job.attempts) / 1000
        if job.task == "track":
            wait_s = max(wait_s, self._min_poll_interval_s(job))
        due_at = self._now() + timedelta(seconds=wait_s)
        async with self._db.connection() as connection:
            await shipments.postpone_shipment(
                connection, job, due_at, reason, park=park or job.attempts >= self._max_attempts
            )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def cancel_before_dispatch(connection: Connection, shipment: Shipment, now: datetime) -> None:
    """Cancel a shipment of a refunded order, or start to cancel its booking if it has one.

    Call inside a transaction that holds the order lock.
    """
    if shipment.booking_id is not None:
        await shipments.set_task(connection, shipment.shipment_id, "cancel", now, "cancelled")
        return
    await shipment_status.record_step(
        *(connection, shipment, ShipmentStatus.CANCELLED, now),
        *("system", shipment_status.ACTOR, "the order is refunded"),
    )


def _must_be_booked(shipment: Shipment) -> bool:
    return shipment.status is ShipmentStatus.PLANNED and shipment.task == "book" and shipment.held_reason is None


async def _reload(connection: Connection, shipment_id: UUID) -> Shipment:
    shipment = await shipments.get_shipment(connection, shipment_id)
    assert shipment is not None
    return shipment
