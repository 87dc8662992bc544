"""Exchanges: a replacement is reserved; a difference is paid, refunded, or ends in a return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest

from commerce.aftersales import case_exchanges
from commerce.aftersales.errors import CaseStatusConflict, NotReturnable
from commerce.aftersales.model import CaseKind
from commerce.exchanges import service as replacement_orders
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import Connection
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.service import Actor
from commerce.orders.store import OrderHeader
from commerce.refunds import service as refunds
from commerce.refunds.model import GrantLine, GrantRequest
from commerce.reservations import store as reservations
from commerce.sales.errors import OverLimit, SaleClosed, SoldOut
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from tests.support.exchange_shop import USER, ExchangeShop, open_exchange_shop
from tests.support.sales import reservation, reserve
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
async def swap(ship: ShippingShop, settings: Settings, sale_id: str) -> AsyncIterator[ExchangeShop]:
    """A shop that exchanges. After the test all audits are clean, also after a rebuild."""
    swap = await open_exchange_shop(ship, settings, sale_id)
    yield swap
    await swap.check()


async def grant_all(swap: ExchangeShop, order_id: UUID, quantity: int, **fields: object) -> int:
    """Refund units of the first line of an order. Returns the amount granted."""
    async with swap.shop.db.transaction() as connection:
        order = await lock(connection, order_id)
        request = GrantRequest("staff", None, "returned", "staff", [GrantLine(0, 0, quantity)])
        grant = await refunds.grant(connection, swap.shop.ids, order, request._replace(**fields), swap.now())
        return grant.amount


async def lock(connection: Connection, order_id: UUID) -> OrderHeader:
    order = await orders.lock_order(connection, order_id)
    assert order is not None
    return order


async def test_equal_exchange_moves_no_money(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    preview = await swap.preview(order_id, "a")
    assert (preview.total, preview.exchange.price, preview.exchange.to_pay, preview.exchange.to_refund) == (
        *(100, 100, 0, 0),
    )
    case_id = await swap.exchange(order_id, "a")
    assert await swap.cases.state(case_id) == ("resolved", "fixed", "warehouse")
    assert await swap.finish(case_id) == ["placed", "exchanged"]
    assert await swap.cases.state(case_id) == ("resolved", "done", "nobody")
    replacement = await swap.replacement(case_id)
    assert (replacement.status, replacement.total.amount, replacement.price.subtotal, replacement.price.discount) == (
        *(OrderStatus.PAID, 0, 100, 100),
    )
    assert [discount.label for discount in replacement.price.discounts] == [
        f"in exchange for units of order {order_id}"
    ]
    assert (await swap.cases.get(case_id)).case.exchange_order_id == replacement.order_id
    assert await swap.cases.refunded(order_id) == 0
    assert await swap.story(order_id) == [
        f"order {replacement.order_id} replaces the returned units",
        "the exchange is done: 1.00 CNY is taken off the new order",
    ]
    assert await swap.story(replacement.order_id) == [
        f"it replaces units of order {order_id}",
        "the exchange is done",
    ]
    await swap.deliver(replacement.order_id)
    assert (await swap.get(replacement.order_id)).status is OrderStatus.DELIVERED
    assert (await swap.stock())["a"] == 18


async def test_units_of_an_exchange_are_refunded_once(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "c")
    await swap.finish(case_id)
    assert await swap.cases.refunded(order_id) == 40
    assert await grant_all(swap, order_id, 1) == 100
    assert await swap.cases.refunded(order_id) == 140


async def test_cheaper_replacement_refunds_the_difference(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "c", 2)
    assert await swap.finish(case_id) == ["placed", "exchanged"]
    assert (await swap.cases.state(case_id))[1] == "granted"
    assert await swap.work(case_id) == ["done"]
    assert await swap.cases.refunded(order_id) == 80
    assert (await swap.replacement(case_id)).total.amount == 0


async def test_dearer_replacement_waits_for_its_payment(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    preview = await swap.preview(order_id, "b")
    assert (preview.exchange.to_pay, preview.exchange.to_refund) == (50, 0)
    case_id = await swap.exchange(order_id, "b")
    assert await swap.finish(case_id) == ["placed", "waiting"]
    assert await swap.cases.state(case_id) == ("resolved", "fixed", "customer")
    replacement = await swap.replacement(case_id)
    assert (replacement.status, replacement.total.amount) == (OrderStatus.AWAITING_PAYMENT, 50)
    assert (replacement.pay_by - replacement.accepted_at).days == 2
    with pytest.raises(CaseStatusConflict, match=f"order {replacement.order_id} replaces its units"):
        await swap.cases.act("reopen", case_id)
    assert await swap.cases.refunded(order_id) == 0
    await swap.pay(replacement.order_id)
    assert await swap.work(case_id) == ["exchanged"]
    assert await swap.cases.state(case_id) == ("resolved", "done", "nobody")
    assert await swap.cases.refunded(order_id) == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_unpaid_difference_ends_in_a_return(swap: ExchangeShop, is_cancelled: bool) -> None:
    """The time to pay passes, or the customer does not want it any more."""
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b")
    await swap.finish(case_id)
    replacement = await swap.replacement(case_id)
    if is_cancelled:
        await swap.shop.orders.cancel(replacement.order_id, Actor(USER, USER), [swap.sale_id], 0)
    else:
        await swap.expire(replacement.order_id)
    assert await swap.work(case_id) == ["refunded"]
    case = (await swap.cases.get(case_id)).case
    assert (case.kind, case.money_state) == (CaseKind.RETURN, "granted")
    assert await swap.cases.refunded(order_id) == 100
    assert (await swap.get(replacement.order_id)).cancel_reason == ("by_customer" if is_cancelled else "refunded")
    await swap.apply_releases()
    assert (await swap.stock())["b"] == 20
    assert await swap.work(case_id) == ["done"]
    await swap.pay(replacement.order_id)  # too late: it is refunded, and buys no units that are refunded already
    assert (await swap.get(replacement.order_id)).status is OrderStatus.CANCELLED
    assert await swap.credit() == 150


async def test_sold_out_in_between_ends_in_a_return(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b")
    await swap.shop.stock.change(swap.sale_id, swap.shop.ids.new(), StockChangeInput("b", -20, "lost"), "test")
    await swap.apply_releases()
    assert await swap.work(case_id) == ["refunded"]
    assert await swap.cases.refunded(order_id) == 100
    assert await swap.story(order_id) == [
        "the replacement cannot be reserved: it is sold out (b); the units are refunded instead"
    ]


async def test_closed_in_between_ends_in_a_return(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b")
    await swap.shop.sales.close(swap.sale_id, "test")
    await swap.apply_releases()
    assert await swap.work(case_id) == ["refunded"]
    assert await swap.cases.refunded(order_id) == 100


async def test_exchange_that_cannot_be_is_refused_with_a_remedy(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    lines = await swap.lines(order_id, "b", 1)
    case_id = await swap.cases.request(order_id, kind=CaseKind.EXCHANGE, lines=lines)
    await swap.shop.stock.change(swap.sale_id, swap.shop.ids.new(), StockChangeInput("b", -20, "lost"), "test")
    with pytest.raises(SoldOut, match="ask for a return"):
        await swap.cases.approve(case_id)
    preview = await swap.preview(order_id, "b")
    assert [obstacle.code for obstacle in preview.obstacles] == ["sold_out"]
    with pytest.raises(NotReturnable, match="left"):
        await swap.cases.request(order_id, kind=CaseKind.EXCHANGE, lines=lines)
    await swap.shop.stock.change(swap.sale_id, swap.shop.ids.new(), StockChangeInput("b", 20, "found"), "test")
    await swap.shop.sales.close(swap.sale_id, "test")
    with pytest.raises(SaleClosed):
        await swap.cases.approve(case_id)


async def test_returned_unit_frees_the_limit_of_its_replacement(swap: ExchangeShop) -> None:
    """The customer has as many of `a` as one may have: another one replaces one, and does not come on top."""
    order_id = await swap.add_delivered("a", 4)
    case_id = await swap.exchange(order_id, "a", 1)
    assert await swap.work(case_id) == ["waiting"]  # its release is not applied yet
    assert await swap.finish(case_id) == ["placed", "exchanged"]


async def test_limit_of_another_sku_refuses_an_exchange(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("c", 1)
    full = reservation(swap.shop.ids.new, swap.sale_id, {"a": 4}, user=USER, limits={"a": 4})
    await reserve(swap.shop.redis, swap.keys, full)
    lines = await swap.lines(order_id, "a", 1)
    with pytest.raises(NotReturnable, match="one customer may buy 4"):
        await swap.cases.request(order_id, kind=CaseKind.EXCHANGE, lines=lines)
    assert OverLimit.code in [obstacle.code for obstacle in (await swap.preview(order_id, "a")).obstacles]


WRONG_EXCHANGES = {
    "more is taken off than was paid": "UPDATE exchanges SET credit_minor = credit_minor - 1",
    "the rest is not refunded": "UPDATE refund_grants SET amount_minor = amount_minor - 1",
    "the units are refunded as well": "UPDATE exchanges SET status = 'returned'",
    "nobody has exchanged anything": "DELETE FROM exchanges",
}


@pytest.mark.parametrize("name", WRONG_EXCHANGES)
async def test_wrong_exchange_is_found(ship: ShippingShop, settings: Settings, sale_id: str, name: str) -> None:
    swap = await open_exchange_shop(ship, settings, sale_id)
    case_id = await swap.exchange(await swap.add_delivered("a", 1), "c")
    await swap.finish(case_id)
    await swap.check()
    async with swap.shop.db.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(WRONG_EXCHANGES[name])
    audits = [await swap.shop.audit.audit_sale(sale_id)]
    if "refund" not in name or "well" in name:  # grants leave no marks
        audits.append(await swap.shop.audit.audit_changes(sale_id))
    for audit in audits:
        assert "P6" in {finding.promise for finding in audit.findings}


class Crash(Exception):
    """A process that dies at a failpoint."""


@pytest.mark.parametrize("name", ["exchange.after_reserve", "exchange.before_link", "exchange.before_commit"])
async def test_crash_between_steps_changes_nothing_twice(
    swap: ExchangeShop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "c")
    await swap.apply_releases()

    def crash(passed: str) -> None:
        if passed == name:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(case_exchanges, "failpoint", crash)
        await swap.work(case_id, 2)
        await swap.write()
        await swap.work(case_id, 2)
    await swap.work(case_id, 2)
    await swap.write()
    await swap.work(case_id, 3)
    assert await swap.cases.state(case_id) == ("resolved", "done", "nobody")
    assert await swap.cases.refunded(order_id) == 40
    assert (await swap.stock())["c"] == 19


async def test_lost_answer_of_redis_is_no_refusal(swap: ExchangeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis has placed the replacement, and its answer is lost: nothing is refunded before that is known."""
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b")
    await swap.apply_releases()
    real: Callable[..., object] = replacement_orders.lua.reserve

    async def lose(*values: object) -> object:
        await real(*values)  # type: ignore[misc]
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(replacement_orders.lua, "reserve", lose)
        assert await swap.work(case_id) == ["waiting"]
        await swap.ship.fetch_rows("UPDATE cases SET due_at = now() - interval '1 day' RETURNING 1")
        assert await swap.work(case_id) == ["waiting"]
    case = (await swap.cases.get(case_id)).case
    assert (case.is_escalated, case.waits_for) == (True, "staff")
    assert await swap.work(case_id) == ["placed"]
    await swap.write()
    await swap.pay((await swap.replacement(case_id)).order_id)
    assert (await swap.work(case_id, 2))[-1] == "exchanged"
    assert (await swap.stock())["b"] == 19


