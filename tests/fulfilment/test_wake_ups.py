"""Changes that make orders and shipments due wake their worker with the commit."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from commerce.kernel.clock import from_ms
from commerce.payments import store as payments
from commerce.payments.order_status import NewRefund
from commerce.payments.refund_store import insert_refunds
from tests.support.shipping_shop import SHANGHAI, ShippingShop


async def test_payment_plan_and_refund_wake_fulfilment_worker(ship: ShippingShop) -> None:
    woken: list[set[str]] = []

    def note(names: Collection[str | UUID]) -> None:
        woken.append({name for name in names if isinstance(name, str)})  # others are orders that somebody watches

    ship.shop.db.on_commit = note
    order_id = await ship.add_order()
    assert woken.pop() == {"fulfilments"}, "the order is paid"
    assert await ship.work_on(await ship.claim_one()) == "planned"
    assert {"shipments"} in woken, "its shipment can be booked"
    await ship.work_until_idle()
    woken.clear()
    [payment] = await ship.fetch_rows("SELECT payment_id FROM payments WHERE order_id = $1", order_id)
    async with ship.shop.db.transaction() as connection:
        captured = await payments.get_payment(connection, payment["payment_id"])
        assert captured is not None
        now = from_ms(ship.shop.clock.now_ms())
        refund = NewRefund(captured, "k", 100, "r", "test")
        assert await insert_refunds(connection, {ship.shop.ids.new(): refund}, now)
    assert woken == [{"cancellations", "refunds"}], "perhaps its shipments must be stopped"
    assert await ship.work_until_idle() == ["advanced", "cancelled", "cancelled"]


async def test_staff_actions_wake_fulfilment_worker(ship: ShippingShop) -> None:
    woken: list[Collection[str | UUID]] = []
    _, [booked] = await ship.add_booked_order()
    _, [byhand] = await ship.add_booked_order(ship_to=[SHANGHAI])
    ship.shop.db.on_commit = woken.append
    await ship.fulfilment.pack(byhand.shipment_id, "BH-0001", "dan")
    await ship.fulfilment.hold(booked.shipment_id, "wait", "dan")
    await ship.fulfilment.resume(booked.shipment_id, "dan")
    await ship.fulfilment.cancel(booked.shipment_id, "not wanted", "dan")
    assert [set(queues) for queues in woken] == [{"shipments"}] * 3, "a hold makes nothing due"
