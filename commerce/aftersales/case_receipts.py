"""Receipts of returned units: of cases, or of nobody's, and decisions on surplus.

Each change is one transaction that holds the order lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, change_case, check_version, lock_case
from commerce.aftersales.model import CaseLine, CaseStatus, CaseSummary, ItemsState
from commerce.aftersales.receipt_model import MatchInput, ReceiptInput, ReceiptResult, SendBackInput, SurplusInstruction
from commerce.aftersales.store import UnitCounts
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.return_receipts import store as receipts
from commerce.return_receipts.errors import InvalidReceiptState, NoSuchReceipt
from commerce.return_receipts.model import NewReceipt, Receipt, SendBack, Surplus, SurplusUnits
from commerce.return_receipts.store import NewSendBack
from commerce.return_shipments import store as return_shipments
from commerce.return_shipments.model import ReturnShipment, ReturnStatus
from commerce.return_shipments.return_status import ReturnSteps, ignore_case
from commerce.return_shipments.return_tracking import steps_between
from commerce.shipping.model import to_tracking_no

_TAKES_UNITS = (CaseStatus.APPROVED, CaseStatus.IN_TRANSIT, CaseStatus.RECEIVED, CaseStatus.INSPECTED)


class _Target(NamedTuple):
    """The case and the return shipment of a receipt, as far as they exist."""

    case_id: UUID | None
    shipment: ReturnShipment | None


class CaseReceipts:
    """Receives returns over Postgres. `actor` is the member of staff."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, policy: AftersalesPolicy) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._policy = policy
        self._steps = ReturnSteps(ignore_case)  # a receipt moves the case itself

    async def receive(self, receipt: ReceiptInput, actor: str) -> ReceiptResult:
        """Store a receipt. Units of no case, and more than a case expects, are kept as surplus.

        Raises `NoSuchCase`, `CaseVersionConflict`, and `Invalid` for a line, SKU or warehouse that does not exist."""
        if receipt.case_id is None and receipt.tracking_no is None:
            raise Invalid("give the case or the tracking number; a receipt of an unknown number is matched later")
        if not receipt.lines and not receipt.surplus:
            raise Invalid("lines: enter the units that have arrived; those of no line of the case are `surplus`")
        surplus = [SurplusUnits(line.sku, line.description, line.quantity) for line in receipt.surplus]
        async with self._db.transaction() as connection:
            await _check_references(connection, receipt)
            target = await _find_target(connection, receipt)
            if target.case_id is None:
                if receipt.lines:
                    raise Invalid(
                        "lines: no case has this number; enter the units as `surplus`, by SKU or with a description"
                    )
                reason = f"no return shipment has the tracking number {receipt.tracking_no}"
                return await self._store_unmatched(connection, receipt, surplus, reason, actor)
            locked, shipment = await lock_case(connection, target.case_id), target.shipment
            if shipment is not None:  # it may have changed while this transaction waited for the lock
                shipment = await return_shipments.get_shipment(connection, shipment.return_shipment_id)
            return await self._receive_locked(connection, locked, shipment, receipt, surplus, actor)

    async def _receive_locked(
        self,
        connection: Connection,
        locked: LockedCase,
        shipment: ReturnShipment | None,
        receipt: ReceiptInput,
        surplus: list[SurplusUnits],
        actor: str,
    ) -> ReceiptResult:
        case, lines = locked.case, {line.case_line_no: line for line in locked.lines}
        if receipt.version is None:
            raise Invalid(f"version: the case {case.case_id} has version {case.version}; read it and send its version")
        check_version(case, receipt.version)
        _check_lines(receipt.lines, locked.lines)
        if not _takes_units(case):
            # Late: what was refunded stays so, and units of no case are no stock until somebody decides.
            surplus += [SurplusUnits(lines[no].sku, "", quantity) for no, quantity in receipt.lines.items()]
            reason = f"the case {case.case_id} is {case.status} and takes no units"
            if shipment is not None:  # it has arrived all the same, and no worklist waits for it any more
                await receipts.mark_shipment_received(connection, shipment.return_shipment_id, self._now())
                await self._end_shipment(connection, shipment, actor)
            return await self._store_unmatched(connection, receipt, surplus, reason, actor)
        counted = dict[int, int]()
        for no, quantity in receipt.lines.items():
            counted[no] = min(quantity, lines[no].quantity - lines[no].received)
            if quantity > counted[no]:
                surplus.append(SurplusUnits(lines[no].sku, "more than the case expects", quantity - counted[no]))
        new = NewReceipt(
            case_id=case.case_id,
            return_shipment_id=shipment.return_shipment_id if shipment else None,
            warehouse_id=receipt.warehouse,
            tracking_no=_number(receipt),
            note=receipt.note,
            lines={no: count for no, count in counted.items() if count},
            surplus=surplus,
        )
        stored = await self._insert(connection, new, actor)
        if shipment is not None:
            await self._end_shipment(connection, shipment, actor)
        if new.lines:
            changed = await self._count_received(connection, locked, new.lines, actor)
        else:
            changed = await self._ask_staff(connection, locked, actor)
        return ReceiptResult(receipt=stored, case=changed)

    async def _store_unmatched(
        self, connection: Connection, receipt: ReceiptInput, surplus: list[SurplusUnits], reason: str, actor: str
    ) -> ReceiptResult:
        note = receipt.note or reason[:200]
        new = NewReceipt(None, None, receipt.warehouse, _number(receipt), note, {}, surplus)
        return ReceiptResult(receipt=await self._insert(connection, new, actor), unmatched_because=reason)

    async def _insert(self, connection: Connection, new: NewReceipt, actor: str) -> Receipt:
        receipt_id, surplus_ids = self._ids.new(), [self._ids.new() for _ in new.surplus]
        await receipts.insert_receipt(connection, receipt_id, new, surplus_ids, self._now(), actor)
        stored = await receipts.get_receipt(connection, receipt_id)
        assert stored is not None
        return stored

    async def _end_shipment(self, connection: Connection, shipment: ReturnShipment, actor: str) -> None:
        """Record that the warehouse has a return shipment, whatever its carrier has reported."""
        now, text = self._now(), "received at the warehouse"
        path = steps_between(shipment.status, ReturnStatus.DELIVERED)
        if not path:
            await self._steps.record_note(connection, shipment, now, "staff", actor, text)
        for step in path:
            await self._steps.record_step(connection, shipment, step, now, "staff", actor, text)
            current = await return_shipments.get_shipment(connection, shipment.return_shipment_id)
            assert current is not None
            shipment = current

    async def _count_received(
        self, connection: Connection, locked: LockedCase, units: Mapping[int, int], actor: str
    ) -> CaseSummary:
        """Add received units to the lines of a case, which then waits for its inspection."""
        now = self._now()
        counts = [
            UnitCounts(
                line.case_line_no,
                line.received + units.get(line.case_line_no, 0),
                *(line.resellable, line.damaged, line.rejected),
            )
            for line in locked.lines
        ]
        await store.set_unit_counts(connection, locked.case.case_id, counts)
        received, expected = sum(count.received for count in counts), sum(line.quantity for line in locked.lines)
        items_state: ItemsState = "received" if received == expected else "partly_received"
        reason = f"{sum(units.values())} units have arrived at the warehouse, {received} of {expected} in all"
        return await change_case(
            *(connection, locked.case, now, actor, reason),
            details={"lines": {str(no): count for no, count in units.items()}},
            status=CaseStatus.RECEIVED,
            items_state=items_state,
            waits_for="warehouse",
            due_at=now + timedelta(seconds=self._policy.confirm_within_s),
        )

    async def _ask_staff(self, connection: Connection, locked: LockedCase, actor: str) -> CaseSummary:
        """Have staff decide about a case for which only other products have come.

        It is approved again: what nobody has sent must not be refunded because its receipt is not confirmed in time."""
        if locked.case.status not in (CaseStatus.APPROVED, CaseStatus.IN_TRANSIT):
            return locked.case
        now = self._now()
        return await change_case(
            *(connection, locked.case, now, actor, "other products have arrived than those that are to come back"),
            status=CaseStatus.APPROVED,
            items_state="expected",
            is_escalated=True,
            waits_for="staff",
            due_at=now + timedelta(seconds=self._policy.decide_within_s),
        )

    # Receipts of nobody's case, and surplus.

    async def match(self, receipt_id: UUID, match: MatchInput, actor: str) -> ReceiptResult:
        """Count the units of a receipt without a case as received by one.

        Those that the case does not expect stay surplus. Raises `NoSuchReceipt`, `NoSuchCase`, `CaseVersionConflict`,
        and `InvalidReceiptState` if it is matched already or the case takes none of the units."""
        async with self._db.transaction() as connection:
            locked = await lock_case(connection, match.case_id)
            receipt = await receipts.lock_receipt(connection, receipt_id)
            if receipt is None:
                raise NoSuchReceipt(f"there is no receipt {receipt_id}")
            if receipt.case_id is not None or receipt.matched_at is not None:
                raise InvalidReceiptState("the receipt is matched already, or all of its units are decided on")
            check_version(locked.case, match.version)
            _check_takes_units(locked.case)
            undecided = [surplus for surplus in receipt.surplus if surplus.decision is None]
            if match.lines is None:
                fitting, units = _fit_by_sku(undecided, locked.lines)
            else:
                fitting, units = undecided, dict(match.lines)
                _check_room(units, locked.lines)
            if not units:
                raise InvalidReceiptState("the case expects none of these units; name its `lines` if it does")
            return await self._move(connection, receipt, locked, fitting, units, match.reason, actor)

    async def _move(
        self,
        connection: Connection,
        receipt: Receipt,
        locked: LockedCase,
        surplus: Sequence[Surplus],
        units: Mapping[int, int],
        reason: str,
        actor: str,
    ) -> ReceiptResult:
        """Count units of a receipt as received by a case, with a receipt of its own."""
        now, case_id = self._now(), locked.case.case_id
        for part in surplus:
            await receipts.decide_surplus(connection, part.surplus_id, "other_case", case_id, reason, now, actor)
        await receipts.close_receipt(connection, receipt.receipt_id, None, now, actor)
        new = NewReceipt(case_id, None, receipt.warehouse_id, receipt.tracking_no, reason, dict(units), [])
        stored = await self._insert(connection, new, actor)
        return ReceiptResult(receipt=stored, case=await self._count_received(connection, locked, units, actor))

    async def decide(self, surplus_id: UUID, instruction: SurplusInstruction, actor: str) -> Surplus:
        """Decide on surplus: send it back, keep it, or count it as received by another case.

        Raises `NoSuchReceipt`, and `InvalidReceiptState` if it is decided on already."""
        async with self._db.transaction() as connection:
            locked = None
            if instruction.decision == "other_case":
                if instruction.case_id is None or instruction.version is None:
                    raise Invalid("case_id, version: name the case that takes the units, as you last read it")
                locked = await lock_case(connection, instruction.case_id)
                check_version(locked.case, instruction.version)
                _check_takes_units(locked.case)
            before = await receipts.get_surplus(connection, surplus_id)
            receipt = await receipts.lock_receipt(connection, before.receipt_id) if before else None
            surplus = await receipts.get_surplus(connection, surplus_id)
            if surplus is None or receipt is None:
                raise NoSuchReceipt(f"there is no surplus {surplus_id}")
            if surplus.decision is not None:
                raise InvalidReceiptState(f"it is decided on already: {surplus.decision.replace('_', ' ')}")
            now, reason = self._now(), instruction.reason
            if locked is not None:
                units = {_find_line(surplus, instruction, locked.lines): surplus.quantity}
                _check_room(units, locked.lines)
                await self._move(connection, receipt, locked, [surplus], units, reason, actor)
            else:
                decision = (surplus_id, instruction.decision, None, reason, now, actor)
                await receipts.decide_surplus(connection, *decision)
                if instruction.decision == "send_back":
                    send_back = NewSendBack(self._ids.new(), receipt.case_id, None, surplus_id, surplus.quantity)
                    await receipts.insert_send_backs(connection, [send_back], now)
                await receipts.close_receipt(connection, receipt.receipt_id, reason, now, actor)
            decided = await receipts.get_surplus(connection, surplus_id)
        assert decided is not None
        return decided

    async def end_send_back(self, send_back_id: UUID, sent: SendBackInput, actor: str) -> SendBack:
        """Record that units went to the customer again. A repeat with the same content changes nothing."""
        if (sent.outcome == "sent") != (sent.carrier is not None and sent.tracking_no is not None):
            raise Invalid("carrier, tracking_no: give both for units that are sent, neither for those handed out")
        if sent.outcome == "handed_out" and (sent.carrier is not None or sent.tracking_no is not None):
            raise Invalid("carrier, tracking_no: leave them out for units that are handed out")
        number = to_tracking_no(sent.tracking_no) if sent.tracking_no is not None else None
        values = sent.outcome, sent.carrier, number
        async with self._db.transaction() as connection:
            is_new = await receipts.end_send_back(connection, send_back_id, *values, self._now(), actor)
            stored = await receipts.get_send_back(connection, send_back_id)
            if stored is None:
                raise NoSuchReceipt(f"there are no units to send back with the id {send_back_id}")
            if not is_new and (stored.outcome, stored.carrier, stored.tracking_no) != values:
                raise InvalidReceiptState(
                    f"it is recorded already: {stored.outcome} {stored.tracking_no or ''}".strip()
                )
        return stored

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _check_references(connection: Connection, receipt: ReceiptInput) -> None:
    if not await receipts.has_warehouse(connection, receipt.warehouse):
        raise Invalid(f"warehouse: there is no warehouse {receipt.warehouse}")
    for line in receipt.surplus:
        if line.sku is None and not line.description:
            raise Invalid("surplus: give a SKU, or a description")
    skus = {line.sku for line in receipt.surplus if line.sku is not None}
    if skus and (unknown := await receipts.find_unknown(connection, skus)):
        raise Invalid(f"surplus: there is no product {', '.join(unknown[:10])}; give a description instead")


