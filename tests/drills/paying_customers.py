"""Customers who order and pay with mixed methods and plans, and the client of the sandbox's providers.

They are as fast as the clients of the other drills. The sandbox pays trades automatically: it refuses some and pays
some late, and its webhooks are duplicated, delayed, forged or dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from time import perf_counter
from typing import Any

import aiohttp
import orjson

from loadtest.bench.sandbox_client import call_sandbox
from tests.drills.client_record import (
    RETRYABLE,
    CancelRequest,
    ClientRecord,
    IntendedOrder,
    OrderRequest,
    percentiles_ms,
)
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import Reply, RetriedRequest, RetryingClient, run_requests
from tests.support.gateway import bearer

PRICES = {"tea": 990, "rice": 1_250}
INITIAL = dict.fromkeys(PRICES, 1_000_000)
PROVIDERS = ("alipay", "wechatpay")
CREDIT_MINOR = 10**9
_CUSTOMERS, _CUSTOMERS_WITH_CREDIT, _CUSTOMERS_WITHOUT_CREDIT = 3_000, 300, 20
_CONCURRENT_GRANTS = 16
_MAX_PAUSE_S = 1.5
_STALLED_AFTER_S = 90.0
PROVIDER_FAULTS: dict[str, Any] = {
    "approve": "auto",
    "pay_after_ms": 500,
    "refused_share": 0.03,
    "pay_late_share": 0.02,
    "slow_share": 0.05,
    "webhook_delay_ms": 100,
    "wrong_signature_share": 0.01,
    "wrong_amount_share": 0.01,
    "duplicate_share": 0.05,
    "delayed_share": 0.02,
    "extra_delay_ms": 15_000,
    "dropped_share": 0.02,
    "reordered_share": 0.02,
}
SLOW_MS = {"alipay": 3_000, "wechatpay": 1_500}
"""Alipay's exceeds the worker's timeout: the call takes effect and its outcome stays unknown."""

TenderBody = Mapping[str, str | int]


@dataclass(slots=True, eq=False)
class PayingCustomer:
    """A customer with one intended order.

    `steps` are the actions still to do: payments with these tenders, or a cancellation (None). `plans` are the tenders
    of each successful reply with the ids of its current payments. `was_too_late`: an action was refused because the
    order was paid or expired.
    """

    intended: IntendedOrder
    total_minor: int
    steps: list[list[TenderBody] | None]
    plans: list[tuple[list[TenderBody], frozenset[str]]] = field(default_factory=list)
    was_too_late: bool = False


@dataclass
class PayingCustomers:
    """The customers of one sale by idempotency key, and the replies to their payments.

    Replies to their orders are in `record`.
    """

    record: ClientRecord
    rng: Random
    by_key: dict[str, PayingCustomer] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    def add_customer(self) -> PayingCustomer:
        """Add a customer with a random order, tenders and later steps."""
        rng, number = self.rng, len(self.by_key)
        units = {"tea": rng.randint(1, 3)} | ({"rice": 1} if rng.random() < 0.4 else {})
        total_minor = sum(PRICES[sku] * count for sku, count in units.items())
        method = rng.choices(("alipay", "wechatpay", "both", "balance", "cod"), (40, 30, 10, 10, 10))[0]
        tenders = _make_tenders(method, total_minor, rng)
        user = f"u{rng.randrange(_CUSTOMERS)}"
        if method in ("both", "balance"):
            if rng.random() < 0.03:
                user = f"poor{rng.randrange(_CUSTOMERS_WITHOUT_CREDIT)}"
            else:
                user = f"rich{rng.randrange(_CUSTOMERS_WITH_CREDIT)}"
        steps: list[list[TenderBody] | None] = [tenders]
        chance = rng.random()
        if chance < 0.05:
            steps.append(tenders)
        elif chance < 0.10:
            steps.append(_make_tenders(rng.choice(("alipay", "wechatpay", "cod")), total_minor, rng))
        elif chance < 0.15:
            steps.append(None)
        customer = PayingCustomer(self.record.add_intended(user, f"key-{number}", units), total_minor, steps)
        self.by_key[customer.intended.key] = customer
        return customer

    def take_step(self, customer: PayingCustomer) -> RetriedRequest:
        """Remove the customer's next step and make its request."""
        tenders = customer.steps.pop(0)
        if tenders is None:
            return CustomerCancelRequest(self.record, customer)
        return PayRequest(self, customer, tenders)

    def format_summary(self) -> str:
        replies = ", ".join(f"{count} {result}" for result, count in sorted(self.statuses.items()))
        p50_ms, p99_ms = percentiles_ms(self.latencies_s)
        return f"payments: {replies}, p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms"


