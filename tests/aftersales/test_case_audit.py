"""The audit finds every breach of a promise by a case, and nothing in what the shop does itself."""

from __future__ import annotations

from uuid import UUID

import pytest

from commerce.aftersales.case_gauges import CaseGauges
from commerce.audit.order_checks import OrderFindings, check_orders
from tests.support.case_shop import CLAIM, CaseShop, open_case_shop
from tests.support.shipping_shop import ShippingShop

BREACHES = {
    "cases have more units than were delivered": "UPDATE case_lines SET quantity = 9",
    "units of inspected cases are neither resellable, damaged nor rejected": "UPDATE case_lines SET resellable = 0",
    "money of resolved cases differs from its grant": "UPDATE refund_grants SET amount_minor = 1",
    "nothing is done about open cases": "DELETE FROM jobs WHERE queue = 'cases'",
    "histories of cases do not lead to their status": "DELETE FROM case_events WHERE to_status = 'resolved'",
}


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


async def find_breaches(cases: CaseShop, order_id: UUID) -> set[str]:
    findings = OrderFindings()
    async with cases.ship.shop.db.snapshot() as connection:
        await check_orders(connection, [order_id], findings)
    texts = {finding.detail for finding in findings.list_findings()}
    return {text for text in texts if "cases" in text}


async def test_each_breach_is_found(cases: CaseShop) -> None:
    order_id = await cases.add_delivered(("a", 3, 0))
    case_id = await cases.request(order_id, 2)
    await cases.approve(case_id)
    await cases.receive(case_id, (1, 0, 1))
    await cases.act("resolve", case_id)
    await cases.request(order_id, 1, kind=CLAIM)
    assert await find_breaches(cases, order_id) == set()
    for detail, change in BREACHES.items():
        async with cases.ship.shop.db.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(change)
            findings = OrderFindings()
            await check_orders(connection, [order_id], findings)
            await transaction.rollback()
        assert detail in {finding.detail for finding in findings.list_findings()}, detail


async def test_gauges_count_open_and_overdue_cases(cases: CaseShop) -> None:
    gauges = CaseGauges(cases.ship.shop.db, cases.ship.shop.clock)
    assert (await gauges.count_open(), await gauges.measure_decisions()) == ({}, [])
    order_id = await cases.add_delivered(("a", 3, 0))
    ids = [await cases.request(order_id, 1) for _ in range(3)]
    await cases.approve(ids[0])
    await cases.act("decline", ids[1])
    await cases.ship.fetch_rows(
        "UPDATE cases SET due_at = now() - interval '1 day' WHERE due_at IS NOT NULL RETURNING 1"
    )
    assert await gauges.count_open() == {("return", "customer"): (1, 1), ("return", "staff"): (1, 1)}
    assert len(await gauges.measure_decisions()) == 3
