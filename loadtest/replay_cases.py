"""Plays returns of the data set through cases, once their orders are delivered.

Staff open each case, approve it, receive and inspect the units, and resolve it, which refunds them to the penny. Every
case has a key that follows from the file, so a second run opens and refunds nothing more.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from commerce.aftersales import store as cases
from commerce.aftersales.case_inspections import CaseInspections
from commerce.aftersales.case_receipts import CaseReceipts
from commerce.aftersales.case_requests import StaffCase
from commerce.aftersales.eligibility import count_used
from commerce.aftersales.errors import CaseVersionConflict
from commerce.aftersales.model import ApprovalInput, Case, CaseInput, CaseKind, CaseLineInput, CaseStatus
from commerce.aftersales.receipt_model import InspectedUnits, InspectionInput, ReceiptInput
from commerce.kernel.errors import Conflict, ProblemError
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from loadtest.replay_client import ReplayClient
from loadtest.replay_deliveries import ACTOR, WAREHOUSE_ID, ReplayDeliveries, SentOrder
from loadtest.replay_returns import MatchedReturn
from ops.services import CliServices

_MONEY_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1
_MAX_STEPS = 20
_REASON = "changed_my_mind"
"""the data set names no reason"""


class _Place(NamedTuple):
    """A line of an order."""

    order_id: UUID
    line_no: int


class _Line(NamedTuple):
    """Units of an order line, what was paid for all of them in pennies, and what has come back."""

    quantity: int
    paid: int
    returned: int


@dataclass
class _Refunded:
    """Units that were refunded, and their amount in pennies."""

    units: int = 0
    amount: int = 0


@dataclass
class PlayedReturns:
    """Result of the returns.

    `created` and `repeated` count cases. `refunded_total` is what customers got back, in pennies. `differences` has a
    text per return that is not refunded as the file says.
    """

    created: int = 0
    repeated: int = 0
    refunded_total: int = 0
    differences: list[str] = field(default_factory=list)


class ReturnPlayer:
    """Takes back what customers of the file returned, line by line."""

    def __init__(self, shop: CliServices, client: ReplayClient, key_prefix: str) -> None:
        policy = shop.settings.aftersales
        self._shop = shop
        self._key_prefix = key_prefix
        self._deliveries = ReplayDeliveries(shop, client, key_prefix)
        self._cases = shop.aftersales
        self._receipts = CaseReceipts(shop.db, shop.clock, shop.ids, policy)
        self._inspections = CaseInspections(shop.db, shop.clock, policy)

    async def play(self, matched: Sequence[MatchedReturn], sent: Mapping[str, SentOrder]) -> PlayedReturns:
        """Take back the units of these returns. `sent` maps invoices to their orders."""
        result = PlayedReturns()
        invoices = dict.fromkeys(units.invoice for match in matched for units in match.units)
        await self._deliveries.prepare(sent[invoice].basket for invoice in invoices if invoice in sent)
        obstacles = {invoice: text for invoice in invoices if (text := await self._deliver(sent.get(invoice)))}
        returned: list[MatchedReturn] = []
        for match in matched:
            problems = [f"{name} {obstacles[name]}" for name in _group_by_invoice(match) if name in obstacles]
            if not problems:
                problems = await self._take_back(match, sent, result)
            result.differences += (f"{match.line.invoice}, line {match.line.number}: {text}" for text in problems)
            if not problems:
                returned.append(match)
        await self._compare(result, returned, sent, [sent[invoice].order_id for invoice in invoices if invoice in sent])
        return result

    async def _deliver(self, order: SentOrder | None) -> str | None:
        return "has no order" if order is None else await self._deliveries.deliver(order)

    async def _take_back(self, match: MatchedReturn, sent: Mapping[str, SentOrder], result: PlayedReturns) -> list[str]:
        """Play a return as a case of each order that it is of. Returns what was refused."""
        problems = []
        for invoice, units in _group_by_invoice(match).items():
            key = f"replay-{self._key_prefix}-{match.line.invoice}-{match.line.number}-{invoice}"
            try:
                case_id, is_new = await self._open(sent[invoice].order_id, key, units, match.line.invoice)
                await self._complete(case_id)
            except ProblemError as refusal:
                problems.append(f"{invoice}: {refusal}")
            else:
                result.created += is_new
                result.repeated += not is_new
        return problems

    async def _open(self, order_id: UUID, key: str, units: Mapping[int, int], invoice: str) -> tuple[UUID, bool]:
        """Open the case of units by order line, or find it. Returns it, and whether it is new."""
        async with self._shop.db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            assert order is not None
            stored = await cases.find_by_key(connection, order.user_id, f"staff {key}")
            if stored is not None:
                return stored[0], False
            lines = await _choose_units(connection, order_id, units)
            request = CaseInput(kind=CaseKind.RETURN, lines=lines, reason=_REASON)
            staff_case = StaffCase(key, request, f"returned with {invoice}")
            return await self._cases.requests.create_staff_case(connection, order, staff_case, ACTOR), True

    async def _complete(self, case_id: UUID) -> None:
        """Take a case from its status to its resolution. Raises `Conflict` if it has ended otherwise."""
        for _ in range(_MAX_STEPS):
            case = await self._cases.get(case_id, None)
            if case.case.status is CaseStatus.RESOLVED:
                return
            try:
                await self._advance(case)
            except CaseVersionConflict:  # a worker has changed it meanwhile
                continue
        raise Conflict(f"the case {case_id} is {case.case.status}, not resolved")

    async def _advance(self, case: Case) -> None:
        case_id, version = case.case.case_id, case.case.version
        match case.case.status:
            case CaseStatus.REQUESTED:
                approval = ApprovalInput(version=version, reason="as the file says", freight=0, fee=0)
                await self._cases.actions.approve(case_id, approval, ACTOR)
            case CaseStatus.APPROVED | CaseStatus.IN_TRANSIT:
                units = {line.case_line_no: line.quantity - line.received for line in case.lines}
                receipt = ReceiptInput(warehouse=WAREHOUSE_ID, case_id=case_id, version=version, lines=units)
                await self._receipts.receive(receipt, ACTOR)
            case CaseStatus.RECEIVED:
                results = {line.case_line_no: InspectedUnits(resellable=line.received) for line in case.lines}
                await self._inspections.inspect(case_id, InspectionInput(version=version, lines=results), ACTOR)
            case CaseStatus.INSPECTED:
                await self._cases.actions.resolve(case_id, version, ACTOR, "as the file says")
            case status:
                raise Conflict(f"the case {case_id} is {status}: nothing of it is refunded")

    async def _compare(
        self,
        result: PlayedReturns,
        returned: Sequence[MatchedReturn],
        sent: Mapping[str, SentOrder],
        order_ids: Sequence[UUID],
    ) -> None:
        """Compare returned units and refunded amounts with the file, line by line, once the money has moved."""
        expected = Counter[_Place]()
        for match in returned:
            for units in match.units:
                expected[_Place(sent[units.invoice].order_id, units.line_no)] += units.quantity
        refunded, lines = await self._read_refunded(order_ids), await self._read_lines(order_ids)
        invoices = {order.order_id: invoice for invoice, order in sent.items()}
        expected_total = 0
        for place, line in sorted(lines.items()):
            count, actual = expected[place], refunded.get(place, _Refunded())
            amount = line.paid * count // line.quantity
            # The share of a line with a discount is rounded to a whole penny, so that all shares add up.
            is_share = actual.units == count and abs(actual.amount * line.quantity - line.paid * count) < line.quantity
            expected_total += actual.amount if is_share else amount
            name = f"{invoices[place.order_id]}, line {place.line_no}"
            if not is_share:
                result.differences.append(
                    f"{name}: {actual.units} units over {actual.amount} pennies are refunded, not {count} over {amount}"
                )
            if line.returned != count:
                result.differences.append(f"{name}: {line.returned} units are returned, not {count}")
        result.refunded_total = await self._wait_for_money(order_ids, expected_total)
        if result.refunded_total != expected_total:
            result.differences.append(f"{result.refunded_total} pennies went back, not {expected_total}")

    async def _read_refunded(self, order_ids: Sequence[UUID]) -> dict[_Place, _Refunded]:
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT refund_grant_lines.order_id, line_no, sum(quantity)::bigint AS units, "
                "sum(refund_grant_lines.amount_minor)::bigint AS amount "
                "FROM refund_grant_lines JOIN refund_grants USING (grant_id) "
                "WHERE refund_grants.order_id = ANY($1) GROUP BY 1, 2",
                order_ids,
            )
        return {_Place(row["order_id"], row["line_no"]): _Refunded(row["units"], row["amount"]) for row in rows}

    async def _read_lines(self, order_ids: Sequence[UUID]) -> dict[_Place, _Line]:
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT order_id, line_no, sum(order_lines.quantity)::bigint AS quantity, "
                "sum(order_lines.quantity * unit_price_minor - discount_minor)::bigint AS paid, "
                "sum(coalesce(returned, 0))::bigint AS returned "
                "FROM order_lines LEFT JOIN fulfilment_lines USING (order_id, line_no, address_no) "
                "WHERE order_id = ANY($1) GROUP BY 1, 2",
                order_ids,
            )
        return {_Place(row["order_id"], row["line_no"]): _Line(*tuple(row)[2:]) for row in rows}

    async def _wait_for_money(self, order_ids: Sequence[UUID], expected_total: int) -> int:
        """Return what customers got back, once it is all of it or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _MONEY_TIMEOUT_S
        while True:
            async with self._shop.db.connection() as connection:
                total: int = await connection.fetchval(
                    "SELECT coalesce(sum(refunds.amount_minor), 0)::bigint "
                    "FROM refunds JOIN payments USING (payment_id) "
                    "WHERE payments.order_id = ANY($1) AND refunds.status = 'done'",
                    order_ids,
                )
            if total >= expected_total or loop.time() > deadline:
                return total
            await asyncio.sleep(_POLL_INTERVAL_S)


