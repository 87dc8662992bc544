"""P5, P6: the time to pay is over. Nothing is paid and nobody loses anything, or it is paid too late."""

from __future__ import annotations

from uuid import UUID

import pytest

import lua
from commerce.kernel.jobs import RetryPolicy
from commerce.payments.errors import NotPayable
from commerce.payments.model import TenderInput
from commerce.reservations.service import Reservations
from commerce.sales.loading import load_sale
from lua import ReserveOutcome
from ops.sandbox.payment_store import SimulatedTrade
from ops.sandbox.server import PROVIDERS
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually, reservation, reserve

LATE = "paid late, and the stock was still available"
POLICY = RetryPolicy(initial_ms=1, max_s=1, lease_s=30, rows_per_claim=100)
GONE = "it came too late and the stock is sold out"


pytestmark = pytest.mark.usefixtures("short_polls")


async def stock(pay: PaymentShop) -> dict[str, int]:
    return (await lua.cut(pay.shop.redis, pay.keys)).stock


async def expired(pay: PaymentShop, *parts: tuple[str, int]) -> tuple[UUID, list[str]]:
    """An order of one `a` that expired, with the ids of its payments; its goods are back."""
    order_id, payments = await pay.ordered(*parts)
    await pay.expire(order_id)
    await pay.order_is(order_id, "cancelled", "expired")
    await pay.quiet()
    assert await stock(pay) == {"a": 50, "b": 20}
    return order_id, [one["payment_id"] for one in payments]


async def bought_up(pay: PaymentShop, user: str) -> None:
    """Others take all that is there, or the customer all that the limit allows."""
    buyers = {"user": 3} if user == "user" else {f"{user}{n}": min(3, 50 - 3 * n) for n in range(17)}
    made = [
        reservation(pay.shop.ids.new, pay.sale_id, {"a": units}, user=name, limits={"a": 3})
        for name, units in buyers.items()
    ]
    assert {answer.outcome for answer in await reserve(pay.shop.redis, pay.keys, *made)} == {ReserveOutcome.ACCEPTED}


async def reasons(pay: PaymentShop, order_id: UUID) -> list[tuple[int, str | None, list[str]]]:
    """Of each payment what went back of it, its own reason, and those of its refunds, as the customer reads them."""
    return [
        (one["refunded"], one.get("reason"), [refund["reason"] for refund in one["refunds"]])
        for one in await pay.payments(order_id)
    ]


@pytest.mark.parametrize("method", PROVIDERS)
async def test_not_paid_in_time(pay: PaymentShop, method: str) -> None:
    """Closed at the provider first, and only then does the order end and the stock go back."""
    order_id, [payment] = await pay.ordered((method, 100))
    seen: list[str] = []
    close = pay.bank.close_trade

    def closing(provider: str, out_no: str) -> SimulatedTrade:
        seen.append(provider)
        return close(provider, out_no)

    pay.bank.close_trade = closing  # type: ignore[method-assign]
    pay.sandbox.switch(method, pay.sandbox.board.of(method).__class__(down=True))
    await pay.expire(order_id)

    async def asked() -> bool:
        return bool(await pay.value("SELECT last_error IS NOT NULL FROM payments"))

    await eventually(asked)
    # The driver may not have looked yet since the time was over, so it is made to.
    assert await Reservations(pay.shop.db, pay.shop.redis, pay.shop.clock, POLICY).expire_unpaid_orders() == 0
    assert await pay.value("SELECT status FROM orders") == "awaiting_payment", "it may still be paid"
    assert await stock(pay) == {"a": 49, "b": 20}
    pay.switch()
    await pay.order_is(order_id, "cancelled", "expired")
    assert seen == [method]
    assert pay.trade_state(method, payment["payment_id"]) == "closed"
    await pay.quiet()
    assert await stock(pay) == {"a": 50, "b": 20}
    assert await reasons(pay, order_id) == [(0, "it was not paid in time", [])]


@pytest.mark.parametrize("method", PROVIDERS)
async def test_asked_once_more_after_it_was_closed(pay: PaymentShop, method: str) -> None:
    """The money was on its way while it was closed, and nobody calls back: the order is paid and never expires."""
    pay.switch(never_share=1)
    order_id, [payment] = await pay.ordered((method, 100))
    close = pay.bank.close_trade

    def crossing(provider: str, out_no: str) -> SimulatedTrade:
        closed = close(provider, out_no)
        pay.pays(method, payment["payment_id"], too_late=True)
        return closed

    pay.bank.close_trade = crossing  # type: ignore[method-assign]
    await pay.expire(order_id)
    await pay.order_is(order_id, "paid")
    assert await pay.value("SELECT count(*) FROM releases") == 0


