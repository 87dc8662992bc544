"""From a paid order to parcels, and who is to bring each."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.fulfilment.planning import split_amount
from commerce.kernel.address import Address
from commerce.shipping.errors import NoSuchShipment
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.services import CliServices
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import RATES, SHANGHAI, ShippingShop, open_shipping_shop


def considered(parcel: Shipment) -> dict[str, dict[str, Any]]:
    assert parcel.carrier_choice is not None
    return {one["carrier"]: one for one in parcel.carrier_choice["candidates"]}


async def test_two_addresses_two_warehouses(ship: ShippingShop) -> None:
    order_id = await ship.add_order(("a", 2, 0), ("c", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, SHANGHAI])
    assert (await ship.shipping.get_order_shipments(order_id, "user")).unplanned_units == 4
    assert await ship.work_until_idle() == ["planned", "booked", "booked"]
    parcels = await ship.list_shipments(order_id)
    found = [(one.address_no, one.warehouse_id, one.carrier, one.status, one.cod_minor) for one in parcels]
    assert found == [
        (0, "hz", "cheap", "booked", 0),
        (0, "sh", "cheap", "booked", 0),
        (1, "hz", "byhand", "planned", 0),
    ]
    assert await ship.order_status(order_id) == "fulfilling"
    shown = await ship.shipping.get_order_shipments(order_id, "user")
    assert (shown.unplanned_units, [sum(line.quantity for line in one.lines) for one in shown.shipments]) == (
        0,
        [2, 1, 1],
    )
    contents = sorted(list(parcel.contents) for parcel in ship.carriers["cheap"].booking_requests)
    assert contents == [[("thing a", 2)], [("thing c", 1)]]
    # Planned by two at once, and once more later: planned once.
    other = await ship.add_order()
    job = await ship.claim_one()
    assert sorted(await asyncio.gather(ship.work_on(job), ship.work_on(job))) == ["unchanged", "planned"]
    assert await ship.work_on(job) == "unchanged"
    assert len(await ship.list_shipments(other)) == 1


async def test_a_weight_on_a_step(ship: ShippingShop) -> None:
    """A step holds up to its end: 1000 g with the box still cost the lower price."""
    prices = []
    for weight in (880, 881):
        await ship.fetch_rows("UPDATE product_logistics SET weight_g = $1 WHERE sku = 'a' RETURNING 1", weight)
        order_id = await ship.add_order()
        await ship.work_until_idle()
        [parcel] = await ship.list_shipments(order_id)
        prices.append((parcel.weight_g, considered(parcel)["quick"]["price"]))
    assert prices == [(1_000, 2_000), (1_001, 4_000)]


async def test_a_promise_that_cannot_be_kept(ship: ShippingShop) -> None:
    """The soonest brings it, though it is dearer, and the desk sees that it is late."""
    order_id = await ship.add_order(paid_at=datetime.now(UTC) - timedelta(days=20))
    await ship.work_until_idle()
    [parcel] = await ship.list_shipments(order_id)
    assert parcel.carrier == "quick"
    assert parcel.carrier_choice is not None
    assert not parcel.carrier_choice["on_time"]
    assert parcel.expected_on is not None
    assert parcel.expected_on > parcel.promised_on
    await ship.add_booked_order()
    assert await ship.list_worklist("overdue") == {parcel.shipment_id}


async def test_no_table_and_then_carriers_that_nobody_works_with(shop: CliServices, settings: Settings) -> None:
    async with open_shipping_shop(shop, settings, rates="") as ship:
        order_id = await ship.add_order()
        assert await ship.work_until_idle() == ["planned"]
        [parcel] = await ship.list_shipments(order_id)
        assert (parcel.parked, parcel.last_error) == (True, "there is no rate table; import one")
        ghost = "ghost,CN,0,30000,1.00,CNY,1,yes\n"
        await ship.rates.import_table([RATES.splitlines(keepends=True)[0], ghost], "test", "test")
        await ship.fulfilment.retry(parcel.shipment_id, "dan")
        parcel = await ship.get_shipment(parcel.shipment_id)
        assert parcel.parked
        assert parcel.last_error == "no carrier takes it: ghost: the settings do not name it"
        await ship.rates.import_table([*RATES.splitlines(keepends=True), ghost], "test", "test")
        await ship.fulfilment.retry(parcel.shipment_id, "dan")
        assert await ship.work_until_idle() == ["booked"]
        parcel = await ship.get_shipment(parcel.shipment_id)
        assert (parcel.carrier, parcel.parked, parcel.last_error) == ("cheap", False, None)
        assert considered(parcel)["ghost"]["reason"] == "the settings do not name it"
        await ship.check_records()


async def test_an_address_that_lacks_something(ship: ShippingShop) -> None:
    _, [parcel] = await ship.add_booked_order(ship_to=[{**ADDRESS, "province": "", "phone": " "}])
    assert parcel.parked
    assert parcel.last_error == "the address lacks province, phone; change it"
    assert await ship.list_worklist("parked") == {parcel.shipment_id}
    assert await ship.list_worklist("to_pack") == set()
    await ship.fulfilment.redirect(parcel.shipment_id, Address(**ADDRESS), "asked the customer", "dan")
    assert await ship.work_until_idle() == ["booked"]
    assert await ship.list_worklist("parked") == set()
    _, [abroad] = await ship.add_booked_order(ship_to=[{**ADDRESS, "country": "MO", "province": ""}])
    assert abroad.last_error == (
        "no carrier takes it: byhand: does not serve the region; cheap: does not serve the region; "
        "quick: does not serve the region"
    )


async def test_goods_of_which_too_little_is_known(ship: ShippingShop) -> None:
    await ship.fetch_rows("DELETE FROM product_logistics WHERE sku = 'a' RETURNING 1")
    lacking, many, whole = (
        await ship.add_order(),
        await ship.add_order(("b", 401, 0)),
        await ship.add_order(("c", 1, 0)),
    )
    assert sorted(await ship.work_until_idle()) == ["booked", "planned", "cannot_ship", "cannot_ship"]
    why = {one.order_id: one.reason for one in await ship.fulfilment.list_unplanned_orders()}
    assert set(why) == {lacking, many}
    assert why[lacking] == "weight, size and warehouse of a are unknown; import the product logistics"
    assert "needs more than 200 shipments" in why[many]
    assert [await ship.order_status(one) for one in (lacking, many, whole)] == ["paid", "paid", "fulfilling"]
    assert (await ship.fulfilment.count_worklists())["unplanned"] == 2
    await ship.make_all_due()
    assert "cannot_ship" not in await ship.work_until_idle()
    await ship.fetch_rows("INSERT INTO product_logistics VALUES ('a', 'hz', 'A-01', 500, 100, 100, 100) RETURNING 1")
    await ship.fulfilment.retry_planning(lacking)
    assert await ship.work_until_idle() == ["planned", "booked"]
    with pytest.raises(NoSuchShipment, match="not among those"):
        await ship.fulfilment.retry_planning(lacking)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_shares_add_up(amount: int, weights: list[int]) -> None:
    parts = split_amount(amount, weights)
    assert sum(parts) == amount
    assert min(parts) >= 0
    if whole := sum(weights):
        assert all(abs(part * whole - amount * of) <= whole for part, of in zip(parts, weights, strict=True))
    else:
        assert max(parts) - min(parts) <= 1
