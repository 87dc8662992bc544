"""Jobs in which rules decide: after a request, and again once evidence that a rule wanted has come.

A decision is one transaction that holds the order lock: what a person has decided before counts, and a person who
comes later finds another version of the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_requests import CaseRequests
from commerce.aftersales.case_status import LockedCase, lock_case
from commerce.aftersales.errors import NoSuchCase
from commerce.aftersales.model import ApprovalInput, CaseKind, CaseStatus, CaseSummary, ClaimKind
from commerce.case_rules import store
from commerce.case_rules.case_facts import read_inputs
from commerce.case_rules.match_regions import CompiledRules
from commerce.case_rules.model import CaseRule, RuleDecision, RuleOutcome
from commerce.jobs import store as jobs
from commerce.jobs.model import Job, JobHandler, JobResult, finished, written
from commerce.jobs.service import JobQueue
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection, Database
from commerce.orders.model import CASE_RULES

_MAX_REASON = 500


@dataclass(slots=True)
class _Turn:
    """A decision that is being taken on a locked case."""

    connection: Connection
    locked: LockedCase
    now: datetime
    actor: str
    reason: str


class _BudgetUsedUp(Exception):  # it is no error: a person decides
    """The budget of the day has no room for a payout."""


class RuleJobs:
    """The queue `case_rules`. A job that fails `max_attempts` times is parked; its case waits for staff."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        decisions: CaseDecisions,
        requests: CaseRequests,
        zone: ZoneInfo,
        retry_policy: RetryPolicy,
        max_attempts: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._decisions = decisions
        self._requests = requests
        self._zone = zone
        self._compiled: tuple[int, CompiledRules] | None = None
        handlers = {"case.decide": JobHandler(self._work, max_attempts=max_attempts)}
        self.queue = JobQueue(CASE_RULES, handlers, db, clock, retry_policy)

    async def _work(self, work: Sequence[Job]) -> Sequence[JobResult]:
        [job] = work
        obstacle = await self._find_exchange_obstacle(job.subject)
        async with self._db.transaction() as connection:
            try:
                locked = await lock_case(connection, job.subject)
            except NoSuchCase:
                return [finished("unchanged")]
            word = await self._decide(connection, locked, obstacle, from_ms(self._clock.now_ms()))
            await jobs.remove(connection, CASE_RULES, [job.subject])
            failpoint("case.before_commit")
        return [written(word)]

    async def _find_exchange_obstacle(self, case_id: UUID) -> str | None:
        """Return why an exchange cannot be approved now. Redis is asked before the order is locked."""
        try:
            await self._requests.check_exchange(case_id)
        except ProblemError as error:
            return error.detail
        return None

    async def _decide(self, connection: Connection, locked: LockedCase, obstacle: str | None, now: datetime) -> str:
        """Decide on a case that waits for staff and that nobody has decided. Returns the result word."""
        case = locked.case
        earlier = await store.list_decisions(connection, case.case_id)
        if not _is_undecided(case) or (earlier and earlier[-1].outcome is not RuleOutcome.ASK_FOR_EVIDENCE):
            return "unchanged"
        inputs = await read_inputs(connection, locked, self._decisions, self._zone)
        await store.insert_inputs(connection, case.case_id, inputs)
        await store.lock_for_decision(connection)
        state = await store.get_state(connection)
        if state.active_version is None:
            return "no_rules"
        decision = RuleDecision(
            case_id=case.case_id,
            decision_no=len(earlier) + 1,
            at=now,
            rule_set_version=state.active_version,
            rule_no=None,
            outcome=RuleOutcome.BY_HAND,
            inputs=inputs,
            reasons=["the rules are switched off"],
            case_version=case.version,
            amount=None,
        )
        if state.is_on:
            rules = await self._get_rules(connection, state.active_version)
            number = rules.find(inputs)
            rule = rules.rules[number - 1]
            actor = f"rule {number} of set {state.active_version}"
            decision = msgspec.structs.replace(decision, rule_no=number, outcome=rule.outcome, reasons=[rule.reason])
            turn = _Turn(connection, locked, now, actor, rule.reason)
            decision = await self._apply(turn, rule, decision, obstacle)
        await store.insert_decision(connection, decision)
        return decision.outcome.value

    async def _get_rules(self, connection: Connection, version: int) -> CompiledRules:
        """Return the rules of a version, which never change."""
        if self._compiled is None or self._compiled[0] != version:
            rule_set = await store.get_set(connection, version)
            assert rule_set is not None
            self._compiled = version, CompiledRules(rule_set.rules)
        return self._compiled[1]

    async def _apply(self, turn: _Turn, rule: CaseRule, decision: RuleDecision, obstacle: str | None) -> RuleDecision:
        """Do what a rule says. What cannot be done, or has no budget, is left to a person with the reason."""
        connection, case = turn.connection, turn.locked.case
        try:
            async with connection.transaction():
                match rule.outcome:
                    case RuleOutcome.APPROVE | RuleOutcome.REFUND_WITHOUT_RETURN:
                        if obstacle is not None and case.kind is CaseKind.EXCHANGE:
                            return _leave(decision, obstacle)
                        return await self._approve(turn, decision)
                    case RuleOutcome.DECLINE:
                        changed = await self._decisions.decline(
                            connection, turn.locked, turn.now, turn.actor, turn.reason
                        )
                        return msgspec.structs.replace(decision, case_version=changed.version)
                    case RuleOutcome.ASK_FOR_EVIDENCE:
                        if decision.decision_no > 1:
                            return _leave(decision, "evidence was requested once already")
                        changed = await self._decisions.request_evidence(
                            connection, turn.locked, turn.now, turn.actor, turn.reason
                        )
                        return msgspec.structs.replace(decision, case_version=changed.version)
                    case _:
                        return decision
        except _BudgetUsedUp as error:
            await store.count_refusal(connection, case.currency, self._day(turn.now))
            return _leave(decision, str(error))
        except ProblemError as error:  # such as a shipment that still has the units
            return _leave(decision, error.detail)

    async def _approve(self, turn: _Turn, decision: RuleDecision) -> RuleDecision:
        """Approve a case within the budget. If nothing is to be sent back, its money moves at once."""
        connection, locked = turn.connection, turn.locked
        approval = ApprovalInput(version=locked.case.version, reason="-")
        if decision.outcome is RuleOutcome.REFUND_WITHOUT_RETURN and locked.case.claim is not ClaimKind.LOST:
            approval = msgspec.structs.replace(approval, items_back=False)
        terms = await self._decisions.staff_terms(connection, locked, approval)
        amount = terms.amount + terms.freight - terms.fee
        if not await store.spend(connection, locked.case.currency, self._day(turn.now), amount):
            raise _BudgetUsedUp(f"the daily budget of rules in {locked.case.currency} has no room for {amount}")
        case = await self._decisions.approve(connection, locked, terms, turn.now, turn.actor, turn.reason)
        if not case.items_back:
            locked = await lock_case(connection, case.case_id)
            case = await self._decisions.resolve(connection, locked, turn.now, turn.actor, turn.reason)
        return msgspec.structs.replace(decision, case_version=case.version, amount=amount)

    def _day(self, now: datetime) -> date:
        return now.astimezone(self._zone).date()


def _is_undecided(case: CaseSummary) -> bool:
    is_requested = case.status is CaseStatus.REQUESTED and case.decided_at is None
    return is_requested and case.offer is None and not case.is_escalated and case.waits_for == "staff"


def _leave(decision: RuleDecision, reason: str) -> RuleDecision:
    """Return a decision that leaves the case to a person."""
    reasons = [*decision.reasons, reason[:_MAX_REASON]]
    return msgspec.structs.replace(decision, outcome=RuleOutcome.BY_HAND, reasons=reasons)
