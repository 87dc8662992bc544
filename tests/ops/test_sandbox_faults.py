"""Faults of simulated providers, set by HTTP and by a scenario."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import msgspec
import pytest

from commerce.kernel.clock import SystemClock
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults, read_scenario
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.payment_store import PaymentStore, SimulatedRefund, SimulatedTrade
from tests.ops.sandbox_kit import NUMBERS, PAY_AT_ONCE, FakeMerchant, SandboxKit, open_sandbox_kit, refuse_webhook
from tests.support.sales import eventually

TRADE = SimulatedTrade(
    "fake", NUMBERS[0], "T1", 500, "CNY", "tea", "page", "", "http://localhost/n", "waiting", 1_000, 9_000
)


@pytest.fixture
async def kit() -> AsyncIterator[SandboxKit]:
    async with FakeMerchant().listen() as merchant, open_sandbox_kit(merchant) as opened_kit:
        yield opened_kit


async def test_faults_are_replaced_by_http(kit: SandboxKit) -> None:
    await kit.set_faults(approve="auto", delayed_share=0.5)
    async with kit.client.get("/faults/fake") as response:
        faults = await response.json()
    assert (faults["approve"], faults["delayed_share"], faults["dropped_share"]) == ("auto", 0.5, 0.0)
    await kit.set_faults()
    assert kit.sandbox.faults.get("fake") == ProviderFaults()
    negative: list[object] = [{"delayed_share": -0.1}, {"pay_after_ms": -1}]
    for bad in (*negative, {"delayed_share": 1.1}, {"approve": "yes"}, {"latex": 1}, []):
        async with kit.client.put("/faults/fake", json=bad) as response:
            assert response.status == 400, bad
    async with kit.client.put("/faults/none", json={}) as response:
        assert response.status == 404


async def test_robot_pays_waiting_and_new_trades(kit: SandboxKit) -> None:
    await kit.create_trade(NUMBERS[0])
    await kit.set_faults(**PAY_AT_ONCE)
    await kit.create_trade(NUMBERS[1])
    assert {webhook["out_no"] for webhook in await kit.merchant.wait_for(2)} == {NUMBERS[0], NUMBERS[1]}


async def test_robot_refuses_trades(kit: SandboxKit) -> None:
    await kit.set_faults(**PAY_AT_ONCE | {"approve": "refuse"})
    await kit.create_trade(NUMBERS[0])
    await kit.wait_for_state("closed", NUMBERS[0])
    await kit.set_faults(**PAY_AT_ONCE, refused_share=0.5)
    for number in NUMBERS[1:41]:
        await kit.create_trade(number)

    async def count_states() -> dict[str, int] | None:
        trades = [kit.sandbox.payment_store.find_trade("fake", number) for number in NUMBERS[1:41]]
        states = Counter(trade.state for trade in trades if trade)
        return states if "waiting" not in states else None

    states = await eventually(count_states)
    assert states is not None
    assert set(states) == {"captured", "closed"}


class FakeSandboxClock(SystemClock):
    """A clock that is moved by hand."""

    ms = 1_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def store() -> Iterator[PaymentStore]:
    with closing(PaymentStore()) as payment_store:
        payment_store.open_trade(TRADE)
        yield payment_store


def test_pay_late_share_pays_just_before_expiry(store: PaymentStore) -> None:
    fault_registry, clock = ProviderFaultRegistry(), FakeSandboxClock()
    fault_registry.set("fake", ProviderFaults(approve="auto", pay_late_share=1))
    simulator = PaymentSimulator(store, clock, fault_registry)
    simulator.on_trade(TRADE)
    assert simulator.find_next_due_ms() == TRADE.expires_ms - 200
    clock.ms = TRADE.expires_ms - 201
    simulator.pay_due()
    assert store.find_trade("fake", TRADE.out_no) == TRADE
    clock.ms += 1
    simulator.pay_due()
    assert store.list_paid_trades("fake", clock.ms) != []
    assert simulator.find_next_due_ms() is None


async def test_duplicate_share_sends_webhook_three_times(kit: SandboxKit) -> None:
    await kit.set_faults(**PAY_AT_ONCE, duplicate_share=1)
    await kit.create_trade()
    webhooks = await kit.merchant.wait_for(3)
    await kit.wait_until_sent()
    assert sorted(Counter(webhook["id"] for webhook in webhooks).values()) == [1, 2]
    assert {webhook["out_no"] for webhook in webhooks} == {NUMBERS[0]}


async def test_delayed_share_sends_webhook_later(kit: SandboxKit) -> None:
    await kit.set_faults(**PAY_AT_ONCE, delayed_share=1, extra_delay_ms=400)
    await kit.create_trade()
    paid = await kit.wait_for_state("captured")
    await kit.merchant.wait_for(1)
    assert paid.paid_ms is not None
    assert kit.sandbox.clock.now_ms() >= paid.paid_ms + 400


async def test_dropped_share_sends_no_webhook(kit: SandboxKit) -> None:
    await kit.set_faults(**PAY_AT_ONCE, dropped_share=1)
    await kit.create_trade(NUMBERS[0])
    await kit.wait_for_state("captured", NUMBERS[0])
    assert kit.sandbox.payment_store.count_open_webhooks() == 0
    await kit.set_faults(**PAY_AT_ONCE)  # a dropped webhook stays dropped
    await kit.create_trade(NUMBERS[1])
    await kit.merchant.wait_for(1)
    await kit.wait_until_sent()
    assert [webhook["out_no"] for webhook in kit.merchant.received] == [NUMBERS[1]]


@pytest.mark.parametrize(
    ("share", "wrong"), [("wrong_signature_share", ("bad", 500)), ("wrong_amount_share", ("good", 501))]
)
async def test_wrong_webhook_is_wrong_at_each_attempt(kit: SandboxKit, share: str, wrong: tuple[str, int]) -> None:
    kit.merchant.responses = iter([refuse_webhook])
    await kit.set_faults(**PAY_AT_ONCE, **{share: 1})
    await kit.create_trade()
    webhooks = await kit.merchant.wait_for(2)
    assert [(webhook["signature"], webhook["amount"]) for webhook in webhooks] == [wrong, wrong]


def test_reordered_share_sends_refund_before_payment(store: PaymentStore) -> None:
    """The refund's webhook is due before the payment's, and a payment's follows each refund's."""
    fault_registry, clock = ProviderFaultRegistry(), FakeSandboxClock()
    fault_registry.set("fake", ProviderFaults(reordered_share=1, extra_delay_ms=1_000))
    simulator = PaymentSimulator(store, clock, fault_registry)
    paid = simulator.pay("fake", TRADE.out_no)
    for number in ("b", "c"):
        for refund_no in (number, "x"):  # the second request repeats the first
            refund = SimulatedRefund("fake", number, TRADE.out_no, refund_no, 100, "", clock.ms)
            simulator.on_refund(paid, store.refund(refund))
        clock.ms += 5_000
    due_webhooks = store.list_due_webhooks(clock.ms, 10)
    assert [due_webhook.out_refund_no for due_webhook in due_webhooks] == ["b", None, None, "c", None]
    assert len({due_webhook.webhook_id for due_webhook in due_webhooks}) == 5


async def test_down_provider_refuses_requests_and_sends_webhooks(kit: SandboxKit) -> None:
    await kit.create_trade(NUMBERS[0])
    await kit.set_faults(**PAY_AT_ONCE, down=True)
    outcomes = set()
    for _ in range(40):
        try:
            async with kit.client.post("/fake/trades", json={}) as response:
                outcomes.add(str(response.status))
        except aiohttp.ClientError:
            outcomes.add("closed")
    assert outcomes == {"503", "closed"}
    async with kit.client.get("/") as response:
        assert response.status == 200
    await kit.merchant.wait_for(1)  # payments and webhooks continue
    await kit.set_faults(down=True, down_until_ms=1)
    await kit.create_trade(NUMBERS[1])


async def test_slow_request_is_carried_out_before_response(kit: SandboxKit) -> None:
    await kit.set_faults(slow_share=1, slow_ms=60_000)
    slow_call = asyncio.create_task(kit.create_trade())
    await kit.wait_for_state("waiting")
    async with kit.client.get("/health") as response:
        assert await response.json() == {"status": "ok"}
    assert not slow_call.done()
    slow_call.cancel()
    await asyncio.wait([slow_call])
    await kit.set_faults(slow_share=1, slow_ms=1)
    await kit.create_trade()


async def test_scenario_sets_faults_at_their_times(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        '[[step]]\nafter_s = 0.2\nsystem = "fake"\n'
        'faults = {approve = "auto", pay_after_ms = 0, webhook_delay_ms = 0}\n'
        '[[step]]\nafter_s = 0\nsystem = "fake"\nfaults = {dropped_share = 1}\n'
    )
    steps = read_scenario(file, ["fake"])
    assert [step.after_s for step in steps] == [0, 0.2]
    async with FakeMerchant().listen() as merchant, open_sandbox_kit(merchant, scenario=steps) as kit:
        await kit.create_trade()
        await kit.merchant.wait_for(1)
        assert kit.sandbox.faults.get("fake") == msgspec.convert(PAY_AT_ONCE, ProviderFaults)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[[step]]\nafter_s = -1\nsystem = "fake"\nfaults = {}', "after_s"),
        ('[[step]]\nafter_s = 1\nsystem = "other"\nfaults = {}', "no provider or carrier other"),
        ('[[step]]\nafter_s = 1\nsystem = "fake"\nfaults = {latex = 1}', "latex"),
        ('[[steps]]\nafter_s = 1\nsystem = "fake"\nfaults = {}', "steps"),
        ("[[step", "scenario.toml"),
    ],
)
def test_invalid_scenario_is_refused_with_reason(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_scenario(file, ["fake"])


def test_selection_depends_on_seed_and_fault() -> None:
    def select(seed: int, fault: str = "delayed", share: float = 0.3) -> list[str]:
        return [number for number in NUMBERS if ProviderFaultRegistry(seed).is_selected(share, fault, number)]

    assert select(1) == select(1)
    assert 30 < len(select(1)) < 90
    assert select(1) != select(2)
    assert select(1) != select(1, "duplicate")
    assert set(select(1, share=0.1)) < set(select(1))
    assert select(1, share=0) == []
    assert select(1, share=1) == NUMBERS


def test_invalid_faults_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"faults\.json"):
        ProviderFaultRegistry(file=file)