async def test_unloaded_sale_is_waited_for(swap: ExchangeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b")
    await swap.apply_releases()

    async def refuse(*_: object) -> str:
        raise NotReady("it is being loaded")

    with monkeypatch.context() as patched:
        patched.setattr(replacement_orders.ReplacementOrders, "place", refuse)
        assert await swap.work(case_id) == ["waiting"]
    assert await swap.work(case_id) == ["placed"]


async def test_replacement_that_is_returned_refunds_its_true_value(swap: ExchangeShop) -> None:
    """Both payments return what was paid for it, in parts and to the last fen."""
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "b", 2)
    await swap.finish(case_id)
    replacement_id = (await swap.replacement(case_id)).order_id
    await swap.pay(replacement_id)
    assert await swap.work(case_id) == ["exchanged"]
    await swap.deliver(replacement_id)
    returned = await swap.cases.request(replacement_id, 1)
    await swap.cases.approve(returned)
    await swap.cases.receive(returned, (1, 0, 0))
    await swap.cases.act("resolve", returned)
    assert (await swap.cases.get(returned)).case.amount == 150
    assert (await swap.cases.refunded(replacement_id), await swap.cases.refunded(order_id)) == (50, 100)
    assert await swap.work(returned) == ["done"]
    assert await grant_all(swap, replacement_id, 1) == 150
    assert (await swap.cases.refunded(replacement_id), await swap.cases.refunded(order_id)) == (100, 200)
    assert await swap.credit() == 300