async def _find_target(connection: Connection, receipt: ReceiptInput) -> _Target:
    if receipt.tracking_no is None:
        return _Target(receipt.case_id, None)
    ids = await return_shipments.find_shipment_ids(connection, receipt.tracking_no)
    shipments = await return_shipments.get_shipments(connection, ids)
    of_case = [shipments[id_] for id_ in ids if receipt.case_id in (None, shipments[id_].case_id)]
    if ids and not of_case:
        raise Invalid(f"tracking_no: {receipt.tracking_no} belongs to another case; leave one of the two out")
    shipment = of_case[-1] if of_case else None
    return _Target(shipment.case_id if shipment else receipt.case_id, shipment)


def _number(receipt: ReceiptInput) -> str | None:
    return to_tracking_no(receipt.tracking_no) if receipt.tracking_no is not None else None


def _check_lines(units: Mapping[int, int], lines: Sequence[CaseLine]) -> None:
    numbers = {line.case_line_no for line in lines}
    if unknown := sorted(units.keys() - numbers):
        existing = ", ".join(map(str, sorted(numbers)))
        raise Invalid(f"lines: the case has no line {unknown[0]}, it has {existing}; another product is `surplus`")


def _check_room(units: Mapping[int, int], lines: Sequence[CaseLine]) -> None:
    _check_lines(units, lines)
    room = {line.case_line_no: line.quantity - line.received for line in lines}
    for no, quantity in units.items():
        if quantity > room[no]:
            raise InvalidReceiptState(f"line {no} of the case expects {room[no]} more units, not {quantity}")


