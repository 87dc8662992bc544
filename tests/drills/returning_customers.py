"""Customers who cancel paid orders and send products back, and the staff who answer them.

They work through what the shop's own lists show, over HTTP, as long as the drill lasts. A request without a reply is
repeated as it was, with the same key or version.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import aiohttp
import orjson

from ops.services import CliServices
from tests.drills.local_stack import LocalStack
from tests.drills.paying_customers import (
    CustomerCancelRequest,
    PayingCustomer,
    PayRequest,
    TenderBody,
)
from tests.drills.receiving_customers import PRICES, ReceivingCustomers
from tests.drills.retrying_client import Reply, RetriedRequest
from tests.drills.shipment_checks import list_unreported_losses
from tests.support.gateway import bearer

CANCELLED_SHARE = 0.10
RETURNED_SHARE, EXCHANGED_SHARE, CLAIMED_SHARE = 0.10, 0.03, 0.01
_METHODS, _METHOD_WEIGHTS = ("alipay", "wechatpay", "balance", "cod", "both"), (30, 30, 15, 15, 10)
_CONCURRENT_REQUESTS = 8
_ROUND_INTERVAL_S, _RETRY_INTERVAL_S = 1.0, 0.2
_LIST_DELIVERED = """
SELECT shipment_id, shipments.order_id, user_id,
       (SELECT json_agg(json_build_object('line_no', line_no, 'sku', sku, 'quantity', quantity))
        FROM shipment_lines WHERE shipment_lines.shipment_id = shipments.shipment_id) AS lines
FROM shipments JOIN orders USING (order_id) WHERE sale_id = $1 AND shipments.status = 'delivered'
"""
_LIST_OPEN_CASES = """
SELECT case_id, user_id, version, status, items_back, items_state, waits_for, money_state,
       (SELECT json_agg(json_build_object('no', case_line_no, 'quantity', quantity, 'received', received))
        FROM case_lines WHERE case_lines.case_id = cases.case_id) AS lines
