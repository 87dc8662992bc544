"""P6: refunds, store credit and cash, their ledger, and the findings of the audit."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from commerce.jobs.model import JobDetails, JobFilter
from commerce.kernel.errors import KeyReused
from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.kernel.money import Money
from commerce.payments.errors import NotCollectable, RefundExceedsCaptured
from commerce.payments.model import OrderPayments, TenderInput
from commerce.payments.provider_port import ProviderRefund, RefundRequest
from commerce.payments.providers.wechatpay.adapter import WeChatPay
from commerce.payments.service import Payments
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually
from tests.support.staff_refunds import refund_as_staff

pytestmark = pytest.mark.usefixtures("short_polls")


def service(pay: PaymentShop) -> Payments:
    return pay.gateway.services.payments


async def refund(pay: PaymentShop, order_id: UUID, key: str, amount: int | None = None, **terms: Any) -> OrderPayments:
    return await refund_as_staff(pay.shop, order_id, key, amount, strategy="last", **terms)


async def refunded(pay: PaymentShop, order_id: UUID) -> list[int]:
    """Return the refunded amount of each payment, once all jobs are done."""
    await pay.wait_until_idle()
    return [payment["refunded"] for payment in await pay.list_payments(order_id)]


async def test_refund_in_parts_never_exceeds_captured(pay: PaymentShop) -> None:
    order_id, _ = await pay.add_paid_order(("alipay", 100))
    await refund(pay, order_id, "first", 30)
    assert await refunded(pay, order_id) == [30]
    with pytest.raises(RefundExceedsCaptured):
        await refund(pay, order_id, "too much", 71)
    await refund(pay, order_id, "rest")
    assert await refunded(pay, order_id) == [100]
    for amount in (1, None):
        with pytest.raises(RefundExceedsCaptured):
            await refund(pay, order_id, "more", amount)
    assert await pay.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'provider:alipay'") == 0
    await pay.wait_for_order(order_id, "paid")


async def test_refund_over_several_payments_starts_with_last_tender(pay: PaymentShop) -> None:
    """Each amount is refunded by its own method, cash as store credit."""
    await pay.grant_credit(30)
    order_id, [_, alipay, cash] = await pay.add_order_with_payments(("balance", 30), ("alipay", 50), ("cod", 20))
    pay.pay_at_provider("alipay", alipay["payment_id"])
    await pay.wait_for_order(order_id, "confirmed")
    with pytest.raises(RefundExceedsCaptured):
        await refund(pay, order_id, "cash is not there yet", 81)
    await service(pay).record_cash_collected(UUID(cash["payment_id"]))
    shown = await refund(pay, order_id, "broken", 45)
    assert await refunded(pay, order_id) == [0, 25, 20]
    assert (shown.net_captured, await pay.get_credit()) == (80, 20), "refunds of internal methods are done at once"
    await refund(pay, order_id, "all of it")
    assert await refunded(pay, order_id) == [30, 50, 20]
    assert await pay.get_credit() == 50


async def test_refund_with_repeated_key_changes_nothing(pay: PaymentShop) -> None:
    order_id, _ = await pay.add_paid_order(("alipay", 60), ("wechatpay", 40))
    for amount in (70, 70):
        await refund(pay, order_id, "k", amount)
    for other in (10, None, 30, 40):  # the parts that it had at each payment are other amounts too
        with pytest.raises(KeyReused, match="refund of 70"):
            await refund(pay, order_id, "k", other)
    assert await refunded(pay, order_id) == [30, 40]
    for _ in range(2):
        await refund(pay, order_id, "rest")
    with pytest.raises(KeyReused, match="another refund of 30 minor units"):
        await refund(pay, order_id, "rest", 30)
    with pytest.raises(KeyReused):
        await refund(pay, order_id, "rest", reason="another reason")
    await refund(pay, order_id, "k", 70)
    assert await refunded(pay, order_id) == [60, 40]


@pytest.mark.parametrize("same_key", [True, False])
async def test_concurrent_refunds_never_exceed_captured(pay: PaymentShop, same_key: bool) -> None:
    """Of ten refunds of 30 from 100, one succeeds with one key and three with ten keys."""
    order_id, _ = await pay.add_paid_order(("wechatpay", 100))
    keys = ["k" if same_key else f"k{n}" for n in range(10)]
    answers = await asyncio.gather(*(refund(pay, order_id, key, 30) for key in keys), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, RefundExceedsCaptured) for answer in refused), refused
    assert len(refused) == (0 if same_key else 7)
    assert await refunded(pay, order_id) == [30 if same_key else 90]


async def test_refund_unknown_to_provider_is_parked_and_retried(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Being parked shows it to staff; after a retry it is done."""

    async def unknown(self: WeChatPay, request: RefundRequest) -> ProviderRefund:
        return ProviderRefund(request.payment_id, request.refund_id, "absent")

    async with open_payment_shop(shop, sale_id, change=with_job_settings(max_attempts=3, backoff_max_s=0.05)) as pay:
        order_id, _ = await pay.add_paid_order(("wechatpay", 100))
        pay.set_faults(dropped_share=1)
        with monkeypatch.context() as patched:
            patched.setattr(WeChatPay, "refund", unknown)
            patched.setattr(WeChatPay, "query_refund", unknown)
            await refund(pay, order_id, "k")

            async def is_parked() -> bool:
                return bool(await pay.fetch_value("SELECT parked FROM jobs WHERE queue = 'refunds'"))

            await eventually(is_parked)
        [parked] = (await pay.call_as_staff("GET", "/jobs?state=parked"))["items"]
        assert (parked["kind"], parked["attempts"]) == ("refund.request", 3)
        assert "does not know the refund" in parked["last_error"]
        await pay.call_as_staff("POST", f"/jobs/refunds/{parked['subject']}/retry")
        await pay.wait_until_idle()
        assert await refunded(pay, order_id) == [100]
        await pay.check_records()


