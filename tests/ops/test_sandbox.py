"""What is common to the sandbox's providers: payment by a person or a robot, callbacks, books, and restarts."""

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
from ops.sandbox.webhook_sender import ATTEMPTS
from tests.ops.sandbox_kit import (
    NUMBERS,
    QUICK,
    FakeMerchant,
    SandboxKit,
    fail_webhook,
    open_sandbox_kit,
    refuse_webhook,
)


@pytest.fixture
async def kit() -> AsyncIterator[SandboxKit]:
    async with FakeMerchant().listening() as merchant, open_sandbox_kit(merchant) as made:
        yield made


async def test_a_person_pays_on_the_page(kit: SandboxKit) -> None:
    await kit.switch(callback_ms=0)
    await kit.trade(subject="<b>tea</b>")
    async with kit.client.get("/") as answer:
        listed = await answer.text()
    assert f'href="/pay/fake/{NUMBERS[0]}"' in listed
    assert "&lt;b&gt;tea" in listed
    assert "<b>" not in listed
    assert "callback_ms = 0" in listed
    async with kit.client.get(f"/pay/fake/{NUMBERS[0]}") as answer:
        page = await answer.text()
    assert "5.00 CNY" in page
    assert "&lt;b&gt;tea" in page
    assert page.count("<button>") == 2
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/approve") as answer:
        assert answer.url.path == f"/pay/fake/{NUMBERS[0]}"
        assert "<button>" not in await answer.text()
    [told] = await kit.merchant.has(1)
    assert (told["out_no"], told["state"], told["amount"], told["signature"]) == (NUMBERS[0], "captured", 500, "good")
    await kit.all_sent()


async def test_a_person_refuses_by_curl(kit: SandboxKit) -> None:
    await kit.trade()
    wants = {"Accept": "application/json"}
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/refuse", headers=wants) as answer:
        assert await answer.json() == {"provider": "fake", "out_no": NUMBERS[0], "state": "closed"}
    async with kit.client.post(f"/pay/fake/{NUMBERS[0]}/approve", headers=wants) as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "closed")
    async with kit.client.post("/pay/fake/none/approve", headers=wants) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "no_trade")
    async with kit.client.post("/pay/fake/none/approve") as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")
    async with kit.client.get("/pay/fake/none") as answer:
        assert answer.status == 404
    assert kit.sandbox.bank.totals("fake")["open_notices"] == 0


async def test_a_callback_is_sent_until_it_is_accepted(kit: SandboxKit) -> None:
    kit.merchant.answers = iter([refuse_webhook, fail_webhook, fail_webhook, refuse_webhook])
    await kit.switch(**QUICK)
    await kit.trade()
    got = await kit.merchant.has(5)
    assert len({told["id"] for told in got}) == 1
    await kit.all_sent()
    assert len(got) == 5


async def test_a_callback_is_given_up(kit: SandboxKit) -> None:
    kit.merchant.answers = itertools.repeat(refuse_webhook)
    await kit.switch(**QUICK)
    await kit.trade()
    await kit.merchant.has(1)
    await kit.all_sent()
    assert len(kit.merchant.got) == ATTEMPTS


async def test_nobody_listens_and_then_somebody_does(unused_tcp_port: int) -> None:
    merchant = FakeMerchant()
    async with open_sandbox_kit(merchant) as kit:
        await kit.switch(**QUICK)
        await kit.trade(notify_url=f"http://127.0.0.1:{unused_tcp_port}/notify")
        await kit.state("captured")
        async with merchant.listening(unused_tcp_port):
            await merchant.has(1)
            await kit.all_sent()


async def test_callbacks_stay_on_this_machine() -> None:
    async with (
        FakeMerchant().listening() as merchant,
        open_sandbox_kit(merchant, hosts=frozenset({"shop.test"})) as kit,
    ):
        await kit.switch(**QUICK)
        for number, url in zip(NUMBERS, (merchant.url, "nonsense", "http://[", ""), strict=False):
            await kit.trade(number, notify_url=url)
            await kit.state("captured", number)
        await kit.all_sent()
        assert merchant.got == []


