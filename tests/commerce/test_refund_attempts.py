"""P6: refunds that their providers close, delay, limit or cannot make; what customers read about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from commerce.jobs.model import JobFilter
from config.payments import ProviderRefundSettings
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.refund_settings import with_refund_settings
from tests.support.sales import eventually
from tests.support.staff_refunds import refund_as_staff

pytestmark = pytest.mark.usefixtures("short_polls")
ITEMS = {"a": (50, 100, None)}


@pytest.fixture
async def shop_with_few_failures(shop: CliServices, sale_id: str) -> AsyncIterator[PaymentShop]:
    """A shop whose jobs are parked, and whose breakers open, after three failures."""
    change = with_job_settings(max_attempts=3, breaker_failures=3, backoff_max_s=0.05)
    async with open_payment_shop(shop, sale_id, items=ITEMS, change=change) as payment_shop:
        yield payment_shop


async def refund(pay: PaymentShop, order_id: UUID, key: str = "k", amount: int | None = None) -> None:
    await refund_as_staff(pay.shop, order_id, key, amount)


async def list_refunds(pay: PaymentShop, order_id: UUID) -> list[Any]:
    query = "SELECT * FROM refunds WHERE order_id = $1 ORDER BY attempt_no, created_at, refund_id"
    return await pay.fetch_rows(query, order_id)


async def wait_for_refunds(pay: PaymentShop, order_id: UUID, *wanted: tuple[str, str | None]) -> list[Any]:
    """Wait until the order's refunds have these statuses and reasons, of a wait or for another way."""

    async def are_reached() -> bool:
        refunds = await list_refunds(pay, order_id)
        return [(row["status"], row["wait_reason"] or row["other_way_reason"]) for row in refunds] == list(wanted)

    await eventually(are_reached)
    return await list_refunds(pay, order_id)


async def read_story(pay: PaymentShop, order_id: UUID) -> list[str]:
    query = "SELECT reason FROM order_events WHERE order_id = $1 AND kind = 'refund' ORDER BY seq"
    return [row["reason"] for row in await pay.fetch_rows(query, order_id)]


