"""Behaviour common to simulated providers: payments by persons and robots, webhooks, restarts."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from commerce.kernel.clock import SystemClock
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import PaymentStore, PaymentStoreRefusal, SimulatedRefund, SimulatedTrade
from ops.sandbox.webhook_sender import MAX_ATTEMPTS
from tests.ops.sandbox_kit import (
    NUMBERS,
    PAY_AT_ONCE,
    FakeMerchant,
    SandboxKit,
    fail_webhook,
    open_sandbox_kit,
    refuse_webhook,
)


@pytest.fixture
async def kit() -> AsyncIterator[SandboxKit]:
    async with FakeMerchant().listen() as merchant, open_sandbox_kit(merchant) as opened_kit:
        yield opened_kit


async def test_person_pays_on_page(kit: SandboxKit) -> None:
    await kit.set_faults(webhook_delay_ms=0)
    await kit.create_trade(subject="<b>tea</b>")
    async with kit.client.get("/") as response:
        page = await response.text()
    assert f'href="/pay/fake/{NUMBERS[0]}"' in page
    assert "&lt;b&gt;tea" in page
    assert "<b>" not in page
    assert "webhook_delay_ms = 0" in page
    async with kit.client.get(f"/pay/fake/{NUMBERS[0]}") as response:
        page = await response.text()
    assert "5.00 CNY" in page
    assert "&lt;b&gt;tea" in page
    assert page.count("<button>") == 2
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/approve") as response:
        assert response.url.path == f"/pay/fake/{NUMBERS[0]}"
        assert "<button>" not in await response.text()
    [webhook] = await kit.merchant.wait_for(1)
    assert (webhook["out_no"], webhook["state"]) == (NUMBERS[0], "captured")
    assert (webhook["amount"], webhook["signature"]) == (500, "good")
    await kit.wait_until_sent()


async def test_person_refuses_by_curl(kit: SandboxKit) -> None:
    await kit.create_trade()
    headers = {"Accept": "application/json"}
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/refuse", headers=headers) as response:
        assert await response.json() == {"provider": "fake", "out_no": NUMBERS[0], "state": "closed"}
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/approve", headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (409, "closed")
    async with kit.client.post("/pay/fake/none/approve", headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (404, "no_trade")
    async with kit.client.post("/pay/fake/none/approve") as response:
        assert (response.status, response.content_type) == (404, "text/html")
    async with kit.client.get("/pay/fake/none") as response:
        assert response.status == 404
    assert kit.sandbox.payment_store.totals("fake")["open_webhooks"] == 0


async def test_refused_webhook_is_sent_until_accepted(kit: SandboxKit) -> None:
    kit.merchant.responses = iter([refuse_webhook, fail_webhook, fail_webhook, refuse_webhook])
    await kit.set_faults(**PAY_AT_ONCE)
    await kit.create_trade()
    webhooks = await kit.merchant.wait_for(5)
    assert len({webhook["id"] for webhook in webhooks}) == 1
    await kit.wait_until_sent()
    assert len(webhooks) == 5


async def test_webhook_refused_always_is_abandoned(kit: SandboxKit) -> None:
    kit.merchant.responses = itertools.repeat(refuse_webhook)
    await kit.set_faults(**PAY_AT_ONCE)
    await kit.create_trade()
    await kit.merchant.wait_for(1)
    await kit.wait_until_sent()
    assert len(kit.merchant.received) == MAX_ATTEMPTS


async def test_webhook_to_unreachable_merchant_arrives_later(unused_tcp_port: int) -> None:
    merchant = FakeMerchant()
    async with open_sandbox_kit(merchant) as kit:
        await kit.set_faults(**PAY_AT_ONCE)
        await kit.create_trade(notify_url=f"http://127.0.0.1:{unused_tcp_port}/webhook")
        await kit.wait_for_state("captured")
        async with merchant.listen(unused_tcp_port):
            await merchant.wait_for(1)
            await kit.wait_until_sent()


async def test_webhook_to_other_host_is_not_sent() -> None:
    async with (
        FakeMerchant().listen() as merchant,
        open_sandbox_kit(merchant, hosts=frozenset({"shop.test"})) as kit,
    ):
        await kit.set_faults(**PAY_AT_ONCE)
        for number, url in zip(NUMBERS, (merchant.url, "nonsense", "http://[", ""), strict=False):
            await kit.create_trade(number, notify_url=url)
            await kit.wait_for_state("captured", number)
        await kit.wait_until_sent()
        assert merchant.received == []


async def test_restart_loses_no_payment_and_no_webhook(tmp_path: Path) -> None:
    """Covers a scheduled robot payment, an open webhook, and one that a kill left unscheduled."""
    store_file, faults_file = tmp_path / "payments.sqlite", tmp_path / "faults.json"
    async with FakeMerchant().listen() as merchant:
        async with open_sandbox_kit(merchant, store_file, ProviderFaultRegistry(file=faults_file)) as first:
            await first.set_faults(**PAY_AT_ONCE, delayed_share=1, extra_delay_ms=300)
            await first.create_trade(NUMBERS[0])
            await first.wait_for_state("captured", NUMBERS[0])
            await first.set_faults()
            await first.create_trade(NUMBERS[1])
            await first.create_trade(NUMBERS[2])
            # The simulator does not learn of this payment: a kill before its webhook was stored leaves the same rows.
            first.sandbox.payment_store.pay("fake", NUMBERS[2], first.sandbox.clock.now_ms())

        fault_registry = ProviderFaultRegistry(file=faults_file)
        assert fault_registry.get("fake") == ProviderFaults()
        fault_registry.set("fake", ProviderFaults(approve="auto", pay_after_ms=0, webhook_delay_ms=0))
        async with open_sandbox_kit(merchant, store_file, ProviderFaultRegistry(file=faults_file)) as second:
            await second.wait_for_state("captured", NUMBERS[1])
            await second.wait_until_sent()
        assert {webhook["out_no"] for webhook in merchant.received} == {NUMBERS[0], NUMBERS[1], NUMBERS[2]}


async def test_webhook_in_flight_is_sent_again_after_restart(tmp_path: Path, unused_tcp_port: int) -> None:
    reached, merchant = asyncio.Event(), FakeMerchant()

    async def never_respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()

    async with (
        open_sandbox_kit(merchant, tmp_path / "payments.sqlite") as first,
        await asyncio.start_server(never_respond, "127.0.0.1", unused_tcp_port),
    ):
        await first.set_faults(**PAY_AT_ONCE)
        await first.create_trade(notify_url=f"http://127.0.0.1:{unused_tcp_port}/webhook")
        await reached.wait()
    async with merchant.listen(unused_tcp_port), open_sandbox_kit(merchant, tmp_path / "payments.sqlite") as second:
        await merchant.wait_for(1)
        await second.wait_until_sent()


async def test_totals_count_payments_and_refunds(kit: SandboxKit) -> None:
    await kit.set_faults(**PAY_AT_ONCE)
    await kit.create_trade()
    await kit.wait_for_state("captured")
    await kit.create_refund("b" * 32)
    await kit.create_refund("b" * 32)
    await kit.merchant.wait_for(2)
    await kit.wait_until_sent()
    async with kit.client.get("/totals") as response:
        totals = (await response.json())["fake"]
    assert totals == {
        "captured": 1,
        "captured_amount": 500,
        "refunds": 1,
        "refunds_amount": 100,
        "paid_more_than_once": 0,
        "open_webhooks": 0,
    }
    assert [webhook["out_refund_no"] for webhook in kit.merchant.received] == [None, "b" * 32]


async def test_statement_covers_day_in_china(kit: SandboxKit) -> None:
    payment_store = kit.sandbox.payment_store
    midnight_ms = 1_767_196_800_000  # 2025-12-31T16:00Z, where 2026 begins in China
    for number, paid_ms in zip(NUMBERS, (midnight_ms - 1, midnight_ms, midnight_ms + 86_399_999), strict=False):
        amount = int(number, 16) + 1
        payment_store.open_trade(
            SimulatedTrade("fake", number, number, amount, "CNY", "", "page", "", "", "waiting", 0, 2**60)
        )
        payment_store.pay("fake", number, paid_ms)
    payment_store.refund(SimulatedRefund("fake", "b" * 32, NUMBERS[0], "R1", 1, "", midnight_ms + 86_400_000))
    for day, text in (("2025-12-31", "+1\n"), ("2026-01-01", "+2\n+3\n"), ("2026-01-02", "-1\n")):
        async with kit.client.get(f"/statement/fake/{day}") as response:
            assert (response.status, await response.text()) == (200, text)
    for path, status in (("fake/2026-02-30", 400), ("fake/today", 404), ("none/2026-01-01", 404)):
        async with kit.client.get(f"/statement/{path}") as response:
            assert response.status == status


def test_refused_payment_has_no_webhook() -> None:
    with closing(PaymentStore()) as payment_store:
        simulator = PaymentSimulator(payment_store, SystemClock(), ProviderFaultRegistry())
        with pytest.raises(PaymentStoreRefusal):
            simulator.pay("fake", NUMBERS[0])
        assert payment_store.count_open_webhooks() == 0


async def test_sandbox_with_closed_store_stops() -> None:
    async def close_store() -> None:
        async with open_sandbox_kit(FakeMerchant()) as kit:
            kit.sandbox.payment_store.close()
            kit.sandbox.payment_simulator.wake.set()
            await kit.sandbox.stop.wait()

    with pytest.raises(sqlite3.ProgrammingError):
        await close_store()
