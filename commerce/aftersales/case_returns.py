"""The way back of a case's units: return shipments for it, and worklists of what is to be received.

Each change is one transaction that holds the order lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, change_case, check_status, check_version, lock_case
from commerce.aftersales.errors import CaseStatusConflict, NoSuchCase
from commerce.aftersales.model import CaseStatus, CaseSummary, Payer
from commerce.aftersales.receipt_model import (
    CollectionInput,
    ReturnedCase,
    ReturnOutcomeInput,
    ReturnWorklistCounts,
    ShipmentWorklist,
)
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.return_receipts import store as receipts
from commerce.return_receipts.model import Receipt, SendBack, Surplus
from commerce.return_receipts.store import WorklistLengths
from commerce.return_shipments import store as return_shipments
from commerce.return_shipments.errors import CannotReturn
from commerce.return_shipments.model import (
    NewReturnShipment,
    ReturnContent,
    ReturnShipmentDetails,
    ReturnShipmentView,
    ReturnStatus,
    TrackingInput,
)
from commerce.return_shipments.return_status import lock_return
from commerce.return_shipments.service import ReturnShipments
from commerce.shipping import store as outward_shipments

_FIRST_ID = UUID(int=0)


class CaseReturns:
    """Return shipments of cases over Postgres. `actor` is the member of staff, or the customer."""

    def __init__(self, db: Database, clock: Clock, returns: ReturnShipments, policy: AftersalesPolicy) -> None:
        self._db = db
        self._clock = clock
        self._returns = returns
        self._policy = policy

    async def collect(self, case_id: UUID, collection: CollectionInput, actor: str) -> ReturnShipmentDetails:
        """Have a carrier collect units of an approved case at the customer.

        Raises `NoSuchCase`, `CaseVersionConflict`, `CaseStatusConflict`, `Invalid` for units that the case does not
        expect, and `CannotReturn` if they do not fit one box or come from several addresses."""
        async with self._db.transaction() as connection:
            locked = await lock_case(connection, case_id)
            check_version(locked.case, collection.version)
            _check_awaits_units(locked)
            units = _expected_units(locked) if collection.lines is None else collection.lines
            payer = collection.payer or locked.case.freight_payer
            new = await _describe(connection, locked, units, payer, is_collected=True)
            id_ = await self._returns.request(connection, new, self._now(), actor)
            await self._await_carrier(connection, locked.case, actor)
            [details] = await self._returns.read(connection, [id_])
        return details

    async def _await_carrier(self, connection: Connection, case: CaseSummary, actor: str) -> None:
        """Let a case wait for the carrier: its customer misses no deadline while the shop looks for one.

        It has a new version then, so two members of staff do not both book a carrier."""
        changes: dict[str, Any] = {}
        if case.status is CaseStatus.APPROVED:
            due_at = self._now() + timedelta(seconds=self._policy.confirm_within_s)
            changes = {"waits_for": "carrier", "due_at": due_at}
        await change_case(connection, case, self._now(), actor, "a carrier is to collect the products", **changes)

    async def set_tracking(self, case_id: UUID, tracking: TrackingInput, user_id: str) -> list[ReturnShipmentView]:
        """Record the carrier and the number with which a customer sends the units of an approved case.

        Another number takes the place of the one before until the warehouse has the shipment. Raises `NoSuchCase`,
        `CaseStatusConflict`, `TrackingNoTaken`, and `InvalidReturnState` if a carrier is booked."""
        async with self._db.transaction() as connection:
            locked = await lock_case(connection, case_id, user_id)
            _check_awaits_units(locked)
            new = await _describe(connection, locked, _expected_units(locked), "customer", is_collected=False)
            await self._returns.set_tracking(connection, new, tracking, self._now(), f"customer {user_id}")
            return await self._returns.view_case(connection, case_id)

    async def list_of_customer(self, case_id: UUID, user_id: str) -> list[ReturnShipmentView]:
        """List the return shipments of a customer's case. Raises `NoSuchCase`."""
        async with self._db.connection() as connection:
            case = await store.get_case(connection, case_id)
            if case is None or case.user_id != user_id:
                raise NoSuchCase(f"there is no case {case_id}")
            return await self._returns.view_case(connection, case_id)

    async def cancel(self, return_shipment_id: UUID, reason: str, actor: str) -> ReturnShipmentDetails:
        """Cancel a return shipment that its carrier has not collected. A repeat changes nothing."""
        async with self._db.transaction() as connection:
            shipment = await lock_return(connection, return_shipment_id)
            await self._returns.cancel(connection, shipment, self._now(), "staff", actor, reason)
            [details] = await self._returns.read(connection, [return_shipment_id])
        return details

    async def set_outcome(
        self, return_shipment_id: UUID, outcome: ReturnOutcomeInput, actor: str
    ) -> ReturnShipmentDetails:
        """Set a final status that tracking does not report. A repeat changes nothing."""
        async with self._db.transaction() as connection:
            shipment, to = await lock_return(connection, return_shipment_id), ReturnStatus(outcome.status)
            await self._returns.set_outcome(connection, shipment, to, self._now(), actor, outcome.reason)
            [details] = await self._returns.read(connection, [return_shipment_id])
        return details

    async def get(self, case_id: UUID) -> ReturnedCase:
        """Read a case with its return shipments and receipts. Raises `NoSuchCase`."""
        async with self._db.connection() as connection:
            case = await store.get_case(connection, case_id)
            if case is None:
                raise NoSuchCase(f"there is no case {case_id}")
            lines = (await store.list_lines(connection, [case_id]))[case_id]
            shipments = await return_shipments.list_shipments_of_case(connection, case_id)
            return ReturnedCase(
                case=case,
                lines=lines,
                shipments=await self._returns.read(connection, [each.return_shipment_id for each in shipments]),
                receipts=await receipts.list_of_case(connection, case_id),
                send_backs=await receipts.list_send_backs_of_case(connection, case_id),
            )

    async def find_case(self, tracking_no: str) -> UUID | None:
        """Return the case of the return shipment with a tracking number, in any form."""
        async with self._db.connection() as connection:
            ids = await return_shipments.find_shipment_ids(connection, tracking_no)
            shipments = await return_shipments.get_shipments(connection, ids)
        return shipments[ids[-1]].case_id if ids else None

    # Worklists.

    async def list_worklist(
        self, worklist: ShipmentWorklist, warehouse_id: str | None, after: UUID | None, size: int
    ) -> Page[ReturnShipmentDetails]:
        """List a page of return shipments on a worklist, oldest first."""
        start, count = after or _FIRST_ID, size + 1
        async with self._db.connection() as connection:
            if worklist == "parked":
                ids = await receipts.list_parked(connection, start, count)
            elif worklist in ("expected", "overdue"):
                silent_since = silence_begins(self._policy, self._now()) if worklist == "overdue" else None
                ids = await receipts.list_expected(connection, start, warehouse_id, silent_since, count)
            else:
                status = "delivered" if worklist == "arrived" else "lost"
                ids = await receipts.list_not_received(connection, start, warehouse_id, status, count)
            items = await self._returns.read(connection, ids)
        return to_page(items, size, lambda item: str(item.shipment.return_shipment_id))

    async def list_unmatched(self, warehouse_id: str | None, after: UUID | None, size: int) -> Page[Receipt]:
        """List a page of receipts without a case that nobody has dealt with, oldest first."""
        async with self._db.connection() as connection:
            items = await receipts.list_unmatched(connection, after or _FIRST_ID, warehouse_id, size + 1)
        return to_page(items, size, lambda item: str(item.receipt_id))

    async def list_surplus(self, after: UUID | None, size: int) -> Page[Surplus]:
        """List a page of surplus that nobody has decided on, oldest first."""
        async with self._db.connection() as connection:
            items = await receipts.list_undecided(connection, after or _FIRST_ID, size + 1)
        return to_page(items, size, lambda item: str(item.surplus_id))

    async def list_send_backs(self, after: UUID | None, size: int) -> Page[SendBack]:
        """List a page of units that are to be sent back to customers, oldest first."""
        async with self._db.connection() as connection:
            items = await receipts.list_open_send_backs(connection, after or _FIRST_ID, size + 1)
        return to_page(items, size, lambda item: str(item.send_back_id))

    async def count_worklists(self) -> ReturnWorklistCounts:
        """Count the items of each worklist."""
        return ReturnWorklistCounts(**(await measure_worklists(self._db, self._policy, self._now())).by_worklist)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def silence_begins(policy: AftersalesPolicy, now: datetime) -> datetime:
    """Return the time since when a return shipment must have been reported, or it is overdue."""
    return now - timedelta(seconds=policy.return_overdue_after_s)


