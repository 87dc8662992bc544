"""Shipping over HTTP: a gateway with the real adapters, and fake carriers behind the jobs."""

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
from tests.support.fake_carrier import FakeCarrier
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import ShippingShop, open_shipping_shop

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
"""SF serves Hangzhou (`ADDRESS`), zto, which staff book, Shanghai, and our vehicles Ningbo"""
_numbers = count(1)


class FakeNumberedCarrier(FakeCarrier):
    """Returns numbers in SF's format."""

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        existing = self.bookings.get(request.booking_id)
        confirmation = await super().book(request)
        tracking_no = self.bookings[request.booking_id] = existing or f"SF{next(_numbers):013}"
        return BookingConfirmation(tracking_no, confirmation.sort_code)


@dataclass
class ShippingGateway:
    """A gateway and the shop behind it. `ship.work_until_idle()` replaces the fulfilment worker."""

    gateway: TestGateway
    ship: ShippingShop

    async def call_as_staff(self, method: str, path: str, *, role: str = "warehouse", **kwargs: Any) -> GatewayResponse:
        return await self.gateway.call(method, f"/v1/admin{path}", user="ann", roles=[role], **kwargs)

    async def post_action(self, shipment_id: UUID | str, action: str, **body: Any) -> GatewayResponse:
        return await self.call_as_staff("POST", f"/shipments/{shipment_id}/{action}", json=body or None)

    async def get_shipments(self, order_id: UUID, **kwargs: Any) -> GatewayResponse:
        return await self.gateway.call("GET", f"/v1/orders/{order_id}/shipments", **kwargs)

    async def insert_route(self, *stops: Shipment, day: date | None = None, vehicle: str = "V1") -> tuple[UUID, str]:
        """Insert a route with these stops in order. Returns its id and the token of its driver link."""
        day = day or datetime.now(ZONE).date()
        route_id, ship = self.ship.shop.ids.new(), self.ship
        start_at = datetime.now(UTC).replace(microsecond=0)
        await ship.fetch_rows(
            "INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to) "
            "VALUES ($1, 'hz', 500000, '08:00', '18:00') ON CONFLICT DO NOTHING",
            vehicle,
        )
        await ship.fetch_rows(
            "INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, planned_at) "
            "VALUES ($1, $2, $3, 'hz', 12000, $4, $5, now())",
            *(route_id, day, vehicle, start_at, start_at + timedelta(hours=4)),
        )
        for seq, shipment in enumerate(stops, 1):
            arrive_at = start_at + timedelta(minutes=20 * seq)
            await ship.fetch_rows(
                "INSERT INTO route_stops (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, "
                "arrive_at, leave_at) VALUES ($1, $2, $3, 29.87, 121.55, $4, $5, $6, $7)",
                *(route_id, seq, shipment.shipment_id, start_at, start_at + timedelta(hours=4)),
                *(arrive_at, arrive_at + timedelta(minutes=4)),
            )
        return route_id, make_link(self.gateway.settings.driver_link_key(), route_id, day, ZONE)


@asynccontextmanager
async def open_shipping_gateway(
    shop: CliServices,
    make_settings: Callable[..., Settings],
    *,
    carrier_settings: dict[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[ShippingGateway]:
    settings = make_settings(shipping=CARRIER_SETTINGS if carrier_settings is None else carrier_settings, **sections)
    async with open_shipping_shop(shop, settings, rates=RATES) as ship, open_gateway(settings) as gateway:
        ship.carriers.clear()
        ship.carriers |= {
            "sf_express": FakeNumberedCarrier("sf_express"),
            "zto": FakeCarrier("zto", accepts_bookings=False, needs_subscription=True),
            "own_fleet": FakeCarrier("own_fleet", is_external=False),
        }
        yield ShippingGateway(gateway, ship)
