"""Shipping over HTTP: a front door that has agreed with the real carriers, and parcels that a test moves by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.fleet.driver_links import make_link
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.services import CliServices
from tests.shipping import kuaidi100_kit, sf_express_kit
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import FakeCarrier, ShippingShop, open_shipping_shop

ZONE = ZoneInfo("Asia/Shanghai")
NINGBO = {**ADDRESS, "city": "Ningbo", "district": "Haishu"}
CARRIER_SETTINGS: dict[str, Any] = {
    "own_fleet": True,
    "sf_express": sf_express_kit.ACCOUNT_SETTINGS,
    "kuaidi100": kuaidi100_kit.ACCOUNT_SETTINGS,
    "kuaidi100_carriers": {"zto": "zhongtong"},
}
RATES = """carrier,region,from_g,to_g,price,currency,days,cod
sf_express,CN,0,30000,10.00,CNY,1,yes
zto,CN/Shanghai,0,30000,5.00,CNY,2,no
own_fleet,CN/Zhejiang/Ningbo,0,30000,3.00,CNY,1,yes
"""
"""Hangzhou (`ADDRESS`) is SF's, Shanghai zto's, which the desk books by itself, and Ningbo the own vans'."""
_numbers = count(1)


class FakeNumberedCarrier(FakeCarrier):
    """Gives numbers in the form of SF's."""

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        known = self.known.get(parcel.booking_id)
        booked = await super().book(parcel)
        number = self.known[parcel.booking_id] = known or f"SF{next(_numbers):013}"
        return BookingConfirmation(number, booked.sort_code)


@dataclass
class ShippingGateway:
    """The front door and the parcels behind it. The driver's part is done by `ship.work()`."""

    gateway: TestGateway
    ship: ShippingShop

    async def staff(self, method: str, path: str, *, role: str = "warehouse", **kwargs: Any) -> GatewayResponse:
        return await self.gateway.call(method, f"/v1/admin{path}", user="ann", roles=[role], **kwargs)

    async def desk(self, shipment_id: UUID | str, what: str, **body: Any) -> GatewayResponse:
        """Do something with a parcel."""
        return await self.staff("POST", f"/shipments/{shipment_id}/{what}", json=body or None)

    async def shipments(self, order_id: UUID, **kwargs: Any) -> GatewayResponse:
        return await self.gateway.call("GET", f"/v1/orders/{order_id}/shipments", **kwargs)

    async def route(self, *stops: Shipment, day: date | None = None, vehicle: str = "V1") -> tuple[UUID, str]:
        """A van's day with these parcels in a row, and the token of its driver's link."""
        day = day or datetime.now(ZONE).date()
        route_id, ship = self.ship.shop.ids.new(), self.ship
        begins = datetime.now(UTC).replace(microsecond=0)
        await ship.rows(
            "INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to) "
            "VALUES ($1, 'hz', 500000, '08:00', '18:00') ON CONFLICT DO NOTHING",
            vehicle,
        )
        await ship.rows(
            "INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, planned_at) "
            "VALUES ($1, $2, $3, 'hz', 12000, $4, $5, now())",
            *(route_id, day, vehicle, begins, begins + timedelta(hours=4)),
        )
        for seq, shipment in enumerate(stops, 1):
            arrives = begins + timedelta(minutes=20 * seq)
            await ship.rows(
                "INSERT INTO route_stops (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, "
                "arrive_at, leave_at) VALUES ($1, $2, $3, 29.87, 121.55, $4, $5, $6, $7)",
                *(route_id, seq, shipment.shipment_id, begins, begins + timedelta(hours=4)),
                *(arrives, arrives + timedelta(minutes=4)),
            )
        return route_id, make_link(self.gateway.settings.driver_link_key(), route_id, day, ZONE)


@asynccontextmanager
async def open_shipping_gateway(
    shop: CliServices, make_settings: Callable[..., Settings], *, agreed: dict[str, Any] | None = None, **parts: Any
) -> AsyncIterator[ShippingGateway]:
    settings = make_settings(shipping=CARRIER_SETTINGS if agreed is None else agreed, **parts)
    async with open_shipping_shop(shop, settings, rates=RATES) as ship, open_gateway(settings) as gateway:
        ship.carriers.clear()
        ship.carriers |= {
            "sf_express": FakeNumberedCarrier("sf_express"),
            "zto": FakeCarrier("zto", accepts_bookings=False, needs_subscription=True),
            "own_fleet": FakeCarrier("own_fleet", is_external=False),
        }
        yield ShippingGateway(gateway, ship)
