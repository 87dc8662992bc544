"""P5, P6: whoever carries a payment on is killed at the worst moments; the next one finds out what was done, and money
and goods move once."""

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
    """Who carries payments on is a process of its own; all else is here. A dead one's jobs are free after a second."""
    async with open_payment_shop(
        shop, sale_id, "order_writer", "release_worker", change=with_job_settings(lease_s=1)
    ) as found:
        yield found


@pytest.fixture
async def processes(pay: PaymentShop, tmp_path: Path) -> AsyncIterator[PaymentProcesses]:
    async with run_payment_processes(pay.settings, tmp_path) as found:
        yield found


async def run_until_killed(processes: PaymentProcesses, place: str) -> None:
    running = await processes.worker("payment_worker", crash_at=place)
    assert await wait_for_exit(running) == -9, f"it did not come to {place}"


async def has_payment_actions(pay: PaymentShop) -> bool:
    return bool(await pay.fetch_value("SELECT bool_and(action IS NOT NULL) FROM payments"))


async def ordered(pay: PaymentShop, *parts: tuple[str, int]) -> tuple[UUID, list[str]]:
    """An order with payments that nobody has brought to their providers yet."""
    order_id = await pay.add_order()
    wanted = [TenderInput(method, amount) for method, amount in parts]  # type: ignore[arg-type]
    begun = await pay.gateway.services.payments.start(order_id, "user", wanted)
    return order_id, [str(one.payment_id) for one in begun.payments]


async def over(pay: PaymentShop, captured: int, refunded: int) -> None:
    """Nothing is left to do, and so much was taken and given back, at the providers and here."""
    await pay.wait_until_idle()
    await pay.check_records()
    books = [pay.payment_store.totals(name) for name in PROVIDERS]
    assert sum(one["captured_amount"] for one in books) == captured
    assert sum(one["refunds_amount"] for one in books) == refunded
    taken = "SELECT coalesce(-sum(amount_minor), 0) FROM ledger WHERE account = 'orders'"
    assert await pay.fetch_value(taken) == captured - refunded


async def test_dies_at_each_step_of_a_payment(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """Asked and not noted, seen and not written, written and not gone on: charged once. Nobody calls back."""
    pay.set_faults(dropped_share=1)
    order_id, payments = await ordered(pay, ("alipay", 40), ("wechatpay", 60))
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
    await over(pay, captured=100, refunded=0)


async def test_paid_while_nobody_is_there(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """The customer has the code, we do not know that we gave it: to ask for it again is refused, for it is paid."""
    pay.set_faults(dropped_share=1)
    order_id, [payment] = await ordered(pay, ("alipay", 100))
    await run_until_killed(processes, "payment.after_create")
    pay.pay_at_provider("alipay", payment)
    await processes.worker("payment_worker")
    await pay.wait_for_order(order_id, "paid")
    await over(pay, captured=100, refunded=0)


async def test_dies_between_a_refund_and_its_row(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """The money is on its way back and nobody has noted it: it goes back once, at each provider."""
    async with run_workers(pay.settings, "payment_worker"):
        order_id, _ = await pay.add_paid_order(("alipay", 40), ("wechatpay", 60))
    pay.set_faults(dropped_share=1)
    await pay.call_as_staff(
        "POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "amount": 90, "reason": "broken"}
    )
    await run_until_killed(processes, "refund.after_call")
    given = sum(pay.payment_store.totals(name)["refunds"] for name in PROVIDERS)
    assert given >= 1
    assert await pay.fetch_value("SELECT count(*) FROM refunds WHERE status = 'done'") < given
    if given < len(PROVIDERS):  # else both calls were through when it died, and no more are made
        await run_until_killed(processes, "refund.after_call")
    await processes.worker("payment_worker")
    await over(pay, captured=100, refunded=90)


async def test_dies_between_taking_goods_again_and_its_row(pay: PaymentShop, processes: PaymentProcesses) -> None:
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
    await over(pay, captured=100, refunded=0)
    assert (await lua.cut(pay.shop.redis, pay.keys)).stock == {"a": 49, "b": 20}
    assert await lua.buyers(pay.shop.redis, pay.keys) == {b"user\0a": 1}


async def test_a_gateway_dies_before_it_answers_a_callback(pay: PaymentShop, processes: PaymentProcesses) -> None:
    """What it stored is stored: the provider sends it again, and reads that it need not."""
    pay.set_faults(dropped_share=1)
    async with run_workers(pay.settings, "payment_worker"):
        order_id, payments = await ordered(pay, ("alipay", 40), ("wechatpay", 60))
        await eventually(lambda: has_payment_actions(pay))
    dying = await processes.gateway(crash_at="payment.after_webhook:2")
    async with aiohttp.ClientSession() as client:

        async def send(number: int) -> int:
            name, id_ = PROVIDERS[number], payments[number]
            callback = pay.build_webhook(name, id_, webhook_id=f"n-{number}")
            url = f"{processes.base}/v1/webhooks/payments/{name}"
            async with client.post(url, data=callback.body, headers=callback.headers) as answer:
                return answer.status

        for name, id_ in zip(PROVIDERS, payments, strict=True):
            pay.pay_at_provider(name, id_)
        assert await send(0) == 200
        with pytest.raises(aiohttp.ClientError):
            await send(1)
        assert await wait_for_exit(dying) == -9
        await pay.wait_for_order(order_id, "paid")
        await processes.gateway()
        assert [await send(number) for number in (1, 0, 1)] == [204, 200, 204]
    await over(pay, captured=100, refunded=0)
    results = await pay.fetch_rows("SELECT result FROM payment_webhooks")
    assert [row["result"] for row in results] == ["captured", "captured"]
