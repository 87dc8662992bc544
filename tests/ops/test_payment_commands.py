"""`floodgate payment`, `credit`, `parked` and `reconcile` as staff have them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest

from commerce.kernel.clock import from_ms, to_ms
from commerce.orders.model import OrderStatus
from commerce.payments import store
from commerce.payments.model import PaymentView, TenderInput
from commerce.payments.order_status import record_capture_by_id, record_refund_by_id
from commerce.payments.provider_port import ProviderPayment
from commerce.payments.reconciliation import DAY, day_bounds
from commerce.payments.service import Payments
from commerce.shipping.service import Shipping
from config.settings import Settings
from ops.services import CliServices
from tests.commerce.test_reconciliation import SINGLES, ReconciliationKit, open_reconciliation_kit
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, reservation, reserve

FLOODGATE = Path(sys.executable).with_name("floodgate")
Command = Callable[..., Awaitable[tuple[int, str]]]
START, END = day_bounds(SINGLES)


@pytest.fixture
async def kit(tmp_path: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    async with open_reconciliation_kit(tmp_path / "accounts", settings) as found:
        yield found


@pytest.fixture
def floodgate(settings: Settings, kit: ReconciliationKit, tmp_path: Path) -> Command:
    """Runs a command in this test's shop, which has accounts at both providers; gives its status and what it prints."""
    config = tmp_path / "floodgate.toml"
    config.write_text(kit.toml)
    environment = {**os.environ, **Processes(settings, tmp_path).environment(), "FLOODGATE_CONFIG": str(config)}

    async def run(*arguments: str | Path | UUID, **more: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE),
            *map(str, arguments),
            env={**environment, **more},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, said.decode()

    return run


@dataclass
class PaymentActions:
    """Stores orders and has them paid, as gateway and driver would."""

    shop: CliServices
    payments: Payments
    order_ids: list[UUID]

    async def begin(self, *parts: tuple[str, int]) -> list[PaymentView]:
        """The payments of the next order, whose total is 500."""
        wanted = [TenderInput(method, amount) for method, amount in parts]  # type: ignore[arg-type]
        return (await self.payments.start(self.order_ids.pop(0), "user", wanted)).payments

    async def capture(self, paid: PaymentView, number: str | None, at: datetime) -> None:
        seen = ProviderPayment(paid.payment_id, "captured", paid.amount, number, at)
        async with self.shop.db.transaction() as connection:
            assert await record_capture_by_id(connection, self.shop.ids, paid.payment_id, seen, at) == "captured"

    async def give_back(self, order_id: UUID, key: str, amount: int, at: datetime) -> UUID:
        found = await self.payments.refund(order_id, key, amount, "a dent", "test")
        refund_id = found.payments[0].refunds[0].refund_id
        async with self.shop.db.transaction() as connection:
            assert await record_refund_by_id(connection, self.shop.ids, refund_id, at) == "refunded"
        return refund_id

    async def park(self, payment_id: UUID, why: str) -> None:
        async with self.shop.db.connection() as connection:
            job = await store.payment(connection, payment_id)
            assert job is not None
            await store.postpone_payment(connection, job, from_ms(self.shop.clock.now_ms()), why, park=True)


@pytest.fixture
async def actions(shop: CliServices, settings: Settings, sale_id: str, kit: ReconciliationKit) -> PaymentActions:
    keys = await make_sale(shop, sale_id, {"a": (100, 100, None)})
    made = [reservation(shop.ids.new, sale_id, {"a": 5}) for _ in range(4)]
    await reserve(shop.redis, keys, *made)

    async def stored() -> bool:
        found = [await shop.orders.get(one.order_id, "user", [sale_id]) for one in made]
        return all(order.status is OrderStatus.AWAITING_PAYMENT for order in found)

    async with run_workers(settings, "order_writer"):
        await eventually(stored)
    payments = Payments(shop.db, shop.clock, shop.ids, kit.adapters, 60, Shipping.has_cash_shipments)
    return PaymentActions(shop, payments, [one.order_id for one in made])


