"""P1, P5, P6: two hundred pairs each of what may happen to a payment in the same moment, with all drivers at work.

Whoever comes first decides. Afterwards no money and no goods are lost or doubled, and every order has ended.
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
from commerce.orders.errors import CannotCancel
from commerce.orders.service import Actor
from commerce.payments import payment_jobs
from commerce.payments.errors import NotPayable, RefundExceedsCaptured
from commerce.payments.model import TenderInput
from config.settings import Settings
from lua import ReserveOutcome
from ops.sandbox.payment_store import SimulatedTrade
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually, reservation, reserve

pytestmark = pytest.mark.drill  # half a minute, in which nothing else is learnt

PAIRS, AT_ONCE = 200, 50


class RacingOrder(NamedTuple):
    order_id: UUID
    user: str
    payment_id: UUID


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """With connections enough that pairs meet in the database and not before it."""
    return make_settings(limits={"database_connections": 12})


@pytest.fixture
async def pay(shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PaymentShop]:
    """Exactly as many goods as orders. Callbacks are sent by the tests, and drivers look often."""
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 500)
    many = with_job_settings(refunds_per_s=1_000.0)
    async with open_payment_shop(shop, sale_id, items={"a": (PAIRS, 100, 2)}, change=many) as found:
        found.set_faults(dropped_share=1)
        yield found


async def placed(pay: PaymentShop, *parts: TenderInput) -> list[RacingOrder]:
    """That many stored orders, one user each, whose provider has been asked."""
    made = [reservation(pay.shop.ids.new, pay.sale_id, {"a": 1}, user=f"u{n}", limits={"a": 2}) for n in range(PAIRS)]
    assert {answer.outcome for answer in await reserve(pay.shop.redis, pay.keys, *made)} == {ReserveOutcome.ACCEPTED}

    async def all_of(query: str) -> bool:
        return bool(await pay.fetch_value(query) == PAIRS)

    await eventually(lambda: all_of("SELECT count(*) FROM orders"))
    start = pay.gateway.services.payments.start
    begun = await asyncio.gather(*(start(one.order_id, one.user_id, parts) for one in made))
    await eventually(lambda: all_of("SELECT count(*) FROM payments WHERE action IS NOT NULL"))
    return [
        RacingOrder(one.order_id, one.user_id, view.payments[0].payment_id)
        for one, view in zip(made, begun, strict=True)
    ]


async def race(ends: Sequence[Sequence[Coroutine[Any, Any, Any]]]) -> list[Any]:
    """Both ends of each pair at once, many pairs together, in any order."""
    outcomes: list[Any] = []
    for first in range(0, len(ends), AT_ONCE):
        runners = [end for pair in ends[first : first + AT_ONCE] for end in pair]
        random.shuffle(runners)
        outcomes += await asyncio.gather(*runners)
    return outcomes


async def pay_and_deliver_webhook(pay: PaymentShop, method: str, payment_id: UUID, *, too_late: bool = False) -> None:
    """The customer pays, and the provider says so."""
    pay.pay_at_provider(method, payment_id, too_late=too_late)
    await deliver_webhook(pay, method, payment_id)


async def deliver_webhook(pay: PaymentShop, method: str, payment_id: UUID) -> None:
    status, text = await pay.send_webhook(method, pay.build_webhook(method, payment_id, webhook_id=payment_id.hex))
    assert (status, text) in ((200, "success"), (204, ""))


def handle_webhook(pay: PaymentShop, payment_id: UUID) -> Coroutine[Any, Any, str]:
    """The customer has paid, and Alipay's word for it is read and about to be entered: as near to the database as the
    other end of the race, which else would always come first."""
    pay.pay_at_provider("alipay", payment_id)
    callback, services = pay.build_webhook("alipay", payment_id, webhook_id=payment_id.hex), pay.gateway.services
    notice = services.providers["alipay"].read_webhook({}, callback.body, from_ms(services.clock.now_ms()))
    return services.payments.handle_webhook("alipay", notice, callback.body)


async def refusing(work: Awaitable[Any], *refusals: type[Exception]) -> str:
    """What became of it: done, or the refusal's name."""
    try:
        await work
    except refusals as refusal:
        return type(refusal).__name__
    return "done"


async def ended(pay: PaymentShop) -> Counter[str]:
    """Let the drivers finish, expire who never paid, check everything; how many orders ended in which way."""
    await pay.wait_until_idle()
    await pay.expire_orders()
    await pay.wait_until_idle()
    await pay.check_records()
    assert await pay.fetch_value("SELECT count(*) FROM payments WHERE parked OR status = 'pending'") == 0
    assert await pay.fetch_value("SELECT count(*) FROM refunds WHERE status <> 'done'") == 0
    audit = await pay.shop.audit.audit_sale(pay.sale_id)
    counts = Counter({row["status"]: row["count"] for row in await pay.fetch_rows(
        "SELECT status, count(*) FROM orders GROUP BY status"
    )})  # fmt: skip
    assert set(counts) <= {"paid", "cancelled"}
    assert (audit.total.sold, audit.total.held) == (counts["paid"], 0)
    assert audit.total.available == PAIRS - counts["paid"]
    return counts


