"""Lets a case follow its return shipments. Called inside a transaction that holds the order lock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from commerce.aftersales import store
from commerce.aftersales.case_status import change_case
from commerce.aftersales.model import CaseStatus, CaseSummary
from commerce.kernel.postgres import Connection
from commerce.return_shipments import store as return_shipments
from commerce.return_shipments.model import ReturnShipment, ReturnStatus

ACTOR = "return_shipments"
_OPEN = (CaseStatus.APPROVED, CaseStatus.IN_TRANSIT)
_MOVED = (ReturnStatus.PICKED_UP, ReturnStatus.IN_TRANSIT, ReturnStatus.DELIVERED)
CUSTOMER_SENDS = timedelta(days=7)
CARRIER_BRINGS = timedelta(days=14)
WAREHOUSE_ACTS = timedelta(days=10)


async def follow_shipment(
    connection: Connection, shipment: ReturnShipment, status: ReturnStatus, now: datetime
) -> None:
    """Let the case of a return shipment follow it. A case that awaits no units stays as it is."""
    case = await store.get_case(connection, shipment.case_id)
    if case is None or case.status not in _OPEN or not case.items_back:
        return
    if status in _MOVED or (status is ReturnStatus.BOOKED and shipment.booked_by == "customer"):
        await _set_under_way(connection, case, shipment, status, now)
    elif status is ReturnStatus.BOOKED:
        reason = f"{shipment.carrier} collects the return as {shipment.tracking_no}"
        await change_case(connection, case, now, ACTOR, reason, waits_for="carrier", due_at=now + CARRIER_BRINGS)
    elif status is ReturnStatus.LOST:
        reason = f"{shipment.carrier} has lost the return shipment {shipment.tracking_no}"
        await change_case(connection, case, now, ACTOR, reason, waits_for="staff", due_at=now + WAREHOUSE_ACTS)
    elif not await _has_others_under_way(connection, shipment):
        reason = "no return shipment is on its way any more"
        changes: dict[str, Any] = {"waits_for": "customer", "due_at": now + CUSTOMER_SENDS, "items_state": "expected"}
        await change_case(connection, case, now, ACTOR, reason, status=CaseStatus.APPROVED, **changes)


async def _set_under_way(
    connection: Connection, case: CaseSummary, shipment: ReturnShipment, status: ReturnStatus, now: datetime
) -> None:
    has_arrived = status is ReturnStatus.DELIVERED
    waits_for, wait = ("warehouse", WAREHOUSE_ACTS) if has_arrived else ("carrier", CARRIER_BRINGS)
    if case.status is CaseStatus.IN_TRANSIT and case.waits_for == waits_for:
        return
    verb = {ReturnStatus.BOOKED: "is sent", ReturnStatus.DELIVERED: "has arrived"}.get(status, "is moving")
    await change_case(
        *(connection, case, now, ACTOR, f"the return shipment {shipment.tracking_no} {verb}"),
        status=CaseStatus.IN_TRANSIT,
        items_state="in_transit",
        waits_for=waits_for,
        due_at=now + wait,
    )


async def _has_others_under_way(connection: Connection, shipment: ReturnShipment) -> bool:
    others = await return_shipments.list_shipments_of_case(connection, shipment.case_id)
    return any(
        other.status not in (ReturnStatus.CANCELLED, ReturnStatus.LOST)
        for other in others
        if other.return_shipment_id != shipment.return_shipment_id
    )
