"""Actions of customers and staff on cases: each locks the order and checks the version."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from commerce.aftersales import store
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_requests import CaseRequests
from commerce.aftersales.case_status import (
    LockedCase,
    change_case,
    check_status,
    check_version,
    lock_case,
    put_rule_job,
    waits_for_evidence,
)
from commerce.aftersales.errors import CaseStatusConflict, NoSuchEvidence
from commerce.aftersales.model import MAX_EVIDENCE, ApprovalInput, CaseKind, CaseOffer, CaseStatus, OfferInput
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.postgres import Connection, Database
from commerce.refunds import service as refunds
from commerce.rights.service import find_decider

_BEFORE_RECEIPT = (CaseStatus.REQUESTED, CaseStatus.APPROVED)


class CaseActions:
    """Changes of cases by customers and staff.

    A customer's `user_id` limits an action to that customer's cases.

    All raise `NoSuchCase`, `CaseVersionConflict` if the case has another version than the caller has read,
    `CaseStatusConflict` if its status does not allow the action, and `RightNeeded` if it is above the right of the
    person who requests it."""

    def __init__(
        self, db: Database, clock: Clock, decisions: CaseDecisions, requests: CaseRequests, policy: AftersalesPolicy
    ) -> None:
        self._db = db
        self._clock = clock
        self._decisions = decisions
        self._requests = requests
        self._policy = policy

    @asynccontextmanager
    async def _locked(
        self, case_id: UUID, version: int, user_id: str | None = None
    ) -> AsyncIterator[tuple[Connection, LockedCase, datetime]]:
        async with self._db.transaction() as connection:
            locked = await lock_case(connection, case_id, user_id)
            check_version(locked.case, version)
            decider = find_decider()
            if decider is not None and locked.case.kind is CaseKind.CLAIM:
                await decider.check_claim(connection)
            yield connection, locked, from_ms(self._clock.now_ms())
            failpoint("case.before_commit")

    # Customers.

    async def cancel(self, case_id: UUID, version: int, actor: str, reason: str, user_id: str | None) -> None:
        """Cancel a case: customers until the products are on their way, staff until they are received."""
        async with self._locked(case_id, version, user_id) as (connection, locked, now):
            if user_id is not None:
                check_status(locked.case, *_BEFORE_RECEIPT)
            await self._decisions.cancel(connection, locked, now, actor, reason)

    async def escalate(self, case_id: UUID, version: int, user_id: str, reason: str) -> None:
        """Escalate a declined case within `escalate_within_s`, or one that waits for the shop."""
        async with self._locked(case_id, version, user_id) as (connection, locked, now):
            case, actor = locked.case, f"customer {user_id}"
            if case.status is CaseStatus.DECLINED:
                assert case.ended_at is not None
                if now > case.ended_at + timedelta(seconds=self._policy.escalate_within_s):
                    raise CaseStatusConflict("it is too late to escalate the case: make a new request")
                await self._requests.check_units(connection, locked)
                await self._decisions.escalate(connection, locked, now, actor, reason, status=CaseStatus.REQUESTED)
                return
            check_status(case, CaseStatus.REQUESTED, CaseStatus.RECEIVED, CaseStatus.INSPECTED)
            if case.is_escalated or case.waits_for == "customer":
                raise CaseStatusConflict("the case is escalated already, or waits for your answer")
            assert case.due_at is not None
            # Whoever complains waits no longer than before.
            due_at = min(case.due_at, now + timedelta(seconds=self._policy.decide_within_s))
            await self._decisions.escalate(connection, locked, now, actor, reason, due_at=due_at)

    async def answer_offer(self, case_id: UUID, version: int, user_id: str, reason: str, *, accepts: bool) -> None:
        """Accept the offer of a case, which approves it so, or decline it: then staff decide on the request."""
        async with self._locked(case_id, version, user_id) as (connection, locked, now):
            check_status(locked.case, CaseStatus.REQUESTED)
            offer, actor = locked.case.offer, f"customer {user_id}"
            if offer is None:
                raise CaseStatusConflict("there is no offer to answer: read the case again")
            if accepts:
                terms = await self._decisions.offer_terms(connection, locked, offer)
                await self._decisions.approve(connection, locked, terms, now, actor, f"offer accepted: {reason}")
            else:
                await change_case(
                    *(connection, locked.case, now, actor, f"offer declined: {reason}"),
                    offer=None,
                    waits_for="staff",
                    due_at=now + timedelta(seconds=self._policy.decide_within_s),
                )

    async def add_evidence(self, case_id: UUID, version: int, user_id: str, evidence_ids: Sequence[UUID]) -> None:
        """Add pictures that were uploaded for the order to an open case.

        Raises `NoSuchEvidence`, `Invalid` for more than a case may have."""
        async with self._locked(case_id, version, user_id) as (connection, locked, now):
            case = locked.case
            if case.ended_at is not None:
                raise CaseStatusConflict("cannot add pictures: the case has ended; make a new request")
            free = await store.list_free_evidence(connection, case.order_id, evidence_ids)
            if len(free) < len(evidence_ids):
                raise NoSuchEvidence("a picture is not one of this order that is free: upload it to the order first")
            if len(await store.list_evidence(connection, case_id)) + len(free) > MAX_EVIDENCE:
                raise Invalid(f"cannot add the pictures: a case has at most {MAX_EVIDENCE}")
            await store.attach_evidence(connection, case_id, evidence_ids)
            reason, changes = f"{len(free)} pictures added", dict[str, Any]()
            if waits_for_evidence(case):
                due_at = now + timedelta(seconds=self._policy.decide_within_s)
                changes = {"waits_for": "staff", "due_at": due_at}
                await put_rule_job(connection, case, now)
            elif case.status is CaseStatus.RESOLVED:
                changes = {"job_due_at": now}  # its money is followed all the same
            await change_case(connection, case, now, f"customer {user_id}", reason, **changes)

    # Staff.

    async def approve(self, case_id: UUID, approval: ApprovalInput, actor: str) -> None:
        """Approve a request, which fixes its amounts.

        Raises `Invalid` for more than what was paid, and as `ReplacementOrders.check` for an exchange."""
        await self._requests.check_exchange(case_id)
        async with self._locked(case_id, approval.version) as (connection, locked, now):
            check_status(locked.case, CaseStatus.REQUESTED)
            terms = await self._decisions.staff_terms(connection, locked, approval)
            await self._decisions.approve(connection, locked, terms, now, actor, approval.reason)

    async def offer(self, case_id: UUID, offer: OfferInput, actor: str) -> None:
        """Offer something else in place of what was requested. Raises `Invalid` for more than what was paid."""
        async with self._locked(case_id, offer.version) as (connection, locked, now):
            check_status(locked.case, CaseStatus.REQUESTED)
            case_offer = CaseOffer(
                kind=offer.kind,
                items_back=offer.items_back,
                amount=offer.amount,
                freight=offer.freight,
                fee=offer.fee,
                freight_payer=offer.freight_payer,
                reason=offer.reason,
            )
            self._decisions.check_offer(locked.case, case_offer)
            await self._decisions.check_terms(
                connection, locked, await self._decisions.offer_terms(connection, locked, case_offer)
            )
            await change_case(
                *(connection, locked.case, now, actor, offer.reason),
                offer=case_offer,
                waits_for="customer",
                due_at=now + timedelta(seconds=self._policy.answer_within_s),
            )

    async def decline(self, case_id: UUID, version: int, actor: str, reason: str) -> None:
        """Decline a request."""
        async with self._locked(case_id, version) as (connection, locked, now):
            await self._decisions.decline(connection, locked, now, actor, reason)

    async def resolve(self, case_id: UUID, version: int, actor: str, reason: str) -> None:
        """Resolve a case, which grants its money.

        Before an inspection staff deviate: the products stay with the customer."""
        async with self._locked(case_id, version) as (connection, locked, now):
            case = locked.case
            amount_minor = (case.amount or 0) + (case.freight or 0) - (case.fee or 0)
            await refunds.check_decision(connection, locked.order, amount_minor)
            await self._decisions.resolve(connection, locked, now, actor, reason)

    async def reopen(self, case_id: UUID, version: int, actor: str, reason: str) -> None:
        """Reopen a declined or cancelled case, or a resolved one without money, if its units are still free."""
        async with self._locked(case_id, version) as (connection, locked, now):
            case = locked.case
            check_status(case, CaseStatus.DECLINED, CaseStatus.CANCELLED, CaseStatus.RESOLVED)
            await self._requests.check_units(connection, locked)
            if case.status is not CaseStatus.RESOLVED:
                due_at = now + timedelta(seconds=self._policy.decide_within_s)
                await change_case(
                    *(connection, case, now, actor, reason),
                    status=CaseStatus.REQUESTED,
                    waits_for="staff",
                    due_at=due_at,
                    money_state="undecided",
                    amount=None,
                    freight=None,
                    fee=None,
                    items_state="expected" if case.items_back else "not_expected",
                )
                return
            if case.kind is CaseKind.EXCHANGE and case.exchange_order_id is not None:
                raise CaseStatusConflict(
                    f"cannot reopen the case: order {case.exchange_order_id} replaces its units; open a case on that"
                )
            if case.money_state != "nothing_due" or case.exchange_order_id is not None:
                raise CaseStatusConflict(
                    "cannot reopen the case: its money was granted; refund what is missing with POST "
                    f"/v1/admin/orders/{case.order_id}/refunds, or open a new case for other units"
                )
            received = sum(line.received for line in locked.lines)
            if 0 < received < sum(line.quantity for line in locked.lines):  # its units would be decided on twice
                raise CaseStatusConflict(
                    "cannot reopen the case: a part of its units was inspected; open a new case for the others"
                )
            terms = await self._decisions.default_terms(connection, locked)
            await self._decisions.approve(connection, locked, terms, now, actor, reason)
