"""What is to be done next with parcels, row by row: plan, book, cancel, follow, look for news.

What is to be done outside is written down before it is asked (the booking) and after it was answered, each in its own
transaction with the order locked. In between the row is leased; who takes it up after a crash asks again under the same
booking, which the carrier makes only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.model import FulfilmentJob
from commerce.fulfilment.planning import FulfilmentPlanner
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import OrderHeader
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, Carrier, CarrierRegistry
from commerce.shipping.errors import CannotShip
from commerce.shipping.model import Shipment, ShipmentStatus, Task
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.shipment_status import TrackingResult
from commerce.warehouses import store as warehouses

Job = Shipment | FulfilmentJob
_S = ShipmentStatus


class FulfilmentJobs:
    """Claims due rows and does one at a time. A job that fails `attempts` times is parked."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        policy: RetryPolicy,
        attempts: int,
        carriers: CarrierRegistry,
        assigning: CarrierAssignment,
        rules: ShippingPolicy,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._attempts = attempts
        self._carriers = carriers
        self._assigning = assigning
        self._planning = FulfilmentPlanner(ids, assigning, rules)
        self._rules = rules
        self._down: frozenset[str] = frozenset()

    def system_of(self, job: Job) -> str:
        """Who is called for it; `ours` for what is our own to do."""
        carrier = self._carrier(job) if isinstance(job, Shipment) else None
        if carrier is None or not carrier.is_external or (isinstance(job, Shipment) and self._may_reassign(job)):
            return "ours"
        return carrier.system

    def _carrier(self, job: Shipment) -> Carrier | None:
        return self._carriers.by_name.get(job.carrier) if job.carrier else None

    def _may_reassign(self, job: Shipment) -> bool:
        """Whether it waits for one that is down, was not asked yet, and may go to another."""
        return job.task == "book" and job.booking_id is None and job.carrier in self._down

    async def claim(self, count: int, without: Sequence[str], down: Sequence[str]) -> list[Job]:
        """Due orders and parcels, except those of the systems named; from those that are down parcels are taken away
        which they were not asked for yet."""
        now, names = self._now(), self._carriers.by_name
        self._down = frozenset(
            name for name, carrier in names.items() if carrier.accepts_bookings and carrier.system in down
        )
        closed = [name for name, carrier in names.items() if carrier.system in without]
        async with self._db.connection() as connection:
            lease_s = self._policy.lease_s
            # A quarter is kept for orders that are to be planned.
            due = await shipments.claim(connection, now, lease_s, count - count // 4, closed, list(self._down))
            planned = await store.claim_fulfilments(connection, now, lease_s, count - len(due))
        return [*due, *planned]

    async def work(self, job: Job) -> str:
        """Do what is to be done; gives a word for what became of it. Raises `Unclear` where the carrier did not say,
        after the job was postponed."""
        if isinstance(job, FulfilmentJob):
            return await self._order(job)
        try:
            return await self._shipment(job)
        except ExternalOutcomeUnknown as error:
            await self._postpone(job, str(error), park=False)
            raise
        except ExternalRefusal as error:
            await self._postpone(job, f"{job.carrier} refuses: {error}", park=True)
            return "refused"
        except UniqueViolationError:
            await self._postpone(job, f"{job.carrier} gives it the number of another parcel", park=True)
            return "taken_number"

    # Orders.

    async def _order(self, job: FulfilmentJob) -> str:
        now = self._now()
        try:
            async with self._db.transaction() as connection:
                if job.status == "delivered":
                    return await self._complete(connection, job, now)
                if job.status == "planned":
                    return await self._stop(connection, job)
                return await self._planning.plan(connection, job, now)
        except CannotShip as error:
            async with self._db.connection() as connection:
                await store.postpone_fulfilment(connection, job.order_id, now, str(error), park=True)
            return "cannot_ship"

    async def _complete(self, connection: Connection, job: FulfilmentJob, now: datetime) -> str:
        order = await orders.lock_order(connection, job.order_id)
        current = await store.get_fulfilment(connection, job.order_id)
        if order is None or current is None or current.status != "delivered":
            return "known"
        why = "the time to give it back is over"
        await orders.advance_status(
            connection, order.order_id, OrderStatus.DELIVERED, OrderStatus.COMPLETED, now, shipment_status.ACTOR, why
        )
        await store.mark_fulfilment_done(connection, order.order_id)
        return "completed"

    async def _stop(self, connection: Connection, job: FulfilmentJob) -> str:
        """Some of its money goes back: if it is all, no parcel leaves that is still here, whoever it waits for."""
        order = await orders.lock_order(connection, job.order_id)
        current = await store.get_fulfilment(connection, job.order_id)
        if order is None or current is None or current.status != "planned":
            return "known"
        await store.mark_fulfilment_checked(connection, job.order_id)
        if not await shipment_status.must_not_ship(connection, order):
            return "known"
        for shipment in await shipments.shipments_of(connection, job.order_id):
            is_being_cancelled = shipment.task == "cancel" and shipment.after_cancel == "cancelled"
            if shipment.status in (_S.PLANNED, _S.BOOKED) and not is_being_cancelled:
                await self._cancel_before_dispatch(connection, shipment)
        return "stopped"

    # Parcels.

    async def _shipment(self, job: Shipment) -> str:
        carrier = self._carrier(job)
        if carrier is None and job.carrier is not None and job.booking_id is not None:
            raise ExternalRefusal("not_offered", "the settings do not name it")
        if job.task == "book":
            return await self._book(job, carrier)
        assert carrier is not None
        if job.task == "cancel":
            return await self._cancel(job, carrier)
        assert job.tracking_no is not None
        if job.task == "subscribe":
            await carrier.subscribe(job.tracking_no, job.address.phone)
            async with self._db.transaction() as connection:
                _, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
                if shipment.task == "subscribe":
                    await shipments.set_task(connection, job.shipment_id, "track", self._next_look(shipment))
            return "followed"
        return await self._track(job, carrier)

    async def _book(self, job: Shipment, carrier: Carrier | None) -> str:
        if carrier is None or self._may_reassign(job):
            return await self._assign(job)
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if not _to_be_booked(shipment) or shipment.carrier != carrier.name:
                return "known"
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            shipment = await self._ask(connection, shipment, carrier)
            parcel = await self._parcel(connection, shipment)
        try:
            found = await carrier.book(parcel)
        except ExternalRefusal as error:
            return await self._refused(shipment, carrier, error)
        failpoint("shipment.after_book")
        return await self._booked(shipment, carrier, found)

    async def _cancel_if_must_not_ship(self, connection: Connection, order: OrderHeader, shipment: Shipment) -> bool:
        """Whether it must not be sent any more: then it is cancelled, or its booking is about to be."""
        if not await shipment_status.must_not_ship(connection, order):
            return False
        await self._cancel_before_dispatch(connection, shipment)
        return True

    async def _cancel_before_dispatch(self, connection: Connection, shipment: Shipment) -> None:
        now = self._now()
        if shipment.booking_id is None:
            why = "the order's money goes back"
            await shipment_status.record_step(
                connection, shipment, _S.CANCELLED, now, "system", shipment_status.ACTOR, why
            )
        else:
            await shipments.set_task(connection, shipment.shipment_id, "cancel", now, "cancelled")

    async def _ask(self, connection: Connection, shipment: Shipment, carrier: Carrier) -> Shipment:
        if shipment.booking_id is not None:
            await shipments.touch_booking_request(connection, shipment.booking_id, self._now())
            return shipment
        await shipments.add_booking(connection, self._ids.new(), shipment.shipment_id, carrier.name, self._now())
        asked = await shipments.shipment(connection, shipment.shipment_id)
        assert asked is not None
        return asked

    async def _parcel(self, connection: Connection, shipment: Shipment) -> BookingRequest:
        senders = await warehouses.warehouses_of(connection, [shipment.warehouse_id])
        assert shipment.booking_id is not None
        return BookingRequest(
            booking_id=shipment.booking_id,
            order_id=shipment.order_id,
            sender=senders[shipment.warehouse_id].address,
            to=shipment.address,
            weight_g=shipment.weight_g,
            length_mm=shipment.length_mm,
            width_mm=shipment.width_mm,
            height_mm=shipment.height_mm,
            contents=await shipments.contents(connection, shipment.shipment_id),
            value=Money(shipment.value_minor, shipment.currency),
            cod=shipment.cod,
        )

    async def _assign(self, job: Shipment) -> str:
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if not _to_be_booked(shipment) or shipment.booking_id is not None:
                return "known"
            if await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            down = dict.fromkeys(self._down, "it does not answer now")
            name = await self._assigning.assign(connection, shipment, self._now(), without=down)
            # Better late than by nobody: it waits for the one that is down.
            if name is None and down and await self._assigning.assign(connection, shipment, self._now()):
                later = self._now() + timedelta(seconds=self._policy.max_s)
                await shipments.postpone(connection, shipment, later, "its carriers do not answer now", park=False)
                return "waiting"
        return "assigned" if name else "nobody"

    async def _refused(self, asked: Shipment, carrier: Carrier, error: ExternalRefusal) -> str:
        """The next best takes it, or a person looks at it."""
        now, why = self._now(), f"{carrier.name} refuses: {error}"
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, asked.shipment_id)
            if shipment.booking_id != asked.booking_id or shipment.status is not _S.PLANNED:
                return "known"
            assert asked.booking_id is not None
            await shipments.end_booking(connection, asked.booking_id, "refused", now, why)
            await shipments.record_refusal(connection, shipment.shipment_id, carrier.name)
            await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, why)
            if shipment.task == "cancel":
                return await self._after_booking_ended(connection, shipment)
            again = await shipments.shipment(connection, shipment.shipment_id)
            assert again is not None
            await self._assigning.assign(connection, again, now)
        return "refused"

    async def _booked(self, asked: Shipment, carrier: Carrier, found: BookingConfirmation) -> str:
        now = self._now()
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, asked.shipment_id)
            if shipment.booking_id != asked.booking_id or shipment.status is not _S.PLANNED:
                return "known"
            assert asked.booking_id is not None
            await shipment_status.record_booking(
                connection, shipment, asked.booking_id, found, now, "system", shipment_status.ACTOR
            )
            if await shipment_status.must_not_ship(connection, order):
                await shipments.set_task(connection, shipment.shipment_id, "cancel", now, "cancelled")
            elif shipment.task != "cancel":  # who has asked for that meanwhile has said what becomes of it then
                # Where nobody can be asked for news it is looked at all the same: the order may be stopped.
                task: Task = "subscribe" if carrier.needs_subscription else "track"
                look = (
                    now if carrier.needs_subscription else now + timedelta(seconds=self._rules.tracking_poll_initial_s)
                )
                await shipments.set_task(connection, shipment.shipment_id, task, look)
        return "booked"

    async def _cancel(self, job: Shipment, carrier: Carrier) -> str:
        assert job.booking_id is not None
        found, outcome = None, await carrier.cancel(job.booking_id, job.tracking_no)
        if outcome == "absent":
            await self._require_absence(job.booking_id)
        elif outcome == "too_late" and job.tracking_no is None:
            found = await carrier.find_booking(job.booking_id)
            if found is None:
                raise ExternalOutcomeUnknown("the carrier has the parcel, and does not say under which number")
        failpoint("shipment.after_cancel")
        now = self._now()
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if shipment.task != "cancel" or shipment.booking_id != job.booking_id:
                return "known"
            # Its news may have been quicker than the answer.
            if outcome == "too_late" or shipment.status not in (_S.PLANNED, _S.BOOKED):
                return await self._too_late(connection, shipment, found, now)
            await shipments.end_booking(connection, job.booking_id, "cancelled", now, "it is not wanted")
            return await self._after_booking_ended(connection, shipment)

    async def _require_absence(self, booking_id: UUID) -> None:
        """What was asked for a moment ago may still reach the carrier. Raises `Unclear` till that cannot be."""
        async with self._db.connection() as connection:
            asked_at = await shipments.asked_at(connection, booking_id)
        if self._now() < asked_at + timedelta(seconds=self._policy.lease_s):
            raise ExternalOutcomeUnknown("the carrier does not know the booking, and may not have got it yet")

    async def _after_booking_ended(self, connection: Connection, shipment: Shipment) -> str:
        """No carrier will come for it: it is planned anew, or it is over."""
        now = self._now()
        if shipment.after_cancel == "cancelled":
            why = "nobody comes for it any more"
            await shipment_status.record_step(
                connection, shipment, _S.CANCELLED, now, "system", shipment_status.ACTOR, why
            )
        elif shipment.status is _S.BOOKED:
            why = f"{shipment.carrier} does not come for it any more"
            await shipment_status.record_step(
                connection, shipment, _S.PLANNED, now, "system", shipment_status.ACTOR, why
            )
        await shipments.unbook(connection, shipment.shipment_id)
        if shipment.after_cancel == "cancelled":
            return "cancelled"
        if shipment.next_address is not None:
            await shipments.redirect(connection, shipment.shipment_id, shipment.next_address, later=False)
        await shipments.set_task(connection, shipment.shipment_id, "book", now)
        await shipments.forget_tried(connection, shipment.shipment_id)
        again = await shipments.shipment(connection, shipment.shipment_id)
        assert again is not None
        await self._assigning.assign(connection, again, now)
        return "planned_anew"

    async def _too_late(
        self, connection: Connection, shipment: Shipment, found: BookingConfirmation | None, now: datetime
    ) -> str:
        """The carrier has the parcel: it goes its way, and the desk is told. `found` is of one whose booking was
        unclear till now."""
        if shipment.status is _S.PLANNED:
            assert found is not None
            assert shipment.booking_id is not None
            await shipment_status.record_booking(
                connection, shipment, shipment.booking_id, found, now, "system", shipment_status.ACTOR
            )
        why = f"{shipment.carrier} has it already and does not give it back"
        await shipment_status.record_note(connection, shipment, now, "system", shipment_status.ACTOR, why)
        await shipments.set_task(connection, shipment.shipment_id, "track", self._next_look(shipment))
        return "too_late"

    async def _track(self, job: Shipment, carrier: Carrier) -> str:
        assert job.tracking_no is not None
        news = await carrier.fetch_tracking(job.tracking_no, job.address.phone)
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, job.shipment_id)
            if shipment.task != "track" or shipment.tracking_no != job.tracking_no:
                return "known"
            heard = TrackingResult("known")
            if news:
                heard = await shipment_status.apply_tracking_events(
                    connection, order, shipment, news, "query", carrier.system, self._now(), self._rules
                )
            waits = heard.result != "moved" and shipment.status is _S.BOOKED
            if waits and await self._cancel_if_must_not_ship(connection, order, shipment):
                return "stopped"
            await shipments.schedule_poll(connection, shipment.shipment_id, self._next_look(shipment))
        return heard.result

    def _next_look(self, shipment: Shipment) -> datetime:
        """Often at first, then more seldom: pushes tell most of it."""
        now = self._now()
        since = (now - (shipment.booked_at or now)).total_seconds()
        return now + timedelta(
            seconds=min(max(since / 4, self._rules.tracking_poll_initial_s), self._rules.tracking_poll_max_s)
        )

    async def _postpone(self, job: Shipment, why: str, *, park: bool) -> None:
        """Try again later; what has failed too often is parked, for a person to look at."""
        due_at = self._now() + timedelta(milliseconds=self._policy.delay_ms(job.attempts))
        async with self._db.connection() as connection:
            await shipments.postpone(connection, job, due_at, why, park=park or job.attempts >= self._attempts)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _to_be_booked(shipment: Shipment) -> bool:
    return shipment.status is _S.PLANNED and shipment.task == "book" and shipment.held_reason is None
