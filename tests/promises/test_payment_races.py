"""P1, P5, P6: two hundred pairs each of actions on a payment at about the same moment.

All workers run. The first action decides. Afterwards no money and no stock is lost or doubled, and every order has
a final status.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import pytest

import lua
from commerce.kernel.clock import from_ms
from commerce.kernel.connection_shares import use_share
from commerce.orders.errors import CannotCancel
from commerce.orders.service import Actor
from commerce.payments import polling
from commerce.payments.errors import NotPayable, RefundExceedsCaptured
from commerce.payments.model import TenderInput
from config.settings import Settings
from lua import ReserveOutcome
from ops.sandbox.payment_store import SimulatedTrade
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually, reservation, reserve
from tests.support.staff_refunds import refund_as_staff

pytestmark = pytest.mark.drill  # takes half a minute

PAIRS, AT_ONCE = 200, 50
_START_WITHIN_S = 0.5
"""Those that begin in the same instant share transactions, and one side would always come first."""


class RacingOrder(NamedTuple):
    """A stored order of one unit with one payment."""

    order_id: UUID
    user: str
    payment_id: UUID


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings with enough connections for pairs to meet in the database, not before it."""
    shares = {"total_connections": 29, "customer_connections": 12, "webhook_connections": 12}
    return make_settings(limits={"database_connections": 12}, database_shares=shares)


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PaymentShop]:
    """A shop with as many units as orders. Only tests send webhooks, and workers poll every 500 ms."""
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 500)
    change = with_job_settings(refunds_per_s=1_000.0)
    async with open_payment_shop(shop, sale_id, items={"a": (PAIRS, 100, 2)}, change=change) as payment_shop:
        payment_shop.set_faults(dropped_share=1)
        yield payment_shop


async def add_orders(pay: PaymentShop, *tenders: TenderInput) -> list[RacingOrder]:
    """Store `PAIRS` orders of different users, and create their payments at the provider."""
    reservations = [
        reservation(pay.shop.ids.new, pay.sale_id, {"a": 1}, user=f"u{n}", limits={"a": 2}) for n in range(PAIRS)
    ]
    assert {result.outcome for result in await reserve(pay.shop.redis, pay.keys, *reservations)} == {
        ReserveOutcome.ACCEPTED
    }

    async def counts_all(query: str) -> bool:
        return bool(await pay.fetch_value(query) == PAIRS)

    await eventually(lambda: counts_all("SELECT count(*) FROM orders"))
    start = pay.gateway.services.payments.start
    views = await asyncio.gather(*(start(order.order_id, order.user_id, tenders) for order in reservations))
    await eventually(lambda: counts_all("SELECT count(*) FROM payments WHERE action IS NOT NULL"))
    return [
        RacingOrder(order.order_id, order.user_id, view.payments[0].payment_id)
        for order, view in zip(reservations, views, strict=True)
    ]


async def race(groups: Sequence[Sequence[Coroutine[Any, Any, Any]]]) -> list[Any]:
    """Run the coroutines of each group, many groups together, each from a random moment of half a second.

    Returns all results."""

    async def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        await asyncio.sleep(random.uniform(0, _START_WITHIN_S))
        return await coroutine

    results: list[Any] = []
    for first in range(0, len(groups), AT_ONCE):
        coroutines = [run(coroutine) for group in groups[first : first + AT_ONCE] for coroutine in group]
        random.shuffle(coroutines)
        results += await asyncio.gather(*coroutines)
    return results


async def pay_and_deliver_webhook(pay: PaymentShop, method: str, payment_id: UUID, *, too_late: bool = False) -> None:
    """Pay as the customer and send the provider's webhook."""
    pay.pay_at_provider(method, payment_id, too_late=too_late)
    await deliver_webhook(pay, method, payment_id)


async def deliver_webhook(pay: PaymentShop, method: str, payment_id: UUID) -> None:
    status, text = await pay.send_webhook(method, pay.build_webhook(method, payment_id, webhook_id=payment_id.hex))
    assert (status, text) in ((200, "success"), (204, ""))