async def test_refund_that_takes_long_is_not_parked(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank is slow and is polled often; a single lost response is no failure in a row."""
    polls = 0

    async def query(self: WeChatPay, request: RefundRequest) -> ProviderRefund:
        nonlocal polls
        polls += 1
        if polls == 8:
            raise ExternalOutcomeUnknown("the response was lost")
        return ProviderRefund(
            request.payment_id, request.refund_id, "waiting" if polls < 10 else "done", request.amount
        )

    monkeypatch.setattr(WeChatPay, "query_refund", query)
    async with open_payment_shop(shop, sale_id, change=with_job_settings(max_attempts=3, backoff_max_s=0.05)) as pay:
        order_id, _ = await pay.add_paid_order(("wechatpay", 100))
        pay.set_faults(dropped_share=1)
        await refund(pay, order_id, "k")

        async def done() -> bool:
            assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE parked") == 0
            return polls >= 10

        await eventually(done)
        assert await refunded(pay, order_id) == [100]
        await pay.check_records()


async def test_jobs_of_removed_provider_are_parked(shop: CliServices, sale_id: str) -> None:
    """Payments and refunds of the provider wait for staff: they use no store credit and are not done."""
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker") as pay:
        order_id, _ = await pay.add_paid_order(("alipay", 100))
    without = pay.settings.model_copy(update={"payments": pay.settings.payments.model_copy(update={"alipay": None})})
    async with open_payment_shop(
        shop, f"{sale_id}-2", change=lambda settings: settings.model_copy(update={"payments": without.payments})
    ) as later:
        await later.grant_credit(1_000)
        await refund(later, order_id, "k")
        other = await later.add_order()
        await service(later).start(other, "user", [TenderInput("alipay", 100)])

        async def list_parked() -> list[JobDetails]:
            return (await shop.jobs.list_jobs(JobFilter(state="parked"), None, 10)).items

        async def parked() -> bool:
            return len(await list_parked()) == 2

        await eventually(parked)
        reasons = {job.last_error for job in await list_parked()}
        assert reasons == {"alipay refuses: not_offered: the settings do not name it"}
        assert await later.get_credit() == 1_000
        assert await later.fetch_value("SELECT refunded_minor FROM payments WHERE order_id = $1", order_id) == 0


# Store credit and cash.


async def test_store_credit_is_granted_once_per_key(pay: PaymentShop) -> None:
    grants = [service(pay).grant_store_credit("user", Money(50, "CNY"), "sorry") for _ in range(10)]
    answers = await asyncio.gather(*grants)
    assert {tuple(credit.balances) for credit in answers} == {(Money(50, "CNY"),)}
    assert await pay.get_credit() == 50
    for user, amount in (("other", 50), ("user", 60)):
        with pytest.raises(KeyReused, match="another grant"):
            await service(pay).grant_store_credit(user, Money(amount, "CNY"), "sorry")
    await service(pay).grant_store_credit("user", Money(7, "GBP"), "sorry too")
    assert (await service(pay).get_store_credit("user")).balances == [Money(50, "CNY"), Money(7, "GBP")]
    assert await pay.get_credit("other") == 0


async def test_store_credit_in_race_is_never_negative(shop: CliServices, sale_id: str) -> None:
    """Fifty orders of one user race for the credit of twelve."""
    async with open_payment_shop(shop, sale_id, items={"a": (100, 100, None)}) as pay:
        await pay.grant_credit(1_250)
        orders = await asyncio.gather(*(pay.add_order() for _ in range(50)))
        parts = [TenderInput("balance", 100)]
        await asyncio.gather(*(service(pay).start(id_, "user", parts) for id_ in orders))
        await pay.wait_until_idle()
        assert await pay.get_credit() == 50
        counts = await pay.fetch_rows("SELECT status, count(*) FROM payments GROUP BY status ORDER BY status")
        assert [tuple(row) for row in counts] == [("captured", 12), ("failed", 38)]
        assert await pay.fetch_value("SELECT count(*) FROM orders WHERE status = 'paid'") == 12
        await pay.check_records()


async def test_cash_collected_repeatedly_is_recorded_once(pay: PaymentShop) -> None:
    _, [payment] = await pay.add_order_with_payments(("cod", 100))
    id_ = UUID(payment["payment_id"])
    await asyncio.gather(*(service(pay).record_cash_collected(id_) for _ in range(10)))
    entries = await pay.fetch_rows("SELECT account, amount_minor FROM ledger ORDER BY account, amount_minor")
    assert [tuple(entry) for entry in entries] == [
        ("cash:shop", 100),
        ("collected", -100),
        ("collected", 100),
        ("orders", -100),
    ]
    order_id, payments = await pay.add_order_with_payments(("cod", 40), ("alipay", 60))
    await pay.gateway.call("POST", f"/v1/orders/{order_id}/cancel")
    for payment in payments:
        await pay.wait_for_payment(payment["payment_id"], "closed")
        with pytest.raises(NotCollectable):
            await service(pay).record_cash_collected(UUID(payment["payment_id"]))


# The ledger.

Entry = tuple[str, UUID | None, int, str]
POST = "INSERT INTO ledger (posting, account, order_id, amount_minor, currency, at) VALUES ($1, $2, $3, $4, $5, now())"


async def post(connection: Any, posting: str, entries: list[Entry]) -> None:
    async with connection.transaction():
        for entry in entries:
            await connection.execute(POST, posting, *entry)


async def test_posting_is_balanced_and_immutable(shop: CliServices) -> None:
    """The balance is per order and currency; a stored posting cannot be changed."""
    unbalanced: list[list[Entry]] = [
        [("cash", None, 5, "CNY")],
        [("cash", None, 5, "CNY"), ("orders", None, -4, "CNY")],
        [("cash", None, 5, "CNY"), ("orders", None, -5, "GBP")],
        [("cash", UUID(int=1), 5, "CNY"), ("orders", UUID(int=2), -5, "CNY")],
    ]
    async with shop.db.connection() as connection:
        for entries in unbalanced:
            with pytest.raises(asyncpg.CheckViolationError, match="does not balance"):
                await post(connection, "by hand", entries)
        assert await connection.fetchval("SELECT count(*) FROM ledger") == 0
        posting = f"capture {uuid4()}"
        for again in (False, True):
            with pytest.raises(asyncpg.UniqueViolationError) if again else nullcontext():
                await post(connection, posting, [("cash", None, 5, "CNY"), ("orders", None, -5, "CNY")])
        for statement in ("UPDATE ledger SET amount_minor = 1", "DELETE FROM ledger", "TRUNCATE ledger"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only ever added to"):
                await connection.execute(statement)
        assert await connection.fetchval("SELECT sum(abs(amount_minor)) FROM ledger") == 10


UNLOCK = "ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only"
# Records broken by hand, with the finding of the audit: (statement, detail).
BROKEN: list[tuple[str, str]] = [
    ("UPDATE payments SET status = 'captured', captured_at = now() WHERE method = 'wechatpay'",
     "payments or refunds differ from their ledger entries"),
    ("UPDATE payments SET refunded_minor = 1 WHERE method = 'alipay'",
     "payments or refunds differ from their ledger entries"),
    ("UPDATE payments SET amount_minor = amount_minor + 1 WHERE method = 'alipay'",
     "payments of orders do not add up to their totals"),
    ("INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, amount_minor, currency, reason, actor, "
     "created_at) SELECT gen_random_uuid(), payment_id, order_id, 'x', 101, 'CNY', 'x', 'x', now() FROM payments "
     "WHERE method = 'alipay'", "refunds exceed the captured amount"),
    ("UPDATE credit_accounts SET balance_minor = balance_minor + 1", "the ledger does not add up"),
    (f"{UNLOCK}; UPDATE ledger SET amount_minor = 101 WHERE account = 'provider:alipay'",
     "postings in the ledger do not balance"),
    (f"{UNLOCK}; DELETE FROM ledger WHERE posting LIKE 'capture%'",
     "payments or refunds differ from their ledger entries"),
    ("INSERT INTO payments SELECT gen_random_uuid(), order_id, user_id, 2, tender_no, method, flow, payer, "
     "amount_minor, currency, 'closed', 'x', NULL, NULL, created_at, expires_at, NULL, now(), 0 "
     "FROM payments WHERE method = 'alipay'", "captured money belongs to no paid order and is not refunded"),
]  # fmt: skip


async def test_audit_finds_broken_payment_records(shop: CliServices, sale_id: str) -> None:
    """After each case the records are restored from a copy.

    The audit of what has changed since a seal finds all but store credit that was changed by hand.
    """
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker") as pay:
        await pay.grant_credit(10)
        await pay.add_paid_order(("alipay", 100))
        await pay.add_order_with_payments(("wechatpay", 100), user="other")
        await pay.check_records()
    tables = ("payments", "refunds", "ledger", "credit_accounts")
    async with shop.db.connection() as connection:
        for table in tables:
            await connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
        for statement, detail in BROKEN:
            assert (await shop.audit.audit_changes(sale_id)).clean
            await connection.execute(statement)
            for audit in (await shop.audit.audit_sale(sale_id), await shop.audit.audit_changes(sale_id)):
                findings = [(finding.promise, finding.detail) for finding in audit.findings]
                assert ("P6", detail) in findings or (audit.clean and "credit_accounts" in statement), (
                    statement,
                    findings,
                )
            await _restore(connection, tables)
        audit = await shop.audit.audit_sale(sale_id)
        assert audit.clean, audit.findings


async def _restore(connection: Any, tables: tuple[str, ...]) -> None:
    async with connection.transaction():
        await connection.execute("ALTER TABLE ledger DISABLE TRIGGER USER")
        for table in reversed(tables):
            await connection.execute(f"DELETE FROM {table} WHERE true")
        for table in tables:
            columns = await connection.fetchval(
                "SELECT string_agg(column_name, ', ') FROM information_schema.columns "
                "WHERE table_name = $1 AND is_identity = 'NO'",
                table,
            )
            await connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM kept_{table}")
        await connection.execute("ALTER TABLE ledger ENABLE TRIGGER USER")
