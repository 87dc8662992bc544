"""Claims of units that never arrived: these are cancelled, and that brings the money.

So no unit is refunded twice, however else it may be cancelled: by staff, or because nobody has decided about its
shipment. Call inside a transaction that holds the order lock.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from commerce.aftersales import store
from commerce.aftersales.case_status import LockedCase, change_case
from commerce.aftersales.errors import StillUnderWay
from commerce.aftersales.model import CaseStatus, CaseSummary
from commerce.cancellations import store as cancellations
from commerce.cancellations.progress import NewCancellation, open_cancellation
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection
from commerce.refunds import service as granting
from commerce.refunds import store as refunds
from commerce.shipping.shipment_tasks import put_cancellation_jobs

ACTOR = "aftersales"


def _key(case: CaseSummary) -> str:
    return f"case {case.case_id}"


async def resolve_lost(
    connection: Connection,
    ids: IdGenerator,
    locked: LockedCase,
    now: datetime,
    actor: str,
    reason: str,
    due_at: datetime,
) -> CaseSummary:
    """Cancel the units of a claim; a job finds the money.

    Nothing is due for units that are cancelled already. Raises `StillUnderWay` if a shipment still has some of them:
    its outcome decides."""
    case, order_id = locked.case, locked.case.order_id
    contents = await cancellations.read_units(connection, order_id)
    cancellable, claimed = contents.count_cancellable(), Counter[tuple[int, int]]()
    for line in locked.lines:
        claimed[line.line_no, line.ship_to] += line.quantity
    for key, quantity in claimed.items():
        units = contents.lines.get(key)
        under_way = units.shipped - units.delivered if units else 0
        if under_way > 0 and cancellable.get(key, 0) < quantity:
            raise StillUnderWay(
                f"cannot resolve the claim: a shipment has {under_way} units of line {key[0]}; record its outcome "
                "(`floodgate shipment outcome`), then resolve the claim"
            )
    to_cancel = {key: min(count, cancellable.get(key, 0)) for key, count in claimed.items()}
    to_cancel = {key: count for key, count in to_cancel.items() if count > 0}
    if to_cancel:
        new = NewCancellation(to_cancel, "lost", reason, ACTOR, _key(case))
        await open_cancellation(connection, ids, order_id, new, now)
        await put_cancellation_jobs(connection, [order_id], now, now)
    return await change_case(
        *(connection, case, now, actor, reason if to_cancel else f"{reason}: the units are cancelled already"),
        job_due_at=now,
        status=CaseStatus.RESOLVED,
        money_state="fixed" if to_cancel else "nothing_due",
        waits_for="provider",
        due_at=due_at,
    )


async def find_money(connection: Connection, case: CaseSummary, now: datetime, due_at: datetime) -> CaseSummary:
    """Set the grant of a resolved claim, once its cancellation has one. Returns the case."""
    earlier = await cancellations.find_by_key(connection, case.order_id, ACTOR, _key(case))
    cancellation = await cancellations.get(connection, earlier[0]) if earlier else None
    granted = await refunds.find_grant(connection, "cancellation", earlier[0]) if earlier else None
    if granted is None:
        if cancellation is not None and cancellation.status == "open":
            return case
        reason = "the units were refunded before"
        return await change_case(connection, case, now, ACTOR, reason, money_state="nothing_due")
    lines = await refunds.list_grant_lines(connection, granted.grant_id)
    amounts = {(line.line_no, line.ship_to): line.amount for line in lines}
    case_lines = (await store.list_lines(connection, [case.case_id]))[case.case_id]
    by_line = {line.case_line_no: amounts.get((line.line_no, line.ship_to), 0) for line in case_lines}
    await store.set_line_amounts(connection, case.case_id, by_line)
    has_refunds = bool(await granting.list_refunds(connection, case.order_id, granted.grant_id))
    return await change_case(
        *(connection, case, now, ACTOR, "the units are cancelled and refunded"),
        job_due_at=now,
        grant_id=granted.grant_id,
        amount=sum(by_line.values()),
        freight=granted.freight_minor,
        fee=granted.fee_minor,
        money_state="granted" if has_refunds else "done",
        waits_for="provider",
        due_at=due_at,
    )
