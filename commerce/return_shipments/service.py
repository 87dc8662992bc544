"""Return shipments: requested from carriers or announced by customers, cancelled, ended by staff.

Calls to carriers are stored as jobs for the fulfilment worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.jobs import store as jobs
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.return_shipments import store
from commerce.return_shipments.carrier_selection import ReturnCarriers
from commerce.return_shipments.errors import InvalidReturnState, TrackingNoTaken
from commerce.return_shipments.model import (
    EventSource,
    NewReturnShipment,
    ReturnShipment,
    ReturnShipmentDetails,
    ReturnShipmentView,
    ReturnStatus,
    TrackingInput,
)
from commerce.return_shipments.return_jobs import assign_carrier
from commerce.return_shipments.return_status import CaseHook, ReturnSteps
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS, put_follow_up, put_task
from commerce.return_shipments.return_tracking import steps_between
from commerce.shipping import store as outward_shipments
from commerce.shipping.model import to_tracking_no
from commerce.warehouses import store as warehouses

_MAX_NUMBERS = 20
"""tracking numbers of a customer for one case, with those that were corrected"""


class ReturnShipments:
    """Changes return shipments. Call each method inside a transaction that holds the lock of the order."""

    def __init__(self, ids: IdGenerator, carriers: ReturnCarriers, on_step: CaseHook) -> None:
        self._ids = ids
        self._carriers = carriers
        self._steps = ReturnSteps(on_step)

    async def request(self, connection: Connection, new: NewReturnShipment, now: datetime, actor: str) -> UUID:
        """Have a carrier collect units at the customer. Returns the return shipment, which is booked later.

        Raises `CannotReturn` if the units do not fit one box. If no carrier collects them, the job is parked."""
        size = await self._carriers.measure(connection, new.contents)
        id_ = self._ids.new()
        await store.insert_shipment(connection, id_, new, size, "shop", now, actor)
        await assign_carrier(connection, self._carriers, self._steps, await _get(connection, id_), now)
        return id_

    async def set_tracking(
        self, connection: Connection, new: NewReturnShipment, tracking: TrackingInput, now: datetime, actor: str
    ) -> UUID:
        """Record the carrier and the number with which the customer sends units. A repeat changes nothing.

        Another number takes the place of the one before until the warehouse has received the shipment. Raises
        `TrackingNoTaken` if another shipment has the number, and `InvalidReturnState` if a carrier is booked."""
        tracking_no = to_tracking_no(tracking.tracking_no)
        earlier = await store.list_shipments_of_case(connection, new.case_id)
        for shipment in earlier:
            if shipment.status is ReturnStatus.CANCELLED or shipment.received_at is not None:
                continue
            if shipment.booked_by == "shop":
                if shipment.status is ReturnStatus.LOST:
                    continue
                raise InvalidReturnState("a carrier is booked to collect the return: cancel that booking first")
            if (shipment.carrier, shipment.tracking_no) == (tracking.carrier, tracking_no):
                return shipment.return_shipment_id
            _check_count(earlier)
            await self._cancel_own(connection, shipment, now, "customer", actor, "its number was corrected")
        _check_count(earlier)
        await self._require_free_number(connection, tracking.carrier, tracking_no)
        return await self._insert_own(connection, new, tracking.carrier, tracking_no, now, actor)

    async def _require_free_number(self, connection: Connection, carrier: str, tracking_no: str) -> None:
        number = carrier, tracking_no
        if await outward_shipments.find_by_tracking_nos(connection, {number}):
            raise _taken(tracking_no)

    async def _insert_own(
        self, connection: Connection, new: NewReturnShipment, carrier: str, tracking_no: str, now: datetime, actor: str
    ) -> UUID:
        id_, size = self._ids.new(), await self._carriers.estimate(connection, new.contents)
        await store.insert_shipment(connection, id_, new, size, "customer", now, actor)
        try:
            async with connection.transaction():
                await store.set_own_number(connection, id_, carrier, tracking_no, now)
        except UniqueViolationError as error:
            if error.constraint_name != store.NUMBER_CONSTRAINT:
                raise
            raise _taken(tracking_no) from None
        text = f"sent with {carrier} as {tracking_no}"
        shipment = await _get(connection, id_)
        await self._steps.record_step(connection, shipment, ReturnStatus.BOOKED, now, "customer", actor, text)
        follower = self._carriers.carrier_of(shipment)
        if follower is not None and follower.is_external:
            await put_follow_up(connection, id_, follower, now, now)
        return id_

    async def _cancel_own(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        now: datetime,
        source: EventSource,
        actor: str,
        text: str,
    ) -> None:
        if shipment.ended_at is not None:
            # Events of the wrong number had ended it; the row keeps them, and the number is free again.
            await store.reopen(connection, shipment.return_shipment_id)
            shipment = await _get(connection, shipment.return_shipment_id)
        await self._steps.record_step(connection, shipment, ReturnStatus.CANCELLED, now, source, actor, text)

    async def cancel(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        now: datetime,
        source: EventSource,
        actor: str,
        reason: str,
    ) -> None:
        """Cancel a return shipment: at once without a booking, otherwise when the carrier has cancelled it.

        A repeat changes nothing. Raises `InvalidReturnState` once the carrier has it."""
        if shipment.status is ReturnStatus.CANCELLED or shipment.is_cancelling:
            return
        if shipment.booked_by == "customer" and shipment.received_at is None:
            await self._cancel_own(connection, shipment, now, source, actor, reason)
            return
        if shipment.status not in (ReturnStatus.REQUESTED, ReturnStatus.BOOKED):
            raise InvalidReturnState(f"cannot cancel the return shipment: it is {shipment.status.replace('_', ' ')}")
        if shipment.booking_id is None:
            to = ReturnStatus.CANCELLED
            await self._steps.record_step(connection, shipment, to, now, source, actor, reason)
            return
        await store.set_cancelling(connection, shipment.return_shipment_id, True)
        carrier = self._carriers.carrier_of(shipment)
        await put_task(connection, shipment.return_shipment_id, "return_shipment.cancel", carrier, now, now)
        await self._steps.record_note(connection, shipment, now, source, actor, f"to be cancelled: {reason}")

    async def set_outcome(
        self,
        connection: Connection,
        shipment: ReturnShipment,
        to: ReturnStatus,
        now: datetime,
        actor: str,
        text: str,
    ) -> None:
        """Set a final status that tracking does not report. A repeat changes nothing."""
        if shipment.status is to:
            return
        path = steps_between(shipment.status, to)
        if not path:
            raise InvalidReturnState(f"cannot set the outcome of the return shipment: it is {shipment.status}")
        for step in path:
            await self._steps.record_step(connection, shipment, step, now, "staff", actor, text)
            shipment = await _get(connection, shipment.return_shipment_id)

    async def view_case(self, connection: Connection, case_id: UUID) -> list[ReturnShipmentView]:
        """Return the return shipments of a case as its customer sees them, oldest first."""
        shipments = await store.list_shipments_of_case(connection, case_id)
        events = await store.list_events(connection, [shipment.return_shipment_id for shipment in shipments])
        addresses = await warehouses.warehouses_of(connection, {shipment.warehouse_id for shipment in shipments})
        return [
            ReturnShipmentView(
                return_shipment_id=shipment.return_shipment_id,
                booked_by=shipment.booked_by,
                status=shipment.status,
                to_address=addresses[shipment.warehouse_id].address,
                payer=shipment.payer,
                carrier=shipment.carrier,
                tracking_no=shipment.tracking_no,
                expected_on=shipment.expected_on,
                price=_price(shipment),
                events=events[shipment.return_shipment_id],
            )
            for shipment in shipments
        ]

    async def read(self, connection: Connection, return_shipment_ids: Sequence[UUID]) -> list[ReturnShipmentDetails]:
        """Read return shipments as staff see them, in this sequence."""
        shipments = await store.get_shipments(connection, return_shipment_ids)
        events = await store.list_events(connection, return_shipment_ids)
        states = {job.subject: job for job in await jobs.find(connection, RETURN_SHIPMENTS, return_shipment_ids)}
        details = list[ReturnShipmentDetails]()
        for id_ in return_shipment_ids:
            job = states.get(id_)
            work = (job.kind, job.last_error, job.parked) if job else (None, None, False)
            details.append(ReturnShipmentDetails(shipments[id_], events[id_], *work))
        return details


def _price(shipment: ReturnShipment) -> Money | None:
    if shipment.payer == "shop" or shipment.price_minor is None:
        return None
    return Money(shipment.price_minor, shipment.currency)


async def _get(connection: Connection, return_shipment_id: UUID) -> ReturnShipment:
    shipment = await store.get_shipment(connection, return_shipment_id)
    assert shipment is not None
    return shipment


def _check_count(earlier: Sequence[ReturnShipment]) -> None:
    """Raise `InvalidReturnState` once a customer has entered so many numbers for a case."""
    if sum(shipment.booked_by == "customer" for shipment in earlier) >= _MAX_NUMBERS:
        raise InvalidReturnState(f"{_MAX_NUMBERS} tracking numbers were entered for this case: contact the shop")


def _taken(tracking_no: str) -> TrackingNoTaken:
    return TrackingNoTaken(f"the tracking number {tracking_no} belongs to another shipment; check the receipt")
