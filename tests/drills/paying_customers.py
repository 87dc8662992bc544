"""Customers who order and pay, in many ways and not always the way they had said; and what is asked of the sandbox.

They are as fast as the clients of the other drills. Who pays at a provider is a robot of the sandbox, which refuses
some, pays some at the last moment, and whose callbacks come twice, late, wrong or never.
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

from tests.drills.client_record import LATER, CancelRequest, ClientRecord, IntendedOrder, OrderRequest
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import Reply, RetriedRequest, RetryingClient, run_requests
from tests.support.gateway import bearer

PRICES = {"tea": 990, "rice": 1_250}
INITIAL = dict.fromkeys(PRICES, 1_000_000)
PROVIDERS = ("alipay", "wechatpay")
CREDIT = 10**9
_CUSTOMERS, _RICH, _POOR = 3_000, 300, 20
_CREDIT_AT_ONCE = 16
_MIND_S = 1.5
_STALLED_S = 90.0
MISBEHAVIOUR: dict[str, Any] = {
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
"""One of them longer than the driver waits: what it was asked for is done, and the driver does not know."""

TenderBody = Mapping[str, str | int]


@dataclass(slots=True, eq=False)
class PayingCustomer:
    """`steps` is what they still want to do: pay in these parts, or cancel (None). `rounds` is what they were shown."""

    wish: IntendedOrder
    total: int
    steps: list[list[TenderBody] | None]
    ordered_at: float = 0.0
    rounds: list[tuple[list[TenderBody], frozenset[str]]] = field(default_factory=list)
    too_late: bool = False


@dataclass
class PayingCustomers:
    """Everything the customers of one sale were told: of their orders in `record`, of their payments here."""

    record: ClientRecord
    rng: Random
    customers: dict[str, PayingCustomer] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def customer(self) -> PayingCustomer:
        """One more, with an order and a way to pay it."""
        rng, number = self.rng, len(self.customers)
        units = {"tea": rng.randint(1, 3)} | ({"rice": 1} if rng.random() < 0.4 else {})
        total = sum(PRICES[sku] * count for sku, count in units.items())
        way = rng.choices(("alipay", "wechatpay", "both", "balance", "cod"), (40, 30, 10, 10, 10))[0]
        parts = _parts(way, total, rng)
        user = f"u{rng.randrange(_CUSTOMERS)}"
        if way in ("both", "balance"):
            user = f"poor{rng.randrange(_POOR)}" if rng.random() < 0.03 else f"rich{rng.randrange(_RICH)}"
        steps: list[list[TenderBody] | None] = [parts]
        mind = rng.random()
        if mind < 0.05:
            steps.append(parts)
        elif mind < 0.10:
            steps.append(_parts(rng.choice(("alipay", "wechatpay", "cod")), total, rng))
        elif mind < 0.15:
            steps.append(None)
        made = PayingCustomer(self.record.wish(user, f"key-{number}", units), total, steps)
        self.customers[made.wish.key] = made
        return made

    def step(self, customer: PayingCustomer) -> RetriedRequest:
        """The next thing this customer wants to do."""
        parts = customer.steps.pop(0)
        return CustomerCancelRequest(self.record, customer) if parts is None else PayRequest(self, customer, parts)

    def figures(self) -> str:
        answers = ", ".join(f"{count} {said}" for said, count in sorted(self.statuses.items()))
        p50, p99 = percentiles(self.latencies)
        return f"payments: {answers}, p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def _parts(way: str, total: int, rng: Random) -> list[TenderBody]:
    if way == "both":
        credit = rng.randint(1, total - 1)
        return [{"method": "balance", "amount": credit}, {"method": "alipay", "amount": total - credit, "flow": "qr"}]
    if way in PROVIDERS:
        return [{"method": way, "amount": total, "flow": "qr"}]
    return [{"method": way, "amount": total}]


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 99th in a hundred, in milliseconds."""
    ordered = sorted(seconds) or [0.0]
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.99))
    return p50, p99


