"""Planning of paid orders: shipments, carriers, and orders that cannot be planned."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.fulfilment.errors import NotToBePlanned
from commerce.fulfilment.planning import split_amount
from commerce.jobs.model import JobKey
from commerce.kernel.address import Address
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.services import CliServices
from tests.support.refusing_rows import refuse_updates
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import RATES, SHANGHAI, ShippingShop, open_shipping_shop


def candidates_of(shipment: Shipment) -> dict[str, dict[str, Any]]:
    assert shipment.carrier_choice is not None
    return {candidate["carrier"]: candidate for candidate in shipment.carrier_choice["candidates"]}


async def test_plan_order_with_two_addresses_and_warehouses_makes_three_shipments(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 2, 0), ("c", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, SHANGHAI])
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 4
    assert await ship.work_until_idle() == ["planned", "booked", "booked"]
    shipments = await ship.list_shipments(order_id)
    rows = [(each.address_no, each.warehouse_id, each.carrier, each.status, each.cod_minor) for each in shipments]
    assert rows == [
        (0, "hz", "cheap", "booked", 0),
        (0, "sh", "cheap", "booked", 0),
        (1, "hz", "byhand", "planned", 0),
    ]
    assert await ship.order_status(order_id) == "fulfilling"
    shown = await ship.shipping.get_order_shipments(order_id, "user")
    assert (shown.unplanned_units, [sum(line.quantity for line in view.lines) for view in shown.shipments]) == (
        0,
        [2, 1, 1],
    )
    contents = sorted(list(request.contents) for request in ship.carriers["cheap"].booking_requests)
    assert contents == [[("thing a", 2)], [("thing c", 1)]]
    # Two concurrent workers and a later repeat plan the order once.
    other = await ship.add_order()
    job = await ship.claim_one()
    assert sorted(await asyncio.gather(ship.work_on(job), ship.work_on(job))) == ["planned", "unchanged"]
    assert await ship.work_on(job) == "unchanged"
    assert len(await ship.list_shipments(other)) == 1


async def test_weight_at_step_end_costs_lower_price(ship: ShippingShop) -> None:
    """A step includes its end: 1000 g with the box cost the lower price."""
    prices = []
    for weight in (880, 881):
        await ship.fetch_rows("UPDATE variants SET weight_g = $1 WHERE sku = 'a' RETURNING 1", weight)
        order_id = await ship.add_order()
        await ship.work_until_idle()
        [shipment] = await ship.list_shipments(order_id)
        prices.append((shipment.weight_g, candidates_of(shipment)["quick"]["price"]))
    assert prices == [(1_000, 2_000), (1_001, 4_000)]


async def test_late_shipment_gets_fastest_carrier_and_is_overdue(ship: ShippingShop) -> None:
    """The fastest carrier is chosen though it is dearer, and the shipment is on the worklist `overdue`."""
    order_id = await ship.add_order(paid_at=datetime.now(UTC) - timedelta(days=20))
    await ship.work_until_idle()
    [shipment] = await ship.list_shipments(order_id)
    assert shipment.carrier == "quick"
    assert shipment.carrier_choice is not None
    assert not shipment.carrier_choice["on_time"]
    assert shipment.expected_on is not None
    assert shipment.expected_on > shipment.promised_on
    await ship.add_booked_order()
    assert await ship.list_worklist("overdue") == {shipment.shipment_id}


async def test_missing_rate_table_or_unconfigured_carrier_parks_shipment_until_retry(
    shop: CliServices, settings: Settings
) -> None:
    async with open_shipping_shop(shop, settings, rates="") as ship:
        order_id = await ship.add_order()
        assert await ship.work_until_idle() == ["planned"]
        [shipment] = await ship.list_shipments(order_id)
        job = await ship.get_job(shipment.shipment_id)
        assert (job.parked, job.last_error) == (True, "there is no rate table; import one")
        ghost = "ghost,CN,0,30000,1.00,CNY,1,yes\n"
        await ship.rates.import_table([RATES.splitlines(keepends=True)[0], ghost], "test", "test")
        await ship.retry(shipment.shipment_id)
        assert await ship.work_until_idle() == ["no_carrier"]
        job = await ship.get_job(shipment.shipment_id)
        assert job.parked
        assert job.last_error == "no carrier takes it: ghost: the settings do not name it"
        await ship.rates.import_table([*RATES.splitlines(keepends=True), ghost], "test", "test")
        await ship.retry(shipment.shipment_id)
        assert await ship.work_until_idle() == ["assigned", "booked"]
        shipment = await ship.get_shipment(shipment.shipment_id)
        job = await ship.get_job(shipment.shipment_id)
        assert (shipment.carrier, job.parked, job.last_error) == ("cheap", False, None)
        assert candidates_of(shipment)["ghost"]["reason"] == "the settings do not name it"
        await ship.check_records()


async def test_incomplete_address_parks_shipment_until_redirect(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order(ship_to=[{**ADDRESS, "province": "", "phone": " "}])
    job = await ship.get_job(shipment.shipment_id)
    assert job.parked
    assert job.last_error == "the address lacks province, phone; change it"
    assert await ship.list_worklist("parked") == {shipment.shipment_id}
    assert await ship.list_worklist("to_pack") == set()
    await ship.fulfilment.redirect(shipment.shipment_id, Address(**ADDRESS), "asked the customer", "dan")
    assert await ship.work_until_idle() == ["booked"]
    assert await ship.list_worklist("parked") == set()
    _, [abroad] = await ship.add_booked_order(ship_to=[{**ADDRESS, "country": "MO", "province": ""}])
    assert (await ship.get_job(abroad.shipment_id)).last_error == (
        "no carrier takes it: byhand: does not serve the region; cheap: does not serve the region; "
        "quick: does not serve the region"
    )


async def test_order_without_product_logistics_or_with_too_many_boxes_is_unplanned(ship: ShippingShop) -> None:
    await ship.fetch_rows("DELETE FROM product_logistics WHERE sku = 'a' RETURNING 1")
    lacking, many, whole = (
        await ship.add_order(),
        await ship.add_order(("b", 401, 0)),
        await ship.add_order(("c", 1, 0)),
    )
    assert sorted(await ship.work_until_idle()) == ["booked", "cannot_ship", "cannot_ship", "planned"]
    reasons = {order.order_id: order.reason for order in await ship.fulfilment.list_unplanned_orders()}
    assert set(reasons) == {lacking, many}
    assert reasons[lacking] == "weight, size and warehouse of a are unknown; import the product logistics"
    assert "needs more than 200 shipments" in reasons[many]
    assert [await ship.order_status(order_id) for order_id in (lacking, many, whole)] == ["paid", "paid", "fulfilling"]
    assert (await ship.fulfilment.count_worklists())["unplanned"] == 2
    await ship.make_all_due()
    assert "cannot_ship" not in await ship.work_until_idle()
    await ship.fetch_rows("INSERT INTO product_logistics VALUES ('a', 'hz', 'A-01') RETURNING 1")
    with pytest.raises(NotToBePlanned, match=f"floodgate jobs retry fulfilments {lacking}"):
        await ship.fulfilment.replan(lacking)
    await ship.shop.jobs.retry_one(JobKey("fulfilments", lacking), "dan")
    assert await ship.work_until_idle() == ["planned", "booked"]
    with pytest.raises(NotToBePlanned, match="is planned already"):
        await ship.fulfilment.replan(lacking)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_split_amount_shares_add_up_and_are_proportional(amount: int, weights: list[int]) -> None:
    parts = split_amount(amount, weights)
    assert sum(parts) == amount
    assert min(parts) >= 0
    if whole := sum(weights):
        assert all(abs(part * whole - amount * weight) <= whole for part, weight in zip(parts, weights, strict=True))
    else:
        assert max(parts) - min(parts) <= 1


async def test_orders_of_one_claim_are_planned_in_one_transaction(ship: ShippingShop) -> None:
    """Those that cannot be planned, or must not be shipped, are left out; a locked one waits alone."""
    orders = [await ship.add_order(("a", 2, 0), ("c", 1, 0), cod=100, user=f"u{number}") for number in range(8)]
    refunded, incomplete, locked = await ship.add_order(), await ship.add_order(("b", 1, 0)), await ship.add_order()
    await ship.refund_all(refunded)
    await ship.fetch_rows("DELETE FROM product_logistics WHERE sku = 'b' RETURNING 1")
    [jobs] = await ship.jobs.orders.claim(100, {})
    async with ship.shop.db.transaction() as connection:
        await connection.execute("SELECT FROM orders WHERE order_id = $1 FOR UPDATE", locked)
        working = asyncio.create_task(ship.jobs.orders.work(jobs))

        async def are_planned() -> bool:
            return bool(await ship.fetch_value("SELECT count(*) = 8 FROM fulfilments WHERE status = 'planned'"))

        await eventually(are_planned)
        assert not working.done()
    words = {job.subject: result.word for job, result in zip(jobs, await working, strict=True)}
    assert words == dict.fromkeys([*orders, locked], "planned") | {refunded: "stopped", incomplete: "cannot_ship"}
    query = "SELECT count(DISTINCT xmin::text) FROM order_events WHERE to_status = 'fulfilling'"
    assert await ship.fetch_value(query) == 2
    [job] = await ship.fetch_rows("SELECT parked, last_error FROM jobs WHERE queue = 'fulfilments'")
    assert (job["parked"], "weight, size and warehouse of b" in job["last_error"]) == (True, True)
    for order_id in orders:
        shipments = await ship.list_shipments(order_id)
        assert [(each.parcel_no, each.carrier, each.value_minor, each.cod_minor) for each in shipments] == [
            (1, "cheap", 200, 66),
            (2, "cheap", 100, 34),
        ]
    await ship.work_until_idle()
    await ship.check_records()


async def test_order_that_fails_in_planning_stops_no_other_of_its_claim(ship: ShippingShop) -> None:
    orders = [await ship.add_order(user=f"u{number}") for number in range(4)]
    async with ship.shop.db.connection() as connection:
        await refuse_updates(connection, "fulfilments", f"OLD.order_id = '{orders[1]}'")
    [jobs] = await ship.jobs.orders.claim(100, {})
    results = await ship.jobs.orders.work(jobs)
    words = {job.subject: result.word for job, result in zip(jobs, results, strict=True)}
    assert words == dict.fromkeys(orders, "planned") | {orders[1]: "error"}
