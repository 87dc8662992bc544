"""A hypothesis state machine over the life of orders: nothing is undone twice, and every order ends.

Orders are placed, paid, shipped, lost, refused, cancelled, returned and refunded in any order, with webhooks that come
late and twice. After every run each order has ended or waits for somebody by name, and once everybody has acted, all
have ended and the audit finds nothing. FLOODGATE_TEST_EXAMPLES sets the number of runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from commerce.promotions.model import PromotionClass, PromotionInput, RepeatedReduction
from config.settings import Settings
from ops.sandbox.server import PROVIDERS
from ops.services import open_cli_services
from tests.support.gateway import GatewayResponse
from tests.support.shipping_shop import tracking_event
from tests.support.whole_shop import BEYOND, WholeShop, open_whole_shop

Result = TypeVar("Result")
ITEMS = {"a": (100_000, 101, None), "b": (100_000, 57, None)}
_users = count()
_ON_THE_WAY = ("booked", "picked_up", "in_transit", "out_for_delivery")
_NOT_ARRIVED = ("lost", "returned_to_sender", "cancelled")
_METHODS = ("balance", "alipay", "wechatpay", "cod")
_KINDS = ("return", "return", "refund_only", "claim")
_WAYS_OF_CASES = (
    (),
    ("approve",),
    ("decline",),
    ("approve", "resolve"),
    ("approve", "receive"),
    ("approve", "receive", "resolve"),
    ("approve", "receive", "resolve"),
)
_RESULTS = ("resellable", "damaged", "rejected")
_FINAL = ("cancelled", "delivered", "completed")
_WAITING = """
SELECT orders.order_id, orders.status,
    CASE WHEN status = 'awaiting_payment' AND pay_by IS NOT NULL THEN 'customer' END AS to_pay,
    (SELECT min(waits_for) FROM cases WHERE cases.order_id = orders.order_id AND ended_at IS NULL) AS case_waits_for,
    (SELECT min(kind) FROM jobs WHERE subject = orders.order_id OR subject IN (
        SELECT shipment_id FROM shipments WHERE shipments.order_id = orders.order_id)) AS job,
    (SELECT min(status) FROM shipments WHERE shipments.order_id = orders.order_id
     AND status IN ('lost', 'returned_to_sender', 'cancelled')) AS undelivered
FROM orders WHERE order_id = ANY($1)
"""
_UNFINISHED_ORDERS = """
SELECT order_id, status FROM orders
WHERE order_id = ANY($1) AND status NOT IN ('cancelled', 'delivered', 'completed')
"""
_UNFINISHED_MONEY = """
SELECT refunds.order_id, refund_id, refunds.status FROM refunds
WHERE order_id = ANY($1) AND status NOT IN ('done', 'failed')
UNION ALL SELECT order_id, case_id, cases.status FROM cases WHERE order_id = ANY($1) AND ended_at IS NULL
"""
_PARTS_UNLIKE_WHOLE = """
SELECT order_id, line_no, granted.amount_minor, paid_minor FROM (
    SELECT order_id, line_no, address_no, sum(quantity) AS units, sum(amount_minor) AS amount_minor
    FROM refund_grant_lines WHERE order_id = ANY($1) GROUP BY order_id, line_no, address_no) AS granted
