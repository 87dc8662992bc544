"""Cancellations after paying: units, shipments, money, stock and the order's status follow."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import orjson
import pytest

from commerce.cancellations.errors import NotCancellable
from commerce.cancellations.model import CancelledOrder, CancelRequest, UnitsToCancel
from commerce.cancellations.open_cancellations import OpenCancellations
from commerce.kernel.errors import Invalid, KeyReused
from commerce.orders.errors import CannotCancel, NoSuchOrder
from commerce.refunds.model import RefundLineInput
from commerce.shipping.errors import InvalidShipmentState
from tests.support.fake_carrier import refusal
from tests.support.shipping_shop import PRICE, ShippingShop, tracking_event
from tests.support.staff_refunds import refund_as_staff

UNKNOWN_ID = UUID(int=7)


async def cancel(
    ship: ShippingShop,
    order_id: UUID,
    *lines: tuple[int, int],
    user: str | None = "user",
    key: str | None = None,
) -> CancelledOrder:
    """Cancel an order, or units of (line no, quantity), as its customer or (None) as staff."""
    units = [UnitsToCancel(line_no, quantity) for line_no, quantity in lines]
    actor = f"customer {user}" if user else "staff dan"
    request = CancelRequest(order_id, actor, user, "not wanted", units or None, key)
    return await ship.cancellations.cancel(request, [], 0)


async def outcome(cancelled: CancelledOrder) -> tuple[str, list[tuple[int, int, int]]]:
    assert cancelled.cancellation is not None
    lines = [(line.quantity, line.cancelled, line.kept) for line in cancelled.cancellation.lines]
    return cancelled.cancellation.status, lines


async def read_order(ship: ShippingShop, order_id: UUID) -> tuple[str, str | None]:
    [row] = await ship.fetch_rows("SELECT status, cancel_reason FROM orders WHERE order_id = $1", order_id)
    return tuple(row)  # type: ignore[return-value]


async def sum_refunds(ship: ShippingShop, order_id: UUID) -> int:
    query = "SELECT coalesce(sum(amount_minor), 0)::bigint FROM refunds WHERE order_id = $1 AND status <> 'failed'"
    return int(await ship.fetch_value(query, order_id))


async def list_releases(ship: ShippingShop, order_id: UUID) -> list[tuple[dict[str, int], dict[str, int]]]:
    """List (units, written off) of the releases of an order, in sequence."""
    query = (
        "SELECT units, written_off FROM releases WHERE release_id = $1 OR part_of = $1 ORDER BY created_at, release_id"
    )
    rows = await ship.fetch_rows(query, order_id)
    return [(_load(row["units"]), _load(row["written_off"])) for row in rows]


def _load(value: str | None) -> dict[str, int]:
    return orjson.loads(value) if value else {}


async def statuses(ship: ShippingShop, order_id: UUID) -> Sequence[str]:
    return [shipment.status.value for shipment in await ship.list_shipments(order_id)]


async def test_paid_order_is_cancelled_at_once_with_money_and_stock(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 2, 0), ("c", 1, 0))
    cancelled = await cancel(ship, order_id)
    assert (cancelled.status, cancelled.cancel_reason) == ("cancelled", "by_customer")
    assert await outcome(cancelled) == ("done", [(2, 2, 0), (1, 1, 0)])
    assert await sum_refunds(ship, order_id) == 3 * PRICE
    assert await list_releases(ship, order_id) == [({"a": 2, "c": 1}, {})]
    again = await cancel(ship, order_id)
    assert (again.status, again.cancellation) == ("cancelled", cancelled.cancellation)
    assert await ship.work_until_idle() == []
    assert await statuses(ship, order_id) == []
    with pytest.raises(CannotCancel, match="nothing of it is left to cancel"):
        await cancel(ship, order_id, (0, 1))


async def test_part_of_unplanned_order_is_not_planned(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 3, 0), ("c", 1, 0))
    cancelled = await cancel(ship, order_id, (0, 2))
    assert (cancelled.status, await outcome(cancelled)) == ("paid", ("done", [(2, 2, 0)]))
    assert await sum_refunds(ship, order_id) == 2 * PRICE
    assert await list_releases(ship, order_id) == [({"a": 2}, {})]
    await ship.work_until_idle()
    shipments = await ship.list_shipments(order_id)
    assert sum(shipment.value_minor for shipment in shipments) == 2 * PRICE
    for shipment in shipments:
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await read_order(ship, order_id) == ("delivered", None)


async def test_booked_shipment_is_stopped_and_its_other_units_are_planned_again(ship: ShippingShop) -> None:
    order_id, [first] = await ship.add_booked_order(("a", 3, 0))
    cancelled = await cancel(ship, order_id, (0, 1))
    assert (cancelled.status, await outcome(cancelled)) == ("fulfilling", ("open", [(1, 0, 0)]))
    assert await sum_refunds(ship, order_id) == 0
    with pytest.raises(NotCancellable, match="2 of 3 can be"):
        await cancel(ship, order_id, (0, 3))
    assert await ship.work_until_idle() == ["cancelled", "advanced", "planned", "booked"]
    assert await statuses(ship, order_id) == ["cancelled", "booked"]
    [_, second] = await ship.list_shipments(order_id)
    assert second.value_minor == 2 * PRICE
    assert await sum_refunds(ship, order_id) == PRICE
    assert await list_releases(ship, order_id) == [({"a": 1}, {})]
    assert await ship.list_worklist("undelivered") == set()
    with pytest.raises(InvalidShipmentState, match="in other shipments by now"):
        await ship.fulfilment.repacking.reship(first.shipment_id, "again", "dan")
    assert ship.carriers["cheap"].current_bookings == {second.booking_id}


async def test_whole_booked_order_ends_once_its_carrier_has_cancelled(ship: ShippingShop) -> None:
    order_id, _ = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    assert (await cancel(ship, order_id)).status == "fulfilling"
    again = await cancel(ship, order_id)
    assert await outcome(again) == ("open", [(1, 0, 0), (2, 0, 0)])
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("cancelled", "by_customer")
    assert await sum_refunds(ship, order_id) == 3 * PRICE
    assert await list_releases(ship, order_id) == [({"a": 1, "c": 2}, {})]
    assert await ship.fetch_value("SELECT status FROM fulfilments WHERE order_id = $1", order_id) == "cancelled"
    assert await ship.fetch_value("SELECT count(*) FROM jobs WHERE queue <> 'releases'") == 0


async def test_carrier_that_has_collected_it_keeps_units_for_a_return(ship: ShippingShop) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    assert first.booking_id is not None
    ship.carriers["cheap"].handed_over = {first.booking_id}
    await cancel(ship, order_id)
    await ship.work_until_idle()
    [story] = await ship.fetch_rows(
        "SELECT reason, details FROM order_events WHERE order_id = $1 AND kind = 'cancellation'", order_id
    )
    assert "back at our expense" in story["reason"]
    assert await ship.fetch_rows("SELECT cancelled, kept FROM cancellation_lines ORDER BY line_no") in (
        [(0, 1), (2, 0)],
        [(1, 0), (0, 2)],
    )
    with pytest.raises(CannotCancel, match="a carrier has all of it: ask for a return when it is delivered"):
        await cancel(ship, order_id)
    line_no = next(line.line_no for line in (await ship.fulfilment.get(first.shipment_id)).lines)
    with pytest.raises(NotCancellable, match="ask for a return when they are delivered"):
        await cancel(ship, order_id, (line_no, 1))
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -1))
    assert await read_order(ship, order_id) == ("delivered", None)
    assert (await ship.get_shipment(second.shipment_id)).status == "cancelled"
    with pytest.raises(CannotCancel, match="ask for a return instead"):
        await cancel(ship, order_id)


async def test_shipment_delivered_and_another_cancelled_completes_order(ship: ShippingShop) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    assert await read_order(ship, order_id) == ("fulfilling", None)
    cancelled = await cancel(ship, order_id)
    units = sum(line.quantity for line in (await ship.fulfilment.get(second.shipment_id)).lines)
    assert await outcome(cancelled) == ("open", [(units, 0, 0)])
    assert await ship.work_until_idle() == ["cancelled", "advanced"]
    assert await read_order(ship, order_id) == ("delivered", None)
    assert await sum_refunds(ship, order_id) == units * PRICE
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["completed"]
    events, has_ended, _ = await ship.shipping.events_after(order_id, "user", 0)
    assert (bool(events), has_ended) == (True, True)


async def test_cancellation_that_refunds_the_rest_of_the_money_ends_the_order(ship: ShippingShop) -> None:
    """Units that were refunded and not cancelled are not left with nothing to be done about them."""
    order_id, _ = await ship.add_booked_order(("a", 2, 0), ("c", 1, 0))
    await refund_as_staff(ship.shop, order_id, lines=[RefundLineInput(line_no=1, quantity=1)])
    await cancel(ship, order_id, (0, 2))
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("cancelled", "refunded")
    assert await sum_refunds(ship, order_id) == 3 * PRICE
    released = [units for units, _ in await list_releases(ship, order_id)]
    assert sorted(sku for units in released for sku, count in units.items() for _ in range(count)) == ["a", "a", "c"]


async def test_repeats_and_invalid_requests_change_nothing(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 3, 0))
    first = await cancel(ship, order_id, (0, 1), key="k")
    assert (await cancel(ship, order_id, (0, 1), key="k")).cancellation == first.cancellation
    for lines in ([(0, 2)], []):
        with pytest.raises(KeyReused):
            await cancel(ship, order_id, *lines, key="k")
    with pytest.raises(Invalid, match="no line 7 for address 0"):
        await cancel(ship, order_id, (7, 1))
    with pytest.raises(NotCancellable, match="2 of 3 can be; the others are cancelled"):
        await cancel(ship, order_id, (0, 2), (0, 1))
    for id_, user in ((UNKNOWN_ID, "user"), (order_id, "other")):
        with pytest.raises(NoSuchOrder):
            await cancel(ship, id_, user=user)
    assert await sum_refunds(ship, order_id) == PRICE
    assert (await cancel(ship, order_id, key="l")).status == "cancelled"
    assert await sum_refunds(ship, order_id) == 3 * PRICE
    assert await list_releases(ship, order_id) == [({"a": 1}, {}), ({"a": 2}, {})]


async def test_coupon_comes_back_with_the_last_units_only(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 2, 0))
    await ship.fetch_rows("INSERT INTO order_coupons (order_id, code) VALUES ($1, 'GIFT') RETURNING 1", order_id)
    await cancel(ship, order_id, (0, 1), key="k")
    assert await list_releases(ship, order_id) == [({"a": 1}, {})]
    await cancel(ship, order_id)
    [_, (units, _)] = await list_releases(ship, order_id)
    assert (units.pop("a"), list(units.values())) == (1, [1])


async def test_open_cancellation_is_listed_with_the_error_that_keeps_it_open(ship: ShippingShop) -> None:
    order_id, _ = await ship.add_booked_order(("a", 1, 0))
    ship.carriers["cheap"].next_outcomes = [refusal()]
    await cancel(ship, order_id)
    await ship.work_until_idle()
    waiting = OpenCancellations(ship.shop.db, ship.shop.clock)
    [item] = await waiting.list_oldest()
    assert (item.cancellation.order_id, item.last_error) == (order_id, "cheap refuses: no_service: not there")
    count, age_s = await waiting.measure()
    assert (count, 0 <= age_s < 60) == (1, True)


async def test_shipment_delivered_before_it_could_be_stopped_keeps_its_units(ship: ShippingShop) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    assert (await cancel(ship, order_id)).status == "fulfilling"
    for shipment in (first, second):
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await read_order(ship, order_id) == ("delivered", None)
    await ship.work_until_idle()
    rows = await ship.fetch_rows("SELECT cancelled, kept FROM cancellation_lines ORDER BY line_no")
    assert [tuple(row) for row in rows] == [(0, 1), (0, 2)]
    assert await ship.fetch_value("SELECT status FROM cancellations") == "done"
    assert await ship.fetch_value("SELECT sum(cancelling) FROM fulfilment_lines") == 0
    assert await sum_refunds(ship, order_id) == 0