def handle_webhook(pay: PaymentShop, payment_id: UUID) -> Coroutine[Any, Any, str]:
    """Pay at Alipay and return a coroutine that records the webhook.

    The webhook is read already, so that this side starts as close to the database as the other side of the race."""
    pay.pay_at_provider("alipay", payment_id)
    webhook, services = pay.build_webhook("alipay", payment_id, webhook_id=payment_id.hex), pay.gateway.services
    event = services.providers["alipay"].read_webhook({}, webhook.body, from_ms(services.clock.now_ms()))

    async def handle() -> str:
        with use_share("webhooks"):
            return await services.payments.handle_webhook("alipay", event, webhook.body)

    return handle()


async def try_action(action: Awaitable[Any], *refusals: type[Exception]) -> str:
    """Await an action. Returns "done", or the name of the refusal."""
    try:
        await action
    except refusals as refusal:
        return type(refusal).__name__
    return "done"


async def finish_and_check(pay: PaymentShop) -> Counter[str]:
    """Finish all jobs, expire unpaid orders and check all records. Returns the number of orders by status."""
    await pay.wait_until_idle()
    await pay.expire_orders()
    await pay.wait_until_idle()
    await pay.check_records()
    assert await pay.fetch_value("SELECT count(*) FROM jobs WHERE parked AND queue IN ('payments', 'refunds')") == 0
    assert await pay.fetch_value("SELECT count(*) FROM payments WHERE status = 'pending'") == 0
    assert await pay.fetch_value("SELECT count(*) FROM refunds WHERE status <> 'done'") == 0
    audit = await pay.shop.audit.audit_sale(pay.sale_id)
    counts = Counter({row["status"]: row["count"] for row in await pay.fetch_rows(
        "SELECT status, count(*) FROM orders GROUP BY status"
    )})  # fmt: skip
    assert set(counts) <= {"paid", "cancelled"}
    assert (audit.total.sold, audit.total.held) == (counts["paid"], 0)
    assert audit.total.available == PAIRS - counts["paid"]
    return counts


async def test_expiry_and_webhook_at_once_keep_money_and_stock_balanced(pay: PaymentShop) -> None:
    """Money arrives before, during or after the close of a payment. Others order the released units."""
    orders = await add_orders(pay, TenderInput("alipay", 100))
    paid_during_close = {order.payment_id.hex for order in orders[1::3]}
    paid_after_close = {order.payment_id for order in orders[2::3]}
    sending: list[asyncio.Task[None]] = []
    close_trade, stop = pay.payment_store.close_trade, asyncio.Event()

    def close_and_pay_some(provider: str, out_no: str) -> SimulatedTrade:
        trade = close_trade(provider, out_no)
        if out_no in paid_during_close:
            paid_during_close.discard(out_no)
            pay.pay_at_provider(provider, out_no, too_late=True)
            sending.append(asyncio.create_task(deliver_webhook(pay, provider, UUID(out_no))))
        return trade

    async def pay_after_close() -> None:
        query = "SELECT payment_id FROM payments WHERE status = 'closed' AND payment_id = ANY($1)"
        while paid_after_close:
            for row in await pay.fetch_rows(query, list(paid_after_close)):
                paid_after_close.discard(row["payment_id"])
                sending.append(
                    asyncio.create_task(pay_and_deliver_webhook(pay, "alipay", row["payment_id"], too_late=True))
                )

    async def order_released_units() -> None:
        accepted = 0
        while accepted < 20 and not stop.is_set():
            order = reservation(pay.shop.ids.new, pay.sale_id, {"a": 1}, user=f"other{accepted}", limits={"a": 2})
            accepted += (await reserve(pay.shop.redis, pay.keys, order))[0].outcome is ReserveOutcome.ACCEPTED

    pay.payment_store.close_trade = close_and_pay_some  # type: ignore[method-assign]
    tasks = [asyncio.create_task(pay_after_close()), asyncio.create_task(order_released_units())]
    await race(
        [
            (
                pay.expire_orders(order.order_id),
                # The trade may be closed already: the money arrives all the same.
                *([pay_and_deliver_webhook(pay, "alipay", order.payment_id, too_late=True)] if number % 3 == 0 else []),
            )
            for number, order in enumerate(orders)
        ]
    )
    await tasks[0]
    await asyncio.gather(*sending)
    await pay.wait_until_idle()
    stop.set()
    await tasks[1]
    await eventually(lambda: _are_stored(pay))
    counts = await finish_and_check(pay)
    reacquired = await pay.fetch_value("SELECT count(*) FROM order_events WHERE from_status = 'cancelled'")
    refused = await pay.fetch_value("SELECT count(*) FROM releases WHERE status = 'refused'")
    assert pay.payment_store.totals("alipay")["captured"] == PAIRS
    assert reacquired > 0, "no stock was reacquired"
    assert refused > 0, "all stock could be reacquired"
    assert counts["paid"] == PAIRS - pay.payment_store.totals("alipay")["refunds"]


