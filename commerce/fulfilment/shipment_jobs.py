"""Jobs of shipments: assign a carrier, book, cancel.

A request to a carrier is stored before it is sent (the booking) and after it is answered, each time in a transaction
that holds the order lock and that concurrent jobs share. In between the job is leased. After a crash another worker
repeats the request under the same booking id, for which a carrier books only once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from commerce.fulfilment import store
from commerce.fulfilment.booking_answers import BookingAnswer, BookingAnswers
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.carrier_jobs import UNCHANGED, CarrierJobs, Work, cancel_before_dispatch, not_offered
from commerce.jobs.model import Job, JobHandler, JobResult, written
from commerce.kernel.address import Address
from commerce.kernel.clock import Clock
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, Carrier, CarrierRegistry, ContentLine
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ConfirmedBooking, NewBooking
from commerce.shipping.shipment_tasks import Task, put_cancellation_jobs, put_task
from commerce.warehouses import store as warehouses


class _PreparedRequest(NamedTuple):
    """A stored request for a booking, with the shipment as the request leaves it."""

    shipment: Shipment
    carrier: Carrier
    request: BookingRequest


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
        self._beginnings: SharedTransactions[Job, JobResult | _PreparedRequest] = SharedTransactions(db, self._begin)
        self._answers = BookingAnswers(db, clock, assignment, policy)
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
        begun = await self._beginnings.add(job)
        if isinstance(begun, JobResult):
            return begun
        answer: BookingConfirmation | ExternalRefusal
        try:
            answer = await begun.carrier.book(begun.request)
        except ExternalRefusal as error:
            answer = error
        else:
            failpoint("shipment.after_book")
        return await self._answers.record(BookingAnswer(begun.shipment, begun.carrier, answer))

    async def _assign(self, job: Job) -> JobResult:
        result = await self._beginnings.add(job)
        assert isinstance(result, JobResult)
        return result

    async def _begin(
        self, connection: Connection, claimed: Sequence[Job], may_wait: bool
    ) -> list[JobResult | _PreparedRequest | Exception | None]:
        """Assign carriers to shipments and store requests for bookings, as their jobs want it.

        The second of two jobs of a shipment waits."""
        first_of = {job.subject: job for job in reversed(claimed)}
        locked = await shipment_status.lock_shipments(connection, list(first_of), may_wait=may_wait)
        orders = {order.order_id: order for order, _ in locked.values()}
        unshippable = await shipment_status.list_unshippable(connection, list(orders.values()))
        now, results = self._now(), dict[UUID, JobResult | _PreparedRequest | Exception]()
        to_assign, to_request = list[Shipment](), list[tuple[Shipment, Carrier]]()
        for id_, (_, shipment) in locked.items():
            is_booking, carrier = first_of[id_].kind == "shipment.book", self._carrier(shipment)
            if not _must_be_booked(shipment) or (shipment.booking_id is not None and not is_booking):
                results[id_] = self._postpone_held() if shipment.held_reason is not None else UNCHANGED
            elif shipment.order_id in unshippable:
                await cancel_before_dispatch(connection, shipment, carrier, now)
                results[id_] = written("stopped")
            elif not is_booking or (carrier is None and shipment.booking_id is None):
                to_assign.append(shipment)
            elif carrier is None:
                results[id_] = not_offered()
            else:
                to_request.append((shipment, carrier))
        again = {id_ for id_, job in first_of.items() if job.kind == "shipment.assign_again"}
        results |= await self._assign_locked(connection, to_assign, again, now)
        results |= await self._record_requests(connection, to_request, now)
        return [results.get(job.subject) if first_of[job.subject] is job else None for job in claimed]

    async def _assign_locked(
        self, connection: Connection, to_assign: Sequence[Shipment], again: Collection[UUID], now: datetime
    ) -> dict[UUID, JobResult]:
        """Assign carriers to shipments; those that have refused one that is in `again` may be asked again."""
        if not to_assign:
            return {}
        if cleared := [shipment.shipment_id for shipment in to_assign if shipment.shipment_id in again]:
            await shipments.clear_refusals(connection, cleared)
            to_assign = [
                msgspec.structs.replace(shipment, refused_by=[]) if shipment.shipment_id in again else shipment
                for shipment in to_assign
            ]
        unavailable = {
            name: "it does not answer now"
            for name, carrier in self._carriers.by_name.items()
            if carrier.accepts_bookings and carrier.system in self.unavailable_systems
        }
        names = await self._assignment.assign_all(connection, to_assign, now, excluded=unavailable)
        results = {id_: written("assigned" if name else "no_carrier") for id_, name in names.items()}
        left = [shipment for shipment in to_assign if names[shipment.shipment_id] is None]
        if left and unavailable:
            # No available carrier takes them, so they wait for one that is unavailable.
            due_at = now + timedelta(seconds=self._retry_policy.max_s)
            names = await self._assignment.assign_all(connection, left, now, due_at=due_at)
            results |= {id_: written("waiting") for id_, name in names.items() if name}
        return results

    async def _record_requests(
        self, connection: Connection, to_request: Sequence[tuple[Shipment, Carrier]], now: datetime
    ) -> dict[UUID, _PreparedRequest]:
        """Store that bookings are about to be requested: new ones, and those left unanswered."""
        if not to_request:
            return {}
        unanswered = [shipment.booking_id for shipment, _ in to_request if shipment.booking_id is not None]
        await shipments.touch_booking_requests(connection, unanswered, now)
        new_bookings = [
            NewBooking(self._ids.new(), shipment.shipment_id, carrier.name)
            for shipment, carrier in to_request
            if shipment.booking_id is None
        ]
        await shipments.insert_bookings(connection, new_bookings, now)
        ids = {booking.shipment_id: booking.booking_id for booking in new_bookings}
        senders = await warehouses.warehouses_of(connection, {shipment.warehouse_id for shipment, _ in to_request})
        contents = await shipments.list_contents(connection, [shipment.shipment_id for shipment, _ in to_request])
        prepared = dict[UUID, _PreparedRequest]()
        for shipment, carrier in to_request:
            id_, sender = shipment.shipment_id, senders[shipment.warehouse_id].address
            requested = msgspec.structs.replace(shipment, booking_id=shipment.booking_id or ids[id_])
            prepared[id_] = _PreparedRequest(requested, carrier, _booking_request(requested, sender, contents[id_]))
        return prepared

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
            await shipments.end_bookings(connection, "cancelled", {booking_id: "it was cancelled"}, now)
            return await self._answers.after_booking_ended(connection, shipment, now)

    async def _require_absence(self, booking_id: UUID) -> None:
        """Check that a booking unknown to the carrier cannot arrive there any more.

        Raises `ExternalOutcomeUnknown` while the last request is younger than the lease: it may still be on its way.
        """
        async with self._db.connection() as connection:
            requested_at = await shipments.get_booking_requested_at(connection, booking_id)
        if self._now() < requested_at + timedelta(seconds=self._retry_policy.lease_s):
            raise ExternalOutcomeUnknown("the carrier does not know the booking, and may receive it yet")

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
            booked = ConfirmedBooking(shipment, shipment.booking_id, confirmation)
            await shipment_status.record_bookings(connection, [booked], now, "system", shipment_status.ACTOR)
        reason = f"too late to cancel: {shipment.carrier} has collected it"
        await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, reason)
        if shipment.ended_at is None:
            await store.mark_cancel_refused(connection, shipment.shipment_id, now)
            await put_cancellation_jobs(connection, [shipment.order_id], now, now)
            poll_at = self.next_poll_at(shipment)
            await put_task(connection, shipment.shipment_id, "shipment.track", carrier, poll_at, now)
        return written("too_late")


def _must_be_booked(shipment: Shipment) -> bool:
    return shipment.status is ShipmentStatus.PLANNED and shipment.after_cancel is None and shipment.held_reason is None


def _booking_request(shipment: Shipment, sender: Address, contents: Sequence[ContentLine]) -> BookingRequest:
    assert shipment.booking_id is not None
    return BookingRequest(
        booking_id=shipment.booking_id,
        order_id=shipment.order_id,
        sender=sender,
        recipient=shipment.address,
        weight_g=shipment.weight_g,
        length_mm=shipment.length_mm,
        width_mm=shipment.width_mm,
        height_mm=shipment.height_mm,
        contents=contents,
        value=Money(shipment.value_minor, shipment.currency),
        cod=shipment.cod,
    )