FROM cases WHERE ended_at IS NULL
"""
_LIST_OPEN_REPLACEMENTS = """
SELECT replacement_id, user_id, total_minor FROM exchanges JOIN orders ON orders.order_id = replacement_id
WHERE exchanges.status = 'open' AND orders.status = 'awaiting_payment'
"""
_LIST_SHIPMENTS = "SELECT shipment_id FROM shipments WHERE tracking_no = ANY($1::text[]) AND ended_at IS NULL"
_LIST_UNREFUNDABLE = """
SELECT refund_id, order_id, user_id, method FROM refunds JOIN payments USING (payment_id, order_id)
WHERE refunds.status = 'needs_other_way'
"""


class ReturningCustomers(ReceivingCustomers):
    """Customers who pay by providers too. A tenth of them cancel a moment after paying."""

    def add_customer(self) -> PayingCustomer:
        customer = super().add_customer()
        if self.rng.random() < CANCELLED_SHARE:
            customer.steps.append(None)
        return customer

    def take_step(self, customer: PayingCustomer) -> RetriedRequest:
        tenders = customer.steps.pop(0)
        if tenders is None:
            return PaidCancelRequest(self.record, customer)
        return PayRequest(self, customer, tenders)

    def _make_tenders(self, total_minor: int) -> list[TenderBody]:
        method = self.rng.choices(_METHODS, _METHOD_WEIGHTS)[0]
        if method == "both":
            credit = self.rng.randint(1, total_minor - 1)
            rest: TenderBody = {"method": "alipay", "amount": total_minor - credit, "flow": "qr"}
            return [{"method": "balance", "amount": credit}, rest]
        if method in ("alipay", "wechatpay"):
            return [{"method": method, "amount": total_minor, "flow": "qr"}]
        return [{"method": method, "amount": total_minor}]


class PaidCancelRequest(CustomerCancelRequest):
    """Cancels an order, paid or not. Shipments that have left make it too late."""

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        if reply.status in (200, 202) or reply.status == 409:
            self._record.count_reply(reply, seconds)
            self.customer.was_too_late = reply.status == 409
            return None
        return super().on_reply(reply, seconds)


class AftersalesRobot:
    """Customers' requests about delivered shipments, and staff who approve, receive, inspect and resolve.

    `actions` counts what was done, and `refusals` the codes of refusals: others have changed the case meanwhile."""

    def __init__(self, stack: LocalStack, shop: CliServices, rng: Random, sale_id: str) -> None:
        self.actions: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self._stack = stack
        self._shop = shop
        self._rng = rng
        self._sale_id = sale_id
        self._settings = stack.settings()
        self._decided: set[UUID] = set()
        self._requests: dict[UUID, tuple[str, UUID, dict[str, Any]]] = {}
        """requests by shipment, until they are answered: user, order and body"""
        self._gate = asyncio.Semaphore(_CONCURRENT_REQUESTS)

    async def run(self, stop: asyncio.Event) -> None:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as self._client:
            while not stop.is_set():
                await self._request_cases()
                await self._work_through_cases()
                await self._pay_replacements()
                await self._find_other_ways()
                await self._report_losses()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _ROUND_INTERVAL_S)

    async def is_idle(self) -> bool:
        """Return whether all delivered shipments were decided on and all requests are answered."""
        return not self._requests and not await self._list_undecided()

    async def _list_undecided(self) -> list[Any]:
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(_LIST_DELIVERED, self._sale_id)
        return [row for row in rows if row["shipment_id"] not in self._decided]

    async def _request_cases(self) -> None:
        for row in await self._list_undecided():
            self._decided.add(row["shipment_id"])
            if body := self._choose_case(row["shipment_id"], orjson.loads(row["lines"])):
                self._requests[row["shipment_id"]] = row["user_id"], row["order_id"], body
        await asyncio.gather(*(self._request_case(id_, *request) for id_, request in list(self._requests.items())))

    def _choose_case(self, shipment_id: UUID, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Decide about one line of a shipment: keep it, or return, exchange or claim some units."""
        line, chance = self._rng.choice(lines), self._rng.random()
        wanted: dict[str, Any] = {
            "shipment_id": str(shipment_id),
            "line_no": line["line_no"],
            "quantity": self._rng.randint(1, line["quantity"]),
        }
        if chance < RETURNED_SHARE:
            return {"kind": "return", "reason": "changed_my_mind", "lines": [wanted]}
        if chance < RETURNED_SHARE + EXCHANGED_SHARE:
            wanted["wanted_sku"] = self._rng.choice(list(PRICES))
            return {"kind": "exchange", "reason": "changed_my_mind", "lines": [wanted]}
        if chance < RETURNED_SHARE + EXCHANGED_SHARE + CLAIMED_SHARE:
            case = {"kind": "claim", "claim": "damaged", "items_back": False, "reason": "damaged_or_defective"}
            return {**case, "lines": [wanted]}
        return None

    async def _request_case(self, shipment_id: UUID, user: str, order_id: UUID, body: dict[str, Any]) -> None:
        path, key = f"/v1/orders/{order_id}/returns", f"case-{shipment_id}"
        status = await self._call_as_customer(user, path, body, {"Idempotency-Key": key}, f"request {body['kind']}")
        if status:
            del self._requests[shipment_id]

    async def _work_through_cases(self) -> None:
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(_LIST_OPEN_CASES)
        await asyncio.gather(*map(self._advance, rows))

    async def _advance(self, case: Any) -> None:
        """Take the next step of a case, whoever's it is."""
        path, version = f"/v1/admin/cases/{case['case_id']}", case["version"]
        step = {"version": version, "reason": "as the policy says"}
        lines = orjson.loads(case["lines"])
        if case["status"] == "requested":
            await self._call_as_staff("support", f"{path}/approve", step, "approve")
        elif case["status"] == "approved" and case["items_back"] and case["items_state"] == "expected":
            body = {"carrier": "zto", "tracking_no": f"R{case['case_id'].int % 10**14:014}"}
            await self._call_as_customer(
                case["user_id"], f"/v1/returns/{case['case_id']}/tracking", body, {}, "send back"
            )
        elif case["items_state"] in ("in_transit", "partly_received"):
            units = {str(line["no"]): line["quantity"] - line["received"] for line in lines}
            missing = {number: count for number, count in units.items() if count}
            receipt = {"warehouse": "hz", "case_id": str(case["case_id"]), "version": version, "lines": missing}
            await self._call_as_staff("warehouse", "/v1/admin/return-receipts", receipt, "receive")
        elif case["status"] == "received":
            results = {str(line["no"]): self._inspect(line["received"]) for line in lines}
            await self._call_as_staff("warehouse", f"{path}/inspect", {"version": version, "lines": results}, "inspect")
        elif case["status"] == "inspected" or (case["status"] == "approved" and not case["items_back"]):
            await self._call_as_staff("support", f"{path}/resolve", step, "resolve")

    def _inspect(self, units: int) -> dict[str, int]:
        damaged = sum(self._rng.random() < 0.1 for _ in range(units))
        rejected = sum(self._rng.random() < 0.05 for _ in range(units - damaged))
        return {"resellable": units - damaged - rejected, "damaged": damaged, "rejected": rejected}

    async def _pay_replacements(self) -> None:
        """Pay the difference of every other dearer exchange; the others fall back to a return."""
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(_LIST_OPEN_REPLACEMENTS)
        for row in rows:
            if row["replacement_id"].int % 2:
                path = f"/v1/orders/{row['replacement_id']}/payments"
                body = {"payments": [{"method": "balance", "amount": row["total_minor"]}]}
                await self._call_as_customer(row["user_id"], path, body, {}, "pay a difference")

    async def _report_losses(self) -> None:
        """Report shipments as lost whose carrier has no code for it: their events just end."""
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(_LIST_SHIPMENTS, list(list_unreported_losses(self._stack)))
        for row in rows:
            path = f"/v1/admin/shipments/{row['shipment_id']}/outcome"
            await self._call_as_staff(
                "warehouse", path, {"status": "lost", "reason": "no event for days"}, "report loss"
            )

    async def _find_other_ways(self) -> None:
        """Have each customer whose refund the provider does not do accept store credit."""
        async with self._shop.db.connection() as connection:
            rows = await connection.fetch(_LIST_UNREFUNDABLE)
        for row in rows:
            path = f"/v1/orders/{row['order_id']}/refunds/{row['refund_id']}/store-credit"
            await self._call_as_customer(row["user_id"], path, {}, {}, "accept store credit")

    async def _call_as_customer(self, user: str, path: str, body: Any, headers: dict[str, str], action: str) -> int:
        url = f"http://127.0.0.1:{self._stack.port}{path}"
        return await self._call(url, body, {**bearer(self._settings, user), **headers}, action)

    async def _call_as_staff(self, role: str, path: str, body: Any, action: str) -> int:
        url = f"http://127.0.0.1:{self._stack.admin_port}{path}"
        key = f"{action}-{path}-{orjson.dumps(body).decode()}"
        headers = {**bearer(self._settings, f"{role}-robot", roles=(role,)), "Idempotency-Key": str(hash(key))}
        return await self._call(url, body, headers, action)

    async def _call(self, url: str, body: Any, headers: dict[str, str], action: str) -> int:
        """Send a request. Returns the status; 0 if it has to be repeated."""
        try:
            async with self._gate, self._client.post(url, json=body, headers=headers) as answer:
                status, reply = answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            self.refusals["connection lost"] += 1
            return 0
        if status < 300:
            self.actions[action] += 1
            return status
        self.refusals[f"{action}: {reply['code']} {reply['detail']}"[:200]] += 1
        assert status in (404, 409, 429, 503), f"{action} {url} {body}: {status} {reply}"
        return 0 if status in (429, 503) else status

    def format_summary(self) -> str:
        done = ", ".join(f"{count} {action}" for action, count in sorted(self.actions.items()))
        return f"after-sales: {done}; refusals {dict(self.refusals)}"
