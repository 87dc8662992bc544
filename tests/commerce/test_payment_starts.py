"""Payments that many customers start at once: in one transaction, and each as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest

from commerce.kernel.errors import Invalid, ProblemError
from commerce.orders.errors import NoSuchOrder
from commerce.payments import store
from commerce.payments.errors import NotPayable
from commerce.payments.model import OrderPayments, Payment, TenderInput
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop
from tests.support.refusing_rows import refuse_updates

ALIPAY, WECHATPAY = [TenderInput("alipay", 100)], [TenderInput("wechatpay", 100)]


class Start(NamedTuple):
    """A start of an order's payments by a customer."""

    order_id: UUID
    user: str
    tenders: Sequence[TenderInput] = ALIPAY


@pytest.fixture
async def pay(shop: CliServices, sale_id: str) -> AsyncIterator[PaymentShop]:
    """A shop whose payments stay as they were started."""
    async with open_payment_shop(shop, sale_id, "order_writer", items={"a": (500, 100, None)}) as payment_shop:
        yield payment_shop


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[str]:
    """Return a list that grows with each call of a function of `owner`."""
    function, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


async def add_orders(pay: PaymentShop, count: int, user: str = "user") -> list[UUID]:
    return list(await asyncio.gather(*(pay.add_order(user=user) for _ in range(count))))


async def start(pay: PaymentShop, request: Start) -> OrderPayments | ProblemError:
    try:
        return await pay.gateway.services.payments.start(request.order_id, request.user, request.tenders)
    except ProblemError as error:
        return error


async def start_all(pay: PaymentShop, requests: Sequence[Start]) -> list[OrderPayments | ProblemError]:
    return list(await asyncio.gather(*(start(pay, request) for request in requests)))


def describe(result: OrderPayments | ProblemError, request: Start) -> object:
    """Return what a result says of any order."""
    if isinstance(result, OrderPayments):
        return [(payment.method, payment.amount.amount, payment.current) for payment in result.payments]
    return type(result), str(result).replace(str(request.order_id), "ORDER")


