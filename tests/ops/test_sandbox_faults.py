"""Each thing that the sandbox's providers can be told to do wrong, by HTTP and by a scenario."""

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
from tests.ops.sandbox_kit import NUMBERS, QUICK, FakeMerchant, SandboxKit, open_sandbox_kit, refuse_webhook
from tests.support.sales import eventually

TRADE = SimulatedTrade(
    "fake", NUMBERS[0], "T1", 500, "CNY", "tea", "page", "", "http://localhost/n", "waiting", 1_000, 9_000
)


@pytest.fixture
async def kit() -> AsyncIterator[SandboxKit]:
    async with FakeMerchant().listening() as merchant, open_sandbox_kit(merchant) as made:
        yield made


async def test_switches_by_http(kit: SandboxKit) -> None:
    await kit.switch(approve="auto", late_share=0.5)
    async with kit.client.get("/switches/fake") as answer:
        told = await answer.json()
    assert (told["approve"], told["late_share"], told["never_share"]) == ("auto", 0.5, 0.0)
    await kit.switch()
    assert kit.sandbox.board.of("fake") == ProviderFaults()
    negative: list[object] = [{"late_share": -0.1}, {"pay_after_ms": -1}]
    for bad in (*negative, {"late_share": 1.1}, {"approve": "yes"}, {"latex": 1}, []):
        async with kit.client.put("/switches/fake", json=bad) as answer:
            assert answer.status == 400, bad
    async with kit.client.put("/switches/none", json={}) as answer:
        assert answer.status == 404


async def test_a_robot_pays_what_waits_and_what_comes(kit: SandboxKit) -> None:
    await kit.trade(NUMBERS[0])
    await kit.switch(**QUICK)
    await kit.trade(NUMBERS[1])
    assert {told["out_no"] for told in await kit.merchant.has(2)} == {NUMBERS[0], NUMBERS[1]}


async def test_a_robot_refuses(kit: SandboxKit) -> None:
    await kit.switch(**QUICK | {"approve": "refuse"})
    await kit.trade(NUMBERS[0])
    await kit.state("closed", NUMBERS[0])
    await kit.switch(**QUICK, refused_share=0.5)
    for number in NUMBERS[1:41]:
        await kit.trade(number)

    async def look() -> dict[str, int] | None:
        trades = [kit.sandbox.bank.trade("fake", number) for number in NUMBERS[1:41]]
        states = Counter(trade.state for trade in trades if trade)
        return states if "waiting" not in states else None

    states = await eventually(look)
    assert states is not None
    assert set(states) == {"captured", "closed"}


class FakeSandboxClock(SystemClock):
    """Moved by hand."""

    ms = 1_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def store() -> Iterator[PaymentStore]:
    with closing(PaymentStore()) as made:
        made.open_trade(TRADE)
        yield made


def test_a_robot_pays_just_before_the_trade_expires(store: PaymentStore) -> None:
    board, clock = ProviderFaultRegistry(), FakeSandboxClock()
    board.set("fake", ProviderFaults(approve="auto", pay_late_share=1))
    plans = PaymentSimulator(store, clock, board)
    plans.on_trade(TRADE)
    assert plans.next_ms() == TRADE.expires_ms - 200
    clock.ms = TRADE.expires_ms - 201
    plans.pay_due()
    assert store.trade("fake", TRADE.out_no) == TRADE
    clock.ms += 1
    plans.pay_due()
    assert store.trades("fake", clock.ms) != []
    assert plans.next_ms() is None


async def test_twice(kit: SandboxKit) -> None:
    await kit.switch(**QUICK, twice_share=1)
    await kit.trade()
    got = await kit.merchant.has(3)
    await kit.all_sent()
    assert sorted(Counter(told["id"] for told in got).values()) == [1, 2]
    assert {told["out_no"] for told in got} == {NUMBERS[0]}


async def test_late(kit: SandboxKit) -> None:
    await kit.switch(**QUICK, late_share=1, late_ms=400)
    await kit.trade()
    paid = await kit.state("captured")
    await kit.merchant.has(1)
    assert paid.paid_ms is not None
    assert kit.sandbox.clock.now_ms() >= paid.paid_ms + 400


async def test_never(kit: SandboxKit) -> None:
    await kit.switch(**QUICK, never_share=1)
    await kit.trade(NUMBERS[0])
    await kit.state("captured", NUMBERS[0])
    assert kit.sandbox.bank.open_notices() == 0
    await kit.switch(**QUICK)  # what was never to be sent stays so
    await kit.trade(NUMBERS[1])
    await kit.merchant.has(1)
    await kit.all_sent()
    assert [told["out_no"] for told in kit.merchant.got] == [NUMBERS[1]]