async def test_refund_that_is_closed_is_tried_under_another_number(
    shop_with_few_failures: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pay = shop_with_few_failures
    order_id, [payment] = await pay.add_paid_order(("wechatpay", 100))
    numbers: set[str] = set()

    def is_selected(share: float, fault: str, subject: str) -> bool:
        numbers.update([subject] if fault == "refund_closed" and len(numbers) < 2 else [])
        return fault == "refund_closed" and subject in numbers

    monkeypatch.setattr(pay.sandbox.faults, "is_selected", is_selected)
    await refund(pay, order_id, amount=60)
    first, second, third = await wait_for_refunds(pay, order_id, ("failed", None), ("failed", None), ("done", None))
    assert numbers == {first["refund_id"].hex, second["refund_id"].hex}
    assert (second["retries"], third["retries"]) == (first["refund_id"], second["refund_id"])
    [grant] = await pay.fetch_rows("SELECT grant_id FROM refund_grants WHERE order_id = $1", order_id)
    assert {row["refund_key"] for row in (first, second, third)} == {f"grant {grant['grant_id']}"}
    assert "CLOSED" in first["provider_error"]
    assert third["provider_refund_id"] == pay.payment_store.list_refunds("wechatpay")[0].refund_no
    assert (third["way"], first["way"]) == ("provider", None)
    await refund(pay, order_id, amount=60)
    await pay.wait_until_idle()
    assert len(await list_refunds(pay, order_id)) == 3, "the key is that of all attempts"
    [shown] = await pay.list_payments(order_id)
    assert [(view["status"], view["amount"]) for view in shown["refunds"]] == [("done", 60)]
    assert len((await pay.call_as_staff("GET", f"/orders/{order_id}/payments"))["payments"][0]["refunds"]) == 3
    story = ["0.60 CNY is being refunded: it was broken", "0.60 CNY was refunded by wechatpay"]
    assert await read_story(pay, order_id) == story
    # The provider says of a closed number that it was done after all: nothing is booked twice.
    webhook = pay.build_webhook("wechatpay", payment["payment_id"], third["refund_id"])
    assert (await pay.send_webhook("wechatpay", webhook))[0] == 204
    await pay.check_records()
    pay.payment_store._db.execute(
        "UPDATE refunds SET outcome = 'done' WHERE out_refund_no = ?", (first["refund_id"].hex,)
    )
    late = pay.build_webhook("wechatpay", payment["payment_id"], first["refund_id"], webhook_id="n-late")
    assert (await pay.send_webhook("wechatpay", late))[0] == 400
    assert "it may be paid twice" in await pay.fetch_value(
        "SELECT result FROM payment_webhooks WHERE webhook_id = 'n-late'"
    )
    assert await pay.fetch_value("SELECT refunded_minor FROM payments") == 60


async def test_refund_that_cannot_go_back_needs_another_way(shop_with_few_failures: PaymentShop) -> None:
    """A number is closed too often, a refund abnormal, an account closed, a window over."""
    pay = shop_with_few_failures
    orders = {word: (await pay.add_paid_order(("wechatpay", 100)))[0] for word in ("closed", "abnormal", "window_over")}
    for method in ("wechatpay", "alipay"):
        orders[method] = (await pay.add_paid_order((method, 100)))[0]
    pay.set_faults(refund_closed_share=1)
    await refund(pay, orders["closed"])
    *failed, last = await wait_for_refunds(
        pay, orders["closed"], ("failed", None), ("failed", None), ("needs_other_way", "closed")
    )
    assert [row["attempt_no"] for row in (*failed, last)] == [1, 2, 3]
    pay.set_faults(refund_abnormal_share=1)
    await refund(pay, orders["abnormal"])
    [abnormal] = await wait_for_refunds(pay, orders["abnormal"], ("needs_other_way", "abnormal"))
    assert abnormal["provider_refund_id"].startswith("5030")
    pay.set_faults(account_closed_share=1)
    for method in ("wechatpay", "alipay"):
        await refund(pay, orders[method])
        await wait_for_refunds(pay, orders[method], ("needs_other_way", "account_closed"))
    pay.set_faults()
    late = orders["window_over"]
    async with pay.shop.db.connection() as connection:
        await connection.execute(
            "UPDATE payments SET captured_at = captured_at - interval '366 days' WHERE order_id = $1", late
        )
    await refund(pay, late)
    [row] = await wait_for_refunds(pay, late, ("needs_other_way", "window_over"))
    assert not row["requested"], "nothing is requested"
    assert (await read_story(pay, late))[-1].startswith("1.00 CNY cannot be refunded to the payment")
    assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE queue = 'refunds'") == 0, "none is parked"
    assert await pay.fetch_value("SELECT sum(refunded_minor) FROM payments") == 0
    assert (await pay.shop.audit.audit_sale(pay.sale_id)).clean


async def test_refunds_of_a_payment_keep_their_distance_and_number(shop: CliServices, sale_id: str) -> None:
    limits = ProviderRefundSettings(window_days=365, min_interval_s=60, refunds_per_payment=2)
    async with open_payment_shop(shop, sale_id, items=ITEMS, change=with_refund_settings(wechatpay=limits)) as pay:
        order_id, _ = await pay.add_paid_order(("wechatpay", 100))
        await refund(pay, order_id, "first", 10)
        await wait_for_refunds(pay, order_id, ("done", None))
        await refund(pay, order_id, "second", 10)
        [_, second] = await wait_for_refunds(pay, order_id, ("done", None), ("pending", "pace"))
        query = "SELECT extract(epoch FROM due_at - now()) FROM jobs WHERE subject = $1 AND last_error IS NULL"

        async def is_postponed() -> bool:
            return 50 < (await pay.fetch_value(query, second["refund_id"]) or 0) <= 60

        await eventually(is_postponed)
        assert not second["requested"]
        await make_due(pay, past_s=60)
        await wait_for_refunds(pay, order_id, ("done", None), ("done", None))
        await make_due(pay, past_s=60)
        await refund(pay, order_id, "third", 10)
        await wait_for_refunds(pay, order_id, ("done", None), ("done", None), ("needs_other_way", "too_many_parts"))
        await pay.check_records()


async def make_due(pay: PaymentShop, past_s: float) -> None:
    """Have the refunds done now that wait, as if so many seconds had passed since the last requests."""
    async with pay.shop.db.connection() as connection:
        await connection.execute(
            "UPDATE refunds SET requested_at = requested_at - $1 * interval '1 second', "
            "waiting_since = waiting_since - $1 * interval '1 second'",
            past_s,
        )
        await connection.execute("UPDATE jobs SET due_at = now() WHERE queue = 'refunds' AND due_at > now()")


async def test_wave_of_refunds_without_merchant_balance_stops_no_payment(shop_with_few_failures: PaymentShop) -> None:
    """They wait, however often they are tried, and are made once the account has money."""
    pay = shop_with_few_failures
    methods = ("alipay", "wechatpay")
    orders = [(await pay.add_paid_order((method, 100)))[0] for method in methods for _ in range(4)]
    pay.set_faults(merchant_balance=150)
    await asyncio.gather(*(refund(pay, order_id) for order_id in orders))

    async def have_waited() -> bool:
        waiting = await pay.fetch_value("SELECT count(*) FROM refunds WHERE wait_reason = 'merchant_balance'")
        return bool(waiting == 6 and pay.sandbox.payment_simulator._refund_requests > 8 + 6 * 4)

    await eventually(have_waited)
    assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE parked") == 0
    errors = {row["last_error"] for row in await pay.fetch_rows("SELECT last_error FROM jobs WHERE queue = 'refunds'")}
    assert any("SELLER_BALANCE_NOT_ENOUGH" in str(error) for error in errors), errors
    assert any("NOT_ENOUGH: the merchant's balance" in str(error) for error in errors), errors
    for method in methods:  # the breaker is closed
        await pay.add_paid_order((method, 100), user="meanwhile")
    listed = await pay.shop.jobs.list_jobs(JobFilter(queue="refunds", state="failed", words=("not_enough",)), None, 10)
    assert len(listed.items) == 6
    pay.set_faults()
    await pay.wait_until_idle()
    assert await pay.fetch_value("SELECT count(*) FROM refunds WHERE status = 'done' AND wait_reason IS NULL") == 8
    await pay.check_records()


async def test_wait_ends_with_the_window_and_is_announced_when_it_is_long(shop: CliServices, sale_id: str) -> None:
    change = with_refund_settings(long_wait_s=3_600)
    async with open_payment_shop(shop, sale_id, items=ITEMS, change=change) as pay:
        pay.set_faults(refund_limited_share=1)
        order_id, _ = await pay.add_paid_order(("alipay", 100))
        await refund(pay, order_id)
        await wait_for_refunds(pay, order_id, ("pending", "frequency"))
        await make_due(pay, past_s=3_600)
        longer = "the refund of 1.00 CNY takes longer than usual: it is tried again and again"

        async def is_announced() -> bool:
            return longer in await read_story(pay, order_id)

        await eventually(is_announced)
        async with pay.shop.db.connection() as connection:
            await connection.execute("UPDATE payments SET captured_at = captured_at - interval '91 days'")
        await make_due(pay, past_s=3_600)
        await wait_for_refunds(pay, order_id, ("needs_other_way", "window_over"))
        assert (await read_story(pay, order_id)).count(longer) == 1
