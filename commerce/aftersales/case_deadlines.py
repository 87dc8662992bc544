"""Jobs of cases: they move on at their deadline, and their money is followed until it has moved.

Each open case has one job, and an order has one while a case is to be opened for it. It holds the order lock and reads
both again, so a late or repeated job changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from commerce.aftersales import store
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_exchanges import CaseExchanges
from commerce.aftersales.case_policy import AftersalesPolicy
from commerce.aftersales.case_status import (
    LockedCase,
    change_case,
    lock_case,
    put_case_job,
    waits_for_evidence,
)
from commerce.aftersales.errors import NoSuchCase
from commerce.aftersales.kept_units import KeptUnitCases
from commerce.aftersales.lost_claims import find_money
from commerce.aftersales.model import CaseStatus, CaseSummary, ClaimKind
from commerce.aftersales.store import UnitCounts
from commerce.jobs.model import Job, JobHandler, JobResult, finished, postponed, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection, Database
from commerce.orders.model import CASES
from commerce.payments.errors import RefundExceedsCaptured
from commerce.payments.model import Refund
from commerce.refunds import service as refunds
from commerce.shipping.shipment_tasks import OPEN_CASES

ACTOR = "aftersales_worker"
_MAX_POLL_S = 3_600.0
_CASH_POLL = timedelta(days=1)


class CaseJobs:
    """The queue `cases`. A job that fails `max_attempts` times is parked."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        decisions: CaseDecisions,
        policy: AftersalesPolicy,
        retry_policy: RetryPolicy,
        max_attempts: int,
        exchanges: CaseExchanges,
        kept_units: KeptUnitCases,
    ) -> None:
        self._db = db
        self._clock = clock
        self._decisions = decisions
        self._policy = policy
        handlers = {
            "case.deadline": JobHandler(self._move_on, max_attempts=max_attempts),
            "case.money": JobHandler(self._follow_money, max_attempts=max_attempts),
            OPEN_CASES: JobHandler(kept_units.work, max_attempts=max_attempts),
            # An exchange whose outcome is open is never given up: its replacement may be placed.
            "case.exchange": JobHandler(exchanges.work),
        }
        self.queue = JobQueue(CASES, handlers, db, clock, retry_policy)

    async def _move_on(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        """Apply the rule for a case that nobody answered until its deadline."""
        [job] = jobs
        async with self._db.transaction() as connection:
            try:
                locked = await lock_case(connection, job.subject)
            except NoSuchCase:
                return [finished("unchanged")]
            now, case = from_ms(self._clock.now_ms()), locked.case
            if case.due_at is None:
                return [finished("unchanged")]
            if case.due_at > now or case.status is CaseStatus.RESOLVED:
                await put_case_job(connection, case, now)
                return [written("unchanged")]
            try:
                async with connection.transaction():
                    word = await self._apply_rule(connection, locked, now)
            except RefundExceedsCaptured as error:
                await self._await_cash(connection, locked, now, error.detail)
                word = "waiting"
            except ProblemError as error:  # such as a refund that a chargeback has overtaken
                await self._escalate(connection, locked, now, f"it needs a decision: {error.detail}"[:500])
                word = "refused"
            failpoint("case.before_commit")
        return [written(word)]

    async def _apply_rule(self, connection: Connection, locked: LockedCase, now: datetime) -> str:
        case = locked.case
        match case.status:
            case CaseStatus.REQUESTED if case.offer is not None or waits_for_evidence(case):
                due_at = now + timedelta(seconds=self._policy.decide_within_s)
                missing = "added the evidence" if case.offer is None else "answered the offer"
                reason = f"the customer has not {missing} in time"
                await change_case(*(connection, case, now, ACTOR, reason), offer=None, waits_for="staff", due_at=due_at)
            case CaseStatus.REQUESTED if self._policy.when_undecided == "approve":
                terms = await self._decisions.default_terms(connection, locked)
                reason = "the shop has not decided in time"
                await self._decisions.approve(connection, locked, terms, now, ACTOR, reason)
            case CaseStatus.REQUESTED:
                await self._escalate(connection, locked, now, "the shop has not decided in time")
            case CaseStatus.APPROVED if case.items_back and case.waits_for == "customer":
                reason = "the products were not sent back in time"
                await self._decisions.cancel(connection, locked, now, ACTOR, reason)
            case CaseStatus.APPROVED if case.items_back:
                await self._escalate(connection, locked, now, "the products were not collected in time")
            case CaseStatus.APPROVED | CaseStatus.INSPECTED:
                await self._decisions.resolve(connection, locked, now, ACTOR, "resolved as it was approved")
            case _ if self._policy.when_unconfirmed == "refund":
                await self._resolve_unconfirmed(connection, locked, now)
            case _:
                due_at = now + timedelta(seconds=self._policy.confirm_within_s)
                reason = "nobody has confirmed the products in time"
                await self._decisions.escalate(connection, locked, now, ACTOR, reason, due_at=due_at)
        return "status_changed"

    async def _resolve_unconfirmed(self, connection: Connection, locked: LockedCase, now: datetime) -> None:
        """Resolve a case in favour of the customer whose products nobody has confirmed or inspected.

        They count as received and damaged: none returns to stock until somebody has seen it. Of a case of which the
        warehouse has received a part, these are the units that have come."""
        case, counts = locked.case, list[UnitCounts]()
        for line in locked.lines:
            received = line.quantity if case.status is CaseStatus.IN_TRANSIT else line.received
            damaged = received - line.resellable - line.rejected
            counts.append(UnitCounts(line.case_line_no, received, line.resellable, damaged, line.rejected))
        await store.set_unit_counts(connection, case.case_id, counts)
        reason = "nobody has confirmed the products in time"
        if case.status is CaseStatus.IN_TRANSIT:
            case = await self._step(connection, case, now, reason, CaseStatus.RECEIVED)
        case = await self._step(connection, case, now, reason, CaseStatus.INSPECTED)
        locked = await lock_case(connection, case.case_id)
        await self._decisions.resolve(connection, locked, now, ACTOR, reason)

    async def _step(
        self, connection: Connection, case: CaseSummary, now: datetime, reason: str, to: CaseStatus
    ) -> CaseSummary:
        return await change_case(
            *(connection, case, now, ACTOR, reason),
            status=to,
            items_state=to.value,
            waits_for="staff",
            due_at=now + timedelta(seconds=self._policy.refund_within_s),
        )

    async def _await_cash(self, connection: Connection, locked: LockedCase, now: datetime, reason: str) -> None:
        """Let a case wait until other shipments have brought the cash that it is refunded from, or never will."""
        due_at = now + _CASH_POLL
        await change_case(connection, locked.case, now, ACTOR, reason[:500], waits_for="carrier", due_at=due_at)

    async def _escalate(self, connection: Connection, locked: LockedCase, now: datetime, reason: str) -> None:
        await self._decisions.escalate(connection, locked, now, ACTOR, reason)

    async def _follow_money(self, jobs: Sequence[Job]) -> Sequence[JobResult]:
        """Look at the refunds of a case's grant; the case ends when all are done."""
        [job] = jobs
        async with self._db.transaction() as connection:
            try:
                locked = await lock_case(connection, job.subject)
            except NoSuchCase:
                return [finished("unchanged")]
            now, case = from_ms(self._clock.now_ms()), locked.case
            if case.ended_at is not None or case.status is not CaseStatus.RESOLVED:
                return [finished("unchanged")]
            due_at = now + timedelta(seconds=self._policy.refund_within_s)
            if case.claim is ClaimKind.LOST and case.grant_id is None:  # its cancellation has the money
                case = await find_money(connection, case, now, due_at)
                if case.version != locked.case.version:
                    return [written("status_changed")]
                return [postponed("waiting", now + timedelta(seconds=self._poll_s(case, now)))]
            assert case.grant_id is not None
            state = money_state(await refunds.list_refunds(connection, case.order_id, case.grant_id))
            if state == "done":
                await change_case(connection, case, now, ACTOR, "all money has moved", money_state="done")
                return [written("done")]
            if state != case.money_state:
                poll_at = now + timedelta(seconds=self._poll_s(case, now))
                await change_case(
                    *(connection, case, now, ACTOR, _STATE_TEXTS[state]),
                    job_due_at=poll_at,
                    money_state=state,
                    waits_for="staff" if state == "needs_other_way" else "provider",
                    due_at=due_at,
                )
                return [written("status_changed")]
        return [postponed("waiting", now + timedelta(seconds=self._poll_s(case, now)))]

    def _poll_s(self, case: CaseSummary, now: datetime) -> float:
        """Return the time until the next poll: a quarter of how long the money has been under way."""
        assert case.due_at is not None
        granted_at = case.due_at - timedelta(seconds=self._policy.refund_within_s)
        return min(_MAX_POLL_S, max(self._policy.money_poll_s, (now - granted_at).total_seconds() / 4))


_STATE_TEXTS = {"needs_other_way": "a refund needs another way", "granted": "the refunds are under way again"}


def money_state(granted: Sequence[Refund]) -> str:
    """Return the state of a grant's money. A refund that has failed without another attempt needs staff."""
    replaced = {refund.retries for refund in granted}  # failed attempts that another one follows
    statuses = {refund.status for refund in granted if refund.refund_id not in replaced}
    if not statuses - {"done"}:
        return "done"
    return "granted" if statuses <= {"done", "pending"} else "needs_other_way"
