"""Actions of customers, staff, providers and carriers on orders of a `WholeShop`.

Each action may come at any time: it is done, or refused for a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import lua
from ops.sandbox.payment_store import PaymentStoreRefusal
from ops.sandbox.server import PROVIDERS
from tests.support.gateway import GatewayResponse
from tests.support.sales import eventually
from tests.support.shipping_shop import tracking_event
from tests.support.whole_shop import WholeShop

ON_THE_WAY = ("booked", "picked_up", "in_transit", "out_for_delivery")
NOT_ARRIVED = ("lost", "returned_to_sender", "cancelled")
RESULTS = ("resellable", "damaged", "rejected")
SCARCE = "c"
_users = count()
# Exchanges that go on without anybody: their replacements need not be paid.
_COUNT_MOVING_EXCHANGES = """
SELECT count(*) FROM exchanges LEFT JOIN orders ON orders.order_id = replacement_id
WHERE exchanges.status = 'open' AND orders.status IS DISTINCT FROM 'awaiting_payment'
"""
_LIST_STUCK_REFUNDS = """
SELECT refund_id, refunds.order_id, other_way.refund_id IS NOT NULL AS has_transfer FROM refunds
LEFT JOIN refund_other_ways AS other_way USING (refund_id)
WHERE refunds.order_id = ANY($1) AND refunds.status = 'needs_other_way'
"""
_LIST_REFUNDS = """
SELECT refund_id, payment_id FROM refunds JOIN payments USING (payment_id, order_id)
WHERE order_id = $1 AND method = $2
"""


@dataclass
class PlacedOrder:
    """An order with its payments. `user` has only this one and its replacements."""

    order_id: UUID
    user: str
    lines: int
    total: int
    method: str
    payments: list[dict[str, Any]] = field(default_factory=list)


class OrderActions:
    """Places orders at prices of `whole`, and acts on them.

    `done` counts what has been done, by action and result."""

    def __init__(self, whole: WholeShop) -> None:
        self.whole = whole
        self.placed: list[PlacedOrder] = []
        self.done: Counter[str] = Counter()
        self._keys = count()

    @property
    def ids(self) -> list[UUID]:
        return [order.order_id for order in self.placed]

    async def fetch(self, query: str, *values: object) -> list[Any]:
        return await self.whole.pay.fetch_rows(query, *values)

    async def call(
        self, path: str, body: Any, *, user: str | None = None, staff: str = "sam", role: str = "support_lead"
    ) -> GatewayResponse:
        """Send a request of a customer, or of staff. It must be done, or be refused for a reason."""
        sender: dict[str, Any] = {"user": user} if user else {"user": staff, "roles": [role]}
        headers = {"Idempotency-Key": f"{self.placed[0].order_id}-{next(self._keys)}"}
        answer = await self.whole.pay.gateway.call("POST", f"/v1/{path}", headers=headers, json=body, **sender)
        assert answer.status in (200, 201, 202, 204, 409, 422), (path, body, answer.text)
        return answer

    # Customers.

    async def place(self, units: dict[str, int], method: str, progress: str = "placed") -> PlacedOrder:
        """Place an order and bring it to a stage: placed, paid, booked or delivered."""
        user, lines = f"model-{next(_users)}", [line for line in units.items() if line[1]]
        order = await self.adopt(await self.whole.pay.add_order(*lines, user=user), user, method)
        if progress != "placed":
            await self.pay(order)
        if progress in ("booked", "delivered"):
            await self.whole.work_until_idle()
        if progress == "delivered":
            await self.whole.deliver(order.order_id)
        return order

    async def adopt(self, order_id: UUID, user: str, method: str) -> PlacedOrder:
        """Act on a stored order from now on."""
        query = """SELECT total_minor, (SELECT count(DISTINCT line_no) FROM order_lines WHERE order_id = $1) AS lines
                   FROM orders WHERE order_id = $1"""
        [row] = await self.fetch(query, order_id)
        self.placed.append(PlacedOrder(order_id, user, row["lines"], row["total_minor"], method))
        return self.placed[-1]

    async def buy_all_that_is_scarce(self) -> PlacedOrder | None:
        """Place an order of all units of `SCARCE` that are left."""
        [free] = await lua.read_units_free(self.whole.pay.shop.redis, self.whole.pay.keys, [SCARCE])
        return await self.place({SCARCE: free}, "balance") if free else None

    async def pay(self, order: PlacedOrder, *, is_completed: bool = True) -> None:
        """Start the payment of an order that awaits it, and complete it."""
        pay = self.whole.pay
        if await self.read_status(order) != "awaiting_payment" or order.payments:
            return
        if order.method == "balance" and is_completed:
            await pay.grant_credit(order.total, order.user, key=str(order.order_id))
        body = {"payments": [{"method": order.method, "amount": order.total}]}
        answer = await self.call(f"orders/{order.order_id}/payments", body, user=order.user)
        if answer.status != 200:
            return
        order.payments = [payment for payment in answer.body["payments"] if payment["current"]]
        if order.method in PROVIDERS and is_completed:
            pay.pay_at_provider(order.method, order.payments[0]["payment_id"])
        if is_completed:
            await pay.wait_for_order(order.order_id, "confirmed" if order.method == "cod" else "paid")

    async def expire(self, order: PlacedOrder, *, is_paid_late: bool) -> None:
        """Let the time to pay an order pass. With `is_paid_late` the money arrives all the same."""
        if await self.read_status(order) != "awaiting_payment":
            return
        await self.whole.pay.expire_orders(order.order_id)

        async def is_over() -> bool:
            return await self.read_status(order) != "awaiting_payment"

        await eventually(is_over)
        for payment in order.payments if is_paid_late and order.method in PROVIDERS else ():
            with suppress(PaymentStoreRefusal):
                self.whole.pay.pay_at_provider(order.method, payment["payment_id"], too_late=True)
                self.done["paid late"] += 1

    async def cancel(self, order: PlacedOrder, line_no: int, quantity: int, *, is_staff: bool) -> None:
        """Cancel units of a line, or the whole order if `quantity` is 0."""
        body: dict[str, Any] = {"reason": "not wanted"}
        if quantity:
            body["lines"] = [{"line_no": line_no % order.lines, "quantity": quantity}]
        prefix, user = ("admin/", None) if is_staff else ("", order.user)
        await self.call(f"{prefix}orders/{order.order_id}/cancel", body, user=user)

    async def request_case(self, order: PlacedOrder, line_no: int, quantity: int, kind: str, wanted_sku: str) -> bool:
        """Request a case of a line; an exchange is for `wanted_sku`. False if it is refused."""
        number = line_no % order.lines
        rows = await self.fetch(
            "SELECT shipment_id FROM shipment_lines JOIN shipments USING (shipment_id, order_id) "
            "WHERE order_id = $1 AND line_no = $2 ORDER BY status = 'delivered' DESC, 1 LIMIT 1",
            *(order.order_id, number),
        )
        line: dict[str, Any] = {"line_no": number, "quantity": quantity}
        if rows:
            line["shipment_id"] = str(rows[0]["shipment_id"])
        if kind == "exchange":
            line["wanted_sku"] = wanted_sku
        more = {"claim": "damaged", "items_back": quantity == 1} if kind == "claim" else {}
        reason = "damaged_or_defective" if kind == "claim" else "changed_my_mind"
        body = {"kind": kind, "reason": reason, "lines": [line], **more}
        answer = await self.call(f"orders/{order.order_id}/returns", body, user=order.user)
        return answer.status == 201

    # Staff.

    async def list_cases(self, order: PlacedOrder) -> list[Any]:
        query = "SELECT case_id, version, status, items_back FROM cases WHERE order_id = $1 AND ended_at IS NULL"
        return await self.fetch(query, order.order_id)

    async def decide_on_cases(self, order: PlacedOrder, action: str) -> None:
        for case in await self.list_cases(order):
            body = {"version": case["version"], "reason": "decided"}
            await self.call(f"admin/cases/{case['case_id']}/{action}", body)

    async def receive(self, order: PlacedOrder, quantity: int, results: Sequence[str]) -> None:
        """Receive units of each case that awaits them, and inspect what it has then."""
        for case in await self.list_cases(order):
            if not case["items_back"] or case["status"] not in ("approved", "in_transit", "received"):
                continue
            body = {"case_id": str(case["case_id"]), "version": case["version"], "warehouse": "hz"}
            await self.call("admin/return-receipts", {**body, "lines": {"0": quantity}}, role="warehouse")
            query = "SELECT version, received FROM cases JOIN case_lines USING (case_id) WHERE case_id = $1"
            [line] = await self.fetch(query, case["case_id"])
            if line["received"]:
                counts = {name: ([*results] * 9)[: line["received"]].count(name) for name in RESULTS}
                body = {"version": line["version"], "lines": {"0": counts}, "nothing_more": True}
                await self.call(f"admin/cases/{case['case_id']}/inspect", body, role="warehouse")

    async def take_steps(self, order: PlacedOrder, steps: Sequence[str], quantity: int, results: Sequence[str]) -> None:
        """Take steps of an order's cases: receive units, or a decision of staff."""
        for step in steps:
            if step == "receive":
                await self.receive(order, quantity, results)
            else:
                await self.decide_on_cases(order, step)

    async def pass_deadlines(self, order: PlacedOrder) -> None:
        """Let the deadlines of an order's cases pass."""
        query = """UPDATE cases SET due_at = now() - interval '1 second'
                   WHERE order_id = $1 AND ended_at IS NULL RETURNING 1"""
        await self.fetch(query, order.order_id)
        await self.whole.follow_cases()

    async def follow_exchanges(self, method: str) -> list[PlacedOrder]:
        """Let exchanges go on until each waits for a payment or has ended. Returns new replacements.

        Their differences are to be paid with `method`."""

        async def are_waiting() -> bool:
            await self.whole.follow_cases()
            [row] = await self.fetch(_COUNT_MOVING_EXCHANGES)
            return not row["count"]

        await eventually(are_waiting)
        users = {order.user for order in self.placed}
        rows = await self.fetch("SELECT order_id, user_id FROM orders WHERE user_id = ANY($1) ORDER BY 1", list(users))
        adopted = set(self.ids)
        return [
            await self.adopt(row["order_id"], row["user_id"], method) for row in rows if row["order_id"] not in adopted
        ]

    async def decide_on_undelivered(self, order: PlacedOrder, *, is_sent_again: bool) -> None:
        for shipment in await self.whole.ship.list_shipments(order.order_id):
            if shipment.status in NOT_ARRIVED:
                action, role = ("reship", "warehouse") if is_sent_again else ("refund", "support")
                await self.call(f"admin/shipments/{shipment.shipment_id}/{action}", {"reason": "decided"}, role=role)

    async def refund(self, order: PlacedOrder, line_no: int, quantity: int, amount: int) -> None:
        """Refund units of a line, or an amount if `quantity` is 0."""
        body: dict[str, Any] = {"idempotency_key": f"model-{next(self._keys)}", "reason": "a kindness"}
        lines = [{"line_no": line_no % order.lines, "quantity": quantity}]
        await self.call(
            f"admin/orders/{order.order_id}/refunds", {**body, **({"lines": lines} if quantity else {"amount": amount})}
        )

    async def use_other_way(self, orders: Sequence[PlacedOrder], way: str) -> None:
        """Have refunds that cannot go back to their payments end another way, or begin it."""
        users = {order.order_id: order.user for order in orders}
        for row in await self.fetch(_LIST_STUCK_REFUNDS, list(users)):
            path = f"admin/refunds/{row['refund_id']}"
            match way:
                case "credit":
                    own_path = f"orders/{row['order_id']}/refunds/{row['refund_id']}/store-credit"
                    answer = await self.call(own_path, None, user=users[row["order_id"]])
                case "consent":
                    answer = await self.call(f"{path}/store-credit", {"proof": "by telephone"})
                case "record":
                    answer = await self.call(f"{path}/transfer", {"reference": "bank 1"})
                case "confirm":
                    answer = await self.call(f"{path}/transfer/confirm", None, staff="tom")
                case _:
                    answer = await self.call(f"{path}/redirect", {})
            self.done[f"{way} {answer.status}"] += 1

    # Providers and carriers.

    async def repeat_webhooks(self, order: PlacedOrder, times: int) -> None:
        """Have the provider report an order's payments and refunds as they are now, so many times each."""
        if order.method not in PROVIDERS:
            return
        subjects: list[tuple[Any, UUID | None]] = [(payment["payment_id"], None) for payment in order.payments]
        rows = await self.fetch(_LIST_REFUNDS, order.order_id, order.method)
        subjects += [(row["payment_id"], row["refund_id"]) for row in rows]
        for payment_id, refund_id in subjects * times:
            if self.whole.pay.find_trade_state(order.method, payment_id) in (None, "created"):
                continue
            if refund_id and self.whole.pay.payment_store.find_refund(order.method, refund_id.hex) is None:
                continue
            webhook_id = f"again-{self.placed[0].order_id}-{next(self._keys)}"
            webhook = self.whole.pay.build_webhook(order.method, payment_id, refund_id, webhook_id=webhook_id)
            status, text = await self.whole.pay.send_webhook(order.method, webhook)
            assert status in (200, 204), text

    async def poll(self, order: PlacedOrder) -> None:
        """Have workers ask the provider about an order's payments and refunds now."""
        query = """UPDATE jobs SET due_at = now() WHERE NOT parked AND subject IN (
                       SELECT payment_id FROM payments WHERE order_id = $1
                       UNION ALL SELECT refund_id FROM refunds WHERE order_id = $1) RETURNING 1"""
        await self.fetch(query, order.order_id)

    async def report(self, order: PlacedOrder, number: int, event: str) -> None:
        """Have a carrier report an event of one of the shipments that are on the way."""
        await self.whole.work_until_idle()
        shipments = await self.whole.ship.list_shipments(order.order_id)
        on_the_way = [shipment for shipment in shipments if shipment.status in ON_THE_WAY]
        if on_the_way:
            shipment = on_the_way[number % len(on_the_way)]
            await self.whole.ship.apply_events(shipment.shipment_id, tracking_event(event, code=event))

    async def read_status(self, order: PlacedOrder) -> str:
        return str(await self.whole.pay.fetch_value("SELECT status FROM orders WHERE order_id = $1", order.order_id))
