"""Records what carriers answer to requests for bookings, and what follows once a booking has ended.

Answers that arrive together share a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.carrier_jobs import UNCHANGED, cancel_before_dispatch, reload_shipment
from commerce.jobs.model import JobResult, written
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalRefusal
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, Carrier
from commerce.shipping.model import Shipment, ShipmentStatus
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ConfirmedBooking
from commerce.shipping.shipment_status import ACTOR
from commerce.shipping.shipment_tasks import put_follow_ups


class BookingAnswer(NamedTuple):
    """A carrier's confirmation or refusal of a booking.

    `requested` is the shipment as it was before the call."""

    requested: Shipment
    carrier: Carrier
    answer: BookingConfirmation | ExternalRefusal


class _Confirmed(NamedTuple):
    booking: ConfirmedBooking
    carrier: Carrier


class _Refused(NamedTuple):
    shipment: Shipment
    booking_id: UUID
    carrier: Carrier
    reason: str


class BookingAnswers:
    """Records answers of carriers, each as if it had come alone."""

    def __init__(self, db: Database, clock: Clock, assignment: CarrierAssignment, policy: ShippingPolicy) -> None:
        self._clock = clock
        self._assignment = assignment
        self._policy = policy
        self._transactions: SharedTransactions[BookingAnswer, JobResult] = SharedTransactions(db, self._record)

    async def record(self, answer: BookingAnswer) -> JobResult:
        """Record an answer. It changes nothing if the booking is not the shipment's current one any more.

        Raises `UniqueViolationError` of `TRACKING_NO_CONSTRAINT` if another booking of the carrier has the number."""
        return await self._transactions.add(answer)

    async def _record(
        self, connection: Connection, answers: Sequence[BookingAnswer], may_wait: bool
    ) -> list[JobResult | None]:
        """Record answers. The second of two about a shipment waits."""
        first_of = {answer.requested.shipment_id: answer for answer in reversed(answers)}
        locked = await shipment_status.lock_shipments(connection, list(first_of), may_wait=may_wait)
        now, results = from_ms(self._clock.now_ms()), dict[UUID, JobResult]()
        confirmed, refused = list[_Confirmed](), list[_Refused]()
        for id_, (_, shipment) in locked.items():
            (requested, carrier, answer), booking_id = first_of[id_], shipment.booking_id
            is_current = booking_id == requested.booking_id and shipment.status is ShipmentStatus.PLANNED
            if booking_id is None or not is_current:
                results[id_] = UNCHANGED
            elif isinstance(answer, BookingConfirmation):
                confirmed.append(_Confirmed(ConfirmedBooking(shipment, booking_id, answer), carrier))
            else:
                refused.append(_Refused(shipment, booking_id, carrier, f"{carrier.name} refuses: {answer}"))
        if confirmed:
            orders = {booking.shipment.order_id: locked[booking.shipment.shipment_id].order for booking, _ in confirmed}
            unshippable = await shipment_status.list_unshippable(connection, list(orders.values()))
            results |= await self._record_confirmed(connection, confirmed, unshippable, now)
        if refused:
            results |= await self._record_refused(connection, refused, now)
        return [
            results.get(answer.requested.shipment_id) if first_of[answer.requested.shipment_id] is answer else None
            for answer in answers
        ]

    async def _record_confirmed(
        self, connection: Connection, confirmed: Sequence[_Confirmed], unshippable: set[UUID], now: datetime
    ) -> dict[UUID, JobResult]:
        """Advance shipments to booked, and begin to cancel those of orders that must not be shipped any more."""
        await shipment_status.record_bookings(connection, [booking for booking, _ in confirmed], now, "system", ACTOR)
        followed = list[tuple[UUID, Carrier]]()
        for (shipment, _, _), carrier in confirmed:
            if shipment.order_id in unshippable:
                await cancel_before_dispatch(connection, shipment, carrier, now)
            elif shipment.after_cancel is None:  # a cancellation requested meanwhile has put its job already
                followed.append((shipment.shipment_id, carrier))
        poll_at = now + timedelta(seconds=self._policy.tracking_poll_initial_s)
        await put_follow_ups(connection, followed, poll_at, now)
        return {booking.shipment.shipment_id: written("booked") for booking, _ in confirmed}

    async def _record_refused(
        self, connection: Connection, refused: Sequence[_Refused], now: datetime
    ) -> dict[UUID, JobResult]:
        """Assign the next best carriers to shipments, or park those for which there is none."""
        reasons = {booking_id: reason for _, booking_id, _, reason in refused}
        await shipments.end_bookings(connection, "refused", reasons, now)
        names = {shipment.shipment_id: carrier.name for shipment, _, carrier, _ in refused}
        await shipments.record_refusals(connection, names)
        notes = [(shipment, reason) for shipment, _, _, reason in refused]
        await shipment_status.record_notes(connection, notes, now, "system", ACTOR)
        results, to_assign = dict[UUID, JobResult](), list[Shipment]()
        for shipment, _, carrier, _ in refused:
            if shipment.after_cancel is not None:
                results[shipment.shipment_id] = await self.after_booking_ended(connection, shipment, now)
                continue
            refused_by = [*shipment.refused_by, carrier.name]
            to_assign.append(msgspec.structs.replace(shipment, refused_by=refused_by, booking_id=None))
            results[shipment.shipment_id] = written("refused")
        if to_assign:
            await self._assignment.assign_all(connection, to_assign, now)
        return results

    async def after_booking_ended(self, connection: Connection, shipment: Shipment, now: datetime) -> JobResult:
        """Plan a shipment again or cancel it, as `after_cancel` says, now that no carrier will collect it.

        Call inside a transaction that holds the order lock."""
        id_ = shipment.shipment_id
        if shipment.after_cancel == "cancelled":
            await shipment_status.record_step(
                *(connection, shipment, ShipmentStatus.CANCELLED, now),
                *("system", ACTOR, "its booking is cancelled"),
            )
        elif shipment.status is ShipmentStatus.BOOKED:
            await shipment_status.record_step(
                *(connection, shipment, ShipmentStatus.PLANNED, now),
                *("system", ACTOR, f"its booking with {shipment.carrier} is cancelled"),
            )
        await shipments.clear_booking(connection, id_)
        if shipment.after_cancel == "cancelled":
            return written("cancelled")
        if shipment.next_address is not None:
            await shipments.redirect_shipment(connection, id_, shipment.next_address, later=False)
        await shipments.clear_refusals(connection, [id_])
        await self._assignment.assign(connection, await reload_shipment(connection, id_), now)
        return written("replanned")
