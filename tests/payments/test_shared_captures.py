"""P6, P8: webhooks and findings of payment jobs share transactions, and one never costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.store import StatusStep
from commerce.payments import store
from commerce.payments.captures import Finding, FindingRecorder, OrderUpdate
from commerce.payments.model import ReceivedWebhook, TenderInput
from commerce.payments.order_status import Ending, ProviderMismatch
from commerce.payments.provider_port import PaymentWebhook, ProviderPayment, ProviderRefund
from ops.services import CliServices
from tests.support.due_jobs import put_due
from tests.support.payment_shop import PaymentShop, open_payment_shop
from tests.support.sales import eventually, reservation, reserve

ALIPAY = TenderInput("alipay", 100)


@pytest.fixture
async def pay(shop: CliServices, sale_id: str) -> AsyncIterator[PaymentShop]:
    """A shop without payment worker. Its providers are never called, and tests invent their webhooks."""
    async with open_payment_shop(shop, sale_id, "order_writer", items={"a": (500, 100, None)}) as payment_shop:
        yield payment_shop
        audit = await payment_shop.shop.audit.audit_sale(sale_id)
        assert audit.clean, audit.findings


@pytest.fixture
def recorder(pay: PaymentShop) -> FindingRecorder:
    services = pay.gateway.services
    return FindingRecorder(services.db, services.clock, pay.shop.ids)


async def add_payments(pay: PaymentShop, count: int, *tenders: TenderInput) -> list[list[UUID]]:
    """Store so many orders of 100 each and start their payments. Returns the payment ids by order."""
    reservations = [
        reservation(pay.shop.ids.new, pay.sale_id, {"a": 1}, user=f"u{uuid4().hex[:8]}") for _ in range(count)
    ]
    await reserve(pay.shop.redis, pay.keys, *reservations)
    ids = [order.order_id for order in reservations]

    async def are_stored() -> bool:
        return bool(await pay.fetch_value("SELECT count(*) FROM orders WHERE order_id = ANY($1)", ids) == count)

    await eventually(are_stored)
    start = pay.gateway.services.payments.start
    views = [await start(order.order_id, order.user_id, tenders or [ALIPAY]) for order in reservations]
    return [[payment.payment_id for payment in view.payments] for view in views]


def captured(payment_id: UUID, amount: int = 100, transaction_id: str | None = None) -> ProviderPayment:
    transaction_id = transaction_id or f"T{payment_id.hex}"
    return ProviderPayment(payment_id, "captured", Money(amount, "CNY"), transaction_id, from_ms(1_700_000_000_000))


async def send(pay: PaymentShop, webhook_id: str, subject: ProviderPayment | ProviderRefund) -> str:
    webhook = PaymentWebhook(webhook_id, subject)
    return await pay.gateway.services.payments.handle_webhook("alipay", webhook, webhook_id.encode())


async def send_captures(pay: PaymentShop, payment_ids: Sequence[UUID]) -> list[Any]:
    sent = (send(pay, f"n-{payment_id}", captured(payment_id)) for payment_id in payment_ids)
    return await asyncio.gather(*sent, return_exceptions=True)


@contextmanager
def watched_commits(pay: PaymentShop) -> Iterator[list[set[str | UUID]]]:
    """Collect the notes of each transaction that wakes anybody."""
    db, commits = pay.gateway.services.db, list[set[str | UUID]]()

    def note(notes: Collection[str | UUID]) -> None:
        commits.append(set(notes))

    before, db.on_commit = db.on_commit, note
    yield commits
    db.on_commit = before


async def order_of(pay: PaymentShop, payment_id: UUID) -> UUID:
    order_id: UUID = await pay.fetch_value("SELECT order_id FROM payments WHERE payment_id = $1", payment_id)
    return order_id


async def state_of(pay: PaymentShop, payment_id: UUID) -> tuple[str, str, int, str | None]:
    """Return the statuses of a payment and its order, how much of it is posted, and the task of its job."""
    query = """SELECT payments.status, orders.status, coalesce((SELECT sum(amount_minor) FROM ledger
        WHERE posting = 'capture ' || payment_id AND account <> 'orders'), 0)::bigint, substr(jobs.kind, 9)
        FROM payments JOIN orders USING (order_id) LEFT JOIN jobs ON jobs.subject = payment_id AND queue = 'payments'
        WHERE payment_id = $1"""
    [row] = await pay.fetch_rows(query, payment_id)
    return tuple(row)


PAID, PENDING = ("captured", "paid", 100, None), ("pending", "awaiting_payment", 0, "create")


async def webhook_results(pay: PaymentShop) -> dict[str, str]:
    rows = await pay.fetch_rows("SELECT webhook_id, result, body FROM payment_webhooks")
    assert all(row["body"] == row["webhook_id"].encode() for row in rows)
    return {row["webhook_id"]: row["result"] for row in rows}


async def test_captures_at_once_share_one_transaction(pay: PaymentShop) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 50)]
    orders_ = {await order_of(pay, payment_id) for payment_id in payments}
    with watched_commits(pay) as commits:
        assert await send_captures(pay, payments) == ["captured"] * 50
    assert commits == [{"fulfilments", *orders_}]
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}
    assert set((await webhook_results(pay)).values()) == {"captured"}
    assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE queue = 'fulfilments'") == 50


async def test_set_of_captures_takes_as_many_statements_as_one(
    pay: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 22)]
    assert await send_captures(pay, payments[:1]) == ["captured"]  # after it the driver knows all types
    counts: list[int] = []

    @asynccontextmanager
    async def transaction(**options: Any) -> AsyncIterator[Connection]:
        async with open_transaction(**options) as connection:
            counts.append(0)
            with connection.query_logger(lambda _: counts.append(counts.pop() + 1)):
                yield connection

    db = pay.gateway.services.db
    open_transaction = db.transaction
    monkeypatch.setattr(db, "transaction", transaction)
    assert await send_captures(pay, payments[1:2]) == ["captured"]
    assert await send_captures(pay, payments[2:]) == ["captured"] * 20
    assert counts == [6, 6], "limit waits, lock, read, store the webhooks, capture, advance"


async def test_mixed_batch_of_webhooks_records_each_as_if_alone(pay: PaymentShop) -> None:
    [[good], [wrong], [expired], [replaced]] = await add_payments(pay, 4)
    [[first, second]] = await add_payments(pay, 1, TenderInput("alipay", 40), TenderInput("alipay", 60))
    expired_order = await order_of(pay, expired)
    async with pay.shop.db.transaction() as connection:
        await store.end_payments(connection, [Ending(expired, "closed", "late")], from_ms(1_700_000_000_000))
        assert await orders.cancel(connection, [expired_order], from_ms(1), "expired", "release_worker", "late")
    start = pay.gateway.services.payments.start
    user = await pay.fetch_value("SELECT user_id FROM payments WHERE payment_id = $1", replaced)
    await start(await order_of(pay, replaced), user, [TenderInput("wechatpay", 100)])
    assert await send(pay, "before", captured(good)) == "captured"
    sent = [
        ("before", captured(good)),
        ("good-2", captured(good)),
        ("good-2", captured(good)),
        ("wrong", captured(wrong, 101)),
        ("wrong", captured(wrong, 101)),
        ("nobody", captured(uuid4())),
        ("expired", captured(expired)),
        ("replaced", captured(replaced)),
        ("first", captured(first, 40)),
        ("second", captured(second, 60)),
        ("second", captured(second, 60)),
        ("waiting", ProviderPayment(wrong, "waiting")),
        ("refund", ProviderRefund(good, uuid4(), "done")),
    ]
    with watched_commits(pay) as commits:
        results = await asyncio.gather(*(send(pay, webhook_id, subject) for webhook_id, subject in sent))
    assert results == [
        *("duplicate", "unchanged", "duplicate", "refused", "refused", "refused"),
        *("captured", "captured", "captured", "captured", "duplicate", "recorded", "refused"),
    ]
    # The money that moves no order is in the story of its order.
    orders_ = [await order_of(pay, payment_id) for payment_id in (first, expired, replaced)]
    assert commits == [{"cancellations", "fulfilments", "payments", "refunds", *orders_}]
    assert await state_of(pay, good) == PAID
    assert await state_of(pay, wrong) == PENDING
    assert await state_of(pay, expired) == ("captured", "cancelled", 100, "recover_order")
    assert await state_of(pay, replaced) == ("captured", "awaiting_payment", 100, None)
    assert await state_of(pay, first) == ("captured", "paid", 40, None)
    assert await state_of(pay, second) == ("captured", "paid", 60, None)
    refunds = await pay.fetch_rows("SELECT payment_id, amount_minor, reason FROM refunds")
    assert [tuple(row) for row in refunds] == [(replaced, 100, "it was replaced by another")]
    stored = await webhook_results(pay)
    assert stored["wrong"].startswith("refused: alipay captured Money(amount=101,")
    assert stored["nobody"].startswith("refused: there is no payment ")
    assert stored["refund"].startswith("refused: there is no refund ")
    del stored["wrong"], stored["refund"], stored["nobody"]
    assert stored == {
        **dict.fromkeys(("before", "expired", "replaced", "first", "second"), "captured"),
        "good-2": "unchanged",
        "waiting": "recorded",
    }


async def test_transaction_of_another_payment_costs_the_others_nothing(pay: PaymentShop) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 5)]
    assert await send(pay, "owner", captured(payments[0], transaction_id="T1")) == "captured"
    twice = send(pay, "twice", captured(payments[1], transaction_id="T1"))
    again = send(pay, "twice", captured(payments[1], transaction_id="T1"))
    results = await asyncio.gather(twice, send_captures(pay, payments[2:]), again)
    assert results == ["refused", ["captured"] * 3, "refused"]
    assert await state_of(pay, payments[1]) == PENDING
    assert {await state_of(pay, payment_id) for payment_id in payments[2:]} == {PAID}
    assert (await webhook_results(pay))["twice"] == "refused: its transaction belongs to another payment"
    assert await send(pay, "twice", captured(payments[1], transaction_id="T1")) == "refused"


async def test_webhook_stored_before_as_refused_stays_refused(pay: PaymentShop) -> None:
    """Alone and in a batch: it does not change what it would change today."""
    payments = [payment_id for [payment_id] in await add_payments(pay, 4)]
    async with pay.shop.db.connection() as connection:
        for payment_id in payments[:2]:
            received = ReceivedWebhook("alipay", PaymentWebhook(f"n-{payment_id}", captured(payment_id)), b"")
            await store.insert_webhooks(connection, [(received, "refused: before")], from_ms(1))
        await connection.execute("UPDATE payment_webhooks SET body = convert_to(webhook_id, 'UTF8')")
    assert await send_captures(pay, payments[:1]) == ["refused"]
    assert await send_captures(pay, payments[1:]) == ["refused", "captured", "captured"]
    assert [await state_of(pay, payment_id) for payment_id in payments] == [PENDING, PENDING, PAID, PAID]


async def test_batch_does_not_wait_for_order_locked_by_another(pay: PaymentShop) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 4)]
    busy = await order_of(pay, payments[0])
    async with pay.shop.db.transaction() as connection:
        assert await orders.lock_order(connection, busy)
        waiting = asyncio.create_task(send(pay, "busy", captured(payments[0])))
        assert await send_captures(pay, payments[1:3]) == ["captured"] * 2
        assert await send_captures(pay, payments[3:]) == ["captured"]
        assert not waiting.done()
    assert await waiting == "captured"
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}


async def test_batch_does_not_wait_long_for_any_row_that_one_needs(pay: PaymentShop) -> None:
    """The order is free and the payment is not, because a worker hangs, or staff are at a shell."""
    payments = [payment_id for [payment_id] in await add_payments(pay, 3)]
    async with pay.shop.db.transaction() as connection:
        await connection.execute("SELECT FROM payments WHERE payment_id = $1 FOR UPDATE", payments[0])
        waiting = asyncio.create_task(send(pay, "busy", captured(payments[0])))
        assert await send_captures(pay, payments[1:]) == ["captured"] * 2
        assert not waiting.done()
    assert await waiting == "captured"
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}


async def test_caller_that_is_gone_costs_nobody_anything(pay: PaymentShop) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 3)]
    callers = [asyncio.create_task(send(pay, f"n-{payment_id}", captured(payment_id))) for payment_id in payments]
    await asyncio.sleep(0)
    callers[1].cancel()
    await asyncio.wait(callers)
    assert callers[1].cancelled()
    assert [callers[0].result(), callers[2].result()] == ["captured", "captured"]
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}
    assert await send_captures(pay, payments[1:2]) == ["duplicate"]


async def test_failure_in_the_middle_leaves_nothing_half_done(
    pay: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last statement fails whenever it is about one of the orders, as a defect would make it."""
    payments = [payment_id for [payment_id] in await add_payments(pay, 6)]
    cursed = await order_of(pay, payments[2])
    advance = orders.advance_statuses

    async def fail(connection: Connection, steps: Sequence[StatusStep], *values: Any) -> set[UUID]:
        moved = await advance(connection, steps, *values)
        if cursed in moved:
            raise ZeroDivisionError
        return moved

    monkeypatch.setattr(orders, "advance_statuses", fail)
    with watched_commits(pay) as commits:
        results = await send_captures(pay, payments)
    assert [isinstance(result, ZeroDivisionError) for result in results] == [n == 2 for n in range(6)]
    assert len(commits) == 5
    assert await state_of(pay, payments[2]) == PENDING
    assert f"n-{payments[2]}" not in await webhook_results(pay)
    monkeypatch.setattr(orders, "advance_statuses", advance)
    repeated = await send_captures(pay, payments)
    assert repeated == ["captured" if n == 2 else "duplicate" for n in range(6)]
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}