async def test_money_behind_a_replacement_is_not_refunded_with_the_first_order(swap: ExchangeShop) -> None:
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, "a", 1)
    await swap.finish(case_id)
    replacement_id = (await swap.replacement(case_id)).order_id
    assert await grant_all(swap, order_id, 1, lines="rest", kind="staff") == 100
    assert await swap.cases.refunded(order_id) == 100
    assert await grant_all(swap, replacement_id, 1) == 100
    assert await swap.cases.refunded(order_id) == 200


async def test_exchange_of_an_exchange_goes_back_to_the_first_payment(swap: ExchangeShop) -> None:
    first = await swap.add_delivered("a", 1)
    case_id = await swap.exchange(first, "b")
    await swap.finish(case_id)
    second = (await swap.replacement(case_id)).order_id
    await swap.pay(second)
    await swap.work(case_id)
    await swap.deliver(second)
    case_id = await swap.exchange(second, "c")
    assert await swap.finish(case_id) == ["placed", "exchanged"]
    third = (await swap.replacement(case_id)).order_id
    paid = await swap.cases.refunded(first) + await swap.cases.refunded(second)
    assert paid == 90
    assert await grant_all(swap, third, 1) == 60
    assert await swap.cases.refunded(first) + await swap.cases.refunded(second) == 150
    assert await swap.cases.refunded(third) == 0


