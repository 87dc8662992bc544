"""P6: earlier payments behind a replacement count for its refunds, its cash and its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from commerce.orders.model import OrderStatus
from config.settings import Settings
from tests.aftersales.test_exchanges import grant_all
from tests.support.exchange_shop import ExchangeShop, open_exchange_shop
from tests.support.shipping_shop import ShippingShop, tracking_event


@pytest.fixture
async def swap(ship: ShippingShop, settings: Settings, sale_id: str) -> AsyncIterator[ExchangeShop]:
    """A shop that exchanges. After the test all audits are clean, also after a rebuild."""
    swap = await open_exchange_shop(ship, settings, sale_id)
    yield swap
    await swap.check()


async def exchange(swap: ExchangeShop, wanted: str, method: str = "balance") -> tuple[UUID, UUID]:
    """Deliver two units and exchange one. Returns the order and its replacement."""
    order_id = await swap.add_delivered("a", 2)
    case_id = await swap.exchange(order_id, wanted)
    await swap.finish(case_id)
    replacement = await swap.replacement(case_id)
    if replacement.status is OrderStatus.AWAITING_PAYMENT:
        await swap.pay(replacement.order_id, method)
        await swap.work(case_id)
    return order_id, replacement.order_id


async def test_refund_over_earlier_payments_leaves_the_cash_of_a_replacement_due(swap: ExchangeShop) -> None:
    order_id, replacement_id = await exchange(swap, "b", "cod")
    assert await grant_all(swap, replacement_id, 1, lines=[], amount_override=30) == 30
    assert await swap.cases.refunded(order_id) == 30, "its own payment is still due"
    await swap.ship.work_until_idle()
    [shipment] = await swap.ship.list_shipments(replacement_id)
    assert shipment.cod_minor == 50
    await swap.ship.apply_events(shipment.shipment_id, tracking_event("delivered"))
    await swap.ship.work_until_idle()
    query = "SELECT status, captured_minor(payments) FROM payments WHERE order_id = $1"
    assert [tuple(row) for row in await swap.ship.fetch_rows(query, replacement_id)] == [("captured", 50)]


async def test_replacement_is_sent_while_money_stands_behind_it(swap: ExchangeShop) -> None:
    """All of its own payment is refunded, and not what was paid for the units that it replaces."""
    _, replacement_id = await exchange(swap, "b")
    assert await grant_all(swap, replacement_id, 1, lines=[], amount_override=50, strategy="first") == 50
    await swap.deliver(replacement_id)
    assert (await swap.get(replacement_id)).status is OrderStatus.DELIVERED


@pytest.mark.parametrize("wanted", ["a", "b"])
async def test_replacement_that_is_refunded_whole_is_cancelled(swap: ExchangeShop, wanted: str) -> None:
    """Also one of 0, which has no payments of its own."""
    order_id, replacement_id = await exchange(swap, wanted)
    if wanted == "b":
        await swap.ship.work_until_idle()  # its shipment is booked before
    amount = await grant_all(swap, replacement_id, 1, lines="rest", freight="rest")
    assert amount == {"a": 100, "b": 150}[wanted]
    assert await swap.cases.refunded(order_id) == 100
    await swap.ship.work_until_idle()
    replacement = await swap.get(replacement_id)
    assert (replacement.status, replacement.cancel_reason) == (OrderStatus.CANCELLED, "refunded")
    await swap.apply_releases()
    assert (await swap.stock())[wanted] == {"a": 19, "b": 20}[wanted]
