"""P5, P6: payment workers and gateways are killed at failpoints.

The next process finds out what was done, so that money and stock move once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

import lua
from commerce.payments.model import TenderInput
from ops.sandbox.server import PROVIDERS
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.payment_shop import (
    PaymentProcesses,
    PaymentShop,
    open_payment_shop,
    run_payment_processes,
    with_job_settings,
)
from tests.support.processes import wait_for_exit
from tests.support.sales import eventually


@pytest.fixture
async def pay(shop: CliServices, sale_id: str) -> AsyncIterator[PaymentShop]:
    """A shop without payment worker, which tests run as a process, and with leases of one second."""
    async with open_payment_shop(
        shop, sale_id, "order_writer", "release_worker", change=with_job_settings(lease_s=1)
    ) as payment_shop:
        yield payment_shop


@pytest.fixture
async def processes(pay: PaymentShop, tmp_path: Path) -> AsyncIterator[PaymentProcesses]:
    async with run_payment_processes(pay.settings, tmp_path) as processes:
        yield processes


async def run_until_killed(processes: PaymentProcesses, failpoint: str) -> None:
    running = await processes.worker("payment_worker", crash_at=failpoint)
    assert await wait_for_exit(running) == -9, f"the worker did not reach {failpoint}"


async def has_payment_actions(pay: PaymentShop) -> bool:
    return bool(await pay.fetch_value("SELECT bool_and(action IS NOT NULL) FROM payments"))


async def add_order_with_payments(pay: PaymentShop, *parts: tuple[str, int]) -> tuple[UUID, list[str]]:
    """Place an order and start payments that no worker has created at their providers yet."""
    order_id = await pay.add_order()
    tenders = [TenderInput(method, amount) for method, amount in parts]  # type: ignore[arg-type]
    view = await pay.gateway.services.payments.start(order_id, "user", tenders)
    return order_id, [str(payment.payment_id) for payment in view.payments]


async def check_amounts(pay: PaymentShop, captured: int, refunded: int) -> None:
    """Wait until no job is left, and check the captured and refunded amounts at the providers and here."""
    await pay.wait_until_idle()
    await pay.check_records()
    totals = [pay.payment_store.totals(name) for name in PROVIDERS]
    assert sum(provider["captured_amount"] for provider in totals) == captured
    assert sum(provider["refunds_amount"] for provider in totals) == refunded
    query = "SELECT coalesce(-sum(amount_minor), 0) FROM ledger WHERE account = 'orders'"
    assert await pay.fetch_value(query) == captured - refunded


async def test_worker_killed_at_each_step_of_payment_charges_once(
    pay: PaymentShop, processes: PaymentProcesses
) -> None:
    """Kill workers after the provider's reply, after a poll and after the capture, without webhooks."""
    pay.set_faults(dropped_share=1)
    order_id, payments = await add_order_with_payments(pay, ("alipay", 40), ("wechatpay", 60))
    await run_until_killed(processes, "payment.after_create")
    assert sum(pay.find_trade_state(name, id_) == "waiting" for name, id_ in zip(PROVIDERS, payments, strict=True)) >= 1
    assert not await has_payment_actions(pay)
    running = await processes.worker("payment_worker", crash_at="payment.after_poll")
    await eventually(lambda: has_payment_actions(pay))
    for name, id_ in zip(PROVIDERS, payments, strict=True):
        pay.pay_at_provider(name, id_)
    assert await wait_for_exit(running) == -9
    assert await pay.fetch_value("SELECT count(*) FROM ledger") == 0
    await run_until_killed(processes, "payment.after_capture")
    assert await pay.fetch_value("SELECT count(*) FROM payments WHERE status = 'captured'") >= 1
    await processes.worker("payment_worker")
    await pay.wait_for_order(order_id, "paid")
    await check_amounts(pay, captured=100, refunded=0)