async def test_replacement_cancelled_while_the_exchange_completes_keeps_the_money(swap: ExchangeShop) -> None:
    """Whichever is first, the customer gets what was paid, once."""
    order_id = await swap.add_delivered("a", 1)
    case_id = await swap.exchange(order_id, "a")
    await swap.apply_releases()
    await swap.work(case_id)
    await swap.write()
    replacement_id = (await swap.exchange_of(case_id)).replacement_id

    async def cancel() -> None:
        async with swap.shop.db.transaction() as connection:
            order = await lock(connection, replacement_id)
            request = GrantRequest("cancellation", swap.shop.ids.new(), "cancelled", "staff", "rest")
            await reservations.cancel_sold(connection, order, swap.now(), "by_staff", "staff", "cancelled")
            await refunds.grant(connection, swap.shop.ids, order, request, swap.now())

    await asyncio.gather(cancel(), swap.work(case_id))
    await swap.work(case_id, 2)
    assert await swap.cases.refunded(order_id) == 100
    assert (await swap.cases.state(case_id))[2] == "nobody"


async def test_exchange_without_returned_units_is_refunded(swap: ExchangeShop) -> None:
    """The shop's carrier has lost them, or staff let the customer keep them."""
    order_id = await swap.add_delivered("a", 2)
    lines = await swap.lines(order_id, "b", 1)
    case_id = await swap.cases.request(order_id, kind=CaseKind.EXCHANGE, lines=lines)
    await swap.cases.approve(case_id)
    await swap.cases.act("resolve", case_id)
    case = (await swap.cases.get(case_id)).case
    assert (case.status, case.kind, case.items_back) == ("resolved", "refund_only", False)
    assert await swap.cases.refunded(order_id) == 100