async def _are_stored(pay: PaymentShop) -> bool:
    return (await lua.read_backlog(pay.shop.redis, pay.keys)).orders == 0


async def test_cancel_and_webhook_at_once_end_cancelled_or_paid(
    pay: PaymentShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 30_000)  # no poll comes first
    orders = await add_orders(pay, TenderInput("alipay", 100))

    async def cancel(order: RacingOrder) -> str:
        actor = Actor(order.user, f"customer {order.user}")
        return await try_action(
            pay.gateway.services.orders.cancel(order.order_id, actor, [pay.sale_id], 0), CannotCancel
        )

    results = Counter(await race([(cancel(order), handle_webhook(pay, order.payment_id)) for order in orders]))
    counts = await finish_and_check(pay)
    assert counts == {"cancelled": results["done"], "paid": results["CannotCancel"]}
    assert min(counts.values()) > 5, f"the same side always came first: {counts}"
    assert pay.payment_store.totals("alipay")["refunds"] == counts["cancelled"]


async def test_refunds_at_once_never_exceed_captured(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refund 70 of 100 twice, under one key or two; then the remainder twice under two keys."""
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 100)  # the first reply to a refund says that it is in progress
    orders = await add_orders(pay, TenderInput("wechatpay", 100))
    await race([(pay_and_deliver_webhook(pay, "wechatpay", order.payment_id),) for order in orders])

    def try_refund(order: RacingOrder, key: str, amount: int | None) -> Coroutine[Any, Any, str]:
        return try_action(refund_as_staff(pay.shop, order.order_id, key, amount), RefundExceedsCaptured)

    results = Counter(
        await race(
            [
                (try_refund(order, "k", 70), try_refund(order, "k" if number % 2 else "other", 70))
                for number, order in enumerate(orders)
            ]
        )
    )
    assert results == {"done": PAIRS * 3 // 2, "RefundExceedsCaptured": PAIRS // 2}
    results = Counter(
        await race([(try_refund(order, "rest", None), try_refund(order, "all", None)) for order in orders[::2]])
    )
    assert results == {"done": PAIRS // 2, "RefundExceedsCaptured": PAIRS // 2}
    counts = await finish_and_check(pay)
    assert counts == {"paid": PAIRS}
    totals = pay.payment_store.totals("wechatpay")
    assert (totals["refunds"], totals["refunds_amount"]) == (PAIRS * 3 // 2, PAIRS * 70 + PAIRS // 2 * 30)


async def test_replaced_plan_and_webhook_at_once_charge_once(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The customer replaces the payment plan while the first payment is captured. Some pay the second too."""
    monkeypatch.setattr(polling, "MIN_POLL_INTERVAL_MS", 30_000)
    orders = await add_orders(pay, TenderInput("alipay", 100))
    start = pay.gateway.services.payments.start

    async def replace_plan(order: RacingOrder) -> str:
        return await try_action(start(order.order_id, order.user, [TenderInput("wechatpay", 100)]), NotPayable)

    results = Counter(await race([(replace_plan(order), handle_webhook(pay, order.payment_id)) for order in orders]))
    assert min(results["done"], results["NotPayable"]) > 5, f"the same side always came first: {results}"
    await pay.wait_until_idle()
    second = await pay.fetch_rows("SELECT payment_id FROM payments WHERE method = 'wechatpay' AND status = 'pending'")
    assert len(second) == results["done"]
    for row in second[::2]:
        await pay_and_deliver_webhook(pay, "wechatpay", row["payment_id"])
    counts = await finish_and_check(pay)
    assert counts["paid"] == results["NotPayable"] + len(second[::2])
    assert pay.payment_store.totals("alipay")["refunds"] == results["done"]
