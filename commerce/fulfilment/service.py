"""Fulfilment work of staff. Calls to carriers are stored as tasks for the fulfilment worker."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment, missing_address_fields
from commerce.fulfilment.errors import NoSuchWave, NotToBePlanned
from commerce.fulfilment.repacking import Repacking
from commerce.fulfilment.worklists import Worklists
from commerce.jobs import store as jobs
from commerce.kernel.address import Address, address_errors
from commerce.kernel.clock import Clock
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.model import FULFILMENTS
from commerce.shipping import shipment_status, shipment_tasks
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, CarrierRegistry, TrackingEvent
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from commerce.shipping.model import (
    WITH_CARRIER,
    AfterCancel,
    Appointment,
    Shipment,
    ShipmentDetails,
    ShipmentJob,
    ShipmentStatus,
    Wave,
    to_tracking_no,
)
from commerce.shipping.policy import ShippingPolicy
from commerce.shipping.records import ConfirmedBooking, NewBooking
from commerce.shipping.shipment_tasks import SHIPMENTS
from commerce.shipping.tracking import TrackingReport, by_key

_TAKEN = "belongs to another shipment; check the label"
_NOT_DISPATCHED = (ShipmentStatus.PLANNED, ShipmentStatus.BOOKED)


class Fulfilment(Worklists):
    """Work of staff on shipments. `actor` is the member of staff, as events record it.

    Methods that take a shipment id raise `NoSuchShipment`, and `InvalidShipmentState` if it is too late or too early.
    Each is one transaction that holds the order lock.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        assignment: CarrierAssignment,
        carriers: CarrierRegistry,
        policy: ShippingPolicy,
    ) -> None:
        super().__init__(db, clock, policy)
        self._ids = ids
        self._assignment = assignment
        self._carriers = carriers
        self.repacking = Repacking(db, clock, ids, assignment, policy)

    async def get(self, shipment_id: UUID) -> ShipmentDetails:
        """Read a shipment with its lines and all its events."""
        async with self._db.connection() as connection:
            shipment = await self._read(connection, shipment_id)
            lines = await shipments.list_shipment_lines(connection, [shipment_id])
            events = await shipments.list_shipment_events(connection, shipment.order_id, shipment_id)
            job = await shipment_tasks.get_job(connection, shipment_id)
        return ShipmentDetails(shipment, shipments.make_line_views(lines[shipment_id]), events, job)

    async def _read(self, connection: Connection, shipment_id: UUID) -> Shipment:
        shipment = await shipments.get_shipment(connection, shipment_id)
        if shipment is None:
            raise NoSuchShipment(f"there is no shipment {shipment_id}")
        return shipment

    # Packing.

    async def pack(self, shipment_id: UUID, tracking_no: str | None, actor: str) -> ShipmentDetails:
        """Record that a shipment is packed. A repeat changes nothing.

        `tracking_no` is required where staff book with the carrier themselves, and is then the booking.
        """
        if tracking_no is not None:
            tracking_no = to_tracking_no(tracking_no)
        try:
            async with self._db.transaction() as connection:
                await self._pack(connection, shipment_id, tracking_no, actor)
        except UniqueViolationError as error:
            if error.constraint_name != shipments.TRACKING_NO_CONSTRAINT:
                raise
            raise InvalidShipmentState(f"the tracking number {tracking_no} {_TAKEN}") from None
        return await self.get(shipment_id)

    async def _pack(self, connection: Connection, shipment_id: UUID, tracking_no: str | None, actor: str) -> None:
        order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
        booked_no = None if shipment.tracking_no is None else to_tracking_no(shipment.tracking_no)
        if shipment.packed_at is not None and tracking_no in (None, booked_no):
            return
        _require_packable(shipment, await shipment_tasks.get_job(connection, shipment_id))
        if await shipment_status.must_not_ship(connection, order):
            raise InvalidShipmentState("cannot ship it: the order is refunded")
        if tracking_no not in (None, booked_no) and booked_no is not None:
            raise InvalidShipmentState(f"it is booked as {shipment.tracking_no}, not as {tracking_no}")
        now = self._now()
        if shipment.status is ShipmentStatus.PLANNED:
            await self._record_staff_booking(connection, shipment, tracking_no, now, actor)
        await store.mark_packed(connection, shipment_id, now, actor)
        await shipment_status.record_note(connection, shipment, now, "staff", actor, "it is packed")

    async def _record_staff_booking(
        self, connection: Connection, shipment: Shipment, tracking_no: str | None, now: datetime, actor: str
    ) -> None:
        carrier = self._carriers.by_name.get(shipment.carrier or "")
        if carrier is None or carrier.accepts_bookings:
            raise InvalidShipmentState("no carrier is booked for it yet")
        if tracking_no is None:
            raise Invalid(f"tracking_no: give the number that is on {carrier.name}'s label")
        if await shipments.find_by_tracking_nos(connection, {(carrier.name, tracking_no)}):
            raise InvalidShipmentState(f"the tracking number {tracking_no} {_TAKEN}")
        booking_id = self._ids.new()
        await shipments.insert_bookings(connection, [NewBooking(booking_id, shipment.shipment_id, carrier.name)], now)
        booked = ConfirmedBooking(shipment, booking_id, BookingConfirmation(tracking_no))
        await shipment_status.record_bookings(connection, [booked], now, "staff", actor)
        await shipment_tasks.put_follow_up(connection, shipment.shipment_id, carrier, now, now)

    async def create_wave(self, warehouse_id: str, max_shipments: int, actor: str) -> Wave:
        """Create a wave of shipments to pack at a warehouse, oldest first.

        Raises `Invalid` for an unknown warehouse and `InvalidShipmentState` if there is nothing to pack.
        """
        async with self._db.transaction() as connection:
            if not await store.has_warehouse(connection, warehouse_id):
                raise Invalid(f"there is no warehouse {warehouse_id}")
            wave_id = self._ids.new()
            if not await store.create_wave(connection, wave_id, warehouse_id, self._now(), actor, max_shipments):
                raise InvalidShipmentState("all shipments to pack there are in waves already")
            wave = await store.get_wave(connection, wave_id)
        assert wave is not None
        return wave

    async def get_wave(self, wave_id: UUID) -> Wave:
        """Read a wave with its picks by shelf. Raises `NoSuchWave`."""
        async with self._db.connection() as connection:
            wave = await store.get_wave(connection, wave_id)
        if wave is None:
            raise NoSuchWave(f"there is no wave {wave_id}")
        return wave

    # Hold, cancel, redirect.

    async def hold(self, shipment_id: UUID, reason: str, actor: str) -> ShipmentDetails:
        """Hold a shipment: nothing is done with it until it is resumed."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.status not in _NOT_DISPATCHED:
                raise InvalidShipmentState(f"it is {shipment.status}: only a shipment that has not left can be held")
            await store.set_hold(connection, shipment_id, reason)
            await shipment_status.record_note(connection, shipment, self._now(), "staff", actor, f"held: {reason}")
        return await self.get(shipment_id)

    async def resume(self, shipment_id: UUID, actor: str) -> ShipmentDetails:
        """Resume a shipment that was held. A repeat changes nothing."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.held_reason is not None:
                await store.set_hold(connection, shipment_id, None)
                await self._make_due(connection, shipment_id)
                await shipment_status.record_note(connection, shipment, self._now(), "staff", actor, "resumed")
        return await self.get(shipment_id)

    async def _make_due(self, connection: Connection, shipment_id: UUID) -> None:
        """Make a shipment's job due unless it is parked."""
        job = await shipment_tasks.get_job(connection, shipment_id)
        if job is not None and not job.parked:
            await jobs.retry(connection, SHIPMENTS, [shipment_id], self._now())

    async def replan(self, order_id: UUID) -> None:
        """Put the job that plans an order which has none: it was stopped for a refund that has failed since.

        Raises `NoSuchOrder`, and `NotToBePlanned` if it is planned or was never paid, or has a job, which staff retry
        if it is parked.
        """
        async with self._db.transaction() as connection:
            if await orders.lock_order(connection, order_id) is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            current = await store.get_fulfilment(connection, order_id)
            if current is None or current.status != "pending":
                raise NotToBePlanned(f"the order {order_id} is planned already, or was never paid")
            if await jobs.find(connection, FULFILMENTS, [order_id]):
                raise NotToBePlanned(
                    f"the order {order_id} is about to be planned; "
                    f"if its job is parked: `floodgate jobs retry {FULFILMENTS} {order_id}`"
                )
            now = self._now()
            await shipment_tasks.put_order_tasks(connection, [order_id], "order.plan", now, now)

    async def cancel(self, shipment_id: UUID, reason: str, actor: str) -> ShipmentDetails:
        """Cancel a shipment: at once without a booking, otherwise when the carrier has cancelled the booking.

        A repeat changes nothing.
        """
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.status is not ShipmentStatus.CANCELLED:
                await self._cancel_booking(connection, shipment, "cancelled", f"cancelled: {reason}", actor)
        return await self.get(shipment_id)

    async def redirect(self, shipment_id: UUID, address: Address, reason: str, actor: str) -> ShipmentDetails:
        """Change the address before handover. The carrier is chosen again; a booking is cancelled first.

        Raises `Invalid` with the field errors of the address.
        """
        errors = [{"pointer": f"/address/{name}", "detail": detail} for name, detail in address_errors(address)]
        if missing := missing_address_fields(address):
            errors.append({"pointer": "/address", "detail": missing})
        if errors:
            raise Invalid("{pointer}: {detail}".format(**errors[0]), errors=errors)
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            has_booking = shipment.status is not ShipmentStatus.PLANNED or shipment.booking_id is not None
            await shipments.redirect_shipment(connection, shipment_id, address, later=has_booking)
            await self._cancel_booking(connection, shipment, "planned", f"another address: {reason}", actor)
        return await self.get(shipment_id)

    async def _cancel_booking(
        self, connection: Connection, shipment: Shipment, after_cancel: AfterCancel, note: str, actor: str
    ) -> None:
        """Bring a shipment to the status `after_cancel`, once its booking is cancelled if it has one."""
        if shipment.status not in _NOT_DISPATCHED:
            raise InvalidShipmentState(f"it is {shipment.status}: the carrier has it")
        if shipment.after_cancel == "cancelled" and after_cancel == "planned":
            raise InvalidShipmentState("it is being cancelled")
        now, id_ = self._now(), shipment.shipment_id
        if shipment.booking_id is None and after_cancel == "cancelled":
            await shipment_status.record_step(connection, shipment, ShipmentStatus.CANCELLED, now, "staff", actor, note)
            return
        if shipment.booking_id is not None:
            await shipments.set_after_cancel(connection, id_, after_cancel)
            carrier = self._carriers.by_name.get(shipment.carrier or "")
            await shipment_tasks.put_task(connection, id_, "shipment.cancel", carrier, now, now)
        else:
            await self._assign_again(connection, id_, now)
        await shipment_status.record_note(connection, shipment, now, "staff", actor, note)

    async def _assign_again(self, connection: Connection, shipment_id: UUID, now: datetime) -> None:
        await shipments.clear_refusals(connection, [shipment_id])
        await self._assignment.assign(connection, await self._read(connection, shipment_id), now)

    # After dispatch.

    async def resolve(self, shipment_id: UUID, resolution: str, actor: str) -> ShipmentDetails:
        """Record that a problem was dealt with.

        The shipment leaves the worklists `undelivered` and `anomalies`.
        """
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            now = self._now()
            await store.mark_resolved(connection, shipment_id, now, resolution)
            await shipment_status.record_note(connection, shipment, now, "staff", actor, f"resolved: {resolution}")
        return await self.get(shipment_id)

    async def set_outcome(self, shipment_id: UUID, status: ShipmentStatus, reason: str, actor: str) -> ShipmentDetails:
        """Set the final status (delivered, lost, returned) that the carrier's tracking does not report.

        A repeat changes nothing.
        """
        async with self._db.transaction() as connection:
            locked = await shipment_status.lock_shipment(connection, shipment_id)
            shipment = locked.shipment
            if shipment.status is not status:
                if shipment.status not in (ShipmentStatus.BOOKED, *WITH_CARRIER):
                    raise InvalidShipmentState(f"cannot set the outcome of the shipment: it is {shipment.status}")
                now = self._now()
                event = TrackingEvent(now, "staff", reason, status)
                report = TrackingReport(shipment_id, by_key([event]), "staff", actor)
                await shipment_status.apply_reports(connection, {shipment_id: locked}, [report], now, self._policy)
        return await self.get(shipment_id)

    async def set_appointment(self, shipment_id: UUID, appointment: Appointment, actor: str) -> ShipmentDetails:
        """Set the delivery window in the shop's time, and the coordinates, for route planning.

        Raises `Invalid` if only one end of the window or one coordinate is given.
        """
        window = appointment.deliver_from, appointment.deliver_to
        coordinates = appointment.latitude, appointment.longitude
        for pair in (window, coordinates):
            if None in pair and pair != (None, None):
                raise Invalid("give both ends of the window, and both coordinates, or neither")
        if window[0] is not None and window[1] is not None and window[0] >= window[1]:
            raise Invalid("deliver_to must be after deliver_from")
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.ended_at is not None:
                raise InvalidShipmentState(f"cannot make an appointment for the shipment: it is {shipment.status}")
            await store.set_appointment(connection, shipment_id, window, coordinates)
            await shipment_status.record_note(
                connection, shipment, self._now(), "staff", actor, "an appointment was made"
            )
        return await self.get(shipment_id)


def _require_packable(shipment: Shipment, job: ShipmentJob | None) -> None:
    if shipment.status not in _NOT_DISPATCHED:
        raise InvalidShipmentState(f"cannot pack the shipment: it is {shipment.status}")
    if shipment.held_reason is not None:
        raise InvalidShipmentState(f"cannot pack the shipment: it is held: {shipment.held_reason}")
    if job is not None and job.parked:
        raise InvalidShipmentState(f"cannot pack the shipment: it is parked: {job.last_error}")
    if shipment.after_cancel is not None:
        raise InvalidShipmentState("cannot pack the shipment: its booking is being cancelled")
