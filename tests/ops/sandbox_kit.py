"""A sandbox inside a test with a minimal protocol, and a merchant that receives its webhooks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from commerce.kernel.clock import SystemClock
from ops.sandbox.faults import ProviderFaultRegistry, ScenarioStep
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import DuePaymentWebhook, PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import SignedWebhook
from ops.sandbox.server import Sandbox, build_app, run_providers
from ops.sandbox.webhook_sender import SenderSettings
from tests.support.sales import eventually

PAY_AT_ONCE = {"approve": "auto", "pay_after_ms": 0, "webhook_delay_ms": 0}
NUMBERS = [f"{number:032x}" for number in range(200)]


class FakeProvider:
    """A minimal `ProviderProtocol`: JSON without signatures."""

    name = "fake"

    def __init__(self, payment_store: PaymentStore, simulator: PaymentSimulator) -> None:
        self._payment_store = payment_store
        self._simulator = simulator

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/trades", self._create_trade), web.post("/refunds", self._create_refund)]

    async def _create_trade(self, request: web.Request) -> web.Response:
        body = await request.json()
        now_ms = SystemClock().now_ms()
        trade = SimulatedTrade(
            provider="fake",
            out_no=body["out_no"],
            trade_no=f"T{body['out_no']}",
            amount=500,
            currency="CNY",
            subject=body.get("subject", "tea"),
            flow="page",
            payer="",
            notify_url=body["notify_url"],
            state="waiting",
            created_ms=now_ms,
            expires_ms=now_ms + body.get("life_ms", 60_000),
        )
        trade = self._payment_store.open_trade(trade)
        self._simulator.on_trade(trade)
        return web.json_response({"trade_no": trade.trade_no})

    async def _create_refund(self, request: web.Request) -> web.Response:
        body = await request.json()
        refund_no, out_no, now_ms = body["out_refund_no"], body["out_no"], SystemClock().now_ms()
        refund = SimulatedRefund("fake", refund_no, out_no, f"R{refund_no}", 100, "", now_ms)
        refund = self._payment_store.refund(refund)
        trade = self._payment_store.find_trade("fake", out_no)
        assert trade is not None
        self._simulator.on_refund(trade, refund)
        return web.json_response({})

    def build_webhook(
        self, due_webhook: DuePaymentWebhook, trade: SimulatedTrade, refund: SimulatedRefund | None
    ) -> SignedWebhook:
        document = {
            "id": due_webhook.webhook_id,
            "out_no": trade.out_no,
            "out_refund_no": refund.out_refund_no if refund else None,
            "state": trade.state,
            "amount": trade.amount + (1 if due_webhook.defect == "amount" else 0),
        }
        signature = "bad" if due_webhook.defect == "signature" else "good"
        return SignedWebhook({"X-Signature": signature}, json.dumps(document).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        return status == 200 and body == b"ok"

    def build_statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        return "".join([f"+{trade.amount}\n" for trade in trades] + [f"-{refund.amount}\n" for refund in refunds])


def refuse_webhook() -> web.Response:
    return web.Response(text="no")


def fail_webhook() -> web.Response:
    raise web.HTTPServiceUnavailable


class FakeMerchant:
    """Receives webhooks. Responds with `responses`, and accepts when there are no more."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.responses: Iterator[Callable[[], web.Response]] = iter(())
        self.url = ""

    @asynccontextmanager
    async def listen(self, port: int | None = None) -> AsyncIterator[FakeMerchant]:
        app = web.Application()
        app.router.add_post("/webhook", self._receive)
        async with TestServer(app, port=port) as server:
            self.url = str(server.make_url("/webhook"))
            yield self

    async def _receive(self, request: web.Request) -> web.Response:
        self.received.append({**await request.json(), "signature": request.headers["X-Signature"]})
        return next(self.responses, lambda: web.Response(text="ok"))()

    async def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait until at least `count` webhooks arrived, and return all."""

        async def has_received() -> bool:
            return len(self.received) >= count

        await eventually(has_received)
        return self.received


class SandboxKit:
    """A client of a sandbox in this process, with its merchant."""

    def __init__(
        self, client: TestClient[web.Request, web.Application], sandbox: Sandbox, merchant: FakeMerchant
    ) -> None:
        self.client = client
        self.sandbox = sandbox
        self.merchant = merchant

    async def set_faults(self, **faults: object) -> None:
        async with self.client.put("/faults/fake", json=faults) as response:
            assert response.status == 200, await response.text()

    async def create_trade(self, out_no: str = NUMBERS[0], **fields: object) -> None:
        body = {"out_no": out_no, "notify_url": self.merchant.url, **fields}
        async with self.client.post("/fake/trades", json=body) as response:
            assert response.status == 200

    async def create_refund(self, out_refund_no: str, out_no: str = NUMBERS[0]) -> None:
        body = {"out_no": out_no, "out_refund_no": out_refund_no}
        async with self.client.post("/fake/refunds", json=body) as response:
            assert response.status == 200

    async def wait_for_state(self, state: str, out_no: str = NUMBERS[0]) -> SimulatedTrade:
        async def find_trade() -> SimulatedTrade | None:
            trade = self.sandbox.payment_store.find_trade("fake", out_no)
            return trade if trade and trade.state == state else None

        trade = await eventually(find_trade)
        assert trade is not None
        return trade

    async def wait_until_sent(self) -> None:
        """Wait until no webhook is left to be sent."""

        async def is_sent() -> bool:
            return self.sandbox.payment_store.count_open_webhooks() == 0

        await eventually(is_sent)


@asynccontextmanager
async def open_sandbox_kit(
    merchant: FakeMerchant,
    file: Path | str = ":memory:",
    fault_registry: ProviderFaultRegistry | None = None,
    scenario: Sequence[ScenarioStep] = (),
    **settings: Any,
) -> AsyncIterator[SandboxKit]:
    """Run a sandbox in this process; `settings` are those of the webhook sender."""
    sender_settings = SenderSettings(timeout_s=2, max_retry_wait_s=0.01, **settings)
    fault_registry = fault_registry or ProviderFaultRegistry()
    with closing(PaymentStore(file)) as payment_store:

        def create_protocols(simulator: PaymentSimulator) -> Sequence[FakeProvider]:
            return [FakeProvider(payment_store, simulator)]

        async with (
            run_providers(
                payment_store, SystemClock(), fault_registry, sender_settings, create_protocols, scenario
            ) as sandbox,
            TestClient(TestServer(build_app(sandbox))) as client,
        ):
            yield SandboxKit(client, sandbox, merchant)
