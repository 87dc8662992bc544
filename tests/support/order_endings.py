"""Ends of orders: each waits for somebody by name, and ends once everybody has acted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.order_actions import ON_THE_WAY, OrderActions, PlacedOrder
from tests.support.order_sums import SUMS_OF_ORDERS, find_wrong_sums
from tests.support.shipping_shop import tracking_event
from tests.support.whole_shop import BEYOND

_ROUNDS = 8
_FINAL = ("cancelled", "delivered", "completed")
# Rows about what nobody is going to move.
_ORDERS_WAITING_FOR_NOBODY = """
SELECT order_id, status FROM orders
WHERE order_id = ANY($1) AND status NOT IN ('cancelled', 'delivered', 'completed')
  AND NOT (status = 'awaiting_payment' AND pay_by IS NOT NULL)
  AND NOT EXISTS (SELECT FROM cases WHERE cases.order_id = orders.order_id AND ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = orders.order_id OR subject IN (
      SELECT shipment_id FROM shipments WHERE shipments.order_id = orders.order_id))
  AND NOT EXISTS (SELECT FROM shipments WHERE shipments.order_id = orders.order_id
                  AND shipments.status IN ('lost', 'returned_to_sender', 'cancelled'))
"""
_MONEY_WAITING_FOR_NOBODY = """
SELECT order_id, refund_id, status FROM refunds WHERE order_id = ANY($1) AND status = 'pending'
  AND NOT EXISTS (SELECT FROM jobs WHERE subject = refund_id AND queue = 'refunds')
UNION ALL
SELECT order_id, case_id, status FROM cases WHERE order_id = ANY($1) AND ended_at IS NULL
  AND (waits_for = 'nobody' OR NOT EXISTS (SELECT FROM jobs WHERE subject = case_id AND queue = 'cases' AND NOT parked))
"""
_UNFINISHED_ORDERS = """
SELECT order_id, status FROM orders
WHERE order_id = ANY($1) AND status NOT IN ('cancelled', 'delivered', 'completed')
"""
_UNFINISHED_MONEY = """
SELECT refunds.order_id, refund_id, refunds.status FROM refunds
WHERE order_id = ANY($1) AND status NOT IN ('done', 'failed')
UNION ALL SELECT order_id, case_id, cases.status || ' ' || waits_for FROM cases
WHERE order_id = ANY($1) AND ended_at IS NULL
UNION ALL SELECT order_id, case_id, status FROM exchanges WHERE order_id = ANY($1) AND status = 'open'
"""
# Units of a replacement are worth their price before what was taken off it: that was paid with the order before.
_LINES = """
SELECT line.order_id, line.line_no, line.address_no, quantity,
       quantity * unit_price_minor - CASE WHEN exchanges.status = 'done' THEN 0 ELSE discount_minor END AS paid_minor
FROM order_lines AS line LEFT JOIN exchanges ON replacement_id = line.order_id
"""
_PARTS_UNLIKE_WHOLE = f"""
SELECT order_id, line_no, granted.amount_minor, paid_minor FROM (
    SELECT order_id, line_no, address_no, sum(quantity) AS units, sum(amount_minor) AS amount_minor
    FROM refund_grant_lines WHERE order_id = ANY($1) GROUP BY order_id, line_no, address_no) AS granted
JOIN ({_LINES}) AS lines USING (order_id, line_no, address_no)
WHERE units = quantity AND granted.amount_minor <> paid_minor
"""
# Orders of which each unit is back, in however many parts: all that was paid is granted, less what paid for others.
_ORDERS_UNLIKE_WHOLE = f"""
SELECT order_id, paid_minor, granted_minor, exchanged_minor FROM (
    SELECT order_id, sum(quantity) AS units, sum(paid_minor) AS paid_minor
    FROM ({_LINES}) AS lines WHERE order_id = ANY($1) GROUP BY order_id) AS ordered