async def test_too_late_and_the_goods_are_there(pay: PaymentShop) -> None:
    """Units and limit are taken again, once, and the history says why."""
    order_id, [payment] = await expired(pay, ("alipay", 100))
    assert await lua.buyers(pay.shop.redis, pay.keys) == {}
    pay.pays("alipay", payment, too_late=True)
    await pay.order_is(order_id, "paid")
    await pay.send("alipay", pay.callback("alipay", payment, notice_id="once more"))
    await pay.quiet()
    assert await stock(pay) == {"a": 49, "b": 20}
    assert await lua.buyers(pay.shop.redis, pay.keys) == {b"user\0a": 1}
    assert await reasons(pay, order_id) == [(0, None, [])]
    events = await pay.rows("SELECT from_status, to_status, reason FROM order_events ORDER BY seq")
    assert [tuple(event) for event in events] == [
        ("awaiting_payment", "cancelled", "it was not paid in time"),
        ("cancelled", "paid", LATE),
    ]
    audit = await pay.shop.audit.audit_sale(pay.sale_id)
    assert (audit.total.sold, audit.total.held) == (1, 0)


@pytest.mark.parametrize("user", ["other", "user"])
async def test_too_late_and_the_goods_are_gone(pay: PaymentShop, user: str) -> None:
    """To others, or they are there and the customer has used the limit meanwhile: the money goes back by itself."""
    order_id, [payment] = await expired(pay, ("wechatpay", 100))
    await bought_up(pay, user)
    before = await stock(pay)
    pay.pays("wechatpay", payment, too_late=True)
    await pay.payment_is(payment, "captured")
    await pay.quiet()
    assert await stock(pay) == before
    assert await pay.value("SELECT status FROM orders WHERE order_id = $1", order_id) == "cancelled"
    assert await reasons(pay, order_id) == [(100, None, [GONE])]
    assert pay.bank.totals("wechatpay")["refunds_amount"] == 100


async def test_too_late_on_what_the_customer_cancelled(pay: PaymentShop) -> None:
    """It was closed at the provider at once; what comes all the same goes back, though the goods are there."""
    order_id, [one, other] = await pay.ordered(("alipay", 40), ("wechatpay", 60))
    pay.pays("alipay", one["payment_id"])
    await pay.payment_is(one["payment_id"], "captured")
    answer = await pay.gateway.call("POST", f"/v1/orders/{order_id}/cancel")
    assert answer.status == 200, answer.text
    await pay.payment_is(other["payment_id"], "closed")
    assert pay.trade_state("wechatpay", other["payment_id"]) == "closed"
    pay.pays("wechatpay", other["payment_id"], too_late=True)
    await pay.payment_is(other["payment_id"], "captured")
    await pay.quiet()
    await pay.order_is(order_id, "cancelled", "by_customer")
    cancelled = "the order was cancelled"
    assert await reasons(pay, order_id) == [(40, None, [cancelled]), (60, None, [cancelled])]
    assert await stock(pay) == {"a": 50, "b": 20}


async def test_half_of_it_too_late_goes_back(pay: PaymentShop) -> None:
    """One half was paid in time and went back when the order expired, so the other is of no use."""
    order_id, [one, other] = await pay.ordered(("alipay", 40), ("wechatpay", 60))
    pay.pays("alipay", one["payment_id"])
    await pay.payment_is(one["payment_id"], "captured")
    await pay.expire(order_id)
    await pay.order_is(order_id, "cancelled", "expired")
    pay.pays("wechatpay", other["payment_id"], too_late=True)
    await pay.payment_is(other["payment_id"], "captured")
    await pay.quiet()
    await pay.order_is(order_id, "cancelled", "expired")
    assert [back for back, _, _ in await reasons(pay, order_id)] == [40, 60]


async def test_too_late_in_the_last_of_two_ways(pay: PaymentShop) -> None:
    """What was paid in an earlier way went back and is no reason not to take the goods again."""
    order_id, [first] = await pay.ordered(("alipay", 100))
    [last] = await pay.start(order_id, ("wechatpay", 100))
    pay.pays("alipay", first["payment_id"], too_late=True)
    await pay.payment_is(first["payment_id"], "captured")
    await pay.expire(order_id)
    await pay.order_is(order_id, "cancelled", "expired")
    await pay.quiet()
    pay.pays("wechatpay", last["payment_id"], too_late=True)
    await pay.order_is(order_id, "paid")
    await pay.quiet()
    assert [back for back, _, _ in await reasons(pay, order_id)] == [100, 0]
    assert await stock(pay) == {"a": 49, "b": 20}


