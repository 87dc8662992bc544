"""From a paid order to parcels."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from config.settings import Settings
from ops.commands.common import Shop
from tests.support.shipshop import SHANGHAI, ShipShop, open_shipshop
from tests.support.shop import ADDRESS


@pytest.fixture
async def ship(shop: Shop, settings: Settings) -> AsyncIterator[ShipShop]:
    async with open_shipshop(shop, settings) as found:
        yield found


async def test_two_addresses_two_warehouses(ship: ShipShop) -> None:
    order_id = await ship.order(("a", 2, 0), ("c", 1, 0), ("a", 1, 1), ship_to=[ADDRESS, SHANGHAI])
    assert await ship.work() == ["planned", "booked", "booked"]
    parcels = await ship.parcels(order_id)
    found = [(one.address_no, one.warehouse_id, one.carrier, one.status, one.cod_minor) for one in parcels]
    assert found == [
        (0, "hz", "cheap", "booked", 0),
        (0, "sh", "cheap", "booked", 0),
        (1, "hz", "byhand", "planned", 0),
    ]
    assert await ship.status(order_id) == "fulfilling"


async def test_to_the_door(ship: ShipShop) -> None:
    from tests.support.shipshop import news

    order_id, [parcel] = await ship.sent(("a", 3, 0), cod=300)
    assert parcel.cod_minor == 300
    heard = await ship.hear(parcel.shipment_id, news("in_transit", -30), news("picked_up", -60))
    assert heard.result == "moved"
    assert await ship.status(order_id) == "shipped"
    heard = await ship.hear(parcel.shipment_id, news("delivered", -1))
    assert await ship.status(order_id) == "delivered"
    assert await ship.value("SELECT status FROM payments WHERE order_id = $1", order_id) == "captured"
    await ship.due()
    assert "completed" in await ship.work()
