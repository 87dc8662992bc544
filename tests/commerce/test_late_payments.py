"""P5, P6: orders whose time to pay is over, without a payment and with a late one."""

from __future__ import annotations

from uuid import UUID

import pytest

import lua
from commerce.audit import store as audit
from commerce.kernel.jobs import RetryPolicy
from commerce.payments.errors import NotPayable
from commerce.payments.model import TenderInput
from commerce.reservations.service import Reservations
from commerce.sales.loading import load_sale
from lua import ReserveOutcome
from ops.sandbox.payment_store import SimulatedTrade
from ops.sandbox.server import PROVIDERS
from ops.services import CliServices
from tests.support.due_jobs import put_due
from tests.support.gateway import run_workers
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually, reservation, reserve

LATE = "paid late, and the stock was still available"
POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)
GONE = "it came too late, and the stock or the customer's limit did not allow it"


pytestmark = pytest.mark.usefixtures("short_polls")


async def stock(pay: PaymentShop) -> dict[str, int]:
    return (await lua.cut(pay.shop.redis, pay.keys)).stock


async def place_expired_order(pay: PaymentShop, *parts: tuple[str, int]) -> tuple[UUID, list[str]]:
    """Place an order of one `a` that expires and is released. Returns it with the ids of its payments."""
    order_id, payments = await pay.add_order_with_payments(*parts)
    await pay.expire_orders(order_id)
    await pay.wait_for_order(order_id, "cancelled", "expired")
    await pay.wait_until_idle()
    assert await stock(pay) == {"a": 50, "b": 20}
    return order_id, [payment["payment_id"] for payment in payments]


async def buy_up(pay: PaymentShop, user: str) -> None:
    """Reserve all stock for other users, or all units that the limit allows for `user`."""
    units_by_user = {"user": 3} if user == "user" else {f"{user}{n}": min(3, 50 - 3 * n) for n in range(17)}
    orders = [
        reservation(pay.shop.ids.new, pay.sale_id, {"a": units}, user=name, limits={"a": 3})
        for name, units in units_by_user.items()
    ]
    assert {answer.outcome for answer in await reserve(pay.shop.redis, pay.keys, *orders)} == {ReserveOutcome.ACCEPTED}


async def refunds_and_reasons(pay: PaymentShop, order_id: UUID) -> list[tuple[int, str | None, list[str]]]:
    """Return (refunded amount, reason, reasons of refunds) by payment, as the customer reads them."""
    return [
        (payment["refunded"], payment.get("reason"), [refund["reason"] for refund in payment["refunds"]])
        for payment in await pay.list_payments(order_id)
    ]


@pytest.mark.parametrize("method", PROVIDERS)
async def test_order_not_paid_in_time_expires_after_close_at_provider(pay: PaymentShop, method: str) -> None:
    """The payment is closed at the provider first; only then the order expires and its stock is released."""
    order_id, [payment] = await pay.add_order_with_payments((method, 100))
    closed_at: list[str] = []
    close = pay.payment_store.close_trade

    def record_close(provider: str, out_no: str) -> SimulatedTrade:
        closed_at.append(provider)
        return close(provider, out_no)

    pay.payment_store.close_trade = record_close  # type: ignore[method-assign]
    pay.sandbox.set_faults(method, pay.sandbox.faults.get(method).__class__(down=True))
    await pay.expire_orders(order_id)

    async def has_failed() -> bool:
        return bool(await pay.fetch_value("SELECT last_error IS NOT NULL FROM jobs WHERE queue = 'payments'"))

    await eventually(has_failed)
    # The worker may not have run since the expiry, so the expiry is run here.
    assert await Reservations(pay.shop.db, pay.shop.redis, pay.shop.clock, POLICY).expire_unpaid_orders() == 0
    assert await pay.fetch_value("SELECT status FROM orders") == "awaiting_payment", "it may still be paid"
    assert await stock(pay) == {"a": 49, "b": 20}
    pay.set_faults()
    await pay.wait_for_order(order_id, "cancelled", "expired")
    assert closed_at == [method]
    assert pay.find_trade_state(method, payment["payment_id"]) == "closed"
    await pay.wait_until_idle()
    assert await stock(pay) == {"a": 50, "b": 20}
    assert await refunds_and_reasons(pay, order_id) == [(0, "it was not paid in time", [])]


@pytest.mark.parametrize("method", PROVIDERS)
async def test_payment_captured_during_close_pays_order(pay: PaymentShop, method: str) -> None:
    """The customer pays during the close, and no webhook comes: the order is paid."""
    pay.set_faults(dropped_share=1)
    order_id, [payment] = await pay.add_order_with_payments((method, 100))
    close = pay.payment_store.close_trade

    def capture_after_close(provider: str, out_no: str) -> SimulatedTrade:
        closed = close(provider, out_no)
        pay.pay_at_provider(method, payment["payment_id"], too_late=True)
        return closed

    pay.payment_store.close_trade = capture_after_close  # type: ignore[method-assign]
    await pay.expire_orders(order_id)
    await pay.wait_for_order(order_id, "paid")
    assert await pay.fetch_value("SELECT count(*) FROM releases") == 0