async def test_goods_that_never_come_back_are_not_waited_for_unseen(shop: CliServices, sale_id: str) -> None:
    """After as many tries as for anything else it is listed. Meanwhile staff cannot give the money back as well."""
    change = with_job_settings(max_attempts=4, backoff_max_s=0.05)
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker", change=change) as pay:
        order_id, [payment] = await pay.ordered(("alipay", 100))
        await pay.expire(order_id)
        await pay.payment_is(payment["payment_id"], "closed")
        async with run_workers(pay.settings, "release_worker"):
            await pay.order_is(order_id, "cancelled", "expired")
        async with shop.db.connection() as connection:  # as if the driver had died before
            await connection.execute(
                "UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL, due_at = now()"
            )
        pay.pays("alipay", payment["payment_id"], too_late=True)

        async def given_up() -> bool:
            return bool(await pay.value("SELECT parked FROM payments WHERE task = 'recover_order'"))

        await eventually(given_up)
        ask = {"idempotency_key": "k", "reason": "it came too late"}
        path = f"/v1/admin/orders/{order_id}/refunds"
        refused = await pay.gateway.call("POST", path, user="sam", roles=["support"], json=ask)
        assert (refused.status, refused.code) == (409, "refund_exceeds_captured")
        [parked] = (await pay.staff("GET", "/parked-jobs"))["items"]
        async with run_workers(pay.settings, "release_worker"):
            await pay.staff("POST", f"/parked-jobs/{parked['id']}/retry")
            await pay.order_is(order_id, "paid")
            await pay.quiet()
        await pay.check()


async def test_the_goods_are_still_on_their_way_back(shop: CliServices, sale_id: str) -> None:
    """Nobody has applied the release yet, so there is nothing to be taken again: it waits and is not refused."""
    async with open_payment_shop(shop, sale_id, "order_writer", "payment_worker") as pay:
        order_id, [payment] = await pay.ordered(("alipay", 100))
        await pay.expire(order_id)
        await pay.payment_is(payment["payment_id"], "closed")
        async with run_workers(pay.settings, "release_worker"):
            await pay.order_is(order_id, "cancelled", "expired")
        async with shop.db.connection() as connection:  # as if the driver had died before
            await connection.execute(
                "UPDATE releases SET status = 'pending', ended_at = NULL, epoch = NULL, seq = NULL, due_at = now()"
            )
        pay.pays("alipay", payment["payment_id"], too_late=True)

        async def waits() -> bool:
            return bool(await pay.value("SELECT attempts > 1 FROM payments WHERE task = 'recover_order'"))

        await eventually(waits)
        assert await pay.value("SELECT last_error FROM payments") == "the stock is still being released"
        async with run_workers(pay.settings, "release_worker"):
            await pay.order_is(order_id, "paid")
            await pay.quiet()
        await pay.check()


async def test_too_late_while_redis_has_lost_the_sale(pay: PaymentShop) -> None:
    """Not ready is not gone: the order waits for the sale to be loaded, and is paid then."""
    order_id, [payment] = await expired(pay, ("alipay", 100))
    await lua.unload(pay.shop.redis, pay.keys, pay.shop.clock.now_ms() // 86_400_000)
    pay.pays("alipay", payment, too_late=True)

    async def waits() -> bool:
        return bool(await pay.value("SELECT attempts > 1 FROM payments WHERE task = 'recover_order'"))

    await eventually(waits)
    await load_sale(pay.shop.db, pay.shop.redis, pay.shop.clock, pay.sale_id)
    await pay.order_is(order_id, "paid")
    assert await stock(pay) == {"a": 49, "b": 20}


async def test_nobody_begins_to_pay_in_the_last_moment(pay: PaymentShop) -> None:
    order_id = await pay.order()
    async with pay.shop.db.connection() as connection:
        await connection.execute(
            "UPDATE orders SET accepted_at = accepted_at - interval '880 seconds', "
            "pay_by = pay_by - interval '880 seconds'"
        )
    with pytest.raises(NotPayable, match="not enough time left"):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
    await pay.expire()
    await pay.order_is(order_id, "cancelled", "expired")
    with pytest.raises(NotPayable, match="the order is cancelled"):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
