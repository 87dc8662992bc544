"""The one place that changes a case's status, and what must follow from it.

Call inside a transaction that holds the order lock (`lock_case`). Each change has an event with the next version, and
the one job of an open case is put in the same transaction: it moves the case on at its deadline, or follows its money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from commerce.aftersales import store
from commerce.aftersales.errors import CaseStatusConflict, CaseVersionConflict, NoSuchCase
from commerce.aftersales.model import TRANSITIONS, CaseKind, CaseLine, CaseStatus, CaseSummary, WaitsFor
from commerce.conversations.case_threads import CaseFacts, follow_case, open_for_case
from commerce.jobs import store as jobs
from commerce.jobs.model import INTERNAL_SYSTEM, NewJob
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import CASE_RULES, CASES
from commerce.orders.store import OrderHeader, StoryEvent

CaseTask = Literal["case.deadline", "case.money", "case.exchange"]


class LockedCase(NamedTuple):
    """A case with its lines, and its order, whose row is locked."""

    order: OrderHeader
    case: CaseSummary
    lines: list[CaseLine]


async def lock_case(connection: Connection, case_id: UUID, user_id: str | None = None) -> LockedCase:
    """Lock the order of a case and read both.

    Raises `NoSuchCase` if there is none, or none of that customer."""
    order_id = await store.find_order(connection, case_id)
    order = await orders.lock_order(connection, order_id) if order_id else None
    # The case may have changed while this transaction waited for the lock.
    case = await store.get_case(connection, case_id) if order else None
    if order is None or case is None or user_id not in (None, case.user_id):
        raise NoSuchCase(f"there is no case {case_id}")
    return LockedCase(order, case, (await store.list_lines(connection, [case_id]))[case_id])


def check_version(case: CaseSummary, version: int) -> None:
    """Raise `CaseVersionConflict` if the case has another version."""
    if case.version != version:
        raise CaseVersionConflict(
            f"cannot change the case: it has version {case.version}, and you have read version {version}; "
            "read it again and decide on what it says now",
            version=case.version,
        )


def check_step(case: CaseSummary, to: CaseStatus) -> None:
    """Raise `CaseStatusConflict` if the case cannot go to that status."""
    if to not in TRANSITIONS[case.status]:
        allowed = ", ".join(sorted(TRANSITIONS[case.status]))
        raise CaseStatusConflict(
            f"cannot change the case to {to}: it is {case.status}, from which it can become {allowed}; read it again"
        )


def check_status(case: CaseSummary, *statuses: CaseStatus) -> None:
    """Raise `CaseStatusConflict` unless the case has one of these statuses."""
    if case.status not in statuses:
        raise CaseStatusConflict(
            f"cannot do this with the case: it is {case.status}, not {' or '.join(statuses)}; read it again"
        )


async def change_case(
    connection: Connection,
    case: CaseSummary,
    now: datetime,
    actor: str,
    reason: str,
    *,
    details: Mapping[str, Any] | None = None,
    job_due_at: datetime | None = None,
    **changes: Any,
) -> CaseSummary:
    """Store changed fields of a case with its event, job and the order's story. Returns the changed case.

    `changes` are fields of `CaseSummary`. The case ends with a final status once no money is under way; else name who
    must act (`waits_for`) until when (`due_at`). `job_due_at` is when its job is due, if not then. Raises
    `CaseStatusConflict` for a status that cannot follow, `CaseVersionConflict` if the row has changed."""
    if changes.get("status", case.status) is not case.status:
        check_step(case, changes["status"])
    changed = msgspec.structs.replace(case, version=case.version + 1, **changes)
    if is_over(changed):
        changed = msgspec.structs.replace(changed, waits_for="nobody", due_at=None, ended_at=now, offer=None)
    else:
        changed = msgspec.structs.replace(changed, ended_at=None)
    if changed.status in (CaseStatus.APPROVED, CaseStatus.DECLINED) and changed.decided_at is None:
        changed = msgspec.structs.replace(changed, decided_at=now)
    if not await store.update_case(connection, case, changed, now, actor, reason, details):
        raise CaseVersionConflict("cannot change the case: somebody else has changed it; read it again")
    await put_case_job(connection, changed, now, job_due_at)
    await follow_case(connection, _facts(case), _facts(changed), now, actor)
    await _add_to_story(connection, case, changed, now, actor, reason)
    return changed


def is_exchanging(case: CaseSummary) -> bool:
    """Tell whether a resolved case waits for its replacement."""
    return case.status is CaseStatus.RESOLVED and case.kind is CaseKind.EXCHANGE and case.money_state == "fixed"


def is_over(case: CaseSummary) -> bool:
    """Tell whether nothing is left to do: a final status, and no money under way."""
    if case.status is CaseStatus.RESOLVED:
        return case.money_state in ("nothing_due", "done")
    return case.status in (CaseStatus.DECLINED, CaseStatus.CANCELLED)


async def open_conversation(connection: Connection, case: CaseSummary, now: datetime, actor: str) -> None:
    """Open the conversation of a new case."""
    await open_for_case(connection, _facts(case), now, actor)


def _facts(case: CaseSummary) -> CaseFacts:
    amount = None if case.amount is None else max(0, case.amount + (case.freight or 0) - (case.fee or 0))
    return CaseFacts(
        case_id=case.case_id,
        order_id=case.order_id,
        user_id=case.user_id,
        kind=case.kind.value,
        subject=describe(case),
        text=case.text,
        created_at=case.created_at,
        status=case.status.value,
        waits_for=case.waits_for,
        money_state=case.money_state,
        is_decided=case.decided_at is not None,
        amount=amount,
        currency=case.currency,
    )


async def put_case_job(
    connection: Connection, case: CaseSummary, now: datetime, due_at: datetime | None = None
) -> None:
    """Put the one job of an open case, in place of the one before, or remove that of a case that is over."""
    if case.ended_at is not None:
        await jobs.remove(connection, CASES, [case.case_id])
        return
    assert case.due_at is not None
    task: CaseTask = "case.money" if case.status is CaseStatus.RESOLVED else "case.deadline"
    due_at = due_at or case.due_at
    if is_exchanging(case):
        task, due_at = "case.exchange", min(due_at, now)
    await jobs.put(connection, CASES, [NewJob(case.case_id, task, INTERNAL_SYSTEM, due_at)], now)


async def put_rule_job(connection: Connection, case: CaseSummary, now: datetime) -> None:
    """Have rules decide on a case that waits for staff, unless a person is quicker."""
    await jobs.put(connection, CASE_RULES, [NewJob(case.case_id, "case.decide", INTERNAL_SYSTEM, now)], now)


def waits_for_evidence(case: CaseSummary) -> bool:
    """Tell whether the customer was asked for evidence."""
    return case.status is CaseStatus.REQUESTED and case.offer is None and case.waits_for == "customer"


async def _add_to_story(
    connection: Connection, case: CaseSummary, changed: CaseSummary, now: datetime, actor: str, reason: str
) -> None:
    """Add to the order's story what customers should see.

    That is steps, offers, escalations, and evidence that is needed."""
    if changed.status is not case.status:
        text = f"the {describe(changed)} is {changed.status}: {reason}"
    elif changed.offer is not None and changed.offer != case.offer:
        text = f"an offer for the {describe(changed)}: {reason}"
    elif changed.is_escalated and not case.is_escalated:
        text = f"the {describe(changed)} is escalated: {reason}"
    elif waits_for_evidence(changed) and not waits_for_evidence(case):
        text = f"the {describe(changed)} needs a picture as evidence: {reason}"
    else:
        return
    details = {"case_id": str(case.case_id), "status": changed.status, "version": changed.version}
    event = StoryEvent(case.order_id, "case", text[:500], details)
    await orders.insert_story_events(connection, [event], now, actor)


def describe(case: CaseSummary) -> str:
    """Name a case for people: `return`, `claim (lost)`."""
    kind = case.kind.replace("_", " ")
    return f"{kind} ({case.claim})" if case.claim else kind


def next_actor(case: CaseSummary) -> WaitsFor:
    """Return who must act next on an open case by its status, before money and labels are looked at."""
    if case.status is CaseStatus.APPROVED and case.items_back:
        return "customer"
    if case.status is CaseStatus.IN_TRANSIT:
        return "carrier"
    if case.status is CaseStatus.RECEIVED:
        return "warehouse"
    return "staff"