async def test_late_payment_with_stock_left_reacquires_it(pay: PaymentShop) -> None:
    """Stock and limit are reacquired once, and the events contain the reason."""
    order_id, [payment] = await place_expired_order(pay, ("alipay", 100))
    assert await lua.read_units_taken(pay.shop.redis, pay.keys) == {}
    pay.pay_at_provider("alipay", payment, too_late=True)
    await pay.wait_for_order(order_id, "paid")
    await pay.send_webhook("alipay", pay.build_webhook("alipay", payment, webhook_id="once-more"))
    await pay.wait_until_idle()
    assert await stock(pay) == {"a": 49, "b": 20}
    assert await lua.read_units_taken(pay.shop.redis, pay.keys) == {b"user\0a": 1}
    assert await refunds_and_reasons(pay, order_id) == [(0, None, [])]
    events = await pay.fetch_rows("SELECT from_status, to_status, reason FROM order_events ORDER BY seq")
    assert [tuple(event) for event in events] == [
        ("awaiting_payment", "cancelled", "it was not paid in time"),
        (None, None, "1.00 CNY was paid by alipay"),
        ("cancelled", "paid", LATE),
    ]
    audit = await pay.shop.audit.audit_sale(pay.sale_id)
    assert (audit.total.sold, audit.total.held) == (1, 0)


@pytest.mark.parametrize("user", ["other", "user"])
async def test_late_payment_without_stock_or_limit_is_refunded(pay: PaymentShop, user: str) -> None:
    """The stock is sold out, or the customer has used up the limit meanwhile."""
    order_id, [payment] = await place_expired_order(pay, ("wechatpay", 100))
    await buy_up(pay, user)
    before = await stock(pay)
    pay.pay_at_provider("wechatpay", payment, too_late=True)
    await pay.wait_for_payment(payment, "captured")
    await pay.wait_until_idle()
    assert await stock(pay) == before
    assert await pay.fetch_value("SELECT status FROM orders WHERE order_id = $1", order_id) == "cancelled"
    assert await refunds_and_reasons(pay, order_id) == [(100, None, [GONE])]
    assert pay.payment_store.totals("wechatpay")["refunds_amount"] == 100


async def test_late_payment_of_cancelled_order_is_refunded(pay: PaymentShop) -> None:
    """The payment was closed at once. Money that is captured anyway is refunded, even with stock left."""
    order_id, [first, second] = await pay.add_order_with_payments(("alipay", 40), ("wechatpay", 60))
    pay.pay_at_provider("alipay", first["payment_id"])
    await pay.wait_for_payment(first["payment_id"], "captured")
    answer = await pay.gateway.call("POST", f"/v1/orders/{order_id}/cancel")
    assert answer.status == 200, answer.text
    await pay.wait_for_payment(second["payment_id"], "closed")
    assert pay.find_trade_state("wechatpay", second["payment_id"]) == "closed"
    pay.pay_at_provider("wechatpay", second["payment_id"], too_late=True)
    await pay.wait_for_payment(second["payment_id"], "captured")
    await pay.wait_until_idle()
    await pay.wait_for_order(order_id, "cancelled", "by_customer")
    cancelled = "the order was cancelled"
    assert await refunds_and_reasons(pay, order_id) == [(40, None, [cancelled]), (60, None, [cancelled])]
    assert await stock(pay) == {"a": 50, "b": 20}


async def test_late_payment_of_half_is_refunded(pay: PaymentShop) -> None:
    """The first half was paid in time and refunded at expiry, so the late second half is refunded too."""
    order_id, [first, second] = await pay.add_order_with_payments(("alipay", 40), ("wechatpay", 60))
    pay.pay_at_provider("alipay", first["payment_id"])
    await pay.wait_for_payment(first["payment_id"], "captured")
    await pay.expire_orders(order_id)
    await pay.wait_for_order(order_id, "cancelled", "expired")
    pay.pay_at_provider("wechatpay", second["payment_id"], too_late=True)
    await pay.wait_for_payment(second["payment_id"], "captured")
    await pay.wait_until_idle()
    await pay.wait_for_order(order_id, "cancelled", "expired")
    assert [refunded for refunded, _, _ in await refunds_and_reasons(pay, order_id)] == [40, 60]


async def test_late_payment_of_last_plan_reacquires_stock_despite_earlier_refund(pay: PaymentShop) -> None:
    """The refunded payment of an earlier plan does not prevent the reacquisition."""
    order_id, [first] = await pay.add_order_with_payments(("alipay", 100))
    [last] = await pay.start_payments(order_id, ("wechatpay", 100))
    pay.pay_at_provider("alipay", first["payment_id"], too_late=True)
    await pay.wait_for_payment(first["payment_id"], "captured")
    await pay.expire_orders(order_id)
    await pay.wait_for_order(order_id, "cancelled", "expired")
    await pay.wait_until_idle()
    pay.pay_at_provider("wechatpay", last["payment_id"], too_late=True)
    await pay.wait_for_order(order_id, "paid")
    await pay.wait_until_idle()
    assert [refunded for refunded, _, _ in await refunds_and_reasons(pay, order_id)] == [100, 0]
    assert await stock(pay) == {"a": 49, "b": 20}