JOIN (SELECT order_id, sum(quantity) AS units FROM refund_grant_lines GROUP BY order_id) AS back
    USING (order_id, units)
JOIN (SELECT order_id, sum(amount_minor) AS granted_minor FROM refund_grants GROUP BY order_id) AS granted
    USING (order_id)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(discount_minor), 0) AS exchanged_minor
    FROM exchanges JOIN orders AS replacements ON replacements.order_id = replacement_id
    WHERE exchanges.order_id = ordered.order_id AND exchanges.status = 'done') AS exchanged
WHERE granted_minor + exchanged_minor <> paid_minor
"""


async def check_excess(actions: OrderActions) -> None:
    """Check that nothing is beyond what was delivered or captured, and that parts add up to the whole."""
    rows = [row for query in BEYOND for row in await actions.fetch(query)]
    rows += await actions.fetch(_PARTS_UNLIKE_WHOLE, actions.ids)
    assert not rows, [tuple(row) for row in rows]


async def end_all(actions: OrderActions, clear_faults: Callable[[], None]) -> None:
    """Check that each order waits for somebody, and that all end once everybody acts.

    `clear_faults` lets providers work again."""
    whole = actions.whole
    await whole.work_until_idle()
    await actions.follow_exchanges("balance")
    for query in (_ORDERS_WAITING_FOR_NOBODY, _MONEY_WAITING_FOR_NOBODY):
        idle = await _list(actions, query)
        assert not idle, ("it waits for nobody", idle)
    clear_faults()
    for _ in range(_ROUNDS):
        if not await _find_unfinished(actions):
            break
        await _let_everybody_act(actions)
    unfinished = await _find_unfinished(actions)
    assert not unfinished, unfinished
    await check_excess(actions)
    unlike = await _list(actions, _ORDERS_UNLIKE_WHOLE)
    assert not unlike, unlike
    sums = await actions.fetch(f"{SUMS_OF_ORDERS} WHERE order_id = ANY($1) ORDER BY order_id", actions.ids)
    wrong = find_wrong_sums(sums, _FINAL)
    assert not wrong, wrong
    await whole.check_audit()


async def _let_everybody_act(actions: OrderActions) -> None:
    whole = actions.whole
    await whole.pay.expire_orders(*actions.ids)
    await whole.work_until_idle()
    await asyncio.gather(*(_deliver_and_decide(actions, order) for order in actions.placed))
    parked = await actions.fetch("SELECT queue, subject FROM jobs WHERE parked AND queue IN ('payments', 'refunds')")
    if parked:
        jobs = [{"queue": job["queue"], "subject": str(job["subject"])} for job in parked]
        await actions.call("admin/jobs/retry", {"jobs": jobs})
    await whole.pay.wait_until_idle()
    for way in ("confirm", "credit"):
        await actions.use_other_way(actions.placed, way)
    await actions.follow_exchanges("balance")
    await whole.follow_cases()


async def _deliver_and_decide(actions: OrderActions, order: PlacedOrder) -> None:
    ship = actions.whole.ship
    await actions.decide_on_undelivered(order, is_sent_again=False)
    for shipment in await ship.list_shipments(order.order_id):
        if shipment.status in ON_THE_WAY:
            await ship.apply_events(shipment.shipment_id, tracking_event("delivered", code="end"))
    if not await actions.list_cases(order):
        return
    for action in ("approve", "decline"):
        await actions.decide_on_cases(order, action)
    await actions.receive(order, 9, ["resellable"])
    await actions.decide_on_cases(order, "resolve")
    await actions.decide_on_cases(order, "cancel")  # units that were refunded otherwise


async def _find_unfinished(actions: OrderActions) -> list[tuple[Any, ...]]:
    await actions.whole.pay.wait_until_idle()
    return await _list(actions, _UNFINISHED_ORDERS) + await _list(actions, _UNFINISHED_MONEY)


async def _list(actions: OrderActions, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await actions.fetch(query, actions.ids)]