JOIN (SELECT *, quantity * unit_price_minor - discount_minor AS paid_minor FROM order_lines) AS lines
USING (order_id, line_no, address_no) WHERE units = quantity AND granted.amount_minor <> paid_minor
"""


@dataclass
class PlacedOrder:
    """An order of a customer of its own, with its payments."""

    order_id: UUID
    user: str
    lines: int
    total: int
    method: str
    payments: list[dict[str, Any]] = field(default_factory=list)


class AftersalesMachine(RuleBasedStateMachine):
    """Sends the requests of customers and staff, and what providers and carriers report."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    whole: WholeShop
    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.placed: list[PlacedOrder] = []
        self.keys = count()

    async def call(self, path: str, body: Any, *, user: str | None = None, role: str = "support") -> GatewayResponse:
        """Send a request of a customer, or of staff. It must be done, or be refused for a reason."""
        sender: dict[str, Any] = {"user": user} if user else {"user": "sam", "roles": [role]}
        headers = {"Idempotency-Key": f"{self.placed[0].order_id}-{next(self.keys)}"}
        answer = await self.whole.pay.gateway.call("POST", f"/v1/{path}", headers=headers, json=body, **sender)
        assert answer.status in (200, 201, 202, 409, 422), (path, body, answer.text)
        return answer

    async def fetch(self, query: str, *values: object) -> list[Any]:
        return await self.whole.pay.fetch_rows(query, *values)

    @property
    def ids(self) -> list[UUID]:
        return [order.order_id for order in self.placed]

    # Customers.

    @rule(
        target=orders,
        units=st.tuples(st.integers(1, 4), st.integers(0, 3)),
        method=st.sampled_from(_METHODS),
        progress=st.sampled_from(["placed", "paid", "booked", "delivered", "delivered"]),
    )
    def place(self, units: tuple[int, int], method: str, progress: str) -> PlacedOrder:
        return self.run(self._place(units, method, progress))  # type: ignore[no-any-return]

    async def _place(self, units: tuple[int, int], method: str, progress: str) -> PlacedOrder:
        user = f"model-{next(_users)}"
        lines = [line for line in zip(ITEMS, units, strict=True) if line[1]]
        order_id = await self.whole.pay.add_order(*lines, user=user)
        total = await self.whole.pay.fetch_value("SELECT total_minor FROM orders WHERE order_id = $1", order_id)
        order = PlacedOrder(order_id, user, len(lines), total, method)
        self.placed.append(order)
        if progress != "placed":
            await self._pay(order, is_paid=True)
        if progress in ("booked", "delivered"):
            await self.whole.work_until_idle()
        if progress == "delivered":
            await self.whole.deliver(order_id)
        return order

    @rule(order=orders, is_paid=st.booleans())
    def pay(self, order: PlacedOrder, is_paid: bool) -> None:
        self.run(self._pay(order, is_paid))

    async def _pay(self, order: PlacedOrder, is_paid: bool) -> None:
        pay = self.whole.pay
        if await self.status(order) != "awaiting_payment" or order.payments:
            return
        if order.method == "balance" and is_paid:
            await pay.grant_credit(order.total, order.user)
        body = {"payments": [{"method": order.method, "amount": order.total}]}
        answer = await self.call(f"orders/{order.order_id}/payments", body, user=order.user)
        if answer.status != 200:
            return
        order.payments = [payment for payment in answer.body["payments"] if payment["current"]]
        if order.method in PROVIDERS and is_paid:
            pay.pay_at_provider(order.method, order.payments[0]["payment_id"])
        if is_paid:
            await pay.wait_for_order(order.order_id, "confirmed" if order.method == "cod" else "paid")

    @rule(order=orders, times=st.integers(1, 2))
    def hear_from_provider_again(self, order: PlacedOrder, times: int) -> None:
        async def work() -> None:
            for payment in order.payments if order.method in PROVIDERS else ():
                for number in range(times):
                    trade = self.whole.pay.find_trade_state(order.method, payment["payment_id"])
                    if trade in (None, "created"):
                        continue
                    webhook = self.whole.pay.build_webhook(
                        order.method, payment["payment_id"], webhook_id=f"again-{next(self.keys)}-{number}"
                    )
                    status, text = await self.whole.pay.send_webhook(order.method, webhook)
                    assert status in (200, 204), text

        self.run(work())

    @rule(order=orders, line_no=st.integers(0, 1), quantity=st.integers(0, 2), is_staff=st.booleans())
    def cancel(self, order: PlacedOrder, line_no: int, quantity: int, is_staff: bool) -> None:
        body: dict[str, Any] = {"reason": "not wanted"}
        if quantity:
            body["lines"] = [{"line_no": line_no % order.lines, "quantity": quantity}]
        prefix, user = ("admin/", None) if is_staff else ("", order.user)
        self.run(self.call(f"{prefix}orders/{order.order_id}/cancel", body, user=user))

    @rule(
        order=orders,
        line_no=st.integers(0, 1),
        quantity=st.integers(1, 2),
        kind=st.sampled_from(_KINDS),
        steps=st.sampled_from(_WAYS_OF_CASES),
        results=st.lists(st.sampled_from(_RESULTS), min_size=2, max_size=2),
    )
    def request_return(
        self, order: PlacedOrder, line_no: int, quantity: int, kind: str, steps: Sequence[str], results: list[str]
    ) -> None:
        self.run(self._request_return(order, line_no, quantity, kind, steps, results))

    @rule(
        target=orders,
        units=st.tuples(st.integers(1, 4), st.integers(0, 3)),
        method=st.sampled_from(_METHODS),
        kind=st.sampled_from(_KINDS),
        steps=st.sampled_from(_WAYS_OF_CASES),
        results=st.lists(st.sampled_from(_RESULTS), min_size=2, max_size=2),
    )
    def place_and_return(
        self, units: tuple[int, int], method: str, kind: str, steps: Sequence[str], results: list[str]
    ) -> PlacedOrder:
        order: PlacedOrder = self.run(self._place(units, method, "delivered"))
        self.run(self._request_return(order, 0, min(units[0], 2), kind, steps, results))
        return order

    async def _request_return(
        self, order: PlacedOrder, line_no: int, quantity: int, kind: str, steps: Sequence[str], results: list[str]
    ) -> None:
        """Send a customer's request, and take the next steps of its case."""
        number = line_no % order.lines
        rows = await self.fetch(
            "SELECT shipment_id FROM shipment_lines JOIN shipments USING (shipment_id, order_id) "
            "WHERE order_id = $1 AND line_no = $2 ORDER BY status = 'delivered' DESC, 1 LIMIT 1",
            *(order.order_id, number),
        )
        line: dict[str, Any] = {"line_no": number, "quantity": quantity}
        lines = [{**line, "shipment_id": str(row["shipment_id"])} for row in rows] or [line]
        more = {"claim": "damaged", "items_back": quantity == 1} if kind == "claim" else {}
        reason = "damaged_or_defective" if kind == "claim" else "changed_my_mind"
        body = {"kind": kind, "reason": reason, "lines": lines, **more}
        answer = await self.call(f"orders/{order.order_id}/returns", body, user=order.user)
        for step in steps if answer.status == 201 else ():
            if step == "receive":
                await self._receive(order, quantity, results)
            else:
                await self._decide_on_cases(order, step)

    # Carriers and the warehouse.

    @rule()
    def work_on_jobs(self) -> None:
        self.run(self.whole.work_until_idle())

    @rule(
        order=orders,
        number=st.integers(0, 3),
        event=st.sampled_from(["picked_up", "delivered", "delivered", "delivered", "returned_to_sender", "lost"]),
    )
    def report(self, order: PlacedOrder, number: int, event: str) -> None:
        async def work() -> None:
            await self.whole.work_until_idle()
            on_the_way = [
                each for each in await self.whole.ship.list_shipments(order.order_id) if each.status in _ON_THE_WAY
            ]
            if on_the_way:
                shipment = on_the_way[number % len(on_the_way)]
                await self.whole.ship.apply_events(shipment.shipment_id, tracking_event(event, code=event))

        self.run(work())

    @rule(order=orders, is_sent_again=st.booleans())
    def decide_on_undelivered(self, order: PlacedOrder, is_sent_again: bool) -> None:
        self.run(self._decide_on_undelivered(order, is_sent_again))

    async def _decide_on_undelivered(self, order: PlacedOrder, is_sent_again: bool) -> None:
        for shipment in await self.whole.ship.list_shipments(order.order_id):
            if shipment.status in _NOT_ARRIVED:
                action, role = ("reship", "warehouse") if is_sent_again else ("refund", "support")
                await self.call(f"admin/shipments/{shipment.shipment_id}/{action}", {"reason": "decided"}, role=role)

    @rule(order=orders, quantity=st.integers(1, 3), results=st.lists(st.sampled_from(_RESULTS), min_size=3, max_size=3))
    def receive(self, order: PlacedOrder, quantity: int, results: list[str]) -> None:
        self.run(self._receive(order, quantity, results))

    async def _receive(self, order: PlacedOrder, quantity: int, results: list[str]) -> None:
        for case in await self.list_cases(order):
            if not case["items_back"] or case["status"] not in ("approved", "in_transit", "received"):
                continue
            body = {"case_id": str(case["case_id"]), "version": case["version"], "warehouse": "hz"}
            await self.call("admin/return-receipts", {**body, "lines": {"0": quantity}}, role="warehouse")
            [line] = await self.fetch(
                "SELECT version, received FROM cases JOIN case_lines USING (case_id) WHERE case_id = $1",
                case["case_id"],
            )
            if line["received"]:
                counts = {name: (results * 9)[: line["received"]].count(name) for name in _RESULTS}
                body = {"version": line["version"], "lines": {"0": counts}, "nothing_more": True}
                await self.call(f"admin/cases/{case['case_id']}/inspect", body, role="warehouse")

    # Staff.

    @rule(order=orders, action=st.sampled_from(["approve", "approve", "decline", "resolve", "resolve", "cancel"]))
    def decide_on_cases(self, order: PlacedOrder, action: str) -> None:
        self.run(self._decide_on_cases(order, action))

    async def _decide_on_cases(self, order: PlacedOrder, action: str) -> None:
        for case in await self.list_cases(order):
            body = {"version": case["version"], "reason": "decided"}
            await self.call(f"admin/cases/{case['case_id']}/{action}", body)

    @rule(order=orders, line_no=st.integers(0, 1), quantity=st.integers(0, 2), amount=st.integers(1, 150))
    def refund(self, order: PlacedOrder, line_no: int, quantity: int, amount: int) -> None:
        body: dict[str, Any] = {"idempotency_key": f"model-{next(self.keys)}", "reason": "a kindness"}
        wanted = (
            {"lines": [{"line_no": line_no % order.lines, "quantity": quantity}]} if quantity else {"amount": amount}
        )
        self.run(self.call(f"admin/orders/{order.order_id}/refunds", {**body, **wanted}))

    # Facts.

    async def status(self, order: PlacedOrder) -> str:
        return str(await self.whole.pay.fetch_value("SELECT status FROM orders WHERE order_id = $1", order.order_id))

    async def list_cases(self, order: PlacedOrder) -> list[Any]:
        query = "SELECT case_id, version, status, items_back FROM cases WHERE order_id = $1 AND ended_at IS NULL"
        return await self.fetch(query, order.order_id)

    @invariant()
    def nothing_is_beyond_what_was_sold(self) -> None:
        async def check() -> None:
            for query in BEYOND:
                assert [tuple(row) for row in await self.fetch(query)] == []
            assert [tuple(row) for row in await self.fetch(_PARTS_UNLIKE_WHOLE, self.ids)] == []

        self.run(check())

    def teardown(self) -> None:
        if self.placed:
            self.run(self._end())

    async def _have_ended(self) -> bool:
        rows = [await self.fetch(query, self.ids) for query in (_UNFINISHED_ORDERS, _UNFINISHED_MONEY)]
        return not any(rows)

    async def _end(self) -> None:
        """Check that each order waits for somebody. Then let everybody do what they are waited for."""
        await self.whole.work_until_idle()
        await self.whole.pay.wait_until_idle()
        for order_id, status, *waits in map(tuple, await self.fetch(_WAITING, self.ids)):
            assert status in _FINAL or any(waits), (order_id, status, "it waits for nobody")
        for _ in range(6):
            if await self._have_ended():
                break
            await self.whole.pay.expire_orders(*self.ids)
            await self.whole.work_until_idle()
            for order in self.placed:
                await self._decide_on_undelivered(order, is_sent_again=False)
                for shipment in await self.whole.ship.list_shipments(order.order_id):
                    if shipment.status in _ON_THE_WAY:
                        await self.whole.ship.apply_events(
                            shipment.shipment_id, tracking_event("delivered", code="end")
                        )
                await self._decide_on_cases(order, "decline")
                await self._decide_on_cases(order, "approve")
                await self._receive(order, 9, ["resellable"])
                await self._decide_on_cases(order, "resolve")
                await self._decide_on_cases(order, "cancel")  # units that were refunded otherwise
            await self.whole.pay.wait_until_idle()
            await self.whole.follow_cases()
        for query in (_UNFINISHED_ORDERS, _UNFINISHED_MONEY):
            assert [tuple(row) for row in await self.fetch(query, self.ids)] == []
        await self.whole.check_audit()


@pytest.mark.timeout(1_800)
def test_orders_end_and_nothing_is_undone_twice(make_settings: Callable[..., Settings], sale_id: str) -> None:
    sequences = os.environ.get("FLOODGATE_TEST_EXAMPLES")
    run_settings = settings(
        max_examples=int(sequences or 5),
        derandomize=sequences is None,  # drills try new ones
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # each step of a shorter run would take as long
        database=None,
    )
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_shop() -> WholeShop:
            shop = await stack.enter_async_context(open_cli_services(make_settings()))
            whole = await stack.enter_async_context(open_whole_shop(shop, make_settings, sale_id, ITEMS))
            reduction = RepeatedReduction(threshold=200, amount=33, max_times=9)
            promotion = PromotionInput("every-2", "Every 2.00 less 0.33", PromotionClass.ORDER, reduction)
            await shop.promotions.create(sale_id, promotion, "test")
            return whole

        try:
            AftersalesMachine.run = staticmethod(runner.run)  # type: ignore[assignment]
            AftersalesMachine.whole = runner.run(open_shop())
            run_state_machine_as_test(AftersalesMachine, settings=run_settings)
        finally:
            runner.run(stack.aclose())
