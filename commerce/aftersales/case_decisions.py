"""Decisions on cases inside transactions that hold the order lock: amounts, approval, resolution, end.

Staff, customers and the jobs of deadlines use the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import LockedCase, change_case, check_status, check_step
from commerce.aftersales.case_values import CaseValue, ValuedLine, grant_lines, share_amounts, take_units, value_lines
from commerce.aftersales.eligibility import is_shop_liable
from commerce.aftersales.inspected_units import book_inspected_units
from commerce.aftersales.lost_claims import resolve_lost
from commerce.aftersales.model import (
    ApprovalInput,
    CaseKind,
    CaseLine,
    CaseOffer,
    CaseStatus,
    CaseSummary,
    ClaimKind,
    Payer,
)
from commerce.exchanges import store as exchanges
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.refunds import service as refunds
from commerce.refunds import store as granted
from commerce.refunds.model import Grant, GrantRequest


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of an approval. `lines` are amounts by `case_line_no`, which add up to that of the case."""

    kind: CaseKind
    items_back: bool
    freight_payer: Payer
    freight: int
    fee: int
    lines: Mapping[int, int]

    @property
    def amount(self) -> int:
        return sum(self.lines.values())


class CaseDecisions:
    """Changes locked cases. Raises `CaseStatusConflict` if a case's status does not allow it."""

    def __init__(self, ids: IdGenerator, policy: AftersalesPolicy) -> None:
        self._ids = ids
        self._policy = policy

    async def approve(
        self,
        connection: Connection,
        locked: LockedCase,
        terms: Terms,
        now: datetime,
        actor: str,
        reason: str,
        **changes: Any,
    ) -> CaseSummary:
        """Approve a case with these terms, which fixes its amounts.

        Raises `Invalid` for a fee above the refund, and as `refunds.value_grant` for amounts that are not left."""
        case = locked.case
        check_step(case, CaseStatus.APPROVED)
        await self.check_terms(connection, locked, terms)
        await store.set_line_amounts(connection, case.case_id, terms.lines)
        within_s = self._policy.ship_within_s if terms.items_back else self._policy.refund_within_s
        return await change_case(
            *(connection, case, now, actor, reason),
            details=_amounts(terms),
            status=CaseStatus.APPROVED,
            kind=terms.kind,
            claim=case.claim if terms.kind is CaseKind.CLAIM else None,
            items_back=terms.items_back,
            items_state="expected" if terms.items_back else "not_expected",
            money_state="fixed",
            freight_payer=terms.freight_payer,
            amount=terms.amount,
            freight=terms.freight,
            fee=terms.fee,
            offer=None,
            waits_for="customer" if terms.items_back else "staff",
            due_at=now + timedelta(seconds=within_s),
            **changes,
        )

    async def check_terms(self, connection: Connection, locked: LockedCase, terms: Terms) -> None:
        """Check that the amounts can be granted now, and that the person whose request this is may do it.

        Raises `Invalid` for a fee above the refund, as `refunds.value_grant` for amounts that are not left, and
        `RightNeeded`."""
        value = await refunds.preview(connection, locked.order, _grant_request(locked, terms, "-", "-"))
        await refunds.check_decision(connection, locked.order, value.amount)

    def check_offer(self, case: CaseSummary, offer: CaseOffer) -> None:
        """Raise `Invalid` if an offer's kind does not fit its other terms, or the claim."""
        if case.claim is ClaimKind.LOST:
            raise _invalid("/kind", "lost units are refunded whole: approve or decline the claim")
        if offer.items_back and case.claim is ClaimKind.MISSING:
            raise _invalid("/items_back", "units that never came cannot be sent back: offer money for them")
        if offer.kind is CaseKind.EXCHANGE:
            raise _invalid("/kind", "an exchange cannot be offered: offer a return, or a refund only")
        if offer.kind is CaseKind.CLAIM and case.kind is not CaseKind.CLAIM:
            raise _invalid("/kind", "only a claim stays a claim: offer a return, or a refund only")
        if offer.kind is not CaseKind.CLAIM and offer.items_back is not (offer.kind is CaseKind.RETURN):
            raise _invalid("/items_back", f"it does not fit the kind {offer.kind}")

    async def default_terms(self, connection: Connection, locked: LockedCase) -> Terms:
        """Return the terms that follow from the request, what was paid and the policy."""
        return await self.staff_terms(connection, locked, ApprovalInput(version=locked.case.version, reason="-"))

    async def staff_terms(self, connection: Connection, locked: LockedCase, approval: ApprovalInput) -> Terms:
        """Return the terms of an approval by staff, who may lower amounts and deviate from the policy.

        Raises `Invalid` for more than what was paid."""
        case = locked.case
        changes = (approval.amount, approval.lines, approval.freight, approval.fee, approval.items_back)
        if case.claim is ClaimKind.LOST and any(change is not None for change in changes):
            raise _invalid("/amount", "lost units are refunded whole: leave out amounts and items_back")
        kind, items_back = _approved_kind(case, approval.items_back)
        value = await self.value(connection, locked, kind)
        lines = _lower_lines(locked.lines, value, approval)
        amount = sum(lines.values())
        freight = value.freight if approval.freight is None else approval.freight
        fee = approval.fee
        if fee is None:  # of a lowered amount the same part
            fee = min(value.fee * amount // value.amount if value.amount else 0, amount + freight)
        payer = approval.freight_payer or ("shop" if not items_back else case.freight_payer)
        return Terms(kind, items_back, payer, freight, fee, lines)

    async def offer_terms(self, connection: Connection, locked: LockedCase, offer: CaseOffer) -> Terms:
        """Return the terms of an offer. Raises `Invalid` if it is more than what was paid."""
        approval = ApprovalInput(version=locked.case.version, reason="-", amount=offer.amount)
        value = await self.value(connection, locked, offer.kind)
        lines = _lower_lines(locked.lines, value, approval)
        return Terms(offer.kind, offer.items_back, offer.freight_payer, offer.freight, offer.fee, lines)

    async def value(
        self, connection: Connection, locked: LockedCase, kind: CaseKind, units: Mapping[int, int] | None = None
    ) -> CaseValue:
        """Return what the units of a case are worth now, or so many units by `case_line_no`."""
        case = locked.case
        policies = await store.get_case_policy(connection, case.case_id)
        return await value_lines(
            *(connection, locked.order, kind, _valued(locked.lines, units), policies),
            is_shop_liable=is_shop_liable(case.kind, case.reason),
        )

    async def resolve(
        self, connection: Connection, locked: LockedCase, now: datetime, actor: str, reason: str
    ) -> CaseSummary:
        """Resolve a case: grant the money of its accepted units, and follow it until it has moved.

        Accepted are the units that an inspection found resellable or damaged; without anything to send back, all. Units
        that were to be sent back and are not inspected are left to the customer. Inspected ones move with the money: to
        stock, off it, or to the customer again. Raises as `refunds.value_grant`."""
        case = locked.case
        check_step(case, CaseStatus.RESOLVED)
        check_status(case, CaseStatus.APPROVED, CaseStatus.IN_TRANSIT, CaseStatus.INSPECTED)
        if case.claim is ClaimKind.LOST:
            due_at = now + timedelta(seconds=self._policy.refund_within_s)
            return await resolve_lost(connection, self._ids, locked, now, actor, reason, due_at)
        terms, units = await self._final_terms(connection, locked)
        if case.status is CaseStatus.INSPECTED:
            policies = await store.get_case_policy(connection, case.case_id)
            await book_inspected_units(connection, self._ids, locked, policies, now)
        if terms.kind is CaseKind.EXCHANGE and any(units.values()):
            return await self._begin_exchange(connection, locked, terms, units, now, actor, reason)
        grant = await self._grant(connection, locked, terms, units, now, actor, reason) if any(units.values()) else None
        changes: dict[str, Any] = {"amount": terms.amount, "freight": terms.freight, "fee": terms.fee}
        if grant is not None:
            places = {(line.line_no, line.ship_to): line.amount for line in grant.lines}
            amounts = share_amounts(_valued(locked.lines, units), places)
            lines = dict(zip(terms.lines, amounts, strict=True))
            changes = {"amount": sum(amounts), "freight": grant.freight, "fee": grant.fee, "grant_id": grant.grant_id}
        else:
            lines = dict(terms.lines)
        await store.set_line_amounts(connection, case.case_id, lines)
        return await change_case(
            *(connection, case, now, actor, reason),
            details={"amount": changes["amount"], "freight": changes["freight"], "fee": changes["fee"]},
            job_due_at=now + timedelta(seconds=self._policy.money_poll_s),
            status=CaseStatus.RESOLVED,
            kind=terms.kind,
            claim=case.claim if terms.kind is CaseKind.CLAIM else None,
            items_back=terms.items_back,
            items_state=case.items_state if terms.items_back else "not_expected",
            money_state=money_state_of(grant),
            waits_for="provider",
            due_at=now + timedelta(seconds=self._policy.refund_within_s),
            **changes,
        )

    async def _begin_exchange(
        self,
        connection: Connection,
        locked: LockedCase,
        terms: Terms,
        units: Mapping[int, int],
        now: datetime,
        actor: str,
        reason: str,
    ) -> CaseSummary:
        """Fix the credit of an exchange. Its job reserves the replacement, and then counts the units."""
        request = await self._final_request(connection, locked, terms, units, reason, actor)
        credit = await refunds.preview(connection, locked.order, request)
        case = locked.case
        await exchanges.insert_exchange(connection, case.case_id, case.order_id, self._ids.new(), credit.amount, now)
        await store.set_line_amounts(connection, case.case_id, terms.lines)
        return await change_case(
            *(connection, case, now, actor, reason),
            details={"amount": terms.amount, "freight": terms.freight, "fee": terms.fee},
            status=CaseStatus.RESOLVED,
            amount=terms.amount,
            freight=terms.freight,
            fee=terms.fee,
            waits_for="warehouse",
            due_at=now + timedelta(seconds=self._policy.refund_within_s),
        )

    async def _final_terms(self, connection: Connection, locked: LockedCase) -> tuple[Terms, dict[int, int]]:
        """Return the approved terms for the accepted units, and these by `case_line_no`.

        Inspected units that were refunded otherwise bring no money: their case cannot be cancelled any more. Units that
        are not returned are refunded, also those of an exchange."""
        case = locked.case
        is_inspected = case.status is CaseStatus.INSPECTED
        if case.kind is CaseKind.EXCHANGE and not is_inspected:  # lost on their way back, or left to the customer
            kind, items_back = CaseKind.REFUND_ONLY, False
        else:
            kind, items_back = _approved_kind(case, case.items_back and is_inspected)
        units = {
            line.case_line_no: line.resellable + line.damaged if is_inspected else line.quantity
            for line in locked.lines
        }
        if is_inspected:
            left = {
                (line.line_no, line.address_no): line.quantity - line.refunded_units
                for line in await granted.list_refundable_lines(connection, locked.order.order_id)
            }
            units = take_units(locked.lines, units, left)
        lines = {
            line.case_line_no: (line.amount or 0) * units[line.case_line_no] // line.quantity for line in locked.lines
        }
        amount, fee = sum(lines.values()), case.fee or 0
        fee = fee * amount // case.amount if case.amount else fee
        freight = case.freight or 0 if any(units.values()) else 0
        return Terms(kind, items_back, case.freight_payer, freight, fee, lines), units

    async def _grant(
        self,
        connection: Connection,
        locked: LockedCase,
        terms: Terms,
        units: Mapping[int, int],
        now: datetime,
        actor: str,
        reason: str,
    ) -> Grant:
        """Grant the money. An amount that was not lowered is that of the units, to the last fen."""
        request = await self._final_request(connection, locked, terms, units, reason, actor)
        return await refunds.grant(connection, self._ids, locked.order, request, now)

    async def _final_request(
        self,
        connection: Connection,
        locked: LockedCase,
        terms: Terms,
        units: Mapping[int, int],
        reason: str,
        actor: str,
    ) -> GrantRequest:
        value = await self.value(connection, locked, terms.kind, units)
        request = _grant_request(locked, terms, reason, actor, units)
        if terms.amount >= value.amount - len(locked.lines):
            request = request._replace(amount_override=None)
        return request

    async def decline(
        self, connection: Connection, locked: LockedCase, now: datetime, actor: str, reason: str
    ) -> CaseSummary:
        """Decline a request. The customer may escalate it."""
        return await change_case(
            connection, locked.case, now, actor, reason, status=CaseStatus.DECLINED, money_state="undecided"
        )

    async def request_evidence(
        self, connection: Connection, locked: LockedCase, now: datetime, actor: str, reason: str
    ) -> CaseSummary:
        """Ask the customer for pictures within `answer_within_s`; then staff decide."""
        check_status(locked.case, CaseStatus.REQUESTED)
        due_at = now + timedelta(seconds=self._policy.answer_within_s)
        return await change_case(connection, locked.case, now, actor, reason, waits_for="customer", due_at=due_at)

    async def cancel(
        self, connection: Connection, locked: LockedCase, now: datetime, actor: str, reason: str
    ) -> CaseSummary:
        """Cancel a case before anything was received: the units are free for another one."""
        return await change_case(connection, locked.case, now, actor, reason, status=CaseStatus.CANCELLED)

    async def escalate(
        self, connection: Connection, locked: LockedCase, now: datetime, actor: str, reason: str, **changes: Any
    ) -> CaseSummary:
        """Have staff look at a case before others."""
        return await change_case(
            *(connection, locked.case, now, actor, reason),
            **{"due_at": now + timedelta(seconds=self._policy.decide_within_s), **changes},
            is_escalated=True,
            waits_for="staff",
        )


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(f"{pointer}: {detail}", errors=[{"pointer": pointer, "detail": detail}])


def money_state_of(grant: Grant | None) -> str:
    """Return the money state that follows from a grant."""
    if grant is None:
        return "nothing_due"
    return "granted" if any(part.goes_to != "not_collected" for part in grant.allocations) else "done"


def _approved_kind(case: CaseSummary, items_back: bool | None) -> tuple[CaseKind, bool]:
    """Return kind and `items_back` of a case if the products are to be sent back, or not.

    A return of nothing is a refund only. Raises `Invalid` for an exchange of nothing."""
    if items_back and case.claim is ClaimKind.MISSING:
        raise _invalid("/items_back", "units that never came cannot be sent back: approve the claim without them")
    if items_back is None or items_back is case.items_back or case.kind is CaseKind.CLAIM:
        return case.kind, case.items_back if items_back is None else items_back
    if case.kind is CaseKind.EXCHANGE:
        raise _invalid("/items_back", "an exchange needs the products: make an offer of another kind")
    return CaseKind.RETURN if items_back else CaseKind.REFUND_ONLY, items_back


def _lower_lines(lines: Sequence[CaseLine], value: CaseValue, approval: ApprovalInput) -> dict[int, int]:
    """Return the approved amounts by `case_line_no`, none above what was paid for the units."""
    paid = {line.case_line_no: amount for line, amount in zip(lines, value.lines, strict=True)}
    if approval.lines is not None:
        for number, amount in approval.lines.items():
            if amount > paid.get(number, -1):
                detail = f"{paid[number]} was paid for it: send this or less" if number in paid else "no such line"
                raise _invalid(f"/lines/{number}", detail)
        return {number: approval.lines.get(number, amount) for number, amount in paid.items()}
    if approval.amount is None:
        return paid
    if approval.amount > value.amount:
        raise _invalid("/amount", f"{value.amount} minor units were paid for these units: send this or less")
    lowered, before, counted = dict[int, int](), 0, 0
    for number, amount in paid.items():
        counted += amount
        after = approval.amount * counted // value.amount if value.amount else 0
        lowered[number], before = after - before, after
    return lowered


def _valued(lines: Sequence[CaseLine], units: Mapping[int, int] | None) -> list[ValuedLine]:
    return [
        ValuedLine(line.line_no, line.ship_to, line.sku, line.quantity if units is None else units[line.case_line_no])
        for line in lines
    ]


def _grant_request(
    locked: LockedCase, terms: Terms, reason: str, actor: str, units: Mapping[int, int] | None = None
) -> GrantRequest:
    source_id: UUID = locked.case.case_id
    lines = grant_lines(_valued(locked.lines, units))
    return GrantRequest("case", source_id, reason, actor, lines, terms.freight, terms.fee, amount_override=terms.amount)


def _amounts(terms: Terms) -> dict[str, int]:
    return {"amount": terms.amount, "freight": terms.freight, "fee": terms.fee}
