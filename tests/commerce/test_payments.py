"""How an order gets paid: each way, several ways together, another way after all, providers that do not answer."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from commerce.payments import payment_jobs
from commerce.payments.errors import NotPayable
from commerce.payments.model import TenderInput
from commerce.payments.provider_port import PaymentFlow
from ops.sandbox.server import PROVIDERS
from ops.services import CliServices
from tests.support.payment_shop import PaymentShop, open_payment_shop, with_job_settings
from tests.support.sales import eventually

pytestmark = pytest.mark.usefixtures("short_polls")


async def begin(pay: PaymentShop, order_id: UUID, user: str, part: TenderInput) -> dict[str, Any]:
    """Begin to pay with more to say than the method; the payment once its provider has been asked."""
    await pay.gateway.services.payments.start(order_id, user, [part])

    async def look() -> dict[str, Any] | None:
        [found] = await pay.payments(order_id, user)
        return found if found["action"] else None

    found = await eventually(look)
    assert found is not None
    return found


SCENES: list[tuple[Any, PaymentFlow, str]] = [
    ("alipay", "qr", "qr"),
    ("alipay", "page", "redirect"),
    ("alipay", "app", "app"),
    ("wechatpay", "qr", "qr"),
    ("wechatpay", "jsapi", "jsapi"),
]


async def test_paid_outside(pay: PaymentShop) -> None:
    """In each scene of each provider."""
    for method, scene, kind in SCENES:
        await _paid_outside(pay, method, scene, kind)


async def _paid_outside(pay: PaymentShop, method: Any, scene: PaymentFlow, kind: str) -> None:
    user = f"{method}-{scene}"
    order_id = await pay.order(user=user)
    payer = "openid-7" if scene == "jsapi" else None
    payment = await begin(pay, order_id, user, TenderInput(method, 100, scene, payer))
    action = payment["action"]
    assert (action["kind"], payment["status"], payment["amount"]["amount"]) == (kind, "pending", 100)
    if kind in ("redirect", "app"):  # the provider hears of it from the customer
        gateway = pay.settings.payments.alipay
        assert gateway is not None
        url = action["url"] or f"{gateway.gateway_url}?{action['parameters']['order_string']}"
        async with pay.gateway.client.get(url, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
    pay.pays(method, payment["payment_id"])
    await pay.order_is(order_id, "paid")
    [paid] = await pay.payments(order_id, user)
    assert (paid["status"], paid["action"], paid["refunded"]) == ("captured", None, 0)
    lines = await pay.rows("SELECT account, amount_minor FROM ledger WHERE order_id = $1 ORDER BY account", order_id)
    assert [tuple(line) for line in lines] == [("orders", -100), (f"provider:{method}", 100)]
    events = await pay.rows("SELECT to_status, actor, reason FROM order_events WHERE order_id = $1", order_id)
    assert [tuple(event) for event in events] == [("paid", "payment_worker", "all of it is paid")]


async def test_paid_with_store_credit(pay: PaymentShop) -> None:
    await pay.gift(130)
    order_id, [payment] = await pay.ordered(("balance", 100))
    assert (payment["status"], await pay.credit()) == ("captured", 30)
    await pay.order_is(order_id, "paid")
    other, [refused] = await pay.ordered(("balance", 100))
    assert (refused["status"], refused["reason"]) == ("failed", "there is not enough store credit")
    assert await pay.credit() == 30
    await pay.order_is(other, "awaiting_payment")


async def test_paid_on_delivery(pay: PaymentShop) -> None:
    """Confirmed instead of paid; the cash is entered when it is collected."""
    order_id, [payment] = await pay.ordered(("cod", 100))
    assert payment["status"] == "authorised"
    await pay.order_is(order_id, "confirmed")
    assert await pay.shop.audit.sum_ledger() == {}
    await pay.staff("POST", f"/payments/{payment['payment_id']}/cash-collected")
    assert await pay.value("SELECT amount_minor FROM ledger WHERE account = 'cash'") == 100


@pytest.mark.parametrize(
    ("ours", "outside", "status"), [("balance", "alipay", "paid"), ("cod", "wechatpay", "confirmed")]
)
async def test_paid_in_two_ways(pay: PaymentShop, ours: str, outside: str, status: str) -> None:
    """Not before all parts are there."""
    await pay.gift(500)
    order_id, payments = await pay.ordered((ours, 30), (outside, 70))
    assert [one["status"] for one in payments] == ["captured" if ours == "balance" else "authorised", "pending"]
    assert await pay.value("SELECT status FROM orders") == "awaiting_payment"
    pay.pays(outside, payments[1]["payment_id"])
    await pay.order_is(order_id, status)
    assert await pay.credit() == (470 if ours == "balance" else 500)


async def test_as_was_said_when_it_was_placed(pay: PaymentShop) -> None:
    plan = [{"method": "alipay", "amount": 40}, {"method": "wechatpay", "amount": 60}]
    order_id = await pay.order(payments=plan)
    payments = await pay.start(order_id)
    assert [(one["method"], one["amount"]["amount"]) for one in payments] == [("alipay", 40), ("wechatpay", 60)]
    for one in payments:
        pay.pays(one["method"], one["payment_id"])
    await pay.order_is(order_id, "paid")


async def test_when_one_part_fails_the_others_go_back(pay: PaymentShop) -> None:
    """By themselves; and as long as there is time, the customer pays in another way."""
    await pay.gift(20)
    order_id, payments = await pay.ordered(("balance", 20), ("alipay", 30), ("wechatpay", 50))
    pay.pays("alipay", payments[1]["payment_id"])
    await pay.payment_is(payments[1]["payment_id"], "captured")
    pay.bank.close_trade("wechatpay", UUID(payments[2]["payment_id"]).hex)  # the customer refuses
    await pay.payment_is(payments[2]["payment_id"], "closed")
    await pay.quiet()
    balance, alipay, wechatpay = await pay.payments(order_id)
    assert [one["refunded"] for one in (balance, alipay, wechatpay)] == [20, 30, 0]
    assert [one["reason"] for one in alipay["refunds"]] == ["another part of the order was not paid"]
    assert await pay.credit() == 20
    [again] = await pay.start(order_id, ("alipay", 100))
    pay.pays("alipay", again["payment_id"])
    await pay.order_is(order_id, "paid")


async def test_what_is_closed_for_another_part_and_paid_all_the_same(pay: PaymentShop) -> None:
    """Its money comes when that of the other part is on its way back: together they pay for nothing."""
    order_id, [one, other] = await pay.ordered(("alipay", 40), ("wechatpay", 60))
    pay.pays("alipay", one["payment_id"])
    await pay.payment_is(one["payment_id"], "captured")
    pay.bank.close_trade("wechatpay", UUID(other["payment_id"]).hex)
    await pay.payment_is(other["payment_id"], "closed")
    await pay.quiet()
    pay.pays("wechatpay", other["payment_id"], too_late=True)
    await pay.payment_is(other["payment_id"], "captured")
    await pay.quiet()
    assert await pay.value("SELECT status FROM orders") == "awaiting_payment"
    assert [payment["refunded"] for payment in await pay.payments(order_id)] == [40, 60]


async def test_too_little_credit_closes_the_rest_at_the_provider(pay: PaymentShop) -> None:
    order_id, [_, alipay] = await pay.ordered(("balance", 30), ("alipay", 70))
    await pay.payment_is(alipay["payment_id"], "closed")
    await pay.quiet()
    assert pay.trade_state("alipay", alipay["payment_id"]) in ("closed", None)
    await pay.order_is(order_id, "awaiting_payment")


async def test_another_way_after_all(pay: PaymentShop) -> None:
    """The first is closed at its provider; money that comes in on it all the same goes back."""
    order_id, [first] = await pay.ordered(("alipay", 100))
    [second] = await pay.start(order_id, ("wechatpay", 100))
    await pay.payment_is(first["payment_id"], "closed")
    assert pay.trade_state("alipay", first["payment_id"]) == "closed"
    pay.pays("wechatpay", second["payment_id"])
    await pay.order_is(order_id, "paid")
    pay.pays("alipay", first["payment_id"], too_late=True)
    await pay.payment_is(first["payment_id"], "captured")
    await pay.quiet()
    old, new = await pay.payments(order_id)
    assert (old["current"], old["refunded"], new["current"], new["refunded"]) == (False, 100, True, 0)
    assert [refund["reason"] for refund in old["refunds"]] == ["it was replaced by another"]


async def test_the_same_credit_in_another_mixture(pay: PaymentShop) -> None:
    """What the first mixture took of the store credit is there for the second."""
    await pay.gift(60)
    order_id, [_, alipay] = await pay.ordered(("balance", 60), ("alipay", 40))
    balance, wechatpay = await pay.start(order_id, ("balance", 60), ("wechatpay", 40))
    assert balance["status"] == "captured", balance["reason"]
    pay.pays("wechatpay", wechatpay["payment_id"])
    await pay.order_is(order_id, "paid")
    await pay.payment_is(alipay["payment_id"], "closed")
    assert await pay.credit() == 0


async def test_the_same_again_is_the_same(pay: PaymentShop) -> None:
    order_id = await pay.order()
    parts = [TenderInput("alipay", 40), TenderInput("wechatpay", 60)]
    answers = await asyncio.gather(*(pay.gateway.services.payments.start(order_id, "user", parts) for _ in range(20)))
    assert len({tuple(one.payment_id for one in answer.payments) for answer in answers}) == 1
    payments = await pay.start(order_id, ("alipay", 40), ("wechatpay", 60))
    for one in payments:
        pay.pays(one["method"], one["payment_id"])
    await pay.order_is(order_id, "paid")
    again = await pay.start(order_id, ("alipay", 40), ("wechatpay", 60))
    assert [one["payment_id"] for one in again] == [one["payment_id"] for one in payments]
    with pytest.raises(NotPayable):
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput("alipay", 100)])
    assert await pay.value("SELECT count(*) FROM payments") == 2


async def test_polling_alone_is_enough(pay: PaymentShop) -> None:
    pay.switch(never_share=1)
    order_id, _ = await pay.paid(("alipay", 40), ("wechatpay", 60))
    await pay.staff("POST", f"/orders/{order_id}/refunds", json={"idempotency_key": "k", "reason": "broken"})
    await pay.quiet()
    assert [one["refunded"] for one in await pay.payments(order_id)] == [40, 60]
    assert await pay.value("SELECT count(*) FROM payment_webhooks") == 0


async def test_callbacks_alone_are_enough(pay: PaymentShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_jobs, "_MIN_POLL_INTERVAL_MS", 30_000)
    await pay.paid(("alipay", 40), ("wechatpay", 60))
    results = await pay.rows("SELECT method, result FROM payment_webhooks ORDER BY method")
    assert [tuple(row) for row in results] == [("alipay", "captured"), ("wechatpay", "captured")]
    assert await pay.value("SELECT max(attempts) FROM payments") == 0, "somebody asked the provider"


@pytest.mark.parametrize("method", PROVIDERS)
async def test_paid_before_the_answer_to_its_creation_came(shop: CliServices, sale_id: str, method: str) -> None:
    """The answer is lost, the customer pays, the provider refuses to make it a second time: it is paid, not failed."""
    async with open_payment_shop(shop, sale_id, change=with_job_settings(call_timeout_s=0.4)) as pay:
        order_id = await pay.order()
        pay.switch(approve="auto", pay_after_ms=0, never_share=1, slow_share=1, slow_ms=700)
        await pay.gateway.services.payments.start(order_id, "user", [TenderInput(method, 100)])  # type: ignore[arg-type]

        async def charged() -> bool:
            return bool(pay.bank.totals(method)["captured"])

        await eventually(charged)
        assert await pay.value("SELECT task FROM payments") == "create"
        pay.switch(never_share=1)
        await pay.order_is(order_id, "paid")
        await pay.quiet()
        await pay.check()


async def test_a_provider_that_is_down_is_left_alone(shop: CliServices, sale_id: str) -> None:
    """The breaker opens; the other provider works; nothing is lost or parked, and it goes on by itself."""
    change = with_job_settings(breaker_failures=5, breaker_open_s=0.5, max_attempts=30, backoff_max_s=0.1)
    async with open_payment_shop(shop, sale_id, change=change) as pay:
        pay.switch()
        pay.sandbox.switch("alipay", pay.sandbox.board.of("alipay").__class__(down=True, callback_ms=0))
        orders = [await pay.order(user=f"u{n}") for n in range(8)]
        start = pay.gateway.services.payments.start
        await asyncio.gather(*(start(id_, f"u{n}", [TenderInput("alipay", 100)]) for n, id_ in enumerate(orders)))

        async def left_alone() -> bool:
            return REGISTRY.get_sample_value("floodgate_breaker_open", labels) == 1

        async def tried(count: int = 0) -> int:
            found = int(await pay.value("SELECT sum(attempts) FROM payments WHERE method = 'alipay'"))
            return found if found >= count else 0

        labels = {"driver": "payment", "system": "alipay"}
        await eventually(left_alone)
        before, clock = await tried(), pay.shop.clock
        since = clock.monotonic()
        await eventually(lambda: tried(before + 3))
        assert clock.monotonic() - since > 0.8, "it is asked more than once in half a second"
        await pay.paid(("wechatpay", 100), user="somebody")
        pay.switch(approve="auto", pay_after_ms=0)
        for order_id in orders:
            await pay.order_is(order_id, "paid")
        assert await pay.value("SELECT count(*) FROM payments WHERE parked") == 0
        await pay.quiet()
        await pay.check()