def _make_tenders(method: str, total_minor: int, rng: Random) -> list[TenderBody]:
    if method == "both":
        credit = rng.randint(1, total_minor - 1)
        return [
            {"method": "balance", "amount": credit},
            {"method": "alipay", "amount": total_minor - credit, "flow": "qr"},
        ]
    if method in PROVIDERS:
        return [{"method": method, "amount": total_minor, "flow": "qr"}]
    return [{"method": method, "amount": total_minor}]


class PayRequest:
    """Starts the payments of an order, until they are started or it is too late."""

    def __init__(self, customers: PayingCustomers, customer: PayingCustomer, tenders: list[TenderBody]) -> None:
        self._customers = customers
        self.customer = customer
        self._tenders = tenders

    def encode(self) -> bytes:
        intended, body = self.customer.intended, orjson.dumps({"payments": self._tenders})
        headers = f"{self._customers.record.request_headers(intended.user)}{len(body)}"
        return f"POST /v1/orders/{intended.order_id}/payments HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        customers, record = self._customers, self._customers.record
        result = str(reply.status) if reply.status < 300 else str(orjson.loads(reply.body)["code"])
        customers.latencies_s.append(seconds)
        customers.statuses[result] += 1
        if result in RETRYABLE:
            return record.read_retry_after(result, reply)
        if result == "200":
            self._on_started(orjson.loads(reply.body))
        elif (result, reply.status) == ("not_payable", 409):
            self.customer.was_too_late = True  # checked at the end, when the order's status is final
        else:
            record.add_contradiction(
                f"{self.customer.intended}: the reply to its payment is {reply.status} {reply.body[:300]!r}"
            )
        return None

    def _on_started(self, view: dict[str, Any]) -> None:
        customer, tenders, record = self.customer, self._tenders, self._customers.record
        current = [payment for payment in view["payments"] if payment["current"]]
        if [(payment["method"], payment["amount"]["amount"]) for payment in current] != [
            (tender["method"], tender["amount"]) for tender in tenders
        ]:
            record.add_contradiction(f"{customer.intended}: payment with {tenders} started {view}")
        ids = frozenset(str(payment["payment_id"]) for payment in current)
        if customer.plans and customer.plans[-1][0] == tenders and customer.plans[-1][1] != ids:
            previous = [payment for payment in view["payments"] if payment["payment_id"] in customer.plans[-1][1]]
            if not any(payment["status"] in ("failed", "closed") for payment in previous):
                record.add_contradiction(f"{customer.intended}: repeated tenders started new payments: {view}")
        customer.plans.append((tenders, ids))

    def on_connection_lost(self) -> None:
        self._customers.statuses["connection lost"] += 1

    def on_connection_refused(self) -> None:
        self._customers.statuses["connection refused"] += 1

    def on_end(self, is_outcome_known: bool) -> None:
        if not is_outcome_known:
            self._customers.record.add_contradiction(
                f"{self.customer.intended}: no outcome of its payment before the client gave up"
            )


class CustomerCancelRequest(CancelRequest):
    """Cancels an order unless it is paid."""

    def __init__(self, record: ClientRecord, customer: PayingCustomer) -> None:
        super().__init__(record, customer.intended)
        self.customer = customer

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        if reply.status == 409 and orjson.loads(reply.body)["code"] == "cannot_cancel":
            self.customer.was_too_late = True
            return None
        return super().on_reply(reply, seconds)


