"""Reads what rules are given about a case."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

from commerce.aftersales import store as cases
from commerce.aftersales.case_decisions import CaseDecisions
from commerce.aftersales.case_status import LockedCase
from commerce.aftersales.model import WHOLE
from commerce.case_rules import store
from commerce.case_rules.model import HISTORY_DAYS, CaseInputs, DeliveryReport
from commerce.case_rules.store import CaseDelivery
from commerce.kernel.errors import ProblemError
from commerce.kernel.postgres import Connection

_REPORTS = {
    "planned": DeliveryReport.NOT_SENT,
    "delivered": DeliveryReport.DELIVERED,
    "lost": DeliveryReport.LOST,
    "returned_to_sender": DeliveryReport.RETURNED,
}
"""reports by status of a shipment; others are under way"""


async def read_inputs(
    connection: Connection, locked: LockedCase, decisions: CaseDecisions, zone: ZoneInfo
) -> CaseInputs:
    """Read the inputs of a requested case. Call inside a transaction that holds its lock.

    The customer's history ends with the request."""
    case, order = locked.case, locked.order
    since = case.created_at - timedelta(days=HISTORY_DAYS)
    history = await store.read_history(connection, case.user_id, case.case_id, since, case.created_at, case.order_id)
    deliveries = await store.list_deliveries(connection, case.case_id, case.order_id)
    delivered_at = min((each.ended_at for each in deliveries if _is_delivered(each) and each.ended_at), default=None)
    days = None
    if delivered_at is not None:
        days = (case.created_at.astimezone(zone).date() - delivered_at.astimezone(zone).date()).days
    return CaseInputs(
        at=case.created_at,
        kind=case.kind,
        claim=case.claim,
        items_back=case.items_back,
        reason=case.reason,
        currency=case.currency,
        amount=await _read_amount(connection, locked, decisions),
        days=None if days is None else max(0, days),
        skus=sorted({line.sku for line in locked.lines}),
        sale_id=order.sale_id,
        cases=history.cases,
        refunded=dict(history.refunded),
        returned_share=min(WHOLE, history.units_in_cases * WHOLE // max(1, history.units_ordered)),
        is_first_order=history.is_first_order,
        carrier=sorted({_REPORTS.get(each.status, DeliveryReport.UNDER_WAY) for each in deliveries})
        or [DeliveryReport.NOT_SENT],
        is_delivery_proven=any(map(_is_delivered, deliveries))
        and all(each.is_proven for each in deliveries if _is_delivered(each)),
        has_evidence=bool(await cases.list_evidence(connection, case.case_id)),
    )


def _is_delivered(delivery: CaseDelivery) -> bool:
    return delivery.status == "delivered"


async def _read_amount(connection: Connection, locked: LockedCase, decisions: CaseDecisions) -> int | None:
    """Return what the case would come to now, None if it cannot be refunded."""
    try:
        terms = await decisions.default_terms(connection, locked)
    except ProblemError:
        return None
    return terms.amount + terms.freight - terms.fee