async def test_payments_are_shown_and_refunded(floodgate: Command, actions: PaymentActions, shop: CliServices) -> None:
    order_id = actions.order_ids[0]
    assert "no payment was started" in (await floodgate("payment", "show", order_id))[1]
    alipay, cash = await actions.begin(("alipay", 300), ("cod", 200))
    await actions.capture(alipay, "T1", from_ms(shop.clock.now_ms()))
    status, said = await floodgate(
        "payment", "refund", order_id, "--key", "k", "--amount", "1.20", "--reason", "a dent"
    )
    assert status == 0, said
    assert "captured and not refunded 3.00 CNY" in said
    assert "a dent" in said
    repeated = await floodgate("payment", "refund", order_id, "--key", "k", "--amount", "1.20", "--reason", "a dent")
    assert repeated == (0, said)
    [refund] = (await shop.payments.get(order_id, None)).payments[0].refunds
    assert (refund.amount, refund.status) == (120, "pending")
    for amount, words in (("2.00", "180 minor units"), ("1.234", "more decimals than CNY"), ("0", "amount"), ("x", "AMOUNT")):
        status, said = await floodgate("payment", "refund", order_id, "--key", "l", "--amount", amount, "--reason", "r")
        assert (status, words in said) == (1, True), said
    assert (await floodgate("payment", "refund", order_id, "--key", "l", "--reason", "the rest"))[0] == 0
    amounts = [one.amount for one in (await shop.payments.get(order_id, None)).payments[0].refunds]
    assert amounts == [120, 180]
    assert (await floodgate("payment", "show", shop.ids.new()))[0] == 1
    status, said = await floodgate("payment", "record-cash", alipay.payment_id)
    assert (status, "a payment by alipay" in said) == (1, True)
    status, said = await floodgate("payment", "record-cash", cash.payment_id)
    assert (status, "that is pending" in said) == (1, True), said


async def test_cash_is_collected(
    floodgate: Command, actions: PaymentActions, shop: CliServices, settings: Settings
) -> None:
    order_id = actions.order_ids[0]
    [cash] = await actions.begin(("cod", 500))

    async def confirmed() -> bool:
        return (await shop.payments.get(order_id, None)).payments[0].status == "authorised"

    async with run_workers(settings, "payment_worker"):
        await eventually(confirmed)
    for _ in range(2):
        assert (await floodgate("payment", "record-cash", cash.payment_id))[0] == 0
    status, said = await floodgate("payment", "show", order_id)
    assert (status, "captured and not refunded 5.00 CNY" in said) == (0, True)


async def test_store_credit(floodgate: Command, actions: PaymentActions) -> None:
    assert (await floodgate("store-credit", "show", "zoe"))[1] == "zoe: no store credit\n"
    for _ in range(2):
        assert await floodgate("store-credit", "grant", "zoe", "12.50", "CNY", "--key", "g1") == (0, "zoe: 12.50 CNY\n")
    assert (await floodgate("store-credit", "grant", "zoe", "300", "JPY", "--key", "g2"))[1] == "zoe: 12.50 CNY, 300 JPY\n"
    status, said = await floodgate("store-credit", "grant", "max", "12.50", "CNY", "--key", "g1")
    assert (status, "another gift" in said) == (1, True)
    for arguments, words in (
        (("zoe", "1.5", "JPY"), "more decimals than JPY"),
        (("zoe", "1.50", "XYZ"), "not an ISO 4217 currency"),
        (("a b", "1.50", "CNY"), "a b"),
        (("zoe", "0", "CNY"), "amount"),
    ):
        status, said = await floodgate("store-credit", "grant", *arguments, "--key", "g3")
        assert status == 1, said
        assert words in said or "error: Expected" in said


async def test_what_is_parked(floodgate: Command, actions: PaymentActions, shop: CliServices) -> None:
    assert await floodgate("parked-jobs", "list") == (0, "nothing is parked\n")
    [paid] = await actions.begin(("alipay", 500))
    await actions.park(paid.payment_id, "alipay says 4.99 CNY was paid, it should be 5.00 CNY")
    status, said = await floodgate("parked-jobs", "list")
    assert (status, str(paid.payment_id) in said, "4.99 CNY was" in said) == (0, True, True)
    status, said = await floodgate("parked-jobs", "show", paid.payment_id)
    assert (status, "should be 5.00 CNY" in said, "total 5.00 CNY" in said) == (0, True, True)
    assert await floodgate("parked-jobs", "retry", paid.payment_id) == (0, f"{paid.payment_id} is due again\n")
    assert await shop.payments.list_parked_jobs() == []
    for command in ("retry", "show"):
        status, said = await floodgate("parked-jobs", command, paid.payment_id)
        assert (status, "nothing with the id" in said) == (1, True)