class PayingLoad:
    """Customers over all connections without a pause: `orders` of them, or until the load is stopped."""

    def __init__(
        self, stack: LocalStack, customers: PayingCustomers, connections: int, orders: int | None = None
    ) -> None:
        self.customers = customers
        self.seconds = 0.0
        self._stack = stack
        self._connections = connections
        self._orders_left = orders
        self._is_stopping = False
        self._later_steps: list[tuple[float, int, PayingCustomer]] = []
        self._step_count = 0

    @asynccontextmanager
    async def run_in_background(self) -> AsyncIterator[None]:
        """Run the load until the block ends, and finish what was started. Raises an error of the load here."""
        started = perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run())
            try:
                yield
            finally:
                self._is_stopping = True
        self.seconds = perf_counter() - started

    async def wait_for_payments(self, count: int) -> None:
        """Wait until the payments of so many more orders are started.

        A random `count` puts the caller's next action at a random moment."""
        loop, statuses = asyncio.get_running_loop(), self.customers.statuses
        target, started, deadline = statuses["200"] + count, statuses["200"], loop.time() + _STALLED_AFTER_S
        while statuses["200"] < target:
            if statuses["200"] > started:
                started, deadline = statuses["200"], loop.time() + _STALLED_AFTER_S
            assert loop.time() < deadline, f"no payments are started: {self.customers.format_summary()}"
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        started = perf_counter()
        await run_requests(
            self._stack.port, self.customers.rng, self._connections, self._generate_requests(), self._follow_up
        )
        self.seconds = perf_counter() - started

    def _generate_requests(self) -> Iterator[RetriedRequest]:
        """Yield orders, and between them later steps that are due. At the end yield all remaining steps."""
        customers = self.customers
        while not self._is_stopping and self._orders_left != 0:
            if self._later_steps and self._later_steps[0][0] <= perf_counter():
                yield customers.take_step(heappop(self._later_steps)[2])
                continue
            if self._orders_left is not None:
                self._orders_left -= 1
            yield customers.record.make_order_request(customers.add_customer().intended)
        while self._later_steps:
            yield customers.take_step(heappop(self._later_steps)[2])

    def _follow_up(self, request: RetriedRequest) -> RetriedRequest | None:
        """Return the payment of a new order, and schedule the step after a payment."""
        if isinstance(request, OrderRequest):
            customer = self.customers.by_key[request.intended.key]
            return self.customers.take_step(customer) if request.intended.order_id is not None else None
        if isinstance(request, PayRequest) and request.customer.steps:
            self._step_count += 1
            due = perf_counter() + self.customers.rng.uniform(0, _MAX_PAUSE_S)
            heappush(self._later_steps, (due, self._step_count, request.customer))
        return None


async def place_orders_at_rate(port: int, record: ClientRecord, rng: Random, per_s: float, stop: asyncio.Event) -> None:
    """Place orders at a constant rate until `stop` is set, each with an idle client.

    Adds their latencies to `record`."""
    loop = asyncio.get_running_loop()
    idle: list[RetryingClient] = []

    async def place_order(number: int) -> None:
        client = idle.pop() if idle else RetryingClient(port, rng)
        intended = record.add_intended(f"u{number % _CUSTOMERS}", f"trickle-{number}", {"tea": 1})
        await client.run(record.make_order_request(intended))
        idle.append(client)

    started = loop.time()
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            number = len(record.intended_orders)
            group.create_task(place_order(number))
            await asyncio.sleep(max(0.0, started + (number + 1) / per_s - loop.time()))
    for client in idle:
        client.close()


class SandboxClient:
    """Client of the sandbox's providers: faults, totals and late payments."""

    def __init__(self, stack: LocalStack) -> None:
        self._base = f"http://127.0.0.1:{stack.sandbox_port}"

    async def set_faults(self, faults: Mapping[str, Any] | None = None) -> None:
        for provider in PROVIDERS:
            default = {**PROVIDER_FAULTS, "slow_ms": SLOW_MS[provider]}
            await self._call("PUT", f"/faults/{provider}", default if faults is None else faults)

    async def clear_faults(self) -> None:
        for provider in PROVIDERS:
            await self._call("PUT", f"/faults/{provider}", {"approve": "auto", "webhook_delay_ms": 100})

    async def fetch_totals(self) -> dict[str, dict[str, int]]:
        """Return the totals of each provider and carrier."""
        totals: dict[str, dict[str, int]] = await self._call("GET", "/totals")
        return totals

    async def pay_late(self, provider: str, out_no: str) -> None:
        """Pay a trade although it is closed."""
        await self._call("POST", f"/pay/{provider}/{out_no}/late", {})

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        return await call_sandbox(self._base, method, path, body)


async def grant_credit_to_all(stack: LocalStack) -> None:
    """Grant store credit to all customers who pay with it, over the admin API."""
    headers, gate = bearer(stack.settings(), "staff", roles=("support",)), asyncio.Semaphore(_CONCURRENT_GRANTS)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{stack.admin_port}", headers=headers) as client:

        async def grant(user: str) -> None:
            body = {"idempotency_key": f"gift-{user}", "amount": CREDIT_MINOR, "currency": "CNY"}
            async with gate, client.post(f"/v1/admin/store-credit/{user}", json=body) as answer:
                assert answer.status == 200, await answer.text()

        async with asyncio.TaskGroup() as group:
            for number in range(_CUSTOMERS_WITH_CREDIT):
                group.create_task(grant(f"rich{number}"))