def _takes_units(case: CaseSummary) -> bool:
    return case.status in _TAKES_UNITS and case.items_back


def _check_takes_units(case: CaseSummary) -> None:
    if not _takes_units(case):
        raise InvalidReceiptState(f"the case {case.case_id} is {case.status} and takes no units")


def _fit_by_sku(surplus: Sequence[Surplus], lines: Sequence[CaseLine]) -> tuple[list[Surplus], dict[int, int]]:
    """Return the surplus whose units lines of a case expect, and the units by line."""
    room = Counter({line.case_line_no: line.quantity - line.received for line in lines})
    fitting, units = list[Surplus](), Counter[int]()
    for part in surplus:
        for line in lines:
            if line.sku == part.sku and room[line.case_line_no] >= part.quantity:
                room[line.case_line_no] -= part.quantity
                units[line.case_line_no] += part.quantity
                fitting.append(part)
                break
    return fitting, dict(units)


def _find_line(surplus: Surplus, instruction: SurplusInstruction, lines: Sequence[CaseLine]) -> int:
    """Return the number of the line that takes surplus: the named line, or the first of its SKU with room."""
    if instruction.case_line_no is not None:
        return instruction.case_line_no
    _, units = _fit_by_sku([surplus], lines)
    if not units:
        raise InvalidReceiptState("no line of the case expects so many units of this product; name its `case_line_no`")
    return next(iter(units))