async def _choose_units(connection: Connection, order_id: UUID, units: Mapping[int, int]) -> list[CaseLineInput]:
    """Choose delivered units by order line that no case has. Raises `Conflict` if there are too few."""
    used = Counter[tuple[int, UUID | None]]()
    for other in await cases.list_units_of_order(connection, order_id):
        line = other.line
        used[line.line_no, line.shipment_id] += count_used(other.status, other.items_back, line.quantity, line.received)
    lines, missing = list[CaseLineInput](), Counter(units)
    for delivered in await cases.list_delivered_units(connection, order_id):
        left = delivered.quantity - used[delivered.line_no, delivered.shipment_id]
        if quantity := min(left, missing[delivered.line_no]):
            missing[delivered.line_no] -= quantity
            shipment_id, line_no = delivered.shipment_id, delivered.line_no
            lines.append(CaseLineInput(line_no=line_no, quantity=quantity, shipment_id=shipment_id))
    for line_no, quantity in missing.items():
        if quantity:
            raise Conflict(f"{quantity} units of line {line_no} are missing: they are not delivered, or in other cases")
    return lines


def _group_by_invoice(match: MatchedReturn) -> dict[str, Counter[int]]:
    """Return the units of a return by purchase and line."""
    lines: dict[str, Counter[int]] = defaultdict(Counter)
    for units in match.units:
        lines[units.invoice][units.line_no] += units.quantity
    return lines
