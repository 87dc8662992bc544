"""What staff do with a parcel. Whatever a carrier must be told of is a row for the shipment driver."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.fulfilment import store
from commerce.fulfilment.carrier_assignment import CarrierAssignment, missing_address_fields
from commerce.fulfilment.repacking import Repacking
from commerce.fulfilment.worklists import Worklists
from commerce.kernel.address import Address, address_errors
from commerce.kernel.clock import Clock
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import BookingConfirmation, CarrierRegistry, TrackingEvent
from commerce.shipping.errors import InvalidShipmentState, NoSuchShipment
from commerce.shipping.model import (
    WITH_CARRIER,
    Appointment,
    Shipment,
    ShipmentDetails,
    ShipmentStatus,
    Task,
    Then,
    Wave,
)
from commerce.shipping.policy import ShippingPolicy

_S = ShipmentStatus


class Fulfilment(Worklists):
    """The shipping desk. `actor` is who of the staff does it, as an event records it.

    Methods that take a parcel's id raise `NoSuchShipment`, and `NotNow` where it is too late or too early for it.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        assigning: CarrierAssignment,
        carriers: CarrierRegistry,
        rules: ShippingPolicy,
    ) -> None:
        super().__init__(db, clock, rules)
        self._ids = ids
        self._assigning = assigning
        self._carriers = carriers
        self.repacking = Repacking(db, clock, ids, assigning, rules)

    # Looking.

    async def show(self, shipment_id: UUID) -> ShipmentDetails:
        """A parcel with all that happened to it."""
        async with self._db.connection() as connection:
            shipment = await self._found(connection, shipment_id)
            lines = await shipments.lines_of(connection, [shipment_id])
            events = await shipments.events_of(connection, shipment.order_id, shipment_id)
        return ShipmentDetails(shipment, shipments.shown(lines[shipment_id]), events)

    async def _found(self, connection: Connection, shipment_id: UUID) -> Shipment:
        shipment = await shipments.shipment(connection, shipment_id)
        if shipment is None:
            raise NoSuchShipment(f"there is no shipment {shipment_id}")
        return shipment

    # Packing.

    async def pack(self, shipment_id: UUID, tracking_no: str | None, actor: str) -> ShipmentDetails:
        """It is packed; again changes nothing. With the carrier's number where the desk books it by itself."""
        try:
            async with self._db.transaction() as connection:
                await self._pack(connection, shipment_id, tracking_no, actor)
        except UniqueViolationError:
            raise InvalidShipmentState(
                f"the number {tracking_no} stands for another parcel: look at the label again"
            ) from None
        return await self.show(shipment_id)

    async def _pack(self, connection: Connection, shipment_id: UUID, tracking_no: str | None, actor: str) -> None:
        order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
        if shipment.packed_at is not None and tracking_no in (None, shipment.tracking_no):
            return
        _may_leave(shipment)
        if await shipment_status.must_not_ship(connection, order):
            raise InvalidShipmentState("cannot ship it: the order is refunded")
        if tracking_no not in (None, shipment.tracking_no) and shipment.tracking_no is not None:
            raise InvalidShipmentState(f"it is booked as {shipment.tracking_no}, not as {tracking_no}")
        now = self._now()
        if shipment.status is _S.PLANNED:
            await self._book_here(connection, shipment, tracking_no, now, actor)
        await store.pack(connection, shipment_id, now, actor)
        await shipment_status.record_note(connection, shipment, now, "staff", actor, "it is packed")

    async def _book_here(
        self, connection: Connection, shipment: Shipment, number: str | None, now: datetime, actor: str
    ) -> None:
        carrier = self._carriers.by_name.get(shipment.carrier or "")
        if carrier is None or carrier.accepts_bookings:
            raise InvalidShipmentState("no carrier is booked for it yet")
        if number is None:
            raise Invalid(f"tracking_no: say {carrier.name}'s number, which is on its label")
        booking_id = self._ids.new()
        await shipments.add_booking(connection, booking_id, shipment.shipment_id, carrier.name, now)
        await shipment_status.record_booking(
            connection, shipment, booking_id, BookingConfirmation(number), now, "staff", actor
        )
        task: Task = "subscribe" if carrier.needs_subscription else "track"
        await shipments.set_task(connection, shipment.shipment_id, task, now)

    async def create_wave(self, warehouse_id: str, parcels: int, actor: str) -> Wave:
        """Gather what is to be packed there, the oldest first, into one walk. Raises `NotNow` if that is nothing."""
        async with self._db.transaction() as connection:
            if not await store.warehouse_exists(connection, warehouse_id):
                raise Invalid(f"there is no warehouse {warehouse_id}")
            wave_id = self._ids.new()
            if not await store.make_wave(connection, wave_id, warehouse_id, self._now(), actor, parcels):
                raise InvalidShipmentState("nothing is to be packed there that is in no wave yet")
            found = await store.wave(connection, wave_id)
        assert found is not None
        return found

    async def wave(self, wave_id: UUID) -> Wave:
        async with self._db.connection() as connection:
            found = await store.wave(connection, wave_id)
        if found is None:
            raise NoSuchShipment(f"there is no wave {wave_id}")
        return found

    # Stopping and going on.

    async def hold(self, shipment_id: UUID, reason: str, actor: str) -> ShipmentDetails:
        """Nothing is done with it before it is let go."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.status not in (_S.PLANNED, _S.BOOKED):
                raise InvalidShipmentState(f"it is {shipment.status}: only what has not left can be held")
            await store.hold(connection, shipment_id, reason, self._now())
            await shipment_status.record_note(connection, shipment, self._now(), "staff", actor, f"held: {reason}")
        return await self.show(shipment_id)

    async def resume(self, shipment_id: UUID, actor: str) -> ShipmentDetails:
        """It goes on; again changes nothing."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.held_reason is not None:
                await store.hold(connection, shipment_id, None, self._now())
                await shipment_status.record_note(connection, shipment, self._now(), "staff", actor, "let go")
        return await self.show(shipment_id)

    async def retry(self, shipment_id: UUID, actor: str) -> ShipmentDetails:
        """Take up what was given up, after what stood in its way was mended; every carrier is asked again."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if not shipment.parked or shipment.task is None:
                raise InvalidShipmentState("it was not given up")
            now = self._now()
            await shipments.set_task(connection, shipment_id, shipment.task, now, shipment.after_cancel)
            if shipment.task == "book" and shipment.booking_id is None:
                await shipments.forget_tried(connection, shipment_id)
                await self._assigning.assign(connection, await self._found(connection, shipment_id), now)
            await shipment_status.record_note(connection, shipment, now, "staff", actor, "taken up again")
        return await self.show(shipment_id)

    async def retry_order(self, order_id: UUID) -> None:
        """Take up an order that could not be made into parcels."""
        async with self._db.connection() as connection:
            if not await store.retry_order(connection, order_id, self._now()):
                raise NoSuchShipment(f"the order {order_id} is not among those that could not be planned")

    async def cancel(self, shipment_id: UUID, reason: str, actor: str) -> ShipmentDetails:
        """It is not sent: at once where nobody is booked, else when the carrier has said that it will not come."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.status is not _S.CANCELLED:
                await self._withdraw(connection, shipment, "cancelled", f"cancelled: {reason}", actor)
        return await self.show(shipment_id)

    async def redirect(self, shipment_id: UUID, address: Address, reason: str, actor: str) -> ShipmentDetails:
        """Another address, before it is handed over: it is rated anew; a booking is cancelled first."""
        faults = [{"pointer": f"/address/{name}", "detail": detail} for name, detail in address_errors(address)]
        if fault := missing_address_fields(address):
            faults.append({"pointer": "/address", "detail": fault})
        if faults:
            raise Invalid("{at}: {detail}".format(**faults[0]), errors=faults)
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            unbooked = shipment.status is _S.PLANNED and shipment.booking_id is None
            await shipments.redirect(connection, shipment_id, address, later=not unbooked)
            await self._withdraw(connection, shipment, "planned", f"another address: {reason}", actor)
        return await self.show(shipment_id)

    async def _withdraw(self, connection: Connection, shipment: Shipment, then: Then, text: str, actor: str) -> None:
        if shipment.status not in (_S.PLANNED, _S.BOOKED):
            raise InvalidShipmentState(f"it is {shipment.status}: the carrier has it")
        if shipment.task == "cancel" and shipment.after_cancel == "cancelled" and then == "planned":
            raise InvalidShipmentState("it is being cancelled")
        now, id_ = self._now(), shipment.shipment_id
        if shipment.booking_id is not None:
            await shipments.set_task(connection, id_, "cancel", now, then)
            await shipment_status.record_note(connection, shipment, now, "staff", actor, text)
        elif then == "cancelled":
            await shipment_status.record_step(connection, shipment, _S.CANCELLED, now, "staff", actor, text)
        else:
            await shipments.forget_tried(connection, id_)
            await self._assigning.assign(connection, await self._found(connection, id_), now)
            await shipment_status.record_note(connection, shipment, now, "staff", actor, text)

    # Afterwards.

    async def resolve(self, shipment_id: UUID, note: str, actor: str) -> ShipmentDetails:
        """What went wrong with it was dealt with: it leaves the lists of what failed or is odd."""
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            await store.settle(connection, shipment_id, self._now(), note)
            await shipment_status.record_note(connection, shipment, self._now(), "staff", actor, f"settled: {note}")
        return await self.show(shipment_id)

    async def set_outcome(self, shipment_id: UUID, state: ShipmentStatus, reason: str, actor: str) -> ShipmentDetails:
        """It arrived, is lost or came back, and its carrier's news do not say so. Again changes nothing."""
        async with self._db.transaction() as connection:
            order, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.status is not state:
                if shipment.status not in (_S.BOOKED, *WITH_CARRIER):
                    raise InvalidShipmentState(f"it is {shipment.status}")
                now = self._now()
                news = [TrackingEvent(now, "desk", reason, state)]
                await shipment_status.apply_tracking_events(
                    connection, order, shipment, news, "staff", actor, now, self._rules
                )
        return await self.show(shipment_id)

    async def set_appointment(self, shipment_id: UUID, wanted: Appointment, actor: str) -> ShipmentDetails:
        """When the customer is there, and where that is; for the planning of routes."""
        window, where = (wanted.deliver_from, wanted.deliver_to), (wanted.latitude, wanted.longitude)
        if (None in window and window != (None, None)) or (None in where and where != (None, None)):
            raise Invalid("give both ends of the window, and both coordinates, or neither")
        if window[0] is not None and window[1] is not None and window[0] >= window[1]:
            raise Invalid("the window ends before it begins")
        async with self._db.transaction() as connection:
            _, shipment = await shipment_status.lock_shipment(connection, shipment_id)
            if shipment.ended_at is not None:
                raise InvalidShipmentState(f"it is {shipment.status}")
            await store.appoint(connection, shipment_id, window, where)
            await shipment_status.record_note(
                connection, shipment, self._now(), "staff", actor, "an appointment was made"
            )
        return await self.show(shipment_id)


def _may_leave(shipment: Shipment) -> None:
    if shipment.status not in (_S.PLANNED, _S.BOOKED):
        raise InvalidShipmentState(f"it is {shipment.status}")
    if shipment.held_reason is not None:
        raise InvalidShipmentState(f"it is held: {shipment.held_reason}")
    if shipment.parked:
        raise InvalidShipmentState(f"it was given up: {shipment.last_error}")
    if shipment.task == "cancel":
        raise InvalidShipmentState("its booking is being cancelled")