async def test_reacquisition_without_applied_release_is_parked_after_max_attempts(
    shop: CliServices, sale_id: str
) -> None:
    """Staff see it among the parked jobs. A refund by staff is refused meanwhile."""
    change = with_job_settings(max_attempts=4, backoff_max_s=0.05)
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker", change=change) as pay:
        order_id, [payment] = await pay.add_order_with_payments(("alipay", 100))
        await pay.expire_orders(order_id)
        await pay.wait_for_payment(payment["payment_id"], "closed")
        async with run_workers(pay.settings, "release_worker"):
            await pay.wait_for_order(order_id, "cancelled", "expired")
        async with shop.db.connection() as connection:  # as if the worker had died before
            await connection.execute(
                "UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL"
            )
            await put_due(connection, "releases", "release.apply", order_id)
        pay.pay_at_provider("alipay", payment["payment_id"], too_late=True)

        async def is_parked() -> bool:
            return bool(await pay.fetch_value("SELECT parked FROM jobs WHERE kind = 'payment.recover_order'"))

        await eventually(is_parked)
        refund = {"idempotency_key": "k", "reason": "it came too late"}
        path = f"/v1/admin/orders/{order_id}/refunds"
        refused = await pay.gateway.call("POST", path, user="sam", roles=["support"], json=refund)
        assert (refused.status, refused.code) == (409, "refund_exceeds_captured")
        [parked] = (await pay.call_as_staff("GET", "/jobs?state=parked"))["items"]
        async with run_workers(pay.settings, "release_worker"):
            await pay.call_as_staff("POST", f"/jobs/payments/{parked['subject']}/retry")
            await pay.wait_for_order(order_id, "paid")
            await pay.wait_until_idle()
        await pay.check_records()


async def test_reacquisition_before_release_is_applied_waits(shop: CliServices, sale_id: str) -> None:
    """The release is not applied yet, so there is no stock to reacquire: the job waits and is not refused."""
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker") as pay:
        order_id, [payment] = await pay.add_order_with_payments(("alipay", 100))
        await pay.expire_orders(order_id)
        await pay.wait_for_payment(payment["payment_id"], "closed")
        async with run_workers(pay.settings, "release_worker"):
            await pay.wait_for_order(order_id, "cancelled", "expired")
        async with shop.db.connection() as connection:  # as if the worker had died before
            await connection.execute(
                "UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL"
            )
            await put_due(connection, "releases", "release.apply", order_id)
        pay.pay_at_provider("alipay", payment["payment_id"], too_late=True)

        async def is_waiting() -> bool:
            return bool(await pay.fetch_value("SELECT attempts > 1 FROM jobs WHERE kind = 'payment.recover_order'"))

        await eventually(is_waiting)
        error = await pay.fetch_value("SELECT last_error FROM jobs WHERE queue = 'payments'")
        assert error == "the stock is still being released"
        async with run_workers(pay.settings, "release_worker"):
            await pay.wait_for_order(order_id, "paid")
            await pay.wait_until_idle()
        await pay.check_records()


async def test_late_payment_of_unloaded_sale_waits_for_load(pay: PaymentShop) -> None:
    """The order is paid once the sale is loaded. Without its job the audit finds it."""
    order_id, [payment] = await place_expired_order(pay, ("alipay", 100))
    await lua.unload(pay.shop.redis, pay.keys, pay.shop.clock.now_ms() // 86_400_000)
    pay.pay_at_provider("alipay", payment, too_late=True)

    async def is_waiting() -> bool:
        return bool(await pay.fetch_value("SELECT attempts > 1 FROM jobs WHERE kind = 'payment.recover_order'"))

    await eventually(is_waiting)
    async with pay.shop.db.connection() as connection:
        checked = (connection, "releases_without_job", [order_id])
        assert await audit.list_violations(*checked) == []
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM jobs WHERE queue = 'payments'")
        pending = await connection.fetchval("SELECT release_id::text FROM releases WHERE reacquires = $1", order_id)
        assert await audit.list_violations(*checked) == [pending]
        await transaction.rollback()
    await load_sale(pay.shop.db, pay.shop.redis, pay.shop.clock, pay.sale_id)
    await pay.wait_for_order(order_id, "paid")
    assert await stock(pay) == {"a": 49, "b": 20}


async def test_payment_started_shortly_before_expiry_is_refused(pay: PaymentShop) -> None:
    order_id = await pay.add_order()
    async with pay.shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET accepted_at = accepted_at - interval '880 seconds', "
            "pay_by = pay_by - interval '880 seconds'"
        )
    with pytest.raises(NotPayable, match="about to expire"):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
    await pay.expire_orders()
    await pay.wait_for_order(order_id, "cancelled", "expired")
    with pytest.raises(NotPayable, match="it is cancelled"):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
