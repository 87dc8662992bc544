"""Inspections of received units, line by line. They may be corrected until the case is resolved.

Units move to stock only with the money, in the transaction that resolves the case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, change_case, check_status, check_version, lock_case
from commerce.aftersales.model import CaseLine, CaseStatus, CaseSummary, ItemsState
from commerce.aftersales.receipt_model import InspectedUnits, InspectionInput
from commerce.aftersales.store import UnitCounts
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.postgres import Connection, Database
from commerce.return_receipts import store as receipts
from commerce.return_receipts.model import InspectedLine


class CaseInspections:
    """Records results of inspections over Postgres. `actor` is the member of staff."""

    def __init__(self, db: Database, clock: Clock, policy: AftersalesPolicy) -> None:
        self._db = db
        self._clock = clock
        self._policy = policy

    async def inspect(self, case_id: UUID, inspection: InspectionInput, actor: str) -> CaseSummary:
        """Store results in place of earlier ones of the same lines.

        Once all units are inspected, so is the case. Raises `NoSuchCase`, `CaseVersionConflict`, `CaseStatusConflict`
        if nothing was received or the case is resolved, and `Invalid` for more units than were received."""
        async with self._db.transaction() as connection:
            locked = await lock_case(connection, case_id)
            check_version(locked.case, inspection.version)
            check_status(locked.case, CaseStatus.RECEIVED, CaseStatus.INSPECTED)
            counts = _count(inspection.lines, locked.lines)
            now = from_ms(self._clock.now_ms())
            if inspection.lines:
                lines = [
                    InspectedLine(no, units.resellable, units.damaged, units.rejected, units.note)
                    for no, units in inspection.lines.items()
                ]
                await receipts.insert_inspections(connection, case_id, lines, now, actor)
                await store.set_unit_counts(connection, case_id, counts)
            return await _advance(connection, locked, counts, inspection, self._policy, now, actor)


async def _advance(
    connection: Connection,
    locked: LockedCase,
    counts: Sequence[UnitCounts],
    inspection: InspectionInput,
    policy: AftersalesPolicy,
    now: datetime,
    actor: str,
) -> CaseSummary:
    """Set the case to inspected if all units that came are, and no more are to come; else to received."""
    received = sum(count.received for count in counts)
    inspected = sum(count.resellable + count.damaged + count.rejected for count in counts)
    if inspection.nothing_more and inspected < received:
        raise Invalid(f"nothing_more: {received - inspected} received units are not inspected; inspect them too")
    is_complete = inspection.nothing_more or received == sum(line.quantity for line in locked.lines)
    is_done = is_complete and inspected == received
    items_state: ItemsState = "inspected" if is_done else "received" if is_complete else "partly_received"
    within_s = policy.refund_within_s if is_done else policy.confirm_within_s
    lines = {
        str(no): {"resellable": units.resellable, "damaged": units.damaged, "rejected": units.rejected}
        for no, units in inspection.lines.items()
    }
    return await change_case(
        *(connection, locked.case, now, actor, inspection.reason),
        details={"lines": lines},
        status=CaseStatus.INSPECTED if is_done else CaseStatus.RECEIVED,
        items_state=items_state,
        waits_for="staff" if is_done else "warehouse",
        due_at=now + timedelta(seconds=within_s),
    )


def _count(results: Mapping[int, InspectedUnits], lines: Sequence[CaseLine]) -> list[UnitCounts]:
    """Return the counts of all lines with these results in place of earlier ones. Raises `Invalid`."""
    if unknown := sorted(results.keys() - {line.case_line_no for line in lines}):
        raise Invalid(f"lines: the case has no line {unknown[0]}")
    counts = list[UnitCounts]()
    for line in lines:
        result = results.get(line.case_line_no)
        units = (
            (line.resellable, line.damaged, line.rejected)
            if result is None
            else (result.resellable, result.damaged, result.rejected)
        )
        if sum(units) > line.received:
            raise Invalid(
                f"lines: {line.received} units of line {line.case_line_no} were received, not {sum(units)}; "
                "store a receipt of the others first"
            )
        counts.append(UnitCounts(line.case_line_no, line.received, *units))
    return counts
