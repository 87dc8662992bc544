"""Lets a case follow its return shipments. Called inside a transaction that holds the order lock."""

from __future__ import annotations

from datetime import datetime, timedelta

from commerce.aftersales import store
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import change_case, lock_case
from commerce.aftersales.model import CaseStatus, CaseSummary
from commerce.kernel.errors import ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.return_shipments import store as return_shipments
from commerce.return_shipments.model import ReturnShipment, ReturnStatus

ACTOR = "return_shipments"
_AWAITS_SHIPMENT = (CaseStatus.APPROVED, CaseStatus.IN_TRANSIT)
_MOVED = (ReturnStatus.PICKED_UP, ReturnStatus.IN_TRANSIT, ReturnStatus.DELIVERED)
_VERBS = {ReturnStatus.BOOKED: "is sent", ReturnStatus.DELIVERED: "has arrived"}


class CaseFollower:
    """Implements `commerce.return_shipments.return_status.CaseHook`."""

    def __init__(self, ids: IdGenerator, policy: AftersalesPolicy) -> None:
        self._decisions = CaseDecisions(ids, policy)
        self._policy = policy

    async def __call__(
        self, connection: Connection, shipment: ReturnShipment, status: ReturnStatus, now: datetime
    ) -> None:
        """Let the case of a return shipment follow it; a case that awaits no units stays as it is.

        If the shop's carrier has lost all units, the case is resolved for the customer. If a carrier of the customer's
        own has, staff decide."""
        case = await store.get_case(connection, shipment.case_id)
        if case is None or case.status not in _AWAITS_SHIPMENT or not case.items_back:
            return
        if status in _MOVED or (status is ReturnStatus.BOOKED and shipment.booked_by == "customer"):
            await self._set_under_way(connection, case, shipment, status, now)
        elif status is ReturnStatus.BOOKED:
            reason = f"{shipment.carrier} collects the products as {shipment.tracking_no}"
            due_at = now + timedelta(seconds=self._policy.confirm_within_s)
            await change_case(connection, case, now, ACTOR, reason, waits_for="carrier", due_at=due_at)
        elif status is ReturnStatus.LOST:
            await self._follow_lost(connection, case, shipment, now)
        elif not await _has_others_under_way(connection, shipment):
            await change_case(
                *(connection, case, now, ACTOR, "no return shipment is on its way any more"),
                status=CaseStatus.APPROVED,
                items_state="expected",
                waits_for="customer",
                due_at=now + timedelta(seconds=self._policy.ship_within_s),
            )

    async def _set_under_way(
        self,
        connection: Connection,
        case: CaseSummary,
        shipment: ReturnShipment,
        status: ReturnStatus,
        now: datetime,
    ) -> None:
        waits_for = "warehouse" if status is ReturnStatus.DELIVERED else "carrier"
        if case.status is CaseStatus.IN_TRANSIT and case.waits_for == waits_for:
            return
        await change_case(
            *(connection, case, now, ACTOR),
            f"the return shipment {shipment.tracking_no} {_VERBS.get(status, 'is on its way')}",
            status=CaseStatus.IN_TRANSIT,
            items_state="in_transit",
            waits_for=waits_for,
            due_at=now + timedelta(seconds=self._policy.confirm_within_s),
        )

    async def _follow_lost(
        self, connection: Connection, case: CaseSummary, shipment: ReturnShipment, now: datetime
    ) -> None:
        reason = f"{shipment.carrier} has lost the return shipment {shipment.tracking_no}"
        if shipment.booked_by == "shop" and await _holds_all_units(connection, shipment):
            try:
                async with connection.transaction():
                    locked = await lock_case(connection, case.case_id)
                    await self._decisions.resolve(connection, locked, now, ACTOR, reason)
                return
            except ProblemError as error:  # such as a chargeback that has overtaken the refund
                reason = f"{reason}; cannot refund it: {error.detail}"[:500]
        due_at = now + timedelta(seconds=self._policy.decide_within_s)
        await change_case(connection, case, now, ACTOR, reason, waits_for="staff", is_escalated=True, due_at=due_at)


async def _has_others_under_way(connection: Connection, shipment: ReturnShipment) -> bool:
    others = await return_shipments.list_shipments_of_case(connection, shipment.case_id)
    return any(
        other.status not in (ReturnStatus.CANCELLED, ReturnStatus.LOST)
        for other in others
        if other.return_shipment_id != shipment.return_shipment_id
    )


async def _holds_all_units(connection: Connection, shipment: ReturnShipment) -> bool:
    """Tell whether all units of the case were in this return shipment."""
    lines = (await store.list_lines(connection, [shipment.case_id]))[shipment.case_id]
    units = await return_shipments.get_units(connection, shipment.return_shipment_id)
    return units == {line.case_line_no: line.quantity for line in lines}