@pytest.mark.parametrize(
    ("share", "wrong"), [("wrong_signature_share", ("bad", 500)), ("wrong_amount_share", ("good", 501))]
)
async def test_wrong(kit: SandboxKit, share: str, wrong: tuple[str, int]) -> None:
    kit.merchant.answers = iter([refuse_webhook])
    await kit.switch(**QUICK, **{share: 1})
    await kit.trade()
    got = await kit.merchant.has(2)
    assert [(told["signature"], told["amount"]) for told in got] == [wrong, wrong]


def test_shuffled(store: PaymentStore) -> None:
    """The refund's callback is due before the payment's, and a payment's comes after it in any case."""
    board, clock = ProviderFaultRegistry(), FakeSandboxClock()
    board.set("fake", ProviderFaults(shuffled_share=1, late_ms=1_000))
    plans = PaymentSimulator(store, clock, board)
    paid = plans.pay("fake", TRADE.out_no)
    for number in ("b", "c"):
        plans.on_refund(paid, store.refund(SimulatedRefund("fake", number, TRADE.out_no, number, 100, "", clock.ms)))
        plans.on_refund(paid, store.refund(SimulatedRefund("fake", number, TRADE.out_no, "x", 100, "", clock.ms)))
        clock.ms += 5_000
    due = store.due(clock.ms, 10)
    assert [notice.out_refund_no for notice in due] == ["b", None, None, "c", None]
    assert len({notice.notice_id for notice in due}) == 5


async def test_down_and_up_again(kit: SandboxKit) -> None:
    await kit.trade(NUMBERS[0])
    await kit.switch(**QUICK, down=True)
    seen = set()
    for _ in range(40):
        try:
            async with kit.client.post("/fake/trades", json={}) as answer:
                seen.add(str(answer.status))
        except aiohttp.ClientError:
            seen.add("closed")
    assert seen == {"503", "closed"}
    async with kit.client.get("/") as answer:
        assert answer.status == 200
    await kit.merchant.has(1)  # payments and callbacks go on
    await kit.switch(down=True, down_until_ms=1)
    await kit.trade(NUMBERS[1])


async def test_slow(kit: SandboxKit) -> None:
    """What was asked is done before the answer comes."""
    await kit.switch(slow_share=1, slow_ms=60_000)
    slow = asyncio.create_task(kit.trade())
    await kit.state("waiting")
    async with kit.client.get("/health") as answer:
        assert await answer.json() == {"status": "ok"}
    assert not slow.done()
    slow.cancel()
    await asyncio.wait([slow])
    await kit.switch(slow_share=1, slow_ms=1)
    await kit.trade()


async def test_a_scenario_is_played(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        '[[step]]\nafter_s = 0.2\nprovider = "fake"\nswitches = {approve = "auto", pay_after_ms = 0, callback_ms = 0}\n'
        '[[step]]\nafter_s = 0\nprovider = "fake"\nswitches = {never_share = 1}\n'
    )
    steps = read_scenario(file, ["fake"])
    assert [step.after_s for step in steps] == [0, 0.2]
    async with FakeMerchant().listening() as merchant, open_sandbox_kit(merchant, scenario=steps) as kit:
        await kit.trade()
        await kit.merchant.has(1)
        assert kit.sandbox.board.of("fake") == msgspec.convert(QUICK, ProviderFaults)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[step]]\nafter_s = -1\nprovider = "fake"\nswitches = {}', "after_s"),
        ('[[step]]\nafter_s = 1\nprovider = "other"\nswitches = {}', "no provider other"),
        ('[[step]]\nafter_s = 1\nprovider = "fake"\nswitches = {latex = 1}', "latex"),
        ('[[steps]]\nafter_s = 1\nprovider = "fake"\nswitches = {}', "steps"),
        ("[[step", "scenario.toml"),
    ],
)
def test_a_wrong_scenario_says_why(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        read_scenario(file, ["fake"])


def test_chance_is_the_same_for_the_same_seed() -> None:
    def struck(seed: int, what: str = "late", share: float = 0.3) -> list[str]:
        return [number for number in NUMBERS if ProviderFaultRegistry(seed).hits(share, what, number)]

    assert struck(1) == struck(1)
    assert 30 < len(struck(1)) < 90
    assert struck(1) != struck(2)
    assert struck(1) != struck(1, "twice")
    assert set(struck(1, share=0.1)) < set(struck(1))
    assert struck(1, share=0) == []
    assert struck(1, share=1) == NUMBERS


def test_switches_that_are_none_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "switches.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"switches\.json"):
        ProviderFaultRegistry(file=file)