async def test_a_statement_agrees_until_it_does_not(
    floodgate: Command, actions: PaymentActions, kit: ReconciliationKit, tmp_path: Path
) -> None:
    noon = START + DAY / 2
    first = actions.order_ids[0]
    [paid] = await actions.begin(("alipay", 500))
    await actions.capture(paid, kit.pay("alipay", paid.payment_id), noon)
    kit.give_back("alipay", paid.payment_id, await actions.give_back(first, "k", 100, END), 100, to_ms(END) - 1)
    [other] = await actions.begin(("wechatpay", 500))
    await actions.capture(other, kit.pay("wechatpay", other.payment_id), noon)
    file, after = tmp_path / "statement.csv", tmp_path / "after.csv"
    reconcile = ("reconcile", file, "--date", str(SINGLES), "--provider")
    file.write_bytes(kit.statement("alipay").encode("gb18030"))
    said = "alipay on 2026-11-11: 2 movements in the statement, 2 agree, 0 differences\n"
    assert await floodgate(*reconcile, "alipay") == (0, said)
    file.write_text(kit.statement("wechatpay"))
    status, said = await floodgate(*reconcile, "wechatpay")
    assert (status, "1 agree, 0 differences" in said) == (0, True), said

    # Ours is booked just after the day's first midnight; the provider has it on the day before.
    [early] = await actions.begin(("alipay", 500))
    number = kit.pay("alipay", early.payment_id, at_ms=to_ms(START) - 1)
    await actions.capture(early, number, START)
    file.write_text(kit.statement("alipay"))
    status, said = await floodgate(*reconcile, "alipay")
    assert (status, "near midnight" in said, "statement of 2026-11-10" in said) == (1, True, True)
    after.write_text(kit.statement("alipay", SINGLES - DAY))
    status, said = await floodgate(*reconcile, "alipay", "--neighbour", after)
    assert (status, "3 agree, 0 differences" in said) == (0, True), said

    # Paid, and nobody told us; paid by nobody we know; and a line that cannot be read.
    [waiting] = await actions.begin(("alipay", 500))
    kit.pay("alipay", waiting.payment_id)
    kit.pay("alipay", strange := UUID(int=7))
    lines = kit.statement("alipay").splitlines()
    file.write_text("\n".join([*lines[:5], "what is this", *lines[5:]]))
    status, said = await floodgate(*reconcile, "alipay", "--neighbour", after)
    assert status == 1
    assert f"not with us: payment {waiting.payment_id} 5.00 CNY was paid and with us it is pending" in said
    assert f"not with us: payment {strange} we have no such payment" in said
    assert "unreadable: line 6: 1 cells" in said
    assert "4 movements in the statement, 3 agree, 3 differences" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("nonsense\n", "no statement of alipay"), ("\0", "neither UTF-8 nor")],
)
async def test_a_file_that_is_no_statement(floodgate: Command, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "statement.csv"
    file.write_text(content)
    status, said = await floodgate("reconcile", file, "--date", str(SINGLES), "--provider", "alipay")
    assert status == 1
    assert said.startswith(f"error: {file}: it ")
    assert words in said


async def test_reconciling_what_is_not_agreed(floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "statement.csv"
    file.write_text("x")
    arguments = ("reconcile", file, "--date", str(SINGLES), "--provider")
    status, said = await floodgate(*arguments, "wechatpay", FLOODGATE_CONFIG=str(_empty(tmp_path)))
    assert (status, "the settings name no account at wechatpay" in said) == (1, True), said
    assert (await floodgate("reconcile", file, "--date", "11.11.2026", "--provider", "alipay"))[0] == 2
    assert (await floodgate(*arguments, "paypal"))[0] == 2
    assert (await floodgate("reconcile", tmp_path / "none", *arguments[2:], "alipay"))[0] == 2


def _empty(directory: Path) -> Path:
    made = directory / "empty.toml"
    made.write_text("")
    return made