async def test_outage_fails_all_webhooks_of_batch_at_once(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 5)]
    attempts: list[int] = []

    @asynccontextmanager
    async def refuse(db: Database, **options: Any) -> AsyncIterator[Connection]:
        attempts.append(1)
        raise NotReady("cannot reach the database")
        yield

    with monkeypatch.context() as outage:
        outage.setattr(Database, "transaction", refuse)
        results = await send_captures(pay, payments)
    assert [type(result) for result in results] == [NotReady] * 5
    assert attempts == [1]
    assert await send_captures(pay, payments) == ["captured"] * 5


async def test_findings_of_concurrent_jobs_share_one_transaction(pay: PaymentShop, recorder: FindingRecorder) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 25)]
    [[kept, failed]] = await add_payments(pay, 1, TenderInput("alipay", 40), TenderInput("alipay", 60))
    assert await recorder.record(captured(payments[24])) == "captured"
    async with pay.shop.db.connection() as connection:
        await put_due(connection, "payments", "payment.update_order", payments[24])
    findings: list[Finding] = [
        *(captured(payment_id) for payment_id in payments[:20]),
        *(captured(payment_id, 99) for payment_id in payments[20:22]),
        *(Ending(payment_id, "closed", "it was not paid in time") for payment_id in payments[22:24]),
        OrderUpdate(payments[24]),
        captured(kept, 40),
        Ending(failed, "failed", "choose another", "NOT_ENOUGH"),
    ]
    with watched_commits(pay) as commits:
        results = await asyncio.gather(*map(recorder.record, findings), return_exceptions=True)
    mismatches = [result for result in results if isinstance(result, ProviderMismatch)]
    assert len(mismatches) == 2
    words = [result for result in results if result not in mismatches]
    assert words == [*["captured"] * 20, "closed", "closed", "done", "captured", "failed"]
    moved = [*payments[:20], *payments[22:24], failed]
    assert commits == [
        {"cancellations", "fulfilments", "refunds", *[await order_of(pay, payment_id) for payment_id in moved]}
    ]
    assert {await state_of(pay, payment_id) for payment_id in payments[:20]} == {PAID}
    assert {await state_of(pay, payment_id) for payment_id in payments[20:22]} == {PENDING}
    assert {await state_of(pay, payment_id) for payment_id in payments[22:24]} == {
        ("closed", "awaiting_payment", 0, None)
    }
    assert await state_of(pay, payments[24]) == PAID
    assert await state_of(pay, kept) == ("captured", "awaiting_payment", 40, None)
    texts = await pay.fetch_rows("SELECT reason, provider_error FROM payments WHERE payment_id = $1", failed)
    assert [tuple(row) for row in texts] == [("choose another", "NOT_ENOUGH")]
    refunds = await pay.fetch_rows("SELECT payment_id, amount_minor, reason FROM refunds")
    assert [tuple(row) for row in refunds] == [(kept, 40, "another part of the order was not paid")]


async def test_webhooks_and_findings_of_same_captures_capture_once(pay: PaymentShop, recorder: FindingRecorder) -> None:
    payments = [payment_id for [payment_id] in await add_payments(pay, 30)]
    findings = asyncio.gather(*(recorder.record(captured(payment_id)) for payment_id in reversed(payments)))
    results = zip(await send_captures(pay, payments), reversed(await findings), strict=True)
    assert {tuple(sorted(pair)) for pair in results} == {("captured", "unchanged")}
    assert {await state_of(pay, payment_id) for payment_id in payments} == {PAID}