class PayRequest:
    """Begins to pay, until it is clear that it has begun or that it is too late."""

    def __init__(self, payers: PayingCustomers, customer: PayingCustomer, parts: list[TenderBody]) -> None:
        self._payers = payers
        self.customer = customer
        self._parts = parts

    def request(self) -> bytes:
        wish, body = self.customer.wish, orjson.dumps({"payments": self._parts})
        head = f"POST /v1/orders/{wish.order_id}/payments HTTP/1.1\r\n{self._payers.record.head(wish.user)}{len(body)}"
        return f"{head}\r\n\r\n".encode() + body

    def answered(self, reply: Reply, seconds: float) -> float | None:
        payers = self._payers
        said = str(reply.status) if reply.status < 300 else str(orjson.loads(reply.body)["code"])
        payers.latencies.append(seconds)
        payers.statuses[said] += 1
        if said in LATER:
            return payers.record.later(said, reply)
        if said == "200":
            self._shown(orjson.loads(reply.body))
        elif (said, reply.status) == ("not_payable", 409):
            self.customer.too_late = True  # judged at the end, when it is known what became of the order
        else:
            payers.record.lie(f"{self.customer.wish}: paying was answered {reply.status} {reply.body[:300]!r}")
        return None

    def _shown(self, view: dict[str, Any]) -> None:
        customer, parts, lie = self.customer, self._parts, self._payers.record.lie
        mine = [one for one in view["payments"] if one["current"]]
        if [(one["method"], one["amount"]["amount"]) for one in mine] != [(p["method"], p["amount"]) for p in parts]:
            lie(f"{customer.wish}: wanted to pay with {parts}, and is shown {view}")
        ids = frozenset(str(one["payment_id"]) for one in mine)
        if customer.rounds and customer.rounds[-1][0] == parts and customer.rounds[-1][1] != ids:
            before = [one for one in view["payments"] if one["payment_id"] in customer.rounds[-1][1]]
            if not any(one["status"] in ("failed", "closed") for one in before):
                lie(f"{customer.wish}: the same once more began to be paid anew: {view}")
        customer.rounds.append((parts, ids))

    def broke(self) -> None:
        self._payers.statuses["connection broken"] += 1

    def unheard(self) -> None:
        self._payers.statuses["nobody listens"] += 1

    def ended(self, clear: bool) -> None:
        if not clear:
            self._payers.record.lie(f"{self.customer.wish}: no clear answer about its payments in all the time")


class CustomerCancelRequest(CancelRequest):
    """Cancels, unless the order is paid by then."""

    def __init__(self, record: ClientRecord, customer: PayingCustomer) -> None:
        super().__init__(record, customer.wish)
        self.customer = customer

    def answered(self, reply: Reply, seconds: float) -> float | None:
        if reply.status == 409 and orjson.loads(reply.body)["code"] == "cannot_cancel":
            self.customer.too_late = True
            return None
        return super().answered(reply, seconds)


