"""`floodgate payment`, `store-credit`, `jobs` and `reconcile` as staff use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from commerce.jobs.model import JobKey
from commerce.kernel.clock import from_ms, to_ms
from commerce.orders.model import OrderStatus
from commerce.payments.captures import record_findings
from commerce.payments.model import PaymentView, TenderInput
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.payments.reconciliation import DAY, day_bounds
from commerce.payments.service import Payments
from commerce.shipping.service import Shipping
from config.payments import PaymentSettings
from config.settings import Settings
from ops.services import CliServices
from tests.commerce.test_reconciliation import SINGLES, ReconciliationKit, open_reconciliation_kit
from tests.support.commands import Command, make_command
from tests.support.due_jobs import put_due
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, reservation, reserve
from tests.support.staff_refunds import refund_as_staff

START, END = day_bounds(SINGLES)


@pytest.fixture
async def kit(tmp_path: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    async with open_reconciliation_kit(tmp_path / "accounts", settings) as reconciliation_kit:
        yield reconciliation_kit


@pytest.fixture
def floodgate(settings: Settings, kit: ReconciliationKit, tmp_path: Path) -> Command:
    """Return a function that runs a command and returns its status and output.

    The shop has accounts at both providers."""
    config = tmp_path / "floodgate.toml"
    config.write_text(kit.toml)
    return make_command(Processes(settings, tmp_path).environment() | {"FLOODGATE_CONFIG": str(config)})


@dataclass
class PaymentActions:
    """Starts and records payments of stored orders, as gateway and worker would."""

    shop: CliServices
    payments: Payments
    order_ids: list[UUID]

    async def start(self, *amounts: tuple[str, int]) -> list[PaymentView]:
        """Start the payments of the next order, whose total is 500."""
        tenders = [TenderInput(method, amount) for method, amount in amounts]  # type: ignore[arg-type]
        return (await self.payments.start(self.order_ids.pop(0), "user", tenders)).payments

    async def capture(self, paid: PaymentView, number: str | None, at: datetime) -> None:
        provider_payment = ProviderPayment(paid.payment_id, "captured", paid.amount, number, at)
        async with self.shop.db.transaction() as connection:
            assert await record_findings(connection, self.shop.ids, [provider_payment], at) == ["captured"]

    async def refund(self, order_id: UUID, key: str, amount: int, at: datetime) -> UUID:
        result = await refund_as_staff(self.shop, order_id, key, amount)
        refund_id = result.payments[0].refunds[0].refund_id
        provider_refund = ProviderRefund(result.payments[0].payment_id, refund_id, "done")
        async with self.shop.db.transaction() as connection:
            assert await record_findings(connection, self.shop.ids, [provider_refund], at) == ["refunded"]
        return refund_id

    async def park(self, payment_id: UUID, reason: str) -> None:
        async with self.shop.db.connection() as connection:
            await put_due(connection, "payments", "payment.query", payment_id)
            await connection.execute("UPDATE jobs SET parked = true, last_error = $1", reason)


@pytest.fixture
async def actions(shop: CliServices, settings: Settings, sale_id: str, kit: ReconciliationKit) -> PaymentActions:
    keys = await make_sale(shop, sale_id, {"a": (100, 100, None)})
    orders = [reservation(shop.ids.new, sale_id, {"a": 5}) for _ in range(4)]
    await reserve(shop.redis, keys, *orders)

    async def stored() -> bool:
        stored_orders = [await shop.orders.get(order.order_id, "user", [sale_id]) for order in orders]
        return all(order.status is OrderStatus.AWAITING_PAYMENT for order in stored_orders)

    async with run_workers(settings, "order_writer"):
        await eventually(stored)
    payments = Payments(shop.db, shop.clock, shop.ids, kit.adapters, PaymentSettings(), Shipping.has_cash_shipments)
    return PaymentActions(shop, payments, [order.order_id for order in orders])


async def test_payment_commands_show_and_refund_payments(
    floodgate: Command, actions: PaymentActions, shop: CliServices
) -> None:
    order_id = actions.order_ids[0]
    assert "no payment was started" in (await floodgate("payment", "show", order_id))[1]
    alipay, cash = await actions.start(("alipay", 300), ("cod", 200))
    await actions.capture(alipay, "T1", from_ms(shop.clock.now_ms()))
    status, output = await floodgate(
        "payment", "refund", order_id, "--key", "k", "--amount", "1.20", "--reason", "a dent"
    )
    assert status == 0, output
    assert "captured and not refunded 3.00 CNY" in output
    assert "a dent" in output
    repeated = await floodgate("payment", "refund", order_id, "--key", "k", "--amount", "1.20", "--reason", "a dent")
    assert repeated == (0, output)
    [refund] = (await shop.payments.get(order_id, None)).payments[0].refunds
    assert (refund.amount, refund.status) == (120, "pending")
    for amount, words in (
        ("2.00", "180 minor units"),
        ("1.234", "more decimals than CNY"),
        ("0", "amount"),
        ("x", "AMOUNT"),
    ):
        status, output = await floodgate(
            "payment", "refund", order_id, "--key", "l", "--amount", amount, "--reason", "r"
        )
        assert (status, words in output) == (1, True), output
    assert (await floodgate("payment", "refund", order_id, "--key", "l", "--reason", "the rest"))[0] == 0
    amounts = [refund.amount for refund in (await shop.payments.get(order_id, None)).payments[0].refunds]
    assert amounts == [120, 180]
    assert (await floodgate("payment", "show", shop.ids.new()))[0] == 1
    status, output = await floodgate("payment", "record-cash", alipay.payment_id)
    assert (status, "a payment by alipay" in output) == (1, True)
    status, output = await floodgate("payment", "record-cash", cash.payment_id)
    assert (status, "that is pending" in output) == (1, True), output


async def test_refund_by_hand_is_listed_and_needs_two_people(
    floodgate: Command, actions: PaymentActions, shop: CliServices
) -> None:
    [alipay] = await actions.start(("alipay", 500))
    await actions.capture(alipay, "T1", from_ms(shop.clock.now_ms()))
    assert "no statement has a refund that was made by hand" in (await floodgate("refunds", "list-by-hand"))[1]
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO refunds_by_hand (refund_id, payment_id, order_id, amount_minor, currency, number, booked_on, "
            "found_at, found_by) SELECT payment_id, payment_id, order_id, 120, currency, 'R-9', now(), now(), "
            "'cli sam' FROM payments"
        )
    refund = alipay.payment_id
    assert (await floodgate("refunds", "confirm-by-hand", refund))[0] == 1
    assert (await floodgate("refunds", "record-by-hand", refund, "--proof", "sue in the console"))[0] == 0
    assert "R-9" in (await floodgate("refunds", "list-by-hand", "--json"))[1]
    status, output = await floodgate("refunds", "confirm-by-hand", refund)
    assert (status, "another person must" in output) == (1, True), output
    status, output = await floodgate("payment", "waive-cash", refund, "--reason", "nobody will pay it")
    assert (status, "none is missing" in output) == (1, True), output


async def test_refund_that_needs_another_way_is_listed_and_ended(
    floodgate: Command, actions: PaymentActions, shop: CliServices
) -> None:
    order_id = actions.order_ids[0]
    [alipay] = await actions.start(("alipay", 500))
    await actions.capture(alipay, "T1", from_ms(shop.clock.now_ms()))
    assert "no refund needs another way" in (await floodgate("refunds", "list"))[1]
    refund = (await refund_as_staff(shop, order_id, amount=120)).payments[0].refunds[0].refund_id
    give_up = ("refunds", "give-up", refund, "--reason", "not in the console")
    assert "refund_not_stuck" in (await floodgate(*give_up))[1] or (await floodgate(*give_up))[0] == 1
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE jobs SET parked = true WHERE queue = 'refunds'")
    assert (await floodgate(*give_up))[0] == 0
    listed = (await floodgate("refunds", "list", "--needs-other-way", "--json"))[1]
    assert msgspec.json.decode(listed)["items"][0]["other_way_reason"] == "by_staff"
    assert (await floodgate("refunds", "transfer", refund, "--reference", "B-1"))[0] == 0
    status, output = await floodgate("refunds", "confirm", refund)
    assert (status, "another person must" in output) == (1, True), output
    assert (await floodgate("refunds", "redirect", refund))[0] == 2
    assert (await floodgate("refunds", "withdraw", refund))[0] == 0
    assert (await floodgate("refunds", "credit", refund, "--proof", "by phone"))[0] == 0
    assert "1.20 CNY" in (await floodgate("store-credit", "show", "user"))[1]


async def test_record_cash_repeated_succeeds(
    floodgate: Command, actions: PaymentActions, shop: CliServices, settings: Settings
) -> None:
    order_id = actions.order_ids[0]
    [cash] = await actions.start(("cod", 500))

    async def confirmed() -> bool:
        return (await shop.payments.get(order_id, None)).payments[0].status == "authorised"

    async with run_workers(settings, "payment_worker"):
        await eventually(confirmed)
    for _ in range(2):
        assert (await floodgate("payment", "record-cash", cash.payment_id))[0] == 0
    status, output = await floodgate("payment", "show", order_id)
    assert (status, "captured and not refunded 5.00 CNY" in output) == (0, True)


async def test_store_credit_is_granted_once_per_key(floodgate: Command, actions: PaymentActions) -> None:
    assert (await floodgate("store-credit", "show", "zoe"))[1] == "zoe: no store credit\n"
    for _ in range(2):
        assert await floodgate("store-credit", "grant", "zoe", "12.50", "CNY", "--key", "g1") == (0, "zoe: 12.50 CNY\n")
    assert (await floodgate("store-credit", "grant", "zoe", "300", "JPY", "--key", "g2"))[
        1
    ] == "zoe: 12.50 CNY, 300 JPY\n"
    status, output = await floodgate("store-credit", "grant", "max", "12.50", "CNY", "--key", "g1")
    assert (status, "another grant" in output) == (1, True)
    for arguments, words in (
        (("zoe", "1.5", "JPY"), "more decimals than JPY"),
        (("zoe", "1.50", "XYZ"), "not an ISO 4217 currency"),
        (("a b", "1.50", "CNY"), "a b"),
        (("zoe", "0", "CNY"), "amount"),
    ):
        status, output = await floodgate("store-credit", "grant", *arguments, "--key", "g3")
        assert status == 1, output
        assert words in output or "error: Expected" in output


async def test_parked_job_is_found_by_its_order_and_retried(
    floodgate: Command, actions: PaymentActions, shop: CliServices
) -> None:
    [paid] = await actions.start(("alipay", 500))
    await actions.park(paid.payment_id, "alipay captured 4.99 CNY, but the payment is 5.00 CNY")
    order_id = (await shop.jobs.get(JobKey("payments", paid.payment_id))).order_id
    assert order_id is not None
    status, output = await floodgate("jobs", "list", "--order", order_id)
    assert (status, str(paid.payment_id) in output, "captured" in output) == (0, True, True)
    status, output = await floodgate("jobs", "show", "payments", paid.payment_id)
    assert (status, str(order_id) in output, "the payment is 5.00 CNY" in output) == (0, True, True)
    assert "total 5.00 CNY" in (await floodgate("payment", "show", order_id))[1]
    output = f"payment.create of {paid.payment_id} is due again\n"
    assert await floodgate("jobs", "retry", "payments", paid.payment_id) == (0, output)
    assert (await shop.jobs.get(JobKey("payments", paid.payment_id))).state == "due"


async def test_reconcile_reports_each_difference(
    floodgate: Command, actions: PaymentActions, kit: ReconciliationKit, tmp_path: Path
) -> None:
    noon = START + DAY / 2
    first = actions.order_ids[0]
    [paid] = await actions.start(("alipay", 500))
    await actions.capture(paid, kit.pay("alipay", paid.payment_id), noon)
    kit.refund("alipay", paid.payment_id, await actions.refund(first, "k", 100, END), 100, to_ms(END) - 1)
    [other] = await actions.start(("wechatpay", 500))
    await actions.capture(other, kit.pay("wechatpay", other.payment_id), noon)
    file, after = tmp_path / "statement.csv", tmp_path / "after.csv"
    reconcile = ("reconcile", file, "--date", str(SINGLES), "--provider")
    file.write_bytes(kit.statement("alipay").encode("gb18030"))
    output = "alipay on 2026-11-11: 2 movements in the statement, 2 agree, 0 differences\n"
    assert await floodgate(*reconcile, "alipay") == (0, output)
    file.write_text(kit.statement("wechatpay"))
    status, output = await floodgate(*reconcile, "wechatpay")
    assert (status, "1 agree, 0 differences" in output) == (0, True), output

    # We recorded it just after the day's first midnight; the provider has it on the day before.
    [early] = await actions.start(("alipay", 500))
    number = kit.pay("alipay", early.payment_id, at_ms=to_ms(START) - 1)
    await actions.capture(early, number, START)
    file.write_text(kit.statement("alipay"))
    status, output = await floodgate(*reconcile, "alipay")
    assert (status, "near midnight" in output, "statement of 2026-11-10" in output) == (1, True, True)
    after.write_text(kit.statement("alipay", SINGLES - DAY))
    status, output = await floodgate(*reconcile, "alipay", "--neighbour", after)
    assert (status, "3 agree, 0 differences" in output) == (0, True), output

    # Captured and not recorded here; a payment that is unknown here; and a line that cannot be read.
    [waiting] = await actions.start(("alipay", 500))
    kit.pay("alipay", waiting.payment_id)
    kit.pay("alipay", unknown_id := UUID(int=7))
    lines = kit.statement("alipay").splitlines()
    file.write_text("\n".join([*lines[:5], "what is this", *lines[5:]]))
    status, output = await floodgate(*reconcile, "alipay", "--neighbour", after)
    assert status == 1
    assert f"missing here: payment {waiting.payment_id} 5.00 CNY was paid, and our payment is pending" in output
    assert f"missing here: payment {unknown_id} we have no such payment" in output
    assert "unreadable: line 6: 1 cells" in output
    assert "4 movements in the statement, 3 agree, 3 differences" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("nonsense\n", "not a statement of alipay"), ("\0", "not UTF-8 or GB18030")],
)
async def test_reconcile_with_bad_file_is_refused(floodgate: Command, tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "statement.csv"
    file.write_text(content)
    status, output = await floodgate("reconcile", file, "--date", str(SINGLES), "--provider", "alipay")
    assert status == 1
    assert output.startswith(f"error: {file}: it ")
    assert words in output


async def test_reconcile_without_account_or_with_bad_argument_fails(floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "statement.csv"
    file.write_text("x")
    arguments = ("reconcile", file, "--date", str(SINGLES), "--provider")
    status, output = await floodgate(*arguments, "wechatpay", FLOODGATE_CONFIG=str(_empty(tmp_path)))
    assert (status, "the settings name no account at wechatpay" in output) == (1, True), output
    assert (await floodgate("reconcile", file, "--date", "11.11.2026", "--provider", "alipay"))[0] == 2
    assert (await floodgate(*arguments, "paypal"))[0] == 2
    assert (await floodgate("reconcile", tmp_path / "none", *arguments[2:], "alipay"))[0] == 2


def _empty(directory: Path) -> Path:
    file = directory / "empty.toml"
    file.write_text("")
    return file
