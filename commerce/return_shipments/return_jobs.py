"""Jobs of return shipments: assign a carrier, book, cancel, subscribe, poll.

A request to a carrier is stored before it is sent and after it is answered, each time under the order lock. In between
the job is leased. After a crash another worker asks the carrier whether it has the booking before it repeats the
request, under the same booking id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from asyncpg import UniqueViolationError

from commerce.jobs.model import NO_ANSWER, Job, JobHandler, JobResult, failed, finished, parked, postponed, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.return_shipments import store
from commerce.return_shipments.carrier_selection import ReturnCarriers
from commerce.return_shipments.model import ReturnShipment, ReturnStatus
from commerce.return_shipments.return_status import ACTOR, CaseHook, ReturnSteps, lock_return
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS, ReturnTask, put_follow_up, put_parked, put_task
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, Carrier
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.tracking import by_key
from commerce.warehouses import store as warehouses

_UNCHANGED = finished("unchanged")


class _PreparedRequest(NamedTuple):
    """A stored request for a booking; with `was_sent` an earlier one may have reached the carrier."""

    shipment: ReturnShipment
    carrier: Carrier
    request: BookingRequest
    was_sent: bool


async def assign_carrier(
    connection: Connection, carriers: ReturnCarriers, steps: ReturnSteps, shipment: ReturnShipment, now: datetime
) -> str | None:
    """Choose the carrier of a shipment without a booking, and put the job that books it.

    Returns the carrier's name. If no carrier collects it, the job is parked with the reason, and the result is None."""
    choice, reason = await carriers.select(connection, shipment, now)
    if choice is None:
        await put_parked(connection, shipment.return_shipment_id, reason, now)
        await steps.record_note(connection, shipment, now, "system", ACTOR, reason)
        return None
    await store.set_booking_request(connection, shipment.return_shipment_id, choice, now)
    carrier = carriers.by_name[choice.carrier]
    await put_task(connection, shipment.return_shipment_id, "return_shipment.book", carrier, now, now)
    return choice.carrier