class PayingLoad:
    """Customers over all connections without a pause: so many, or until it is told to stop."""

    def __init__(self, stack: LocalStack, payers: PayingCustomers, connections: int, orders: int | None = None) -> None:
        self.payers = payers
        self.seconds = 0.0
        self._stack = stack
        self._connections = connections
        self._left = orders
        self._over = False
        self._second_thoughts: list[tuple[float, int, PayingCustomer]] = []
        self._steps = 0

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Whatever ends the load early is raised here."""
        started = perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run())
            try:
                yield
            finally:
                self._over = True
        self.seconds = perf_counter() - started

    async def more(self, orders: int) -> None:
        """Wait until so many more orders were begun to be paid. How many is the caller's chance, so that what is done
        between them is done at any moment."""
        loop = asyncio.get_running_loop()
        wanted, deadline = self.payers.statuses["200"] + orders, loop.time() + _STALLED_S
        while self.payers.statuses["200"] < wanted:
            assert loop.time() < deadline, f"nobody pays any more: {self.payers.figures()}"
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        started = perf_counter()
        await run_requests(self._stack.port, self.payers.rng, self._connections, self._errands(), self._next)
        self.seconds = perf_counter() - started

    def _errands(self) -> Iterator[RetriedRequest]:
        """Orders, and between them the second thoughts of those who have ordered; what is left of these at the end."""
        payers = self.payers
        while not self._over and self._left != 0:
            if self._second_thoughts and self._second_thoughts[0][0] <= perf_counter():
                yield payers.step(heappop(self._second_thoughts)[2])
                continue
            if self._left is not None:
                self._left -= 1
            yield payers.record.order(payers.customer().wish)
        while self._second_thoughts:
            yield payers.step(heappop(self._second_thoughts)[2])

    def _next(self, errand: RetriedRequest) -> RetriedRequest | None:
        if isinstance(errand, OrderRequest):
            customer = self.payers.customers[errand.wish.key]
            customer.ordered_at = perf_counter()
            return self.payers.step(customer) if errand.wish.order_id is not None else None
        if isinstance(errand, PayRequest) and errand.customer.steps:
            self._steps += 1
            due = perf_counter() + self.payers.rng.uniform(0, _MIND_S)
            heappush(self._second_thoughts, (due, self._steps, errand.customer))
        return None


async def place_orders_at_rate(port: int, record: ClientRecord, rng: Random, per_s: float, stop: asyncio.Event) -> None:
    """Orders at an even pace, each by a client that is free, until it is to stop; the ledger has how long each took."""
    loop = asyncio.get_running_loop()
    idle: list[RetryingClient] = []

    async def one(number: int) -> None:
        client = idle.pop() if idle else RetryingClient(port, rng)
        await client.insist(record.order(record.wish(f"u{number % _CUSTOMERS}", f"trickle-{number}", {"tea": 1})))
        idle.append(client)

    started = loop.time()
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            number = len(record.wishes)
            group.create_task(one(number))
            await asyncio.sleep(max(0.0, started + (number + 1) / per_s - loop.time()))
    for client in idle:
        client.close()


class SandboxClient:
    """The sandbox's own interface, for whoever runs a drill."""

    def __init__(self, stack: LocalStack) -> None:
        self._base = f"http://127.0.0.1:{stack.sandbox_port}"

    async def misbehave(self) -> None:
        """From now on, each provider in its way."""
        for provider in PROVIDERS:
            await self._call("PUT", f"/faults/{provider}", {**MISBEHAVIOUR, "slow_ms": SLOW_MS[provider]})

    async def behave(self) -> None:
        for provider in PROVIDERS:
            await self._call("PUT", f"/faults/{provider}", {"approve": "auto", "webhook_delay_ms": 100})

    async def totals(self) -> dict[str, dict[str, int]]:
        """What each provider has captured and refunded."""
        found: dict[str, dict[str, int]] = await self._call("GET", "/totals")
        return found

    async def pay_late(self, provider: str, out_no: str) -> None:
        """Money that was on its way when the trade was closed."""
        await self._call("POST", f"/pay/{provider}/{out_no}/late", {})

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Accept": "application/json"}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.request(method, self._base + path, data=None if body is None else orjson.dumps(body)) as answer,
        ):
            said = await answer.read()
            assert answer.status == 200, said
            return orjson.loads(said)


async def grant_credit_to_all(stack: LocalStack) -> None:
    """Store credit for all who are rich, as staff give it."""
    headers, gate = bearer(stack.settings(), "staff", roles=("support",)), asyncio.Semaphore(_CREDIT_AT_ONCE)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{stack.admin_port}", headers=headers) as client:

        async def give(user: str) -> None:
            gift = {"idempotency_key": f"gift-{user}", "amount": CREDIT, "currency": "CNY"}
            async with gate, client.post(f"/v1/admin/store-credit/{user}", json=gift) as answer:
                assert answer.status == 200, await answer.text()

        async with asyncio.TaskGroup() as group:
            for number in range(_RICH):
                group.create_task(give(f"rich{number}"))