async def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    """A robot's payment, a callback that is open, and one that a kill left unplanned."""
    books, switches = tmp_path / "books.sqlite", tmp_path / "switches.json"
    async with FakeMerchant().listening() as merchant:
        async with open_sandbox_kit(merchant, books, ProviderFaultRegistry(file=switches)) as first:
            await first.switch(**QUICK, late_share=1, late_ms=300)
            await first.trade(NUMBERS[0])
            await first.state("captured", NUMBERS[0])
            await first.switch()
            await first.trade(NUMBERS[1])
            await first.trade(NUMBERS[2])
            first.sandbox.bank.pay("fake", NUMBERS[2], first.sandbox.clock.now_ms())  # and no word to the plans
            # What is in the bank now is what a kill at this moment would leave.

        board = ProviderFaultRegistry(file=switches)
        assert board.of("fake") == ProviderFaults()
        board.set("fake", ProviderFaults(approve="auto", pay_after_ms=0, callback_ms=0))
        async with open_sandbox_kit(merchant, books, ProviderFaultRegistry(file=switches)) as second:
            await second.state("captured", NUMBERS[1])
            await second.all_sent()
        assert {told["out_no"] for told in merchant.got} == {NUMBERS[0], NUMBERS[1], NUMBERS[2]}


async def test_a_callback_on_its_way_is_sent_again_after_a_restart(tmp_path: Path, unused_tcp_port: int) -> None:
    reached, merchant = asyncio.Event(), FakeMerchant()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()

    async with (
        open_sandbox_kit(merchant, tmp_path / "books.sqlite") as first,
        await asyncio.start_server(deaf, "127.0.0.1", unused_tcp_port),
    ):
        await first.switch(**QUICK)
        await first.trade(notify_url=f"http://127.0.0.1:{unused_tcp_port}/notify")
        await reached.wait()
    async with merchant.listening(unused_tcp_port), open_sandbox_kit(merchant, tmp_path / "books.sqlite") as second:
        await merchant.has(1)
        await second.all_sent()


async def test_books_and_statement(kit: SandboxKit) -> None:
    await kit.switch(**QUICK)
    await kit.trade()
    await kit.state("captured")
    await kit.refund("b" * 32)
    await kit.refund("b" * 32)
    await kit.merchant.has(2)
    await kit.all_sent()
    async with kit.client.get("/books") as answer:
        told = (await answer.json())["fake"]
    assert told == {
        "captured": 1,
        "captured_amount": 500,
        "refunds": 1,
        "refunds_amount": 100,
        "paid_more_than_once": 0,
        "open_notices": 0,
    }
    assert [call["out_refund_no"] for call in kit.merchant.got] == [None, "b" * 32]


async def test_a_statement_is_of_a_day_in_china(kit: SandboxKit) -> None:
    bank = kit.sandbox.bank
    midnight_ms = 1_767_196_800_000  # 2025-12-31T16:00Z, where 2026 begins in China
    for number, paid_ms in zip(NUMBERS, (midnight_ms - 1, midnight_ms, midnight_ms + 86_399_999), strict=False):
        amount = int(number, 16) + 1
        bank.open_trade(SimulatedTrade("fake", number, number, amount, "CNY", "", "page", "", "", "waiting", 0, 2**60))
        bank.pay("fake", number, paid_ms)
    bank.refund(SimulatedRefund("fake", "b" * 32, NUMBERS[0], "R1", 1, "", midnight_ms + 86_400_000))
    for day, text in (("2025-12-31", "+1\n"), ("2026-01-01", "+2\n+3\n"), ("2026-01-02", "-1\n")):
        async with kit.client.get(f"/statement/fake/{day}") as answer:
            assert (answer.status, await answer.text()) == (200, text)
    for path, status in (("fake/2026-02-30", 400), ("fake/today", 404), ("none/2026-01-01", 404)):
        async with kit.client.get(f"/statement/{path}") as answer:
            assert answer.status == status


def test_a_refused_payment_has_no_callback() -> None:
    with closing(PaymentStore()) as bank:
        plans = PaymentSimulator(bank, SystemClock(), ProviderFaultRegistry())
        with pytest.raises(PaymentStoreRefusal):
            plans.pay("fake", NUMBERS[0])
        assert bank.open_notices() == 0


async def test_it_does_not_go_on_without_its_books() -> None:
    async def lose_them() -> None:
        async with open_sandbox_kit(FakeMerchant()) as kit:
            kit.sandbox.bank.close()
            kit.sandbox.plans.wake.set()
            await kit.sandbox.stop.wait()

    with pytest.raises(sqlite3.ProgrammingError):
        await lose_them()
