"""Pays orders of the data set and delivers them, by a carrier that exists in the replay only.

So a return can go through a case, whatever rates and carriers the shop has. No external system is called. A fulfilment
worker may plan and book first: then its shipments are delivered. Every step may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.planning import FulfilmentPlanner
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import ProblemError
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection
from commerce.rates.model import Rate, RateTable, RateTableIndex
from commerce.rates.service import Rates
from commerce.shipping import shipment_status
from commerce.shipping import store as shipments
from commerce.shipping.carrier_port import (
    BookingConfirmation,
    BookingRequest,
    CancelOutcome,
    CarrierRegistry,
    TrackingEvent,
)
from commerce.shipping.errors import CannotShip
from commerce.shipping.model import WITH_CARRIER, Shipment, ShipmentStatus
from commerce.warehouses import store as warehouses
from commerce.warehouses.model import ProductLogistics, Warehouse
from loadtest.replay_client import COUNTRIES, ReplayClient
from loadtest.retail_dataset import CURRENCY, Basket
from ops.services import CliServices

ACTOR = "replay"
WAREHOUSE_ID = "replay"
_CARRIER = "replay"
_WAREHOUSE = Warehouse(
    WAREHOUSE_ID,
    "Replay",
    Address(name="Replay", phone="+44 20 0000 0000", country="GB", city="London", line="Dock 1"),
    *(51.5, -0.1),
)
_UNIT_G, _UNIT_MM, _MAX_G = 1, 5, 10**9
_PAID_TIMEOUT_S = 60.0
_DELIVERED_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1
_SKUS_PER_CALL = 500


class SentOrder(NamedTuple):
    """The order of a basket, and its total in pennies."""

    order_id: UUID
    basket: Basket
    total: int


class _StaffBookedCarrier:
    """A carrier with whom staff book. It has no system that could be called."""

    name = system = _CARRIER
    accepts_bookings = collects_returns = is_external = needs_subscription = False
    min_poll_interval_s = 86_400.0

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        return BookingConfirmation(f"REPLAY-{request.booking_id.hex}")

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        return None

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None: ...

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return []


class _FreeRates(Rates):
    """A rate table in memory by which the replay's carrier takes everything, everywhere, for nothing."""

    async def find_current(self, connection: Connection) -> RateTableIndex:
        rates = [Rate(_CARRIER, country, 0, _MAX_G, 0, 1, cod=True) for country in set(COUNTRIES.values())]
        return RateTableIndex(RateTable(0, from_ms(0), ACTOR, ACTOR, CURRENCY, len(rates)), rates)


class ReplayDeliveries:
    """Pays and delivers orders. Problems are returned as texts."""

    def __init__(self, shop: CliServices, client: ReplayClient, key_prefix: str) -> None:
        self._shop = shop
        self._client = client
        self._key_prefix = key_prefix
        policy, carriers = shop.settings.shipping, CarrierRegistry({_CARRIER: _StaffBookedCarrier()}, {})
        self._assignment = CarrierAssignment(_FreeRates(shop.db, shop.clock), carriers, policy)
        self._planner = FulfilmentPlanner(shop.ids, self._assignment, policy)
        self._fulfilment = Fulfilment(shop.db, shop.clock, shop.ids, self._assignment, carriers, policy)

    async def prepare(self, baskets: Iterable[Basket]) -> None:
        """Store a warehouse, and a size for each product of the baskets that has none."""
        skus = sorted({line.sku for basket in baskets for line in basket.lines})
        for first in range(0, len(skus), _SKUS_PER_CALL):
            part = skus[first : first + _SKUS_PER_CALL]
            async with self._shop.db.transaction() as connection:
                stored = await warehouses.product_logistics_of(connection, part)
                await warehouses.upsert_warehouses(connection, [_WAREHOUSE])
                size = _UNIT_G, _UNIT_MM, _UNIT_MM, _UNIT_MM
                new = [ProductLogistics(sku, WAREHOUSE_ID, "R-1", *size) for sku in part if sku not in stored]
                await warehouses.upsert_product_logistics(connection, new)

    async def deliver(self, order: SentOrder) -> str | None:
        """Have an order paid by its customer, and delivered. Returns what prevented it, or None."""
        try:
            return await self._pay(order) or await self._ship(order)
        except ProblemError as error:
            return f"cannot be delivered: {error}"

    async def _pay(self, order: SentOrder) -> str | None:
        """Grant the customer of an order the credit that it costs, and pay it."""
        user_id, key = order.basket.user_id, f"replay-{self._key_prefix}-{order.basket.invoice}"
        headers, path = self._client.create_headers(user_id), f"/v1/orders/{order.order_id}"
        if order.total:
            await self._shop.payments.grant_store_credit(user_id, Money(order.total, CURRENCY), key)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PAID_TIMEOUT_S
        is_started = False
        while True:
            reply = await self._client.send("GET", path, headers)
            if reply.status == 200 and reply.body["status"] not in ("accepted", "awaiting_payment"):
                return None if reply.body["status"] != "cancelled" else "is cancelled"
            if reply.status == 200 and not is_started:
                started = await self._client.send("POST", f"{path}/payments", headers, {"payments": []})
                if started.status != 200:
                    return f"cannot be paid: {started.problem}"
                is_started = True
            if loop.time() > deadline:
                return f"is not paid after {_PAID_TIMEOUT_S:.0f} s; does a payment worker run?"
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _ship(self, order: SentOrder) -> str | None:
        """Plan an order, unless a worker has, and deliver its shipments."""
        async with self._shop.db.transaction() as connection:
            planned = await self._planner.plan(connection, order.order_id, from_ms(self._shop.clock.now_ms()))
        if isinstance(planned, CannotShip):
            return f"cannot be shipped: {planned}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DELIVERED_TIMEOUT_S
        while open_shipments := await self._list_open(order.order_id):
            for shipment in open_shipments:
                await self._advance(shipment)
            if loop.time() > deadline:
                numbers = ", ".join(str(shipment.parcel_no) for shipment in open_shipments)
                return f"is not delivered after {_DELIVERED_TIMEOUT_S:.0f} s: shipments {numbers}"
            await asyncio.sleep(0 if planned == "planned" else _POLL_INTERVAL_S)
        return None

    async def _list_open(self, order_id: UUID) -> Sequence[Shipment]:
        async with self._shop.db.connection() as connection:
            rows = await shipments.list_shipments(connection, order_id)
        return [shipment for shipment in rows if shipment.ended_at is None]

    async def _advance(self, shipment: Shipment) -> None:
        """Take a shipment one step towards its delivery. Those that a worker is booking are left alone."""
        id_ = shipment.shipment_id
        if shipment.status in (ShipmentStatus.BOOKED, *WITH_CARRIER):
            await self._fulfilment.set_outcome(id_, ShipmentStatus.DELIVERED, "delivered, as the file says", ACTOR)
        elif shipment.carrier == _CARRIER:
            await self._fulfilment.pack(id_, f"REPLAY-{id_.hex}", ACTOR)
        elif shipment.carrier is None:
            async with self._shop.db.transaction() as connection:
                _, locked = await shipment_status.lock_shipment(connection, id_)
                if locked.status is ShipmentStatus.PLANNED and locked.carrier is None:
                    await self._assignment.assign(connection, locked, from_ms(self._shop.clock.now_ms()))