async def test_expiry_against_callback(pay: PaymentShop) -> None:
    """Money comes in before the payment is closed, while it is closed, and after; and others want the goods that come
    back for a moment."""
    orders = await placed(pay, TenderInput("alipay", 100))
    crossing = {one.payment_id.hex for one in orders[1::3]}
    afterwards = {one.payment_id for one in orders[2::3]}
    sending: list[asyncio.Task[None]] = []
    close, stop = pay.payment_store.close_trade, asyncio.Event()

    def closing(provider: str, out_no: str) -> SimulatedTrade:
        trade = close(provider, out_no)
        if out_no in crossing:
            crossing.discard(out_no)
            pay.pay_at_provider(provider, out_no, too_late=True)
            sending.append(asyncio.create_task(deliver_webhook(pay, provider, UUID(out_no))))
        return trade

    async def too_late() -> None:
        query = "SELECT payment_id FROM payments WHERE status = 'closed' AND payment_id = ANY($1)"
        while afterwards:
            for row in await pay.fetch_rows(query, list(afterwards)):
                afterwards.discard(row["payment_id"])
                sending.append(
                    asyncio.create_task(pay_and_deliver_webhook(pay, "alipay", row["payment_id"], too_late=True))
                )

    async def greedy() -> None:
        got = 0
        while got < 20 and not stop.is_set():
            order = reservation(pay.shop.ids.new, pay.sale_id, {"a": 1}, user=f"greedy{got}", limits={"a": 2})
            got += (await reserve(pay.shop.redis, pay.keys, order))[0].outcome is ReserveOutcome.ACCEPTED

    pay.payment_store.close_trade = closing  # type: ignore[method-assign]
    others = [asyncio.create_task(too_late()), asyncio.create_task(greedy())]
    await race(
        [
            (
                pay.expire_orders(one.order_id),
                *([pay_and_deliver_webhook(pay, "alipay", one.payment_id)] if number % 3 == 0 else []),
            )
            for number, one in enumerate(orders)
        ]
    )
    await others[0]
    await asyncio.gather(*sending)
    await pay.wait_until_idle()
    stop.set()
    await others[1]
    await eventually(lambda: _drained(pay))
    counts = await ended(pay)
    again = await pay.fetch_value("SELECT count(*) FROM order_events WHERE from_status = 'cancelled'")
    refused = await pay.fetch_value("SELECT count(*) FROM releases WHERE status = 'refused'")
    assert pay.payment_store.totals("alipay")["captured"] == PAIRS
    assert again > 0, "no goods were taken again"
    assert refused > 0, "all goods could be taken again"
    assert counts["paid"] == PAIRS - pay.payment_store.totals("alipay")["refunds"]


async def _drained(pay: PaymentShop) -> bool:
    return (await lua.backlog(pay.shop.redis, pay.keys)).orders == 0


async def test_cancel_against_callback(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 30_000)  # nobody is to be quicker by asking
    orders = await placed(pay, TenderInput("alipay", 100))

    async def cancel(one: RacingOrder) -> str:
        actor = Actor(one.user, f"customer {one.user}")
        return await refusing(pay.gateway.services.orders.cancel(one.order_id, actor, [pay.sale_id], 0), CannotCancel)

    said = Counter(await race([(cancel(one), handle_webhook(pay, one.payment_id)) for one in orders]))
    counts = await ended(pay)
    assert counts == {"cancelled": said["done"], "paid": said["CannotCancel"]}
    assert min(counts.values()) > 5, f"one end always came first: {counts}"
    assert pay.payment_store.totals("alipay")["refunds"] == counts["cancelled"]


async def test_refund_against_refund(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice 70 of 100: under one key it is one refund, under two the second is refused; and then the rest, twice."""
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 100)  # the provider says at first that it is at it
    orders = await placed(pay, TenderInput("wechatpay", 100))
    await race([(pay_and_deliver_webhook(pay, "wechatpay", one.payment_id),) for one in orders])
    refund = pay.gateway.services.payments.refund

    def of(one: RacingOrder, key: str, amount: int | None) -> Coroutine[Any, Any, str]:
        return refusing(refund(one.order_id, key, amount, "broken", "staff sam"), RefundExceedsCaptured)

    said = Counter(
        await race([(of(one, "k", 70), of(one, "k" if n % 2 else "other", 70)) for n, one in enumerate(orders)])
    )
    assert said == {"done": PAIRS * 3 // 2, "RefundExceedsCaptured": PAIRS // 2}
    said = Counter(await race([(of(one, "rest", None), of(one, "all", None)) for one in orders[::2]]))
    assert said == {"done": PAIRS // 2, "RefundExceedsCaptured": PAIRS // 2}
    counts = await ended(pay)
    assert counts == {"paid": PAIRS}
    books = pay.payment_store.totals("wechatpay")
    assert (books["refunds"], books["refunds_amount"]) == (PAIRS * 3 // 2, PAIRS * 70 + PAIRS // 2 * 30)


async def test_another_way_against_callback(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The customer takes another way in the moment in which the first is paid. Some pay in the second way too."""
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 30_000)
    orders = await placed(pay, TenderInput("alipay", 100))
    start = pay.gateway.services.payments.start

    async def change(one: RacingOrder) -> str:
        return await refusing(start(one.order_id, one.user, [TenderInput("wechatpay", 100)]), NotPayable)

    said = Counter(await race([(change(one), handle_webhook(pay, one.payment_id)) for one in orders]))
    assert min(said["done"], said["NotPayable"]) > 5, f"one end always came first: {said}"
    await pay.wait_until_idle()
    second = await pay.fetch_rows("SELECT payment_id FROM payments WHERE method = 'wechatpay' AND status = 'pending'")
    assert len(second) == said["done"]
    for row in second[::2]:
        await pay_and_deliver_webhook(pay, "wechatpay", row["payment_id"])
    counts = await ended(pay)
    assert counts["paid"] == said["NotPayable"] + len(second[::2])
    assert pay.payment_store.totals("alipay")["refunds"] == said["done"]
