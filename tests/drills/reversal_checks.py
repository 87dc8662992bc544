"""The end of a drill with returns: every order has ended, and all records agree.

The records of the providers are read from the sandbox's file, trade by trade.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from typing import Any, NamedTuple
from uuid import UUID

from commerce.audit.model import SaleAudit
from ops.sandbox.payment_store import PaymentStore
from ops.services import CliServices
from tests.drills.client_record import format_examples
from tests.drills.final_checks import run_audit
from tests.drills.final_checks import wait_until_idle as wait_until_stock_is_released
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import PROVIDERS
from tests.drills.returning_customers import AftersalesRobot, ReturningCustomers
from tests.support.order_sums import SUMS_OF_ORDERS, find_wrong_sums

_POLL_INTERVAL_S = 1.0
_PARKED = ("no carrier takes it: ", "zto refuses: ", "yto refuses: ")
"""reasons for which staff decide about a shipment"""
_LIST_CUSTOMERS_ORDERS = """
SELECT order_id FROM orders WHERE sale_id = $1 AND order_id NOT IN (SELECT replacement_id FROM exchanges)
"""
_COUNT_OPEN = f"""
SELECT (SELECT count(*) FROM ({_LIST_CUSTOMERS_ORDERS}) AS customers_orders) AS orders,
       (SELECT count(*) FROM refunds WHERE status NOT IN ('done', 'failed')) AS refunds,
       (SELECT count(*) FROM cancellations WHERE status = 'open') AS cancellations,
       (SELECT count(*) FROM cases WHERE ended_at IS NULL AND order_id <> ALL($2::uuid[])) AS cases,
       (SELECT count(*) FROM releases WHERE status = 'pending') AS releases
"""
_LIST_OPEN_ORDERS = """
SELECT order_id, orders.status, jobs.kind, jobs.parked, jobs.last_error,
       (SELECT json_agg(json_build_object('status', shipments.status, 'carrier', carrier, 'no', tracking_no,
                        'error', job.last_error, 'parked', job.parked)) FROM shipments
        LEFT JOIN jobs AS job ON job.queue = 'shipments' AND job.subject = shipment_id
        WHERE shipments.order_id = orders.order_id) AS shipments,
       (SELECT json_agg(json_build_object('method', method, 'status', payments.status, 'amount', amount_minor,
                        'captured', payments.captured_minor, 'refunded', refunded_minor)) FROM payments
        WHERE payments.order_id = orders.order_id) AS payments
FROM orders LEFT JOIN jobs ON queue = 'fulfilments' AND subject = order_id
WHERE sale_id = $1 AND orders.status NOT IN ('completed', 'cancelled')
"""
_LIST_OPEN_REFUNDS = """
SELECT refunds.status, kind, system, due_at, attempts, parked, last_error FROM refunds
LEFT JOIN jobs ON queue = 'refunds' AND subject = refund_id WHERE refunds.status NOT IN ('done', 'failed')
"""
_LIST_REFUNDS = """
SELECT refund_id, payment_id, method, refunds.amount_minor, way FROM refunds JOIN payments USING (payment_id)
WHERE method = ANY($1) AND refunds.status = 'done'
"""
_LIST_CAPTURES = """
SELECT payment_id, method, payments.captured_minor FROM payments WHERE method = ANY($1) AND status = 'captured'
"""


class ReversalResult(NamedTuple):
    """The audit, and the numbers of orders by status and reason, and of cases by kind and status."""

    audit: SaleAudit
    orders: Counter[str]
    cases: Counter[str]


async def wait_until_all_ended(
    stack: LocalStack, shop: CliServices, customers: ReturningCustomers, robot: AftersalesRobot, timeout_s: float
) -> None:
    """Wait until each order has ended, or one of its shipments waits for staff, and nothing else is open."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    expected = {"orders": len(customers.record.promised_orders())}
    expected |= dict.fromkeys(("refunds", "cancellations", "cases", "releases"), 0)
    while True:
        async with shop.db.connection() as connection:
            orders = await connection.fetch(_LIST_OPEN_ORDERS, customers.record.sale_id)
            # A case may need the cash of a shipment that waits for staff.
            waiting = [order["order_id"] for order in orders if _waits_for_staff(order["shipments"])]
            [row] = await connection.fetch(_COUNT_OPEN, customers.record.sale_id, waiting)
            refunds = await connection.fetch(_LIST_OPEN_REFUNDS)
        unended = [dict(order) for order in orders if order["order_id"] not in waiting]
        if dict(row) == expected and not unended and await robot.is_idle():
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(
                f"not ended within {timeout_s} s: {dict(row)}, expected {expected}; "
                f"{len(unended)} orders, {format_examples(map(str, unended))}; "
                f"refunds, {format_examples(map(str, map(dict, refunds)))}; {robot.format_summary()}"
            )
        await asyncio.sleep(_POLL_INTERVAL_S)


def _waits_for_staff(shipments: str | None) -> bool:
    return any(reason in (shipments or "") for reason in _PARKED)


async def check_reversals(stack: LocalStack, shop: CliServices, customers: ReturningCustomers) -> ReversalResult:
    """Compare our records with those of the providers, and each order with its price."""
    sale_id = customers.record.sale_id
    contradictions = customers.record.contradictions
    assert not contradictions, format_examples(contradictions)
    await wait_until_stock_is_released(shop, sale_id)
    async with shop.db.connection() as connection:
        rows = await connection.fetch(_LIST_CUSTOMERS_ORDERS, sale_id)
        assert {row["order_id"] for row in rows} == customers.record.promised_orders().keys()
        orders = await connection.fetch(
            "SELECT concat_ws(' ', status, cancel_reason) AS name, count(*) FROM orders WHERE sale_id = $1 GROUP BY 1",
            sale_id,
        )
        cases = await connection.fetch("SELECT kind || ' ' || status AS name, count(*) FROM cases GROUP BY 1")
        captures = await connection.fetch(_LIST_CAPTURES, PROVIDERS)
        refunds = await connection.fetch(_LIST_REFUNDS, PROVIDERS)
        sums = await connection.fetch(f"{SUMS_OF_ORDERS} WHERE sale_id = $1 ORDER BY order_id", sale_id)
        dead = await connection.fetchval("SELECT count(*) FROM dead_letters")
    assert dead == 0
    _check_providers(stack, captures, refunds)
    wrong = find_wrong_sums(sums)
    assert not wrong, f"orders that keep other money than they are worth, {format_examples(wrong)}"
    return ReversalResult(
        audit=await run_audit(stack, sale_id),
        orders=Counter({row["name"]: row["count"] for row in orders}),
        cases=Counter({row["name"]: row["count"] for row in cases}),
    )


def _check_providers(stack: LocalStack, captures: list[Any], refunds: list[Any]) -> None:
    """Check that captures and refunds are those that the providers have, one by one."""
    with closing(PaymentStore(stack.home / "sandbox" / "payments.sqlite")) as payment_store:
        trades = {UUID(trade.out_no): trade for name in PROVIDERS for trade in payment_store.list_paid_trades(name)}
        paid_back = {
            UUID(refund.out_refund_no): refund for name in PROVIDERS for refund in payment_store.list_refunds(name)
        }
    assert {row["payment_id"]: row["captured_minor"] for row in captures} == {
        id_: trade.amount for id_, trade in trades.items()
    }
    assert not [trade for trade in trades.values() if trade.times_paid > 1]
    by_provider = {row["refund_id"]: row["amount_minor"] for row in refunds if row["way"] == "provider"}
    assert by_provider == {id_: refund.amount for id_, refund in paid_back.items()}
