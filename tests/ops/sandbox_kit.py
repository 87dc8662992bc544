"""A sandbox with the least protocol, inside a test, and a merchant who gets its callbacks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from commerce.kernel.clock import SystemClock
from ops.sandbox.faults import ProviderFaultRegistry, Step
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import DueNotice, PaymentStore, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import Callback
from ops.sandbox.server import Sandbox, build, running
from ops.sandbox.webhook_sender import Sending
from tests.support.sales import eventually

QUICK = {"approve": "auto", "pay_after_ms": 0, "callback_ms": 0}
NUMBERS = [f"{number:032x}" for number in range(200)]


class FakeProvider:
    """The least protocol: JSON without signatures."""

    name = "fake"

    def __init__(self, bank: PaymentStore, plans: PaymentSimulator) -> None:
        self._bank = bank
        self._plans = plans

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/trades", self._trade), web.post("/refunds", self._refund)]

    async def _trade(self, request: web.Request) -> web.Response:
        asked = await request.json()
        now_ms = SystemClock().now_ms()
        no, url, expires_ms = asked["out_no"], asked["notify_url"], now_ms + asked.get("life_ms", 60_000)
        subject = asked.get("subject", "tea")
        money = (500, "CNY", subject, "page", "", url, "waiting", now_ms, expires_ms)
        trade = self._bank.open_trade(SimulatedTrade("fake", no, f"T{no}", *money))
        self._plans.on_trade(trade)
        return web.json_response({"trade_no": trade.trade_no})

    async def _refund(self, request: web.Request) -> web.Response:
        asked = await request.json()
        no, out_no, now_ms = asked["out_refund_no"], asked["out_no"], SystemClock().now_ms()
        refund = self._bank.refund(SimulatedRefund("fake", no, out_no, f"R{no}", 100, "", now_ms))
        trade = self._bank.trade("fake", out_no)
        assert trade is not None
        self._plans.on_refund(trade, refund)
        return web.json_response({})

    def callback(self, notice: DueNotice, trade: SimulatedTrade, refund: SimulatedRefund | None) -> Callback:
        told = {
            "id": notice.notice_id,
            "out_no": trade.out_no,
            "out_refund_no": refund.out_refund_no if refund else None,
            "state": trade.state,
            "amount": trade.amount + (1 if notice.wrong == "amount" else 0),
        }
        return Callback({"X-Signature": "bad" if notice.wrong == "signature" else "good"}, json.dumps(told).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        return status == 200 and body == b"ok"

    def statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        return "".join([f"+{trade.amount}\n" for trade in trades] + [f"-{refund.amount}\n" for refund in refunds])


def refuse_webhook() -> web.Response:
    return web.Response(text="no")


def fail_webhook() -> web.Response:
    raise web.HTTPServiceUnavailable


class FakeMerchant:
    """Gets callbacks. Answers with what `answers` gives, and accepts when that is used up."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.answers: Iterator[Callable[[], web.Response]] = iter(())
        self.url = ""

    @asynccontextmanager
    async def listening(self, port: int | None = None) -> AsyncIterator[FakeMerchant]:
        app = web.Application()
        app.router.add_post("/notify", self.notify)
        async with TestServer(app, port=port) as server:
            self.url = str(server.make_url("/notify"))
            yield self

    async def notify(self, request: web.Request) -> web.Response:
        self.got.append({**await request.json(), "signature": request.headers["X-Signature"]})
        return next(self.answers, lambda: web.Response(text="ok"))()

    async def has(self, count: int) -> list[dict[str, Any]]:
        """Waits until so many callbacks came."""

        async def look() -> bool:
            return len(self.got) >= count

        await eventually(look)
        return self.got


class SandboxKit:
    """A client of a sandbox that runs in the test, with its merchant."""

    def __init__(
        self, client: TestClient[web.Request, web.Application], sandbox: Sandbox, merchant: FakeMerchant
    ) -> None:
        self.client = client
        self.sandbox = sandbox
        self.merchant = merchant

    async def switch(self, **switches: object) -> None:
        async with self.client.put("/switches/fake", json=switches) as answer:
            assert answer.status == 200, await answer.text()

    async def trade(self, out_no: str = NUMBERS[0], **more: object) -> None:
        asked = {"out_no": out_no, "notify_url": self.merchant.url, **more}
        async with self.client.post("/fake/trades", json=asked) as answer:
            assert answer.status == 200

    async def refund(self, out_refund_no: str, out_no: str = NUMBERS[0]) -> None:
        asked = {"out_no": out_no, "out_refund_no": out_refund_no}
        async with self.client.post("/fake/refunds", json=asked) as answer:
            assert answer.status == 200

    async def state(self, wanted: str, out_no: str = NUMBERS[0]) -> SimulatedTrade:
        async def look() -> SimulatedTrade | None:
            trade = self.sandbox.bank.trade("fake", out_no)
            return trade if trade and trade.state == wanted else None

        found = await eventually(look)
        assert found is not None
        return found

    async def all_sent(self) -> None:
        async def look() -> bool:
            return self.sandbox.bank.open_notices() == 0

        await eventually(look)


@asynccontextmanager
async def open_sandbox_kit(
    merchant: FakeMerchant,
    file: Path | str = ":memory:",
    board: ProviderFaultRegistry | None = None,
    scenario: Sequence[Step] = (),
    **more: Any,
) -> AsyncIterator[SandboxKit]:
    """A sandbox in this process; `more` says how callbacks are sent."""
    sending = Sending(timeout_s=2, longest_wait_s=0.01, **more)
    with closing(PaymentStore(file)) as bank:
        protocols: Callable[[PaymentSimulator], Sequence[FakeProvider]] = lambda plans: [FakeProvider(bank, plans)]  # noqa: E731
        async with (
            running(bank, SystemClock(), board or ProviderFaultRegistry(), sending, protocols, scenario) as sandbox,
            TestClient(TestServer(build(sandbox))) as client,
        ):
            yield SandboxKit(client, sandbox, merchant)