async def test_order_paid_while_worker_is_dead_becomes_paid(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """The customer pays a trade that we do not know to exist: creating it again is refused as paid."""
    pay.set_faults(dropped_share=1)
    order_id, [payment] = await add_order_with_payments(pay, ("alipay", 100))
    await run_until_killed(processes, "payment.after_create")
    pay.pay_at_provider("alipay", payment)
    await processes.worker("payment_worker")
    await pay.wait_for_order(order_id, "paid")
    await check_amounts(pay, captured=100, refunded=0)


async def test_worker_killed_after_refund_refunds_once(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """The refund is requested and not recorded. It is made once, at each provider."""
    async with run_workers(pay.settings, "payment_worker"):
        order_id, _ = await pay.add_paid_order(("alipay", 40), ("wechatpay", 60))
    pay.set_faults(dropped_share=1)
    await pay.call_as_staff(
        "POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "amount": 90, "reason": "broken"}
    )
    await run_until_killed(processes, "refund.after_call")
    requested = sum(pay.payment_store.totals(name)["refunds"] for name in PROVIDERS)
    assert requested >= 1
    assert await pay.fetch_value("SELECT count(*) FROM refunds WHERE status = 'done'") < requested
    # The other provider may get its request at the moment of the kill: then no call is left to be killed at.
    second = await processes.worker("payment_worker", crash_at="refund.after_call")

    async def is_over() -> bool:
        done = await pay.fetch_value("SELECT count(*) FROM refunds WHERE status = 'done'")
        return not second.is_alive or done == len(PROVIDERS)

    await eventually(is_over)
    await processes.worker("payment_worker")
    await check_amounts(pay, captured=100, refunded=90)


async def test_worker_killed_after_refund_was_closed_makes_one_other(
    pay: PaymentShop, processes: PaymentProcesses
) -> None:
    """The closed attempt is recorded with the next one, which is made once."""
    async with run_workers(pay.settings, "payment_worker"):
        order_id, _ = await pay.add_paid_order(("wechatpay", 100))
    pay.set_faults(dropped_share=1, refund_closed_share=1)
    await pay.call_as_staff("POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "reason": "broken"})
    await run_until_killed(processes, "refund.after_failure")
    attempts = await pay.fetch_rows("SELECT status FROM refunds ORDER BY attempt_no")
    assert [row["status"] for row in attempts] == ["failed", "pending"]
    pay.set_faults(dropped_share=1)
    await processes.worker("payment_worker")
    await check_amounts(pay, captured=100, refunded=100)
    assert await pay.fetch_value("SELECT count(*) FROM refunds") == 2


async def test_worker_killed_after_reacquiring_stock_reacquires_it_once(
    pay: PaymentShop, processes: PaymentProcesses
) -> None:
    async with run_workers(pay.settings, "payment_worker"):
        order_id, [payment] = await pay.add_order_with_payments(("alipay", 100))
        await pay.expire_orders(order_id)
        await pay.wait_for_order(order_id, "cancelled", "expired")
        await pay.wait_until_idle()
    pay.pay_at_provider("alipay", payment["payment_id"], too_late=True)
    await pay.wait_for_payment(payment["payment_id"], "captured")
    await run_until_killed(processes, "reacquire.after_redis")
    assert (await lua.cut(pay.shop.redis, pay.keys)).stock == {"a": 49, "b": 20}
    audit = await pay.shop.audit.audit_sale(pay.sale_id)
    assert audit.clean, audit.findings
    await processes.worker("payment_worker")
    await pay.wait_for_order(order_id, "paid")
    await check_amounts(pay, captured=100, refunded=0)
    assert (await lua.cut(pay.shop.redis, pay.keys)).stock == {"a": 49, "b": 20}
    assert await lua.read_units_taken(pay.shop.redis, pay.keys) == {b"user\0a": 1}


async def test_gateway_killed_before_webhook_reply_captures_once(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """The webhook is stored. The provider repeats it and gets the reply that ends its attempts."""
    pay.set_faults(dropped_share=1)
    async with run_workers(pay.settings, "payment_worker"):
        order_id, payments = await add_order_with_payments(pay, ("alipay", 40), ("wechatpay", 60))
        await eventually(lambda: has_payment_actions(pay))
    killed = await processes.gateway(crash_at="payment.after_webhook:2")
    async with aiohttp.ClientSession() as client:

        async def send(number: int) -> int:
            name, id_ = PROVIDERS[number], payments[number]
            webhook = pay.build_webhook(name, id_, webhook_id=f"n-{number}")
            url = f"{processes.base}/v1/webhooks/payments/{name}"
            async with client.post(url, data=webhook.body, headers=webhook.headers) as answer:
                return answer.status

        for name, id_ in zip(PROVIDERS, payments, strict=True):
            pay.pay_at_provider(name, id_)
        assert await send(0) == 200
        with pytest.raises(aiohttp.ClientError):
            await send(1)
        assert await wait_for_exit(killed) == -9
        await pay.wait_for_order(order_id, "paid")
        await processes.gateway()
        assert [await send(number) for number in (1, 0, 1)] == [204, 200, 204]
    await check_amounts(pay, captured=100, refunded=0)
    results = await pay.fetch_rows("SELECT result FROM payment_webhooks")
    assert [row["result"] for row in results] == ["captured", "captured"]