async def test_fifty_starts_at_once_share_transactions(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    order_ids = await add_orders(pay, 50)
    transactions = count_calls(monkeypatch, pay.gateway.services.db, "transaction")
    results = await start_all(pay, [Start(order_id, "user") for order_id in order_ids])
    assert len(transactions) <= 2
    for order_id, result in zip(order_ids, results, strict=True):
        assert isinstance(result, OrderPayments)
        [payment] = result.payments
        rows = await pay.fetch_rows(
            "SELECT order_id, kind, system, payments.subject FROM payments JOIN jobs ON jobs.subject = payment_id "
            "WHERE payment_id = $1",
            payment.payment_id,
        )
        assert [tuple(row) for row in rows] == [(order_id, "payment.create", "alipay", "thing a ×1")]


async def _make_requests(pay: PaymentShop) -> list[Start]:
    """Make one request of each kind, in the sequence in which they come."""
    plain, foreign, cancelled, expiring, repeated, changed, begun, unfit, unknown_method = await add_orders(pay, 9)
    await pay.fetch_rows(
        "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() + interval '1 second' "
        "WHERE order_id = $1",
        expiring,
    )
    answer = await pay.gateway.call("POST", f"/v1/orders/{cancelled}/cancel", json={})
    assert answer.status == 200, answer.text
    await start(pay, Start(begun, "user"))
    return [
        Start(foreign, "somebody"),
        Start(repeated, "user"),
        Start(changed, "user"),
        Start(plain, "user"),
        Start(uuid4(), "user"),
        Start(cancelled, "user"),
        Start(expiring, "user"),
        Start(repeated, "user"),
        Start(changed, "user", WECHATPAY),
        Start(begun, "user", WECHATPAY),
        Start(unfit, "user", [TenderInput("alipay", 60), TenderInput("wechatpay", 60)]),
        Start(unknown_method, "user", [TenderInput("alipay", 100, flow="jsapi")]),
    ]


async def test_each_of_mixed_starts_ends_as_it_would_alone(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = await _make_requests(pay), await _make_requests(pay)
    expected = [describe(await start(pay, request), request) for request in alone]
    transactions = count_calls(monkeypatch, pay.gateway.services.db, "transaction")
    results = await start_all(pay, together)
    assert len(transactions) == 4, "all but the repeat and the two replacements share one"
    assert [describe(result, request) for result, request in zip(results, together, strict=True)] == expected
    kinds = [result[0] if isinstance(result, tuple) else list for result in expected]
    assert kinds == [NoSuchOrder, *[list] * 3, NoSuchOrder, NotPayable, NotPayable, *[list] * 3, Invalid, Invalid]
    assert expected[7:10] == [
        [("alipay", 100, True)],
        [("alipay", 100, False), ("wechatpay", 100, True)],
        [("alipay", 100, False), ("wechatpay", 100, True)],
    ]


async def test_failing_insert_fails_its_own_start_only(pay: PaymentShop) -> None:
    good, bad, other = await add_orders(pay, 3)
    async with pay.shop.db.connection() as connection:
        await refuse_updates(connection, "payments", f"NEW.order_id = '{bad}'", event="INSERT")
    starts = [pay.gateway.services.payments.start(order_id, "user", ALIPAY) for order_id in (good, bad, other)]
    first, failed, last = await asyncio.gather(*starts, return_exceptions=True)
    assert isinstance(failed, asyncpg.RaiseError)
    assert isinstance(first, OrderPayments)
    assert isinstance(last, OrderPayments)
    rows = await pay.fetch_rows("SELECT order_id FROM payments")
    assert {row["order_id"] for row in rows} == {good, other}


async def test_deadlock_of_shared_transaction_is_no_outage_to_customers(
    pay: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids, insert, failures = (
        await add_orders(pay, 3),
        store.insert_payments,
        [asyncpg.DeadlockDetectedError("wait")],
    )

    async def fail_once(*values: Any) -> dict[UUID, list[Payment]]:
        if failures:
            raise failures.pop()
        return await insert(*values)

    monkeypatch.setattr(store, "insert_payments", fail_once)
    results = await start_all(pay, [Start(order_id, "user") for order_id in order_ids])
    assert [type(result) for result in results] == [OrderPayments] * 3
    assert await pay.fetch_value("SELECT count(*) FROM payments") == 3


async def test_cash_on_delivery_with_a_fee_must_be_chosen_with_the_order(pay: PaymentShop) -> None:
    """The fee is a part of the order's price, so it cannot be added when a customer begins to pay."""
    order_id, free = await add_orders(pay, 2)
    cash = [TenderInput("cod", 100)]
    assert not isinstance(await start(pay, Start(free, "user", cash)), ProblemError)
    async with pay.shop.db.transaction() as connection:
        await connection.execute(
            "INSERT INTO freight_templates (name, version, currency, charged_by, cod_fee_minor, changed_at, actor) "
            "VALUES ('by-weight', 1, 'CNY', 'weight', 500, now(), 'test')"
        )
        await connection.execute("UPDATE sales SET freight_template = 'by-weight' WHERE sale_id = $1", pay.sale_id)
    refused = await start(pay, Start(order_id, "user", cash))
    assert isinstance(refused, NotPayable)
    assert "place the order with `cod` in its `payments`" in refused.detail
    assert not isinstance(await start(pay, Start(order_id, "user")), ProblemError)


async def test_locked_order_delays_only_its_own_start(pay: PaymentShop) -> None:
    locked, free, later = await add_orders(pay, 3)
    async with pay.shop.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM orders WHERE order_id = $1 FOR UPDATE", locked)
        waiting = asyncio.create_task(start(pay, Start(locked, "user")))
        result = await start(pay, Start(free, "user"))
        assert isinstance(result, OrderPayments)
        assert isinstance(await start(pay, Start(later, "user")), OrderPayments)
        assert not waiting.done()
        await transaction.rollback()
    assert isinstance(await waiting, OrderPayments)


async def test_expired_actions_of_several_orders_are_renewed_at_once(
    pay: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_ids = await add_orders(pay, 3)
    requests = [Start(order_id, "user") for order_id in order_ids]
    await start_all(pay, requests)
    await pay.fetch_rows(
        "WITH requested AS (UPDATE payments SET action = "
        "jsonb_build_object('kind', 'qr', 'code', 'dead', 'expires_at', now() - interval '1 minute')) "
        "UPDATE jobs SET kind = 'payment.query', attempts = 3"
    )
    transactions = count_calls(monkeypatch, pay.gateway.services.db, "transaction")
    reads = count_calls(monkeypatch, store, "list_refunds_of_orders")
    await start_all(pay, requests)
    assert (len(transactions), len(reads)) == (1, 1)
    rows = await pay.fetch_rows("SELECT kind, attempts, action FROM payments JOIN jobs ON jobs.subject = payment_id")
    assert [tuple(row) for row in rows] == [("payment.create", 0, None)] * 3


async def test_concurrent_reads_of_payments_share_statements(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    order_ids = await add_orders(pay, 20)
    started = await start_all(pay, [Start(order_id, "user") for order_id in order_ids])
    get, reads = pay.gateway.services.payments.get, count_calls(monkeypatch, store, "list_payments_of_orders")
    assert list(await asyncio.gather(*(get(order_id, "user") for order_id in order_ids))) == started
    assert len(reads) == 1
    missing = await asyncio.gather(get(order_ids[0], "somebody"), get(uuid4(), "user"), return_exceptions=True)
    assert [type(error) for error in missing] == [NoSuchOrder, NoSuchOrder]
