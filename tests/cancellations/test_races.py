"""Cancellations at the same moment as each other, as bookings and as pick-ups: each unit has one fate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID

from commerce.kernel.errors import ProblemError
from tests.cancellations.test_cancellations import cancel, list_releases, read_order, sum_refunds
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event
from tests.support.staff_refunds import refund_as_staff

ORDERS = 12


async def attempt(action: Awaitable[Any]) -> str:
    try:
        await action
    except ProblemError as error:
        return error.code
    return "done"


async def count_released(ship: ShippingShop, order_id: UUID) -> int:
    return sum(sum(units.values()) for units, _ in await list_releases(ship, order_id))


async def test_customer_and_staff_at_once_cancel_each_unit_once(ship: ShippingShop) -> None:
    order_ids = [await ship.add_order(("a", 3, 0)) for _ in range(ORDERS)]
    actions = [
        attempt(action)
        for id_ in order_ids
        for action in (
            cancel(ship, id_, (0, 2), key="a"),
            cancel(ship, id_, (0, 2), key="a"),
            cancel(ship, id_, (0, 2), user=None, key="b"),
            cancel(ship, id_),
        )
    ]
    results = await asyncio.gather(*actions)
    assert set(results) <= {"done", "not_cancellable", "cannot_cancel"}
    await ship.work_until_idle()
    for order_id in order_ids:
        assert await sum_refunds(ship, order_id) == 3 * PRICE
        assert await count_released(ship, order_id) == 3
        assert (await read_order(ship, order_id))[0] == "cancelled"


async def test_cancel_and_booking_at_once_end_cancelled(ship: ShippingShop) -> None:
    order_ids = [await ship.add_order(("a", 2, 0)) for _ in range(ORDERS)]
    for job in await ship.claim():
        await ship.work_on(job)
    bookings = [ship.work_on(job) for job in await ship.claim()]
    await asyncio.gather(*bookings, *(attempt(cancel(ship, order_id)) for order_id in order_ids))
    await ship.make_all_due()
    await ship.work_until_idle()
    assert not ship.carriers["cheap"].current_bookings
    for order_id in order_ids:
        assert await read_order(ship, order_id) == ("cancelled", "by_customer")
        assert await sum_refunds(ship, order_id) == 2 * PRICE


async def test_cancel_and_pick_up_at_once_cancel_or_deliver(ship: ShippingShop) -> None:
    booked = [await ship.add_booked_order(("a", 2, 0)) for _ in range(ORDERS)]
    picked_up = [
        attempt(ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -1)))
        for _, [shipment] in booked[: ORDERS // 2]
    ]
    results = await asyncio.gather(*picked_up, *(attempt(cancel(ship, order_id)) for order_id, _ in booked))
    assert set(results) <= {"done", "cannot_cancel"}
    await ship.make_all_due()
    await ship.work_until_idle()
    for number, (order_id, _) in enumerate(booked):
        [shipment] = await ship.list_shipments(order_id)
        is_kept = number < ORDERS // 2
        assert shipment.status == ("picked_up" if is_kept else "cancelled")
        assert (await read_order(ship, order_id))[0] == ("shipped" if is_kept else "cancelled")
        assert await sum_refunds(ship, order_id) == (0 if is_kept else 2 * PRICE)


async def test_cancel_and_full_refund_at_once_refund_once(ship: ShippingShop) -> None:
    order_ids = [await ship.add_order(("a", 2, 0)) for _ in range(ORDERS)]
    refunds = [refund_as_staff(ship.shop, order_id) for order_id in order_ids]
    await asyncio.gather(
        *(attempt(refund) for refund in refunds), *(attempt(cancel(ship, order_id)) for order_id in order_ids)
    )
    await ship.work_until_idle()
    for order_id in order_ids:
        assert (await read_order(ship, order_id))[0] == "cancelled"
        assert await sum_refunds(ship, order_id) == 2 * PRICE
        assert await count_released(ship, order_id) == 2