async def measure_worklists(db: Database, policy: AftersalesPolicy, now: datetime) -> WorklistLengths:
    """Return the lengths of the worklists, and since when the oldest return waits at the warehouse."""
    async with db.connection() as connection:
        return await receipts.count_worklists(connection, silence_begins(policy, now))


def _check_awaits_units(locked: LockedCase) -> None:
    check_status(locked.case, CaseStatus.APPROVED, CaseStatus.IN_TRANSIT, CaseStatus.RECEIVED)
    if not locked.case.items_back:
        raise CaseStatusConflict("nothing is to be sent back for this case", status=locked.case.status)


def _expected_units(locked: LockedCase) -> dict[int, int]:
    return {line.case_line_no: line.quantity - line.received for line in locked.lines if line.quantity > line.received}


async def _describe(
    connection: Connection, locked: LockedCase, units: Mapping[int, int], payer: Payer, *, is_collected: bool
) -> NewReturnShipment:
    """Describe a return shipment of so many units by `case_line_no`, from where they were delivered."""
    expected, lines = _expected_units(locked), {line.case_line_no: line for line in locked.lines}
    for no, quantity in units.items():
        if quantity > expected.get(no, 0):
            raise Invalid(f"lines: the case expects {expected.get(no, 0)} units of line {no}, not {quantity}")
    ids = {id_ for no in units if (id_ := lines[no].shipment_id) is not None}
    delivered = await outward_shipments.get_shipments(connection, list(ids))
    if not delivered:
        raise CannotReturn("none of these units was delivered: there is nothing to send back")
    first = delivered[min(delivered)]
    places = {(shipment.address, shipment.warehouse_id) for shipment in delivered.values()}
    if is_collected and len(places) > 1:
        raise CannotReturn("the units are at several addresses, or of several warehouses: request one return each")
    value = sum((lines[no].amount or 0) * quantity // lines[no].quantity for no, quantity in units.items())
    return NewReturnShipment(
        case_id=locked.case.case_id,
        order_id=locked.case.order_id,
        user_id=locked.case.user_id,
        from_address=first.address,
        warehouse_id=first.warehouse_id,
        contents=tuple(ReturnContent(no, lines[no].sku, quantity) for no, quantity in units.items()),
        value_minor=value,
        currency=locked.case.currency,
        payer=payer,
    )