class ReturnShipmentJobs:
    """The queue of return shipments. A job that fails `max_attempts` times is parked."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        retry_policy: RetryPolicy,
        max_attempts: int,
        carriers: ReturnCarriers,
        policy: ShippingPolicy,
        on_step: CaseHook,
    ) -> None:
        self._db = db
        self._clock = clock
        self._lease_s = retry_policy.lease_s
        self._carriers = carriers
        self._policy = policy
        self._steps = ReturnSteps(on_step)
        works: dict[ReturnTask, Callable[[Job], Awaitable[JobResult]]] = {
            "return_shipment.assign": self._assign,
            "return_shipment.book": self._book,
            "return_shipment.cancel": self._cancel,
            "return_shipment.subscribe": self._subscribe,
            "return_shipment.poll": self._poll,
        }
        handlers: dict[str, JobHandler] = {
            kind: JobHandler(_park_refused(work), max_attempts=max_attempts) for kind, work in works.items()
        }
        self.queue = JobQueue(RETURN_SHIPMENTS, handlers, db, clock, retry_policy)

    # Booking.

    async def _assign(self, job: Job) -> JobResult:
        async with self._db.transaction() as connection:
            shipment = await lock_return(connection, job.subject)
            if shipment.status is not ReturnStatus.REQUESTED or shipment.booking_id is not None:
                return _UNCHANGED
            await store.clear_refusals(connection, shipment.return_shipment_id)
            shipment = await _reload(connection, shipment)
            name = await assign_carrier(connection, self._carriers, self._steps, shipment, self._now())
        return written("assigned" if name else "no_carrier")

    async def _book(self, job: Job) -> JobResult:
        begun = await self._begin_booking(job)
        if isinstance(begun, JobResult):
            return begun
        answer: BookingConfirmation | ExternalRefusal | None = None
        try:
            if begun.was_sent:
                answer = await begun.carrier.find_booking(begun.request.booking_id)
            if answer is None:
                answer = await begun.carrier.book(begun.request)
        except ExternalRefusal as error:
            answer = error
        else:
            failpoint("return_shipment.after_book")
        return await self._record_answer(begun, answer)

    async def _begin_booking(self, job: Job) -> JobResult | _PreparedRequest:
        now = self._now()
        async with self._db.transaction() as connection:
            shipment = await lock_return(connection, job.subject)
            is_waiting = shipment.status is ReturnStatus.REQUESTED and not shipment.is_cancelling
            if not is_waiting or shipment.booking_id is None:
                return _UNCHANGED
            carrier = self._booked_carrier(shipment)
            if await self._cancel_if_not_awaited(connection, shipment, carrier, now):
                return written("stopped")
            recipient = (await warehouses.warehouses_of(connection, {shipment.warehouse_id}))[shipment.warehouse_id]
            request = BookingRequest(
                booking_id=shipment.booking_id,
                order_id=shipment.order_id,
                sender=shipment.from_address,
                recipient=recipient.address,
                weight_g=shipment.weight_g,
                length_mm=shipment.length_mm,
                width_mm=shipment.width_mm,
                height_mm=shipment.height_mm,
                contents=await store.list_contents(connection, shipment.return_shipment_id),
                value=Money(shipment.value_minor, shipment.currency),
                is_return=True,
            )
            await store.touch_booking_request(connection, shipment.return_shipment_id, now)
        failpoint("return_shipment.before_book")
        return _PreparedRequest(shipment, carrier, request, was_sent=job.attempts > 1)

    async def _cancel_if_not_awaited(
        self, connection: Connection, shipment: ReturnShipment, carrier: Carrier, now: datetime
    ) -> bool:
        """Start to cancel a booking whose case has ended meanwhile: nobody should come for nothing."""
        if await store.is_awaited(connection, shipment.case_id):
            return False
        await store.set_cancelling(connection, shipment.return_shipment_id, True)
        await put_task(connection, shipment.return_shipment_id, "return_shipment.cancel", carrier, now, now)
        text = "to be cancelled: its case expects no units any more"
        await self._steps.record_note(connection, shipment, now, "system", ACTOR, text)
        return True

    async def _record_answer(self, begun: _PreparedRequest, answer: BookingConfirmation | ExternalRefusal) -> JobResult:
        now = self._now()
        async with self._db.transaction() as connection:
            shipment = await lock_return(connection, begun.shipment.return_shipment_id)
            is_current = shipment.booking_id == begun.request.booking_id
            if not is_current or shipment.status is not ReturnStatus.REQUESTED:
                return _UNCHANGED
            if isinstance(answer, ExternalRefusal):
                return await self._record_refusal(connection, shipment, begun.carrier, answer, now)
            await self._steps.record_booking(connection, shipment, answer, now)
            if not shipment.is_cancelling:  # a cancellation requested meanwhile has put its job already
                poll_at = now + timedelta(seconds=self._policy.tracking_poll_initial_s)
                await put_follow_up(connection, shipment.return_shipment_id, begun.carrier, poll_at, now)
        return written("booked")

    async def _record_refusal(
        self, connection: Connection, shipment: ReturnShipment, carrier: Carrier, error: ExternalRefusal, now: datetime
    ) -> JobResult:
        """Ask the next best carrier, or end a shipment that is being cancelled anyway."""
        text = f"{carrier.name} refuses: {error}"
        if shipment.is_cancelling:
            to = ReturnStatus.CANCELLED
            await self._steps.record_step(connection, shipment, to, now, "system", ACTOR, text)
            return written("cancelled")
        await store.record_refusal(connection, shipment.return_shipment_id)
        await self._steps.record_note(connection, shipment, now, "system", ACTOR, text)
        shipment = await _reload(connection, shipment)
        await assign_carrier(connection, self._carriers, self._steps, shipment, now)
        return written("refused")

    # Cancelling.

    async def _cancel(self, job: Job) -> JobResult:
        async with self._db.connection() as connection:
            before = await store.get_shipment(connection, job.subject)
        if before is None or not before.is_cancelling or before.booking_id is None:
            return _UNCHANGED
        carrier, confirmation = self._booked_carrier(before), None
        outcome = await carrier.cancel(before.booking_id, before.tracking_no)
        if outcome == "absent":
            self._require_absence(before)
        elif outcome == "too_late" and before.tracking_no is None:
            confirmation = await carrier.find_booking(before.booking_id)
            if confirmation is None:
                raise ExternalOutcomeUnknown("the carrier has the shipment and does not send its tracking number")
        failpoint("return_shipment.after_cancel")
        now = self._now()
        async with self._db.transaction() as connection:
            shipment = await lock_return(connection, job.subject)
            if not shipment.is_cancelling or shipment.booking_id != before.booking_id:
                return _UNCHANGED
            # A tracking event may have arrived before the answer.
            if outcome != "too_late" and shipment.status in (
                ReturnStatus.REQUESTED,
                ReturnStatus.BOOKED,
            ):
                to, text = ReturnStatus.CANCELLED, "its booking is cancelled"
                await self._steps.record_step(connection, shipment, to, now, "system", ACTOR, text)
                return written("cancelled")
            await store.set_cancelling(connection, shipment.return_shipment_id, False)
            if shipment.status is ReturnStatus.REQUESTED and confirmation is not None:
                await self._steps.record_booking(connection, shipment, confirmation, now)
            text = f"too late to cancel: {shipment.carrier} has collected it"
            await self._steps.record_note(connection, shipment, now, "system", ACTOR, text)
            await put_follow_up(connection, shipment.return_shipment_id, carrier, now, now)
        return written("too_late")

    def _require_absence(self, shipment: ReturnShipment) -> None:
        """Raise `ExternalOutcomeUnknown` while the last request may still be on its way to the carrier."""
        assert shipment.requested_at is not None
        if self._now() < shipment.requested_at + timedelta(seconds=self._lease_s):
            raise ExternalOutcomeUnknown("the carrier does not know the booking, and may receive it yet")

    # Tracking.

    async def _subscribe(self, job: Job) -> JobResult:
        shipment = await self._read_followed(job)
        if shipment is None or shipment.tracking_no is None:
            return _UNCHANGED
        await self._booked_carrier(shipment).subscribe(shipment.tracking_no, shipment.from_address.phone)
        return postponed("subscribed", self._next_poll_at(shipment), "return_shipment.poll")

    async def _poll(self, job: Job) -> JobResult:
        shipment = await self._read_followed(job)
        if shipment is None or shipment.tracking_no is None:
            return _UNCHANGED
        carrier = self._booked_carrier(shipment)
        if carrier.min_poll_interval_s:
            async with self._db.connection() as connection:
                poll_at = await store.begin_poll(connection, shipment, self._now(), carrier.min_poll_interval_s)
            if poll_at is not None:
                return postponed("waiting", max(poll_at, self._now() + timedelta(seconds=1)))
        try:
            reported = await carrier.fetch_tracking(shipment.tracking_no, shipment.from_address.phone)
        except ExternalOutcomeUnknown as error:
            return failed(NO_ANSWER, str(error), self._now() + timedelta(seconds=carrier.min_poll_interval_s))
        async with self._db.transaction() as connection:
            locked = await lock_return(connection, job.subject)
            if not is_followed(locked) or locked.tracking_no != shipment.tracking_no:
                return _UNCHANGED
            events, now = by_key(reported), self._now()
            word, _ = await self._steps.apply_events(connection, locked, events, "query", carrier.system, now)
            current = await _reload(connection, locked)
            is_collected = current.booked_by == "shop" and current.status is ReturnStatus.BOOKED
            if is_collected and await self._cancel_if_not_awaited(connection, current, carrier, now):
                return written("stopped")
            ended = not is_followed(current)
        return finished(word) if ended else postponed(word, self._next_poll_at(shipment))

    async def _read_followed(self, job: Job) -> ReturnShipment | None:
        async with self._db.connection() as connection:
            shipment = await store.get_shipment(connection, job.subject)
        return shipment if shipment is not None and is_followed(shipment) else None

    def _booked_carrier(self, shipment: ReturnShipment) -> Carrier:
        carrier = self._carriers.carrier_of(shipment)
        if carrier is None:
            raise ExternalRefusal("not_offered", f"the settings do not name {shipment.carrier}")
        return carrier

    def _next_poll_at(self, shipment: ReturnShipment) -> datetime:
        """Return the next time to poll.

        Polls become rarer as the booking ages, since webhooks bring most events."""
        now, carrier = self._now(), self._carriers.carrier_of(shipment)
        age_s = (now - (shipment.booked_at or now)).total_seconds()
        wait_s = min(max(age_s / 4, self._policy.tracking_poll_initial_s), self._policy.tracking_poll_max_s)
        return now + timedelta(seconds=max(wait_s, carrier.min_poll_interval_s if carrier else 0))

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def is_followed(shipment: ReturnShipment) -> bool:
    """Tell whether a shipment is with its carrier, or will be, and its tracking is of interest."""
    return shipment.tracking_no is not None and not shipment.is_cancelling and shipment.ended_at is None


async def _reload(connection: Connection, shipment: ReturnShipment) -> ReturnShipment:
    current = await store.get_shipment(connection, shipment.return_shipment_id)
    assert current is not None
    return current


def _park_refused(
    work: Callable[[Job], Awaitable[JobResult]],
) -> Callable[[Sequence[Job]], Awaitable[Sequence[JobResult]]]:
    async def work_on(jobs: Sequence[Job]) -> Sequence[JobResult]:
        [job] = jobs
        try:
            return [await work(job)]
        except ExternalRefusal as error:
            return [parked("refused", f"the carrier refuses: {error}")]
        except UniqueViolationError as error:
            if error.constraint_name != store.NUMBER_CONSTRAINT:
                raise
            return [
                parked("tracking_no_conflict", "the carrier returned the tracking number of another return shipment")
            ]

    return work_on
