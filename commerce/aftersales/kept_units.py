"""Returns of units that were cancelled too late: once they are delivered, the shop asks for them back.

A cancellation keeps units that a carrier has already. The job `case.open` of their order opens one case for each
cancellation and shipment that has brought them, and approves it. A shipment that comes back undelivered needs no case:
its units are cancelled at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.aftersales import store
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_requests import CaseRequests, StaffCase
from commerce.aftersales.case_status import lock_case
from commerce.aftersales.eligibility import count_used
from commerce.aftersales.errors import NotReturnable, TooManyCases
from commerce.aftersales.model import CaseInput, CaseKind, CaseLineInput
from commerce.cancellations import store as cancellations
from commerce.cancellations.decisions import ShipmentUnits
from commerce.cancellations.model import LineKey
from commerce.jobs.model import Job, JobResult, failed, finished
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.store import OrderHeader
from commerce.shipping.model import ShipmentStatus

ACTOR = "aftersales_worker"
REASON = "undelivered"
_TEXT = "it could not be stopped on its way"
_Place = tuple[UUID, LineKey]


class KeptUnitCases:
    """Does the jobs `case.open`, whose subject is an order. A repeat opens no second case."""

    def __init__(
        self, db: Database, clock: Clock, requests: CaseRequests, decisions: CaseDecisions, zone: ZoneInfo
    ) -> None:
        self._db = db
        self._clock = clock
        self._requests = requests
        self._decisions = decisions
        self._zone = zone

    async def work(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        [job] = jobs
        try:
            async with self._db.transaction() as connection:
                order = await orders.lock_order(connection, job.subject)
                if order is None:
                    return [finished("unchanged")]
                is_opened = await self._open_cases(connection, order, from_ms(self._clock.now_ms()))
                failpoint("case.before_commit")
        except (NotReturnable, TooManyCases) as error:
            return [failed("refused", error.detail)]
        return [finished("opened" if is_opened else "unchanged")]

    async def _open_cases(self, connection: Connection, order: OrderHeader, now: datetime) -> bool:
        """Open the cases that are missing. Returns whether there were any."""
        contents = await cancellations.read_units(connection, order.order_id)
        delivered = [each for each in contents.shipments if was_to_be_stopped(each)]
        done = [each for each in await cancellations.list_of_order(connection, order.order_id) if each.status == "done"]
        is_opened = False
        for cancellation in done if delivered else ():
            kept = Counter({(line.line_no, line.ship_to): line.kept for line in cancellation.lines if line.kept})
            missing = list[tuple[str, ShipmentUnits]]()
            for each in delivered:
                key = make_key(cancellation.cancellation_id, each.shipment.shipment_id)
                earlier = await store.find_by_key(connection, order.user_id, f"staff {key}")
                if earlier is None:
                    missing.append((key, each))
                    continue
                for line in (await store.list_lines(connection, [earlier[0]]))[earlier[0]]:
                    kept[line.line_no, line.ship_to] -= line.quantity
            for key, each in missing:
                lines = await self._take_units(connection, order, each, kept, now)
                if lines:
                    await self._open_case(connection, order, key, lines, now)
                    is_opened = True
        return is_opened

    async def _take_units(
        self, connection: Connection, order: OrderHeader, each: ShipmentUnits, kept: Counter[LineKey], now: datetime
    ) -> list[CaseLineInput]:
        """Take kept units of a shipment that no case, cancellation or refund has."""
        shipment_id = each.shipment.shipment_id
        used, of_line = Counter[_Place](), Counter[LineKey]()
        for unit in await store.list_units_of_order(connection, order.order_id):
            line, key = unit.line, (unit.line.line_no, unit.line.ship_to)
            count = count_used(unit.status, unit.items_back, line.quantity, line.received)
            of_line[key] += count
            if line.shipment_id is not None:
                used[line.shipment_id, key] += count
        today = now.astimezone(self._zone).date()
        left = {
            (units.line_no, units.address_no): units.ordered - max(units.cancelled, units.refunded)
            for units in await store.list_order_units(connection, order.order_id, today)
        }
        lines = list[CaseLineInput]()
        for key, quantity in each.units.items():
            count = min(kept[key], quantity - used[shipment_id, key], left[key] - of_line[key])
            if count > 0:
                kept[key] -= count
                lines.append(CaseLineInput(line_no=key[0], ship_to=key[1], quantity=count, shipment_id=shipment_id))
        return lines

    async def _open_case(
        self, connection: Connection, order: OrderHeader, key: str, lines: list[CaseLineInput], now: datetime
    ) -> None:
        """Open a case and approve it. One that cannot be approved waits for staff."""
        request = CaseInput(kind=CaseKind.RETURN, lines=lines, reason=REASON)
        case_id = await self._requests.create_staff_case(connection, order, StaffCase(key, request, _TEXT), ACTOR)
        locked = await lock_case(connection, case_id)
        try:
            async with connection.transaction():
                terms = await self._decisions.default_terms(connection, locked)
                await self._decisions.approve(connection, locked, terms, now, ACTOR, _TEXT)
        except ProblemError as error:  # such as a refund of an amount that has left too little
            reason = f"it needs a decision: {error.detail}"[:500]
            await self._decisions.escalate(connection, await lock_case(connection, case_id), now, ACTOR, reason)


def was_to_be_stopped(each: ShipmentUnits) -> bool:
    """Tell whether a shipment is delivered that a cancellation had asked to stop."""
    shipment = each.shipment
    has_request = shipment.plan_again or shipment.cancel_refused_at is not None
    return shipment.status is ShipmentStatus.DELIVERED and has_request


def make_key(cancellation_id: UUID, shipment_id: UUID) -> str:
    """Return the key of the one case of a cancellation and a shipment."""
    return f"cancellation {cancellation_id} shipment {shipment_id}"
